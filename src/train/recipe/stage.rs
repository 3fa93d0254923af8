//! The kinds of stages and their options: a new kind begins here, as a variant of [`StageKind`].

use serde::{Deserialize, Serialize};

use super::defaults::{is_default, one};
use super::slot::Slot;
use super::training::{Precision, Training};

/// One stage.
#[derive(Clone, Debug, Serialize)]
pub struct Stage {
    /// For `--only`, folders and tables; letters, digits, `-`, `_`.
    pub name: String,
    /// What it does, and how.
    #[serde(flatten)]
    pub kind: StageKind,
    /// Where it begins in the recipe's file.
    #[serde(skip)]
    pub line: usize,
}

/// What a stage does, with the options of its kind.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum StageKind {
    /// Keeps the pieces of the vocabulary that the data uses.
    PruneVocabulary(PruneVocabulary),
    /// Moves the mean sentence vector to zero.
    Center(Center),
    /// Moves the mean of the states before every layer to zero, with the same vectors as before.
    ShiftStates(ShiftStates),
    /// Makes the student from layers of the teacher.
    PickLayers(PickLayers),
    /// Gives the student's feed-forwards more units, without a change of its vectors.
    Widen(Widen),
    /// Supervised SimCSE on NLI triples, paraphrase sets and pairs.
    Contrast(Trained<Contrast>),
    /// Regression of the cosine on scores.
    Sts(Trained<Sts>),
    /// The student follows the teacher on unlabelled sentences.
    Distill(Trained<Distill>),
    /// Trains a copy of the teacher that reads both sentences of a pair at once.
    CrossEncoder(Trained<CrossEncoder>),
    /// Scores pairs with a cross-encoder, for `[data.NAME] made_by`.
    LabelPairs(LabelPairs),
    /// Writes the model file, its manifest and its card.
    Export(Export),
}

/// Options of a kind that takes gradient steps, beside those that all such kinds have.
#[derive(Clone, Debug, Serialize)]
pub struct Trained<T> {
    /// Steps, batches, learning rate and the like.
    #[serde(flatten)]
    pub training: Training,
    /// What only this kind has.
    #[serde(flatten)]
    pub own: T,
}

/// Options of `prune_vocabulary`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct PruneVocabulary {
    /// On which model.
    #[serde(default)]
    pub model: Slot,
    /// Names of data whose texts show what is used.
    #[serde(default)]
    pub data: Vec<String>,
    /// Pieces to keep.
    #[serde(default)]
    pub vocabulary: usize,
}

/// Options of `center`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Center {
    /// On which model.
    #[serde(default)]
    pub model: Slot,
    /// Names of data whose mean it is.
    #[serde(default)]
    pub data: Vec<String>,
}

/// Options of `shift_states`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ShiftStates {
    /// On which model.
    #[serde(default)]
    pub model: Slot,
    /// Names of data whose mean states they are.
    #[serde(default)]
    pub data: Vec<String>,
}

/// Options of `pick_layers`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct PickLayers {
    /// Layers of the teacher, rising.
    #[serde(default)]
    pub layers: Vec<usize>,
    /// Intermediate size of the feed-forwards. A smaller one than the teacher's keeps the units of the
    /// largest weights, a larger one takes those of the layers above, which are left out.
    #[serde(default, skip_serializing_if = "is_default")]
    pub intermediate_size: Option<usize>,
}

/// Options of `widen`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Widen {
    /// Layers of the teacher that the student's layers were.
    #[serde(default)]
    pub layers: Vec<usize>,
    /// Intermediate size of the feed-forwards; what is added comes from the layers left out, with output
    /// weights of zero.
    #[serde(default, skip_serializing_if = "is_default")]
    pub intermediate_size: Option<usize>,
}

/// Options of `contrast`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Contrast {
    /// Temperature of the cosines.
    #[serde(default = "default_temperature")]
    pub temperature: f32,
    /// Widths to which sentence vectors may be cut (Matryoshka): the loss is the mean over the whole
    /// vector and these leading parts, and evaluation measures the parts too.
    #[serde(default, skip_serializing_if = "is_default")]
    pub dimensions: Vec<usize>,
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

