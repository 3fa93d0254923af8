//! A small random model for tests that need no trained one.
#![allow(dead_code)]

pub mod bits;

use munjang::config::{Activation, AfterPooling, ModelConfig, Pooling};
use munjang::weights::{Additions, FloatModel, Layer, LayerNorm, Linear, Matrix};

/// A small linear congruential generator: the tests need variety, not randomness.
pub struct Numbers(pub u64);

impl Numbers {
    pub fn next(&mut self) -> u32 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as u32
    }
    pub fn below(&mut self, n: usize) -> usize {
        self.next() as usize % n
    }
    /// Roughly normal: the sum of four uniform numbers, deviation about 1.
    pub fn normal(&mut self) -> f32 {
        (0..4).map(|_| self.below(20_001) as f32 / 10_000.0 - 1.0).sum::<f32>() * 0.87
    }
    pub fn matrix(&mut self, rows: usize, cols: usize, deviation: f32) -> Matrix {
        Matrix { rows, cols, data: self.vector(rows * cols, 0.0, deviation) }
    }
    pub fn vector(&mut self, len: usize, mean: f32, deviation: f32) -> Vec<f32> {
        (0..len).map(|_| mean + deviation * self.normal()).collect()
    }
    fn linear(&mut self, rows: usize, cols: usize) -> Linear {
        let deviation = 1.5 / (cols as f32).sqrt();
        Linear { weight: self.matrix(rows, cols, deviation), bias: self.vector(rows, 0.0, 0.1) }
    }
    fn norm(&mut self, len: usize) -> LayerNorm {
        LayerNorm { weight: self.vector(len, 1.0, 0.1), bias: self.vector(len, 0.0, 0.1) }
    }
    /// Ids of one sentence.
    pub fn ids(&mut self, len: usize, vocab_size: usize) -> Vec<u32> {
        (0..len).map(|_| self.below(vocab_size) as u32).collect()
    }
}

pub fn config() -> ModelConfig {
    ModelConfig {
        model_type: "bert".into(),
        vocab_size: 100,
        hidden_size: 48,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        intermediate_size: 80,
        max_position_embeddings: 300,
        layer_norm_eps: 1e-12,
        hidden_act: Activation::Gelu,
        pooling: Pooling::Mean,
        ..ModelConfig::default()
    }
}

/// A WordPiece tokenizer of whole words with `vocab_size` words: `[CLS]`, `[SEP]`, `[UNK]`, then `단어3`, ….
pub fn tokenizer_json(vocab_size: usize) -> Vec<u8> {
    let vocab: serde_json::Map<String, serde_json::Value> = (0..vocab_size)
        .map(|id| match id {
            0 => ("[CLS]".to_owned(), 0.into()),
            1 => ("[SEP]".to_owned(), 1.into()),
            2 => ("[UNK]".to_owned(), 2.into()),
            _ => (format!("단어{id}"), id.into()),
        })
        .collect();
    let special = |id: u32, content: &str| {
        serde_json::json!({"id": id, "content": content, "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false, "special": true})
    };
    serde_json::to_vec(&serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [special(0, "[CLS]"), special(1, "[SEP]"), special(2, "[UNK]")],
        "normalizer": null,
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 1], "cls": ["[CLS]", 0]},
        "decoder": null,
        "model": {"type": "WordPiece", "vocab": vocab, "unk_token": "[UNK]",
            "continuing_subword_prefix": "##", "max_input_chars_per_word": 100},
    }))
    .unwrap()
}

/// A model of `config`'s sizes with weights that keep activations alive through all layers.
pub fn float_model(config: ModelConfig, seed: u64) -> FloatModel {
    let mut n = Numbers(seed);
    let (hidden, middle) = (config.hidden_size, config.intermediate_size);
    let width = config.embedding_width();
    FloatModel {
        tokenizer_json: tokenizer_json(config.vocab_size),
        word_embeddings: n.matrix(config.vocab_size, width, 0.5),
        position_embeddings: n.matrix(config.max_position_embeddings, width, 0.2),
        embedding_norm: n.norm(width),
        layers: (0..config.num_hidden_layers)
            .map(|_| Layer {
                query: n.linear(hidden, hidden),
                key: n.linear(hidden, hidden),
                value: n.linear(hidden, hidden),
                attention_output: n.linear(hidden, hidden),
                attention_norm: n.norm(hidden),
                intermediate: n.linear(middle, hidden),
                output: n.linear(hidden, middle),
                output_norm: n.norm(hidden),
            })
            .collect(),
        additions: Additions {
            padding_position: config.pad_token_id.map(|_| n.matrix(1, width, 0.2).data),
            embedding_projection: config.embedding_size.map(|_| n.linear(hidden, width)),
            dense: config
                .after_pooling
                .iter()
                .filter_map(|step| match step {
                    &AfterPooling::Dense { in_features, out_features, .. } => {
                        Some(n.linear(out_features, in_features))
                    }
                    _ => None,
                })
                .collect(),
        },
        config,
    }
}
