//! The buffers of one encoding thread. They grow to the largest group seen and are reused, so that
//! a steady stream of sentences allocates nothing here.

use crate::config::ModelConfig;
use crate::kernels::{AttentionScratch, grow, padded};
use crate::quant::RowScale;

#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// `tokens × hidden`: the states.
    pub(super) hidden: Vec<f32>,
    /// `tokens × 3 · heads`, where `heads` is the width of all heads, each padded.
    pub(super) query_key_value: Vec<f32>,
    /// `tokens × heads`: what attention gives.
    pub(super) context: Vec<f32>,
    /// `block × (hidden + intermediate)`: products that wait for their residual or activation.
    pub(super) product: Vec<f32>,
    /// `block × intermediate` or `block × hidden`.
    pub(super) quantized: Vec<u8>,
    /// One per row of a block.
    pub(super) scales: Vec<RowScale>,
    pub(super) attention: AttentionScratch,
}

impl Scratch {
    /// Makes room for `tokens` tokens in blocks of `block` rows.
    pub(super) fn reserve(&mut self, config: &ModelConfig, tokens: usize, block: usize) {
        let width = padded(config.hidden_size);
        let embedding = padded(config.embedding_width());
        let heads = config.num_attention_heads * padded(config.head_size());
        let middle = padded(config.intermediate_size);
        grow(&mut self.hidden, tokens * width.max(embedding));
        grow(&mut self.query_key_value, tokens * 3 * heads);
        grow(&mut self.context, tokens * heads);
        grow(&mut self.product, block * (width + middle));
        grow(&mut self.quantized, block * heads.max(width).max(middle).max(embedding));
        grow(&mut self.scales, block);
    }
}
