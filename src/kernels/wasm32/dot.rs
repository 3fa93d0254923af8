//! What the relaxed dot product is made of on this CPU.

use std::arch::wasm32::*;

/// Whether the 32-bit dot is put together from a 16-bit one (x86 without AVX-VNNI, where it takes two
/// multiplications). Outside of its defined range the instruction shows what it is made of: from
/// 127 and 255, `pmaddubsw` gives saturated pairs, `vpdpbusd` the sum of four, and ARM's signed
/// products something negative. A measurement would have to wait for optimized code; this is right
/// at once, and every answer gives the same embeddings.
pub(in crate::kernels) fn is_composed() -> bool {
    let (w, x) = std::hint::black_box((i8x16_splat(127), u8x16_splat(255)));
    let sum = i32x4_relaxed_dot_i8x16_i7x16_add(w, x, i32x4_splat(0));
    i32x4_extract_lane::<0>(sum) == 2 * i32::from(i16::MAX)
}
