//! `munjang train`.

pub use crate::train::cli::{TrainArgs, run};
