//! 512-bit kernels with the 8-bit dot product instruction (VNNI).

use std::arch::x86_64::*;

use crate::kernels::lanes::{LANES, Lanes};
use crate::kernels::table::{Kernels, table};
use crate::kernels::tiles::{Out, Panel, Rows, RowsI16, Tile};
use crate::quant::RowScale;

pub(super) static KERNELS: Kernels =
    table!("avx512vnni", "avx512f,avx512bw,avx512vl,avx512vnni,avx2", Avx512, Floats);

struct Avx512;

impl Tile for Avx512 {
    const ROWS: usize = 8;
    const ROWS_I16: usize = 8;

    #[inline(always)]
    unsafe fn block<const R: usize>(
        a: Rows,
        panel: Panel<'_>,
        scales: &[RowScale; R],
        out: Out<f32>,
    ) {
        // SAFETY: the caller's promises (see `Tile::block`) cover every pointer below.
        unsafe {
            // Two chains of sums hide the dot instruction's latency.
            let mut sums = [[_mm512_setzero_si512(); 2]; R];
            for k in (0..panel.depth).step_by(8) {
                let group = panel.data.add(k * LANES);
                let w =
                    [_mm512_loadu_si512(group.cast()), _mm512_loadu_si512(group.add(64).cast())];
                for (r, sums) in sums.iter_mut().enumerate() {
                    let x = a.data.add(r * a.stride + k).cast::<i32>();
                    for half in 0..2 {
                        let x = _mm512_set1_epi32(x.add(half).read_unaligned());
                        sums[half] = _mm512_dpbusd_epi32(sums[half], x, w[half]);
                    }
                }
            }
            let channel_scales = _mm512_loadu_ps(panel.scales.as_ptr());
            let bias = _mm512_loadu_ps(panel.bias.as_ptr());
            let channel_sums = _mm512_loadu_si512(panel.sums.as_ptr().cast());
            for (r, [even, odd]) in sums.into_iter().enumerate() {
                let zero =
                    _mm512_mullo_epi32(channel_sums, _mm512_set1_epi32(scales[r].zero_point));
                let sum = _mm512_sub_epi32(_mm512_add_epi32(even, odd), zero);
                let scale = _mm512_mul_ps(_mm512_set1_ps(scales[r].scale), channel_scales);
                let y = _mm512_add_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(sum), scale), bias);
                _mm512_storeu_ps(out.data.add(r * out.stride), y);
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
            let mut sums = [_mm512_setzero_si512(); R];
            for pair in 0..depth / 2 {
                let b = _mm512_loadu_si512(b.add(2 * pair * columns).cast());
                for (r, sum) in sums.iter_mut().enumerate() {
                    let x = a.data.add(r * a.stride + 2 * pair).cast::<i32>().read_unaligned();
                    *sum = _mm512_dpwssd_epi32(*sum, _mm512_set1_epi32(x), b);
                }
            }
            for (r, sum) in sums.into_iter().enumerate() {
                _mm512_storeu_si512(out.data.add(r * out.stride).cast(), sum);
            }
        }
    }
}

/// One register of 16 floats.
#[derive(Clone, Copy)]
pub(super) struct Floats(__m512);

