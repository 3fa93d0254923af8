//! Recipes: TOML files that name the data, the stages in their order and every number of a run.
//!
//! A description only: nothing of the rest of the crate is known here. [`Recipe::parse`] reads and checks;
//! a stage is a name and a [`StageKind`], whose options are those of its kind and no others.

mod check;
mod data;
mod defaults;
mod error;
mod parse;
mod settings;
mod slot;
mod stage;
mod summary;
#[cfg(test)]
mod tests;
mod training;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use data::{DataKind, DataSource, EvalKind, EvalSet};
pub use error::RecipeError;
pub use slot::Slot;
pub use stage::{
    Center, Contrast, CrossEncoder, Distill, Export, LabelPairs, PickLayers, PruneVocabulary,
    ShiftStates, Stage, StageKind, Sts, StsLoss, Trained, Widen,
};
pub use training::{Average, Decay, Precision, Training};

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
    #[serde(rename = "stage", skip_deserializing)]
    pub stages: Vec<Stage>,
    /// The file that it was read from, as messages name it.
    #[serde(skip)]
    pub path: String,
}

fn default_max_tokens() -> usize {
    128
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

/// How token states become a sentence vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Pooling {
    /// The mean over all tokens.
    Mean,
    /// The first token.
    Cls,
}

impl Recipe {
    /// Where a stage stands, as `file:line: stage "name"`.
    pub fn place(&self, stage: &Stage) -> String {
        match stage.line {
            0 => format!("{}: stage {:?}", self.path, stage.name),
            line => format!("{}:{line}: stage {:?}", self.path, stage.name),
        }
    }

    /// The `cross_encoder` stage that scores for the `label_pairs` stage `index`.
    pub fn scorer(&self, index: usize) -> Option<usize> {
        let StageKind::LabelPairs(LabelPairs { scorer: wanted, .. }) = &self.stages[index].kind
        else {
            return None;
        };
        self.stages[..index].iter().rposition(|stage| {
            let scores = matches!(stage.kind, StageKind::CrossEncoder(_));
            scores && wanted.as_ref().is_none_or(|name| *name == stage.name)
        })
    }

    /// The number of the stage called `name`.
    ///
    /// # Errors
    /// A message that lists the names there are.
    pub fn stage(&self, name: &str) -> Result<usize, RecipeError> {
        self.stages.iter().position(|stage| stage.name == name).ok_or_else(|| {
            let names: Vec<&str> = self.stages.iter().map(|stage| stage.name.as_str()).collect();
            RecipeError::request(format!(
                "the recipe has no stage {name:?}; its stages are {}",
                names.join(", ")
            ))
        })
    }

    /// How the model of `slot` is used.
    pub fn model_use(&self, slot: Slot) -> &ModelUse {
        match slot {
            Slot::Teacher => &self.teacher,
            Slot::Student => &self.student,
        }
    }
}
