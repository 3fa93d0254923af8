//! Multi-head self-attention within each sentence of a packed batch, and its gradients.
//!
//! Queries, keys and values of a token lie side by side in one row of `3 · hidden` values, heads in
//! order within each. A sentence sees only its own tokens, so there is no mask and no padding.

use std::cell::RefCell;

use rayon::prelude::*;

use super::dropout::Mask;
use super::vector::{dot16, exp, simd, sum16};
use crate::train::nn::matmul::{Product, View};

thread_local! {
    static SCRATCH: RefCell<(Vec<f32>, Vec<f32>)> = const { RefCell::new((Vec::new(), Vec::new())) };
}

/// The sizes of one attention over a packed batch.
#[derive(Clone, Copy)]
pub struct Attention<'a> {
    /// Where sentences begin and end, in tokens.
    pub offsets: &'a [usize],
    /// Number of heads.
    pub heads: usize,
    /// Width of a token's state.
    pub hidden: usize,
    /// Dropout of the probabilities.
    pub dropout: Option<Mask>,
}

/// Splits `x` after the given lengths.
fn split(mut x: &mut [f32], lengths: impl Iterator<Item = usize>) -> Vec<&mut [f32]> {
    lengths
        .map(|length| {
            let (first, rest) = std::mem::take(&mut x).split_at_mut(length);
            x = rest;
            first
        })
        .collect()
}

impl Attention<'_> {
    fn lengths(&self) -> impl Iterator<Item = usize> {
        self.offsets.windows(2).map(|pair| pair[1] - pair[0])
    }

    /// Number of probabilities of the whole batch: `heads · length²` per sentence.
    pub fn num_probabilities(&self) -> usize {
        self.lengths().map(|length| self.heads * length * length).sum()
    }

    /// Where each sentence's probabilities begin.
    fn starts(&self) -> Vec<usize> {
        self.lengths()
            .scan(0, |start, length| {
                let this = *start;
                *start += self.heads * length * length;
                Some(this)
            })
            .collect()
    }

    /// `out = dropout(softmax(q · kᵀ / √d)) · v` per sentence and head; the probabilities before
    /// dropout go to `probabilities`.
    pub fn forward(&self, qkv: &[f32], probabilities: &mut [f32], out: &mut [f32]) {
        let (hidden, heads) = (self.hidden, self.heads);
        let size = hidden / heads;
        let stride = 3 * hidden;
        let scale = 1.0 / (size as f32).sqrt();
        assert_eq!(probabilities.len(), self.num_probabilities());
        let starts = self.starts();
        let probabilities = split(probabilities, self.lengths().map(|n| heads * n * n));
        let outs = split(out, self.lengths().map(|n| n * hidden));
        probabilities.into_par_iter().zip(outs).enumerate().for_each(|(s, (all, out))| {
            let length = self.offsets[s + 1] - self.offsets[s];
            let rows = &qkv[self.offsets[s] * stride..self.offsets[s + 1] * stride];
            for (head, p) in all.chunks_exact_mut(length * length).enumerate() {
                let part = |which: usize| {
                    View::strided(&rows[which * hidden + head * size..], length, size, stride)
                };
                Product { scale, ..Product::new(part(0), part(1).t()) }.write(p, length);
                simd(
                    #[inline(always)]
                    || p.chunks_exact_mut(length).for_each(softmax),
                );
                let out = &mut out[head * size..];
                match self.dropout {
                    None => {
                        let p = View::new(p, length, length);
                        Product::new(p, part(2)).write(out, hidden);
                    }
                    Some(mask) => SCRATCH.with_borrow_mut(|(kept, _)| {
                        kept.clear();
                        kept.extend_from_slice(p);
                        mask.apply_from(kept, starts[s] + head * length * length);
                        let kept = View::new(kept, length, length);
                        Product::new(kept, part(2)).write(out, hidden);
                    }),
                }
            }
        });
    }

    /// The gradient of `qkv` from the gradient `dout` of the result.
    pub fn backward(&self, qkv: &[f32], probabilities: &[f32], dout: &[f32], dqkv: &mut [f32]) {
        let (hidden, heads) = (self.hidden, self.heads);
        let size = hidden / heads;
        let stride = 3 * hidden;
        let scale = 1.0 / (size as f32).sqrt();
        let starts = self.starts();
        let dqkvs = split(dqkv, self.lengths().map(|n| n * stride));
        dqkvs.into_par_iter().enumerate().for_each(|(s, dqkv)| {
            let (begin, end) = (self.offsets[s], self.offsets[s + 1]);
            let length = end - begin;
            let rows = &qkv[begin * stride..end * stride];
            let dout = &dout[begin * hidden..end * hidden];
            SCRATCH.with_borrow_mut(|(dscores, kept)| {
                dscores.resize(length * length, 0.0);
                for head in 0..heads {
                    let start = starts[s] + head * length * length;
                    let p = &probabilities[start..][..length * length];
                    let part = |which: usize| {
                        View::strided(&rows[which * hidden + head * size..], length, size, stride)
                    };
                    let dout = View::strided(&dout[head * size..], length, size, hidden);
                    Product::new(dout, part(2).t()).write(dscores, length);
                    let dvalues = &mut dqkv[2 * hidden + head * size..];
                    match self.dropout {
                        None => {
                            let p = View::new(p, length, length);
                            Product::new(p.t(), dout).write(dvalues, stride);
                        }
                        Some(mask) => {
                            kept.clear();
                            kept.extend_from_slice(p);
                            mask.apply_from(kept, start);
                            mask.apply_from(dscores, start);
                            let kept = View::new(kept, length, length);
                            Product::new(kept.t(), dout).write(dvalues, stride);
                        }
                    }
                    simd(
                        #[inline(always)]
                        || {
                            for (d, p) in
                                dscores.chunks_exact_mut(length).zip(p.chunks_exact(length))
                            {
                                let mean = dot16(d, p);
                                d.iter_mut().zip(p).for_each(|(d, &p)| *d = p * (*d - mean));
                            }
                        },
                    );
                    let d = View::new(dscores, length, length);
                    let dqueries = &mut dqkv[head * size..];
                    Product { scale, ..Product::new(d, part(1)) }.write(dqueries, stride);
                    let dkeys = &mut dqkv[hidden + head * size..];
                    Product { scale, ..Product::new(d.t(), part(0)) }.write(dkeys, stride);
                }
            });
        });
    }
}

