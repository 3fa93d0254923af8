//! `../build.sh fuzz [minutes] [seed]`: mutates files and texts until the time is over. An input that
//! makes something panic, takes seconds, or memory out of proportion is written to `found/`; once the
//! fault is fixed, it belongs to `corpus/`, which the tests run.

mod cases;
mod mutate;
mod seeds;
mod targets;

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use cases::{Cases, TARGETS};

/// Slower than this is a finding.
const MOST_TIME: Duration = Duration::from_secs(3);
/// More memory than this, and than this many times the input, is a finding.
const MOST_MEMORY: (usize, usize) = (64 << 20, 64);

/// Counts what is allocated.
struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: everything is done by `System`; counting changes nothing of it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size(), Relaxed) + layout.size();
        PEAK.fetch_max(now, Relaxed);
        // SAFETY: the caller's promise is `System`'s condition.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller's promise is `System`'s condition.
        unsafe { System.dealloc(pointer, layout) }
    }
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let mut number = |otherwise: f64| -> f64 {
        arguments
            .next()
            .map_or(otherwise, |text| text.parse().expect("minutes and seed are numbers"))
    };
    let (minutes, seed) = (number(1.0), number(1.0) as u64);
    let home = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut cases = Cases::new(seed, &home.join("corpus"));
    // A panic is told below, once a kind.
    std::panic::set_hook(Box::new(|_| {}));
    let mut found: BTreeMap<String, usize> = BTreeMap::new();
    let mut counts = [(0u64, 0u64); TARGETS.len()];
    let end = Instant::now() + Duration::from_secs_f64(60.0 * minutes);
    while Instant::now() < end {
        for (target, (runs, taken)) in TARGETS.into_iter().zip(&mut counts) {
            let input = cases.next(target);
            let before = NOW.load(Relaxed);
            PEAK.store(before, Relaxed);
            let started = Instant::now();
            let outcome = catch_unwind(AssertUnwindSafe(|| cases.run(target, &input)));
            let (time, memory) = (started.elapsed(), PEAK.load(Relaxed) - before);
            *runs += 1;
            let fault = match outcome {
                Err(panic) => Some(said(&*panic)),
                Ok(_) if time > MOST_TIME => Some(format!("it takes {time:.1?}")),
                Ok(_) if memory > MOST_MEMORY.0.max(MOST_MEMORY.1 * input.len()) => {
                    Some("it takes memory out of proportion".to_owned())
                }
                Ok(ok) => {
                    *taken += u64::from(ok);
                    None
                }
            };
            let Some(fault) = fault else { continue };
            let kind: String = fault.chars().filter(|c| !c.is_ascii_digit()).take(60).collect();
            let times = found.entry(format!("{}: {kind}", target.name())).or_default();
            *times += 1;
            if *times == 1 {
                let path = home.join("found").join(format!("{}-{seed}-{runs}", target.name()));
                std::fs::create_dir_all(home.join("found")).expect("a folder can be made");
                std::fs::write(&path, &input).expect("a file can be written");
                println!("{}: {fault}", path.display());
            }
        }
    }
    for (target, (runs, taken)) in TARGETS.into_iter().zip(counts) {
        println!("{:12} {runs:>9} inputs, {taken} taken", target.name());
    }
    println!("{} kinds of faults found {found:#?}", found.len());
    if found.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn said(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_default()
}
