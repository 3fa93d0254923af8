//! Random weights, reproducible by their seed.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::config::ModelConfig;
use crate::weights::{Additions, FloatModel, Layer, LayerNorm, Linear, Matrix};

/// Numbers with the normal distribution's first two moments at least: the sum of 12 uniform ones.
fn normal(random: &mut ChaCha8Rng, deviation: f32) -> f32 {
    ((0..12).map(|_| random.random::<f32>()).sum::<f32>() - 6.0) * deviation
}

/// `n` random numbers around 0.
pub(in crate::train) fn random_values(n: usize, deviation: f32, seed: u64) -> Vec<f32> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    (0..n).map(|_| normal(&mut random, deviation)).collect()
}

/// Random weights as BERT starts with: normal with deviation 0.02, gains 1, biases 0. There is no
/// tokenizer in it.
pub fn random_float_model(config: &ModelConfig, seed: u64) -> FloatModel {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let (hidden, inner) = (config.hidden_size, config.intermediate_size);
    let mut matrix = |rows: usize, cols: usize| Matrix {
        rows,
        cols,
        data: (0..rows * cols).map(|_| normal(&mut random, 0.02)).collect(),
    };
    let norm = || LayerNorm { weight: vec![1.0; hidden], bias: vec![0.0; hidden] };
    let word_embeddings = matrix(config.vocab_size, hidden);
    let position_embeddings = matrix(config.max_position_embeddings, hidden);
    let mut linear =
        |rows: usize, cols: usize| Linear { weight: matrix(rows, cols), bias: vec![0.0; rows] };
    let layers = (0..config.num_hidden_layers)
        .map(|_| Layer {
            query: linear(hidden, hidden),
            key: linear(hidden, hidden),
            value: linear(hidden, hidden),
            attention_output: linear(hidden, hidden),
            attention_norm: norm(),
            intermediate: linear(inner, hidden),
            output: linear(hidden, inner),
            output_norm: norm(),
        })
        .collect();
    FloatModel {
        config: config.clone(),
        tokenizer_json: Vec::new(),
        word_embeddings,
        position_embeddings,
        embedding_norm: norm(),
        layers,
        additions: Additions::default(),
    }
}
