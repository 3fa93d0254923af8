//! Scores of a model in training on the recipe's evaluation sets.

use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};
use std::path::Path;

use super::data::{Table, TokenStore, inside};
use super::model::{BertModel, FakeQuant, TokenBatch};
use super::recipe::{EvalKind, EvalSet};
use crate::error::{Error, ErrorKind, Result};
use crate::eval::{StsPair, pearson, read_sts, spearman};

/// Tokens of one forward pass; more would only cost memory.
const TOKENS_AT_ONCE: usize = 4096;

/// One number.
#[derive(Clone, Debug, PartialEq)]
pub struct Score {
    /// Name of the set.
    pub set: String,
    /// `spearman`, `pearson` or `ndcg@10`, of vectors cut to 128 values `spearman, 128 wide`.
    pub metric: String,
    /// × 100.
    pub value: f64,
}

/// L2-normalized embeddings of all texts of `store`, row after row.
///
/// # Errors
/// As [`BertModel::encode`].
pub fn embed_all(
    model: &BertModel,
    store: &TokenStore,
    quantize: Option<FakeQuant>,
) -> Result<Vec<f32>> {
    let hidden = model.config().hidden_size;
    let mut order: Vec<usize> = (0..store.len()).collect();
    order.sort_by_key(|&index| (store.ids(index).len(), index));
    let mut all = vec![0.0f32; store.len() * hidden];
    let mut rest = order.as_slice();
    while !rest.is_empty() {
        let mut count = 0;
        let mut tokens = 0;
        while count < rest.len() && (count == 0 || tokens < TOKENS_AT_ONCE) {
            tokens += store.ids(rest[count]).len();
            count += 1;
        }
        let (now, later) = rest.split_at(count);
        let batch: Vec<&[u32]> = now.iter().map(|&index| store.ids(index)).collect();
        let vectors = model.encode(&TokenBatch::new(&batch)?, quantize)?;
        for (&index, vector) in now.iter().zip(vectors.chunks_exact(hidden)) {
            all[index * hidden..][..hidden].copy_from_slice(vector);
        }
        rest = later;
    }
    Ok(all)
}

/// The rows of an evaluation set.
#[derive(Clone, Debug, PartialEq)]
pub enum EvalRows {
    /// Pairs with human scores.
    Sts(Vec<StsPair>),
    /// Queries and their documents.
    Retrieval(Vec<(String, String)>),
}

impl EvalRows {
    /// Reads `sets`. A set whose file is not in the data folder is left out and named in `missing`.
    ///
    /// # Errors
    /// [`ErrorKind::DataInvalid`] for malformed files.
    pub fn read<'a>(
        sets: impl IntoIterator<Item = &'a EvalSet>,
        data: &Path,
        missing: &mut Vec<String>,
    ) -> Result<Vec<(EvalSet, EvalRows)>> {
        let mut all = Vec::new();
        for set in sets {
            let path = inside(data, &set.file)?;
            if !path.exists() {
                missing.push(set.file.clone());
                continue;
            }
            let rows = match set.kind {
                EvalKind::Sts => EvalRows::Sts(read_sts(&path)?),
                EvalKind::Retrieval => EvalRows::Retrieval(read_retrieval(&path, set)?),
            };
            all.push((set.clone(), rows));
        }
        Ok(all)
    }

    /// All texts, row after row.
    pub fn texts(&self) -> Vec<&str> {
        match self {
            EvalRows::Sts(pairs) => {
                pairs.iter().flat_map(|pair| [&*pair.sentence1, &*pair.sentence2]).collect()
            }
            EvalRows::Retrieval(rows) => {
                rows.iter().flat_map(|(query, document)| [&**query, &**document]).collect()
            }
        }
    }
}

/// The sets that are looked at during training, for one tokenizer.
pub struct Evaluation {
    sets: Vec<(EvalSet, EvalRows, TokenStore)>,
}

impl Evaluation {
    /// The sets `rows`, their texts as token ids by `store`.
    ///
    /// # Errors
    /// What `store` returns.
    pub fn new(
        rows: Vec<(EvalSet, EvalRows)>,
        store: impl Fn(&[&str]) -> Result<TokenStore>,
    ) -> Result<Self> {
        let sets = rows
            .into_iter()
            .map(|(set, rows)| {
                let tokens = store(&rows.texts())?;
                Ok((set, rows, tokens))
            })
            .collect::<Result<_>>()?;
        Ok(Evaluation { sets })
    }

    /// Scores of `model`, and of its vectors cut to each of `dimensions`.
    ///
    /// # Errors
    /// As [`BertModel::encode`].
    pub fn run(
        &self,
        model: &BertModel,
        quantize: Option<FakeQuant>,
        dimensions: &[usize],
    ) -> Result<Vec<Score>> {
        let hidden = model.config().hidden_size;
        let mut scores = Vec::new();
        for (set, rows, store) in &self.sets {
            let vectors = embed_all(model, store, quantize)?;
            for width in std::iter::once(hidden).chain(dimensions.iter().copied()) {
                let vector =
                    |text: &str| &vectors[store.index(text) * hidden..][..width.min(hidden)];
                let cosine = |a: &str, b: &str| {
                    let (a, b) = (vector(a), vector(b));
                    match width == hidden {
                        // Of length 1 already.
                        true => dot(a, b),
                        false => dot(a, b) / (dot(a, a) * dot(b, b)).sqrt().max(1e-12),
                    }
                };
                let mut push = |metric: &str, value: f64| {
                    let metric = match width == hidden {
                        true => metric.to_owned(),
                        false => format!("{metric}, {width} wide"),
                    };
                    scores.push(Score { set: set.name.clone(), metric, value: 100.0 * value });
                };
                match rows {
                    EvalRows::Sts(pairs) => {
                        let cosines: Vec<f64> = pairs
                            .iter()
                            .map(|pair| cosine(&pair.sentence1, &pair.sentence2))
                            .collect();
                        let expected: Vec<f64> = pairs.iter().map(|pair| pair.score).collect();
                        push("spearman", spearman(&cosines, &expected));
                        push("pearson", pearson(&cosines, &expected));
                    }
                    EvalRows::Retrieval(rows) => push("ndcg@10", ndcg_at_10(rows, cosine)),
                }
            }
        }
        Ok(scores)
    }
}

