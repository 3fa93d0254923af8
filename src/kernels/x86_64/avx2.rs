//! 256-bit kernels.

use std::arch::x86_64::*;

use crate::kernels::lanes::{self, LANES, Lanes};
use crate::kernels::table::{Kernels, table};
use crate::kernels::tiles::{Out, Panel, Rows, RowsI16, Tile};
use crate::quant::RowScale;

pub(super) static KERNELS: Kernels = table!("avx2", "avx2", Avx2, Floats);

struct Avx2;

impl Tile for Avx2 {
    const ROWS: usize = 4;
    const ROWS_I16: usize = 4;

    #[inline(always)]
    unsafe fn block<const R: usize>(
        a: Rows,
        panel: Panel<'_>,
        scales: &[RowScale; R],
        out: Out<f32>,
    ) {
        // SAFETY: the caller's promises (see `Tile::block`) cover every pointer below.
        unsafe {
            let ones = _mm256_set1_epi16(1);
            let mut sums = [[_mm256_setzero_si256(); 2]; R];
            for k in (0..panel.depth).step_by(8) {
                let group = panel.data.add(k * LANES);
                let w00 = _mm256_loadu_si256(group.cast());
                let w01 = _mm256_loadu_si256(group.add(32).cast());
                let w10 = _mm256_loadu_si256(group.add(64).cast());
                let w11 = _mm256_loadu_si256(group.add(96).cast());
                for (r, sums) in sums.iter_mut().enumerate() {
                    let x = a.data.add(r * a.stride + k).cast::<i32>();
                    let x0 = _mm256_set1_epi32(x.read_unaligned());
                    let x1 = _mm256_set1_epi32(x.add(1).read_unaligned());
                    // Four products of at most 127 · 63 fit 16 bits: two groups are added there.
                    let low = _mm256_add_epi16(
                        _mm256_maddubs_epi16(x0, w00),
                        _mm256_maddubs_epi16(x1, w10),
                    );
                    let high = _mm256_add_epi16(
                        _mm256_maddubs_epi16(x0, w01),
                        _mm256_maddubs_epi16(x1, w11),
                    );
                    sums[0] = _mm256_add_epi32(sums[0], _mm256_madd_epi16(low, ones));
                    sums[1] = _mm256_add_epi32(sums[1], _mm256_madd_epi16(high, ones));
                }
            }
            for half in 0..2 {
                let at = 8 * half;
                let channel_scales = _mm256_loadu_ps(panel.scales.as_ptr().add(at));
                let bias = _mm256_loadu_ps(panel.bias.as_ptr().add(at));
                let channel_sums = _mm256_loadu_si256(panel.sums.as_ptr().add(at).cast());
                for r in 0..R {
                    let zero =
                        _mm256_mullo_epi32(channel_sums, _mm256_set1_epi32(scales[r].zero_point));
                    let sum = _mm256_cvtepi32_ps(_mm256_sub_epi32(sums[r][half], zero));
                    let scale = _mm256_mul_ps(_mm256_set1_ps(scales[r].scale), channel_scales);
                    let y = _mm256_add_ps(_mm256_mul_ps(sum, scale), bias);
                    _mm256_storeu_ps(out.data.add(r * out.stride + at), y);
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
            let mut sums = [[_mm256_setzero_si256(); 2]; R];
            for pair in 0..depth / 2 {
                let b0 = _mm256_loadu_si256(b.add(2 * pair * columns).cast());
                let b1 = _mm256_loadu_si256(b.add(2 * pair * columns + 16).cast());
                for (r, sums) in sums.iter_mut().enumerate() {
                    let x = a.data.add(r * a.stride + 2 * pair).cast::<i32>().read_unaligned();
                    let x = _mm256_set1_epi32(x);
                    sums[0] = _mm256_add_epi32(sums[0], _mm256_madd_epi16(x, b0));
                    sums[1] = _mm256_add_epi32(sums[1], _mm256_madd_epi16(x, b1));
                }
            }
            for (r, [low, high]) in sums.into_iter().enumerate() {
                _mm256_storeu_si256(out.data.add(r * out.stride).cast(), low);
                _mm256_storeu_si256(out.data.add(r * out.stride + 8).cast(), high);
            }
        }
    }
}

/// Two registers of 8 floats.
#[derive(Clone, Copy)]
pub(super) struct Floats(__m256, __m256);

/// Sixteen 16-bit integers.
#[derive(Clone, Copy)]
pub(super) struct Shorts(__m256i);

#[rustfmt::skip]
impl lanes::Shorts for Shorts {
    const WIDTH: usize = LANES;

    #[inline(always)]
    unsafe fn constant(x: i16) -> Self {
        // SAFETY: AVX2 is there (the caller's promise).
        unsafe { Shorts(_mm256_set1_epi16(x)) }
    }
    #[inline(always)]
    unsafe fn below(best: i32, scores: &[i32], shift: u32) -> Self {
        let scores = scores.as_ptr().cast::<__m256i>();
        // SAFETY: AVX2 and the values are there (the caller's promises).
        unsafe {
            let (best, shift) = (_mm256_set1_epi32(best), _mm_cvtsi32_si128(shift as i32));
            let a = _mm256_sra_epi32(_mm256_sub_epi32(best, _mm256_loadu_si256(scores)), shift);
            let b = _mm256_sra_epi32(_mm256_sub_epi32(best, _mm256_loadu_si256(scores.add(1))), shift);
            // Packing works in halves of a register; the permutation restores the order.
            Shorts(_mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi32(a, b)))
        }
    }
    #[inline(always)]
    unsafe fn store(self, to: &mut [i16]) {
        // SAFETY: AVX2 and the values are there (the caller's promises).
        unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), self.0) }
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        // SAFETY: AVX2 is there (the caller's promise).
        unsafe { Shorts(_mm256_sub_epi16(self.0, other.0)) }
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        // SAFETY: AVX2 is there (the caller's promise).
        unsafe { Shorts(_mm256_mullo_epi16(self.0, other.0)) }
    }
    #[inline(always)]
    unsafe fn scale(self, other: Self) -> Self {
        // SAFETY: AVX2 is there (the caller's promise).
        unsafe { Shorts(_mm256_mulhrs_epi16(self.0, other.0)) }
    }
    #[inline(always)]
    unsafe fn halvings(self) -> Self {
        // SAFETY: AVX2 is there (the caller's promise).
        unsafe { Shorts(_mm256_srai_epi16::<10>(self.0)) }
    }
    #[inline(always)]
    unsafe fn fraction(self) -> Self {
        // SAFETY: AVX2 is there (the caller's promise).
        unsafe {
            Shorts(_mm256_and_si256(_mm256_slli_epi16::<5>(self.0), _mm256_set1_epi16(i16::MAX)))
        }
    }
    #[inline(always)]
    unsafe fn sub_bytes(self, other: Self) -> Self {
        // SAFETY: AVX2 is there (the caller's promise).
        unsafe { Shorts(_mm256_sub_epi8(self.0, other.0)) }
    }
    #[inline(always)]
    unsafe fn powers() -> Self {
        // SAFETY: AVX2 and the values are there (the caller's promises).
        unsafe {
            let powers = _mm_loadu_si128(lanes::POWERS.as_ptr().cast());
            Shorts(_mm256_broadcastsi128_si256(powers))
        }
    }
    #[inline(always)]
    unsafe fn at(self, places: Self) -> Self {
        // SAFETY: AVX2 is there (the caller's promise).
        unsafe { Shorts(_mm256_shuffle_epi8(self.0, places.0)) }
    }
}

