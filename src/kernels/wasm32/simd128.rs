//! Plain SIMD: both factors widened to 16 bits, exact products of pairs summed in 32 bits.

use std::arch::wasm32::*;

use crate::kernels::lanes::Lanes;
use crate::kernels::tiles::{Out, Panel, Rows, RowsI16, Tile, table};
use crate::kernels::{Kernels, LANES};
use crate::quant::RowScale;

pub(super) static KERNELS: Kernels = table!("simd128", "simd128", Simd128, Floats);

pub(super) struct Simd128;

/// Dequantizes 4 channels (from `at`) of one row.
///
/// # Safety
/// `out` must be writable for 4 floats.
#[inline(always)]
pub(super) unsafe fn store(sum: v128, at: usize, panel: Panel<'_>, row: &RowScale, out: *mut f32) {
    // SAFETY: the channel arrays have 16 values and `at` is 0, 4, 8 or 12; `out` is the caller's.
    unsafe {
        let load = |values: *const f32| v128_load(values.add(at).cast());
        let channel_sums = v128_load(panel.sums.as_ptr().add(at).cast());
        let zero = i32x4_mul(channel_sums, i32x4_splat(row.zero_point));
        let sum = f32x4_convert_i32x4(i32x4_sub(sum, zero));
        let scale = f32x4_mul(f32x4_splat(row.scale), load(panel.scales.as_ptr()));
        let y = f32x4_add(f32x4_mul(sum, scale), load(panel.bias.as_ptr()));
        v128_store(out.cast(), y);
    }
}

/// The sums of `R` rows times 4 channels: of each channel two halves, of channels 0 and 1 and of 2
/// and 3, which fit V8's registers. Not inlined: among the values of a larger function V8 would
/// spill within the loop.
///
/// # Safety
/// `a` as in [`Tile::block`]; `w` must be readable for `8 · depth` bytes.
#[inline(never)]
unsafe fn sums<const R: usize>(a: Rows, w: *const i8, depth: usize) -> [[v128; 2]; R] {
    let mut sums = [[i32x4_splat(0); 2]; R];
    for k in (0..depth).step_by(4) {
        // SAFETY: the caller's.
        unsafe {
            let w0 = v128_load(w.add(8 * k).cast());
            let w1 = v128_load(w.add(8 * k + 16).cast());
            for (r, sums) in sums.iter_mut().enumerate() {
                // Four values of 16 bits.
                let x = v128_load64_splat(a.data.add(r * a.stride + 2 * k).cast());
                sums[0] = i32x4_add(sums[0], i32x4_dot_i16x8(x, w0));
                sums[1] = i32x4_add(sums[1], i32x4_dot_i16x8(x, w1));
            }
        }
    }
    sums
}

/// The sums of `R` rows of 16-bit integers times 8 columns. Not inlined, as [`sums`].
///
/// # Safety
/// As [`Tile::block_i16`], of 8 columns.
#[inline(never)]
unsafe fn sums_i16<const R: usize>(
    a: RowsI16,
    depth: usize,
    b: *const i16,
    columns: usize,
) -> [[v128; 2]; R] {
    let mut sums = [[i32x4_splat(0); 2]; R];
    for pair in 0..depth / 2 {
        // SAFETY: the caller's.
        unsafe {
            let b0 = v128_load(b.add(2 * pair * columns).cast());
            let b1 = v128_load(b.add(2 * pair * columns + 8).cast());
            for (r, sums) in sums.iter_mut().enumerate() {
                let x = v128_load32_splat(a.data.add(r * a.stride + 2 * pair).cast());
                sums[0] = i32x4_add(sums[0], i32x4_dot_i16x8(x, b0));
                sums[1] = i32x4_add(sums[1], i32x4_dot_i16x8(x, b1));
            }
        }
    }
    sums
}

impl Tile for Simd128 {
    const ROWS: usize = 4;
    const ROWS_I16: usize = 4;
    const WIDE: bool = true;

