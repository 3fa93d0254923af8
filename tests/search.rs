//! The search core from outside: vector index, hybrid index, bad input, and one hash of all scores that
//! every build must give.

mod common;

use common::Numbers;
use munjang::search::{
    DEFAULT_SEMANTIC, HybridHit, HybridIndex, HybridQuery, Precision, SearchOptions, VectorIndex,
    cut_passages, dot, top_k,
};
use sha2::{Digest, Sha256};
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

/// SHA-256 over all scores of [`hash`]; it changes only with the definitions of `src/search`.
const EXPECTED: &str = "51e17072de54b36d48e5077520aad47cc705414a36e588c37e23fe17b012671b";

const DIMENSION: usize = 100;
const PRECISIONS: [Precision; 3] = [Precision::Int8, Precision::Float32, Precision::Binary];

/// Unit vectors around a few centres, so that neighbours exist.
fn vectors(count: usize, seed: u64) -> Vec<f32> {
    let mut n = Numbers(seed);
    let centres: Vec<Vec<f32>> = (0..8).map(|_| n.vector(DIMENSION, 0.05, 1.0)).collect();
    let mut all = Vec::new();
    for i in 0..count {
        let noise = n.vector(DIMENSION, 0.0, 0.4);
        let row: Vec<f32> = centres[i % 8].iter().zip(&noise).map(|(c, n)| c + n).collect();
        let length = dot(&row, &row).sqrt();
        all.extend(row.iter().map(|value| value / length));
    }
    all
}

fn filled(precision: Precision, rescore: bool, count: usize) -> VectorIndex {
    let mut index = VectorIndex::new(DIMENSION, precision, rescore, None).unwrap();
    index.add(&vectors(count, 3)).unwrap();
    index
}

const TEXTS: [&str; 6] = [
    "비가 많이 옵니다. 우산을 챙기세요.",
    "밖에 비가 내려요",
    "주가가 크게 올랐다",
    "학교에서 공부를 했다. 학교는 멀다. 그래도 간다.",
    "커피 한 잔 주세요. Iced americano, please!",
    "",
];

fn hybrid(precision: Precision) -> HybridIndex {
    let mut index = HybridIndex::new(DIMENSION, precision, None).unwrap();
    let mut at = 0;
    let all = vectors(40, 9);
    for (document, text) in TEXTS.iter().enumerate() {
        let passages = cut_passages(text, 12).unwrap();
        let count = passages.len();
        let placed =
            passages.into_iter().map(|r| (&text[r.clone()], (r.start as u32, r.end as u32)));
        index.add(document as u32, placed).unwrap();
        // The second document waits for its vectors.
        if document != 1 {
            index
                .set_vectors(document as u32, 0, &all[at * DIMENSION..][..count * DIMENSION])
                .unwrap();
        }
        at += count;
    }
    index
}

fn query<'a>(vector: Option<&'a [f32]>, text: Option<&'a str>) -> HybridQuery<'a> {
    HybridQuery {
        vector,
        text,
        top_k: 10,
        min_score: f32::NEG_INFINITY,
        semantic: DEFAULT_SEMANTIC,
        mask: None,
    }
}

