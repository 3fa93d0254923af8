//! The operations of a transformer encoder on the CPU, forward and backward, on packed rows.
//!
//! candle's own `LayerNorm`, `softmax_last_dim` and `rms_norm` have no backward pass and drop
//! gradients without a word, and its composed operations take ten times PyTorch's time. These work
//! on slices, use all threads of the rayon pool, and sum in an order that does not depend on which
//! thread does what: the same input gives the same bits.

pub mod activation;
pub mod attention;
pub mod dropout;
pub mod embedding;
pub mod fake_quant;
pub mod layer_norm;
pub mod linear;
pub mod pool;
pub mod pooling;
#[cfg(test)]
pub(in crate::train) mod testing;
pub mod vector;
