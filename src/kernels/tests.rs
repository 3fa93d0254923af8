//! Every table against the definition, bit for bit. The same tests run natively and, compiled to
//! WebAssembly, in each SIMD build.

use super::*;
use crate::quant::{PROBABILITY_MAX, VALUE_MAX};
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

/// A small linear congruential generator: the tests need variety, not randomness.
pub(super) struct Numbers(pub(super) u64);

impl Numbers {
    fn next(&mut self) -> u32 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as u32
    }
    pub(super) fn below(&mut self, n: u32) -> u32 {
        self.next() % n
    }
    /// Mostly small, with outliers, zeros and repeats, as activations are.
    fn float(&mut self) -> f32 {
        let x = self.below(20_001) as f32 / 10_000.0 - 1.0;
        match self.below(16) {
            0 => x * 40.0,
            1 => 0.0,
            2 => 0.5,
            _ => x * 2.0,
        }
    }
    fn floats(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.float()).collect()
    }
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| x.to_bits()).collect()
}

/// Rows around every block size, panels and depths around every step.
const ROWS: [usize; 15] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 15, 16, 17, 31, 40, 53];

#[test]
fn gemm_equals_the_definition() {
    let mut n = Numbers(1);
    for rows in ROWS {
        for (channels, depth) in
            [(16, 16), (32, 16), (48, 32), (16, 48), (48, 64), (32, 192), (80, 112), (64, 1536)]
        {
            if rows > 17 && depth > 192 {
                continue;
            }
            // The extremes are the case that saturates if two steps did not fit 16 bits, or four or six
            // where the weights are small enough for that.
            for (extreme, limit) in
                [(false, 63), (true, 63), (false, 31), (true, 31), (false, 21), (true, 21)]
            {
                let a: Vec<u8> = (0..rows * depth)
                    .map(|_| if extreme { 127 } else { n.below(128) as u8 })
                    .collect();
                let w: Vec<i8> = (0..channels * depth)
                    .map(|i| match extreme {
                        true if i / depth % 2 == 0 => limit,
                        true => -limit,
                        false => n.below(2 * limit as u32 + 1) as i8 - limit,
                    })
                    .collect();
                let data = pack::pack(&w, channels, depth);
                let sums = pack::channel_sums(&data, channels, depth).unwrap();
                let steps = pack::exact_steps(&data, channels, depth);
                let (weight_scales, bias) = (n.floats(channels), n.floats(channels));
                let w = PackedMatrix {
                    data: &data,
                    rows: channels,
                    cols: depth,
                    scales: &weight_scales,
                    bias: &bias,
                    sums: &sums,
                    steps: &steps,
                };
                let scales: Vec<RowScale> = (0..rows)
                    .map(|_| RowScale::from_range(-(n.below(100) as f32), n.below(100) as f32))
                    .collect();
                let a = QuantizedRows { data: &a, stride: depth, scales: &scales };
                let mut expected = vec![0.0; rows * channels];
                (scalar::KERNELS.gemm)(a, &w, &mut expected);
                for table in available() {
                    let mut out = vec![f32::NAN; rows * channels];
                    (table.gemm)(a, &w, &mut out);
                    assert_eq!(
                        bits(&out),
                        bits(&expected),
                        "{} {rows}×{channels}×{depth}",
                        table.name
                    );
                }
            }
        }
    }
}

#[test]
fn gemm_i16_equals_the_definition() {
    let mut n = Numbers(2);
    for rows in ROWS {
        for (depth, columns) in [(2, 16), (12, 16), (32, 48), (34, 64), (512, 32)] {
            let a: Vec<i16> =
                (0..rows * depth).map(|_| n.below(PROBABILITY_MAX as u32 + 1) as i16).collect();
            let b: Vec<i16> = (0..depth * columns)
                .map(|_| n.below(2 * VALUE_MAX as u32 + 1) as i16 - VALUE_MAX)
                .collect();
            let mut expected = vec![0; rows * columns];
            (scalar::KERNELS.gemm_i16)(&a, depth, &b, columns, &mut expected);
            for table in available() {
                let mut out = vec![-1; rows * columns];
                (table.gemm_i16)(&a, depth, &b, columns, &mut out);
                assert_eq!(out, expected, "{} {rows}×{depth}×{columns}", table.name);
            }
        }
    }
}

