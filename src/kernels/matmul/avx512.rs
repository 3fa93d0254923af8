//! Large products with AVX-512: the second factor packed once for all threads into panels of 32
//! columns, a tile of 12 × 32 sums in registers.
//!
//! Each element is a sum in the order of depth, in blocks of [`DEPTH`], whatever the threads.

use std::arch::x86_64::*;
use std::cell::RefCell;

use rayon::prelude::*;

use super::{Threads, View};

/// Rows and columns of the tile: 24 registers of sums, 2 of the second factor.
const ROWS: usize = 12;
const COLS: usize = 32;
/// Depth of a block: a panel of it is 48 KiB, and rows of it stay in the first cache.
const DEPTH: usize = 384;
/// Most rows that a thread takes at a time; whole tiles.
const TASK_ROWS: usize = 16 * ROWS;

thread_local! {
    static PACKED: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
    static TILE: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// Whether this machine runs it.
pub(super) fn available() -> bool {
    is_x86_feature_detected!("avx512f")
}

/// As [`super::matmul`], which has checked the shapes; the depth is not 0.
pub(super) fn matmul(
    a: View<'_>,
    b: View<'_>,
    out: &mut [f32],
    stride: usize,
    scale: f32,
    add: bool,
    threads: Threads,
) {
    let (m, depth, n) = (a.rows, a.cols, b.cols);
    let width = n.div_ceil(COLS) * COLS;
    // Taken out, since this thread may do other products while it waits for the others.
    let mut packed = PACKED.take();
    if packed.len() < depth * width {
        packed.resize(depth * width, 0.0);
    }
    let panels = &mut packed[..depth * width];
    let parallel = threads == Threads::All;
    for (block, panels) in panels.chunks_mut(DEPTH * width).enumerate() {
        let length = panels.len() / width;
        let pack = |(index, panel): (usize, &mut [f32])| {
            pack_columns(b, block * DEPTH, index * COLS, panel);
        };
        if parallel {
            panels.par_chunks_mut(length * COLS).enumerate().with_min_len(2).for_each(pack);
        } else {
            panels.chunks_mut(length * COLS).enumerate().for_each(pack);
        }
    }
    let product = Product { a, panels, width, n, stride, scale, add };
    if parallel {
        let parts = 4 * rayon::current_num_threads();
        let rows = m.div_ceil(parts).next_multiple_of(ROWS).min(TASK_ROWS);
        out.par_chunks_mut(rows * stride)
            .take(m.div_ceil(rows))
            .enumerate()
            .for_each(|(task, out)| product.rows(task * rows, rows.min(m - task * rows), out));
    } else {
        let tasks = out.chunks_mut(TASK_ROWS * stride).take(m.div_ceil(TASK_ROWS)).enumerate();
        for (task, out) in tasks {
            product.rows(task * TASK_ROWS, TASK_ROWS.min(m - task * TASK_ROWS), out);
        }
    }
    PACKED.set(packed);
}

/// Columns `first..first + 32` of the rows of `b` from `begin` on, row after row; zeros beyond.
fn pack_columns(b: View<'_>, begin: usize, first: usize, panel: &mut [f32]) {
    let count = COLS.min(b.cols - first);
    if b.col_stride == 1 {
        for (k, row) in panel.chunks_exact_mut(COLS).enumerate() {
            let from = (begin + k) * b.row_stride + first;
            row[..count].copy_from_slice(&b.data[from..from + count]);
            row[count..].fill(0.0);
        }
        return;
    }
    let length = panel.len() / COLS;
    if count < COLS {
        panel.fill(0.0);
    }
    for c in 0..count {
        let from = (first + c) * b.col_stride + begin * b.row_stride;
        let rows = panel.chunks_exact_mut(COLS);
        if b.row_stride == 1 {
            for (row, &x) in rows.zip(&b.data[from..from + length]) {
                row[c] = x;
            }
        } else {
            for (row, &x) in rows.zip(b.data[from..].iter().step_by(b.row_stride)) {
                row[c] = x;
            }
        }
    }
}

struct Product<'a> {
    a: View<'a>,
    panels: &'a [f32],
    width: usize,
    n: usize,
    stride: usize,
    scale: f32,
    add: bool,
}

