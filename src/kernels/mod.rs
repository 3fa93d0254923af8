//! The arithmetic of the encoder, one table of functions per instruction set.
//!
//! [`scalar`] is the definition. Every other table gives the same bits for the same finite input:
//! integer sums are exact in any order, and float code uses only correctly rounded operations in
//! a fixed order. A row with a value that is not finite does not disturb other rows, and layer
//! normalization makes all of it NaN in every table; what else is computed from it may differ between
//! tables, so whoever uses them looks at the last states (see [`crate::model`]).
//!
//! Kernels take and return slices. What they need beside them grows with the largest input seen and is
//! used again: the caller's [`AttentionScratch`], and buffers of the thread where a product rearranges
//! its factors. Of models they know the activations' names.
//!
//! Float rows are padded with zeros to a multiple of [`LANES`] columns; packed matrices likewise,
//! so that no kernel needs a remainder in columns or depth.

mod args;
mod attention;
mod lanes;
mod loading;
pub mod pack;
mod packed_matrix;
mod rows;
pub mod scalar;
mod scratch;
mod softmax;
mod table;
#[cfg(test)]
mod tests;
mod tiles;
#[cfg(target_arch = "wasm32")]
mod wasm32;
#[cfg(target_arch = "x86_64")]
pub(crate) mod x86_64;

pub use args::{LayerNormArgs, QuantizedRows, RowsMut, SoftmaxArgs};
pub use attention::{AttentionArgs, AttentionScratch};
pub(crate) use lanes::tree_sum;
pub use lanes::{LANES, padded};
pub use packed_matrix::{MAX_COLS, PackError, PackedMatrix};
pub(crate) use scratch::grow;
pub use table::Kernels;

/// The best table for this machine. Where that is AMX, Linux is asked for its registers now; the
/// environment variable `MUNJANG_AMX=0` says no to it.
pub fn select() -> &'static Kernels {
    #[cfg(target_arch = "wasm32")]
    return wasm32::select();
    #[cfg(target_arch = "x86_64")]
    return x86_64::select();
    #[cfg(not(any(target_arch = "wasm32", target_arch = "x86_64")))]
    return &scalar::KERNELS;
}

/// Every table that runs on this machine, the definition first. Nothing is asked of the system.
pub fn available() -> Vec<&'static Kernels> {
    #[allow(unused_mut, reason = "some machines have the definition only")]
    let mut tables = vec![&scalar::KERNELS];
    #[cfg(target_arch = "wasm32")]
    tables.extend(wasm32::available());
    #[cfg(target_arch = "x86_64")]
    tables.extend(x86_64::available());
    tables
}
