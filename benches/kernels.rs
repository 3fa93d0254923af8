//! Times of each kernel in every table of this machine: `cargo bench --bench kernels`. Sizes are
//! those of a block of 64 tokens of the shape "S" (hidden 384, intermediate 1536).

use std::hint::black_box;
use std::time::Instant;

use munjang::config::Activation;
use munjang::internals::kernels::{
    self, Kernels, LayerNormArgs, PackedMatrix, QuantizedRows, RowsMut, SoftmaxArgs, pack,
};
use munjang::internals::quant::RowScale;

const ROWS: usize = 64;

/// Best of several runs: the kernels have no other source of variation than the machine.
fn nanoseconds(table: &Kernels, mut f: impl FnMut()) -> f64 {
    let (runs, repeats) = if table.name == "scalar" { (2, 1) } else { (30, 20) };
    let mut best = f64::MAX;
    for _ in 0..runs {
        let start = Instant::now();
        for _ in 0..repeats {
            f();
        }
        best = best.min(start.elapsed().as_nanos() as f64 / repeats as f64);
    }
    best
}

fn gemm(table: &Kernels, channels: usize, depth: usize) -> f64 {
    let weights: Vec<i8> = (0..channels * depth).map(|i| (i * 7 % 127) as i8 - 63).collect();
    let packed = pack::pack(&weights, channels, depth);
    let (scales, bias) = (vec![0.01f32; channels], vec![0.5f32; channels]);
    let shape = (channels, depth);
    let w = PackedMatrix::new(packed[..].into(), shape, scales[..].into(), bias[..].into())
        .expect("whole panels of weights within ±63");
    let a: Vec<u8> = (0..ROWS * depth).map(|i| (i * 11 % 128) as u8).collect();
    let row_scales = vec![RowScale::from_range(-1.0, 1.0); ROWS];
    let mut out = vec![0.0; ROWS * channels];
    nanoseconds(table, || {
        let a = QuantizedRows { data: &a, stride: depth, scales: &row_scales };
        (table.gemm)(black_box(a), &w, &mut out);
    })
}

fn gemm_i16(table: &Kernels, depth: usize, columns: usize) -> f64 {
    let a: Vec<i16> = (0..ROWS * depth).map(|i| (i % 4095) as i16 - 2047).collect();
    let b: Vec<i16> = (0..depth * columns).map(|i| (i % 511) as i16 - 255).collect();
    let mut out = vec![0; ROWS * columns];
    nanoseconds(table, || (table.gemm_i16)(black_box(&a), depth, &b, columns, &mut out))
}

fn floats(n: usize) -> Vec<f32> {
    (0..n).map(|i| (i * 37 % 1001) as f32 / 250.0 - 2.0).collect()
}

fn quantize(table: &Kernels, columns: usize, activation: Option<Activation>) -> f64 {
    let x = floats(ROWS * columns);
    let mut work = x.clone();
    let (mut data, mut scales) = (vec![0; x.len()], vec![RowScale::default(); ROWS]);
    nanoseconds(table, || {
        work.copy_from_slice(&x);
        let out = RowsMut { data: &mut data, scales: &mut scales };
        (table.quantize_rows)(black_box(&mut work), columns, activation, out);
    })
}

fn layer_norm(table: &Kernels, columns: usize) -> f64 {
    let (mut x, residual) = (floats(ROWS * columns), floats(ROWS * columns));
    let (weight, bias) = (vec![1.0; columns], vec![0.0; columns]);
    let norm = LayerNormArgs { columns, weight: &weight, bias: &bias, eps: 1e-12 };
    nanoseconds(table, || (table.add_layer_norm)(black_box(&mut x), Some(&residual), norm))
}

fn softmax(table: &Kernels, keys: usize) -> f64 {
    let scores: Vec<i32> = (0..ROWS * keys).map(|i| (i * 7919 % 100_000) as i32).collect();
    let mut work = scores.clone();
    let score_scales = vec![1e-4; ROWS];
    let (mut out, mut sums) = (vec![0; ROWS * keys], vec![0; ROWS]);
    let args = SoftmaxArgs { keys, stride: keys, score_scales: &score_scales };
    nanoseconds(table, || {
        work.copy_from_slice(&scores);
        (table.softmax)(black_box(&mut work), args, &mut out, &mut sums);
    })
}

fn main() {
    // `cargo test --benches` arrives here too; only `cargo bench` passes `--bench`.
    if !std::env::args().any(|arg| arg == "--bench") {
        return;
    }
    let tables = kernels::available();
    print!("{:<36}", "64 rows");
    tables.iter().for_each(|table| print!("{:>16}", table.name));
    println!();
    let line = |name: &str, unit: &str, work: usize, f: &dyn Fn(&Kernels) -> f64| {
        print!("{name:<28}{unit:>8}");
        for table in &tables {
            let ns = f(table);
            let figure = if unit == "GMAC/s" { work as f64 / ns } else { ns / work as f64 };
            print!("{figure:>16.3}");
        }
        println!();
    };
    for (channels, depth) in [(1152, 384), (384, 384), (1536, 384), (384, 1536)] {
        let name = format!("gemm {channels} × {depth}");
        line(&name, "GMAC/s", ROWS * channels * depth, &|t| gemm(t, channels, depth));
    }
    for (depth, columns) in [(32, 32), (32, 256), (256, 32)] {
        let name = format!("gemm_i16 depth {depth}, {columns}");
        line(&name, "GMAC/s", ROWS * columns * depth, &|t| gemm_i16(t, depth, columns));
    }
    line("quantize 384", "ns/value", ROWS * 384, &|t| quantize(t, 384, None));
    line("quantize 1536", "ns/value", ROWS * 1536, &|t| quantize(t, 1536, None));
    let gelu = Some(Activation::Gelu);
    line("GELU + quantize 1536", "ns/value", ROWS * 1536, &|t| quantize(t, 1536, gelu));
    line("add + layer norm 384", "ns/value", ROWS * 384, &|t| layer_norm(t, 384));
    line("softmax 32", "ns/value", ROWS * 32, &|t| softmax(t, 32));
    line("softmax 256", "ns/value", ROWS * 256, &|t| softmax(t, 256));
}
