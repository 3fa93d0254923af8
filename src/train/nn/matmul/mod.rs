//! Products of 32-bit float matrices for the trainer: a checked face of our products for
//! AVX-512 and AMX, and of the `gemm` crate on other machines.
//!
//! Any strides are allowed, so that transposed factors need no copies. Every element of the result
//! is summed by one thread in an order that depends on the shapes alone: same input, same bits, on one
//! kind of machine. With `MUNJANG_PORTABLE_PRODUCTS` set in the environment the same bits come out on
//! every machine, at a small part of the speed.

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod product;

use std::sync::OnceLock;

use gemm::Parallelism;

use crate::train::recipe::Precision;

pub use product::{Product, Threads, View};

/// Whether this machine has products of bfloat16, for tests that need them.
#[cfg(test)]
pub fn has_bf16() -> bool {
    #[cfg(target_arch = "x86_64")]
    return avx512::available() && avx512::has_bf16();
    #[cfg(not(target_arch = "x86_64"))]
    false
}

impl Product<'_> {
    /// Computes it into `out`, which has `a`'s rows and `b`'s columns; row `r` of it begins at
    /// `r · stride`.
    ///
    /// # Panics
    /// When the shapes do not fit each other or `out`.
    pub fn write(&self, out: &mut [f32], stride: usize) {
        let (m, k, n) = (self.a.rows, self.a.cols, self.b.cols);
        assert_eq!(k, self.b.rows, "the matrices' inner sizes differ");
        if m == 0 || n == 0 {
            return;
        }
        assert!(n <= stride || m == 1, "rows of the result overlap");
        assert!((m - 1) * stride + n <= out.len(), "the result reaches past its slice");
        if portable_asked() {
            portable(self, out, stride);
            return;
        }
        #[cfg(target_arch = "x86_64")]
        if self.precision == Precision::Bf16 && amx::suits(self) {
            amx::write(self, out, stride);
            return;
        }
        #[cfg(target_arch = "x86_64")]
        if k > 0 && avx512::available() {
            avx512::write(self, out, stride);
            return;
        }
        general(self, out, stride);
    }
}

/// Whether results shall not depend on the machine.
fn portable_asked() -> bool {
    static ASKED: OnceLock<bool> = OnceLock::new();
    *ASKED.get_or_init(|| std::env::var_os("MUNJANG_PORTABLE_PRODUCTS").is_some())
}

/// [`Product::write`], which has checked the shapes, by its definition: 32-bit sums in the order of the
/// inner index, without fused multiplication and addition.
fn portable(product: &Product<'_>, out: &mut [f32], stride: usize) {
    let Product { a, b, scale, add, .. } = *product;
    for row in 0..a.rows {
        for col in 0..b.cols {
            let sum = (0..a.cols).fold(0.0f32, |sum, inner| {
                let x = a.data[row * a.row_stride + inner * a.col_stride];
                sum + x * b.data[inner * b.row_stride + col * b.col_stride]
            });
            let out = &mut out[row * stride + col];
            *out = if add { *out + scale * sum } else { scale * sum };
        }
    }
}

