//! Scores of a model in training on the recipe's evaluation sets.

use std::path::Path;

use super::retrieval::{ndcg_at_10, read_retrieval};
use crate::error::Result;
use crate::eval::{StsPair, pearson, read_sts, spearman};
use crate::train::data::{TokenStore, inside};
use crate::train::nn::batch::TokenBatch;
use crate::train::nn::bert::BertModel;
use crate::train::nn::options::FakeQuant;
use crate::train::recipe::{EvalKind, EvalSet};

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
