//! munjang against PyTorch and transformers (see `fixtures/README.md`).

#![cfg(feature = "cli")]

mod golden_files;
#[path = "golden_files/reference.rs"]
mod reference;

use golden_files::{Golden, SMALL, corpus, cosine, fixtures, repository, sentences, small};
use munjang::config::Pooling;
use munjang::convert::{ConvertOptions, Manifest, read_checkpoint};
use munjang::tokenizer::Tokenizer;
use munjang::weights::FloatModel;
use munjang::{Encoder, format};

fn small_model(name: &str, pooling: Pooling) -> FloatModel {
    let options = ConvertOptions { pooling: Some(pooling), ..Default::default() };
    read_checkpoint(&small(name), &options).unwrap()
}

fn small_golden(name: &str) -> Golden {
    Golden::read(fixtures().join(format!("small/{name}.safetensors")))
}

fn shipped() -> Encoder {
    let (_, bytes) = Manifest::read_model(&repository().join("models/manifest.json")).unwrap();
    Encoder::from_bytes(bytes).unwrap()
}

fn tokenizer(model: &FloatModel) -> Tokenizer {
    let config = &model.config;
    let max = config.max_position_embeddings;
    Tokenizer::from_bytes(&model.tokenizer_json, &config.prefix, max).unwrap()
}

fn assert_ids(name: &str, golden: &Golden, ids_of: impl Fn(&str) -> Vec<u32>) {
    let sentences = sentences();
    let expected = golden.ids();
    assert_eq!(sentences.len(), expected.len());
    for (text, expected) in sentences.iter().zip(expected) {
        assert_eq!(ids_of(text), expected, "{name}: {text:.60?}");
    }
    let lines = corpus();
    let expected = golden.u32s("corpus_crc32");
    assert!(lines.len() >= 10_000);
    assert_eq!(lines.len(), expected.len());
    let differing: Vec<&String> = lines
        .iter()
        .zip(expected)
        .filter(|(line, expected)| {
            let mut crc = flate2::Crc::new();
            for id in ids_of(line) {
                crc.update(&id.to_le_bytes());
            }
            crc.sum() != *expected
        })
        .map(|(line, _)| line)
        .collect();
    assert!(
        differing.is_empty(),
        "{name}: ids of {} of {} sentences differ, the first: {:?}",
        differing.len(),
        lines.len(),
        differing[0]
    );
}

/// The lowest cosine between the encoder's embeddings and the golden ones.
fn lowest_cosine(name: &str, encoder: &Encoder, golden: &Golden, tensor: &str) -> f64 {
    let sentences = sentences();
    let ours = encoder.encode_batch(&sentences).unwrap().embeddings;
    let expected = golden.f32s(tensor);
    let hidden = encoder.config().hidden_size;
    assert_eq!(ours.len(), expected.len());
    let cosines: Vec<f64> = ours
        .chunks_exact(hidden)
        .zip(expected.chunks_exact(hidden))
        .map(|(ours, expected)| cosine(ours, expected))
        .collect();
    let (at, lowest) =
        cosines.iter().copied().enumerate().min_by(|a, b| a.1.total_cmp(&b.1)).unwrap();
    println!(
        "{name} {tensor}: lowest cosine {lowest:.6} ({:.30?}), mean {:.6}",
        sentences[at],
        cosines.iter().sum::<f64>() / cosines.len() as f64
    );
    lowest
}

#[test]
fn token_ids_of_every_kind_of_tokenizer() {
    for name in SMALL {
        let model = small_model(name, Pooling::Mean);
        let tokenizer = tokenizer(&model);
        assert_ids(name, &small_golden(name), |text| tokenizer.encode(text).unwrap().ids);
    }
}

#[test]
fn token_ids_of_the_shipped_model() {
    let encoder = shipped();
    let golden = Golden::read(fixtures().join("shipped.safetensors"));
    assert_ids("shipped", &golden, |text| encoder.token_ids(text).unwrap());
}