#[rustfmt::skip]
impl Lanes for Floats {
    const WIDTH: usize = LANES;
    type Int = __m512i;
    // Half a register: most sentences are short.
    type Shorts = super::avx2::Shorts;
    type Few = Self;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        // SAFETY: AVX-512 is there (the caller's promise).
        unsafe { Floats(_mm512_set1_ps(x)) }
    }
    #[inline(always)]
    unsafe fn load(from: &[f32]) -> Self {
        // SAFETY: AVX-512 and the values are there (the caller's promises).
        unsafe { Floats(_mm512_loadu_ps(from.as_ptr())) }
    }
    #[inline(always)]
    unsafe fn store(self, to: &mut [f32]) {
        // SAFETY: AVX-512 and the values are there (the caller's promises).
        unsafe { _mm512_storeu_ps(to.as_mut_ptr(), self.0) }
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: AVX-512 is there (the caller's promise).
        unsafe { Floats(_mm512_add_ps(self.0, other.0)) }
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        // SAFETY: AVX-512 is there (the caller's promise).
        unsafe { Floats(_mm512_sub_ps(self.0, other.0)) }
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        // SAFETY: AVX-512 is there (the caller's promise).
        unsafe { Floats(_mm512_mul_ps(self.0, other.0)) }
    }
    // The instruction gives its second operand where neither is smaller.
    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        // SAFETY: AVX-512 is there (the caller's promise).
        unsafe { Floats(_mm512_min_ps(other.0, self.0)) }
    }
    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        // SAFETY: AVX-512 is there (the caller's promise).
        unsafe { Floats(_mm512_max_ps(other.0, self.0)) }
    }
    #[inline(always)]
    unsafe fn abs(self) -> Self {
        // SAFETY: AVX-512 is there (the caller's promise).
        unsafe { Floats(_mm512_abs_ps(self.0)) }
    }
    #[inline(always)]
    unsafe fn bits(self) -> Self::Int {
        // SAFETY: AVX-512 is there (the caller's promise).
        unsafe { _mm512_castps_si512(self.0) }
    }
    #[inline(always)]
    unsafe fn from_bits(bits: Self::Int) -> Self {
        // SAFETY: AVX-512 is there (the caller's promise).
        unsafe { Floats(_mm512_castsi512_ps(bits)) }
    }
    #[inline(always)]
    unsafe fn from_int(x: Self::Int) -> Self {
        // SAFETY: AVX-512 is there (the caller's promise).
        unsafe { Floats(_mm512_cvtepi32_ps(x)) }
    }
    #[inline(always)]
    unsafe fn splat_int(x: i32) -> Self::Int {
        // SAFETY: AVX-512 is there (the caller's promise).
        unsafe { _mm512_set1_epi32(x) }
    }
    #[inline(always)]
    unsafe fn load_int(from: &[i32]) -> Self::Int {
        // SAFETY: AVX-512 and the values are there (the caller's promises).
        unsafe { _mm512_loadu_si512(from.as_ptr().cast()) }
    }
    #[inline(always)]
    unsafe fn add_int(a: Self::Int, b: Self::Int) -> Self::Int {
        // SAFETY: AVX-512 is there (the caller's promise).
        unsafe { _mm512_add_epi32(a, b) }
    }
    #[inline(always)]
    unsafe fn to_exponent(x: Self::Int) -> Self::Int {
        // SAFETY: AVX-512 is there (the caller's promise).
        unsafe { _mm512_slli_epi32::<23>(x) }
    }
    #[inline(always)]
    unsafe fn store_u7(x: Self::Int, to: &mut [u8]) {
        // SAFETY: AVX-512 and the values are there (the caller's promises).
        unsafe {
            let x = _mm512_max_epi32(x, _mm512_setzero_si512());
            let x = _mm512_min_epi32(x, _mm512_set1_epi32(127));
            _mm_storeu_si128(to.as_mut_ptr().cast(), _mm512_cvtepi32_epi8(x));
        }
    }
    #[inline(always)]
    unsafe fn store_i16(x: Self::Int, to: &mut [i16]) {
        // SAFETY: AVX-512 and the values are there (the caller's promises).
        unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), _mm512_cvtepi32_epi16(x)) }
    }
    #[inline(always)]
    unsafe fn store_pairs(a: Self::Int, b: Self::Int, to: &mut [i16]) {
        // SAFETY: AVX-512 and the values are there (the caller's promises).
        unsafe {
            // The low halves of `a` and, shifted into the high halves, of `b`.
            let pairs = _mm512_mask_blend_epi16(0xaaaa_aaaa, a, _mm512_slli_epi32::<16>(b));
            _mm512_storeu_si512(to.as_mut_ptr().cast(), pairs);
        }
    }
}
