//! Tests of the face, over each of the kinds of tokenizers.

use super::*;

fn unigram() -> String {
    serde_json::json!({
        "version": "1.0",
        "truncation": {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0},
        "padding": {"strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": null,
                    "pad_id": 1, "pad_type_id": 0, "pad_token": "<pad>"},
        "added_tokens": [],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "},
            {"type": "Strip", "strip_left": true, "strip_right": true}]},
        "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true},
        "post_processor": {"type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                       {"SpecialToken": {"id": "</s>", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]},
                               "</s>": {"id": "</s>", "ids": [2], "tokens": ["</s>"]}}},
        "decoder": null,
        "model": {"type": "Unigram", "unk_id": 3, "byte_fallback": false, "vocab": [
            ["<s>", 0.0], ["<pad>", 0.0], ["</s>", 0.0], ["<unk>", 0.0],
            ["▁", -3.4635426998138428], ["가", -4.0], ["나", -4.0], ["가나", -5.0], ["▁가", -4.5], ["q", -5.0], [":", -5.0]]}
    })
    .to_string()
}

fn tokenizer(prefix: &str, max_tokens: usize) -> Tokenizer {
    Tokenizer::from_bytes(unigram().as_bytes(), prefix, max_tokens).unwrap()
}

/// The same through `tokenizers`.
#[cfg(feature = "general-tokenizers")]
fn reference(json: &[u8], prefix: &str, max_tokens: usize) -> Tokenizer {
    Tokenizer::from_general_json(json, prefix, max_tokens).unwrap()
}

/// Texts of characters that normalizers, word splitting and unknown pieces care about.
fn odd_texts(count: usize) -> Vec<String> {
    let alphabet: Vec<char> = "가나다한글값뷁ㄱㅏㄳ　 \t\n\r\u{b}\u{85}\u{a0}\u{2028}\u{200b}\u{feff}\u{2581}\
        \u{0}\u{1}\u{7f}\u{8f}\u{301}\u{1100}\u{1161}\u{11a8}\u{11aa}\u{ffa1}\u{ffc2}ﬁ½①㈜ＡaZ09.,!?:<s></s><unk>qé\
        Å😀👍🏽\u{200d}\u{fe0f}日本語中文\u{10ffff}\u{e000}\u{fffd}   "
        .chars()
        .collect();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move |bound: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % bound as u64) as usize
    };
    (0..count)
        .map(|_| {
            let mut text: String = (0..next(40)).map(|_| alphabet[next(alphabet.len())]).collect();
            if next(4) == 0 {
                text.push_str(["<s>", "</s>", "<unk>", "<pad>", "<<s>>"][next(5)]);
                text.push_str(["", " ", "가", "<s>"][next(4)]);
            }
            text
        })
        .collect()
}

#[cfg(feature = "general-tokenizers")]
#[test]
fn own_unigram_gives_the_ids_of_tokenizers() {
    let with_added_tokens = unigram().replace(
        r#""added_tokens":[]"#,
        r#""added_tokens":[{"id":0,"content":"<s>","single_word":false,"lstrip":false,"rstrip":false,
            "normalized":false,"special":true},{"id":3,"content":"<unk>","single_word":false,
            "lstrip":false,"rstrip":false,"normalized":false,"special":true}]"#,
    );
    let with_nfkc = with_added_tokens.replace(
        r#"{"content":" ","pattern":{"Regex":" {2,}"},"type":"Replace"}"#,
        r#"{"content":"","pattern":{"Regex":"[\\x{1}\\x{7F}]"},"type":"Replace"},
           {"content":" ","pattern":{"Regex":"[\\x{9}\\x{A}\\x{200B}\\x{2581}]"},"type":"Replace"},
           {"type":"NFKC"},{"content":"나","pattern":{"String":"다"},"type":"Replace"},
           {"content":" ","pattern":{"Regex":" {2,}"},"type":"Replace"}"#,
    );
    assert!(with_nfkc.len() > with_added_tokens.len() && with_added_tokens.len() > unigram().len());
    for json in [unigram(), with_added_tokens, with_nfkc] {
        let ours = Tokenizer::from_bytes(json.as_bytes(), "q: ", 64).unwrap();
        assert!(matches!(ours.kind, Kind::Unigram(..)));
        let reference = reference(json.as_bytes(), "q: ", 64);
        assert_eq!(ours.vocab_size(), reference.vocab_size());
        for text in odd_texts(4000) {
            assert_eq!(ours.encode(&text).unwrap(), reference.encode(&text).unwrap(), "{text:?}");
        }
    }
}

