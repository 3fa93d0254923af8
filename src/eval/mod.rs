//! Evaluation: STS files, rank and linear correlation with their intervals, and the scores of an
//! encoder, or of two on the same pairs.

mod correlation;
mod pairs;
pub mod retrieval;

pub use crate::table::read_text;
pub use correlation::{Interval, bootstrap, is_constant, pearson, spearman};
pub use pairs::{Columns, StsPair, read_sts, read_sts_columns};

use crate::error::Result;
use crate::model::Encoder;
use crate::search::dot;
use correlation::spread_within;

/// Cosines are computed in single floats: a spread below this is rounding.
const COSINE_ROUNDING: f64 = 1e-6;

/// How well the cosine of an encoder's embeddings follows the scores of an STS file.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StsScore {
    /// Rows.
    pub pairs: usize,
    /// Spearman's correlation, −1 to 1.
    pub spearman: f64,
    /// Pearson's correlation, −1 to 1.
    pub pearson: f64,
    /// Why they are NaN, if they are.
    pub undefined: Option<&'static str>,
}

/// The intervals of both correlations, or of both differences; `None` where too many samples have none.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StsIntervals {
    /// Of Spearman's.
    pub spearman: Option<Interval>,
    /// Of Pearson's.
    pub pearson: Option<Interval>,
}

/// Cosine of the embeddings of each pair. `progress` is called with the number of sentences done, out of
/// twice the number of pairs.
///
/// # Errors
/// As [`Encoder::encode_batch`].
pub fn cosines(encoder: &Encoder, pairs: &[StsPair], progress: impl Fn(usize)) -> Result<Vec<f64>> {
    /// Sentences given to the encoder at once: enough for all its threads, few enough for progress.
    const CHUNK: usize = 512;
    let dimension = encoder.dimension();
    let mut cosines = Vec::with_capacity(pairs.len());
    let mut done = 0;
    for chunk in pairs.chunks(CHUNK / 2) {
        let texts: Vec<&str> =
            chunk.iter().flat_map(|pair| [&*pair.sentence1, &*pair.sentence2]).collect();
        let embeddings = encoder.encode_batch(&texts)?.embeddings;
        let both = embeddings.chunks_exact(2 * dimension);
        cosines.extend(both.map(|both| f64::from(dot(&both[..dimension], &both[dimension..]))));
        done += texts.len();
        progress(done);
    }
    Ok(cosines)
}

/// Correlates cosines with scores.
///
/// # Panics
/// If the lengths differ.
pub fn score(cosines: &[f64], scores: &[f64]) -> StsScore {
    let undefined = if scores.len() < 2 {
        Some("there are fewer than two pairs")
    } else if is_constant(scores) {
        Some("the scores are all the same")
    } else if spread_within(cosines, COSINE_ROUNDING) {
        Some("the cosines are all the same: the model gives every pair the same similarity")
    } else {
        None
    };
    let or_nan = |correlation: f64| if undefined.is_some() { f64::NAN } else { correlation };
    StsScore {
        pairs: scores.len(),
        spearman: or_nan(spearman(cosines, scores)),
        pearson: or_nan(pearson(cosines, scores)),
        undefined,
    }
}

/// Encodes both sides of `pairs` and correlates their cosine with the scores; see [`cosines`].
///
/// # Errors
/// As [`Encoder::encode_batch`].
pub fn sts(encoder: &Encoder, pairs: &[StsPair], progress: impl Fn(usize)) -> Result<StsScore> {
    Ok(score(&cosines(encoder, pairs, progress)?, &gold(pairs)))
}

/// The scores that people gave.
pub fn gold(pairs: &[StsPair]) -> Vec<f64> {
    pairs.iter().map(|pair| pair.score).collect()
}

/// 95 % intervals of the correlations of `cosines` with `scores` over `resamples` samples of the pairs.
pub fn intervals(cosines: &[f64], scores: &[f64], resamples: usize) -> StsIntervals {
    both(scores.len(), resamples, |sample, correlation| {
        correlation(&pick(cosines, sample), &pick(scores, sample))
    })
}

/// 95 % intervals of what the correlations of `second` are above those of `first`, where each sample
/// holds the same pairs for both.
pub fn difference_intervals(
    first: &[f64],
    second: &[f64],
    scores: &[f64],
    resamples: usize,
) -> StsIntervals {
    both(scores.len(), resamples, |sample, correlation| {
        let scores = pick(scores, sample);
        correlation(&pick(second, sample), &scores) - correlation(&pick(first, sample), &scores)
    })
}

/// A correlation of two columns.
type Correlation = fn(&[f64], &[f64]) -> f64;

fn both(
    pairs: usize,
    resamples: usize,
    statistic: impl Fn(&[usize], Correlation) -> f64,
) -> StsIntervals {
    let interval = |correlation: Correlation| {
        bootstrap(pairs, resamples, |sample| statistic(sample, correlation))
    };
    StsIntervals { spearman: interval(spearman), pearson: interval(pearson) }
}

fn pick(values: &[f64], sample: &[usize]) -> Vec<f64> {
    sample.iter().map(|&index| values[index]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 300 pairs whose cosines follow the scores, more or less loosely.
    fn columns() -> (Vec<f64>, Vec<f64>, Vec<f64>) {
        let scores: Vec<f64> = (0..300).map(|i| f64::from(i % 60) / 12.0).collect();
        let noise =
            |i: usize, k: u64| ((i as u64 * 2_654_435_761 * k) % 1000) as f64 / 1000.0 - 0.5;
        let near = scores.iter().enumerate().map(|(i, s)| s / 5.0 + 0.5 * noise(i, 7)).collect();
        let far = scores.iter().enumerate().map(|(i, s)| s / 5.0 + 2.0 * noise(i, 13)).collect();
        (scores, near, far)
    }

    #[test]
    fn intervals_hold_the_score_and_tell_models_apart() {
        let (scores, near, far) = columns();
        let (a, b) = (score(&near, &scores), score(&far, &scores));
        assert!(a.spearman > b.spearman + 0.1);
        let own = intervals(&near, &scores, 500);
        let inside = |interval: Option<Interval>, value: f64| {
            let Interval { low, high } = interval.unwrap();
            low < value && value < high && high - low < 0.2
        };
        assert!(inside(own.spearman, a.spearman) && inside(own.pearson, a.pearson));
        let worse = difference_intervals(&near, &far, &scores, 500).spearman.unwrap();
        assert!(worse.high < 0.0, "{worse:?}");
        let same = difference_intervals(&near, &near, &scores, 500).spearman.unwrap();
        assert_eq!((same.low, same.high), (0.0, 0.0));
    }

    #[test]
    fn what_has_no_correlation_says_why() {
        let why = |cosines: &[f64], scores: &[f64]| {
            let score = score(cosines, scores);
            assert!(score.spearman.is_nan() && score.pearson.is_nan());
            score.undefined.unwrap()
        };
        assert!(why(&[0.5], &[1.0]).contains("two pairs"));
        assert!(why(&[], &[]).contains("two pairs"));
        assert!(why(&[0.5, 0.6, 0.7], &[0.7; 3]).contains("scores"));
        assert!(why(&[1.0, 1.0 - 6e-8, 1.0], &[1.0, 2.0, 3.0]).contains("cosines"));
        assert_eq!(score(&[0.1, 0.2], &[1.0, 2.0]).undefined, None);
    }
}
