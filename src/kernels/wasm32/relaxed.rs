//! Relaxed SIMD: 8-bit products of pairs in 16 bits. The relaxed dot is only defined where its
//! second operand has 7 bits; activations do, in every build.

use std::arch::wasm32::*;

use super::simd128::{Floats, Simd128, store};
use crate::kernels::tiles::{Out, Panel, Rows, RowsI16, Tile, table};
use crate::kernels::{Kernels, LANES};
use crate::quant::RowScale;

pub(super) static KERNELS: Kernels = table!("relaxed", "simd128,relaxed-simd", Relaxed, Floats);

struct Relaxed;

impl Tile for Relaxed {
    const ROWS: usize = 4;
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
                let mut sums = [[i32x4_splat(0); 2]; R];
                for k in (0..panel.depth).step_by(8) {
                    let group = panel.data.add(k * LANES + 4 * at);
                    let w = |i: usize| v128_load(group.add(16 * i).cast());
                    let (w00, w01, w10, w11) = (w(0), w(1), w(4), w(5));
                    for (r, sums) in sums.iter_mut().enumerate() {
                        let x = a.data.add(r * a.stride + k);
                        let x0 = v128_load32_splat(x.cast());
                        let x1 = v128_load32_splat(x.add(4).cast());
                        // Four products of at most 127 · 63 fit 16 bits: two steps are added there.
                        let low = i16x8_add(
                            i16x8_relaxed_dot_i8x16_i7x16(w00, x0),
                            i16x8_relaxed_dot_i8x16_i7x16(w10, x1),
                        );
                        let high = i16x8_add(
                            i16x8_relaxed_dot_i8x16_i7x16(w01, x0),
                            i16x8_relaxed_dot_i8x16_i7x16(w11, x1),
                        );
                        sums[0] = i32x4_add(sums[0], i32x4_extadd_pairwise_i16x8(low));
                        sums[1] = i32x4_add(sums[1], i32x4_extadd_pairwise_i16x8(high));
                    }
                }
                for (r, sums) in sums.into_iter().enumerate() {
                    let out = out.data.add(r * out.stride + at);
                    store(sums[0], at, panel, &scales[r], out);
                    store(sums[1], at + 4, panel, &scales[r], out.add(4));
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn block_i16<const R: usize>(
        a: RowsI16,
        depth: usize,
        b: *const i16,
        columns: usize,
        out: Out<i32>,
    ) {
        // SAFETY: the same promises.
        unsafe { Simd128::block_i16::<R>(a, depth, b, columns, out) }
    }
}