/// Float weights against float weights: what quantization would hide (a layer's epsilon, tanh for
/// erf, a position off by one) shows here.
#[test]
fn converted_weights_give_the_golden_embeddings() {
    for name in SMALL {
        let golden = small_golden(name);
        let ids = golden.ids();
        for (pooling, tensor) in
            [(Pooling::Mean, "embeddings_mean"), (Pooling::Cls, "embeddings_cls")]
        {
            let model = small_model(name, pooling);
            let hidden = model.config.hidden_size;
            let expected = golden.f32s(tensor);
            for (ids, expected) in ids.iter().zip(expected.chunks_exact(hidden)) {
                let ours = reference::embed(&model, ids);
                for (ours, expected) in ours.iter().zip(expected) {
                    assert!((ours - expected).abs() < 1e-5, "{name} {tensor}: {ours} {expected}");
                }
            }
        }
    }
}

#[test]
fn quantized_small_models_stay_near_float() {
    for name in SMALL {
        let golden = small_golden(name);
        for (pooling, tensor) in
            [(Pooling::Mean, "embeddings_mean"), (Pooling::Cls, "embeddings_cls")]
        {
            let bytes = format::write(&small_model(name, pooling)).unwrap();
            let encoder = Encoder::from_bytes(bytes).unwrap();
            let lowest = lowest_cosine(name, &encoder, &golden, tensor);
            // Measured 0.9965 and up; narrow random layers average errors out less than real ones.
            assert!(lowest >= 0.995, "{name} {tensor}: {lowest}");
        }
    }
}

#[test]
fn shipped_model_is_float_to_three_nines() {
    let golden = Golden::read(fixtures().join("shipped.safetensors"));
    let lowest = lowest_cosine("shipped", &shipped(), &golden, "embeddings_mean");
    assert!(lowest >= 0.999, "{lowest}");
}

/// Similarities, not only directions: what a user sees. How much of an error shows depends on how far the
/// similarities lie apart (a model whose embeddings share most of their length has them within a tenth).
#[test]
fn shipped_similarities_follow_float() {
    let golden = Golden::read(fixtures().join("shipped.safetensors")).f32s("embeddings_mean");
    let encoder = shipped();
    let hidden = encoder.config().hidden_size;
    let ours = encoder.encode_batch(&sentences()).unwrap().embeddings;
    let expected = munjang::search::similarity_matrix(&golden, &golden, hidden);
    let ours = munjang::search::similarity_matrix(&ours, &ours, hidden);
    let errors = || ours.iter().zip(&expected).map(|(a, b)| f64::from((a - b).abs()));
    let mean = errors().sum::<f64>() / ours.len() as f64;
    let max = errors().fold(0.0, f64::max);
    let apart = |(index, &x): (usize, &f32)| {
        let rows = expected.len().isqrt();
        (index / rows != index % rows).then_some(f64::from(x))
    };
    let others: Vec<f64> = expected.iter().enumerate().filter_map(apart).collect();
    let middle = others.iter().sum::<f64>() / others.len() as f64;
    let spread = others.iter().map(|x| (x - middle).powi(2)).sum::<f64>() / others.len() as f64;
    let spread = spread.sqrt();
    println!("similarity error: mean {mean:.5}, max {max:.5}; they spread by {spread:.3}");
    assert!(mean < 0.02 * spread && max < 0.1 * spread, "mean {mean}, max {max} of {spread}");
}

#[test]
fn ids_and_text_agree_alone_and_in_a_batch() {
    let encoder = shipped();
    let sentences = sentences();
    let ids: Vec<Vec<u32>> =
        sentences.iter().map(|text| encoder.token_ids(text).unwrap()).collect();
    let batch = encoder.encode_batch(&sentences).unwrap();
    assert_eq!(encoder.encode_ids(&ids).unwrap(), batch.embeddings);
    let hidden = encoder.config().hidden_size;
    for (row, text) in sentences.iter().enumerate() {
        let alone = encoder.encode(text).unwrap();
        assert_eq!(alone, batch.embeddings[row * hidden..][..hidden], "{text:.60?}");
        let max = encoder.config().max_position_embeddings;
        assert_eq!(batch.truncated[row], batch.token_counts[row] as usize > max);
        if !batch.truncated[row] {
            assert_eq!(encoder.count_tokens(text).unwrap(), ids[row].len());
        }
    }
    assert!(batch.truncated[sentences.len() - 1]);
}
