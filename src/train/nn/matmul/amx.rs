//! Large products of bfloat16 with AMX: both factors packed as pairs, 32 × 32 sums in four tiles.
//!
//! As in `avx512`, each element is a sum in the order of depth, in blocks of [`DEPTH`] pairs,
//! whatever the threads.

use std::arch::x86_64::*;
use std::cell::RefCell;

use super::avx512::{in_tasks, pack_panels};
use super::product::{Product, View};
use crate::kernels::x86_64::amx::{Block, TILE_ROWS, Tiles, features, multiply_bf16, permitted};

/// Rows and columns of a block of sums.
const ROWS: usize = 2 * TILE_ROWS;
const COLS: usize = 32;
/// Pairs that one multiplication takes.
const STEP: usize = 16;
/// What 32 rows or columns take of one step, `[32 rows][16]` or `[16][32 columns]`.
const STEP_LANES: usize = 32 * STEP;
/// Pairs of a block's depth: a panel of it is 32 KiB, and half of the first cache stays for rows.
const DEPTH: usize = 256;
/// Most rows that a thread takes at a time: packed, a block of them is 384 KiB.
const TASK_ROWS: usize = 12 * ROWS;

thread_local! {
    static PACKED: RefCell<Vec<u32>> = const { RefCell::new(Vec::new()) };
    static TILE: RefCell<Vec<u32>> = const { RefCell::new(Vec::new()) };
}

/// Whether the product is one for the tiles: the CPU has them, it is large enough that packing is
/// little beside it, and the factors lie in memory as rows or as columns.
pub(super) fn suits(product: &Product<'_>) -> bool {
    let Product { a, b, .. } = *product;
    let lies = |x: View<'_>| x.col_stride == 1 || x.row_stride == 1;
    let large = a.rows >= TILE_ROWS && a.cols >= 2 * STEP && b.cols >= TILE_ROWS;
    large
        && lies(a)
        && lies(b)
        && features().bf16
        && is_x86_feature_detected!("avx512bf16")
        && permitted()
}

/// [`Product::write`], which has checked the shapes, of a product that [`suits`].
pub(super) fn write(product: &Product<'_>, out: &mut [f32], stride: usize) {
    let Product { a, b, scale, add, threads, .. } = *product;
    let (m, n) = (a.rows, b.cols);
    let depth = a.cols.div_ceil(2).next_multiple_of(STEP);
    let width = n.div_ceil(COLS) * COLS;
    // Taken out, since this thread may do other products while it waits for the others.
    let mut packed = PACKED.take();
    let panels = pack_panels(&mut packed, depth, DEPTH, width, threads, |begin, column, panel| {
        // SAFETY: AVX-512 with bfloat16 is there (`suits`).
        unsafe { pack_columns(b, begin, column, panel) };
    });
    let product_of_panels = PanelProduct { a, panels, width, n, stride, scale, add };
    in_tasks(out, (m, stride), (ROWS, TASK_ROWS), threads, |first, count, out| {
        product_of_panels.rows(first, count, out);
    });
    PACKED.set(packed);
}

/// 16 pairs from `x[0..]` and `x[1..]`: what lies side by side in depth, of the first 32 values.
///
/// # Safety
/// AVX-512 with bfloat16 must be there.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn along(x: &[f32]) -> __m512i {
    // SAFETY: masks keep from reading beyond the slice.
    unsafe {
        let mask = |from: usize| ((1u32 << x.len().saturating_sub(from).min(16)) - 1) as __mmask16;
        let low = _mm512_maskz_loadu_ps(mask(0), x.as_ptr());
        let high = _mm512_maskz_loadu_ps(mask(16), x.as_ptr().wrapping_add(16));
        std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low))
    }
}

/// 16 pairs of the values of two rows that lie one below the other in depth.
///
/// # Safety
/// AVX-512 with bfloat16 must be there.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn across(upper: &[f32], lower: &[f32]) -> __m512i {
    // SAFETY: masks keep from reading beyond the slices.
    unsafe {
        let load = |x: &[f32]| {
            let mask = ((1u32 << x.len().min(16)) - 1) as __mmask16;
            std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(
                mask,
                x.as_ptr(),
            )))
        };
        let upper = _mm512_cvtepu16_epi32(load(upper));
        let lower = _mm512_cvtepu16_epi32(load(lower));
        _mm512_or_si512(upper, _mm512_slli_epi32::<16>(lower))
    }
}

