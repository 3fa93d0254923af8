//! What is multiplied, and how.

use crate::train::recipe::Precision;

/// A matrix in a slice.
#[derive(Clone, Copy)]
pub struct View<'a> {
    pub(super) data: &'a [f32],
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) row_stride: usize,
    pub(super) col_stride: usize,
}

impl<'a> View<'a> {
    /// `rows × cols`, row after row without gaps.
    pub fn new(data: &'a [f32], rows: usize, cols: usize) -> Self {
        Self::strided(data, rows, cols, cols)
    }

    /// `rows × cols`; row `r` begins at `r · row_stride`.
    pub fn strided(data: &'a [f32], rows: usize, cols: usize, row_stride: usize) -> Self {
        let view = View { data, rows, cols, row_stride, col_stride: 1 };
        assert!(view.needed() <= data.len(), "matrix reaches past its slice");
        view
    }

    /// The transpose, without moving anything.
    pub fn t(self) -> Self {
        View {
            data: self.data,
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
        }
    }

    fn needed(&self) -> usize {
        if self.rows == 0 || self.cols == 0 {
            0
        } else {
            (self.rows - 1) * self.row_stride + (self.cols - 1) * self.col_stride + 1
        }
    }
}

/// Whether a product may use all threads of the current rayon pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Threads {
    /// This thread only.
    One,
    /// All of the pool.
    All,
}

/// `scale · a · b`, and how it is computed.
#[derive(Clone, Copy)]
pub struct Product<'a> {
    /// The first factor.
    pub a: View<'a>,
    /// The second factor.
    pub b: View<'a>,
    /// What the product is multiplied by.
    pub scale: f32,
    /// Whether the result is added to what is there.
    pub add: bool,
    /// Of the factors.
    pub precision: Precision,
    /// Who computes.
    pub threads: Threads,
}

impl<'a> Product<'a> {
    /// `a · b` as it is, on this thread.
    pub fn new(a: View<'a>, b: View<'a>) -> Self {
        let (precision, threads) = (Precision::F32, Threads::One);
        Product { a, b, scale: 1.0, add: false, precision, threads }
    }
}
