//! Running a packed folder.

use std::path::Path;
use std::time::Instant;

use candle_core::Device;

use super::contents::PackedRun;
use crate::error::{Error, Result};
use crate::files::make_folder;
use crate::train::recipe::{Recipe, Slot, StageKind};
use crate::train::report::duration::minutes;
use crate::train::report::metrics::Metrics;
use crate::train::run::Run;

/// What is left of the minutes for reading, evaluating and writing.
const TRAINED_SHARE: f64 = 0.96;

/// Runs a packed folder for about `time` minutes and leaves in `out` the weights of the last teacher
/// and student and the metrics. `out` is then a folder of the recipe's run: with data and teacher at
/// hand, `munjang train` goes on from it (to the export, say).
///
/// The minutes are shared among the stages as the recipe's own `minutes` are (or as their steps are,
/// where one has none); a stage that ends by its steps leaves its time to those after it.
///
/// # Errors
/// What goes wrong in a stage; the next call goes on from the last checkpoint.
pub fn run_packed(folder: &Path, time: f64, out: &Path, device: Device) -> Result<()> {
    if !(time > 0.0 && time.is_finite()) {
        return Err(Error::input_invalid(format!(
            "--minutes is {time}; expected a number above 0"
        )));
    }
    let started = Instant::now();
    let (recipe, packed) = PackedRun::read(folder)?;
    let begin = packed.begin();
    let run = Run::new(recipe, folder.to_owned(), folder.to_owned(), out.to_owned());
    let mut run = Run { device, packed: Some(packed), ..run };
    make_folder(out)?;
    run.check_fit(None)?;
    let shares = shares(&run.recipe);
    for index in begin..run.recipe.stages.len() {
        if matches!(run.recipe.stages[index].kind, StageKind::Export(_)) {
            continue;
        }
        let rest: f64 = shares[index..].iter().sum();
        let left = time * TRAINED_SHARE - started.elapsed().as_secs_f64() / 60.0;
        if let Some(training) = run.recipe.stages[index].training_mut() {
            training.minutes = Some((left * shares[index] / rest).max(1e-3));
        }
        run.run_stage(index)?;
    }
    clean_up(&run, begin)?;
    println!("done in {}", minutes(started.elapsed().as_secs_f64()));
    Ok(())
}

/// How the minutes are shared among the stages.
fn shares(recipe: &Recipe) -> Vec<f64> {
    let mut trained = recipe.stages.iter().filter_map(|stage| stage.training());
    let by_minutes = trained.all(|training| training.minutes.is_some());
    recipe
        .stages
        .iter()
        .map(|stage| match stage.training() {
            None => 0.0,
            Some(training) => match training.minutes {
                Some(minutes) if by_minutes => minutes,
                _ => (training.steps * training.batch) as f64,
            },
        })
        .collect()
}

/// Leaves the last model of each slot, the marks of what is done, and the metrics.
fn clean_up(run: &Run, begin: usize) -> Result<()> {
    let stages = &run.recipe.stages;
    let last = |slot: Slot| {
        stages.iter().enumerate().skip(begin).rfind(|(_, stage)| stage.writes() == Some(slot))
    };
    let kept: Vec<usize> = Slot::ALL.into_iter().filter_map(last).map(|found| found.0).collect();
    for (index, stage) in stages.iter().enumerate() {
        let folder = run.folder(stage);
        if index < begin || matches!(stage.kind, StageKind::Export(_)) || !folder.is_dir() {
            continue;
        }
        let cannot = |source| Error::io(format!("cannot clear {}", folder.display()), source);
        for entry in std::fs::read_dir(&folder).map_err(cannot)? {
            let path = entry.map_err(cannot)?.path();
            let name = path.file_name().unwrap_or_default();
            let keep = name == "done.json" || name == "model.safetensors" && kept.contains(&index);
            if !keep {
                std::fs::remove_file(&path).map_err(cannot)?;
            }
        }
        debug_assert_eq!(
            std::fs::read_to_string(folder.join("done.json")).ok(),
            Some(run.recipe.settings(stage))
        );
    }
    for curves in ["loss.svg", "scores.svg"] {
        let _ = std::fs::remove_file(run.out.join(curves));
    }
    let scores = Metrics::new(&run.out).read()?.len();
    eprintln!("{}: weights and {scores} lines of metrics", run.out.display());
    Ok(())
}
