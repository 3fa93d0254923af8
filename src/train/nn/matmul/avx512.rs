//! Large products with AVX-512: the second factor packed once for all threads into panels of 32
//! columns, a tile of 12 × 32 sums in registers.
//!
//! A lane of 32 bits holds one value, or two neighbours in depth as bfloat16, which
//! `vdpbf16ps` multiplies and adds in the time of one. Each element is a sum in the order of depth,
//! in blocks of [`DEPTH`] lanes, whatever the threads.

use std::arch::x86_64::*;
use std::cell::RefCell;

use rayon::prelude::*;

use super::product::{Product, Threads, View};
use crate::train::recipe::Precision;

/// Rows and columns of the tile: 24 registers of sums, 2 of the second factor.
const ROWS: usize = 12;
const COLS: usize = 32;
/// Lanes of a block's depth: a panel of it is 48 KiB, and rows of it stay in the first cache.
const DEPTH: usize = 384;
/// Most rows that a thread takes at a time; whole tiles.
const TASK_ROWS: usize = 16 * ROWS;

thread_local! {
    static PACKED: RefCell<Vec<u32>> = const { RefCell::new(Vec::new()) };
    static TILE: RefCell<Vec<u32>> = const { RefCell::new(Vec::new()) };
}

/// Whether this machine runs it.
pub(super) fn available() -> bool {
    is_x86_feature_detected!("avx512f")
}

/// Whether it has products of bfloat16.
pub(super) fn has_bf16() -> bool {
    is_x86_feature_detected!("avx512bf16") && is_x86_feature_detected!("avx512bw")
}

/// `x` as bfloat16, ties to even. What is not a number stays so, as arithmetic makes it.
#[inline(always)]
fn bf16(x: f32) -> u32 {
    let bits = x.to_bits();
    bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16
}

/// A lane of `VALUES` values in the order of depth.
#[inline(always)]
fn lane<const VALUES: usize>(first: f32, second: f32) -> u32 {
    match VALUES {
        1 => first.to_bits(),
        _ => bf16(first) | bf16(second) << 16,
    }
}

/// [`Product::write`], which has checked the shapes; the depth is not 0.
pub(super) fn write(product: &Product<'_>, out: &mut [f32], stride: usize) {
    match product.precision {
        Precision::Bf16 if has_bf16() => write_lanes::<2>(product, out, stride),
        _ => write_lanes::<1>(product, out, stride),
    }
}

fn write_lanes<const VALUES: usize>(product: &Product<'_>, out: &mut [f32], stride: usize) {
    let Product { a, b, scale, add, threads, .. } = *product;
    let (m, depth, n) = (a.rows, a.cols.div_ceil(VALUES), b.cols);
    let width = n.div_ceil(COLS) * COLS;
    // Taken out, since this thread may do other products while it waits for the others.
    let mut packed = PACKED.take();
    let panels = pack_panels(&mut packed, depth, DEPTH, width, threads, |begin, column, panel| {
        // SAFETY: AVX-512 is there (`available`).
        unsafe { pack_columns::<VALUES>(b, begin * VALUES, column, panel) };
    });
    let product_of_panels = PanelProduct::<VALUES> { a, panels, width, n, stride, scale, add };
    in_tasks(out, (m, stride), (ROWS, TASK_ROWS), threads, |first, count, out| {
        product_of_panels.rows(first, count, out);
    });
    PACKED.set(packed);
}

/// The second factor of a product as `pack` lays it, given the first lane, the first column and the place of a
/// panel of 32 columns: blocks of at most `most` of the `depth` lanes one after the other, in each of
/// them the panels of all `width` columns.
pub(super) fn pack_panels(
    packed: &mut Vec<u32>,
    depth: usize,
    most: usize,
    width: usize,
    threads: Threads,
    pack: impl Fn(usize, usize, &mut [u32]) + Sync,
) -> &[u32] {
    if packed.len() < depth * width {
        packed.resize(depth * width, 0);
    }
    let panels = &mut packed[..depth * width];
    for (block, panels) in panels.chunks_mut(most * width).enumerate() {
        let length = panels.len() / width;
        let pack = |(index, panel): (usize, &mut [u32])| pack(block * most, index * COLS, panel);
        if threads == Threads::All {
            panels.par_chunks_mut(length * COLS).enumerate().with_min_len(2).for_each(pack);
        } else {
            panels.chunks_mut(length * COLS).enumerate().for_each(pack);
        }
    }
    panels
}

/// Calls `run(first row, rows, where they go)` for parts of the `m` rows of `out`, which lie `stride` apart: whole
/// tiles of `tile` rows but for the last, at most `most` at a time.
pub(super) fn in_tasks(
    out: &mut [f32],
    (m, stride): (usize, usize),
    (tile, most): (usize, usize),
    threads: Threads,
    run: impl Fn(usize, usize, &mut [f32]) + Sync,
) {
    let rows = if threads == Threads::All {
        let parts = 4 * rayon::current_num_threads();
        m.div_ceil(parts).next_multiple_of(tile).min(most)
    } else {
        most
    };
    let run = |(task, out): (usize, &mut [f32])| run(task * rows, rows.min(m - task * rows), out);
    let tasks = m.div_ceil(rows);
    if threads == Threads::All {
        out.par_chunks_mut(rows * stride).take(tasks).enumerate().for_each(run);
    } else {
        out.chunks_mut(rows * stride).take(tasks).enumerate().for_each(run);
    }
}

