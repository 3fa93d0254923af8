//! Plain SIMD: both factors widened to 16 bits, exact products of pairs summed in 32 bits.

use std::arch::wasm32::*;

use crate::kernels::lanes::{self, LANES, Lanes};
use crate::kernels::tiles::{Out, Panel, Rows, RowsI16, Tile};
use crate::quant::RowScale;

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

/// The sums of `R` rows of 16-bit integers times 8 columns of pairs. The loop is not unrolled: the
/// compiler would load all operands of two rounds first, more than V8 has registers for.
///
/// # Safety
/// As [`Tile::rows_i16`], of 8 columns; `depth` is even.
#[inline(always)]
pub(super) unsafe fn sums<const R: usize>(
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

/// Widens a panel, `[depth / 4][16 channels][4]`, to 16 bits: `[2][depth / 2][8 channels][2]`. `change` is
/// given 16 bytes at a time and where they lie.
#[inline(always)]
pub(super) fn widen(panel: &[i8], wide: &mut [i16], change: impl Fn(v128, usize) -> v128) {
    let per_half = panel.len() / 2;
    let (first, second) = wide[..panel.len()].split_at_mut(per_half);
    let groups = panel.chunks_exact(4 * LANES);
    let halves = first.chunks_exact_mut(32).zip(second.chunks_exact_mut(32));
    for (k, (group, (first, second))) in groups.zip(halves).enumerate() {
        for (half, wide) in [first, second].into_iter().enumerate() {
            for four in 0..2 {
                let at = 32 * half + 16 * four;
                // Four channels: their first two values of depth, and behind those of all eight their
                // other two.
                // SAFETY: `group` has 64 values, `wide` 32.
                unsafe {
                    let values = v128_load(group.as_ptr().add(at).cast());
                    let values = change(values, 4 * LANES * k + at);
                    let low = i16x8_extend_low_i8x16(values);
                    let high = i16x8_extend_high_i8x16(values);
                    let wide = wide.as_mut_ptr().add(8 * four).cast::<v128>();
                    v128_store(wide, i32x4_shuffle::<0, 2, 4, 6>(low, high));
                    v128_store(wide.add(2), i32x4_shuffle::<1, 3, 5, 7>(low, high));
                }
            }
        }
    }
}

/// `R` rows times the 8 channels of `panel` from `at` on. Not inlined: among the values of a larger
/// function V8 would spill within the loop.
///
/// # Safety
/// As [`Tile::block`].
#[inline(never)]
unsafe fn half<const R: usize>(
    a: Rows,
    panel: &Panel<'_>,
    at: usize,
    scales: &[RowScale; R],
    out: Out<f32>,
) {
    // SAFETY: the caller's.
    unsafe {
        let a = RowsI16 { data: a.data.cast(), stride: a.stride / 2 };
        let w = panel.data.cast::<i16>().add(at * panel.depth);
        for (r, [low, high]) in sums::<R>(a, panel.depth, w, 8).into_iter().enumerate() {
            let out = out.data.add(r * out.stride + at);
            store(low, at, *panel, &scales[r], out);
            store(high, at + 4, *panel, &scales[r], out.add(4));
        }
    }
}

/// [`Tile::rows_i16`], not inlined for the same reason.
///
/// # Safety
/// As there.
#[inline(never)]
unsafe fn rows_i16<const R: usize>(
    a: RowsI16,
    depth: usize,
    b: *const i16,
    columns: usize,
    out: Out<i32>,
) {
    for c in (0..columns).step_by(8) {
        // SAFETY: the caller's.
        unsafe {
            let sums = sums::<R>(a, depth, b.add(2 * c), columns);
            for (r, [low, high]) in sums.into_iter().enumerate() {
                let out = out.data.add(r * out.stride + c);
                v128_store(out.cast(), low);
                v128_store(out.add(4).cast(), high);
            }
        }
    }
}

impl Tile for Simd128 {
    const ROWS: usize = 4;
    const ROWS_I16: usize = 4;
    const WIDE: bool = true;

    #[inline(always)]
    unsafe fn widen(panel: &[i8], wide: &mut [i16]) {
        widen(panel, wide, |values, _| values);
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
            half::<R>(a, &panel, 0, scales, out);
            half::<R>(a, &panel, 8, scales, out);
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
        // SAFETY: the caller's promises.
        unsafe { rows_i16::<R>(a, depth, b, columns, out) }
    }
}

/// The low halves of all lanes. The compiler makes clamps of its own, two for four lanes, of the
/// instruction that narrows and saturates; this is one shuffle.
#[inline(always)]
fn low_halves(a: v128, b: v128) -> v128 {
    i16x8_shuffle::<0, 2, 4, 6, 8, 10, 12, 14>(a, b)
}

/// Joins the lanes of four registers in the fixed tree: 16 → 8 → 4 → 2 → 1.
#[inline(always)]
fn join([a, b, c, d]: [v128; 4], f: impl Fn(v128, v128) -> v128) -> f32 {
    join_two([f(a, c), f(b, d)], f)
}

/// The same from 8 lanes.
#[inline(always)]
fn join_two([a, b]: [v128; 2], f: impl Fn(v128, v128) -> v128) -> f32 {
    join_one([f(a, b)], f)
}

/// The same from 4 lanes.
#[inline(always)]
fn join_one([four]: [v128; 1], f: impl Fn(v128, v128) -> v128) -> f32 {
    let two = f(four, i32x4_shuffle::<2, 3, 2, 3>(four, four));
    f32x4_extract_lane::<0>(f(two, i32x4_shuffle::<1, 1, 1, 1>(two, two)))
}

/// Eight 16-bit integers.
#[derive(Clone, Copy)]
pub(super) struct Eight(v128);

impl lanes::Shorts for Eight {
    const WIDTH: usize = 8;

    // Hidden from the compiler, as `Lanes::constant`.
    #[inline(always)]
    unsafe fn constant(x: i16) -> Self {
        Eight(i16x8_splat(std::hint::black_box(x)))
    }
    #[inline(always)]
    unsafe fn below(best: i32, scores: &[i32], shift: u32) -> Self {
        let scores = scores.as_ptr().cast::<v128>();
        let best = i32x4_splat(best);
        // SAFETY: the values are there (the caller's promise).
        let (a, b) = unsafe { (v128_load(scores), v128_load(scores.add(1))) };
        let (a, b) = (i32x4_sub(best, a), i32x4_sub(best, b));
        Eight(i16x8_narrow_i32x4(i32x4_shr(a, shift), i32x4_shr(b, shift)))
    }
    #[inline(always)]
    unsafe fn store(self, to: &mut [i16]) {
        // SAFETY: the values are there (the caller's promise).
        unsafe { v128_store(to.as_mut_ptr().cast(), self.0) }
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        Eight(i16x8_sub(self.0, other.0))
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        Eight(i16x8_mul(self.0, other.0))
    }
    // Relaxed, it is one instruction of x86; it differs where both are −2¹⁵.
    #[inline(always)]
    unsafe fn scale(self, other: Self) -> Self {
        #[cfg(target_feature = "relaxed-simd")]
        return Eight(i16x8_relaxed_q15mulr(self.0, other.0));
        #[cfg(not(target_feature = "relaxed-simd"))]
        Eight(i16x8_q15mulr_sat(self.0, other.0))
    }
    #[inline(always)]
    unsafe fn halvings(self) -> Self {
        Eight(i16x8_shr(self.0, 10))
    }
    #[inline(always)]
    unsafe fn fraction(self) -> Self {
        // Without the sign: one instruction less than with a mask.
        Eight(u16x8_shr(i16x8_shl(self.0, 6), 1))
    }
    #[inline(always)]
    unsafe fn sub_bytes(self, other: Self) -> Self {
        Eight(i8x16_sub(self.0, other.0))
    }
    #[inline(always)]
    unsafe fn powers() -> Self {
        let powers = std::hint::black_box(lanes::POWERS);
        // SAFETY: the values are there (the caller's promise).
        Eight(unsafe { v128_load(powers.as_ptr().cast()) })
    }
    // Relaxed, it is one instruction of x86; it differs for places from 16 to 127.
    #[inline(always)]
    unsafe fn at(self, places: Self) -> Self {
        #[cfg(target_feature = "relaxed-simd")]
        return Eight(i8x16_relaxed_swizzle(self.0, places.0));
        #[cfg(not(target_feature = "relaxed-simd"))]
        Eight(i8x16_swizzle(self.0, places.0))
    }
}

/// Lanes in registers of four. Arrays are written out: built by a loop, they keep the compiler from
/// seeing that a comparison and a selection are one minimum.
macro_rules! registers {
    ($name:ident, $registers:literal, [$($i:literal),*], $join:ident) => {
        #[derive(Clone, Copy)]
        pub(super) struct $name([v128; $registers]);

        #[rustfmt::skip]
        impl Lanes for $name {
            const WIDTH: usize = 4 * $registers;
            type Int = [v128; $registers];
            type Shorts = Eight;
            // One register: V8 has 15 to give, which the constants of a chain fill. The CPU runs
            // several chains side by side anyway.
            type Few = Four;

            #[inline(always)]
            unsafe fn splat(x: f32) -> Self {
                $name([f32x4_splat(x); $registers])
            }
            // Hidden from the compiler: V8 would make a constant that it knows anew at each use, by
            // three instructions, where a value is kept in a register or read from the stack.
            #[inline(always)]
            unsafe fn constant(x: f32) -> Self {
                $name([f32x4_splat(std::hint::black_box(x)); $registers])
            }
            #[inline(always)]
            unsafe fn load(from: &[f32]) -> Self {
                let from = from.as_ptr().cast::<v128>();
                // SAFETY: the values are there (the caller's promise).
                unsafe { $name([$(v128_load(from.add($i))),*]) }
            }
            #[inline(always)]
            unsafe fn store(self, to: &mut [f32]) {
                let to = to.as_mut_ptr().cast::<v128>();
                // SAFETY: the values are there (the caller's promise).
                unsafe { $(v128_store(to.add($i), self.0[$i]);)* }
            }
            #[inline(always)]
            unsafe fn add(self, other: Self) -> Self {
                $name([$(f32x4_add(self.0[$i], other.0[$i])),*])
            }
            #[inline(always)]
            unsafe fn sub(self, other: Self) -> Self {
                $name([$(f32x4_sub(self.0[$i], other.0[$i])),*])
            }
            #[inline(always)]
            unsafe fn mul(self, other: Self) -> Self {
                $name([$(f32x4_mul(self.0[$i], other.0[$i])),*])
            }
            #[inline(always)]
            unsafe fn min(self, other: Self) -> Self {
                $name([$(f32x4_pmin(self.0[$i], other.0[$i])),*])
            }
            #[inline(always)]
            unsafe fn max(self, other: Self) -> Self {
                $name([$(f32x4_pmax(self.0[$i], other.0[$i])),*])
            }
            #[inline(always)]
            unsafe fn abs(self) -> Self {
                $name([$(f32x4_abs(self.0[$i])),*])
            }
            #[inline(always)]
            unsafe fn bits(self) -> Self::Int {
                self.0
            }
            #[inline(always)]
            unsafe fn from_bits(bits: Self::Int) -> Self {
                $name(bits)
            }
            #[inline(always)]
            unsafe fn from_int(x: Self::Int) -> Self {
                $name([$(f32x4_convert_i32x4(x[$i])),*])
            }
            #[inline(always)]
            unsafe fn splat_int(x: i32) -> Self::Int {
                [i32x4_splat(x); $registers]
            }
            #[inline(always)]
            unsafe fn load_int(from: &[i32]) -> Self::Int {
                let from = from.as_ptr().cast::<v128>();
                // SAFETY: the values are there (the caller's promise).
                unsafe { [$(v128_load(from.add($i))),*] }
            }
            #[inline(always)]
            unsafe fn sum_i16(row: &[i16]) -> i32 {
                let mut sums = i32x4_splat(0);
                for row in row.chunks_exact(8) {
                    // SAFETY: the values are there (the caller's promise).
                    let row = unsafe { v128_load(row.as_ptr().cast()) };
                    sums = i32x4_add(sums, i32x4_extadd_pairwise_i16x8(row));
                }
                let two = i32x4_add(sums, i32x4_shuffle::<2, 3, 2, 3>(sums, sums));
                i32x4_extract_lane::<0>(two) + i32x4_extract_lane::<1>(two)
            }
            #[inline(always)]
            unsafe fn sum(self) -> f32 {
                assert!(Self::WIDTH == LANES);
                $join(self.0, |a, b| f32x4_add(a, b))
            }
            #[inline(always)]
            unsafe fn lowest(self) -> f32 {
                $join(self.0, |a, b| f32x4_pmin(a, b))
            }
            #[inline(always)]
            unsafe fn highest(self) -> f32 {
                $join(self.0, |a, b| f32x4_pmax(a, b))
            }
            #[inline(always)]
            unsafe fn add_int(a: Self::Int, b: Self::Int) -> Self::Int {
                [$(i32x4_add(a[$i], b[$i])),*]
            }
            #[inline(always)]
            unsafe fn to_exponent(x: Self::Int) -> Self::Int {
                [$(i32x4_shl(x[$i], 23)),*]
            }
            #[inline(always)]
            unsafe fn store_u7(x: Self::Int, to: &mut [u8]) {
                let [a, b, c, d] = x[..] else { unreachable!("of sixteen lanes only") };
                // Clamped where 8 lanes lie side by side; narrowing then has nothing to saturate.
                let clamp = |x| i16x8_min(i16x8_max(x, i16x8_splat(0)), i16x8_splat(127));
                let bytes = u8x16_narrow_i16x8(clamp(low_halves(a, b)), clamp(low_halves(c, d)));
                // SAFETY: the values are there (the caller's promise).
                unsafe { v128_store(to.as_mut_ptr().cast(), bytes) }
            }
            #[inline(always)]
            unsafe fn store_i16(x: Self::Int, to: &mut [i16]) {
                let to = to.as_mut_ptr();
                for (i, x) in x.chunks(2).enumerate() {
                    // SAFETY: the values are there (the caller's promise).
                    unsafe {
                        match *x {
                            [a, b] => v128_store(to.add(8 * i).cast(), low_halves(a, b)),
                            [a, ..] => v128_store64_lane::<0>(low_halves(a, a), to.add(8 * i).cast()),
                            [] => {}
                        }
                    }
                }
            }
            // The low half of a rounded number is the integer: all that is above it in the bits of
            // the sum lies in the high half.
            #[inline(always)]
            unsafe fn store_rounded(self, magic: Self, to: &mut [i16]) {
                // SAFETY: the values are there (the caller's promise).
                unsafe { Self::store_i16(self.add(magic).bits(), to) }
            }
            #[inline(always)]
            unsafe fn store_pairs(a: Self::Int, b: Self::Int, to: &mut [i16]) {
                let low = i32x4_splat(0xffff);
                let to = to.as_mut_ptr().cast::<v128>();
                // SAFETY: the values are there (the caller's promise).
                unsafe {
                    $(v128_store(to.add($i), v128_bitselect(a[$i], i32x4_shl(b[$i], 16), low));)*
                }
            }
        }
    };
}

registers!(Floats, 4, [0, 1, 2, 3], join);
registers!(Four, 1, [0], join_one);
