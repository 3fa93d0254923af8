//! A matrix of weights that no kernel needs to check again.

use std::fmt;

use super::lanes::LANES;
use super::loading;
use super::pack::HALF_PANEL;
use crate::bytes::SharedSlice;
use crate::quant::WEIGHT_MAX;

/// Most inputs of a matrix: 127 · 127 · 2¹⁷ < 2³¹, so that sums of products with activations fit 32 bits.
pub const MAX_COLS: usize = 1 << 17;

/// A packed weight matrix with what turns its integer sums into floats. Only [`new`](Self::new) makes
/// one, and nothing changes it: what is checked there holds in every kernel.
pub struct PackedMatrix {
    weights: SharedSlice<i8>,
    rows: usize,
    cols: usize,
    scales: SharedSlice<f32>,
    bias: SharedSlice<f32>,
    /// [`pack::channel_sums`](super::pack::channel_sums) of the weights: they correct the activations' zero point.
    sums: Vec<i32>,
    /// [`pack::exact_groups`](super::pack::exact_groups) of the weights, or nothing where no kernel asks for it.
    exact_groups: Vec<u8>,
}

/// Why there is no such [`PackedMatrix`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PackError {
    /// Rows or columns are no multiple of [`LANES`], none, or more than [`MAX_COLS`]; or there are not
    /// as many weights, scales or biases as they say.
    Shape,
    /// A weight lies outside of −63 … 63.
    Weight,
}

impl fmt::Display for PackError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PackError::Shape => f.write_str(
                "rows and columns must be multiples of 16 that fit the numbers of weights, scales and biases",
            ),
            PackError::Weight => write!(f, "a weight lies beyond ±{WEIGHT_MAX}"),
        }
    }
}

impl std::error::Error for PackError {}

impl PackedMatrix {
    /// `rows` output channels × `cols` inputs, both padded: `rows · cols` weights in packed order and
    /// one scale and one bias per channel.
    ///
    /// # Errors
    /// See [`PackError`].
    pub fn new(
        weights: SharedSlice<i8>,
        (rows, cols): (usize, usize),
        scales: SharedSlice<f32>,
        bias: SharedSlice<f32>,
    ) -> Result<Self, PackError> {
        let whole = |n: usize| n > 0 && n.is_multiple_of(LANES);
        if !whole(rows)
            || !whole(cols)
            || cols > MAX_COLS
            || rows.checked_mul(cols) != Some(weights.len())
            || (scales.len(), bias.len()) != (rows, rows)
        {
            return Err(PackError::Shape);
        }
        let sums = loading::channel_sums(&weights, rows, cols).ok_or(PackError::Weight)?;
        let exact_groups = loading::exact_groups(&weights, rows, cols);
        Ok(PackedMatrix { weights, rows, cols, scales, bias, sums, exact_groups })
    }

    /// Output channels, a multiple of [`LANES`].
    #[inline(always)]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Inputs, a multiple of [`LANES`].
    #[inline(always)]
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// `rows · cols` weights in packed order, each −63 … 63.
    #[inline(always)]
    pub fn weights(&self) -> &[i8] {
        &self.weights
    }

    /// One scale per channel.
    #[inline(always)]
    pub fn scales(&self) -> &[f32] {
        &self.scales
    }

    /// One bias per channel.
    #[inline(always)]
    pub fn bias(&self) -> &[f32] {
        &self.bias
    }

    /// The sum of each channel's weights.
    #[inline(always)]
    pub(super) fn sums(&self) -> &[i32] {
        &self.sums
    }

    /// [`pack::exact_groups`](super::pack::exact_groups) of both halves of the panel that begins with
    /// channel `at`; 2 where they were not asked for, which is true of any weights.
    #[inline(always)]
    pub(super) fn exact_groups(&self, at: usize) -> [u8; 2] {
        let groups = self.exact_groups.get(at / HALF_PANEL..).and_then(<[u8]>::first_chunk);
        groups.copied().unwrap_or([2; 2])
    }
}

#[cfg(test)]
impl PackedMatrix {
    /// With what kernels that add in 16 bits ask for, on machines too whose best table does not.
    pub(super) fn with_exact_groups(mut self) -> Self {
        self.exact_groups = super::pack::exact_groups(&self.weights, self.rows, self.cols);
        self
    }
}

impl fmt::Debug for PackedMatrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PackedMatrix")
            .field("rows", &self.rows)
            .field("cols", &self.cols)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_panels_that_fit_their_numbers_are_matrices() {
        let new = |weights: &[i8], shape, scales: usize, bias: usize| {
            let floats = |n| SharedSlice::from(&vec![0.0f32; n][..]);
            PackedMatrix::new(weights.into(), shape, floats(scales), floats(bias)).map(|_| ())
        };
        let weights = [1i8; 512];
        assert_eq!(new(&weights, (32, 16), 32, 32), Ok(()));
        assert_eq!(new(&weights, (16, 32), 16, 16), Ok(()));
        for (shape, scales, bias) in [
            ((17, 16), 17, 17),
            ((17, 16), 32, 32),
            ((32, 15), 32, 32),
            ((32, 17), 32, 32),
            ((16, 16), 16, 16),
            ((48, 16), 48, 48),
            ((32, 16), 31, 32),
            ((32, 16), 32, 48),
            ((0, 16), 0, 0),
            ((16, 0), 16, 16),
            ((usize::MAX - 15, 16), 32, 32),
            ((1 << (usize::BITS - 4), 512), 32, 32),
        ] {
            assert_eq!(new(&weights, shape, scales, bias), Err(PackError::Shape), "{shape:?}");
        }
        assert_eq!(new(&[], (16, 0), 16, 16), Err(PackError::Shape));
        let deep = vec![0; LANES * (MAX_COLS + 16)];
        assert_eq!(new(&deep, (16, MAX_COLS + 16), 16, 16), Err(PackError::Shape));
        assert_eq!(new(&deep[..16 * MAX_COLS], (16, MAX_COLS), 16, 16), Ok(()));
        for weight in [64, -64, i8::MIN] {
            let mut weights = weights;
            weights[300] = weight;
            assert_eq!(new(&weights, (32, 16), 32, 32), Err(PackError::Weight));
        }
    }
}
