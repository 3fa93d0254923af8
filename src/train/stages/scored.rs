//! Rows that are scored pairs.

use crate::error::{Error, Result};
use crate::train::data::{Rows, Target, TokenStore};
use crate::train::recipe::Stage;

/// Pairs of `rows` as texts of `store` and scores.
pub(super) fn scored_pairs(
    stage: &Stage,
    rows: &Rows,
    store: &TokenStore,
) -> Result<Vec<(u32, u32, f32)>> {
    rows.rows
        .iter()
        .enumerate()
        .map(|(at, row)| match (&row.target, &row.texts[..]) {
            (Target::Score(score), [a, b]) => {
                Ok((store.index(a) as u32, store.index(b) as u32, *score))
            }
            _ => Err(wrong_kind(stage, rows, at, "sts")),
        })
        .collect()
}

/// What row `at` is not.
pub(super) fn wrong_kind(stage: &Stage, rows: &Rows, at: usize, expected: &str) -> Error {
    Error::data_invalid(format!(
        "{}: stage {:?} needs data of kind {expected}",
        rows.place(at),
        stage.name
    ))
}