/// Turns rows of 16 lanes into columns.
///
/// # Safety
/// AVX-512 must be there.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn transpose(rows: &mut [__m512i; 16]) {
    for r in (0..16).step_by(2) {
        let (a, b) = (rows[r], rows[r + 1]);
        rows[r] = _mm512_unpacklo_epi32(a, b);
        rows[r + 1] = _mm512_unpackhi_epi32(a, b);
    }
    for r in (0..16).step_by(4) {
        let [a, b, c, d] = [rows[r], rows[r + 1], rows[r + 2], rows[r + 3]];
        rows[r] = _mm512_unpacklo_epi64(a, c);
        rows[r + 1] = _mm512_unpackhi_epi64(a, c);
        rows[r + 2] = _mm512_unpacklo_epi64(b, d);
        rows[r + 3] = _mm512_unpackhi_epi64(b, d);
    }
    // Register `4 g + c` now holds, in its four quarters, columns `c`, `c + 4`, `c + 8` and `c + 12`
    // of rows `4 g` to `4 g + 3`.
    let quarters = *rows;
    for c in 0..4 {
        let [a, b, d, e] = [quarters[c], quarters[4 + c], quarters[8 + c], quarters[12 + c]];
        let low = [_mm512_shuffle_i32x4::<0x88>(a, b), _mm512_shuffle_i32x4::<0x88>(d, e)];
        let high = [_mm512_shuffle_i32x4::<0xdd>(a, b), _mm512_shuffle_i32x4::<0xdd>(d, e)];
        rows[c] = _mm512_shuffle_i32x4::<0x88>(low[0], low[1]);
        rows[c + 8] = _mm512_shuffle_i32x4::<0xdd>(low[0], low[1]);
        rows[c + 4] = _mm512_shuffle_i32x4::<0x88>(high[0], high[1]);
        rows[c + 12] = _mm512_shuffle_i32x4::<0xdd>(high[0], high[1]);
    }
}

/// Lines of values that lie side by side in memory: rows of a factor, or its columns.
#[derive(Clone, Copy)]
struct Lines<'a> {
    data: &'a [f32],
    /// From line to line.
    stride: usize,
    count: usize,
    length: usize,
    /// Whether they run along the depth; else a line has one place in depth.
    along: bool,
}

impl<'a> Lines<'a> {
    /// Line `index` from value `from` on, at most `most` values; nothing beyond the matrix.
    #[inline(always)]
    fn part(&self, index: usize, from: usize, most: usize) -> &'a [f32] {
        if index >= self.count || from >= self.length {
            return &[];
        }
        let begin = index * self.stride + from;
        &self.data[begin..begin + most.min(self.length - from)]
    }

    /// Of the 16 rows or columns from `first` on, the pairs from `begin` on, by steps of 16 that lie `STEP_LANES`
    /// apart: 16 lines `line` apart, each the 16 pairs of a row (a column), or with `by_pairs` one
    /// pair of all 16.
    ///
    /// # Safety
    /// AVX-512 with bfloat16 must be there.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    unsafe fn pack(
        &self,
        first: usize,
        begin: usize,
        pairs: usize,
        by_pairs: bool,
        line: usize,
        out: &mut [u32],
    ) {
        for k in (0..pairs).step_by(STEP) {
            let mut rows = [_mm512_setzero_si512(); 16];
            for (i, row) in rows.iter_mut().enumerate() {
                // SAFETY: the caller's.
                *row = unsafe {
                    if self.along {
                        along(self.part(first + i, 2 * (begin + k), 2 * STEP))
                    } else {
                        let line = 2 * (begin + k + i);
                        across(self.part(line, first, 16), self.part(line + 1, first, 16))
                    }
                };
            }
            if self.along == by_pairs {
                // SAFETY: the caller's.
                unsafe { transpose(&mut rows) };
            }
            for (i, row) in rows.into_iter().enumerate() {
                store(row, &mut out[k / STEP * STEP_LANES + i * line..]);
            }
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store(row: __m512i, out: &mut [u32]) {
    let out: &mut [u32; 16] = out.first_chunk_mut().expect("packed in sixteens");
    // SAFETY: the array has room for it.
    unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), row) }
}

/// Columns `first..first + 32` of `b` from pair `begin` on, `[pairs][32]`; zeros beyond.
///
/// # Safety
/// AVX-512 with bfloat16 must be there.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn pack_columns(b: View<'_>, begin: usize, first: usize, panel: &mut [u32]) {
    let pairs = panel.len() / COLS;
    let lines = if b.col_stride == 1 {
        Lines { data: b.data, stride: b.row_stride, count: b.rows, length: b.cols, along: false }
    } else {
        Lines { data: b.data, stride: b.col_stride, count: b.cols, length: b.rows, along: true }
    };
    for half in 0..2 {
        // SAFETY: the caller's.
        unsafe { lines.pack(first + 16 * half, begin, pairs, true, COLS, &mut panel[16 * half..]) };
    }
}

/// A product whose second factor is packed.
struct PanelProduct<'a> {
    a: View<'a>,
    panels: &'a [u32],
    width: usize,
    n: usize,
    stride: usize,
    scale: f32,
    add: bool,
}