fn hash() -> String {
    let mut sha = Sha256::new();
    let queries = vectors(12, 77);
    for (precision, rescore) in [
        (Precision::Int8, false),
        (Precision::Float32, false),
        (Precision::Binary, false),
        (Precision::Binary, true),
    ] {
        let mut index = filled(precision, rescore, 1500);
        index.remove(700);
        index.update(1, &vectors(1, 5)).unwrap();
        for query in queries.chunks_exact(DIMENSION) {
            for hit in
                index.search(query, SearchOptions { top_k: 25, ..Default::default() }).unwrap()
            {
                sha.update((hit.row as u32).to_le_bytes());
                sha.update(hit.score.to_le_bytes());
            }
        }
        let index = hybrid(precision);
        for vector in queries.chunks_exact(DIMENSION) {
            for text in ["비가 옵니다", "학교", "iced 커피", "없는말"] {
                for hit in index.search(query(Some(vector), Some(text))).unwrap() {
                    sha.update(hit.document.to_le_bytes());
                    sha.update((hit.passage as u32).to_le_bytes());
                    for value in [Some(hit.score), hit.cosine, hit.lexical] {
                        sha.update(value.unwrap_or(9.0).to_le_bytes());
                    }
                }
            }
        }
        let documents: Vec<u32> = (0..TEXTS.len() as u32).collect();
        sha.update(index.export_vectors(&documents).unwrap());
    }
    sha.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn every_build_gives_the_same_scores() {
    assert_eq!(hash(), EXPECTED);
}

#[test]
fn float32_ranks_by_the_dot_product_itself() {
    let index = filled(Precision::Float32, false, 2500);
    let rows = vectors(2500, 3);
    for query in vectors(5, 1).chunks_exact(DIMENSION) {
        let scores: Vec<f32> = rows.chunks_exact(DIMENSION).map(|row| dot(row, query)).collect();
        let expected = top_k(&scores, 30);
        let found = index.search(query, SearchOptions { top_k: 30, ..Default::default() }).unwrap();
        let found: Vec<(usize, f32)> = found.into_iter().map(|hit| (hit.row, hit.score)).collect();
        assert_eq!(found, expected);
    }
}

/// The definition of int8, in plain integers.
#[test]
fn int8_is_what_it_says() {
    let index = filled(Precision::Int8, false, 1200);
    let rows = vectors(1200, 3);
    let query = vectors(1, 4);
    let codes = |vector: &[f32], max: f32| -> (Vec<i64>, f32) {
        let largest = vector.iter().fold(0.0f32, |m, x| m.max(x.abs()));
        let inverse = max / largest;
        (vector.iter().map(|x| (x * inverse).round_ties_even() as i64).collect(), largest / max)
    };
    let (q, q_scale) = codes(&query, 2047.0);
    let scores: Vec<f32> = rows
        .chunks_exact(DIMENSION)
        .map(|row| {
            let (row, scale) = codes(row, 127.0);
            row.iter().zip(&q).map(|(a, b)| a * b).sum::<i64>() as f32 * scale * q_scale
        })
        .collect();
    let found = index.search(&query, SearchOptions { top_k: 1200, ..Default::default() }).unwrap();
    let found: Vec<(usize, f32)> = found.into_iter().map(|hit| (hit.row, hit.score)).collect();
    assert_eq!(found, top_k(&scores, 1200));
    for (row, score) in found {
        assert!((score - dot(&rows[row * DIMENSION..][..DIMENSION], &query)).abs() < 0.005);
    }
}

#[test]
fn signs_estimate_the_cosine() {
    let index = filled(Precision::Binary, false, 800);
    let rows = vectors(800, 3);
    let query = &rows[33 * DIMENSION..][..DIMENSION];
    let hits = index.search(query, SearchOptions { top_k: 800, ..Default::default() }).unwrap();
    assert_eq!(hits[0].row, 33);
    for hit in hits {
        let cosine = dot(&rows[hit.row * DIMENSION..][..DIMENSION], query);
        assert!((hit.score - cosine).abs() < 0.4, "{} {cosine}", hit.score);
    }
}

#[test]
fn removed_rows_are_gone_and_compaction_keeps_the_order() {
    for precision in PRECISIONS {
        let mut index = filled(precision, false, 3000);
        let query = vectors(1, 8);
        let all = SearchOptions { top_k: 3000, ..Default::default() };
        let before = index.search(&query, all).unwrap();
        let dead = |row: usize| row % 3 == 1 || row > 2900;
        for row in (0..3000).filter(|&row| dead(row)) {
            assert!(index.remove(row) && !index.remove(row));
        }
        let left: Vec<_> = before.into_iter().filter(|hit| !dead(hit.row)).collect();
        assert_eq!(index.search(&query, all).unwrap(), left);
        index.compact();
        let renumbered: Vec<usize> = (0..3000).filter(|&row| !dead(row)).collect();
        let after = index.search(&query, all).unwrap();
        assert_eq!(after.len(), left.len());
        for (after, left) in after.iter().zip(&left) {
            assert_eq!((renumbered[after.row], after.score), (left.row, left.score));
        }
        assert_eq!((index.len(), index.rows()), (left.len(), left.len()));
        index.clear();
        assert!(index.is_empty() && index.search(&query, all).unwrap().is_empty());
    }
}

#[test]
fn options_of_a_search() {
    let index = filled(Precision::Int8, false, 100);
    let query = vectors(1, 8);
    let search = |options| index.search(&query, options).unwrap();
    assert!(search(SearchOptions { top_k: 0, ..Default::default() }).is_empty());
    let all = search(SearchOptions { top_k: usize::MAX, ..Default::default() });
    assert_eq!(all.len(), 100);
    let some = search(SearchOptions { top_k: 100, min_score: all[30].score, mask: None });
    assert_eq!(some, all[..31]);
    let mask: Vec<u8> = (0..50).map(|row| row % 2).collect();
    let masked = search(SearchOptions { top_k: 100, mask: Some(&mask), ..Default::default() });
    assert_eq!(
        masked,
        all.iter().filter(|hit| hit.row < 50 && hit.row % 2 == 1).copied().collect::<Vec<_>>()
    );
}

#[test]
fn equal_vectors_rank_by_insertion() {
    for (precision, rescore) in
        PRECISIONS.map(|p| (p, false)).into_iter().chain([(Precision::Binary, true)])
    {
        let mut index = VectorIndex::new(DIMENSION, precision, rescore, None).unwrap();
        let one = vectors(1, 2);
        index.add(&one.repeat(10_000)).unwrap();
        let hits = index.search(&one, SearchOptions::default()).unwrap();
        assert_eq!(hits.iter().map(|hit| hit.row).collect::<Vec<_>>(), (0..10).collect::<Vec<_>>());
        assert!(hits.iter().all(|hit| hit.score == hits[0].score));
    }
}

#[test]
fn any_length_is_a_direction() {
    let unit = vectors(1, 2);
    for factor in [1e-30f32, 3.0, 1e30] {
        let mut index = VectorIndex::new(DIMENSION, Precision::Float32, false, None).unwrap();
        index.add(&unit.iter().map(|value| value * factor).collect::<Vec<_>>()).unwrap();
        let score = index.search(&unit, SearchOptions::default()).unwrap()[0].score;
        assert!((score - 1.0).abs() < 1e-6, "{factor}: {score}");
    }
}

#[test]
fn bad_vectors_are_named_and_change_nothing() {
    let mut index = filled(Precision::Int8, false, 3);
    let good = vectors(2, 6);
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut two = good.clone();
        two[DIMENSION + 7] = bad;
        let error = index.add(&two).unwrap_err();
        assert_eq!(error.code(), "input_invalid");
        assert!(error.to_string().contains("vector 1"), "{error}");
        assert!(index.search(&two[DIMENSION..], SearchOptions::default()).is_err());
    }
    assert_eq!((index.len(), index.rows()), (3, 3));
    let zeros = [0.0; DIMENSION];
    for (error, expected) in [
        (index.add(&zeros).unwrap_err(), "no direction"),
        (index.add(&good[1..]).unwrap_err(), "no whole rows"),
        (index.search(&good, SearchOptions::default()).unwrap_err(), "200 values"),
        (index.update(3, &good[..DIMENSION]).unwrap_err(), "no row 3"),
        (VectorIndex::new(0, Precision::Int8, false, None).unwrap_err(), "1 to 4096"),
        (VectorIndex::new(5000, Precision::Int8, false, None).unwrap_err(), "1 to 4096"),
        (VectorIndex::new(8, Precision::Int8, true, None).unwrap_err(), "rescore"),
        (VectorIndex::new(8, Precision::Int8, false, Some("model")).unwrap_err(), "16 hex digits"),
        (Precision::from_name("int4").unwrap_err(), "int4"),
    ] {
        assert_eq!(error.code(), "input_invalid");
        assert!(error.to_string().contains(expected), "{error}");
    }
}

