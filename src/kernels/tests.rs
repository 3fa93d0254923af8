//! Every table against the definition, bit for bit. The same tests run natively and, compiled to
//! WebAssembly, in each SIMD build.

use super::*;
use crate::config::Activation;
use crate::quant::{PROBABILITY_MAX, RowScale, VALUE_MAX};
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

/// A matrix of these weights (row-major) with any scales and biases.
fn matrix(n: &mut Numbers, weights: &[i8], channels: usize, depth: usize) -> PackedMatrix {
    let (scales, bias) = (n.floats(channels), n.floats(channels));
    let packed = pack::pack(weights, channels, depth);
    PackedMatrix::new(packed[..].into(), (channels, depth), scales[..].into(), bias[..].into())
        .unwrap()
        .with_exact_groups()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| x.to_bits()).collect()
}

/// Rows around every block size, panels and depths around every group.
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
            // The extremes are the case that saturates if two groups did not fit 16 bits, or four or six
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
                let w = matrix(&mut n, &w, channels, depth);
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
        // Scales by which scores this far apart are next to nothing, and by which they are far too much.
        let score_scales = [1e-9, 3e-6, 2e-5, 1e-3, 0.5, 1e3][..rows].to_vec();
        let args = SoftmaxArgs { keys, stride, score_scales: &score_scales };
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

/// What safe code can pass by mistake ends in a panic, in every table, and writes nothing behind `out`.
#[cfg(not(target_arch = "wasm32"))]
#[test]
fn what_does_not_fit_is_refused_in_every_table() {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    let mut n = Numbers(6);
    // 17 channels: no such matrix can be made, so no table can be asked for their product.
    let weights = vec![1i8; 32 * 16];
    let floats = vec![1.0f32; 32];
    let made =
        PackedMatrix::new(weights[..].into(), (17, 16), floats[..].into(), floats[..].into());
    assert_eq!(made.unwrap_err(), PackError::Shape);

    let w = matrix(&mut n, &weights, 32, 16);
    let refused = |name: &str, what: &str, f: &mut dyn FnMut()| {
        assert!(catch_unwind(AssertUnwindSafe(f)).is_err(), "{name}: {what}");
    };
    for table in available() {
        for rows in [1, 2, 8, 9, 16, 33] {
            let scales = vec![RowScale::from_range(-1.0, 2.0); rows];
            let data = vec![3u8; rows * 16];
            let a = QuantizedRows { data: &data, stride: 16, scales: &scales };
            // Nothing behind the product is touched.
            let mut out = vec![7.5f32; rows * 32 + 64];
            (table.gemm)(a, &w, &mut out[..rows * 32]);
            assert!(out[rows * 32..].iter().all(|&x| x == 7.5), "{}: {rows}", table.name);

            let gemm = |what, a: QuantizedRows<'_>, len: usize| {
                let mut out = vec![0.0; rows * 32 + 64];
                refused(table.name, what, &mut || (table.gemm)(a, &w, &mut out[..len]));
            };
            gemm("no room for the last channel", a, rows * 32 - 1);
            gemm("a row too few", QuantizedRows { data: &data[1..], ..a }, rows * 32);
            gemm("short rows", QuantizedRows { stride: 15, ..a }, rows * 32);
            if rows > 1 {
                // Products of sizes that wrap to something small.
                let stride = usize::MAX / rows + 1;
                gemm("an absurd stride", QuantizedRows { stride, ..a }, rows * 32);
            }
        }
        let (a, b) = (vec![1i16; 4 * 32], vec![1i16; 32 * 16]);
        let product = |what, depth, columns, len: usize| {
            let mut out = vec![0; 4 * 16];
            let f = &mut || (table.gemm_i16)(&a, depth, &b, columns, &mut out[..len]);
            refused(table.name, what, f);
        };
        product("odd depth", 1, 16, 64);
        product("columns of half a panel", 32, 8, 64);
        product("no room", 32, 16, 63);
        product("more columns than there are", 32, 32, 64);
        product("columns that wrap", 32, usize::MAX / 32 + 1, 64);
        let mut x = vec![1.0f32; 32];
        let (weight, bias) = (vec![1.0f32; 16], vec![1.0f32; 16]);
        for (columns, bias, residual) in
            [(17, &bias[..], None), (16, &bias[..15], None), (16, &bias[..], Some(&bias[..]))]
        {
            let norm = LayerNormArgs { columns, weight: &weight, bias, eps: 1e-12 };
            let f = &mut || (table.add_layer_norm)(&mut x, residual, norm);
            refused(table.name, "rows that do not fit their norm", f);
        }
    }
}

