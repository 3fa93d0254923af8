//! Text that users send: blank, odd, decomposed, huge. (Non-strings and lone surrogates exist in
//! JavaScript only and are tested there.)
#![cfg(feature = "cli")]

mod golden_files;

use std::sync::LazyLock;

use golden_files::{SMALL, repository, small};
use munjang::convert::{ConvertOptions, Manifest, read_checkpoint};
use munjang::{Encoder, format};
use unicode_normalization_alignments::UnicodeNormalization;

/// The shipped model and one of each architecture.
static ENCODERS: LazyLock<Vec<(&str, Encoder)>> = LazyLock::new(|| {
    let (_, bytes) = Manifest::read_model(&repository().join("models/manifest.json")).unwrap();
    let mut encoders = vec![("shipped", Encoder::from_bytes(bytes).unwrap())];
    for name in SMALL {
        let model = read_checkpoint(&small(name), &ConvertOptions::default()).unwrap();
        encoders.push((name, Encoder::from_bytes(format::write(&model).unwrap()).unwrap()));
    }
    encoders
});

/// The embedding, checked to be one.
fn embedding(name: &str, encoder: &Encoder, text: &str) -> Vec<f32> {
    let embedding = encoder.encode(text).unwrap_or_else(|e| panic!("{name}: {text:.40?}: {e}"));
    assert_eq!(embedding.len(), encoder.config().hidden_size);
    let length: f32 = embedding.iter().map(|x| x * x).sum();
    assert!((length - 1.0).abs() < 1e-4, "{name}: {text:.40?} has length {length}");
    embedding
}

#[test]
fn blank_and_odd_texts_have_embeddings() {
    for (name, encoder) in ENCODERS.iter() {
        for text in ["", " ", "\n\t\u{3000}", "\0", "\0\0가\0", "\u{feff}", "\u{10ffff}", "\u{301}"]
        {
            embedding(name, encoder, text);
        }
        // Blank texts are one text to a tokenizer that strips.
        if *name == "shipped" {
            assert_eq!(encoder.encode("").unwrap(), encoder.encode(" \n ").unwrap());
        }
    }
}

#[test]
fn decomposed_hangul_has_the_vector_of_composed() {
    for (name, encoder) in ENCODERS.iter() {
        for text in ["한국어 문장입니다.", "값싼 닭볶음탕", "서울 café 뷁"] {
            let decomposed: String = text.nfd().map(|(c, _)| c).collect();
            assert_ne!(decomposed, text);
            assert_eq!(
                embedding(name, encoder, &decomposed),
                embedding(name, encoder, text),
                "{name}: {text}"
            );
        }
    }
}

#[test]
fn a_million_characters_are_cut_and_reported() {
    let million = |unit: &str| unit.repeat(1_000_000 / unit.chars().count());
    for (name, encoder) in ENCODERS.iter() {
        let max = encoder.config().max_position_embeddings;
        for unit in ["가", "안녕하세요 ", "\u{1112}\u{1161}\u{11ab}"] {
            let text = million(unit);
            let encoded = encoder.encode_batch(&[&text]).unwrap();
            let tokens = encoder.token_ids(&text).unwrap().len();
            // A word of a million letters is a single unknown token to WordPiece.
            if tokens == max {
                assert!(encoded.truncated[0], "{name}: {unit:?}");
                assert!(encoded.token_counts[0] as usize > max);
            } else {
                // Not all of it was read.
                assert!(encoded.truncated[0] && tokens < max, "{name}: {unit:?}");
                assert_eq!(encoded.token_counts[0] as usize, tokens + 1);
            }
            // What is kept is what a text of the kept length gives.
            if unit == "안녕하세요 " {
                let shorter = "안녕하세요 ".repeat(max + 100);
                assert_eq!(encoder.encode(&text).unwrap(), encoder.encode(&shorter).unwrap());
                assert!(encoder.count_tokens(&text).unwrap() >= 1_000_000 / 6);
            }
        }
    }
}

#[test]
fn what_lies_beyond_two_to_the_nineteen_characters_is_cut_and_reported() {
    let (_, encoder) = &ENCODERS[0];
    for unit in [" ", "\0", "😀", "\u{200b}"] {
        let most = unit.repeat(1 << 19);
        let beyond = format!("{most}가");
        let whole = encoder.encode_batch(&[&most]).unwrap();
        let cut = encoder.encode_batch(&[&beyond]).unwrap();
        assert_eq!(whole.embeddings, cut.embeddings);
        assert_eq!(whole.token_counts[0] + 1, cut.token_counts[0]);
        assert!(cut.truncated[0]);
    }
}

#[test]
fn half_a_million_blanks_or_unknown_characters_are_read_to_their_end() {
    let (name, encoder) = &ENCODERS[0];
    let same = |text: String, short: &str| {
        assert_eq!(embedding(name, encoder, &text), embedding(name, encoder, short), "{short:?}");
    };
    same(" ".repeat(500_000) + "가", "가");
    same("\0".repeat(500_000) + " 가", "\0 가");
    same("😀".repeat(500_000) + " 가", "😀 가");
}

#[test]
fn many_sentences_at_once_keep_their_order() {
    let (_, encoder) = &ENCODERS[1];
    let texts: Vec<String> = (0..100_000).map(|i| format!("문장 {}", i % 100)).collect();
    let encoded = encoder.encode_batch(&texts).unwrap();
    let hidden = encoder.config().hidden_size;
    assert_eq!(encoded.embeddings.len(), 100_000 * hidden);
    for i in [0, 1, 99, 65_537, 99_999] {
        assert_eq!(encoded.embeddings[i * hidden..][..hidden], encoder.encode(&texts[i]).unwrap());
    }
    let none = encoder.encode_batch::<&str>(&[]).unwrap();
    assert!(none.embeddings.is_empty() && none.token_counts.is_empty());
}

#[test]
fn one_encoder_serves_many_threads() {
    let (_, encoder) = &ENCODERS[2];
    let expected = encoder.encode("여러 실에서 부른다").unwrap();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..20 {
                    assert_eq!(encoder.encode("여러 실에서 부른다").unwrap(), expected);
                }
            });
        }
    });
}
