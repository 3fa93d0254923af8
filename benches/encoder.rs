//! Times of the encoder on one thread and on all, for every table of kernels of this machine:
//! `cargo bench --features cli --bench encoder`. Random weights of the shape "S" (3 layers × 384 × 1536, vocabulary
//! 32,000); medians of alternated runs. Before anything is timed, every table's embeddings are
//! compared with the definition's, bit for bit.

#[path = "../tests/common/mod.rs"]
mod common;

use std::time::Instant;

use common::{Numbers, config, float_model};
use munjang::internals::kernels;
use munjang::{Encoder, ModelConfig, format};

const VOCAB_SIZE: usize = 32_000;

/// The shape "S".
fn shape() -> ModelConfig {
    ModelConfig {
        vocab_size: VOCAB_SIZE,
        hidden_size: 384,
        num_hidden_layers: 3,
        num_attention_heads: 12,
        intermediate_size: 1536,
        max_position_embeddings: 512,
        ..config()
    }
}

/// Name and token ids: one sentence of 16 tokens, 256 sentences of 8–40, one passage of 256.
fn workloads() -> [(&'static str, Vec<Vec<u32>>); 3] {
    let mut n = Numbers(5);
    let mut ids = |len| n.ids(len, VOCAB_SIZE);
    let w1 = vec![ids(16)];
    let w2 = (0..256).map(|i| ids(8 + (i * 37 + i / 3) % 33)).collect();
    let w3 = vec![ids(256)];
    [("w1", w1), ("w2", w2), ("w3", w3)]
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// Multiplications of the linear layers for `tokens` tokens.
fn macs(config: &ModelConfig, tokens: usize) -> f64 {
    let hidden = config.hidden_size;
    let layer = 4 * hidden * hidden + 2 * hidden * config.intermediate_size;
    (tokens * config.num_hidden_layers * layer) as f64
}

fn main() {
    // `cargo test --benches` and a filter both arrive here as arguments; only `--bench` runs it.
    if !std::env::args().any(|arg| arg == "--bench") {
        return;
    }
    let file = format::write(&float_model(shape(), 3)).expect("a model of the shape S");
    let encoders: Vec<Encoder> = kernels::available()
        .into_iter()
        .map(|table| Encoder::with_kernels(file.as_slice(), table).expect("a model file"))
        .collect();
    let pool = |threads| {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a thread pool")
    };
    let (one, all) = (pool(1), pool(0));
    println!(
        "{:<12} {:<4} {:>10} {:>10} {:>10}",
        "kernels", "load", "1 thread", "GMAC/s", "threads"
    );
    for (name, batch) in workloads() {
        let tokens: usize = batch.iter().map(Vec::len).sum();
        let expected = encoders[0].encode_ids(&batch[..1]).expect("valid ids");
        let mut times = vec![(Vec::new(), Vec::new()); encoders.len()];
        for round in 0..9 {
            for (encoder, times) in encoders.iter().zip(&mut times) {
                let slow = encoder.info().kernel == "scalar";
                // The definition is there to be right; one short run tells how slow it is.
                if slow && (round > 0 || name != "w1") {
                    continue;
                }
                let out = encoder.encode_ids(&batch[..1]).expect("valid ids");
                assert!(out.iter().zip(&expected).all(|(a, b)| a.to_bits() == b.to_bits()));
                let repeats = if slow { 1 } else { (20_000 / tokens).clamp(1, 200) };
                for (pool, times) in [(&one, &mut times.0), (&all, &mut times.1)] {
                    pool.install(|| {
                        let start = Instant::now();
                        for _ in 0..repeats {
                            encoder.encode_ids(&batch).expect("valid ids");
                        }
                        times.push(start.elapsed().as_secs_f64() * 1e3 / repeats as f64);
                    });
                }
            }
        }
        for (encoder, (one, all)) in encoders.iter().zip(times) {
            if one.is_empty() {
                continue;
            }
            let (one, all) = (median(one), median(all));
            println!(
                "{:<12} {name:<4} {one:>7.2} ms {:>10.1} {:>9.2}×",
                encoder.info().kernel,
                macs(&shape(), tokens) / one / 1e6,
                one / all,
            );
        }
    }
}
