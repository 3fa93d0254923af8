//! The models of a run as they are before a stage.

use std::path::Path;

use super::float_model::read_float_model;
use super::place::Run;
use crate::bytes::AlignedBytes;
use crate::config;
use crate::convert::{ConvertOptions, Manifest, read_checkpoint};
use crate::error::{Error, Result};
use crate::format::ModelFile;
use crate::train::packed::contents::PackedRun;
use crate::train::recipe::{Pooling, Slot, Stage};
use crate::weights::FloatModel;

/// A recipe's word for it as the model's.
pub(in crate::train) fn pooling(asked: Option<Pooling>) -> Option<config::Pooling> {
    asked.map(|pooling| match pooling {
        Pooling::Mean => config::Pooling::Mean,
        Pooling::Cls => config::Pooling::Cls,
    })
}

impl Run {
    /// The model of `slot` as it is before stage `index`.
    ///
    /// # Errors
    /// `input_invalid` if an earlier stage that makes it has not run.
    pub fn model_before(&self, index: usize, slot: Slot) -> Result<FloatModel> {
        // What came before a packed run began is in the packed models.
        let first = self.packed.as_ref().map_or(0, PackedRun::begin).min(index);
        let made_by = (first..index).rev().find(|&earlier| {
            self.recipe.stages[earlier].writes() == Some(slot) && !self.left_out(earlier)
        });
        let Some(stage) = made_by.map(|earlier| &self.recipe.stages[earlier]) else {
            return self.first_model(index, slot);
        };
        let file = self.model_file(stage);
        if !file.exists() {
            return Err(Error::input_invalid(format!(
                "stage {:?} needs the {} of stage {:?}, which has not run in {}; run it first",
                self.recipe.stages[index].name,
                slot.name(),
                stage.name,
                self.out.display()
            )));
        }
        let mut model = read_float_model(&file)?;
        model.config.prefix = self.recipe.model_use(slot).prefix.clone();
        Ok(model)
    }

    /// The model of `slot` that no stage before `index` has made.
    fn first_model(&self, index: usize, slot: Slot) -> Result<FloatModel> {
        if let Some(packed) = &self.packed {
            return packed.model(slot);
        }
        let folder = match (slot, &self.student) {
            (Slot::Teacher, _) => &self.teacher,
            (Slot::Student, Some(folder)) if self.from.is_some() => {
                return self.exported_student(folder, index);
            }
            (Slot::Student, Some(folder)) => folder,
            (Slot::Student, None) => {
                return Err(Error::input_invalid(
                    "no stage makes the student: give its checkpoint with --student DIR, or put a \
                     pick_layers stage before",
                ));
            }
        };
        let how = self.recipe.model_use(slot);
        let (prefix, pooling) = (how.prefix.clone(), pooling(how.pooling));
        read_checkpoint(
            folder,
            &ConvertOptions { prefix: Some(prefix), pooling, ..ConvertOptions::default() },
        )
    }

    /// The stage before which no stage has trained the teacher, for stage `index`.
    ///
    /// # Errors
    /// `input_invalid` if a packed run begins later.
    pub(in crate::train) fn untrained(&self, index: usize) -> Result<usize> {
        let trains =
            |stage: &Stage| stage.training().is_some() && stage.writes() == Some(Slot::Teacher);
        let first = self.recipe.stages.iter().position(trains).map_or(index, |at| at.min(index));
        match &self.packed {
            Some(packed) if packed.begin() > first => Err(Error::input_invalid(
                "pairs_teacher_weight needs the teacher as it was before it was trained, which the \
                 packed folder does not have; pack before the teacher's first stage that trains",
            )),
            _ => Ok(first),
        }
    }

    /// The model that the manifest in `folder` names, as the student before stage `index`. Model files
    /// keep a compact form of the tokenizer, so the whole one is the teacher's.
    fn exported_student(&self, folder: &Path, index: usize) -> Result<FloatModel> {
        let (file, bytes) = Manifest::read_model(&folder.join("manifest.json"))?;
        let exported = ModelFile::parse(AlignedBytes::from(bytes))?;
        let tokenizer = self.model_before(index, Slot::Teacher)?.tokenizer_json;
        if exported.tokenizer() != &*crate::tokenizer::compact(&tokenizer) {
            return Err(Error::input_invalid(format!(
                "{} has another tokenizer than the teacher at stage {:?}; go on from a model that was \
                 exported with the same vocabulary, or without --from",
                file.display(),
                self.recipe.stages[index].name
            )));
        }
        let mut model = exported.to_float(tokenizer);
        model.config.prefix = self.recipe.student.prefix.clone();
        Ok(model)
    }
}