fn documents(hits: &[HybridHit]) -> Vec<u32> {
    hits.iter().map(|hit| hit.document).collect()
}

#[test]
fn words_and_meaning_are_fused() {
    let index = hybrid(Precision::Float32);
    let vector = vectors(1, 11);
    let hits = index.search(query(Some(&vector), Some("학교에 비가"))).unwrap();
    for hit in &hits {
        let (cosine, lexical) = (hit.cosine, hit.lexical.unwrap());
        assert!((0.0..1.0).contains(&lexical));
        let expected = cosine.map_or(lexical, |cosine| 0.4 * cosine + (1.0 - 0.4) * lexical);
        assert_eq!(hit.score, expected);
        let text = TEXTS[hit.document as usize];
        assert!(!text[hit.place.0 as usize..hit.place.1 as usize].is_empty());
    }
    // Document 1 has no vector: by its words alone. Document 5 has no passage.
    assert!(hits.iter().any(|hit| hit.document == 1 && hit.cosine.is_none()));
    assert!(!documents(&hits).contains(&5));
    let words = index.search(query(None, Some("학교에 비가"))).unwrap();
    // The last two have one word of it; the shorter one first.
    assert_eq!(documents(&words), [3, 1, 0]);
    assert_eq!(words[0].passage, 0);
    let meaning = index.search(query(Some(&vector), None)).unwrap();
    assert!(meaning.len() == 4 && meaning.iter().all(|hit| hit.cosine == Some(hit.score)));
    let only = HybridQuery { semantic: 1.0, ..query(Some(&vector), Some("비가")) };
    assert_eq!(documents(&index.search(only).unwrap()), documents(&meaning));
    for nothing in [
        query(None, None),
        query(None, Some("")),
        query(None, Some("?!")),
        query(None, Some("없는말")),
    ] {
        assert!(index.search(nothing).unwrap().is_empty());
    }
    // No words in the query: meaning alone.
    assert_eq!(index.search(query(Some(&vector), Some("…"))).unwrap(), meaning);
}

