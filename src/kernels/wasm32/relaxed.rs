//! Relaxed SIMD: 8-bit products of pairs in 16 bits. The relaxed dot is only defined where its
//! second operand has 7 bits; activations do, in every build.

use std::arch::wasm32::*;
use std::marker::PhantomData;

use super::simd128::{Floats, Simd128, store};
use crate::kernels::tiles::{Out, Panel, Rows, RowsI16, Tile, table};
use crate::kernels::{Kernels, LANES};
use crate::quant::RowScale;

/// Products summed in pairs of 16 bits.
pub(super) static KERNELS: Kernels =
    table!("relaxed", "simd128,relaxed-simd", Relaxed<Sixteen>, Floats);
/// Products summed in fours of 32 bits: one instruction where the CPU has such a dot product
/// (AVX-VNNI, ARM), two and slower where it has not.
pub(super) static KERNELS_DOT: Kernels =
    table!("relaxed-dot", "simd128,relaxed-simd", Relaxed<ThirtyTwo>, Floats);

/// How products become sums.
trait Sum {
    /// Rows of a block.
    const ROWS: usize;

    /// The sums of `R` rows times 8 channels over `depth`. Four products of a channel lie side by
    /// side in `w`, those of the next four values of depth 64 bytes further.
    ///
    /// Not inlined: among the values of a larger function V8 would spill within the loop.
    ///
    /// # Safety
    /// As [`Tile::block`].
    unsafe fn sums<const R: usize>(a: Rows, w: *const i8, depth: usize) -> [[v128; 2]; R];
}

struct Sixteen;

impl Sum for Sixteen {
    // With four rows V8 runs out of registers and spills, which costs a tenth.
    const ROWS: usize = 3;

    #[inline(never)]
    unsafe fn sums<const R: usize>(a: Rows, w: *const i8, depth: usize) -> [[v128; 2]; R] {
        // Four products of at most 127 · 63 fit 16 bits: two steps are added there.
        let add_dots = |sum: v128, w: [v128; 2], x: [v128; 2]| {
            let pairs = i16x8_add(
                i16x8_relaxed_dot_i8x16_i7x16(w[0], x[0]),
                i16x8_relaxed_dot_i8x16_i7x16(w[1], x[1]),
            );
            i32x4_add(sum, i32x4_extadd_pairwise_i16x8(pairs))
        };
        let mut sums = [[i32x4_splat(0); 2]; R];
        for k in (0..depth).step_by(8) {
            // SAFETY: the caller's.
            unsafe {
                let w = |i: usize| v128_load(w.add(k * LANES + 16 * i).cast());
                let (low, high) = ([w(0), w(4)], [w(1), w(5)]);
                for (r, sums) in sums.iter_mut().enumerate() {
                    let x = a.data.add(r * a.stride + k);
                    let x = [v128_load32_splat(x.cast()), v128_load32_splat(x.add(4).cast())];
                    sums[0] = add_dots(sums[0], low, x);
                    sums[1] = add_dots(sums[1], high, x);
                }
            }
        }
        sums
    }
}

struct ThirtyTwo;

impl Sum for ThirtyTwo {
    // A dot waits for the one before in its sum: eight sums hide that, six do not (95 GMAC/s
    // instead of 125), ten fit V8's registers in one order of instructions only (52).
    const ROWS: usize = 4;

    #[inline(never)]
    unsafe fn sums<const R: usize>(a: Rows, w: *const i8, depth: usize) -> [[v128; 2]; R] {
        let mut sums = [[i32x4_splat(0); 2]; R];
        for k in (0..depth).step_by(4) {
            // SAFETY: the caller's.
            unsafe {
                let w = w.add(k * LANES);
                let (low, high) = (v128_load(w.cast()), v128_load(w.add(16).cast()));
                for (r, sums) in sums.iter_mut().enumerate() {
                    let x = v128_load32_splat(a.data.add(r * a.stride + k).cast());
                    sums[0] = i32x4_relaxed_dot_i8x16_i7x16_add(low, x, sums[0]);
                    sums[1] = i32x4_relaxed_dot_i8x16_i7x16_add(high, x, sums[1]);
                }
            }
        }
        sums
    }
}

/// Whether the 32-bit dot is put together from a 16-bit one (x86 without AVX-VNNI, where it takes two
/// multiplications). Outside of its defined range the instruction shows what it is made of: from
/// 127 and 255, `pmaddubsw` gives saturated pairs, `vpdpbusd` the sum of four, and ARM's signed
/// products something negative. A measurement would have to wait for optimized code; this is right
/// at once, and every answer gives the same embeddings.
pub(super) fn dot_is_composed() -> bool {
    let (w, x) = std::hint::black_box((i8x16_splat(127), u8x16_splat(255)));
    let sum = i32x4_relaxed_dot_i8x16_i7x16_add(w, x, i32x4_splat(0));
    i32x4_extract_lane::<0>(sum) == 2 * i32::from(i16::MAX)
}

struct Relaxed<S>(PhantomData<S>);

impl<S: Sum> Tile for Relaxed<S> {
    const ROWS: usize = S::ROWS;
    const ROWS_I16: usize = Simd128::ROWS_I16;

    #[inline(always)]
    unsafe fn block<const R: usize>(
        a: Rows,
        panel: Panel<'_>,
        scales: &[RowScale; R],
        out: Out<f32>,
    ) {
        // SAFETY: the caller's promises (see `Tile::block`) cover every pointer below.
        unsafe {
            for at in (0..LANES).step_by(8) {
                let sums = S::sums::<R>(a, panel.data.add(4 * at), panel.depth);
                for (r, sums) in sums.into_iter().enumerate() {
                    let out = out.data.add(r * out.stride + at);
                    store(sums[0], at, panel, &scales[r], out);
                    store(sums[1], at + 4, panel, &scales[r], out.add(4));
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn rows_i16<const R: usize>(
        a: RowsI16,
        depth: usize,
        b: *const i16,
        columns: usize,
        out: Out<i32>,
    ) {
        // SAFETY: the same promises.
        unsafe { Simd128::rows_i16::<R>(a, depth, b, columns, out) }
    }
}
