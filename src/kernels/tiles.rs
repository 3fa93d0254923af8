//! The loops around the micro-kernels, the same for every instruction set.

use std::cell::RefCell;

use super::args::QuantizedRows;
use super::lanes::{LANES, sixteen};
use super::packed_matrix::PackedMatrix;
use super::scratch::grow;
use crate::quant::RowScale;

/// What an instruction set brings: blocks of up to 8 rows times 16 columns.
pub(super) trait Tile {
    /// Rows of the largest 8-bit block, at most 8.
    const ROWS: usize;
    /// Rows of the largest 16-bit block, at most 8.
    const ROWS_I16: usize;
    /// Whether [`Tile::block`] wants factors of 16 bits: activations widened once for all panels, a
    /// panel once for all rows, its channels in eights, each `[depth / 2][8 channels][2]`.
    const WIDE: bool = false;

    /// Widens a panel, `[depth / 4][16 channels][4]`, if `WIDE`.
    ///
    /// # Safety
    /// The CPU must have the instruction set.
    unsafe fn widen(_panel: &[i8], _wide: &mut [i16]) {}

    /// `R` rows of activations times one panel, dequantized.
    ///
    /// # Safety
    /// The CPU must have the instruction set. `a` must be readable for `(R − 1) · stride + depth`
    /// bytes and `panel` for `16 · depth` (twice as many if `WIDE`), and `out` writable for
    /// `(R − 1) · out_stride + 16` floats. `depth` is a multiple of 16.
    unsafe fn block<const R: usize>(
        a: Rows,
        panel: Panel<'_>,
        scales: &[RowScale; R],
        out: Out<f32>,
    );

    /// `R` rows of 16-bit integers times all columns of pairs.
    ///
    /// # Safety
    /// The CPU must have the instruction set. `a` must be readable for `(R − 1) · stride + depth`
    /// values, `b` for `depth / 2` rows of `2 · columns` values, and `out` writable for
    /// `(R − 1) · out_stride + columns`. `depth` is even, `columns` a multiple of 16.
    #[inline(always)]
    unsafe fn rows_i16<const R: usize>(
        a: RowsI16,
        depth: usize,
        b: *const i16,
        columns: usize,
        out: Out<i32>,
    ) {
        for c in (0..columns).step_by(LANES) {
            // SAFETY: the caller's.
            unsafe {
                let out = Out { data: out.data.add(c), stride: out.stride };
                Self::block_i16::<R>(a, depth, b.add(2 * c), columns, out);
            }
        }
    }

    /// The same of 16 columns, for what does not bring a [`rows_i16`](Self::rows_i16) of its own.
    ///
    /// # Safety
    /// As there, up to the 16 columns from `b` and `out` on.
    #[inline(always)]
    unsafe fn block_i16<const R: usize>(
        _a: RowsI16,
        _depth: usize,
        _b: *const i16,
        _columns: usize,
        _out: Out<i32>,
    ) {
        unreachable!("a tile brings one of the two")
    }
}

/// A block of activation rows; the stride is in bytes.
#[derive(Clone, Copy)]
pub(super) struct Rows {
    pub data: *const u8,
    pub stride: usize,
}

thread_local! {
    static WIDENED: RefCell<[Vec<i16>; 2]> = const { RefCell::new([Vec::new(), Vec::new()]) };
}

/// A block of 16-bit rows.
#[derive(Clone, Copy)]
pub(super) struct RowsI16 {
    pub data: *const i16,
    pub stride: usize,
}

/// Where a block of results goes.
#[derive(Clone, Copy)]
pub(super) struct Out<T> {
    pub data: *mut T,
    pub stride: usize,
}

/// One panel: 16 channels of weights and what dequantizes their sums.
#[derive(Clone, Copy)]
pub(super) struct Panel<'a> {
    pub data: *const i8,
    pub depth: usize,
    pub scales: &'a [f32; LANES],
    pub bias: &'a [f32; LANES],
    pub sums: &'a [i32; LANES],
    /// Of both halves, see [`exact_groups`](super::pack::exact_groups).
    #[cfg_attr(
        not(target_feature = "relaxed-simd"),
        allow(dead_code, reason = "only sums in 16 bits ask for them")
    )]
    pub exact_groups: [u8; 2],
}

/// Calls `$block` with the const argument `$rows` (1 … 8).
macro_rules! with_rows {
    ($rows:expr, $R:ident => $block:expr) => {
        match $rows {
            1 => {
                const $R: usize = 1;
                $block
            }
            2 => {
                const $R: usize = 2;
                $block
            }
            3 => {
                const $R: usize = 3;
                $block
            }
            4 => {
                const $R: usize = 4;
                $block
            }
            5 => {
                const $R: usize = 5;
                $block
            }
            6 => {
                const $R: usize = 6;
                $block
            }
            7 => {
                const $R: usize = 7;
                $block
            }
            _ => {
                const $R: usize = 8;
                $block
            }
        }
    };
}

/// `a · b`, which no slice is as long as where it does not fit.
#[inline(always)]
pub(super) fn area(a: usize, b: usize) -> usize {
    a.saturating_mul(b)
}

