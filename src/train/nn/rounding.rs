//! Weights of a whole model, rounded.

use super::ops::fake_quant;
use super::options::FakeQuant;
use crate::quant::EMBEDDING_MAX;
use crate::weights::{FloatModel, Matrix};

/// Rounds the weights as quantization-aware training sees them, which the exporter then finds
/// without an error.
pub fn round_weights(model: &mut FloatModel, quantize: FakeQuant) {
    let round = |matrix: &mut Matrix, limit: i8| {
        fake_quant::symmetric(&mut matrix.data, matrix.cols, limit);
    };
    if quantize.embeddings {
        for matrix in [&mut model.word_embeddings, &mut model.position_embeddings] {
            round(matrix, EMBEDDING_MAX);
        }
    }
    for layer in &mut model.layers {
        let attention = [&mut layer.query, &mut layer.key, &mut layer.value];
        let others = [&mut layer.attention_output, &mut layer.intermediate, &mut layer.output];
        for linear in attention.into_iter().chain(others) {
            round(&mut linear.weight, quantize.weight_max);
        }
    }
}