#[test]
fn options_of_a_hybrid_search() {
    let index = hybrid(Precision::Int8);
    let vector = vectors(1, 11);
    let base = query(Some(&vector), Some("비가"));
    let all = index.search(base).unwrap();
    assert_eq!(all.len(), 5);
    let mask = [1u8, 0, 1];
    let masked = index.search(HybridQuery { mask: Some(&mask), ..base }).unwrap();
    assert!(masked.iter().all(|hit| [0, 2].contains(&hit.document)) && masked.len() == 2);
    assert!(index.search(HybridQuery { top_k: 0, ..base }).unwrap().is_empty());
    assert_eq!(index.search(HybridQuery { top_k: usize::MAX, ..base }).unwrap(), all);
    let some = index.search(HybridQuery { min_score: all[2].score, ..base }).unwrap();
    assert_eq!(some, all[..3]);
    for semantic in [-0.1, 1.1, f32::NAN] {
        assert_eq!(
            index.search(HybridQuery { semantic, ..base }).unwrap_err().code(),
            "input_invalid"
        );
    }
}

#[test]
fn documents_come_and_go() {
    let vector = vectors(1, 11);
    let ask =
        |index: &HybridIndex| index.search(query(Some(&vector), Some("비가 학교에 커피"))).unwrap();
    for precision in PRECISIONS {
        let mut index = hybrid(precision);
        let expected = ask(&index);
        let noise = vectors(1, 50);
        for document in 100..3200 {
            index.add(document, [("비가 학교에 커피를 마신다", (0, 0))]).unwrap();
            index.set_vectors(document, 0, &noise).unwrap();
        }
        assert_ne!(ask(&index), expected);
        for document in 100..3200 {
            assert!(index.remove(document) && !index.remove(document));
        }
        assert_eq!(ask(&index), expected);
        assert_eq!(index.len(), TEXTS.len());
        assert_eq!(index.add(0, []).unwrap_err().code(), "input_invalid");
        index.remove(0);
        index.add(0, []).unwrap();
        assert_eq!(index.passages_of(0), 0);
        index.clear();
        assert!(ask(&index).is_empty() && index.is_empty() && index.passages() == 0);
    }
}