#[inline(always)]
fn softmax(row: &mut [f32]) {
    let max = row.iter().fold(f32::NEG_INFINITY, |max, &x| if x > max { x } else { max });
    row.iter_mut().for_each(|x| *x = exp(*x - max));
    let inverse = 1.0 / sum16(row, |x| x);
    row.iter_mut().for_each(|x| *x *= inverse);
}

#[cfg(test)]
mod tests {
    use super::super::testing::{check_gradient, noise};
    use super::*;

    #[test]
    fn gradients_agree_with_differences() {
        let offsets = [0, 3, 4, 9];
        let (heads, hidden) = (2, 6);
        for dropout in [None, Mask::new(0.3, 5, 9)] {
            let attention = Attention { offsets: &offsets, heads, hidden, dropout };
            let (qkv, target) = (noise(9 * 18, 1), noise(9 * 6, 2));
            let run = |qkv: &[f32]| {
                let mut p = vec![0.0; attention.num_probabilities()];
                let mut out = vec![0.0; 9 * hidden];
                attention.forward(qkv, &mut p, &mut out);
                (p, out)
            };
            let (p, _) = run(&qkv);
            let mut dqkv = vec![0.0; qkv.len()];
            attention.backward(&qkv, &p, &target, &mut dqkv);
            check_gradient("qkv", &qkv, &dqkv, 2e-3, |qkv| {
                run(qkv).1.iter().zip(&target).map(|(&y, &t)| y as f64 * t as f64).sum()
            });
        }
    }

    #[test]
    fn a_sentence_does_not_see_its_neighbours() {
        let (heads, hidden) = (2, 8);
        let qkv = noise(7 * 24, 1);
        let run = |offsets: &[usize], qkv: &[f32]| {
            let attention = Attention { offsets, heads, hidden, dropout: None };
            let mut out = vec![0.0; offsets[offsets.len() - 1] * hidden];
            attention.forward(qkv, &mut vec![0.0; attention.num_probabilities()], &mut out);
            out
        };
        let both = run(&[0, 3, 7], &qkv);
        assert_eq!(both[..24], run(&[0, 3], &qkv[..72]));
        assert_eq!(both[24..], run(&[0, 4], &qkv[72..]));
    }
}
