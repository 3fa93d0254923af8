//! Recipes: TOML files that name the data, the stages in their order and every number of a run.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::optim::Decay;
use crate::config::Pooling;
use crate::error::{Error, ErrorKind, Result};
use crate::kernels::matmul::Precision;

/// A whole run.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Name of the exported model; letters, digits, `-`, `_` and `.`.
    pub name: String,
    /// One paragraph for the model card.
    #[serde(default)]
    pub description: String,
    /// All random numbers of the run derive from it.
    pub seed: u64,
    /// Training sentences are cut to this many tokens (evaluation uses the model's maximum).
    #[serde(default = "default_max_tokens")]
    pub max_tokens: usize,
    /// How the teacher is used.
    #[serde(default)]
    pub teacher: ModelUse,
    /// How the student is used, and what is exported.
    #[serde(default)]
    pub student: ModelUse,
    /// Training data by name.
    #[serde(default)]
    pub data: BTreeMap<String, DataSource>,
    /// Evaluation sets.
    #[serde(default)]
    pub evaluate: Vec<EvalSet>,
    /// What is done, in this order.
    #[serde(rename = "stage")]
    pub stages: Vec<Stage>,
    /// The file that it was read from, as messages name it.
    #[serde(skip)]
    pub path: String,
}

/// How a model turns text into a vector.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ModelUse {
    /// Put before every text.
    #[serde(default)]
    pub prefix: String,
    /// By default what the checkpoint says.
    #[serde(default)]
    pub pooling: Option<Pooling>,
    /// What it is and under which licence, for the model card.
    #[serde(default)]
    pub about: String,
}

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

/// What an evaluation set measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EvalKind {
    /// Correlation of the cosine with human scores.
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
    #[serde(default = "default_eval_kind")]
    pub kind: EvalKind,
    /// Query and document columns of a retrieval set.
    #[serde(default)]
    pub columns: Vec<String>,
    /// Looked at only once, on the exported file.
    #[serde(default)]
    pub final_only: bool,
}

/// What a stage does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StageKind {
    /// Keeps the pieces of the vocabulary that the data uses.
    PruneVocabulary,
    /// Moves the mean sentence vector to zero.
    Center,
    /// Moves the mean of the states before every layer to zero, with the same vectors as before.
    ShiftStates,
    /// Makes the student from layers of the teacher.
    PickLayers,
    /// Gives the student's feed-forwards more units, without a change of its vectors.
    Widen,
    /// Supervised SimCSE on NLI triples, paraphrase sets and pairs.
    Contrast,
    /// Regression of the cosine on scores.
    Sts,
    /// The student follows the teacher on unlabelled sentences.
    Distill,
    /// Trains a copy of the teacher that reads both sentences of a pair at once.
    CrossEncoder,
    /// Scores pairs with a cross-encoder, for `[data.NAME] made_by`.
    LabelPairs,
    /// Writes the model file, its manifest and its card.
    Export,
}

impl StageKind {
    /// Whether it takes gradient steps.
    pub fn trains(self) -> bool {
        matches!(
            self,
            StageKind::Contrast | StageKind::Sts | StageKind::Distill | StageKind::CrossEncoder
        )
    }
}

/// Which of the two models a stage works on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Slot {
    /// The large one.
    Teacher,
    /// The one that is exported.
    #[default]
    Student,
}

impl Slot {
    /// As the recipe spells it.
    pub fn name(self) -> &'static str {
        match self {
            Slot::Teacher => "teacher",
            Slot::Student => "student",
        }
    }
}

/// The loss of STS regression.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StsLoss {
    /// Squared difference of cosine and score.
    #[default]
    Mse,
    /// Order only.
    Cosent,
}

/// Averaging of weights over the last part of a stage.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Average {
    /// Begins at this part of the stage, 0 … 1.
    pub start: f64,
    /// A sample every so many steps.
    #[serde(default = "default_average_every")]
    pub every: usize,
    /// A moving average with this decay; the plain mean without it.
    #[serde(default)]
    pub decay: Option<f64>,
}