/// That the rows of `a` are there, as deep as the matrix, and `out` has room for their products.
#[inline(always)]
pub(super) fn check_gemm(a: &QuantizedRows<'_>, w: &PackedMatrix, out: &[f32]) {
    let count = a.scales.len();
    assert!(a.stride >= w.cols(), "rows are shorter than the matrix is deep");
    assert!(a.data.len() >= area(count, a.stride), "fewer rows than scales");
    assert!(out.len() >= area(count, w.rows()), "no room for the product");
}

/// Every row against every panel. A panel stays in the first-level cache while all rows pass.
///
/// # Safety
/// The CPU must have `T`'s instruction set.
#[inline(always)]
pub(super) unsafe fn gemm<T: Tile>(a: QuantizedRows<'_>, w: &PackedMatrix, out: &mut [f32]) {
    check_gemm(&a, w, out);
    if T::WIDE {
        WIDENED.with_borrow_mut(|[wide, panel]| {
            let values = a.scales.len() * a.stride;
            grow(wide, values);
            grow(panel, LANES * w.cols());
            for (wide, &x) in wide.iter_mut().zip(&a.data[..values]) {
                *wide = x.into();
            }
            let rows = Rows { data: wide.as_ptr().cast(), stride: 2 * a.stride };
            // SAFETY: what was checked, and the buffers' lengths.
            unsafe { panels::<T>(rows, a.scales, w, Some(panel), out) }
        });
    } else {
        let rows = Rows { data: a.data.as_ptr(), stride: a.stride };
        // SAFETY: what was checked.
        unsafe { panels::<T>(rows, a.scales, w, None, out) }
    }
}

/// # Safety
/// The CPU must have `T`'s instruction set; `a` must be readable for as many rows as `scales` has, each
/// of `w.cols()` values, and `out` have room for as many of `w.rows()`. If [`Tile::WIDE`], `wide` must
/// have room for a panel.
#[inline(always)]
unsafe fn panels<T: Tile>(
    a: Rows,
    scales: &[RowScale],
    w: &PackedMatrix,
    mut wide: Option<&mut Vec<i16>>,
    out: &mut [f32],
) {
    // Whole panels: a matrix has no others.
    for at in (0..w.rows()).step_by(LANES) {
        let weights = &w.weights()[at * w.cols()..][..LANES * w.cols()];
        let data = match &mut wide {
            Some(wide) => {
                // SAFETY: the caller's.
                unsafe { T::widen(weights, wide) };
                wide.as_ptr().cast()
            }
            None => weights.as_ptr(),
        };
        let panel = Panel {
            data,
            depth: w.cols(),
            scales: sixteen(w.scales(), at),
            bias: sixteen(w.bias(), at),
            sums: sixteen(w.sums(), at),
            exact_groups: w.exact_groups(at),
        };
        let mut r = 0;
        while r < scales.len() {
            let rows = block_rows(scales.len() - r, T::ROWS);
            let scales = &scales[r..r + rows];
            // SAFETY: the caller's; the panel's 16 channels from `at` on are there.
            unsafe {
                let a = Rows { data: a.data.add(r * a.stride), stride: a.stride };
                let out = Out { data: out.as_mut_ptr().add(r * w.rows() + at), stride: w.rows() };
                with_rows!(rows, R => {
                    let scales = scales.first_chunk::<R>().expect("a block of R rows");
                    T::block::<R>(a, panel, scales, out)
                });
            }
            r += rows;
        }
    }
}

/// Rows of the next block where `left` are to be done: no single row is left for the end, which
/// would load all weights for itself.
#[inline(always)]
fn block_rows(left: usize, most: usize) -> usize {
    if left == most + 1 && most > 2 { most - 1 } else { left.min(most) }
}

/// `out[r][c] = Σₖ a[r][k] · b[k][c]` over the first `depth` values (even) of rows of `a`, which
/// comes with its stride; `b` holds pairs of depth, `[depth / 2][columns][2]`, and comes with its
/// columns.
///
/// # Safety
/// The CPU must have `T`'s instruction set.
#[inline(always)]
pub(super) unsafe fn product_i16<T: Tile>(
    (a, stride): (&[i16], usize),
    depth: usize,
    (b, columns): (&[i16], usize),
    out: &mut [i32],
) {
    let count = a.len() / stride;
    assert!(depth.is_multiple_of(2) && depth <= stride && columns.is_multiple_of(LANES));
    assert!(b.len() >= area(depth, columns) && out.len() >= area(count, columns));
    for r in (0..count).step_by(T::ROWS_I16) {
        let rows = T::ROWS_I16.min(count - r);
        // SAFETY: by the assertions, these rows of `a` and `out` and all of `b` exist.
        unsafe {
            let a = RowsI16 { data: a.as_ptr().add(r * stride), stride };
            let out = Out { data: out.as_mut_ptr().add(r * columns), stride: columns };
            with_rows!(rows, R => T::rows_i16::<R>(a, depth, b.as_ptr(), columns, out));
        }
    }
}