    #[inline(always)]
    unsafe fn widen(panel: &[i8], wide: &mut [i16]) {
        let per_group = panel.len() / 4;
        for (k, step) in panel.chunks_exact(4 * LANES).enumerate() {
            for (group, values) in step.chunks_exact(16).enumerate() {
                let wide = &mut wide[group * per_group + 16 * k..][..16];
                // SAFETY: both slices have 16 values.
                unsafe {
                    let values = v128_load(values.as_ptr().cast());
                    let wide = wide.as_mut_ptr().cast::<v128>();
                    v128_store(wide, i16x8_extend_low_i8x16(values));
                    v128_store(wide.add(1), i16x8_extend_high_i8x16(values));
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn block<const R: usize>(
        a: Rows,
        panel: Panel<'_>,
        scales: &[RowScale; R],
        out: Out<f32>,
    ) {
        // SAFETY: the caller's promises (see `Tile::block`) cover every pointer below.
        unsafe {
            for at in (0..LANES).step_by(4) {
                let sums = sums::<R>(a, panel.data.add(2 * at * panel.depth), panel.depth);
                for (r, [low, high]) in sums.into_iter().enumerate() {
                    let even = i32x4_shuffle::<0, 2, 4, 6>(low, high);
                    let odd = i32x4_shuffle::<1, 3, 5, 7>(low, high);
                    let out = out.data.add(r * out.stride + at);
                    store(i32x4_add(even, odd), at, panel, &scales[r], out);
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
        // SAFETY: the caller's promises (see `Tile::block_i16`).
        unsafe {
            for half in 0..2 {
                let sums = sums_i16::<R>(a, depth, b.add(16 * half), columns);
                for (r, [low, high]) in sums.into_iter().enumerate() {
                    let out = out.data.add(r * out.stride + 8 * half);
                    v128_store(out.cast(), low);
                    v128_store(out.add(4).cast(), high);
                }
            }
        }
    }
}

#[inline(always)]
fn each(a: [v128; 4], b: [v128; 4], f: impl Fn(v128, v128) -> v128) -> [v128; 4] {
    [f(a[0], b[0]), f(a[1], b[1]), f(a[2], b[2]), f(a[3], b[3])]
}

/// # Safety
/// `from` must be readable for 64 bytes.
#[inline(always)]
unsafe fn quarters(from: *const v128) -> [v128; 4] {
    // SAFETY: the caller's.
    unsafe {
        [v128_load(from), v128_load(from.add(1)), v128_load(from.add(2)), v128_load(from.add(3))]
    }
}

/// # Safety
/// `to` must be writable for 64 bytes.
#[inline(always)]
unsafe fn store_quarters(x: [v128; 4], to: *mut v128) {
    for (i, x) in x.into_iter().enumerate() {
        // SAFETY: the caller's.
        unsafe { v128_store(to.add(i), x) };
    }
}

/// Joins sixteen lanes in the fixed tree, 16 → 8 → 4 → 2 → 1.
#[inline(always)]
fn join(x: [v128; 4], f: impl Fn(v128, v128) -> v128) -> f32 {
    let four = f(f(x[0], x[2]), f(x[1], x[3]));
    let two = f(four, i32x4_shuffle::<2, 3, 2, 3>(four, four));
    f32x4_extract_lane::<0>(f(two, i32x4_shuffle::<1, 1, 1, 1>(two, two)))
}

/// Four registers of 4 floats.
#[derive(Clone, Copy)]
pub(super) struct Floats([v128; 4]);

// SAFETY of the blocks below: the arrays have room for 16 values.
#[rustfmt::skip]
impl Lanes for Floats {
    type Int = [v128; 4];

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        Floats([f32x4_splat(x); 4])
    }
    #[inline(always)]
    unsafe fn load(from: &[f32; LANES]) -> Self {
        unsafe { Floats(quarters(from.as_ptr().cast())) }
    }
    #[inline(always)]
    unsafe fn store(self, to: &mut [f32; LANES]) {
        unsafe { store_quarters(self.0, to.as_mut_ptr().cast()) }
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        Floats(each(self.0, other.0, |a, b| f32x4_add(a, b)))
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        Floats(each(self.0, other.0, |a, b| f32x4_sub(a, b)))
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        Floats(each(self.0, other.0, |a, b| f32x4_mul(a, b)))
    }
    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        Floats(each(self.0, other.0, |a, b| f32x4_pmin(a, b)))
    }
    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        Floats(each(self.0, other.0, |a, b| f32x4_pmax(a, b)))
    }
    #[inline(always)]
    unsafe fn abs(self) -> Self {
        Floats(self.0.map(|x| f32x4_abs(x)))
    }
    #[inline(always)]
    unsafe fn bits(self) -> Self::Int {
        self.0
    }
    #[inline(always)]
    unsafe fn from_bits(bits: Self::Int) -> Self {
        Floats(bits)
    }
    #[inline(always)]
    unsafe fn from_int(x: Self::Int) -> Self {
        Floats(x.map(|x| f32x4_convert_i32x4(x)))
    }
    #[inline(always)]
    unsafe fn splat_int(x: i32) -> Self::Int {
        [i32x4_splat(x); 4]
    }
    #[inline(always)]
    unsafe fn load_int(from: &[i32; LANES]) -> Self::Int {
        unsafe { quarters(from.as_ptr().cast()) }
    }
    #[inline(always)]
    unsafe fn store_int(x: Self::Int, to: &mut [i32; LANES]) {
        unsafe { store_quarters(x, to.as_mut_ptr().cast()) }
    }
    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        join(self.0, |a, b| f32x4_add(a, b))
    }
    #[inline(always)]
    unsafe fn lowest(self) -> f32 {
        join(self.0, |a, b| f32x4_pmin(a, b))
    }
    #[inline(always)]
    unsafe fn highest(self) -> f32 {
        join(self.0, |a, b| f32x4_pmax(a, b))
    }
    #[inline(always)]
    unsafe fn add_int(a: Self::Int, b: Self::Int) -> Self::Int {
        each(a, b, |a, b| i32x4_add(a, b))
    }
    #[inline(always)]
    unsafe fn to_exponent(x: Self::Int) -> Self::Int {
        x.map(|x| i32x4_shl(x, 23))
    }
    #[inline(always)]
    unsafe fn store_u7(x: Self::Int, to: &mut [u8; LANES]) {
        let (low, high) = (i16x8_narrow_i32x4(x[0], x[1]), i16x8_narrow_i32x4(x[2], x[3]));
        let bytes = u8x16_min(u8x16_narrow_i16x8(low, high), u8x16_splat(127));
        unsafe { v128_store(to.as_mut_ptr().cast(), bytes) }
    }
    #[inline(always)]
    unsafe fn store_i16(x: Self::Int, to: &mut [i16; LANES]) {
        unsafe {
            let to = to.as_mut_ptr().cast::<v128>();
            v128_store(to, i16x8_narrow_i32x4(x[0], x[1]));
            v128_store(to.add(1), i16x8_narrow_i32x4(x[2], x[3]));
        }
    }
    #[inline(always)]
    unsafe fn store_pairs(a: Self::Int, b: Self::Int, to: &mut [i16; 2 * LANES]) {
        let low = i32x4_splat(0xffff);
        let pairs = each(a, b, |a, b| v128_bitselect(a, i32x4_shl(b, 16), low));
        unsafe { store_quarters(pairs, to.as_mut_ptr().cast()) }
    }
}
