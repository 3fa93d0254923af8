//! Which examples come into one step.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use crate::train::seed::seed_of;

/// The batches of pass `epoch` over `lengths.len()` examples: shuffled by `seed`, sorted by length
/// within a window so that a batch's sentences are of one size, and the batches shuffled again. What
/// is left over after the last full batch waits for another pass.
pub fn batches(lengths: &[usize], batch: usize, seed: u64, epoch: u64) -> Vec<Vec<u32>> {
    const WINDOW: usize = 32;
    let batch = batch.min(lengths.len()).max(1);
    let mut random = ChaCha8Rng::seed_from_u64(seed_of(seed, "epoch", epoch));
    let mut order: Vec<u32> = (0..lengths.len() as u32).collect();
    order.shuffle(&mut random);
    order.truncate(order.len() / batch * batch);
    for window in order.chunks_mut(batch * WINDOW) {
        window.sort_by_key(|&index| lengths[index as usize]);
    }
    let mut batches: Vec<Vec<u32>> = order.chunks_exact(batch).map(<[u32]>::to_vec).collect();
    batches.shuffle(&mut random);
    batches
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn batches_are_a_function_of_seed_and_pass() {
        let lengths: Vec<usize> = (0..103).map(|i| i * 7 % 31).collect();
        let first = batches(&lengths, 8, 5, 0);
        assert_eq!(first, batches(&lengths, 8, 5, 0));
        assert_ne!(first, batches(&lengths, 8, 5, 1));
        assert_ne!(first, batches(&lengths, 8, 6, 0));
        assert_eq!(first.len(), 12);
        let seen: HashSet<u32> = first.iter().flatten().copied().collect();
        assert_eq!(seen.len(), 96);
        let spread = |batch: &Vec<u32>| {
            let of = |f: fn(usize, usize) -> usize| {
                batch.iter().map(|&i| lengths[i as usize]).reduce(f).unwrap()
            };
            of(usize::max) - of(usize::min)
        };
        assert!(first.iter().all(|batch| spread(batch) < 12));
        assert_eq!(batches(&lengths[..3], 8, 5, 0).len(), 1);
    }
}
