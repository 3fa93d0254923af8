//! Strassen's product of 16-bit factors (Strassen 1969, *Gaussian elimination is not optimal*): of the eight
//! products of halves of rows, depth and channels, seven are computed, of sums of such halves. Bytes leave 16
//! bits room for these sums, and in 32 bits nothing is rounded: same bits as by the definition.

use std::arch::wasm32::*;
use std::cell::RefCell;

use super::simd128::{Simd128, store, sums, widen};
use crate::kernels::args::QuantizedRows;
use crate::kernels::lanes::{LANES, sixteen};
use crate::kernels::pack::HALF_PANEL;
use crate::kernels::packed_matrix::PackedMatrix;
use crate::kernels::scratch::grow;
use crate::kernels::tiles::{self, Panel, RowsI16, Tile as _};
use crate::quant::RowScale;

/// Rows from which on the additions around the products pay.
const FEWEST_ROWS: usize = 16;
/// Rows of one product in registers.
const ROWS: usize = Simd128::ROWS;

#[derive(Default)]
struct Scratch {
    /// One after the other, the first factors of the seven products, `[rows / 2][depth / 2]`.
    rows: Vec<i16>,
    /// The second factor of one product, `[2][depth / 4][8 channels][2]`.
    channels: Vec<i16>,
    /// Rows of the upper half times the first panel and the second, then those of the lower half,
    /// `[rows / 2][16]` each.
    sums: Vec<i32>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Where a product belongs in the sums, and whether it is taken from them.
type Target = (usize, bool);

/// See [`Kernels::gemm`](crate::kernels::Kernels::gemm).
pub(super) fn gemm(a: QuantizedRows<'_>, w: &PackedMatrix, out: &mut [f32]) {
    let (count, channels, depth) = (a.scales.len(), w.rows(), w.cols());
    if count < FEWEST_ROWS || !channels.is_multiple_of(2 * LANES) {
        // SAFETY: this module is compiled for the instruction set.
        unsafe { tiles::gemm::<Simd128>(a, w, out) };
        return;
    }
    tiles::check_gemm(&a, w, out);
    SCRATCH.with_borrow_mut(|scratch| {
        let half_rows = count.div_ceil(2);
        let half_depth = depth / 2;
        grow(&mut scratch.rows, 7 * half_rows * half_depth);
        grow(&mut scratch.channels, half_depth * LANES);
        grow(&mut scratch.sums, 4 * half_rows * LANES);
        combine_rows(a, half_depth, half_rows, &mut scratch.rows);
        for channel in (0..channels / 2).step_by(LANES) {
            let both = [channel, channels / 2 + channel];
            let panels = both.map(|channel| &w.weights()[channel * depth..][..LANES * depth]);
            scratch.multiply(panels, half_rows, half_depth);
            for (part, channel) in both.into_iter().enumerate() {
                let panel = Panel {
                    data: std::ptr::null(),
                    depth,
                    scales: sixteen(w.scales(), channel),
                    bias: sixteen(w.bias(), channel),
                    sums: sixteen(w.sums(), channel),
                    exact_groups: [2; 2],
                };
                for (lower, scales) in a.scales.chunks(half_rows).enumerate() {
                    let sums = &scratch.sums[(2 * lower + part) * half_rows * LANES..];
                    let out = &mut out[lower * half_rows * channels + channel..];
                    dequantize(sums, panel, scales, out, channels);
                }
            }
        }
    });
}

/// The first factors of the seven products; rows beyond the last are zero.
fn combine_rows(a: QuantizedRows<'_>, depth: usize, rows: usize, out: &mut [i16]) {
    let out = &mut out[..7 * rows * depth];
    let count = a.scales.len();
    assert!(rows <= count && count <= 2 * rows && depth.is_multiple_of(8));
    for row in 0..rows {
        let upper = a.data[row * a.stride..][..2 * depth].as_ptr();
        // Without a row there, the upper one stands for it, times zero.
        let (lower, mask) = match rows + row < count {
            true => (a.data[(rows + row) * a.stride..][..2 * depth].as_ptr(), -1),
            false => (upper, 0),
        };
        for k in (0..depth).step_by(8) {
            // SAFETY: rows have `2 · depth` values, and `out` as many places as seven factors.
            unsafe {
                let load = |row: *const u8| u16x8_load_extend_u8x8(row.add(k));
                let lower = |at: usize| v128_and(load(lower.add(at)), i16x8_splat(mask));
                let (a11, a12) = (load(upper), load(upper.add(depth)));
                let (a21, a22) = (lower(0), lower(depth));
                let mut to = out.as_mut_ptr().add(row * depth + k);
                for values in [
                    i16x8_add(a11, a22),
                    i16x8_add(a21, a22),
                    a11,
                    a22,
                    i16x8_add(a11, a12),
                    i16x8_sub(a21, a11),
                    i16x8_sub(a12, a22),
                ] {
                    v128_store(to.cast(), values);
                    to = to.wrapping_add(rows * depth);
                }
            }
        }
    }
}

impl Scratch {
    /// The sums of all rows times two panels, of different halves of the channels.
    fn multiply(&mut self, [first, second]: [&[i8]; 2], rows: usize, depth: usize) {
        const UPPER_FIRST: usize = 0;
        const UPPER_SECOND: usize = 1;
        const LOWER_FIRST: usize = 2;
        const LOWER_SECOND: usize = 3;
        self.sums[..4 * rows * LANES].fill(0);
        let (b11, b21) = first.split_at(depth * LANES);
        let (b12, b22) = second.split_at(depth * LANES);
        let plus = |target: usize| Some((target, false));
        let minus = |target: usize| Some((target, true));
        let shape = (rows, depth);
        widen(b11, &mut self.channels, plus_bytes(b22));
        self.product(0, shape, [plus(UPPER_FIRST), plus(LOWER_SECOND)]);
        widen(b11, &mut self.channels, |values, _| values);
        self.product(1, shape, [plus(LOWER_FIRST), minus(LOWER_SECOND)]);
        widen(b12, &mut self.channels, minus_bytes(b22));
        self.product(2, shape, [plus(UPPER_SECOND), plus(LOWER_SECOND)]);
        widen(b21, &mut self.channels, minus_bytes(b11));
        self.product(3, shape, [plus(UPPER_FIRST), plus(LOWER_FIRST)]);
        widen(b22, &mut self.channels, |values, _| values);
        self.product(4, shape, [minus(UPPER_FIRST), plus(UPPER_SECOND)]);
        widen(b11, &mut self.channels, plus_bytes(b12));
        self.product(5, shape, [plus(LOWER_SECOND), None]);
        widen(b21, &mut self.channels, plus_bytes(b22));
        self.product(6, shape, [plus(UPPER_FIRST), None]);
    }