/// Options of `sts`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Sts {
    /// The loss on scores.
    #[serde(default)]
    pub loss: StsLoss,
    /// Weight of staying near the teacher's vectors and similarities.
    #[serde(default)]
    pub teacher_weight: f64,
    /// In the teacher's term: weight of 1 − cosine of the sentence vectors.
    #[serde(default = "one")]
    pub cosine_weight: f64,
    /// In the teacher's term: weight of the divergence of in-batch similarities.
    #[serde(default = "one")]
    pub similarity_weight: f64,
    /// Temperature of the in-batch similarities.
    #[serde(default = "default_tau")]
    pub tau: f32,
    /// The teacher runs as an exported file would, quantized, which is several times faster on a CPU. On a
    /// GPU it is not rounded.
    #[serde(default)]
    pub quantized_teacher: bool,
    /// With `quantize_bits`: weight of 1 − cosine between the sentence vectors with and without rounded
    /// activations, of the batch and of very short texts, special tokens and pieces at random, which
    /// rounding moves most.
    #[serde(default, skip_serializing_if = "is_default")]
    pub rounding_weight: f64,
    /// With data of kind `pairs` too: weight of finding a text's partner among those of
    /// [`Sts::pairs_batch`] pairs, at [`Sts::temperature`].
    #[serde(default, skip_serializing_if = "is_default")]
    pub pairs_weight: f64,
    /// Pairs of one step.
    #[serde(default = "default_pairs_batch", skip_serializing_if = "is_default_pairs_batch")]
    pub pairs_batch: usize,
    /// Most tokens of one text of a pair, which may be a passage; the recipe's `max_tokens` without it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub pairs_tokens: Option<usize>,
    /// How much a text's partners shall be ranked as the teacher ranked them before any stage trained it,
    /// for each part of being told apart: weight of the divergence of both distributions over the
    /// partners of a step, at [`Sts::temperature`].
    #[serde(default, skip_serializing_if = "is_default")]
    pub pairs_teacher_weight: f64,
    /// Temperature of the cosines of pairs.
    #[serde(default = "default_temperature")]
    pub temperature: f32,
    /// As [`Contrast::dimensions`].
    #[serde(default, skip_serializing_if = "is_default")]
    pub dimensions: Vec<usize>,
}

/// Options of `distill`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Distill {
    /// Weight of the token states' squared error.
    #[serde(default)]
    pub state_weight: f64,
    /// Weight of 1 − cosine of the sentence vectors.
    #[serde(default = "one")]
    pub cosine_weight: f64,
    /// Weight of the divergence of in-batch similarities.
    #[serde(default = "one")]
    pub similarity_weight: f64,
    /// Temperature of the in-batch similarities.
    #[serde(default = "default_tau")]
    pub tau: f32,
    /// As [`Sts::quantized_teacher`].
    #[serde(default)]
    pub quantized_teacher: bool,
    /// Weight of the squared error of states of layers below the last.
    #[serde(default, skip_serializing_if = "is_default")]
    pub middle_weight: f64,
    /// Which layer of the student follows which of the teacher, both counted from 0, as
    /// `[[0, 3], [1, 7]]`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub middle_layers: Vec<[usize; 2]>,
    /// As [`Contrast::dimensions`], for the similarities.
    #[serde(default, skip_serializing_if = "is_default")]
    pub dimensions: Vec<usize>,
}

/// Options of `cross_encoder`: those that all training stages have.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct CrossEncoder {}

/// Options of `label_pairs`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct LabelPairs {
    /// Names of data whose pairs, and neighbours among whose sentences, are scored.
    #[serde(default)]
    pub data: Vec<String>,
    /// The `cross_encoder` stage that scores; by default the last one before.
    #[serde(default, skip_serializing_if = "is_default")]
    pub scorer: Option<String>,
    /// Neighbours of each sentence by the teacher's vectors to pair it with.
    #[serde(default, skip_serializing_if = "is_default")]
    pub neighbours: usize,
    /// Neighbours are looked for among at most this many sentences, drawn by the seed.
    #[serde(default = "default_mined_sentences", skip_serializing_if = "is_default_mined")]
    pub mined_sentences: usize,
    /// Score both orders of a pair and take the mean, in twice the time.
    #[serde(default, skip_serializing_if = "is_default")]
    pub both_orders: bool,
    /// This part of a score, 0 … 1, is the cosine of the teacher's vectors, the rest the cross-encoder's.
    /// The mean of two kinds of model is often better than either.
    #[serde(default, skip_serializing_if = "is_default")]
    pub teacher_share: f64,
    /// Cross-encoder and teacher run quantized, as [`Sts::quantized_teacher`].
    #[serde(default)]
    pub quantized_teacher: bool,
    /// As [`Training::precision`].
    #[serde(default, skip_serializing_if = "is_default")]
    pub precision: Precision,
}

