//! The optimizer: AdamW, learning-rate schedules and averages of weights.

pub mod adamw;
pub mod average;
mod in_place;
pub mod schedule;
pub(in crate::train) mod update;