/// Columns `first..first + 32` of the rows of `b` from `begin` on, lane after lane; zeros beyond.
///
/// # Safety
/// AVX-512 must be there.
#[target_feature(enable = "avx512f")]
unsafe fn pack_columns<const VALUES: usize>(
    b: View<'_>,
    begin: usize,
    first: usize,
    panel: &mut [u32],
) {
    let count = COLS.min(b.cols - first);
    if b.col_stride == 1 {
        let row = |k: usize| {
            let from = k * b.row_stride + first;
            &b.data[from..from + count]
        };
        for (k, lanes) in (begin..).step_by(VALUES).zip(panel.chunks_exact_mut(COLS)) {
            // Without a neighbour the last row stands for it, times zero.
            let alone = k + 1 >= b.rows;
            let (one, two) = (row(k), row(if alone { k } else { k + 1 }));
            let factor = if alone { 0.0 } else { 1.0 };
            for ((lane_out, &one), &two) in lanes.iter_mut().zip(one).zip(two) {
                *lane_out = lane::<VALUES>(one, if VALUES == 1 { 0.0 } else { two * factor });
            }
            lanes[count..].fill(0);
        }
        return;
    }
    let length = (panel.len() / COLS * VALUES).min(b.rows - begin);
    if count < COLS {
        panel.fill(0);
    }
    for c in 0..count {
        let from = (first + c) * b.col_stride + begin * b.row_stride;
        let lanes = panel.chunks_exact_mut(COLS);
        if b.row_stride == 1 {
            for (lanes, x) in lanes.zip(b.data[from..from + length].chunks(VALUES)) {
                lanes[c] = lane::<VALUES>(x[0], x.get(1).copied().unwrap_or(0.0));
            }
        } else {
            let at = |k: usize| if k < length { b.data[from + k * b.row_stride] } else { 0.0 };
            for (k, lanes) in (0..).step_by(VALUES).zip(lanes) {
                lanes[c] = lane::<VALUES>(at(k), if VALUES == 1 { 0.0 } else { at(k + 1) });
            }
        }
    }
}

/// A product whose second factor is packed.
struct PanelProduct<'a, const VALUES: usize> {
    a: View<'a>,
    panels: &'a [u32],
    width: usize,
    n: usize,
    stride: usize,
    scale: f32,
    add: bool,
}

impl<const VALUES: usize> PanelProduct<'_, VALUES> {
    /// Rows `first..first + count` of the result, which `out` begins with.
    fn rows(&self, first: usize, count: usize, out: &mut [f32]) {
        let tiles = count.div_ceil(ROWS);
        let by_rows = self.a.col_stride == 1;
        // Rows that lie in memory as the tile reads them need not be packed, but for a last tile
        // that is not whole.
        let whole = if by_rows && VALUES == 1 { count / ROWS } else { 0 };
        TILE.with_borrow_mut(|packed| {
            let needed = (tiles - whole) * ROWS * DEPTH;
            if packed.len() < needed {
                packed.resize(needed, 0);
            }
            for (block, panels) in self.panels.chunks(DEPTH * self.width).enumerate() {
                let begin = block * DEPTH * VALUES;
                let length = panels.len() / self.width;
                for tile in whole..tiles {
                    let place = (tile - whole) * ROWS * length;
                    let rows = ROWS.min(count - tile * ROWS);
                    let part = &mut packed[place..place + ROWS * length];
                    // SAFETY: AVX-512 is there (`available`).
                    unsafe { self.pack_rows(first + tile * ROWS, rows, begin, part) };
                }
                // As `pack_rows` lays them.
                let (row_step, lane_step) = if by_rows { (length, 1) } else { (1, ROWS) };
                let add = self.add || block > 0;
                for (panel, column) in panels.chunks_exact(length * COLS).zip((0..).step_by(COLS)) {
                    let cols = COLS.min(self.n - column);
                    for tile in 0..tiles {
                        let row = tile * ROWS;
                        let rows = ROWS.min(count - row);
                        let out = &mut out[row * self.stride + column..];
                        assert!((rows - 1) * self.stride + cols <= out.len());
                        let place = Place { out, stride: self.stride, rows, cols };
                        let (a, row_step, lane_step) = if tile < whole {
                            let from = (first + row) * self.a.row_stride + begin;
                            let a = &self.a.data[from..];
                            assert!((ROWS - 1) * self.a.row_stride + length <= a.len());
                            (a.as_ptr().cast::<u32>(), self.a.row_stride, 1)
                        } else {
                            let a = &packed[(tile - whole) * ROWS * length..][..ROWS * length];
                            (a.as_ptr(), row_step, lane_step)
                        };
                        // SAFETY: AVX-512 is there (`available`, `has_bf16`), and `a` points to
                        // `ROWS` rows of `length` lanes that lie so.
                        unsafe {
                            match VALUES {
                                1 => {
                                    tile_f32(a, row_step, lane_step, panel, place, self.scale, add)
                                }
                                _ => {
                                    tile_bf16(a, row_step, lane_step, panel, place, self.scale, add)
                                }
                            }
                        }
                    }
                }
            }
        });
    }

    /// `count` rows of the first factor from `first` on, from depth `begin`, zeros for what is
    /// beyond: row after row where they lie so, else all rows' lanes of one depth side by side.
    ///
    /// # Safety
    /// AVX-512 must be there.
    #[target_feature(enable = "avx512f")]
    unsafe fn pack_rows(&self, first: usize, count: usize, begin: usize, tile: &mut [u32]) {
        let a = self.a;
        let length = tile.len() / ROWS;
        if a.col_stride == 1 {
            let values = (length * VALUES).min(a.cols - begin);
            for (r, lanes) in tile.chunks_exact_mut(length).enumerate() {
                if r >= count {
                    lanes.fill(0);
                    continue;
                }
                let from = (first + r) * a.row_stride + begin;
                let row = &a.data[from..from + values];
                let pairs = row.chunks_exact(VALUES);
                let rest = pairs.remainder();
                for (lane_out, x) in lanes.iter_mut().zip(pairs) {
                    *lane_out = lane::<VALUES>(x[0], x[VALUES - 1]);
                }
                if let Some(&x) = rest.first() {
                    lanes[length - 1] = lane::<VALUES>(x, 0.0);
                }
            }
            return;
        }
        for (k, lanes) in (begin..).step_by(VALUES).zip(tile.chunks_exact_mut(ROWS)) {
            let from = first * a.row_stride + k * a.col_stride;
            let alone = k + 1 >= a.cols;
            let next = if alone { 0 } else { a.col_stride };
            for (r, lane_out) in lanes[..count].iter_mut().enumerate() {
                let at = from + r * a.row_stride;
                let second = if VALUES == 1 || alone { 0.0 } else { a.data[at + next] };
                *lane_out = lane::<VALUES>(a.data[at], second);
            }
            lanes[count..].fill(0);
        }
    }
}

