//! Index files: what is written is read, the same content is the same bytes, and nothing else is taken.

mod common;

use common::Numbers;
use munjang::search::{
    HybridIndex, HybridQuery, Precision, SearchOptions, VectorIndex, cut_passages, to_utf16,
};
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;
use xxhash_rust::xxh64::xxh64;

const MODEL: &str = "0123456789abcdef";
const DIMENSION: usize = 40;
const KINDS: [(Precision, bool); 4] = [
    (Precision::Int8, false),
    (Precision::Float32, false),
    (Precision::Binary, false),
    (Precision::Binary, true),
];

fn index(precision: Precision, rescore: bool) -> VectorIndex {
    let mut index = VectorIndex::new(DIMENSION, precision, rescore, Some(MODEL)).unwrap();
    index.add(&Numbers(4).vector(30 * DIMENSION, 0.1, 1.0)).unwrap();
    index
}

const JSON: &str = r#"[{"id":"a","text":"비가 온다. 👩 우산을 쓴다. 밖은 춥다."},{"id":2,"text":""},
    {"id":"c","text":"학교에 간다","data":{"year":2024}}]"#;

fn documents(precision: Precision) -> (HybridIndex, Vec<u8>) {
    let mut index = HybridIndex::new(DIMENSION, precision, Some(MODEL)).unwrap();
    let mut numbers = Numbers(8);
    for (document, text) in
        ["비가 온다. 👩 우산을 쓴다. 밖은 춥다.", "", "학교에 간다"].iter().enumerate()
    {
        let ranges = cut_passages(text, 10).unwrap();
        let places = to_utf16(text, &ranges);
        let places = places.as_chunks::<2>().0.iter().map(|&[start, end]| (start, end));
        let texts = ranges.iter().map(|range| &text[range.clone()]);
        index.add(document as u32, texts.zip(places)).unwrap();
        // The last one waits for its vector.
        if document == 0 {
            let vectors = numbers.vector(ranges.len() * DIMENSION, 0.0, 1.0);
            index.set_vectors(0, 0, &vectors).unwrap();
        }
    }
    let mut bytes = Vec::new();
    let told =
        index.write(&[0, 1, 2], JSON, 10, &mut |piece| bytes.extend_from_slice(piece)).unwrap();
    assert_eq!(told, bytes.len());
    (index, bytes)
}

#[test]
fn vectors_are_read_as_they_were() {
    let query = Numbers(5).vector(DIMENSION, 0.0, 1.0);
    let all = SearchOptions { top_k: 30, ..Default::default() };
    for (precision, rescore) in KINDS {
        let mut written = index(precision, rescore);
        let bytes = written.to_bytes("[1]");
        assert_eq!(bytes, written.to_bytes("[1]"), "the same bytes for the same content");
        let (read, ids) = VectorIndex::from_bytes(&bytes, Some(MODEL)).unwrap();
        assert_eq!(ids, "[1]");
        assert_eq!((read.len(), read.model_id(), read.rescores()), (30, Some(MODEL), rescore));
        assert_eq!(read.search(&query, all).unwrap(), written.search(&query, all).unwrap());
        assert_eq!(read.to_bytes("[1]"), bytes);
        // Rows that came and went leave no trace.
        written.add(&query).unwrap();
        written.remove(30);
        assert_eq!(written.to_bytes("[1]"), bytes);
        let empty = VectorIndex::new(DIMENSION, precision, rescore, None).unwrap();
        assert!(VectorIndex::from_bytes(&empty.to_bytes("[]"), None).unwrap().0.is_empty());
    }
}

#[test]
fn documents_are_read_as_they_were() {
    let vector = Numbers(5).vector(DIMENSION, 0.0, 1.0);
    for precision in [Precision::Int8, Precision::Float32, Precision::Binary] {
        let (written, bytes) = documents(precision);
        let stored = HybridIndex::from_source(&&bytes[..], Some(MODEL)).unwrap();
        assert_eq!((stored.json.as_str(), stored.max_chars), (JSON, 10));
        assert_eq!((stored.index.len(), stored.index.encoded()), (3, written.encoded()));
        let ask = HybridQuery {
            vector: Some(&vector),
            text: Some("우산을 쓰고 학교에"),
            top_k: 10,
            min_score: f32::NEG_INFINITY,
            semantic: 0.4,
            mask: None,
        };
        let hits = stored.index.search(ask).unwrap();
        assert_eq!(hits, written.search(ask).unwrap());
        assert_eq!(hits.len(), 2);
        let mut again = Vec::new();
        stored
            .index
            .write(&[0, 1, 2], JSON, 10, &mut |piece| again.extend_from_slice(piece))
            .unwrap();
        assert_eq!(again, bytes);
    }
}

