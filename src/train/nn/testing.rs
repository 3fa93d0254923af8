//! A small model and a batch, for the tests of this folder.

use candle_core::Device;

use super::batch::TokenBatch;
use super::bert::BertModel;
use super::random::random_float_model;
use crate::config::{Activation, ModelConfig, Pooling};

pub(super) fn small_config() -> ModelConfig {
    ModelConfig {
        model_type: "bert".into(),
        vocab_size: 37,
        hidden_size: 24,
        num_hidden_layers: 2,
        num_attention_heads: 3,
        intermediate_size: 44,
        max_position_embeddings: 12,
        layer_norm_eps: 1e-5,
        hidden_act: Activation::Gelu,
        pooling: Pooling::Mean,
        ..ModelConfig::default()
    }
}

pub(super) fn small_model(seed: u64) -> BertModel {
    let mut weights = random_float_model(&small_config(), seed);
    // Larger than BERT's start: nothing is nearly linear then.
    let grow = |data: &mut Vec<f32>| data.iter_mut().for_each(|x| *x *= 12.0);
    grow(&mut weights.word_embeddings.data);
    grow(&mut weights.position_embeddings.data);
    for layer in &mut weights.layers {
        for linear in [
            &mut layer.query,
            &mut layer.key,
            &mut layer.value,
            &mut layer.attention_output,
            &mut layer.intermediate,
            &mut layer.output,
        ] {
            grow(&mut linear.weight.data);
        }
    }
    BertModel::from_float_model(&weights, &Device::Cpu).expect("a valid model")
}

pub(super) fn small_batch() -> TokenBatch {
    let sentences = [vec![3, 9, 9, 30], vec![7], vec![1, 2, 3, 4, 5, 6, 7, 8, 36], vec![0, 9]];
    TokenBatch::new(&sentences).expect("no sentence is empty")
}
