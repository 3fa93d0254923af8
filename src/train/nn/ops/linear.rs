//! `y = x · wᵀ + b` and its gradients, without transposed copies.

use super::vector::{column_sums, for_row_blocks};
use crate::train::nn::matmul::{Product, Threads, View};
use crate::train::recipe::Precision;

/// The sizes of a product: `rows × inputs` times `inputs × outputs`.
#[derive(Clone, Copy, Debug)]
pub struct LinearSize {
    /// Rows (tokens).
    pub rows: usize,
    /// `in_features`.
    pub inputs: usize,
    /// `out_features`.
    pub outputs: usize,
    /// Of the factors.
    pub precision: Precision,
}

impl LinearSize {
    /// `a · b` as a layer of this shape computes it.
    fn product<'a>(&self, a: View<'a>, b: View<'a>) -> Product<'a> {
        let (precision, threads) = (self.precision, Threads::All);
        Product { precision, threads, ..Product::new(a, b) }
    }
}

/// `y = x · wᵀ`; rows of `y` lie `y_stride` apart.
pub fn forward(shape: LinearSize, x: &[f32], weight: &[f32], y: &mut [f32], y_stride: usize) {
    let LinearSize { rows, inputs, outputs, .. } = shape;
    let (x, w) = (View::new(x, rows, inputs), View::new(weight, outputs, inputs));
    shape.product(x, w.t()).write(y, y_stride);
}

/// Adds `bias` to every row of `y`.
pub fn add_bias(y: &mut [f32], bias: &[f32]) {
    for_row_blocks(y, bias.len(), |_, rows| {
        for row in rows.chunks_exact_mut(bias.len()) {
            row.iter_mut().zip(bias).for_each(|(y, &b)| *y += b);
        }
    });
}

/// `dx = dy · w`, or `dx += dy · w` with `add`; rows of `dy` lie `dy_stride` apart.
pub fn backward_input(
    shape: LinearSize,
    dy: &[f32],
    dy_stride: usize,
    weight: &[f32],
    dx: &mut [f32],
    add: bool,
) {
    let LinearSize { rows, inputs, outputs, .. } = shape;
    let dy = View::strided(dy, rows, outputs, dy_stride);
    let product = shape.product(dy, View::new(weight, outputs, inputs));
    Product { add, ..product }.write(dx, inputs);
}

/// `dw = dyᵀ · x`; rows of `dy` lie `dy_stride` apart.
pub fn backward_weight(shape: LinearSize, dy: &[f32], dy_stride: usize, x: &[f32], dw: &mut [f32]) {
    let LinearSize { rows, inputs, outputs, .. } = shape;
    let dy = View::strided(dy, rows, outputs, dy_stride);
    shape.product(dy.t(), View::new(x, rows, inputs)).write(dw, inputs);
}

/// The bias's gradient: the sum of the rows of `dy`, which has no gaps.
pub fn backward_bias(dy: &[f32], db: &mut [f32]) {
    column_sums(dy, db.len(), db);
}

#[cfg(test)]
mod tests {
    use super::super::testing::{check_gradient, noise};
    use super::*;

    #[test]
    fn gradients_agree_with_differences() {
        let shape = LinearSize { rows: 4, inputs: 6, outputs: 5, precision: Precision::F32 };
        let (x, w, b) = (noise(24, 1), noise(30, 2), noise(5, 3));
        let target = noise(20, 4);
        let loss = |x: &[f32], w: &[f32], b: &[f32]| -> f64 {
            let mut y = vec![0.0; 20];
            forward(shape, x, w, &mut y, 5);
            add_bias(&mut y, b);
            y.iter().zip(&target).map(|(&y, &t)| y as f64 * t as f64).sum()
        };
        let (mut dx, mut dw, mut db) = (vec![0.0; 24], vec![0.0; 30], vec![0.0; 5]);
        backward_input(shape, &target, 5, &w, &mut dx, false);
        backward_weight(shape, &target, 5, &x, &mut dw);
        backward_bias(&target, &mut db);
        check_gradient("x", &x, &dx, 1e-3, |x| loss(x, &w, &b));
        check_gradient("weight", &w, &dw, 1e-3, |w| loss(&x, w, &b));
        check_gradient("bias", &b, &db, 1e-3, |b| loss(&x, &w, b));
        let once = dx.clone();
        backward_input(shape, &target, 5, &w, &mut dx, true);
        assert!(dx.iter().zip(&once).all(|(&twice, &once)| (twice - 2.0 * once).abs() < 1e-5));
    }
}
