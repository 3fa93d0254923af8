//! Multi-head self-attention over one sentence, in 16-bit integers with exact 32-bit sums.

use super::scratch::grow;
use crate::config::ModelConfig;
use crate::kernels::{Kernels, SoftmaxArgs, padded};
use crate::quant::{QUERY_KEY_MAX, VALUE_MAX, round_to_i32};

/// Queries whose scores are held at once.
const QUERY_BLOCK: usize = 32;

/// Buffers of one head.
#[derive(Default)]
pub(super) struct Attention {
    /// `tokens × head size` (even).
    queries: Vec<i16>,
    query_scales: Vec<f32>,
    /// Pairs of the head's dimensions: `[head size / 2][keys][2]`.
    keys: Vec<i16>,
    key_scales: Vec<f32>,
    /// Pairs of keys: `[keys / 2][head size][2]`.
    values: Vec<i16>,
    value_scales: Vec<f32>,
    /// `queries × keys`.
    scores: Vec<i32>,
    weights: Vec<i16>,
    weight_sums: Vec<i32>,
    /// `queries × head size`.
    sums: Vec<i32>,
}

impl Attention {
    /// `context[t] = Σₖ softmax(q[t] · k[k] / √d)[k] · v[k]` per head, for the tokens of one
    /// sentence: `query_key_value` is `tokens × 3 · hidden`, `context` `tokens × hidden` (padded).
    pub(super) fn run(
        &mut self,
        kernels: &Kernels,
        config: &ModelConfig,
        query_key_value: &[f32],
        context: &mut [f32],
    ) {
        let width = padded(config.hidden_size);
        let size = config.head_size();
        let depth = size.next_multiple_of(2);
        let columns = padded(size);
        let tokens = context.len() / width;
        let stride = padded(tokens);
        let block = QUERY_BLOCK.min(tokens);
        grow(&mut self.queries, tokens * depth);
        grow(&mut self.query_scales, tokens);
        grow(&mut self.keys, depth * stride);
        grow(&mut self.key_scales, stride);
        grow(&mut self.values, stride * columns);
        grow(&mut self.value_scales, columns);
        grow(&mut self.scores, block * stride);
        grow(&mut self.weights, block * stride);
        grow(&mut self.weight_sums, block);
        grow(&mut self.sums, block * columns);

        for head in 0..config.num_attention_heads {
            let at = head * size;
            let rows = |part: usize| {
                query_key_value
                    .chunks_exact(3 * width)
                    .map(move |row| &row[part * width + at..][..size])
            };
            self.quantize_queries(rows(0), depth);
            self.quantize_keys(rows(1), depth, stride);
            self.quantize_values(rows(2), size, columns, stride);
            for from in (0..tokens).step_by(QUERY_BLOCK) {
                let count = QUERY_BLOCK.min(tokens - from);
                let scores = &mut self.scores[..count * stride];
                let weights = &mut self.weights[..count * stride];
                let weight_sums = &mut self.weight_sums[..count];
                let sums = &mut self.sums[..count * columns];
                let queries = &self.queries[from * depth..(from + count) * depth];
                (kernels.gemm_i16)(queries, depth, &self.keys[..depth * stride], stride, scores);
                let args = SoftmaxArgs {
                    keys: tokens,
                    stride,
                    query_scales: &self.query_scales[from..from + count],
                    key_scales: &self.key_scales[..stride],
                };
                (kernels.softmax)(scores, args, weights, weight_sums);
                let values = &self.values[..stride * columns];
                (kernels.gemm_i16)(weights, stride, values, columns, sums);

                let context = context[from * width..].chunks_exact_mut(width);
                let sums = sums.chunks_exact(columns).zip(weight_sums);
                for (context, (sums, weight_sum)) in context.zip(sums) {
                    let norm = 1.0 / *weight_sum as f32;
                    let scaled = sums.iter().zip(&self.value_scales);
                    for (out, (&sum, &scale)) in context[at..at + size].iter_mut().zip(scaled) {
                        *out = sum as f32 * (scale * norm);
                    }
                }
            }
        }
        for row in context.chunks_exact_mut(width) {
            row[config.hidden_size..].fill(0.0);
        }
    }

    fn quantize_queries<'a>(&mut self, rows: impl Iterator<Item = &'a [f32]>, depth: usize) {
        for ((row, out), scale) in
            rows.zip(self.queries.chunks_exact_mut(depth)).zip(&mut self.query_scales)
        {
            let (step, inverse) = symmetric(row, QUERY_KEY_MAX);
            // Softmax is of q · k / √(head size).
            *scale = step / (row.len() as f32).sqrt();
            for (out, &x) in out.iter_mut().zip(row) {
                *out = round_to_i32(x * inverse) as i16;
            }
            out[row.len()..].fill(0);
        }
    }

    fn quantize_keys<'a>(
        &mut self,
        rows: impl Iterator<Item = &'a [f32]>,
        depth: usize,
        stride: usize,
    ) {
        let keys = &mut self.keys[..depth * stride];
        for (key, (row, scale)) in rows.zip(&mut self.key_scales).enumerate() {
            let (step, inverse) = symmetric(row, QUERY_KEY_MAX);
            *scale = step;
            for (pair, x) in row.chunks(2).enumerate() {
                let out = &mut keys[2 * (pair * stride + key)..][..2];
                out[0] = round_to_i32(x[0] * inverse) as i16;
                out[1] = x.get(1).map_or(0, |x| round_to_i32(x * inverse) as i16);
            }
        }
    }

    fn quantize_values<'a>(
        &mut self,
        rows: impl Iterator<Item = &'a [f32]> + Clone,
        size: usize,
        columns: usize,
        stride: usize,
    ) {
        let scales = &mut self.value_scales[..columns];
        scales.fill(0.0);
        for row in rows.clone() {
            for (max, &x) in scales.iter_mut().zip(row) {
                *max = if x.abs() > *max { x.abs() } else { *max };
            }
        }
        let mut inverses = [0.0; crate::config::limits::HEAD_SIZE];
        for (scale, inverse) in scales.iter_mut().zip(&mut inverses) {
            (*scale, *inverse) = steps(*scale, VALUE_MAX);
        }
        // Keys beyond the last have weight 0, but must not hold another sentence's infinities:
        // integers have none, so old values are harmless.
        let values = &mut self.values[..stride * columns];
        for (key, row) in rows.enumerate() {
            let out = &mut values[key / 2 * 2 * columns..][..2 * columns];
            for (c, (&x, inverse)) in row.iter().zip(&inverses[..size]).enumerate() {
                out[2 * c + key % 2] = round_to_i32(x * inverse) as i16;
            }
        }
    }
}

/// Step of a symmetric scale over `row` and its inverse.
fn symmetric(row: &[f32], limit: i16) -> (f32, f32) {
    steps(row.iter().fold(0.0, |max, x| if x.abs() > max { x.abs() } else { max }), limit)
}

/// `max_abs / limit` and its inverse, both 0 if everything is 0.
fn steps(max_abs: f32, limit: i16) -> (f32, f32) {
    if max_abs < 1e-30 {
        return (0.0, 0.0);
    }
    (max_abs / limit as f32, limit as f32 / max_abs)
}