/// Rows of what activations are not, but hostile weights or bugs may make them.
fn unusual_rows(n: &mut Numbers, columns: usize) -> Vec<Vec<f32>> {
    const DENORMAL: f32 = 1e-41;
    let spike = |n: &mut Numbers, x: f32| {
        let mut row = n.floats(columns);
        row[n.below(columns as u32) as usize] = x;
        row
    };
    let mut rows: Vec<Vec<f32>> = [
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::NAN,
        -f32::NAN,
        f32::from_bits(0x7fc0_7fff),
        f32::from_bits(0xffff_ffff),
        f32::MAX,
        f32::MIN,
        1e20,
        -1e30,
        DENORMAL,
    ]
    .into_iter()
    .map(|x| spike(n, x))
    .collect();
    for constant in [
        0.0,
        -0.0,
        1.0,
        -2.5,
        0.1,
        3e-31,
        1e18,
        -1e27,
        DENORMAL,
        f32::MIN_POSITIVE,
        f32::MAX,
        f32::NAN,
        f32::INFINITY,
    ] {
        rows.push(vec![constant; columns]);
    }
    rows.push((0..columns).map(|i| DENORMAL * (i as f32 - 3.0)).collect());
    rows.push((0..columns).map(|i| if i % 2 == 0 { 1e-30 } else { -1e-38 }).collect());
    rows.push((0..columns).map(|i| if i % 2 == 0 { 1e27 } else { -1e27 }).collect());
    rows
}

/// Finite rows give the same bits whatever lies beside them; a row that is not finite stays seen: layer
/// normalization makes all of it NaN, and its bytes stay in range.
#[test]
fn unusual_rows_equal_the_definition_or_stay_seen() {
    let mut n = Numbers(8);
    for columns in [1, 16, 17, 48, 384] {
        let stride = padded(columns);
        let rows = unusual_rows(&mut n, columns);
        let finite: Vec<bool> = rows.iter().map(|row| row.iter().all(|x| x.is_finite())).collect();
        let mut x = vec![0.0; rows.len() * stride];
        for (x, row) in x.chunks_exact_mut(stride).zip(&rows) {
            x[..columns].copy_from_slice(row);
        }
        for activation in
            [None, Some(Activation::Gelu), Some(Activation::GeluTanh), Some(Activation::Relu)]
        {
            let run = |table: &Kernels| {
                let (mut x, mut data) = (x.clone(), vec![0; x.len()]);
                let mut scales = vec![RowScale::default(); rows.len()];
                let out = RowsMut { data: &mut data, scales: &mut scales };
                (table.quantize_rows)(&mut x, stride, activation, out);
                assert!(data.iter().all(|&q| q < 128), "{}", table.name);
                let finite_rows = x.chunks_exact(stride).zip(data.chunks_exact(stride)).zip(scales);
                finite_rows
                    .zip(&finite)
                    .map(|(((x, data), scale), &finite)| {
                        let scale = (scale.scale.to_bits(), scale.zero_point);
                        // Whether the smallest of a NaN and a number is the number is each machine's own.
                        finite.then(|| (scale, bits(x), data.to_vec()))
                    })
                    .collect::<Vec<_>>()
            };
            let expected = run(&scalar::KERNELS);
            for table in available() {
                assert_eq!(run(table), expected, "{} {columns} {activation:?}", table.name);
            }
        }

        let (mut weight, mut bias) = (n.floats(stride), n.floats(stride));
        weight[columns..].fill(0.0);
        bias[columns..].fill(0.0);
        for eps in [1e-12, 1e-5, 1.0] {
            let norm = LayerNormArgs { columns, weight: &weight, bias: &bias, eps };
            let run = |table: &Kernels| {
                let mut x = x.clone();
                (table.add_layer_norm)(&mut x, None, norm);
                for ((x, row), &finite) in x.chunks_exact(stride).zip(&rows).zip(&finite) {
                    // Sums of numbers this large may overflow as well.
                    let large = row.iter().any(|x| x.abs() > 1e30);
                    let nan = x[..columns].iter().all(|x| x.is_nan());
                    let whole = x.iter().all(|x| x.is_finite());
                    assert!(if finite { whole || nan && large } else { nan }, "{}", table.name);
                }
                x.iter().map(|x| if x.is_nan() { u32::MAX } else { x.to_bits() }).collect()
            };
            let expected: Vec<u32> = run(&scalar::KERNELS);
            for table in available() {
                assert_eq!(run(table), expected, "{} {columns} {eps}", table.name);
            }
        }
    }
}

/// One token that is not finite: no panic, no access out of bounds. Of tokens that all are, however
/// large or small, the same bits.
#[test]
fn attention_takes_unusual_numbers() {
    let mut n = Numbers(9);
    let (heads, head_size, tokens) = (2, 20, 19);
    let head = padded(head_size);
    for unusual in unusual_rows(&mut n, head_size) {
        let mut query_key_value = vec![0.0; tokens * 3 * heads * head];
        for row in query_key_value.chunks_exact_mut(head) {
            row[..head_size].copy_from_slice(&n.floats(head_size));
        }
        for at in [3, 40, 77] {
            query_key_value[at * head..][..head_size].copy_from_slice(&unusual);
        }
        let args = AttentionArgs { query_key_value: &query_key_value, heads, head_size };
        let run = |table: &Kernels| {
            let mut context = vec![0.0; tokens * heads * head];
            (table.attention)(args, &mut AttentionScratch::default(), &mut context);
            bits(&context)
        };
        let expected = run(&scalar::KERNELS);
        for table in available() {
            let context = run(table);
            if unusual.iter().all(|x| x.is_finite() && x.abs() < 1e30) {
                assert_eq!(context, expected, "{} {unusual:?}", table.name);
            }
        }
    }
}
