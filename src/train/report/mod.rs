//! What a run tells: metrics, curves, scores and the model card.

pub(super) mod card;
pub(super) mod duration;
pub(super) mod estimate;
pub mod evaluation;
pub mod metrics;
pub mod plot;
mod probes;
pub mod retrieval;