/// One stage.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// For `--only`, folders and tables; letters, digits, `-`, `_`.
    pub name: String,
    /// What it does.
    pub kind: StageKind,
    /// On which model.
    #[serde(default)]
    pub model: Slot,
    /// Names of training data.
    #[serde(default)]
    pub data: Vec<String>,

    /// Gradient steps.
    #[serde(default)]
    pub steps: usize,
    /// Ends after this much time even if steps are left; the learning rate follows whichever of
    /// both is further. A stage that reaches this limit is not repeatable to the bit.
    #[serde(default)]
    pub minutes: Option<f64>,
    /// Pairs or triples of one step; `distill`: groups of up to four sentences that belong together.
    #[serde(default = "default_batch")]
    pub batch: usize,
    /// Peak learning rate.
    #[serde(default = "default_learning_rate")]
    pub learning_rate: f64,
    /// Part of the stage in which the learning rate rises.
    #[serde(default = "default_warmup")]
    pub warmup: f64,
    /// How it falls.
    #[serde(default = "default_decay")]
    pub decay: Decay,
    /// What is left of it at the end.
    #[serde(default)]
    pub final_fraction: f64,
    /// Decoupled weight decay.
    #[serde(default = "default_weight_decay")]
    pub weight_decay: f64,
    /// Dropout of states and attention.
    #[serde(default)]
    pub dropout: f32,
    /// Word embeddings stay.
    #[serde(default)]
    pub freeze_word_embeddings: bool,
    /// All embeddings stay.
    #[serde(default)]
    pub freeze_embeddings: bool,
    /// This many lowest layers stay.
    #[serde(default)]
    pub freeze_layers: usize,
    /// `bf16`: linear layers round their factors to bfloat16, which is up to twice as fast on CPUs
    /// with AVX-512 BF16; others compute in 32 bits all the same.
    #[serde(default, skip_serializing_if = "is_default")]
    pub precision: Precision,
    /// Bits of weights in quantization-aware training: 8, 7 or 6; 7 is what ships.
    #[serde(default)]
    pub quantize_bits: Option<u8>,
    /// `sts` with `quantize_bits`: weight of 1 − cosine between the sentence vectors with and without
    /// rounded activations, of the batch and of very short texts, special tokens and pieces at random, which
    /// rounding moves most.
    #[serde(default, skip_serializing_if = "is_default")]
    pub rounding_weight: f64,
    /// `sts` whose data has rows of kind `pairs` too: weight of finding a text's partner among those
    /// of [`Stage::pairs_batch`] pairs, at [`Stage::temperature`].
    #[serde(default, skip_serializing_if = "is_default")]
    pub pairs_weight: f64,
    /// `sts` with [`Stage::pairs_weight`]: pairs of one step.
    #[serde(default = "default_pairs_batch", skip_serializing_if = "is_default_pairs_batch")]
    pub pairs_batch: usize,
    /// `sts` with [`Stage::pairs_weight`]: most tokens of one text of a pair, which may be a passage;
    /// the recipe's `max_tokens` without it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub pairs_tokens: Option<usize>,
    /// `sts` with [`Stage::pairs_weight`]: how much a text's partners shall be ranked as the teacher
    /// ranked them before any stage trained it, for each part of being told apart: weight of the
    /// divergence of both distributions over the partners of a step, at [`Stage::temperature`].
    #[serde(default, skip_serializing_if = "is_default")]
    pub pairs_teacher_weight: f64,
    /// Averaging of weights.
    #[serde(default)]
    pub average: Option<Average>,

    /// `sts`: the loss on scores.
    #[serde(default)]
    pub loss: StsLoss,
    /// `sts`: weight of staying near the teacher's vectors and similarities.
    #[serde(default)]
    pub teacher_weight: f64,
    /// `contrast`: temperature of the cosines.
    #[serde(default = "default_temperature")]
    pub temperature: f32,
    /// `distill`: weight of the token states' squared error.
    #[serde(default)]
    pub state_weight: f64,
    /// `distill`: weight of 1 − cosine of the sentence vectors.
    #[serde(default = "one")]
    pub cosine_weight: f64,
    /// `distill`, `sts` with a teacher: weight of the divergence of in-batch similarities.
    #[serde(default = "one")]
    pub similarity_weight: f64,
    /// `distill`, `sts` with a teacher: the teacher runs as an exported file would, quantized, which
    /// is several times faster on a CPU. On a GPU it is not rounded.
    #[serde(default)]
    pub quantized_teacher: bool,
    /// Temperature of the in-batch similarities.
    #[serde(default = "default_tau")]
    pub tau: f32,
    /// `distill`: weight of the squared error of states of layers below the last.
    #[serde(default, skip_serializing_if = "is_default")]
    pub middle_weight: f64,
    /// `distill`: which layer of the student follows which of the teacher, both counted from 0, as
    /// `[[0, 3], [1, 7]]`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub middle_layers: Vec<[usize; 2]>,
    /// Widths to which sentence vectors may be cut (Matryoshka): the losses on them are the mean
    /// over the whole vector and these leading parts, and evaluation measures the parts too.
    #[serde(default, skip_serializing_if = "is_default")]
    pub dimensions: Vec<usize>,

    /// `pick_layers`: layers of the teacher, rising. `widen`: those that the student's layers were.
    #[serde(default)]
    pub layers: Vec<usize>,
    /// `pick_layers`: intermediate size of the feed-forwards. A smaller one keeps the units of the
    /// largest weights, a larger one takes those of the layers above, which are left out.
    /// `widen`: the same for the student as it is, with output weights of zero for what it takes.
    #[serde(default, skip_serializing_if = "is_default")]
    pub intermediate_size: Option<usize>,
    /// `prune_vocabulary`: pieces to keep.
    #[serde(default)]
    pub vocabulary: usize,
    /// `label_pairs`: the `cross_encoder` stage that scores; by default the last one before.
    #[serde(default, skip_serializing_if = "is_default")]
    pub scorer: Option<String>,
    /// `label_pairs`: neighbours of each sentence by the teacher's vectors to pair it with.
    #[serde(default, skip_serializing_if = "is_default")]
    pub neighbours: usize,
    /// `label_pairs`: neighbours are looked for among at most this many sentences, drawn by the seed.
    #[serde(default = "default_mined_sentences", skip_serializing_if = "is_default_mined")]
    pub mined_sentences: usize,
    /// `label_pairs`: score both orders of a pair and take the mean, in twice the time.
    #[serde(default, skip_serializing_if = "is_default")]
    pub both_orders: bool,
    /// `label_pairs`: this part of a score, 0 … 1, is the cosine of the teacher's vectors, the rest the
    /// cross-encoder's. The mean of two kinds of model is often better than either.
    #[serde(default, skip_serializing_if = "is_default")]
    pub teacher_share: f64,

    /// Dev sets are looked at before the first and every so many steps; without it only at the end.
    #[serde(default)]
    pub evaluate_every: Option<usize>,
    /// A checkpoint every so many steps, besides those by time.
    #[serde(default)]
    pub checkpoint_every: Option<usize>,
    /// Where it begins in the recipe's file.
    #[serde(skip)]
    pub line: usize,
}

