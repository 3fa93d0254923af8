//! The stages of a recipe, one after another, each leaving its model in its own folder: a file for each
//! kind, named as recipes name it, and what several of them share.

#[cfg(test)]
mod agreement;
mod center;
mod contrast;
mod cross_encoder;
mod distill;
mod export;
mod label_pairs;
mod pair_list;
mod pair_sequences;
mod partners;
pub mod pick_layers;
pub mod prune_vocabulary;
mod related;
mod sample;
mod scored;
pub mod shift_states;
mod sts;
mod teacher;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod units;
mod unusual_texts;
mod widen;

use std::time::Instant;

use super::data::Rows;
use super::nn::bert::BertModel;
use super::recipe::StageKind;
use super::report::duration::minutes;
use super::report::metrics::{Metric, Metrics};
use super::report::plot;
use super::run::Run;
use super::run::float_model::write_float_model;
use super::run::training::{Task, other_settings, train};
use crate::error::Result;
use crate::files::{make_folder, write_atomically};
use crate::weights::FloatModel;

impl Run {
    /// Runs all stages that are not done, or only the one called `only`.
    ///
    /// # Errors
    /// What goes wrong in a stage; what was done before stays, and the next call goes on from the
    /// last checkpoint.
    pub fn run(&self, only: Option<&str>) -> Result<()> {
        make_folder(&self.out)?;
        let chosen = only.map(|name| self.recipe.stage(name)).transpose()?;
        self.check_fit(chosen)?;
        for index in 0..self.recipe.stages.len() {
            if chosen.is_some_and(|chosen| chosen != index) || self.left_out(index) {
                continue;
            }
            self.run_stage(index)?;
        }
        Ok(())
    }

    /// Runs stage `index` if it is not done.
    ///
    /// # Errors
    /// What goes wrong in it, and where in the recipe it stands.
    pub(super) fn run_stage(&self, index: usize) -> Result<()> {
        self.run_unless_done(index).map_err(|error| self.in_stage(index, error))
    }

    fn run_unless_done(&self, index: usize) -> Result<()> {
        let stage = &self.recipe.stages[index];
        let folder = self.folder(stage);
        let settings = self.recipe.settings(stage);
        let done = folder.join("done.json");
        if let Ok(text) = std::fs::read_to_string(&done) {
            if text != settings {
                return Err(other_settings(self, stage, &done));
            }
            eprintln!("{}: done before", stage.name);
            return Ok(());
        }
        make_folder(&folder)?;
        let metrics = Metrics::new(&self.out);
        let (steps, seconds) = carry_out(self, index, &settings, &metrics)?;
        metrics.push(&Metric::Done { stage: stage.name.clone(), step: steps, seconds })?;
        plot::write(&self.out, &metrics.read()?)?;
        write_atomically(&done, settings.as_bytes())?;
        eprintln!("{}: done in {}", stage.name, minutes(seconds));
        Ok(())
    }
}

/// Does what stage `index` is for; the steps that it took, and the seconds.
fn carry_out(run: &Run, index: usize, settings: &str, metrics: &Metrics) -> Result<(usize, f64)> {
    let stage = &run.recipe.stages[index];
    let begin = Instant::now();
    if stage.training().is_none() {
        metrics.rewind(&stage.name, 0)?;
    }
    let model = match &stage.kind {
        StageKind::PruneVocabulary(options) => Some(prune_vocabulary::run(run, index, options)?),
        StageKind::Center(_) => Some(center::run(run, index)?),
        StageKind::ShiftStates(_) => Some(shift_states::run(run, index)?),
        StageKind::PickLayers(options) => Some(pick_layers::run(run, index, options)?),
        StageKind::Widen(options) => Some(widen::run(run, index, options)?),
        StageKind::LabelPairs(options) => {
            label_pairs::run(run, index, options, settings)?;
            None
        }
        StageKind::Export(_) => {
            export::export(run, index, metrics)?;
            None
        }
        StageKind::Contrast(_)
        | StageKind::Sts(_)
        | StageKind::Distill(_)
        | StageKind::CrossEncoder(_) => {
            return train(run, index, settings, metrics, |rows, float, model| {
                task(run, index, rows, float, model)
            });
        }
    };
    if let Some(model) = model {
        write_float_model(&run.model_file(stage), &model)?;
    }
    Ok((0, begin.elapsed().as_secs_f64()))
}

/// What the training stage `index` does with its batches; it may add weights to `model`.
fn task(
    run: &Run,
    index: usize,
    rows: Rows,
    float: &FloatModel,
    model: &mut BertModel,
) -> Result<Box<dyn Task>> {
    Ok(match &run.recipe.stages[index].kind {
        StageKind::Contrast(options) => {
            Box::new(contrast::ContrastTask::new(run, index, options, rows, float)?)
        }
        StageKind::Sts(options) => Box::new(sts::StsTask::new(run, index, options, rows, float)?),
        StageKind::Distill(options) => {
            Box::new(distill::DistillTask::new(run, index, options, rows, float, model)?)
        }
        StageKind::CrossEncoder(_) => {
            Box::new(cross_encoder::CrossTask::new(run, index, rows, float, model)?)
        }
        _ => unreachable!("only stages that train have tasks"),
    })
}