#[test]
fn vectors_travel_as_they_are_kept() {
    let vector = vectors(1, 11);
    for precision in PRECISIONS {
        let index = hybrid(precision);
        let documents: Vec<u32> = (0..TEXTS.len() as u32).collect();
        let bytes = index.export_vectors(&documents).unwrap();
        assert_eq!(bytes.len(), index.passages() * index.exported_bytes());
        let mut empty = hybrid(precision);
        for document in &documents {
            empty.remove(*document);
        }
        for (document, text) in TEXTS.iter().enumerate() {
            let passages = cut_passages(text, 12).unwrap();
            let placed =
                passages.into_iter().map(|r| (&text[r.clone()], (r.start as u32, r.end as u32)));
            empty.add(document as u32, placed).unwrap();
        }
        assert_eq!(empty.encoded(), 0);
        for damaged in [&bytes[1..], &[&bytes[..], &[0]].concat()] {
            assert_eq!(
                empty.import_vectors(&documents, damaged).unwrap_err().code(),
                "index_invalid"
            );
        }
        let mut stray = bytes.clone();
        let last = stray.len() - 1;
        stray[last] = 0x80;
        stray[..4].copy_from_slice(&2.0f32.to_le_bytes());
        assert_eq!(empty.import_vectors(&documents, &stray).unwrap_err().code(), "index_invalid");
        assert_eq!(empty.encoded(), 0);
        empty.import_vectors(&documents, &bytes).unwrap();
        assert_eq!(empty.encoded(), index.encoded());
        assert_eq!(empty.export_vectors(&documents).unwrap(), bytes);
        let ask = query(Some(&vector), Some("비가 학교에"));
        assert_eq!(empty.search(ask).unwrap(), index.search(ask).unwrap());
        assert_eq!(empty.export_vectors(&[99]).unwrap_err().code(), "input_invalid");
    }
}

#[test]
fn a_text_of_a_million_characters() {
    for text in ["가나다라 ".repeat(200_000), "가".repeat(1_000_000), "비가 온다. ".repeat(150_000)]
    {
        let passages = cut_passages(&text, 150).unwrap();
        assert!(passages.len() >= 6_000);
        let mut index = HybridIndex::new(8, Precision::Int8, None).unwrap();
        index
            .add(
                0,
                passages.into_iter().map(|r| (&text[r.clone()], (r.start as u32, r.end as u32))),
            )
            .unwrap();
        let hits = index
            .search(query(None, Some(&text[..text.char_indices().nth(60).unwrap().0])))
            .unwrap();
        assert_eq!(documents(&hits), [0]);
    }
}

/// The same numbers and hash as in `tests/js/vector_index.test.js`: JavaScript's dot product has these bits.
#[test]
fn the_dot_product_has_the_bits_that_javascript_has() {
    let mut state = 11u64;
    let mut next = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) as f64 / f64::from(1u32 << 31) - 0.5) as f32
    };
    let mut sha = Sha256::new();
    for length in [0, 1, 7, 15, 16, 17, 33, 100, 384] {
        let a: Vec<f32> = (0..length).map(|_| next()).collect();
        let b: Vec<f32> = (0..length).map(|_| next()).collect();
        sha.update(dot(&a, &b).to_le_bytes());
    }
    let hash: String = sha.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hash, "e80c0b357dd36a06e42f396c30db4619341279fff077ca8dd1c936a29de52073");
}