fn default_max_tokens() -> usize {
    128
}
fn default_max_score() -> f64 {
    5.0
}
fn default_eval_kind() -> EvalKind {
    EvalKind::Sts
}
fn default_average_every() -> usize {
    10
}
fn default_batch() -> usize {
    32
}
fn default_learning_rate() -> f64 {
    5e-5
}
fn default_warmup() -> f64 {
    0.1
}
fn default_decay() -> Decay {
    Decay::Linear
}
fn default_weight_decay() -> f64 {
    0.01
}
fn default_temperature() -> f32 {
    0.05
}
fn default_tau() -> f32 {
    0.1
}
fn default_mined_sentences() -> usize {
    20_000
}
fn default_pairs_batch() -> usize {
    16
}
fn one() -> f64 {
    1.0
}
// Options at their default are left out of a stage's settings, so that a run goes on under a later
// version that has more of them.
fn is_one(value: &f64) -> bool {
    *value == 1.0
}
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
fn is_default_pairs_batch(value: &usize) -> bool {
    *value == default_pairs_batch()
}
fn is_default_mined(value: &usize) -> bool {
    *value == default_mined_sentences()
}

impl Recipe {
    /// Reads and checks a recipe.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] if it cannot be read; [`ErrorKind::DataInvalid`], naming file and place,
    /// for anything that does not fit.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|source| {
            Error::io(format!("cannot read the recipe {}", path.display()), source)
        })?;
        Recipe::parse(&text, &path.display().to_string())
    }

    /// As [`Recipe::read`], from text; `file` is named in messages.
    ///
    /// # Errors
    /// As [`Recipe::read`].
    pub fn parse(text: &str, file: &str) -> Result<Self> {
        let mut recipe: Recipe = toml::from_str(text).map_err(|source| {
            let line = source
                .span()
                .map_or(1, |span| text[..span.start].bytes().filter(|&b| b == b'\n').count() + 1);
            Error::new(ErrorKind::DataInvalid, format!("{file}:{line}: {}", source.message()))
        })?;
        recipe.path = file.to_owned();
        let headers = text.lines().enumerate().filter(|(_, line)| line.trim() == "[[stage]]");
        for (stage, (index, _)) in recipe.stages.iter_mut().zip(headers) {
            stage.line = index + 1;
        }
        recipe.check()?;
        Ok(recipe)
    }

    /// Where a stage stands, as `file:line: stage "name"`.
    pub fn place(&self, stage: &Stage) -> String {
        match stage.line {
            0 => format!("{}: stage {:?}", self.path, stage.name),
            line => format!("{}:{line}: stage {:?}", self.path, stage.name),
        }
    }

    fn check(&self) -> Result<()> {
        let fail = |what: String| Err(Error::new(ErrorKind::DataInvalid, what));
        let bad = |what: String| fail(format!("{}: {what}", self.path));
        let plain = |name: &str| {
            !name.is_empty()
                && !name.starts_with('.')
                && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
        };
        if !plain(&self.name) {
            return bad(format!("name is {:?}; expected letters, digits, - _ .", self.name));
        }
        if self.stages.is_empty() {
            return bad("there is no [[stage]]".into());
        }
        if !(4..=1024).contains(&self.max_tokens) {
            return bad(format!("max_tokens is {}; expected 4 to 1024", self.max_tokens));
        }
        for (name, source) in &self.data {
            let license = source.license.trim().to_lowercase();
            if license.is_empty() || license.contains("not stated") || license == "unknown" {
                return bad(format!(
                    "data.{name} has no stated licence ({:?}); a model trained on it cannot be given away",
                    source.license
                ));
            }
            if source.file.is_empty() == source.made_by.is_none() {
                return bad(format!("data.{name} needs one of file and made_by"));
            }
            if source.made_by.is_some() && source.kind != DataKind::Sts {
                return bad(format!("data.{name}: labelled pairs are of kind \"sts\""));
            }
            if source.running_text && source.kind != DataKind::Sentences {
                return bad(format!("data.{name}: running_text is for kind \"sentences\""));
            }
            if !(source.weight > 0.0 && source.weight.is_finite()) {
                return bad(format!("data.{name}: weight is {}", source.weight));
            }
            if is_evaluation_split(&source.file) {
                return bad(format!(
                    "data.{name} is {:?}, a dev or test split: it may only stand under [[evaluate]]",
                    source.file
                ));
            }
            if self.evaluate.iter().any(|set| set.file == source.file) {
                return bad(format!("data.{name} is {:?}, an evaluation set too", source.file));
            }
            if !(source.max_score > 0.0 && source.max_score.is_finite()) {
                return bad(format!("data.{name}: max_score is {}", source.max_score));
            }
        }
        for (index, stage) in self.stages.iter().enumerate() {
            let at = |what: String| fail(format!("{}: {what}", self.place(stage)));
            let before = |name: &str, kind: StageKind| {
                self.stages[..index].iter().any(|stage| stage.name == name && stage.kind == kind)
            };
            if !plain(&stage.name) {
                return at("a name has only letters, digits, - _ .".into());
            }
            if self.stages[..index].iter().any(|other| other.name == stage.name) {
                return at("the name occurs twice".into());
            }
            if let Some(name) = stage.data.iter().find(|name| !self.data.contains_key(*name)) {
                return at(format!("there is no [data.{name}]"));
            }
            let related = |name: &&String| self.data[*name].running_text;
            if stage.kind == StageKind::Contrast
                && let Some(name) = stage.data.iter().find(related)
            {
                return at(format!(
                    "sentences of data.{name} are related, not alike: contrast cannot use them"
                ));
            }
            for name in &stage.data {
                let Some(maker) = &self.data[name].made_by else { continue };
                if !before(maker, StageKind::LabelPairs) {
                    return at(format!("data.{name} needs a label_pairs stage {maker:?} before"));
                }
            }
            let needs_data = stage.kind.trains()
                || matches!(
                    stage.kind,
                    StageKind::Center
                        | StageKind::ShiftStates
                        | StageKind::PruneVocabulary
                        | StageKind::LabelPairs
                );
            if needs_data && stage.data.is_empty() {
                return at("data = [...] is missing".into());
            }
            let of_layers = matches!(stage.kind, StageKind::PickLayers | StageKind::Widen);
            if of_layers && stage.layers.is_empty() {
                return at("layers = [...] is missing".into());
            }
            if stage.kind == StageKind::Widen && stage.intermediate_size.is_none() {
                return at("intermediate_size = N is missing".into());
            }
            if stage.kind == StageKind::PruneVocabulary && stage.vocabulary == 0 {
                return at("vocabulary = N is missing".into());
            }
            if stage.kind == StageKind::LabelPairs && self.scorer(index).is_none() {
                return at("there is no such cross_encoder stage before".into());
            }
            if !(0.0..=1.0).contains(&stage.teacher_share)
                || stage.teacher_share > 0.0 && stage.kind != StageKind::LabelPairs
            {
                return at(format!(
                    "teacher_share is {}; expected 0 to 1, in a label_pairs stage",
                    stage.teacher_share
                ));
            }
            if !stage.kind.trains() {
                continue;
            }
            if stage.steps == 0 {
                return at("steps = N is missing".into());
            }
            if stage.batch < 2 {
                return at(format!("batch is {}; expected at least 2", stage.batch));
            }
            if !(stage.learning_rate > 0.0 && stage.learning_rate < 1.0) {
                return at(format!("learning_rate is {}", stage.learning_rate));
            }
            if !(0.0..1.0).contains(&stage.dropout) || !(0.0..=1.0).contains(&stage.warmup) {
                return at("dropout and warmup lie between 0 and 1".into());
            }
            if stage.minutes.is_some_and(|minutes| minutes.is_nan() || minutes <= 0.0) {
                return at("minutes must be above 0".into());
            }
            if stage.quantize_bits.is_some_and(|bits| !(4..=8).contains(&bits)) {
                return at("quantize_bits lies between 4 and 8".into());
            }
            if stage.precision != Precision::F32 && stage.quantize_bits.is_some() {
                return at("quantize_bits need precision = \"f32\": they are the run time's".into());
            }
            if !(stage.rounding_weight >= 0.0 && stage.rounding_weight.is_finite()) {
                return at(format!("rounding_weight is {}", stage.rounding_weight));
            }
            if stage.rounding_weight > 0.0
                && (stage.kind != StageKind::Sts || stage.quantize_bits.is_none())
            {
                return at("rounding_weight is of sts stages with quantize_bits".into());
            }
            if !(stage.pairs_weight >= 0.0 && stage.pairs_weight.is_finite()) {
                return at(format!("pairs_weight is {}", stage.pairs_weight));
            }
            let pairs = stage.data.iter().any(|name| self.data[name].kind == DataKind::Pairs);
            if stage.pairs_weight > 0.0 && (stage.kind != StageKind::Sts || !pairs) {
                return at("pairs_weight is of sts stages with data of kind \"pairs\"".into());
            }
            if let Some(tokens) = stage.pairs_tokens
                && (stage.pairs_weight == 0.0 || !(4..=1024).contains(&tokens))
            {
                return at(format!(
                    "pairs_tokens is {tokens}; expected 4 to 1024, with pairs_weight"
                ));
            }
            if stage.pairs_weight > 0.0 && stage.pairs_batch < 2 {
                return at(format!("pairs_batch is {}; expected at least 2", stage.pairs_batch));
            }
            let ranked = stage.pairs_teacher_weight;
            if !(ranked >= 0.0 && ranked.is_finite()) {
                return at(format!("pairs_teacher_weight is {ranked}"));
            }
            if ranked > 0.0 && (stage.pairs_weight == 0.0 || stage.model == Slot::Teacher) {
                return at(
                    "pairs_teacher_weight is of the student's stages with pairs_weight".into()
                );
            }
            if stage.kind == StageKind::Distill && stage.model == Slot::Teacher {
                return at("only the student is distilled".into());
            }
            if !(stage.middle_weight >= 0.0 && stage.middle_weight.is_finite()) {
                return at(format!("middle_weight is {}", stage.middle_weight));
            }
            if (stage.middle_weight > 0.0) == stage.middle_layers.is_empty() {
                return at("middle_weight and middle_layers go together".into());
            }
            if !stage.middle_layers.is_empty() && stage.kind != StageKind::Distill {
                return at("middle_layers are of distill stages".into());
            }
            if !stage.dimensions.is_sorted_by(|a, b| a < b) || stage.dimensions.first() == Some(&0)
            {
                return at(format!("dimensions are {:?}; expected rising", stage.dimensions));
            }
            if stage.kind == StageKind::CrossEncoder && stage.model != Slot::Teacher {
                return at("a cross-encoder starts from the teacher: model = \"teacher\"".into());
            }
            if !stage.dimensions.is_empty() && stage.kind == StageKind::CrossEncoder {
                return at("a cross-encoder makes no vectors that dimensions could cut".into());
            }
            if let Some(name) = stage.data.iter().find(|name| self.data[*name].weight != 1.0) {
                if stage.kind != StageKind::Sts {
                    return at(format!("data.{name} has a weight, which is for sts stages"));
                }
                if stage.loss == StsLoss::Cosent {
                    return at(format!(
                        "data.{name} has a weight; CoSENT compares scores across rows, so use \
                         loss = \"mse\""
                    ));
                }
            }
        }
        Ok(())
    }

    /// The `cross_encoder` stage that scores for the `label_pairs` stage `index`.
    pub fn scorer(&self, index: usize) -> Option<usize> {
        let wanted = self.stages[index].scorer.as_deref();
        self.stages[..index].iter().rposition(|stage| {
            stage.kind == StageKind::CrossEncoder && wanted.is_none_or(|name| name == stage.name)
        })
    }

    /// The stage called `name`.
    ///
    /// # Errors
    /// [`ErrorKind::InputInvalid`], listing the names there are.
    pub fn stage(&self, name: &str) -> Result<usize> {
        self.stages.iter().position(|stage| stage.name == name).ok_or_else(|| {
            let names: Vec<&str> = self.stages.iter().map(|stage| stage.name.as_str()).collect();
            Error::new(
                ErrorKind::InputInvalid,
                format!("the recipe has no stage {name:?}; its stages are {}", names.join(", ")),
            )
        })
    }
}

