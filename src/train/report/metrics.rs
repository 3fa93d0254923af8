//! `metrics.jsonl`: one JSON object a line, in the order in which things happened.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::files::write_atomically;

/// A line of `metrics.jsonl`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Metric {
    /// The mean over the last steps.
    Train {
        /// Stage name.
        stage: String,
        /// Steps done.
        step: usize,
        /// Training time of the stage so far.
        seconds: f64,
        /// Mean loss.
        loss: f64,
        /// Of the last of these steps.
        learning_rate: f64,
        /// Mean global norm of the gradients.
        grad_norm: f64,
        /// Sentences per second.
        speed: f64,
    },
    /// A look at an evaluation set.
    Score {
        /// Stage name.
        stage: String,
        /// Steps done.
        step: usize,
        /// Training time of the stage so far.
        seconds: f64,
        /// `teacher` or `student`, or `file` for the exported one.
        model: String,
        /// Name of the set.
        set: String,
        /// `spearman`, `pearson` (both × 100) or `ndcg@10` (× 100).
        metric: String,
        /// The value.
        value: f64,
    },
    /// A stage is done.
    Done {
        /// Stage name.
        stage: String,
        /// Steps done.
        step: usize,
        /// Training time of the stage.
        seconds: f64,
    },
}

impl Metric {
    fn stage(&self) -> &str {
        match self {
            Metric::Train { stage, .. }
            | Metric::Score { stage, .. }
            | Metric::Done { stage, .. } => stage,
        }
    }

    fn step(&self) -> usize {
        match self {
            Metric::Train { step, .. } | Metric::Score { step, .. } | Metric::Done { step, .. } => {
                *step
            }
        }
    }
}

/// The file.
pub struct Metrics {
    path: PathBuf,
}

impl Metrics {
    /// The metrics of the run in `out`.
    pub fn new(out: &Path) -> Self {
        Metrics { path: out.join("metrics.jsonl") }
    }

    /// Appends a line.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn push(&self, metric: &Metric) -> Result<()> {
        let mut line = serde_json::to_string(metric).expect("a metric becomes JSON");
        line.push('\n');
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.path)
            .and_then(|mut file| file.write_all(line.as_bytes()))
            .map_err(|source| Error::io(format!("cannot write {}", self.path.display()), source))
    }

    /// All lines; a last line that was cut by a crash is passed over.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(&self) -> Result<Vec<Metric>> {
        if !self.path.exists() {
            return Ok(Vec::new());
        }
        let text = std::fs::read_to_string(&self.path)
            .map_err(|source| Error::io(format!("cannot read {}", self.path.display()), source))?;
        Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
    }

    /// Forgets what a stage did after step `step`: it is about to be done again.
    ///
    /// # Errors
    /// When it cannot be rewritten.
    pub fn rewind(&self, stage: &str, step: usize) -> Result<()> {
        if !self.path.exists() {
            return Ok(());
        }
        let mut text = String::new();
        for metric in self.read()? {
            if metric.stage() != stage || metric.step() <= step && step > 0 {
                text += &serde_json::to_string(&metric).expect("a metric becomes JSON");
                text.push('\n');
            }
        }
        write_atomically(&self.path, text.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rewinding_forgets_only_later_steps_of_the_stage() {
        let folder = tempfile::tempdir().unwrap();
        let metrics = Metrics::new(folder.path());
        let done = |stage: &str, step| Metric::Done { stage: stage.into(), step, seconds: 0.5 };
        for (stage, step) in [("a", 9), ("b", 1), ("b", 2), ("b", 3)] {
            metrics.push(&done(stage, step)).unwrap();
        }
        metrics.rewind("b", 2).unwrap();
        assert_eq!(metrics.read().unwrap(), [done("a", 9), done("b", 1), done("b", 2)]);
        metrics.rewind("b", 0).unwrap();
        assert_eq!(metrics.read().unwrap(), [done("a", 9)]);
    }
}
