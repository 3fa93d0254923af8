//! Times the encoder on given token ids, for comparison with other programs:
//! `RAYON_NUM_THREADS=1 cargo run --release --features parallel --example measure -- MODEL.munjang WORKLOADS.json`.
//!
//! The second file is `{"name": {"ids": [[…], …]}, …}`. Prints milliseconds of CPU time per run as
//! JSON: medians of at least one second each. `benches/web/` calls it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use munjang::Encoder;
use serde::Deserialize;

#[derive(Deserialize)]
struct Workload {
    ids: Vec<Vec<u32>>,
}

type AnyError = Box<dyn std::error::Error>;

fn main() -> Result<(), AnyError> {
    let mut args = std::env::args().skip(1);
    let (Some(model), Some(workloads)) = (args.next(), args.next()) else {
        return Err("usage: measure MODEL.munjang WORKLOADS.json".into());
    };
    let encoder = Encoder::from_bytes(std::fs::read(model)?)?;
    let workloads: BTreeMap<String, Workload> = serde_json::from_slice(&std::fs::read(workloads)?)?;
    let mut medians = BTreeMap::new();
    for (name, workload) in &workloads {
        encoder.encode_ids(&workload.ids)?;
        let mut times = Vec::new();
        let stop = Instant::now() + Duration::from_secs(1);
        while times.len() < 3 || Instant::now() < stop {
            // The counter moves with the scheduler's ticks: a short run is repeated.
            let (begin, start, mut runs) = (Instant::now(), cpu_or_wall_ms(), 0);
            while runs == 0 || begin.elapsed() < Duration::from_millis(60) {
                encoder.encode_ids(&workload.ids)?;
                runs += 1;
            }
            times.push((cpu_or_wall_ms() - start) / f64::from(runs));
        }
        times.sort_by(f64::total_cmp);
        medians.insert(name, times[times.len() / 2]);
    }
    println!("{}", serde_json::to_string(&medians)?);
    Ok(())
}

/// Milliseconds that all threads of this process have run, by Linux's own counter (with one thread in
/// the pool: the time of one core); elsewhere the time since the start.
fn cpu_or_wall_ms() -> f64 {
    let threads = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let total: f64 = threads
        .filter_map(|thread| std::fs::read_to_string(thread.path().join("schedstat")).ok())
        .filter_map(|line| line.split(' ').next()?.parse::<f64>().ok())
        .sum();
    if total > 0.0 {
        return total / 1e6;
    }
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_secs_f64() * 1e3
}
