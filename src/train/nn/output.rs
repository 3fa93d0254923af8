//! What a forward pass gives.

use candle_core::Tensor;

use super::tape::Tape;

/// The vectors and states of a batch. In training mode the tensors carry gradients.
pub struct ForwardOutput {
    /// `num_tokens × hidden`, in the batch's order.
    pub token_states: Tensor,
    /// `num_sentences × hidden`, pooled as the config says, not normalized.
    pub pooled: Tensor,
    /// One `num_tokens × hidden` per entry of [`ForwardOptions::layer_states`](super::options::ForwardOptions::layer_states).
    pub layer_states: Vec<Tensor>,
    pub(super) train: bool,
    /// Of a fused pass in training mode.
    pub(super) tape: Option<Tape>,
    /// Word embedding rows that a composed pass in training mode used.
    pub(super) rows: Option<Vec<u32>>,
}
