//! Sentences that stand for the language where a mean is taken.

use crate::error::Result;
use crate::train::data::{Purpose, Rows, TokenStore};
use crate::train::recipe::Stage;
use crate::train::run::Run;
use crate::weights::FloatModel;

/// So many of them.
const SENTENCES: usize = 1024;

/// All texts, row after row.
pub(super) fn all_texts(rows: &Rows) -> Vec<&str> {
    rows.rows.iter().flat_map(|row| row.texts.iter().map(String::as_str)).collect()
}

/// Texts of the stage's data, evenly taken, as `model` reads them.
pub(super) fn sample(run: &Run, stage: &Stage, model: &FloatModel) -> Result<TokenStore> {
    let rows = run.rows(stage)?;
    let texts = all_texts(&rows);
    let every = texts.len().div_ceil(SENTENCES);
    run.store(model, stage.model(), Purpose::Training, texts.into_iter().step_by(every))
}
