//! Multi-head self-attention over one sentence, in 16-bit integers with exact 32-bit sums.

use super::args::SoftmaxArgs;
use super::lanes::{LANES, Lanes, array, padded, sixteen};
use super::scratch::grow;
use super::softmax::softmax;
use super::tiles::{Tile, product_i16};
use crate::quant::{QUERY_KEY_MAX, ROUNDING_MAGIC, VALUE_MAX};

/// Queries whose scores are held at once.
const QUERY_BLOCK: usize = 32;

/// Arguments of [`Kernels::attention`](super::Kernels::attention).
#[derive(Clone, Copy, Debug)]
pub struct AttentionArgs<'a> {
    /// `tokens × 3 · heads · padded(head_size)`: the queries of all heads, then keys, then values;
    /// each head padded with zeros.
    pub query_key_value: &'a [f32],
    /// Attention heads.
    pub heads: usize,
    /// Real width of a head; scores are divided by its square root.
    pub head_size: usize,
}

/// Buffers of one head. They grow to the longest sentence seen.
#[derive(Debug, Default)]
pub struct AttentionScratch {
    /// `tokens × head`.
    queries: Vec<i16>,
    /// What a score of 1 stands for, per query.
    score_scales: Vec<f32>,
    /// One key, `head`.
    key: Vec<i16>,
    /// Pairs of the head's dimensions: `[head / 2][keys][2]`.
    keys: Vec<i16>,
    /// Pairs of keys: `[keys / 2][head][2]`.
    values: Vec<i16>,
    /// Per channel: scale and its inverse.
    value_scales: Vec<f32>,
    value_inverses: Vec<f32>,
    /// `queries × keys`.
    scores: Vec<i32>,
    probabilities: Vec<i16>,
    probability_sums: Vec<i32>,
    /// `queries × head`.
    sums: Vec<i32>,
}

/// See [`Kernels::attention`](super::Kernels::attention).
///
/// # Safety
/// The CPU must have the instruction set of `T` and `L`.
#[inline(always)]
pub(super) unsafe fn attention<T: Tile, L: Lanes>(
    args: AttentionArgs<'_>,
    scratch: &mut AttentionScratch,
    context: &mut [f32],
) {
    let head = padded(args.head_size);
    let width = args.heads * head;
    let tokens = context.len() / width;
    let stride = padded(tokens);
    let pairs = tokens.next_multiple_of(2);
    let block = QUERY_BLOCK.min(tokens);
    grow(&mut scratch.queries, tokens * head);
    grow(&mut scratch.score_scales, tokens);
    grow(&mut scratch.key, head);
    grow(&mut scratch.keys, head * stride);
    grow(&mut scratch.values, stride * head);
    grow(&mut scratch.value_scales, head);
    grow(&mut scratch.value_inverses, head);
    grow(&mut scratch.scores, block * stride);
    grow(&mut scratch.probabilities, block * stride);
    grow(&mut scratch.probability_sums, block);
    grow(&mut scratch.sums, block * head);
    let AttentionScratch {
        queries,
        score_scales,
        key,
        keys,
        values,
        value_scales,
        value_inverses,
        scores,
        probabilities,
        probability_sums,
        sums,
    } = scratch;
    let root = (args.head_size as f32).sqrt();

    for at in (0..width).step_by(head) {
        let part = |part: usize| HeadRows {
            first: &args.query_key_value[part * width + at..],
            stride: 3 * width,
            head,
            tokens,
        };
        // SAFETY: the caller's.
        unsafe {
            let key_scale = quantize_keys::<L>(part(1), stride, &mut key[..head], keys);
            quantize_queries::<L>(part(0), key_scale / root, queries, score_scales);
            let channels = (&mut value_scales[..head], &mut value_inverses[..head]);
            quantize_values::<L>(part(2), channels, values);

            for from in (0..tokens).step_by(QUERY_BLOCK) {
                let count = QUERY_BLOCK.min(tokens - from);
                let scores = &mut scores[..count * stride];
                let probabilities = &mut probabilities[..count * stride];
                let probability_sums = &mut probability_sums[..count];
                let sums = &mut sums[..count * head];
                let queries = &queries[from * head..(from + count) * head];
                product_i16::<T>((queries, head), head, (keys, stride), scores);
                let score_scales = &score_scales[from..from + count];
                let args = SoftmaxArgs { keys: tokens, stride, score_scales };
                softmax::<L>(scores, args, probabilities, probability_sums);
                // Probabilities beyond the last key are 0, so an odd count may read one value too many.
                product_i16::<T>((probabilities, stride), pairs, (values, head), sums);
                let context = &mut context[from * width + at..];
                divide::<L>(sums, probability_sums, &value_scales[..head], context, width);
            }
        }
    }
}

/// The queries, keys or values of one head.
#[derive(Clone, Copy)]
struct HeadRows<'a> {
    first: &'a [f32],
    /// From one token to the next.
    stride: usize,
    head: usize,
    tokens: usize,
}

impl<'a> HeadRows<'a> {
    #[inline(always)]
    fn rows(self) -> impl Iterator<Item = &'a [f32]> {
        self.first.chunks(self.stride).take(self.tokens).map(move |row| &row[..self.head])
    }

    #[inline(always)]
    fn row(self, token: usize) -> &'a [f32] {
        &self.first[token * self.stride..][..self.head]
    }
}

/// `max_abs / limit` and its inverse, both 0 if everything is 0.
#[inline(always)]
fn scale_and_inverse(max_abs: f32, limit: i16) -> (f32, f32) {
    if max_abs < 1e-30 {
        return (0.0, 0.0);
    }
    (max_abs / limit as f32, limit as f32 / max_abs)
}

