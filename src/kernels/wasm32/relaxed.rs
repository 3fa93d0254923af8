//! Relaxed SIMD: 8-bit products of pairs in 16 bits. The relaxed dot is only defined where its
//! second operand has 7 bits; activations do, in every build.

use std::arch::wasm32::*;
use std::marker::PhantomData;

use super::simd128::{Simd128, store};
use crate::kernels::lanes::LANES;
use crate::kernels::pack::HALF_PANEL;
use crate::kernels::tiles::{Out, Panel, Rows, RowsI16, Tile};
use crate::quant::RowScale;

/// How products become sums.
pub(super) trait Sum {
    /// Rows of a block.
    const ROWS: usize;

    /// The sums of `R` rows times 8 channels over `depth`. Four products of a channel lie side by
    /// side in `w`, those of the next four values of depth 64 bytes further. Pairs of products of
    /// `groups` such groups fit 16 bits, and `depth` is a multiple of them: 2, 4 or 6.
    ///
    /// # Safety
    /// As [`Tile::block`].
    unsafe fn sums<const R: usize>(
        a: Rows,
        w: *const i8,
        depth: usize,
        groups: u8,
    ) -> [[v128; 2]; R];
}

/// In pairs of 16 bits.
pub(super) struct Sixteen;

impl Sum for Sixteen {
    // V8 keeps the 32-bit sums of four rows on the stack, where the inner loop does not touch them;
    // three rows take 1.05 times as long, five 1.03.
    const ROWS: usize = 4;

    // Widening takes a multiplication for two of the products', so it is done as seldom as the
    // weights allow. The inner loop is one whose length the compiler does not know: unrolled, all of
    // its factors would be loaded before the first product, and V8 would spill them.
    #[inline(never)]
    unsafe fn sums<const R: usize>(
        a: Rows,
        w: *const i8,
        depth: usize,
        groups: u8,
    ) -> [[v128; 2]; R] {
        let mut sums = [[i32x4_splat(0); 2]; R];
        // SAFETY: the caller's.
        unsafe {
            let mut k = 0;
            while k < depth {
                let end = k + 4 * usize::from(groups);
                let mut pairs = two_groups::<R>(a, w, k);
                k += 8;
                while k < end {
                    let more = two_groups::<R>(a, w, k);
                    for (pairs, more) in
                        pairs.as_flattened_mut().iter_mut().zip(more.as_flattened())
                    {
                        *pairs = i16x8_add(*pairs, *more);
                    }
                    k += 8;
                }
                for (sums, pairs) in sums.as_flattened_mut().iter_mut().zip(pairs.as_flattened()) {
                    *sums = i32x4_add(*sums, i32x4_extadd_pairwise_i16x8(*pairs));
                }
            }
        }
        sums
    }
}

/// Pairs of products of 8 values of depth from `k` on, in 16 bits.
///
/// # Safety
/// As [`Tile::block`].
#[inline(always)]
unsafe fn two_groups<const R: usize>(a: Rows, w: *const i8, k: usize) -> [[v128; 2]; R] {
    let mut pairs = [[i16x8_splat(0); 2]; R];
    // SAFETY: the caller's.
    unsafe {
        let w = |i: usize| v128_load(w.add(k * LANES + 16 * i).cast());
        let weights = [[w(0), w(4)], [w(1), w(5)]];
        for (r, pairs) in pairs.iter_mut().enumerate() {
            let x = a.data.add(r * a.stride + k);
            let x = [v128_load32_splat(x.cast()), v128_load32_splat(x.add(4).cast())];
            for (pairs, w) in pairs.iter_mut().zip(weights) {
                *pairs = i16x8_add(
                    i16x8_relaxed_dot_i8x16_i7x16(w[0], x[0]),
                    i16x8_relaxed_dot_i8x16_i7x16(w[1], x[1]),
                );
            }
        }
    }
    pairs
}

/// In fours of 32 bits: one instruction where the CPU has such a dot product (AVX-VNNI, ARM), two and
/// slower where it has not.
pub(super) struct ThirtyTwo;

impl Sum for ThirtyTwo {
    // A dot waits for the one before in its sum: eight sums hide that, six do not (95 GMAC/s
    // instead of 125), ten fit V8's registers in one order of instructions only (52).
    const ROWS: usize = 4;

    // Not inlined: among the values of a larger function V8 would spill within the loop.
    #[inline(never)]
    unsafe fn sums<const R: usize>(
        a: Rows,
        w: *const i8,
        depth: usize,
        _groups: u8,
    ) -> [[v128; 2]; R] {
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

pub(super) struct Relaxed<S>(PhantomData<S>);

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
            for (at, groups) in (0..LANES).step_by(HALF_PANEL).zip(panel.exact_groups) {
                let sums = S::sums::<R>(a, panel.data.add(4 * at), panel.depth, groups);
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
