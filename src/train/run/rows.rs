//! The rows that stages train on and are measured by.

use super::place::Run;
use crate::error::Result;
use crate::train::data::{EvalSentences, Rows};
use crate::train::recipe::{EvalSet, Stage};
use crate::train::report::evaluation::EvalRows;

impl Run {
    /// The training rows of a stage.
    ///
    /// # Errors
    /// As [`Rows::read`].
    pub fn rows(&self, stage: &Stage) -> Result<Rows> {
        if let Some(packed) = &self.packed {
            return packed.rows(&self.recipe, stage, self.folders());
        }
        let evaluation = EvalSentences::read(&self.recipe, &self.data)?;
        Rows::read(&self.recipe, stage.data(), self.folders(), &evaluation)
    }

    /// The evaluation sets that are looked at during training; names of missing files go to
    /// `missing`.
    ///
    /// # Errors
    /// As [`EvalRows::read`].
    pub(in crate::train) fn evaluation_rows(
        &self,
        missing: &mut Vec<String>,
    ) -> Result<Vec<(EvalSet, EvalRows)>> {
        if let Some(packed) = &self.packed {
            return Ok(packed.evaluation_rows());
        }
        let sets = self.recipe.evaluate.iter().filter(|set| !set.final_only);
        EvalRows::read(sets, &self.data, missing)
    }
}