/// Whether a file's name says that it is a dev, validation or test split.
fn is_evaluation_split(file: &str) -> bool {
    let name = file.rsplit('/').next().unwrap_or(file).to_lowercase();
    name.split(|c: char| !c.is_ascii_alphabetic())
        .any(|part| matches!(part, "dev" | "test" | "valid" | "validation"))
        // Sentences of other tasks' dev sets, which no evaluation here uses.
        && !name.contains("ner_dp_dev")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str = r#"
name = "x"
seed = 1
[data.sts]
file = "sts/train.tsv"
kind = "sts"
license = "CC0"
[[stage]]
name = "tune"
kind = "sts"
data = ["sts"]
steps = 3
"#;

    fn message(text: &str) -> String {
        let error = Recipe::parse(text, "r.toml").unwrap_err();
        assert_eq!(error.code(), "data_invalid");
        error.to_string()
    }

    #[test]
    fn committed_recipes_are_valid() {
        for name in ["ko-small", "klue-roberta-large"] {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("recipes/{name}.toml"));
            assert!(!Recipe::read(&path).unwrap().name.is_empty());
        }
    }

    #[test]
    fn defaults_fill_in() {
        let recipe = Recipe::parse(SMALL, "r.toml").unwrap();
        assert_eq!((recipe.stages[0].batch, recipe.max_tokens), (32, 128));
        assert_eq!(recipe.stage("tune").unwrap(), 0);
        assert!(recipe.stage("no").unwrap_err().to_string().contains("tune"));
    }

    #[test]
    fn mistakes_are_named() {
        assert!(
            message(&SMALL.replace("steps = 3", "step = 3"))
                .starts_with("r.toml:12: unknown field `step`")
        );
        assert!(message(&SMALL.replace("CC0", "**not stated**")).contains("no stated licence"));
        assert!(message(&SMALL.replace("sts/train.tsv", "sts/dev.tsv")).contains("dev or test"));
        assert!(message(&SMALL.replace("[\"sts\"]", "[\"nli\"]")).contains("no [data.nli]"));
        assert!(message(&SMALL.replace("steps = 3", "")).contains("steps = N is missing"));
        let with = |line: &str| message(&SMALL.replace("steps = 3", &format!("steps = 3\n{line}")));
        assert!(with("middle_weight = 1.0").starts_with("r.toml:8: stage \"tune\": middle_weight"));
        assert!(with("middle_weight = 1.0\nmiddle_layers = [[0, 1]]").contains("distill"));
        assert!(with("dimensions = [128, 64]").contains("expected rising"));
        assert!(with("precision = \"bf16\"\nquantize_bits = 7").contains("precision = \"f32\""));
        assert!(with("pairs_weight = 1.0").contains("data of kind \"pairs\""));
        assert!(with("rounding_weight = 1.0").contains("with quantize_bits"));
        assert!(with("pairs_tokens = 200").contains("with pairs_weight"));
        assert!(with("pairs_teacher_weight = 1.0").contains("stages with pairs_weight"));
        assert!(with("teacher_share = 0.5").contains("in a label_pairs stage"));
        let lines = "license = \"CC0\"\nrunning_text = true";
        assert!(
            message(&SMALL.replacen("license = \"CC0\"", lines, 1)).contains("kind \"sentences\"")
        );
        let labels = SMALL.replace("kind = \"sts\"\ndata", "kind = \"label_pairs\"\ndata");
        assert!(message(&labels).contains("no such cross_encoder stage"));
        let weighted = SMALL.replace("license", "weight = 0.5\nlicense");
        let weighted = weighted.replace("steps = 3", "steps = 3\nloss = \"cosent\"");
        assert!(message(&weighted).contains("use loss = \"mse\""));
        let made = SMALL.replace("file = \"sts/train.tsv\"", "made_by = \"label\"");
        assert!(message(&made).contains("a label_pairs stage \"label\" before"));
        let nothing = SMALL.replace("file = \"sts/train.tsv\"\n", "");
        assert!(message(&nothing).contains("one of file and made_by"));
        assert!(message(&SMALL.replace("seed = 1", "seed = \"a\"")).starts_with("r.toml:3:"));
    }
}