    /// The product of the first factor `index` and `channels`, where it belongs in the sums.
    fn product(&mut self, index: usize, (rows, depth): (usize, usize), to: [Option<Target>; 2]) {
        let a = &self.rows[index * rows * depth..][..rows * depth];
        let channels = &self.channels[..depth * LANES];
        // One pointer for all places: borrowed anew, a second one would end the first.
        let sums = self.sums[..4 * rows * LANES].as_mut_ptr();
        for (half, b) in channels.chunks_exact(HALF_PANEL * depth).enumerate() {
            for row in (0..rows).step_by(ROWS) {
                let part = RowsI16 { data: a[row * depth..].as_ptr(), stride: depth };
                // SAFETY: each of the four targets has `rows` rows of 16 sums; that many rows are left in
                // `a` and in each target.
                unsafe {
                    let places = to.map(|target| {
                        target.map(|(target, negative)| {
                            let at = (target * rows + row) * LANES + half * HALF_PANEL;
                            (sums.add(at), negative)
                        })
                    });
                    match ROWS.min(rows - row) {
                        1 => product::<1>(part, depth, b.as_ptr(), places),
                        2 => product::<2>(part, depth, b.as_ptr(), places),
                        3 => product::<3>(part, depth, b.as_ptr(), places),
                        _ => product::<ROWS>(part, depth, b.as_ptr(), places),
                    }
                }
            }
        }
    }
}

/// The sum with the bytes of `other` at the same place: of two weights it fits a byte.
fn plus_bytes(other: &[i8]) -> impl Fn(v128, usize) -> v128 {
    |values, at| i8x16_add(values, load(other, at))
}

fn minus_bytes(other: &[i8]) -> impl Fn(v128, usize) -> v128 {
    |values, at| i8x16_sub(values, load(other, at))
}

#[inline(always)]
fn load(bytes: &[i8], at: usize) -> v128 {
    let bytes: &[i8; 16] = bytes[at..].first_chunk().expect("panels of equal length");
    // SAFETY: the array has 16 bytes.
    unsafe { v128_load(bytes.as_ptr().cast()) }
}

/// `R` rows times 8 channels, added to up to two places or taken from them. Not inlined: among the
/// values of a larger function V8 would spill within the loop.
///
/// # Safety
/// `a` must be readable for `(R − 1) · stride + depth` values, `b` for `8 · depth`, and each place
/// for reading and writing `(R − 1) · 16 + 8`.
#[inline(never)]
unsafe fn product<const R: usize>(
    a: RowsI16,
    depth: usize,
    b: *const i16,
    places: [Option<(*mut i32, bool)>; 2],
) {
    // SAFETY: the caller's.
    unsafe {
        let sums = sums::<R>(a, depth, b, HALF_PANEL);
        for (place, negative) in places.into_iter().flatten() {
            for (r, sums) in sums.iter().enumerate() {
                for (four, &sum) in sums.iter().enumerate() {
                    let place = place.add(r * LANES + 4 * four).cast::<v128>();
                    let before = v128_load(place);
                    let after =
                        if negative { i32x4_sub(before, sum) } else { i32x4_add(before, sum) };
                    v128_store(place, after);
                }
            }
        }
    }
}

/// Rows of a panel's sums as floats.
fn dequantize(sums: &[i32], panel: Panel<'_>, scales: &[RowScale], out: &mut [f32], stride: usize) {
    let rows = sums.chunks_exact(LANES).zip(out.chunks_mut(stride));
    for ((sums, out), scale) in rows.zip(scales) {
        let out: &mut [f32; LANES] = out.first_chunk_mut().expect("16 channels");
        for at in (0..LANES).step_by(4) {
            // SAFETY: both have 16 values.
            unsafe {
                let sum = v128_load(sums[at..].as_ptr().cast());
                store(sum, at, panel, scale, out[at..].as_mut_ptr());
            }
        }
    }
}
