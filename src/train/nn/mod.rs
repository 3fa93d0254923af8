//! Networks that learn: a differentiable BERT, its operations, products and losses.

pub mod batch;
pub mod bert;
mod composed;
mod float_weights;
mod fused;
#[cfg(feature = "cuda")]
pub(in crate::train) mod gpu;
pub mod gradients;
pub(in crate::train) mod host;
mod layout;
pub mod losses;
pub mod matmul;
mod network;
pub mod ops;
pub mod options;
pub mod output;
pub mod pair_head;
pub mod parameters;
pub mod random;
pub(in crate::train) mod rounding;
mod tape;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
