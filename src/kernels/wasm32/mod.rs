//! 128-bit kernels: plain SIMD, and relaxed SIMD where the build has it.

use super::Kernels;

#[cfg(target_feature = "relaxed-simd")]
mod relaxed;
#[cfg(target_feature = "simd128")]
mod simd128;

pub(super) fn available() -> Vec<&'static Kernels> {
    vec![
        #[cfg(target_feature = "simd128")]
        &simd128::KERNELS,
        #[cfg(target_feature = "relaxed-simd")]
        &relaxed::KERNELS,
    ]
}

pub(super) fn select() -> &'static Kernels {
    available().pop().unwrap_or(&super::scalar::KERNELS)
}