/// The one dot product, as a number for statistics.
fn dot(a: &[f32], b: &[f32]) -> f64 {
    f64::from(crate::search::dot(a, b))
}

/// Queries and documents of a retrieval set.
///
/// # Errors
/// [`ErrorKind::DataInvalid`], naming file and line.
pub fn read_retrieval(path: &Path, set: &EvalSet) -> Result<Vec<(String, String)>> {
    let table = Table::read(path)?;
    let [query, document] = &set.columns[..] else {
        return Err(Error::new(
            ErrorKind::DataInvalid,
            format!("evaluation set {:?}: columns = [query, document] is missing", set.name),
        ));
    };
    let (query, document) = (table.column(query)?, table.column(document)?);
    Ok(table.rows.iter().map(|(_, row)| (row[query].clone(), row[document].clone())).collect())
}

/// Mean nDCG@10 over the rows' queries, each with one right document among all different ones.
/// Equal scores count as ranked before it.
pub fn ndcg_at_10(rows: &[(String, String)], score: impl Fn(&str, &str) -> f64) -> f64 {
    let mut documents: Vec<&str> = Vec::new();
    let mut seen = HashSet::new();
    for (_, document) in rows {
        if seen.insert(document.as_str()) {
            documents.push(document);
        }
    }
    let mut sum = 0.0;
    for (query, right) in rows {
        let best = score(query, right);
        let before = documents
            .iter()
            .filter(|&&document| document != right)
            // NaN is not below anything.
            .filter(|&&document| score(query, document).partial_cmp(&best) != Some(Ordering::Less))
            .count();
        if before < 10 {
            sum += 1.0 / (before as f64 + 2.0).log2();
        }
    }
    sum / rows.len() as f64
}

/// Okapi BM25 (k₁ 1.2, b 0.75) over character bigrams, which serves Korean without a
/// morphological analyser: nDCG@10 as [`ndcg_at_10`].
pub fn bm25_ndcg_at_10(rows: &[(String, String)]) -> f64 {
    let grams = |text: &str| -> HashMap<[char; 2], f64> {
        let mut counts = HashMap::new();
        for word in text.to_lowercase().split(|c: char| !c.is_alphanumeric()) {
            let chars: Vec<char> = word.chars().collect();
            if let [one] = chars[..] {
                *counts.entry([one, ' ']).or_default() += 1.0;
            }
            for pair in chars.windows(2) {
                *counts.entry([pair[0], pair[1]]).or_default() += 1.0;
            }
        }
        counts
    };
    let mut documents: HashMap<&str, HashMap<[char; 2], f64>> = HashMap::new();
    for (_, document) in rows {
        documents.entry(document).or_insert_with(|| grams(document));
    }
    let length = |counts: &HashMap<[char; 2], f64>| counts.values().sum::<f64>();
    let mean = documents.values().map(&length).sum::<f64>() / documents.len() as f64;
    let mut frequency: HashMap<[char; 2], f64> = HashMap::new();
    for counts in documents.values() {
        for gram in counts.keys() {
            *frequency.entry(*gram).or_default() += 1.0;
        }
    }
    let n = documents.len() as f64;
    let queries: HashMap<&str, HashMap<[char; 2], f64>> =
        rows.iter().map(|(query, _)| (query.as_str(), grams(query))).collect();
    let lengths: HashMap<&str, f64> =
        documents.iter().map(|(text, counts)| (*text, length(counts))).collect();
    ndcg_at_10(rows, |query, document| {
        let counts = &documents[document];
        let mut terms: Vec<([char; 2], f64)> =
            queries[query].keys().filter_map(|gram| Some((*gram, *counts.get(gram)?))).collect();
        // Sums in one order, so that the result does not depend on the map's.
        terms.sort_by_key(|term| term.0);
        terms
            .into_iter()
            .map(|(gram, count)| {
                let df = frequency[&gram];
                let idf = (1.0 + (n - df + 0.5) / (df + 0.5)).ln();
                let norm = 1.2 * (0.25 + 0.75 * lengths[document] / mean);
                idf * count * 2.2 / (count + norm)
            })
            .sum()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Vec<(String, String)> {
        [
            ("사과 색", "사과는 빨간 과일이다"),
            ("바다 깊이", "바다는 깊고 푸르다"),
            ("산은", "산은 높다"),
        ]
        .map(|(query, document)| (query.to_owned(), document.to_owned()))
        .to_vec()
    }

    #[test]
    fn ndcg_counts_what_stands_before() {
        let rows = rows();
        let right = |query: &str, document: &str| {
            rows.iter().any(|(q, d)| q == query && d == document) as u8 as f64
        };
        assert_eq!(ndcg_at_10(&rows, right), 1.0);
        assert_eq!(ndcg_at_10(&rows, |query, document| -right(query, document)), 0.5);
        // Nothing is told apart: everything else counts as before it.
        assert_eq!(ndcg_at_10(&rows, |_, _| f64::NAN), 0.5);
    }

    #[test]
    fn bm25_finds_shared_words() {
        assert_eq!(bm25_ndcg_at_10(&rows()), 1.0);
    }
}