#[test]
fn rows_equal_the_definition() {
    let mut n = Numbers(3);
    for columns in [1, 7, 15, 16, 17, 31, 32, 48, 100, 384, 1536] {
        let stride = padded(columns);
        for rows in [1, 2, 5] {
            let mut x = vec![0.0; rows * stride];
            let mut residual = x.clone();
            for row in 0..rows {
                // One row of zeros: scales and variances must stay defined.
                let fill = if row == 1 { vec![0.0; columns] } else { n.floats(columns) };
                x[row * stride..][..columns].copy_from_slice(&fill);
                residual[row * stride..][..columns].copy_from_slice(&fill);
            }
            for activation in
                [None, Some(Activation::Gelu), Some(Activation::GeluTanh), Some(Activation::Relu)]
            {
                let run = |table: &Kernels| {
                    let (mut x, mut data) = (x.clone(), vec![0; rows * stride]);
                    let mut scales = vec![RowScale::default(); rows];
                    let out = RowsMut { data: &mut data, scales: &mut scales };
                    (table.quantize_rows)(&mut x, stride, activation, out);
                    assert!(data.iter().all(|&q| q < 128));
                    let scales: Vec<_> =
                        scales.iter().map(|s| (s.scale.to_bits(), s.zero_point)).collect();
                    (bits(&x), data, scales)
                };
                let expected = run(&scalar::KERNELS);
                for table in available() {
                    assert_eq!(run(table), expected, "{} {columns} {activation:?}", table.name);
                }
            }
            let (mut weight, mut bias) = (n.floats(stride), n.floats(stride));
            weight[columns..].fill(0.0);
            bias[columns..].fill(0.0);
            let norm = LayerNormArgs { columns, weight: &weight, bias: &bias, eps: 1e-12 };
            for residual in [None, Some(residual.as_slice())] {
                let run = |table: &Kernels| {
                    let mut x = x.clone();
                    (table.add_layer_norm)(&mut x, residual, norm);
                    bits(&x)
                };
                let expected = run(&scalar::KERNELS);
                for table in available() {
                    assert_eq!(run(table), expected, "{} {columns}", table.name);
                }
            }
        }
    }
}

#[test]
fn softmax_equals_the_definition_and_sums_to_what_it_says() {
    let mut n = Numbers(4);
    for keys in [1, 2, 15, 16, 17, 40, 255, 512] {
        let stride = padded(keys);
        let rows = 6;
        // Columns beyond the keys hold leftovers, which must not be seen.
        let scores: Vec<i32> =
            (0..rows * stride).map(|_| n.below(4_000_000) as i32 - 2_000_000).collect();
        // Steps of which scores this far apart are next to nothing, and of which they are far too much.
        let steps = [1e-9, 3e-6, 2e-5, 1e-3, 0.5, 1e3][..rows].to_vec();
        let args = SoftmaxArgs { keys, stride, steps: &steps };
        let run = |table: &Kernels| {
            let (mut out, mut sums) = (vec![-1i16; rows * stride], vec![0; rows]);
            (table.softmax)(&mut scores.clone(), args, &mut out, &mut sums);
            (out, sums)
        };
        let expected = run(&scalar::KERNELS);
        for (row, &sum) in expected.0.chunks(stride).zip(&expected.1) {
            assert_eq!(row.iter().map(|&p| p as i32).sum::<i32>(), sum);
            assert_eq!(row.iter().max(), Some(&PROBABILITY_MAX));
            assert!(row[keys..].iter().all(|&p| p == 0));
        }
        for table in available() {
            assert_eq!(run(table), expected, "{} {keys}", table.name);
        }
    }
}

#[test]
fn attention_equals_the_definition() {
    let mut n = Numbers(5);
    // Head sizes that fill their lanes and that do not; lengths around pairs, lanes and blocks.
    for (heads, head_size) in [(2, 32), (3, 16), (1, 20), (1, 64)] {
        for tokens in [1, 2, 3, 4, 5, 7, 15, 16, 17, 31, 32, 33, 35, 64, 97] {
            let head = padded(head_size);
            let mut query_key_value = vec![0.0; tokens * 3 * heads * head];
            for (i, row) in query_key_value.chunks_exact_mut(head).enumerate() {
                // Every so often a head is all zeros: its scale must stay defined.
                if i % 29 != 7 {
                    row[..head_size].copy_from_slice(&n.floats(head_size));
                }
            }
            let args = AttentionArgs { query_key_value: &query_key_value, heads, head_size };
            let run = |table: &Kernels| {
                let mut context = vec![f32::NAN; tokens * heads * head];
                (table.attention)(args, &mut AttentionScratch::default(), &mut context);
                bits(&context)
            };
            let expected = run(&scalar::KERNELS);
            for table in available() {
                assert_eq!(run(table), expected, "{} {heads}×{head_size} {tokens}", table.name);
            }
        }
    }
}
