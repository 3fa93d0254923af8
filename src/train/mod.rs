//! Training: the recipe, the stages that it names, and the networks that they train.
//!
//! [`cli`] is `munjang train`; a [`recipe::Recipe`] says what is done and a [`run::Run`] does it. The rest
//! is in the order in which it builds on one another: `data` (rows and token ids), `nn` (a differentiable
//! BERT), `optim`, `report` (metrics, scores, the card), `run` (models before a stage, the loop of steps),
//! `stages` (one file for each kind) and `packed` (a run to be carried elsewhere).

pub mod cli;
mod data;
mod error;
#[cfg(test)]
mod golden;
mod nn;
mod optim;
mod packed;
pub mod recipe;
mod report;
pub mod run;
mod seed;
mod stages;

/// What tests and benchmarks of this repository reach into; no part of the public interface.
#[doc(hidden)]
pub mod internals {
    pub use super::data::{Folders, Purpose, Rows, TokenStore};
    pub use super::nn::batch::TokenBatch;
    pub use super::nn::bert::BertModel;
    pub use super::nn::losses;
    pub use super::nn::options::{ForwardOptions, Freeze};
    pub use super::nn::random::random_float_model;
    pub use super::optim::adamw::{AdamW, AdamWConfig};
    pub use super::packed::{PackedRun, pack, run_packed};
    pub use super::report::metrics::{Metric, Metrics};
    pub use super::run::checkpoint::Checkpoint;
    pub use super::run::float_model::read_float_model;
    pub use super::run::tensor_file::TensorFile;
    pub use super::stages::prune_vocabulary::prune_vocabulary;
    pub use super::stages::shift_states::shift_states;
}