/// `bytes` with the checksum that they ought to have.
fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
    let end = bytes.len() - 8;
    let digest = xxh64(&bytes[..end], 0).to_le_bytes();
    bytes[end..].copy_from_slice(&digest);
    bytes
}

fn read_both(bytes: &[u8]) -> [Option<munjang::Error>; 2] {
    [
        VectorIndex::from_bytes(bytes, Some(MODEL)).err(),
        HybridIndex::from_source(&bytes, Some(MODEL)).err(),
    ]
}

#[test]
fn what_is_refused_says_what_to_do() {
    let good = index(Precision::Int8, false).to_bytes("[]");
    let mut other_version = good.clone();
    other_version[8] = 2;
    let replaced = |from: &str, to: &str| {
        let at = good.windows(from.len()).position(|window| window == from.as_bytes()).unwrap();
        let mut bytes = good.clone();
        bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
        sealed(bytes)
    };
    let mut damaged = good.clone();
    damaged[200] ^= 1;
    let mut nan = good.clone();
    let at = nan.len() - 8 - DIMENSION - 4;
    nan[at..at + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    for (bytes, expected) in [
        (vec![], "not an index file"),
        (b"{\"format\": 1} and something more".to_vec(), "not an index file"),
        (other_version, "format version 2"),
        (damaged, "checksum"),
        (good[..good.len() - 1].to_vec(), "checksum"),
        (replaced("\"int8\"", "\"int9\""), "precision"),
        (replaced(MODEL, "0123456789ABCDEF"), "model id"),
        (replaced(MODEL, "0123456789abcdee"), "0123456789abcdee"),
        (replaced("\"dimension\":40", "\"dimension\":41"), "contradicts itself"),
        (replaced("\"vectors\":30", "\"vectors\":31"), "contradicts itself"),
        (replaced("\"rescore\"", "\"rescare\""), "header"),
        (sealed(nan), "vector 29"),
    ] {
        let error = VectorIndex::from_bytes(&bytes, Some(MODEL)).unwrap_err();
        assert_eq!(error.code(), "index_invalid");
        let message = error.to_string();
        assert!(message.contains(expected) && message.contains("again"), "{message}");
    }
    let [_, kind] = read_both(&good);
    assert!(kind.unwrap().to_string().contains("VectorIndex.fromBytes"));
    let [kind, _] = read_both(&documents(Precision::Int8).1);
    assert!(kind.unwrap().to_string().contains("SemanticIndex.fromBytes"));
    // Without a model in use, any is taken.
    assert!(VectorIndex::from_bytes(&good, None).is_ok());
}

/// Damaged at random with a checksum that fits: an error or an index, never a panic, nothing absurd allocated.
#[test]
fn mutations_are_refused_or_harmless() {
    let mut files: Vec<Vec<u8>> = KINDS.map(|(p, r)| index(p, r).to_bytes("[1,2]")).into();
    files.extend([Precision::Int8, Precision::Float32, Precision::Binary].map(|p| documents(p).1));
    let mut n = Numbers(99);
    let mut read = 0;
    for round in 0..4000 {
        let mut bytes = files[round % files.len()].clone();
        match n.below(4) {
            0 => {
                let at = n.below(bytes.len());
                bytes[at] ^= 1 << n.below(8);
            }
            1 => {
                // In the header, where it hurts: digits for digits.
                let at = 16 + n.below(200);
                bytes[at] = b"0123456789\"{}[],"[n.below(16)];
            }
            2 => bytes.truncate(n.below(bytes.len()).max(8)),
            _ => {
                let at = n.below(bytes.len() - 8);
                let value = [0u8, 0x7f, 0x80, 0xff][n.below(4)];
                let end = (at + 1 + n.below(8)).min(bytes.len());
                bytes[at..end].fill(value);
            }
        }
        for error in read_both(&sealed(bytes)) {
            match error {
                None => read += 1,
                Some(error) => assert_eq!(error.code(), "index_invalid", "{error}"),
            }
        }
    }
    assert!(read > 200, "{read}: mutations that only make errors test little");
}