#[rustfmt::skip]
impl Lanes for Floats {
    const WIDTH: usize = LANES;
    type Int = (__m256i, __m256i);
    type Shorts = Shorts;
    type Few = Self;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        // SAFETY: AVX2 is there (the caller's promise).
        unsafe { Floats(_mm256_set1_ps(x), _mm256_set1_ps(x)) }
    }
    #[inline(always)]
    unsafe fn load(from: &[f32]) -> Self {
        // SAFETY: AVX2 and the values are there (the caller's promises).
        unsafe { Floats(_mm256_loadu_ps(from.as_ptr()), _mm256_loadu_ps(from.as_ptr().add(8))) }
    }
    #[inline(always)]
    unsafe fn store(self, to: &mut [f32]) {
        // SAFETY: AVX2 and the values are there (the caller's promises).
        unsafe {
            _mm256_storeu_ps(to.as_mut_ptr(), self.0);
            _mm256_storeu_ps(to.as_mut_ptr().add(8), self.1);
        }
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: AVX2 is there (the caller's promise).
        unsafe { Floats(_mm256_add_ps(self.0, other.0), _mm256_add_ps(self.1, other.1)) }
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        // SAFETY: AVX2 is there (the caller's promise).
        unsafe { Floats(_mm256_sub_ps(self.0, other.0), _mm256_sub_ps(self.1, other.1)) }
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        // SAFETY: AVX2 is there (the caller's promise).
        unsafe { Floats(_mm256_mul_ps(self.0, other.0), _mm256_mul_ps(self.1, other.1)) }
    }
    // The instruction gives its second operand where neither is smaller.
    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        // SAFETY: AVX2 is there (the caller's promise).
        unsafe { Floats(_mm256_min_ps(other.0, self.0), _mm256_min_ps(other.1, self.1)) }
    }
    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        // SAFETY: AVX2 is there (the caller's promise).
        unsafe { Floats(_mm256_max_ps(other.0, self.0), _mm256_max_ps(other.1, self.1)) }
    }
    #[inline(always)]
    unsafe fn abs(self) -> Self {
        // SAFETY: AVX2 is there (the caller's promise).
        unsafe {
            let sign = _mm256_set1_ps(-0.0);
            Floats(_mm256_andnot_ps(sign, self.0), _mm256_andnot_ps(sign, self.1))
        }
    }
    #[inline(always)]
    unsafe fn bits(self) -> Self::Int {
        // SAFETY: AVX2 is there (the caller's promise).
        unsafe { (_mm256_castps_si256(self.0), _mm256_castps_si256(self.1)) }
    }
    #[inline(always)]
    unsafe fn from_bits(bits: Self::Int) -> Self {
        // SAFETY: AVX2 is there (the caller's promise).
        unsafe { Floats(_mm256_castsi256_ps(bits.0), _mm256_castsi256_ps(bits.1)) }
    }
    #[inline(always)]
    unsafe fn from_int(x: Self::Int) -> Self {
        // SAFETY: AVX2 is there (the caller's promise).
        unsafe { Floats(_mm256_cvtepi32_ps(x.0), _mm256_cvtepi32_ps(x.1)) }
    }
    #[inline(always)]
    unsafe fn splat_int(x: i32) -> Self::Int {
        // SAFETY: AVX2 is there (the caller's promise).
        unsafe { (_mm256_set1_epi32(x), _mm256_set1_epi32(x)) }
    }
    #[inline(always)]
    unsafe fn load_int(from: &[i32]) -> Self::Int {
        let from = from.as_ptr().cast::<__m256i>();
        // SAFETY: AVX2 and the values are there (the caller's promises).
        unsafe { (_mm256_loadu_si256(from), _mm256_loadu_si256(from.add(1))) }
    }
    #[inline(always)]
    unsafe fn add_int(a: Self::Int, b: Self::Int) -> Self::Int {
        // SAFETY: AVX2 is there (the caller's promise).
        unsafe { (_mm256_add_epi32(a.0, b.0), _mm256_add_epi32(a.1, b.1)) }
    }
    #[inline(always)]
    unsafe fn to_exponent(x: Self::Int) -> Self::Int {
        // SAFETY: AVX2 is there (the caller's promise).
        unsafe { (_mm256_slli_epi32::<23>(x.0), _mm256_slli_epi32::<23>(x.1)) }
    }
    #[inline(always)]
    unsafe fn store_u7(x: Self::Int, to: &mut [u8]) {
        // SAFETY: AVX2 and the values are there (the caller's promises).
        unsafe {
            // Packing works in halves of a register; the permutation restores the order.
            let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi32(x.0, x.1));
            let (low, high) = (_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words));
            let bytes = _mm_min_epu8(_mm_packus_epi16(low, high), _mm_set1_epi8(127));
            _mm_storeu_si128(to.as_mut_ptr().cast(), bytes);
        }
    }
    #[inline(always)]
    unsafe fn store_i16(x: Self::Int, to: &mut [i16]) {
        // SAFETY: AVX2 and the values are there (the caller's promises).
        unsafe {
            let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi32(x.0, x.1));
            _mm256_storeu_si256(to.as_mut_ptr().cast(), words);
        }
    }
    #[inline(always)]
    unsafe fn store_pairs(a: Self::Int, b: Self::Int, to: &mut [i16]) {
        // SAFETY: AVX2 and the values are there (the caller's promises).
        unsafe {
            // The low halves of `a` and, shifted into the high halves, of `b`.
            let low = _mm256_blend_epi16::<0b10101010>(a.0, _mm256_slli_epi32::<16>(b.0));
            let high = _mm256_blend_epi16::<0b10101010>(a.1, _mm256_slli_epi32::<16>(b.1));
            let to = to.as_mut_ptr().cast::<__m256i>();
            _mm256_storeu_si256(to, low);
            _mm256_storeu_si256(to.add(1), high);
        }
    }
}
