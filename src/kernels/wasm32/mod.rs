//! 128-bit kernels: plain SIMD, and relaxed SIMD where the build has it.

use super::Kernels;

#[cfg(target_feature = "relaxed-simd")]
mod relaxed;
#[cfg(target_feature = "simd128")]
mod simd128;
#[cfg(target_feature = "simd128")]
mod strassen;
#[cfg(target_feature = "simd128")]
#[cfg_attr(
    not(target_feature = "relaxed-simd"),
    allow(dead_code, reason = "only sums in 16 bits ask for exact steps")
)]
mod weights;

#[cfg(target_feature = "simd128")]
pub(super) use weights::channel_sums;
#[cfg(target_feature = "relaxed-simd")]
pub(super) use weights::exact_steps;

pub(super) fn available() -> Vec<&'static Kernels> {
    vec![
        #[cfg(target_feature = "simd128")]
        &simd128::KERNELS,
        #[cfg(target_feature = "relaxed-simd")]
        &relaxed::KERNELS,
        #[cfg(target_feature = "relaxed-simd")]
        &relaxed::KERNELS_DOT,
    ]
}

pub(super) fn select() -> &'static Kernels {
    #[cfg(target_feature = "relaxed-simd")]
    return if add_in_16_bits() { &relaxed::KERNELS } else { &relaxed::KERNELS_DOT };
    #[cfg(not(target_feature = "relaxed-simd"))]
    available().pop().unwrap_or(&super::scalar::KERNELS)
}

/// Whether [`select`] gives the table whose products add in 16 bits.
#[cfg(target_feature = "relaxed-simd")]
pub(super) fn add_in_16_bits() -> bool {
    relaxed::dot_is_composed()
}
