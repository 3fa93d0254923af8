//! One model, one set of bits: the encoder gives the same embeddings natively and in each
//! WebAssembly build. `./build.sh test` runs this file in all three; the expected hash is the
//! native, scalar one, so that no build is its own judge.

mod common;

use common::bits::{self, sentences};
use common::{config, float_model};
use munjang::internals::kernels::{self, Kernels};
use munjang::{Encoder, format};
use sha2::{Digest, Sha256};
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

/// SHA-256 over the little-endian bytes of all embeddings below. It changes only with the
/// quantizer, the kernels' definition or the fixture; say in the commit which it was.
const EXPECTED: &str = "5929377df1d3493598c620bbccd0dde86bf98fee06c18f1adf22fdeb09e18f42";

/// Texts through the tokenizer: empty, blank, unknown words, jamo, one that is cut off.
fn texts() -> Vec<String> {
    let long = (0..400).map(|i| format!("단어{} ", 3 + i % 90)).collect();
    ["", " \t\n", "단어3", "단어4 단어99 모르는 말", "단어\u{0}5", "\u{1103}\u{1161}\u{11ab}어7"]
        .map(str::to_owned)
        .into_iter()
        .chain([long])
        .collect()
}

fn hash(kernels: &'static Kernels) -> String {
    let config = config();
    let ids = sentences(config.vocab_size);
    let file = format::write(&float_model(config, 42)).unwrap();
    let mut sha = Sha256::new();
    sha.update(&file);
    let encoder = Encoder::with_kernels(file, kernels).unwrap();
    bits::add(&mut sha, &encoder.encode_ids(&ids).unwrap());
    bits::add(&mut sha, &encoder.encode_batch(&texts()).unwrap().embeddings);
    bits::hex(sha)
}

#[test]
fn every_build_gives_the_same_bits() {
    let tables = kernels::available();
    assert!(tables.iter().any(|table| table.name == "scalar"));
    for table in tables {
        assert_eq!(hash(table), EXPECTED, "kernels {}", table.name);
    }
}

/// Every activation and every pooling.
#[test]
fn every_activation_and_pooling_gives_the_same_bits() {
    for table in kernels::available() {
        assert_eq!(bits::of_variants(table), bits::VARIANTS, "kernels {}", table.name);
    }
}

/// The build that was asked for is the one that runs; which of the two relaxed tables, the CPU says.
#[cfg(target_arch = "wasm32")]
#[test]
fn the_fast_kernels_are_chosen() {
    let relaxed = cfg!(target_feature = "relaxed-simd");
    let expected: &[&str] = if relaxed { &["relaxed", "relaxed-dot"] } else { &["simd128"] };
    let chosen = kernels::select().name;
    assert!(expected.contains(&chosen), "{chosen}");
}

/// Alone or in a batch: the same bits.
#[test]
fn a_batch_changes_nothing() {
    let config = config();
    let ids = sentences(config.vocab_size);
    let hidden = config.hidden_size;
    let encoder = Encoder::from_bytes(format::write(&float_model(config, 42)).unwrap()).unwrap();
    let together = encoder.encode_ids(&ids).unwrap();
    for (ids, row) in ids.iter().zip(together.chunks_exact(hidden)) {
        let alone = encoder.encode_ids(&[ids]).unwrap();
        assert!(
            alone.iter().zip(row).all(|(a, b)| a.to_bits() == b.to_bits()),
            "{} tokens",
            ids.len()
        );
    }
}
