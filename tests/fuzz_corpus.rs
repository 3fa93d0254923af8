//! The kept inputs of `fuzz/`, each of which once did what nothing may do, and a short run of
//! mutations. `./build.sh fuzz` runs the same for as long as it is told.
#![cfg(not(target_arch = "wasm32"))]

#[path = "../fuzz/src/cases.rs"]
mod cases;
#[path = "../fuzz/src/mutate.rs"]
mod mutate;
#[path = "../fuzz/src/seeds.rs"]
mod seeds;
#[path = "../fuzz/src/targets.rs"]
mod targets;

use std::path::Path;

use cases::{Cases, TARGETS, Target};

fn new_cases(seed: u64) -> Cases {
    Cases::new(seed, &Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus"))
}

#[test]
fn kept_inputs_have_an_answer() {
    let cases = new_cases(1);
    assert!(TARGETS.iter().all(|target| cases.kept().iter().any(|(of, ..)| of == target)));
    for (target, path, input) in cases.kept() {
        println!("{}", path.display());
        cases.run(*target, input);
    }
}

#[test]
fn mutations_have_an_answer() {
    let mut cases = new_cases(7);
    for target in TARGETS {
        let mut taken = 0;
        let runs = 300;
        for _ in 0..runs {
            let input = cases.next(target);
            taken += usize::from(cases.run(target, &input));
        }
        // Mutations reach what lies behind the first check; those of an index file end at its checksum.
        assert!(
            taken > 0 || target == Target::IndexFile,
            "{}: none of {runs} mutations was taken",
            target.name()
        );
    }
}
