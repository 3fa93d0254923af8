//! 128-bit kernels: plain SIMD, and relaxed SIMD where the build has it.

use super::table::{Kernels, table};

#[cfg(target_feature = "relaxed-simd")]
pub(super) mod dot;
#[cfg(target_feature = "simd128")]
#[cfg_attr(
    not(target_feature = "relaxed-simd"),
    allow(dead_code, reason = "only sums in 16 bits ask for exact groups")
)]
pub(super) mod loading;
#[cfg(target_feature = "relaxed-simd")]
mod relaxed;
#[cfg(target_feature = "simd128")]
mod simd128;
#[cfg(target_feature = "simd128")]
mod strassen;

#[cfg(target_feature = "simd128")]
static SIMD128: Kernels = Kernels {
    gemm: strassen::gemm,
    ..table!("simd128", "simd128", simd128::Simd128, simd128::Floats)
};

/// Products summed in pairs of 16 bits.
#[cfg(target_feature = "relaxed-simd")]
static RELAXED: Kernels =
    table!("relaxed", "simd128,relaxed-simd", relaxed::Relaxed<relaxed::Sixteen>, simd128::Floats);

/// Products summed in fours of 32 bits.
#[cfg(target_feature = "relaxed-simd")]
static RELAXED_DOT: Kernels = table!(
    "relaxed-dot",
    "simd128,relaxed-simd",
    relaxed::Relaxed<relaxed::ThirtyTwo>,
    simd128::Floats
);

pub(super) fn available() -> Vec<&'static Kernels> {
    vec![
        #[cfg(target_feature = "simd128")]
        &SIMD128,
        #[cfg(target_feature = "relaxed-simd")]
        &RELAXED,
        #[cfg(target_feature = "relaxed-simd")]
        &RELAXED_DOT,
    ]
}

pub(super) fn select() -> &'static Kernels {
    #[cfg(target_feature = "relaxed-simd")]
    return if dot::is_composed() { &RELAXED } else { &RELAXED_DOT };
    #[cfg(not(target_feature = "relaxed-simd"))]
    available().pop().unwrap_or(&super::scalar::KERNELS)
}
