//! Training data and evaluation sets, as a recipe names them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::defaults::{is_default, is_one, one};

/// What the rows of a file are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DataKind {
    /// Two sentences and a score.
    Sts,
    /// Premise, hypothesis, and one of `entailment`, `neutral`, `contradiction`.
    Nli,
    /// A sentence and the number of its paraphrase set.
    Sets,
    /// Two texts that belong together (question and passage, title and body, paraphrases).
    Pairs,
    /// Single sentences, in any number of columns.
    Sentences,
}

/// A training file.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct DataSource {
    /// Path below the data folder; tab-separated with a header line, or `.txt` with a sentence a
    /// line; gzip if it ends in `.gz`.
    #[serde(default)]
    pub file: String,
    /// In place of `file`: the `label_pairs` stage whose pairs these are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made_by: Option<String>,
    /// What its rows are.
    pub kind: DataKind,
    /// `sts`: how much a row counts in the loss.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub weight: f64,
    /// As the source states it; data without a stated licence is refused.
    pub license: String,
    /// Where it comes from, for the model card.
    #[serde(default)]
    pub origin: String,
    /// Columns with text; by default `sentence1`, `sentence2` (or `sentence`).
    #[serde(default)]
    pub columns: Vec<String>,
    /// Column of scores, labels or set numbers; by default `score`, `label`, `set_id`.
    #[serde(default)]
    pub target: Option<String>,
    /// Scores run from 0 to this.
    #[serde(default = "default_max_score")]
    pub max_score: f64,
    /// Rows whose column has this value are left out; `*` stands for anything but empty.
    #[serde(default)]
    pub drop: BTreeMap<String, String>,
    /// Only rows whose column has this value are taken.
    #[serde(default)]
    pub keep: BTreeMap<String, String>,
    /// At most this many rows, drawn by the seed.
    #[serde(default)]
    pub limit: Option<usize>,
    /// `sentences`: the file is a running text. `distill` sees neighbouring rows in one batch.
    #[serde(default, skip_serializing_if = "is_default")]
    pub running_text: bool,
}

fn default_max_score() -> f64 {
    5.0
}

/// What an evaluation set measures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EvalKind {
    /// Correlation of the cosine with human scores.
    #[default]
    Sts,
    /// nDCG@10 of finding each row's passage among all by its question.
    Retrieval,
}

/// An evaluation set.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct EvalSet {
    /// As tables show it, such as `KorSTS dev`.
    pub name: String,
    /// Path below the data folder.
    pub file: String,
    /// What it measures.
    #[serde(default)]
    pub kind: EvalKind,
    /// Query and document columns of a retrieval set.
    #[serde(default)]
    pub columns: Vec<String>,
    /// Looked at only once, on the exported file.
    #[serde(default)]
    pub final_only: bool,
}