#[cfg(feature = "general-tokenizers")]
#[test]
fn what_our_unigram_does_not_know_is_left_to_tokenizers() {
    let change = |from: &str, to: &str| {
        let json = unigram();
        assert!(json.contains(from), "{json}");
        let json = json.replace(from, to);
        let tokenizer = Tokenizer::from_bytes(json.as_bytes(), "", 64).unwrap();
        assert!(matches!(tokenizer.kind, Kind::General(_)), "{to}");
        let reference = reference(json.as_bytes(), "", 64);
        // Through the compact form as well.
        let stored = Tokenizer::from_bytes(&compact(json.as_bytes()), "", 64).unwrap();
        for text in odd_texts(300) {
            let expected = reference.encode(&text).unwrap();
            assert_eq!(tokenizer.encode(&text).unwrap(), expected, "{text:?}");
            assert_eq!(stored.encode(&text).unwrap(), expected, "{text:?}");
        }
    };
    change(r#""prepend_scheme":"always""#, r#""prepend_scheme":"first""#);
    change(r#""split":true"#, r#""split":false"#);
    change(r#"" {2,}""#, r#""\\s+""#);
    change(r#"{"strip_left":true,"strip_right":true,"type":"Strip"}"#, r#"{"type":"Lowercase"}"#);
}

#[cfg(not(feature = "general-tokenizers"))]
#[test]
fn what_only_tokenizers_knows_is_told_from_what_is_none() {
    let code = |json: &[u8]| {
        Tokenizer::from_bytes(json, "", 64)
            .map(drop)
            .map_err(|error| (error.code(), format!("{error:#}")))
    };
    code(unigram().as_bytes()).unwrap();
    let odd = unigram().replace(r#""split":true"#, r#""split":false"#);
    let word_piece = r#"{"model":{"type":"WordPiece","vocab":{"a":0},"unk_token":"a"}}"#;
    let bpe = r#"{"model":{"vocab":{"a":0},"merges":[]}}"#;
    for (json, kind) in [
        (odd.as_bytes(), "Unigram"),
        (&*compact(odd.as_bytes()), "Unigram"),
        (word_piece.as_bytes(), "WordPiece"),
        (bpe.as_bytes(), "unnamed"),
    ] {
        let (code, message) = code(json).unwrap_err();
        assert_eq!(code, "tokenizer_unsupported");
        assert!(message.contains(kind) && message.contains("general-tokenizers"), "{message}");
    }
    for json in ["", "{}", "[]", r#"{"model":7}"#, r#"{"model":{"type":"WordLevel"}}"#, "MJTOK"] {
        assert_eq!(code(json.as_bytes()).unwrap_err().0, "tokenizer_invalid", "{json}");
    }
}

#[test]
fn compact_form_is_the_same_tokenizer() {
    compact_is_the_same(unigram());
    // A score that is no f32.
    compact_is_the_same(unigram().replace("-4.5]", "-4.5000000001]"));
}

fn compact_is_the_same(json: String) {
    let stored = compact(json.as_bytes());
    assert!(compact::is_compact(&stored));
    let tokenizer = Tokenizer::from_bytes(&stored, "q: ", 64).unwrap();
    let original = Tokenizer::from_bytes(json.as_bytes(), "q: ", 64).unwrap();
    for text in odd_texts(500) {
        assert_eq!(tokenizer.encode(&text).unwrap(), original.encode(&text).unwrap());
    }
    let back = Compact::from_bytes(&stored).unwrap().to_json();
    let value = |json: &[u8]| serde_json::from_slice::<serde_json::Value>(json).unwrap();
    assert_eq!(value(&back), value(json.as_bytes()));
    assert_eq!(compact(b"{}"), b"{}".as_slice());
}

#[test]
fn damaged_compact_forms_are_refused() {
    let stored = compact(unigram().as_bytes()).into_owned();
    for len in 0..stored.len() {
        let error = Tokenizer::from_bytes(&stored[..len], "", 64).err().unwrap();
        assert_eq!(error.code(), "tokenizer_invalid");
    }
    // Every byte of the vocabulary and of the sizes turned over, by turns: an error or another
    // tokenizer, never a panic.
    for at in 0..stored.len() {
        for bit in [0x01, 0x80, 0xFF] {
            let mut damaged = stored.clone();
            damaged[at] ^= bit;
            if let Ok(tokenizer) = Tokenizer::from_bytes(&damaged, "", 64) {
                tokenizer.encode("가나 q").ok();
            }
        }
    }
    let mut longer = stored.clone();
    longer.push(0);
    let error = Tokenizer::from_bytes(&longer, "", 64).err().unwrap();
    assert!(error.to_string().contains("1 bytes follow"), "{error}");
}

#[test]
fn keeps_special_tokens_when_truncating() {
    let encoding = tokenizer("", 4).encode("가 가 가 가 가").unwrap();
    assert_eq!(encoding.ids, [0, 8, 8, 2]);
    assert_eq!(encoding.token_count, 7);
    assert!(encoding.is_truncated());
}

#[test]
fn stored_truncation_and_padding_are_ignored() {
    let encoding = tokenizer("", 64).encode("가 나").unwrap();
    assert_eq!(encoding.ids, [0, 8, 4, 6, 2]);
    assert!(!encoding.is_truncated());
}

#[test]
fn prefix_comes_first_and_blank_text_is_valid() {
    assert_eq!(tokenizer("q: ", 64).encode("가").unwrap().ids, [0, 4, 9, 10, 8, 2]);
    for blank in ["", " ", "  \n "] {
        assert!(tokenizer("", 64).encode(blank).unwrap().ids.starts_with(&[0]));
    }
    assert_eq!(tokenizer("", 64).encode("").unwrap().ids, [0, 2]);
}

#[test]
fn decomposed_hangul_equals_composed() {
    let tokenizer = tokenizer("", 64);
    for text in ["가나 가", "나", "가é"] {
        let decomposed: String = text.nfd().map(|(c, _)| c).collect();
        assert_eq!(tokenizer.encode(&decomposed).unwrap(), tokenizer.encode(text).unwrap());
    }
}

#[test]
fn huge_texts_keep_the_ids_of_the_whole() {
    let tokenizer = tokenizer("q: ", 16);
    let texts = [
        "가나 나 가".repeat(4000),
        "가".repeat(20_000),
        format!("{}가나 가", " ".repeat(20_000)),
        format!("가 {}", "나가나 ".repeat(5000)),
        "각".repeat(20_000),
        "가나 나 가".repeat(4000).nfd().map(|(c, _)| c).collect(),
        format!("e\u{301}{}가", "나 ".repeat(9000)).nfd().map(|(c, _)| c).collect(),
    ];
    for text in &texts {
        let whole = tokenizer.tokens("q: ", text, true).unwrap();
        let encoding = tokenizer.encode(text).unwrap();
        let kept = whole.len().min(14);
        assert_eq!(encoding.ids[1..=kept], whole[..kept]);
        assert!(encoding.token_count <= whole.len() + 2);
        assert_eq!(encoding.is_truncated(), whole.len() > 14);
        let counted = tokenizer.count_tokens(text).unwrap();
        assert_eq!(counted, whole.len() + 2, "{text:.20}");
    }
}

/// The last tokens are kept, whatever their number, and the count is of the whole.
#[test]
fn cut_on_the_left_a_text_keeps_its_end() {
    let whole = tokenizer("q: ", 1 << 20);
    let tokenizer = tokenizer("q: ", 16).truncating(TruncationSide::Left);
    for text in ["", "가", "가나 나 가", &"가나 나 가 q ".repeat(4000), &"나가".repeat(9000)]
    {
        let expected = whole.encode(text).unwrap().ids;
        let Encoding { ids, token_count } = tokenizer.encode(text).unwrap();
        assert_eq!(token_count, expected.len());
        let end = &expected[1..expected.len() - 1];
        let kept = &end[end.len().saturating_sub(14)..];
        assert_eq!(ids, [&[0], kept, &[2]].concat(), "{text:.20}");
    }
}

/// Work in parts gives what work on the whole gives, for every kind of tokenizer.
#[cfg(feature = "general-tokenizers")]
#[test]
fn texts_are_counted_as_if_they_were_read_whole() {
    let own = unigram();
    let change = |from: &str, to: &str| {
        assert!(own.contains(from), "{from}");
        own.replace(from, to)
    };
    let added = r#""added_tokens":[{"id":1,"content":"<pad>","single_word":false,"lstrip":true,"rstrip":false,
        "normalized":false,"special":true}]"#;
    let word_piece = serde_json::json!({"version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [], "normalizer": null, "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": null, "decoder": null, "model": {"type": "WordPiece", "unk_token": "[UNK]",
        "continuing_subword_prefix": "##", "max_input_chars_per_word": 100,
        "vocab": {"[UNK]": 0, "가": 1, "나": 2, "##가": 3, "##나": 4, "##나가": 5}}});
    let tokenizers = [
        own.clone(),
        // No word is split off, and something is put before every text.
        change(
            r#""pre_tokenizer":{"prepend_scheme":"always","replacement":"▁","split":true,"type":"Metaspace"}"#,
            r#""pre_tokenizer":null"#,
        )
        .replace(
            r#"{"strip_left":true,"strip_right":true,"type":"Strip"}"#,
            r#"{"type":"Prepend","prepend":"▁"},{"type":"Replace","pattern":{"String":" "},"content":"▁"}"#,
        ),
        change(r#""prepend_scheme":"always""#, r#""prepend_scheme":"first""#),
        change(r#""split":true"#, r#""split":false"#),
        change(r#""added_tokens":[]"#, added),
        word_piece.to_string(),
    ];
    let texts = [
        "가 나 ".repeat(4000),
        "가나다라마바사".repeat(3000),
        "<pad>".repeat(5000) + "가",
        "나 <pad>".repeat(5000),
        "나가".repeat(9000) + " 가",
        format!("{} 가나 나가{}", "가".repeat(99), "나".repeat(12_000)),
        "가  나\n\n가\t나 ".repeat(3000),
        " ".repeat(20_000) + "가",
        "가나가 나가".repeat(4000).nfd().map(|(c, _)| c).collect(),
        format!("{}가", "나 가나 ".repeat(9000)),
    ];
    for json in &tokenizers {
        let tokenizer = Tokenizer::from_bytes(json.as_bytes(), "", 64).unwrap();
        for text in &texts {
            let whole = tokenizer.tokens("", text, has_conjoining_jamo(text)).unwrap();
            let frame = tokenizer.leading.len() + tokenizer.trailing.len();
            assert_eq!(
                tokenizer.count_tokens(text).unwrap(),
                whole.len() + frame,
                "{text:.20} {json:.300}"
            );
            let ids = tokenizer.encode(text).unwrap().ids;
            let kept = whole.len().min(64 - frame);
            assert_eq!(ids[tokenizer.leading.len()..][..kept], whole[..kept], "{text:.20}");
        }
    }
}

#[test]
fn bad_tokenizers_are_named() {
    let code = |json: &str, max| {
        Tokenizer::from_bytes(json.as_bytes(), "", max).err().map(|e| (e.code(), format!("{e:#}")))
    };
    let (kind, message) = code("{", 8).unwrap();
    assert_eq!(kind, "tokenizer_invalid");
    assert!(message.contains("cannot read"), "{message}");
    let (_, message) = code(&unigram(), 2).unwrap();
    assert!(message.contains("2 special tokens") && message.contains("at most 2"), "{message}");
    let word_level = r#"{"version":"1.0","truncation":null,"padding":null,"added_tokens":[],"normalizer":null,
        "pre_tokenizer":null,"post_processor":null,"decoder":null,
        "model":{"type":"WordLevel","vocab":{"a":0},"unk_token":"a"}}"#;
    assert!(code(word_level, 8).unwrap().1.contains("WordLevel"));
}

/// What made `tokenizers` panic while it loaded or encoded.
#[cfg(feature = "general-tokenizers")]
#[test]
fn files_that_tokenizers_panics_at_are_errors() {
    let model = r###""model":{"type":"WordPiece","vocab":{"a":0,"[UNK]":1},"unk_token":"[UNK]",
        "continuing_subword_prefix":"##","max_input_chars_per_word":100}"###;
    for (part, said) in [
        (r#""decoder":{"type":"WordPiece",}"#, "trailing comma"),
        (r#""decoder":{"type":"\ud800"}"#, "escape"),
        (r#""normalizer":{"type":"Precompiled","precompiled_charsmap":"?"}"#, "base64"),
        (r#""normalizer":{"type":"Precompiled","precompiled_charsmap":7}"#, "not a text"),
        // Given twice: which of them `tokenizers` would have read is not asked.
        (
            r#""normalizer":{"type":"Precompiled","precompiled_charsmap":"?"},"normalizer":null"#,
            "duplicate field",
        ),
    ] {
        let json = format!("{{{part},{model}}}");
        let error = Tokenizer::from_bytes(json.as_bytes(), "", 8).err().unwrap();
        assert_eq!(error.code(), "tokenizer_invalid");
        let message = format!("{error:#}");
        assert!(message.to_lowercase().contains(said) || message.contains("panic"), "{message}");
    }
    let json = format!("{{{model}}}");
    let ids = Tokenizer::from_bytes(json.as_bytes(), "", 8).unwrap().encode("a").unwrap().ids;
    assert_eq!(ids, [0]);
}

/// 255 bytes a piece for 11 bytes of file.
#[test]
fn vocabularies_that_unpack_to_gigabytes_are_refused() {
    let mut stored = compact(unigram().as_bytes()).into_owned();
    let json = u32::from_le_bytes(stored[8..12].try_into().unwrap()) as usize;
    stored.truncate(12 + json);
    let count = 100_000u32;
    stored.extend(count.to_le_bytes());
    stored.extend((0..count).flat_map(|_| (-1f32).to_le_bytes()));
    stored.extend((0..count).flat_map(u32::to_le_bytes));
    let tail = |n: u32| [n >> 12 & 63, n >> 6 & 63, n & 63].map(|part| b'0' + part as u8);
    stored.extend([0, 255]);
    stored.extend([b'a'; 252]);
    stored.extend(tail(0));
    for n in 1..count {
        let (before, now) = (tail(n - 1), tail(n));
        let shared = before.iter().zip(&now).take_while(|(a, b)| a == b).count();
        stored.extend([252 + shared as u8, 3 - shared as u8]);
        stored.extend(&now[shared..]);
    }
    let error = Tokenizer::from_bytes(&stored, "", 8).err().unwrap();
    assert_eq!(error.code(), "tokenizer_invalid");
    assert!(error.to_string().contains("longer than those of any vocabulary"), "{error}");
}

/// Thousands of added tokens, some beginning with others, as `tokenizers` finds them.
#[cfg(feature = "general-tokenizers")]
#[test]
fn many_added_tokens_are_found_as_tokenizers_finds_them() {
    let mut json: Value = serde_json::from_str(&unigram()).unwrap();
    for n in 0..2000 {
        let content = format!("<extra_{n}>{}", if n % 3 == 0 { "가" } else { "" });
        let vocab = json["model"]["vocab"].as_array_mut().unwrap();
        let id = vocab.len();
        vocab.push(serde_json::json!([content, -9.0]));
        json["added_tokens"].as_array_mut().unwrap().push(serde_json::json!({
            "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true
        }));
    }
    let json = json.to_string();
    let ours = Tokenizer::from_bytes(json.as_bytes(), "", 64).unwrap();
    assert!(matches!(ours.kind, Kind::Unigram(..)));
    let reference = reference(json.as_bytes(), "", 64);
    for text in [
        "<extra_7>가",
        "<extra_3>가나",
        "<extra_3>",
        "<<extra_12>가<extra_1>>",
        "가<extra_1999>나",
        "<extra_2000>",
    ] {
        assert_eq!(ours.encode(text).unwrap(), reference.encode(text).unwrap(), "{text}");
    }
}

#[test]
fn ids_beyond_the_word_embedding_are_refused() {
    let tokenizer = tokenizer("", 8);
    assert_eq!(tokenizer.vocab_size(), 11);
    tokenizer.check_vocab_size(11).unwrap();
    let error = tokenizer.check_vocab_size(10).unwrap_err();
    assert_eq!(error.code(), "tokenizer_invalid");
    assert!(error.to_string().contains("up to 10") && error.to_string().contains("only 10 rows"));
}