/// Where a tile goes.
struct Place<'a> {
    out: &'a mut [f32],
    stride: usize,
    rows: usize,
    cols: usize,
}

/// One tile over one block of depth. Lane `k` of row `r` of the first factor lies at
/// `a[r · row + k · step]`.
macro_rules! tile {
    ($name:ident, $features:literal, $sum:expr) => {
        /// # Safety
        /// The CPU must have the features; `a` must point to all `ROWS` rows of
        /// `panel.len() / COLS` lanes, and `place.out` must hold `rows` rows of `cols` values.
        #[inline]
        #[target_feature(enable = $features)]
        unsafe fn $name(
            a: *const u32,
            row: usize,
            step: usize,
            panel: &[u32],
            place: Place<'_>,
            scale: f32,
            add: bool,
        ) {
            let length = panel.len() / COLS;
            let mut sums = [[_mm512_setzero_ps(); 2]; ROWS];
            let (mut x, mut w) = (a, panel.as_ptr());
            // SAFETY: the caller's promises cover every element that is read and written; masks
            // keep columns beyond `cols` untouched.
            unsafe {
                for _ in 0..length {
                    let w0 = _mm512_loadu_si512(w.cast());
                    let w1 = _mm512_loadu_si512(w.add(16).cast());
                    for (r, sums) in sums.iter_mut().enumerate() {
                        let x = _mm512_set1_epi32(x.add(r * row).read() as i32);
                        sums[0] = $sum(sums[0], x, w0);
                        sums[1] = $sum(sums[1], x, w1);
                    }
                    x = x.wrapping_add(step);
                    w = w.add(COLS);
                }
                let masks = [place.cols.min(16), place.cols.saturating_sub(16)]
                    .map(|cols| ((1u32 << cols) - 1) as __mmask16);
                let scale = _mm512_set1_ps(scale);
                for (r, sums) in sums.iter().enumerate() {
                    if r >= place.rows {
                        break;
                    }
                    let out = place.out.as_mut_ptr().add(r * place.stride);
                    for (half, &sum) in sums.iter().enumerate() {
                        let out = out.wrapping_add(16 * half);
                        let mut sum = _mm512_mul_ps(sum, scale);
                        if add {
                            sum = _mm512_add_ps(sum, _mm512_maskz_loadu_ps(masks[half], out));
                        }
                        _mm512_mask_storeu_ps(out, masks[half], sum);
                    }
                }
            }
        }
    };
}

tile!(tile_f32, "avx512f", |sum, x, w| {
    _mm512_fmadd_ps(_mm512_castsi512_ps(x), _mm512_castsi512_ps(w), sum)
});
tile!(tile_bf16, "avx512f,avx512bw,avx512bf16", |sum, x, w| {
    _mm512_dpbf16_ps(
        sum,
        std::mem::transmute::<__m512i, __m512bh>(x),
        std::mem::transmute::<__m512i, __m512bh>(w),
    )
});