/// [`Product::write`], which has checked the shapes, by the `gemm` crate: in 32 bits.
fn general(product: &Product<'_>, out: &mut [f32], stride: usize) {
    let Product { a, b, scale, add, threads, .. } = *product;
    let (m, k, n) = (a.rows, a.cols, b.cols);
    let parallelism = match threads {
        Threads::One => Parallelism::None,
        Threads::All => Parallelism::Rayon(0),
    };
    // SAFETY: `View`'s constructor checked that every element of `a` and `b` lies in its slice (a
    // transposed view covers the same elements); the assertions of `write` do so for `out`, whose
    // rows do not overlap and which, being a unique borrow, aliases neither factor.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            stride as isize,
            add,
            a.data.as_ptr(),
            a.col_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.col_stride as isize,
            b.row_stride as isize,
            1.0f32,
            scale,
            false,
            false,
            false,
            parallelism,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn naive(a: &[f32], b: &[f32], m: usize, k: usize, n: usize) -> Vec<f32> {
        let mut out = vec![0.0; m * n];
        for i in 0..m {
            for j in 0..n {
                out[i * n + j] = (0..k).map(|x| a[i * k + x] * b[x * n + j]).sum();
            }
        }
        out
    }

    #[test]
    fn strides_transposes_scaling_and_adding() {
        let (m, k, n) = (5, 7, 3);
        let a: Vec<f32> = (0..m * k).map(|i| (i % 11) as f32 - 4.0).collect();
        let b: Vec<f32> = (0..k * n).map(|i| (i % 5) as f32 - 2.0).collect();
        let expected = naive(&a, &b, m, k, n);
        let mut out = vec![1.0; m * 4];
        let bt: Vec<f32> = (0..n * k).map(|i| b[(i % k) * n + i / k]).collect();
        let product = Product::new(View::new(&a, m, k), View::new(&bt, n, k).t());
        Product { scale: 2.0, add: true, ..product }.write(&mut out, 4);
        for i in 0..m {
            for j in 0..n {
                assert_eq!(out[i * 4 + j], 1.0 + 2.0 * expected[i * n + j]);
            }
            assert_eq!(out[i * 4 + 3], 1.0);
        }
    }

    /// All ways of computing over shapes around the sizes of tiles and blocks, all four layouts of
    /// the factors, gaps in the result, and any number of threads.
    #[test]
    fn products_agree_with_the_definition_in_every_layout() {
        let values = |n: usize, step: usize| -> Vec<f32> {
            (0..n).map(|i| ((i * step) % 23) as f32 / 8.0 - 1.25).collect()
        };
        let shapes = [
            (1, 1, 1),
            (12, 3, 32),
            (13, 384, 33),
            (11, 385, 31),
            (200, 5, 16),
            (25, 800, 65),
            (192, 7, 1),
            (193, 1, 48),
        ];
        for (m, k, n) in shapes {
            let (a, b) = (values(m * k, 7), values(k * n, 5));
            let flip = |x: &[f32], rows: usize, cols: usize| -> Vec<f32> {
                (0..rows * cols).map(|i| x[(i % rows) * cols + i / rows]).collect()
            };
            let (at, bt) = (flip(&a, m, k), flip(&b, k, n));
            let expected = naive(&a, &b, m, k, n);
            let stride = n + 3;
            for layout in 0..4 {
                let a =
                    if layout & 1 == 0 { View::new(&a, m, k) } else { View::new(&at, k, m).t() };
                let b =
                    if layout & 2 == 0 { View::new(&b, k, n) } else { View::new(&bt, n, k).t() };
                let mut results: Vec<Vec<f32>> = Vec::new();
                for (threads, add) in
                    [(Threads::One, false), (Threads::All, false), (Threads::All, true)]
                {
                    let start = if add { 1.0 } else { f32::NAN };
                    let plain = Product { scale: 0.5, add, threads, ..Product::new(a, b) };
                    // The test's values have few enough bits for bfloat16.
                    let rounded = Product { precision: Precision::Bf16, ..plain };
                    let runs: [&dyn Fn(&mut [f32]); 4] = [
                        &|out| plain.write(out, stride),
                        &|out| rounded.write(out, stride),
                        &|out| general(&plain, out, stride),
                        &|out| portable(&plain, out, stride),
                    ];
                    for (which, run) in runs.into_iter().enumerate() {
                        let mut out = vec![start; (m - 1) * stride + n];
                        run(&mut out);
                        for (at, &x) in out.iter().enumerate() {
                            let (row, col) = (at / stride, at % stride);
                            if col >= n {
                                assert!(x == start || x.is_nan() && start.is_nan(), "a gap");
                                continue;
                            }
                            let sum = 0.5 * expected[row * n + col] + if add { 1.0 } else { 0.0 };
                            let error = (x - sum).abs();
                            assert!(error <= 1e-5 * k as f32, "{m} {k} {n} {layout}: {x} {sum}");
                        }
                        if !add && which == 0 {
                            results.push(out.iter().filter(|x| !x.is_nan()).copied().collect());
                        }
                    }
                }
                assert!(results[0] == results[1], "threads change the sums of {m} {k} {n}");
            }
        }
    }

    #[test]
    fn bfloat16_is_rounded_to_the_nearest() {
        if !has_bf16() {
            return;
        }
        // 1 + 2⁻⁸ lies between two, its neighbour above rounds up; the larger ties to even.
        let a = [1.0 + 2f32.powi(-8), 1.0 + 3.0 * 2f32.powi(-8), 1.0 + 1.1 * 2f32.powi(-8)];
        for (a, expected) in a.iter().zip([1.0, 1.0 + 2f32.powi(-6), 1.0 + 2f32.powi(-7)]) {
            let mut out = [0.0];
            let (a, b) = ([*a], [-2.0]);
            let product = Product::new(View::new(&a, 1, 1), View::new(&b, 1, 1));
            Product { precision: Precision::Bf16, ..product }.write(&mut out, 1);
            assert_eq!(out[0], -2.0 * expected);
        }
    }

    #[test]
    #[should_panic(expected = "past its slice")]
    fn a_short_slice_is_refused() {
        let _ = View::new(&[0.0; 5], 2, 3);
    }
}