/// The largest magnitude in `rows`.
///
/// # Safety
/// As [`Lanes`].
#[inline(always)]
unsafe fn largest<'a, L: Lanes>(rows: impl Iterator<Item = &'a [f32]>) -> f32 {
    // SAFETY: the caller's.
    unsafe {
        let (mut low, mut high) = (L::splat(0.0), L::splat(0.0));
        for row in rows {
            for row in row.chunks_exact(L::WIDTH) {
                let x = L::load(row);
                (low, high) = (low.min(x), high.max(x));
            }
        }
        // As the largest magnitude, for fewer instructions.
        high.max(L::splat(0.0).sub(low)).highest()
    }
}

/// # Safety
/// As [`Lanes`].
#[inline(always)]
unsafe fn quantize_row<L: Lanes>(row: &[f32], inverse: f32, out: &mut [i16]) {
    // SAFETY: the caller's.
    unsafe {
        let inverse = L::splat(inverse);
        for (row, out) in row.chunks_exact(L::WIDTH).zip(out.chunks_exact_mut(L::WIDTH)) {
            L::load(row).mul(inverse).store_rounded(L::splat(ROUNDING_MAGIC), out);
        }
    }
}

/// Quantizes the queries of one head symmetrically, each by itself; `factor` times the scale goes
/// to `score_scales`.
///
/// # Safety
/// As [`Lanes`].
#[cfg_attr(target_arch = "wasm32", inline(never))]
#[cfg_attr(not(target_arch = "wasm32"), inline(always))]
unsafe fn quantize_queries<L: Lanes>(
    part: HeadRows<'_>,
    factor: f32,
    queries: &mut [i16],
    score_scales: &mut [f32],
) {
    let out = queries.chunks_exact_mut(part.head).zip(score_scales);
    for (row, (queries, score_scale)) in part.rows().zip(out) {
        // SAFETY: the caller's.
        unsafe {
            let (scale, inverse) =
                scale_and_inverse(largest::<L>(std::iter::once(row)), QUERY_KEY_MAX);
            quantize_row::<L>(row, inverse, queries);
            *score_scale = scale * factor;
        }
    }
}

/// Quantizes the keys of one head symmetrically, all by one scale, so that their scores compare as
/// integers. Returns the scale.
///
/// # Safety
/// As [`Lanes`].
#[cfg_attr(target_arch = "wasm32", inline(never))]
#[cfg_attr(not(target_arch = "wasm32"), inline(always))]
unsafe fn quantize_keys<L: Lanes>(
    part: HeadRows<'_>,
    stride: usize,
    quantized: &mut [i16],
    keys: &mut [i16],
) -> f32 {
    // SAFETY: the caller's.
    let (scale, inverse) = scale_and_inverse(unsafe { largest::<L>(part.rows()) }, QUERY_KEY_MAX);
    for (token, row) in part.rows().enumerate() {
        // SAFETY: the caller's.
        unsafe { quantize_row::<L>(row, inverse, quantized) };
        for (two, keys) in quantized.chunks_exact(2).zip(keys.chunks_exact_mut(2 * stride)) {
            keys[2 * token..2 * token + 2].copy_from_slice(two);
        }
    }
    scale
}

/// # Safety
/// As [`Lanes`].
#[cfg_attr(target_arch = "wasm32", inline(never))]
#[cfg_attr(not(target_arch = "wasm32"), inline(always))]
unsafe fn quantize_values<L: Lanes>(
    part: HeadRows<'_>,
    (scales, inverses): (&mut [f32], &mut [f32]),
    values: &mut [i16],
) {
    let HeadRows { head, tokens, .. } = part;
    for c in (0..head).step_by(LANES) {
        // SAFETY: the caller's.
        unsafe {
            let (mut low, mut high) = (L::splat(0.0), L::splat(0.0));
            for row in part.rows() {
                let x = L::load(sixteen(row, c));
                (low, high) = (low.min(x), high.max(x));
            }
            let max_abs = high.max(L::splat(0.0).sub(low));
            for (i, max_abs) in array(max_abs).into_iter().enumerate() {
                (scales[c + i], inverses[c + i]) = scale_and_inverse(max_abs, VALUE_MAX);
            }
            let inverse = L::load(sixteen(inverses, c));
            for token in (0..tokens).step_by(2) {
                // The partner of an odd last key does not matter; its probability is 0.
                let partner = (token + 1).min(tokens - 1);
                let quantize =
                    |token| L::load(sixteen(part.row(token), c)).mul(inverse).round_plus(0);
                let out = &mut values[token * head + 2 * c..][..2 * LANES];
                L::store_pairs(quantize(token), quantize(partner), out);
            }
        }
    }
}

/// `context = sums · (value_scales / probability_sum)`, row after row.
///
/// # Safety
/// As [`Lanes`].
#[cfg_attr(target_arch = "wasm32", inline(never))]
#[cfg_attr(not(target_arch = "wasm32"), inline(always))]
unsafe fn divide<L: Lanes>(
    sums: &[i32],
    probability_sums: &[i32],
    value_scales: &[f32],
    context: &mut [f32],
    width: usize,
) {
    let rows = sums.chunks_exact(value_scales.len()).zip(probability_sums);
    for ((sums, probability_sum), context) in rows.zip(context.chunks_mut(width)) {
        // SAFETY: the caller's.
        unsafe {
            let norm = L::splat(1.0 / *probability_sum as f32);
            let parts = sums.chunks_exact(L::WIDTH).zip(value_scales.chunks_exact(L::WIDTH));
            for ((sums, scales), context) in parts.zip(context.chunks_exact_mut(L::WIDTH)) {
                let sum = L::from_int(L::load_int(sums));
                sum.mul(L::load(scales).mul(norm)).store(context);
            }
        }
    }
}
