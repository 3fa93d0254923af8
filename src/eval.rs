//! Evaluation: rank and linear correlation, STS files, and the scores of an encoder on them.

pub mod retrieval;

use std::path::Path;

use crate::error::{Error, Result};
use crate::model::Encoder;
use crate::search::dot;
use crate::table::Table;

pub use crate::table::read_text;

/// Pearson's correlation of two samples of one length, −1 to 1. NaN if there are fewer than two
/// values or one sample is constant.
///
/// # Panics
/// If the lengths differ.
pub fn pearson(x: &[f64], y: &[f64]) -> f64 {
    assert_eq!(x.len(), y.len(), "samples of different lengths");
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

/// A row of an STS file.
#[derive(Clone, Debug, PartialEq)]
pub struct StsPair {
    /// One sentence.
    pub sentence1: String,
    /// The other.
    pub sentence2: String,
    /// How similar people found them; any scale.
    pub score: f64,
}

/// Reads an STS file: tab-separated UTF-8 without quoting, with a header line that names the columns
/// `sentence1`, `sentence2` and `score` (others are ignored); gzip if the name ends in `.gz`.
///
/// # Errors
/// `io` if it cannot be read; `data_invalid`, naming file and line, for
/// missing columns, rows of another number of fields, empty sentences, scores that are no finite
/// number, or no rows at all.
pub fn read_sts(path: &Path) -> Result<Vec<StsPair>> {
    parse_sts(&Table::read(path)?)
}

fn parse_sts(table: &Table) -> Result<Vec<StsPair>> {
    let first = table.column("sentence1")?;
    let (second, score) = (table.column("sentence2")?, table.column("score")?);
    let pair = |(line, fields): &(usize, Vec<String>)| {
        let bad = |what: String| Error::in_line(&table.file, *line, what);
        if fields[first].trim().is_empty() || fields[second].trim().is_empty() {
            return Err(bad("a sentence is empty".into()));
        }
        let number = fields[score].trim().parse::<f64>().ok().filter(|score| score.is_finite());
        let number = number.ok_or_else(|| {
            bad(format!("score is {:?}; expected a finite number", fields[score]))
        })?;
        let (sentence1, sentence2) = (fields[first].clone(), fields[second].clone());
        Ok(StsPair { sentence1, sentence2, score: number })
    };
    table.rows.iter().map(pair).collect()
}

/// How well the cosine of an encoder's embeddings follows the scores of an STS file.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StsScore {
    /// Rows.
    pub pairs: usize,
    /// Spearman's correlation, −1 to 1.
    pub spearman: f64,
    /// Pearson's correlation, −1 to 1.
    pub pearson: f64,
}

/// Encodes both sides of `pairs` and correlates their cosine with the scores. `progress` is called
/// with the number of sentences done, out of twice the number of pairs.
///
/// # Errors
/// As [`Encoder::encode_batch`].
pub fn sts(encoder: &Encoder, pairs: &[StsPair], progress: impl Fn(usize)) -> Result<StsScore> {
    /// Sentences given to the encoder at once: enough for all its threads, few enough for progress.
    const CHUNK: usize = 512;
    let hidden = encoder.info().config.hidden_size;
    let mut cosines = Vec::with_capacity(pairs.len());
    let mut done = 0;
    for chunk in pairs.chunks(CHUNK / 2) {
        let texts: Vec<&str> =
            chunk.iter().flat_map(|pair| [&*pair.sentence1, &*pair.sentence2]).collect();
        let embeddings = encoder.encode_batch(&texts)?.embeddings;
        let both = embeddings.chunks_exact(2 * hidden);
        cosines.extend(both.map(|both| f64::from(dot(&both[..hidden], &both[hidden..]))));
        done += texts.len();
        progress(done);
    }
    let scores: Vec<f64> = pairs.iter().map(|pair| pair.score).collect();
    Ok(StsScore {
        pairs: pairs.len(),
        spearman: spearman(&cosines, &scores),
        pearson: pearson(&cosines, &scores),
    })
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
    fn columns_are_found_by_name() {
        let text = "\u{feff}genre\tscore\tsentence2\tsentence1\r\nnews\t 4.5\t나 다\t가\r\n\r\n";
        let pairs = parse_sts(&Table::parse(text, "x.tsv", false).unwrap()).unwrap();
        assert_eq!(
            pairs,
            [StsPair { sentence1: "가".into(), sentence2: "나 다".into(), score: 4.5 }]
        );
    }

    #[test]
    fn bad_rows_are_named_by_line() {
        let message = |text: &str| {
            let read = Table::parse(text, "x.tsv", false).and_then(|table| parse_sts(&table));
            let error = read.unwrap_err();
            assert_eq!(error.code(), "data_invalid");
            error.to_string()
        };
        assert!(message("").starts_with("x.tsv:1: expected a header"));
        assert!(message("a\tb\n1\t2\n").contains("\"sentence1\""));
        let header = "sentence1\tsentence2\tscore\n";
        assert!(message(header).starts_with("x.tsv:1: the file has no rows"));
        assert!(message(&format!("{header}가\t나\t1\n가\t나\n")).starts_with("x.tsv:3: 2 fields"));
        assert!(message(&format!("{header}가\t나\tmany\n")).contains("\"many\""));
        assert!(message(&format!("{header}가\t나\tNaN\n")).contains("finite"));
        assert!(
            message(&format!("{header}가\t \t1\n")).starts_with("x.tsv:2: a sentence is empty")
        );
    }
}
