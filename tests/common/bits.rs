//! What every engine must compute alike, as a hash: the embeddings of small models of every activation and
//! pooling.

use munjang::config::{Activation, ModelConfig, Pooling};
use munjang::internals::kernels::Kernels;
use munjang::{Encoder, format};
use sha2::{Digest, Sha256};

use super::{Numbers, config, float_model};

/// The hash of [`of_variants`], by the scalar kernels on x86-64. It changes only with the quantizer, the
/// kernels' definition or the fixture; say in the commit which it was.
pub const VARIANTS: &str = "7edccc5fe38748fde60cd83b7c02b7ae04ff698f96b19d7074df86c51f3e8aec";

/// Every activation with every pooling, and one model of the widths of real ones: sums of several groups in
/// 16 bits, tiles of 64 bytes, Strassen's halves.
pub fn variants() -> Vec<ModelConfig> {
    let mut all = Vec::new();
    for hidden_act in [Activation::Gelu, Activation::GeluTanh, Activation::Relu] {
        for pooling in [Pooling::Mean, Pooling::Cls] {
            all.push(ModelConfig { hidden_act, pooling, ..config() });
        }
    }
    let (hidden_size, intermediate_size) = (192, 384);
    all.push(ModelConfig { hidden_size, intermediate_size, num_attention_heads: 6, ..config() });
    all
}

/// Sentences of single tokens, around every block size, the longest.
pub fn sentences(vocab_size: usize) -> Vec<Vec<u32>> {
    let mut n = Numbers(7);
    [1, 2, 3, 15, 16, 17, 31, 33, 63, 64, 65, 128, 255, 256, 257, 300]
        .iter()
        .map(|&len| n.ids(len, vocab_size))
        .collect()
}

/// A tokenizer that every build reads; ids are given.
pub fn unigram_json(vocab_size: usize) -> Vec<u8> {
    let vocab: Vec<(String, f64)> = (0..vocab_size).map(|id| (format!("말{id}"), -1.0)).collect();
    serde_json::to_vec(&serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer":
            {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true},
        "post_processor": null, "decoder": null,
        "model": {"type": "Unigram", "unk_id": 0, "byte_fallback": false, "vocab": vocab},
    }))
    .unwrap()
}

/// SHA-256 over the little-endian bytes of the embeddings by all [`variants`].
pub fn of_variants(kernels: &'static Kernels) -> String {
    let mut sha = Sha256::new();
    for config in variants() {
        let ids = sentences(config.vocab_size);
        let mut model = float_model(config, 42);
        model.tokenizer_json = unigram_json(model.config.vocab_size);
        let file = format::write(&model).unwrap();
        let encoder = Encoder::with_kernels(file, kernels).unwrap();
        add(&mut sha, &encoder.encode_ids(&ids).unwrap());
    }
    hex(sha)
}

pub fn add(sha: &mut Sha256, embeddings: &[f32]) {
    assert!(embeddings.iter().any(|&x| x != 0.0));
    for x in embeddings {
        sha.update(x.to_le_bytes());
    }
}

pub fn hex(sha: Sha256) -> String {
    sha.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