impl PanelProduct<'_> {
    /// Rows `first..first + count` of the result, which `out` begins with.
    fn rows(&self, first: usize, count: usize, out: &mut [f32]) {
        let blocks = count.div_ceil(ROWS);
        TILE.with_borrow_mut(|packed| {
            if packed.len() < blocks * ROWS * DEPTH {
                packed.resize(blocks * ROWS * DEPTH, 0);
            }
            // SAFETY: the tiles are there (`suits`), and nothing else below uses them.
            let _tiles = unsafe { Tiles::new(TILE_ROWS, TILE_ROWS) };
            for (block, panels) in self.panels.chunks(DEPTH * self.width).enumerate() {
                let length = panels.len() / self.width;
                let parts = packed.chunks_exact_mut(ROWS * length).take(blocks);
                for (part, row) in parts.zip((first..).step_by(ROWS)) {
                    // SAFETY: AVX-512 with bfloat16 is there (`suits`).
                    unsafe { self.pack_rows(row, first + count, block * DEPTH, part) };
                }
                let add = self.add || block > 0;
                for (panel, column) in panels.chunks_exact(length * COLS).zip((0..).step_by(COLS)) {
                    let cols = COLS.min(self.n - column);
                    for (rows, row) in
                        packed.chunks_exact(ROWS * length).zip((0..count).step_by(ROWS))
                    {
                        let out = &mut out[row * self.stride + column..];
                        // SAFETY: AVX-512 is there (`suits`) and the tiles are shaped.
                        unsafe { self.block(rows, panel, ROWS.min(count - row), cols, add, out) };
                    }
                }
            }
        });
    }

    /// 32 rows of the first factor from `first` on, from pair `begin`, `[pairs / 16][32][16]`; zeros
    /// from row `end` on.
    ///
    /// # Safety
    /// AVX-512 with bfloat16 must be there.
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    unsafe fn pack_rows(&self, first: usize, end: usize, begin: usize, out: &mut [u32]) {
        let (a, pairs) = (self.a, out.len() / ROWS);
        let lines = if a.col_stride == 1 {
            Lines { data: a.data, stride: a.row_stride, count: end, length: a.cols, along: true }
        } else {
            Lines { data: a.data, stride: a.col_stride, count: a.cols, length: end, along: false }
        };
        for half in 0..2 {
            let out = &mut out[16 * STEP * half..];
            // SAFETY: the caller's.
            unsafe { lines.pack(first + 16 * half, begin, pairs, false, STEP, out) };
        }
    }

    /// 32 rows times a panel, of which `rows × cols` are kept.
    ///
    /// # Safety
    /// AVX-512 must be there and [`Tiles`] shaped for 16 rows.
    #[target_feature(enable = "avx512f")]
    unsafe fn block(
        &self,
        a: &[u32],
        panel: &[u32],
        rows: usize,
        cols: usize,
        add: bool,
        out: &mut [f32],
    ) {
        let length = panel.len() / COLS;
        assert!(a.len() == ROWS * length && length.is_multiple_of(STEP) && length > 0);
        assert!((rows - 1) * self.stride + cols <= out.len());
        #[repr(align(64))]
        struct Sums([[[f32; 16]; TILE_ROWS]; 4]);
        let mut sums = Sums([[[0.0; 16]; TILE_ROWS]; 4]);
        // SAFETY: the caller's, and the assertions: all rows and the panel are as long as this
        // reads, and masks keep columns beyond `cols` untouched.
        unsafe {
            multiply_bf16::<true, true>(Block {
                rows: [a.as_ptr().cast(), a[16 * STEP..].as_ptr().cast()],
                row_stride: 4 * STEP,
                row_step: 4 * STEP_LANES,
                columns: [panel.as_ptr().cast(), panel[16..].as_ptr().cast()],
                column_stride: 4 * COLS,
                multiplications: length / STEP,
                sums: (&raw mut sums).cast(),
            });
            let scale = _mm512_set1_ps(self.scale);
            for half in 0..COLS.div_ceil(16).min(cols.div_ceil(16)) {
                let mask = ((1u32 << (cols - 16 * half).min(16)) - 1) as __mmask16;
                for row in 0..rows {
                    let tile = &sums.0[2 * half + row / TILE_ROWS][row % TILE_ROWS];
                    let out = out.as_mut_ptr().add(row * self.stride + 16 * half);
                    let mut sum = _mm512_mul_ps(_mm512_loadu_ps(tile.as_ptr()), scale);
                    if add {
                        sum = _mm512_add_ps(sum, _mm512_maskz_loadu_ps(mask, out));
                    }
                    _mm512_mask_storeu_ps(out, mask, sum);
                }
            }
        }
    }
}