/// Options of `export`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Export {
    /// Which model.
    #[serde(default)]
    pub model: Slot,
}

fn default_temperature() -> f32 {
    0.05
}

fn default_tau() -> f32 {
    0.1
}

fn default_pairs_batch() -> usize {
    16
}

fn is_default_pairs_batch(value: &usize) -> bool {
    *value == default_pairs_batch()
}

fn default_mined_sentences() -> usize {
    20_000
}

fn is_default_mined(value: &usize) -> bool {
    *value == default_mined_sentences()
}

impl Stage {
    /// The options of training, if it takes gradient steps.
    pub fn training(&self) -> Option<&Training> {
        match &self.kind {
            StageKind::Contrast(stage) => Some(&stage.training),
            StageKind::Sts(stage) => Some(&stage.training),
            StageKind::Distill(stage) => Some(&stage.training),
            StageKind::CrossEncoder(stage) => Some(&stage.training),
            _ => None,
        }
    }

    /// The same, to be changed.
    pub fn training_mut(&mut self) -> Option<&mut Training> {
        match &mut self.kind {
            StageKind::Contrast(stage) => Some(&mut stage.training),
            StageKind::Sts(stage) => Some(&mut stage.training),
            StageKind::Distill(stage) => Some(&mut stage.training),
            StageKind::CrossEncoder(stage) => Some(&mut stage.training),
            _ => None,
        }
    }

    /// Gradient steps; 0 of a stage that takes none.
    pub fn steps(&self) -> usize {
        self.training().map_or(0, |training| training.steps)
    }

    /// Names of the data that it reads.
    pub fn data(&self) -> &[String] {
        match &self.kind {
            StageKind::PruneVocabulary(stage) => &stage.data,
            StageKind::Center(stage) => &stage.data,
            StageKind::ShiftStates(stage) => &stage.data,
            StageKind::LabelPairs(stage) => &stage.data,
            StageKind::PickLayers(_) | StageKind::Widen(_) | StageKind::Export(_) => &[],
            _ => self.training().map_or(&[], |training| &training.data),
        }
    }

    /// The model that it works on.
    pub fn model(&self) -> Slot {
        match &self.kind {
            StageKind::PruneVocabulary(stage) => stage.model,
            StageKind::Center(stage) => stage.model,
            StageKind::ShiftStates(stage) => stage.model,
            StageKind::Export(stage) => stage.model,
            StageKind::PickLayers(_) | StageKind::Widen(_) | StageKind::LabelPairs(_) => {
                Slot::Student
            }
            _ => self.training().map_or(Slot::Student, |training| training.model),
        }
    }

    /// Widths to which sentence vectors are cut beside the whole.
    pub fn dimensions(&self) -> &[usize] {
        match &self.kind {
            StageKind::Contrast(stage) => &stage.own.dimensions,
            StageKind::Sts(stage) => &stage.own.dimensions,
            StageKind::Distill(stage) => &stage.own.dimensions,
            _ => &[],
        }
    }

    /// The model that it leaves behind, if any.
    pub fn writes(&self) -> Option<Slot> {
        match &self.kind {
            StageKind::PickLayers(_) | StageKind::Widen(_) => Some(Slot::Student),
            // A cross-encoder is neither; it stays in its stage's folder.
            StageKind::Export(_) | StageKind::CrossEncoder(_) | StageKind::LabelPairs(_) => None,
            _ => Some(self.model()),
        }
    }

    /// Whether it needs the model of `slot` as it was before. (The export reads its model too, but is never
    /// run from a packed folder, which is what this is asked for.)
    pub fn reads(&self, slot: Slot) -> bool {
        let teaches = slot == Slot::Teacher;
        match &self.kind {
            StageKind::Export(_) => false,
            StageKind::PickLayers(_) | StageKind::LabelPairs(_) => teaches,
            StageKind::Widen(_) => true,
            StageKind::Distill(_) => self.model() == slot || teaches,
            StageKind::Sts(stage) => {
                let taught = stage.own.teacher_weight > 0.0 || stage.own.pairs_teacher_weight > 0.0;
                self.model() == slot || teaches && taught && self.model() == Slot::Student
            }
            _ => self.model() == slot,
        }
    }

    /// Whether it trains a text's partners to be ranked as the teacher ranked them before it was trained.
    pub fn follows_untrained_teacher(&self) -> bool {
        matches!(&self.kind, StageKind::Sts(stage) if stage.own.pairs_teacher_weight > 0.0)
    }
}
