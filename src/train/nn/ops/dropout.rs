//! Dropout without stored masks: whether a value is kept is a hash of seed, place and position.

use rayon::prelude::*;

use super::vector::simd;

/// A well mixed 32-bit hash of `x` under `key` (the finalizer of Wellons' hash prospector).
#[inline(always)]
pub fn hash(x: u32, key: u32) -> u32 {
    let mut h = x.wrapping_add(key).wrapping_mul(0x9e37_79b9) ^ key;
    h ^= h >> 16;
    h = h.wrapping_mul(0x7feb_352d);
    h ^= h >> 15;
    h = h.wrapping_mul(0x846c_a68b);
    h ^ (h >> 16)
}

/// One place where values are dropped.
#[derive(Clone, Copy, Debug)]
pub struct Mask {
    key: u32,
    /// Values whose hash is below this are dropped.
    threshold: u32,
    /// `1 / (1 − p)`.
    scale: f32,
}

impl Mask {
    /// Drops a share `p` of the values at `site` of the pass with this `seed`; `None` if `p` is 0.
    pub fn new(p: f32, seed: u64, site: u32) -> Option<Self> {
        if p <= 0.0 {
            return None;
        }
        let p = p.min(0.999);
        Some(Mask {
            key: hash(site, hash(seed as u32, (seed >> 32) as u32)),
            threshold: (p as f64 * 4_294_967_296.0) as u32,
            scale: 1.0 / (1.0 - p),
        })
    }

    /// Key, threshold and scale, for those who hash elsewhere.
    #[cfg(feature = "cuda")]
    pub fn numbers(&self) -> (u32, u32, f32) {
        (self.key, self.threshold, self.scale)
    }

    /// What the value at `position` is multiplied by.
    #[inline(always)]
    pub fn factor(&self, position: u32) -> f32 {
        if hash(position, self.key) < self.threshold { 0.0 } else { self.scale }
    }

    /// Multiplies `x`, whose first value is at position `start`.
    #[inline(always)]
    pub fn apply_from(&self, x: &mut [f32], start: usize) {
        for (i, x) in x.iter_mut().enumerate() {
            *x *= self.factor((start + i) as u32);
        }
    }

    /// Multiplies all of `x`, in parallel.
    pub fn apply(&self, x: &mut [f32]) {
        const BLOCK: usize = 1 << 14;
        x.par_chunks_mut(BLOCK)
            .enumerate()
            .for_each(|(block, x)| simd(|| self.apply_from(x, block * BLOCK)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_its_share_and_keeps_the_mean() {
        let mask = Mask::new(0.1, 7, 3).expect("p is not 0");
        let mut x = vec![1.0f32; 200_000];
        mask.apply(&mut x);
        let dropped = x.iter().filter(|&&x| x == 0.0).count() as f64 / x.len() as f64;
        let mean = x.iter().map(|&x| x as f64).sum::<f64>() / x.len() as f64;
        assert!((dropped - 0.1).abs() < 0.003, "{dropped}");
        assert!((mean - 1.0).abs() < 0.004, "{mean}");
    }

    #[test]
    fn repeats_for_a_seed_and_differs_between_sites_and_seeds() {
        let masked = |seed, site| {
            let mut x = vec![1.0f32; 1000];
            Mask::new(0.5, seed, site).expect("p is not 0").apply(&mut x);
            x
        };
        assert_eq!(masked(1, 1), masked(1, 1));
        for other in [masked(1, 2), masked(2, 1), masked(1 << 32, 1)] {
            let same = masked(1, 1).iter().zip(&other).filter(|(a, b)| a == b).count();
            assert!((400..600).contains(&same), "{same}");
        }
        assert!(Mask::new(0.0, 1, 1).is_none());
    }
}
