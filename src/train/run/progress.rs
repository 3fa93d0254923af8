//! What a stage shows while it trains.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::error::Result;
use crate::train::recipe::Stage;
use crate::train::report::duration::minutes;
use crate::train::report::metrics::Metric;

/// A line on standard error this often where it is not a terminal.
const LINE_TIME: Duration = Duration::from_secs(30);

/// What one step gave.
pub(super) struct Taken {
    pub(super) loss: f64,
    pub(super) grad_norm: f64,
    pub(super) sentences: usize,
}

/// Sums since the last line of metrics.
#[derive(Default)]
pub(super) struct Window {
    pub(super) steps: usize,
    loss: f64,
    grad_norm: f64,
    sentences: usize,
    time: Duration,
}

impl Window {
    pub(super) fn add(&mut self, taken: Taken, time: Duration) {
        self.steps += 1;
        self.loss += taken.loss;
        self.grad_norm += taken.grad_norm;
        self.sentences += taken.sentences;
        self.time += time;
    }

    pub(super) fn mean_loss(&self) -> f64 {
        self.loss / self.steps as f64
    }

    fn speed(&self) -> f64 {
        self.sentences as f64 / self.time.as_secs_f64().max(1e-9)
    }

    pub(super) fn metric(
        &self,
        stage: &str,
        step: usize,
        seconds: f64,
        learning_rate: f64,
    ) -> Metric {
        Metric::Train {
            stage: stage.to_owned(),
            step,
            seconds,
            loss: self.mean_loss(),
            learning_rate,
            grad_norm: self.grad_norm / self.steps as f64,
            speed: self.speed(),
        }
    }
}

/// A bar on a terminal, a line now and then elsewhere.
pub(super) struct Progress {
    bar: ProgressBar,
    name: String,
    steps: usize,
    first: usize,
    begin: Instant,
    line: Instant,
    terminal: bool,
}

impl Progress {
    pub(super) fn new(stage: &Stage, step: usize) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let bar = if terminal {
            let style = ProgressStyle::with_template("{prefix} {bar:30} {pos}/{len}  {msg}");
            ProgressBar::new(stage.steps() as u64)
                .with_style(style.expect("the template is well formed"))
        } else {
            ProgressBar::hidden()
        };
        bar.set_prefix(stage.name.clone());
        bar.set_position(step as u64);
        let now = Instant::now();
        Progress {
            bar,
            name: stage.name.clone(),
            steps: stage.steps(),
            first: step,
            begin: now,
            line: now,
            terminal,
        }
    }

    pub(super) fn step(&mut self, step: usize, window: &Window, limit: Option<(f64, f64)>) {
        let per_step = self.begin.elapsed().as_secs_f64() / (step - self.first).max(1) as f64;
        let mut left = per_step * self.steps.saturating_sub(step) as f64;
        if let Some((seconds, limit)) = limit {
            left = left.min((limit - seconds).max(0.0));
        }
        let message = format!(
            "loss {:.4}, {:.0} sentences/s, {} left",
            window.mean_loss(),
            window.speed(),
            minutes(left)
        );
        if self.terminal {
            self.bar.set_message(message);
            self.bar.set_position(step as u64);
        } else if self.line.elapsed() >= LINE_TIME {
            self.line = Instant::now();
            eprintln!("{} step {step}/{}: {message}", self.name, self.steps);
        }
    }

    pub(super) fn pause(&self, work: impl FnOnce() -> Result<()>) -> Result<()> {
        self.bar.suspend(work)
    }

    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