impl Product<'_> {
    /// Rows `first..first + count` of the result, which `out` begins with.
    fn rows(&self, first: usize, count: usize, out: &mut [f32]) {
        let depth = self.a.cols;
        let tiles = count.div_ceil(ROWS);
        // Rows that lie in memory as the tile reads them need not be packed, but for a last tile
        // that is not whole.
        let direct = self.a.col_stride == 1;
        TILE.with_borrow_mut(|packed| {
            let needed = if direct { ROWS * DEPTH } else { tiles * ROWS * DEPTH };
            if packed.len() < needed {
                packed.resize(needed, 0.0);
            }
            for (block, panels) in self.panels.chunks(DEPTH * self.width).enumerate() {
                let begin = block * DEPTH;
                let length = panels.len() / self.width;
                let whole = if direct { count / ROWS } else { 0 };
                for tile in whole..tiles {
                    let place = (tile - whole) * ROWS * length;
                    let rows = ROWS.min(count - tile * ROWS);
                    let part = &mut packed[place..place + ROWS * length];
                    self.pack_rows(first + tile * ROWS, rows, begin, part);
                }
                let add = self.add || block > 0;
                for (panel, column) in panels.chunks_exact(length * COLS).zip((0..).step_by(COLS)) {
                    let cols = COLS.min(self.n - column);
                    for tile in 0..tiles {
                        let row = tile * ROWS;
                        let rows = ROWS.min(count - row);
                        let out = &mut out[row * self.stride + column..];
                        assert!((rows - 1) * self.stride + cols <= out.len());
                        let place = Place { out, stride: self.stride, rows, cols };
                        if tile < whole {
                            let from = (first + row) * self.a.row_stride + begin;
                            let a = &self.a.data[from..];
                            assert!((ROWS - 1) * self.a.row_stride + length <= a.len());
                            // SAFETY: AVX-512 is there (`available`), and `a` has `ROWS` rows of
                            // `length` values this far apart.
                            unsafe {
                                tile_of(a, self.a.row_stride, 1, panel, place, self.scale, add);
                            }
                        } else {
                            let a = &packed[(tile - whole) * ROWS * length..][..ROWS * length];
                            // SAFETY: as above; packed rows lie side by side.
                            unsafe { tile_of(a, 1, ROWS, panel, place, self.scale, add) };
                        }
                    }
                }
                debug_assert!(begin + length <= depth);
            }
        });
    }

    /// `count` rows of the first factor from `first` on, from depth `begin`: the values of one depth
    /// side by side, zeros for rows beyond.
    fn pack_rows(&self, first: usize, count: usize, begin: usize, tile: &mut [f32]) {
        let a = self.a;
        for (k, values) in tile.chunks_exact_mut(ROWS).enumerate() {
            let from = first * a.row_stride + (begin + k) * a.col_stride;
            if a.row_stride == 1 {
                values[..count].copy_from_slice(&a.data[from..from + count]);
            } else {
                for (r, value) in values[..count].iter_mut().enumerate() {
                    *value = a.data[from + r * a.row_stride];
                }
            }
            values[count..].fill(0.0);
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

/// One tile over one block of depth. Value `r` of depth `k` of the first factor lies at
/// `a[r · row + k · step]`.
///
/// # Safety
/// AVX-512 must be there; `a` must hold all `ROWS` rows of `panel.len() / COLS` values, and
/// `place.out` `rows` rows of `cols` values.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn tile_of(
    a: &[f32],
    row: usize,
    step: usize,
    panel: &[f32],
    place: Place<'_>,
    scale: f32,
    add: bool,
) {
    let length = panel.len() / COLS;
    let mut sums = [[_mm512_setzero_ps(); 2]; ROWS];
    let (mut x, mut w) = (a.as_ptr(), panel.as_ptr());
    // SAFETY: the caller's promises cover every element that is read and written; masks keep
    // columns beyond `cols` untouched.
    unsafe {
        for _ in 0..length {
            let w0 = _mm512_loadu_ps(w);
            let w1 = _mm512_loadu_ps(w.add(16));
            for (r, sums) in sums.iter_mut().enumerate() {
                let x = _mm512_set1_ps(*x.add(r * row));
                sums[0] = _mm512_fmadd_ps(x, w0, sums[0]);
                sums[1] = _mm512_fmadd_ps(x, w1, sums[1]);
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
