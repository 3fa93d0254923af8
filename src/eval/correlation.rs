//! Rank and linear correlation, and how sure they are.

/// Columns whose values differ by no more than this share of the largest are constant for any purpose:
/// what differs is how the numbers were computed.
const CONSTANT: f64 = 1e-13;

/// Whether all values are the same, but for rounding.
pub fn is_constant(values: &[f64]) -> bool {
    spread_within(values, CONSTANT * values.iter().fold(0.0, |max: f64, x| max.max(x.abs())))
}

/// Whether the largest and the smallest value differ by at most `most`.
pub(super) fn spread_within(values: &[f64], most: f64) -> bool {
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    // Written so that no values, and NaN among them, are no spread.
    !(high - low > most)
}

/// Pearson's correlation of two samples of one length, −1 to 1. NaN if there are fewer than two
/// values or one sample is constant, or differs by rounding only.
///
/// # Panics
/// If the lengths differ.
pub fn pearson(x: &[f64], y: &[f64]) -> f64 {
    assert_eq!(x.len(), y.len(), "samples of different lengths");
    if is_constant(x) || is_constant(y) {
        return f64::NAN;
    }
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let (mean_x, mean_y) = (mean(x), mean(y));
    let (mut xx, mut yy, mut xy) = (0.0, 0.0, 0.0);
    for (&x, &y) in x.iter().zip(y) {
        xx += (x - mean_x) * (x - mean_x);
        yy += (y - mean_y) * (y - mean_y);
        xy += (x - mean_x) * (y - mean_y);
    }
    if xx == 0.0 || yy == 0.0 { f64::NAN } else { xy / (xx.sqrt() * yy.sqrt()) }
}

/// Spearman's rank correlation, −1 to 1: Pearson's of the ranks, where equal values share the mean
/// of their ranks (as `scipy.stats.spearmanr` does). NaN where Pearson's is.
///
/// # Panics
/// If the lengths differ.
pub fn spearman(x: &[f64], y: &[f64]) -> f64 {
    if is_constant(x) || is_constant(y) {
        assert_eq!(x.len(), y.len(), "samples of different lengths");
        return f64::NAN;
    }
    pearson(&ranks(x), &ranks(y))
}

/// Ranks from 1, ties averaged.
fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    let mut below = 0;
    for tied in order.chunk_by(|&a, &b| values[a] == values[b]) {
        for &index in tied {
            ranks[index] = below as f64 + (tied.len() as f64 + 1.0) / 2.0;
        }
        below += tied.len();
    }
    ranks
}

/// A 95 % confidence interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// Its lower end.
    pub low: f64,
    /// Its upper end.
    pub high: f64,
}

/// The 95 % interval of `statistic` over `resamples` samples of the numbers 0 to `n` − 1, each of `n`
/// numbers drawn with replacement (Efron's percentile bootstrap). The draws are the same in every run.
/// `None` if the statistic is NaN in more than one in twenty samples, or there are none.
pub fn bootstrap(
    n: usize,
    resamples: usize,
    statistic: impl Fn(&[usize]) -> f64,
) -> Option<Interval> {
    let mut draw = Draws(0x9e37_79b9_7f4a_7c15);
    let mut sample = vec![0; n];
    let mut values = Vec::with_capacity(resamples.min(1 << 20));
    for _ in 0..resamples {
        sample.iter_mut().for_each(|place| *place = draw.below(n));
        let value = statistic(&sample);
        if !value.is_nan() {
            values.push(value);
        }
    }
    if values.is_empty() || values.len() * 20 < resamples * 19 {
        return None;
    }
    values.sort_by(f64::total_cmp);
    // Linear between the two nearest, as numpy.percentile does.
    let percentile = |percent: f64| {
        let at = percent / 100.0 * (values.len() - 1) as f64;
        let (low, high) = (values[at.floor() as usize], values[at.ceil() as usize]);
        low + (high - low) * at.fract()
    };
    Some(Interval { low: percentile(2.5), high: percentile(97.5) })
}

/// SplitMix64 (Steele, Lea and Flood 2014).
struct Draws(u64);

impl Draws {
    /// Below `n`, by the high half of a product: for the samples here as even as it gets.
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((u128::from(z ^ (z >> 31)) * n as u128) >> 64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn correlations_match_scipy() {
        // scipy.stats.spearmanr / pearsonr of the same lists.
        let x = [0.1, 0.4, 0.4, 0.9, 0.3, 0.7];
        let y = [1.0, 2.0, 2.5, 4.8, 2.5, 3.0];
        assert!((spearman(&x, &y) - 0.867_647_058_823_529_4).abs() < 1e-12, "{}", spearman(&x, &y));
        assert!((pearson(&x, &y) - 0.936_954_413_396_912_3).abs() < 1e-12, "{}", pearson(&x, &y));
    }

    #[test]
    fn ties_share_their_mean_rank() {
        assert_eq!(ranks(&[3.0, 1.0, 3.0, 2.0, 3.0]), [4.0, 1.0, 4.0, 2.0, 4.0]);
    }

    #[test]
    fn correlation_of_too_little_is_nan() {
        assert!(pearson(&[], &[]).is_nan());
        assert!(spearman(&[1.0], &[2.0]).is_nan());
        assert!(spearman(&[1.0, 1.0], &[2.0, 3.0]).is_nan());
    }

    #[test]
    fn constant_but_for_rounding_is_constant() {
        let rising: Vec<f64> = (0..10).map(f64::from).collect();
        // The mean of ten times one of these is not that number.
        for value in [0.7, 0.1, 3.3, 1e300, -2.6e-8] {
            let same = [value; 10];
            let mut rounded = same;
            rounded[3] = value / 3.0 * 3.0;
            rounded[7] = value * (1.0 + 2.0 * f64::EPSILON);
            for column in [same, rounded] {
                assert!(pearson(&column, &rising).is_nan() && pearson(&rising, &column).is_nan());
                assert!(spearman(&column, &rising).is_nan() && spearman(&rising, &column).is_nan());
            }
        }
        let sum = [0.1 + 0.2, 0.3];
        assert!(pearson(&sum, &[1.0, 2.0]).is_nan() && spearman(&sum, &[1.0, 2.0]).is_nan());
        let small_but_real = [1.0, 1.0 + 1e-9, 1.0 + 2e-9];
        assert!(pearson(&small_but_real, &[1.0, 2.0, 3.0]) > 0.999);
    }

    #[test]
    fn intervals_hold_what_they_say() {
        // A mean of 400 coins: its standard error is 0.025.
        let coins: Vec<f64> = (0..400).map(|i| f64::from(i % 2)).collect();
        let mean =
            |sample: &[usize]| sample.iter().map(|&i| coins[i]).sum::<f64>() / sample.len() as f64;
        let interval = bootstrap(400, 2000, mean).unwrap();
        assert!(
            (interval.low - 0.451).abs() < 0.01 && (interval.high - 0.549).abs() < 0.01,
            "{interval:?}"
        );
        assert_eq!(bootstrap(400, 2000, mean), Some(interval));
        assert_eq!(bootstrap(10, 100, |_| f64::NAN), None);
        assert_eq!(bootstrap(0, 100, |_| 0.0), Some(Interval { low: 0.0, high: 0.0 }));
        assert_eq!(bootstrap(3, 0, |_| 0.0), None);
    }
}
