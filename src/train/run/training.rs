//! The loop of steps that every training stage runs through.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use candle_core::Tensor;

use super::checkpoint::Checkpoint;
use super::clock::Clock;
use super::float_model::write_float_model;
use super::place::Run;
use super::progress::{Progress, Taken, Window};
use crate::error::{Error, ErrorKind, Result};
use crate::train::data::{Purpose, Rows, batches};
use crate::train::nn::bert::BertModel;
use crate::train::nn::options::{Dropout, FakeQuant, ForwardOptions, Freeze};
use crate::train::nn::output::ForwardOutput;
use crate::train::nn::rounding::round_weights;
use crate::train::optim::adamw::{AdamW, AdamWConfig};
use crate::train::optim::average::WeightAverage;
use crate::train::optim::schedule::Schedule;
use crate::train::recipe::{Slot, Stage, Training};
use crate::train::report::evaluation::{Evaluation, Score};
use crate::train::report::metrics::{Metric, Metrics};
use crate::train::report::plot;
use crate::train::seed::seed_of;
use crate::weights::FloatModel;

/// A checkpoint at least this often.
pub(in crate::train) const CHECKPOINT_TIME: Duration = Duration::from_secs(120);
/// A line in the metrics, the mean of so many steps.
const METRIC_STEPS: usize = 20;

/// The loss of a batch, what it was computed from, and the number of sentences.
pub(in crate::train) type Loss = (Tensor, Vec<ForwardOutput>, usize);

/// What a training stage does with a batch.
pub(in crate::train) trait Task {
    /// Tokens of each example, for sorting.
    fn lengths(&self) -> Vec<usize>;
    /// Where example `index` comes from.
    fn place(&self, index: usize) -> String;
    /// The loss of the examples `batch`.
    fn step(&self, model: &BertModel, batch: &[u32], options: &ForwardOptions) -> Result<Loss>;
    /// Scores on the evaluation sets of a task that trains something else than sentence vectors.
    fn scores(&self, _: &BertModel, _: Option<FakeQuant>) -> Result<Option<Vec<Score>>> {
        Ok(None)
    }
    /// What metrics call the model of `slot` that is trained.
    fn model_name(&self, slot: Slot) -> &'static str {
        slot.name()
    }
    /// Leaves what later stages need besides the encoder's weights.
    fn leave(&self, _: &BertModel, _folder: &Path) -> Result<()> {
        Ok(())
    }
}

/// What a stage leaves as it is.
pub(in crate::train) fn frozen(training: &Training) -> Freeze {
    Freeze {
        word_embeddings: training.freeze_word_embeddings || training.freeze_embeddings,
        other_embeddings: training.freeze_embeddings,
        lowest_layers: training.freeze_layers,
    }
}

/// How a stage rounds while it trains.
pub(in crate::train) fn fake_quant(training: &Training) -> Option<FakeQuant> {
    training.quantize_bits.map(|bits| FakeQuant {
        weight_max: ((1i16 << (bits - 1)) - 1) as i8,
        ..FakeQuant::shipped()
    })
}

/// An error of a stage that was run with other settings than `file` says.
pub(in crate::train) fn other_settings(run: &Run, stage: &Stage, file: &Path) -> Error {
    Error::input_invalid(format!(
        "stage {:?} ran with other settings ({}); go on with the recipe of then, choose another --out, \
         or delete {}",
        stage.name,
        file.display(),
        run.folder(stage).display()
    ))
}

/// Trains the model of stage `index` and writes it into the stage's folder; what is done with a batch is
/// said by the task that `make_task` gives, which may add weights to the model. Returns the steps done and
/// the seconds that they took.
pub(in crate::train) fn train(
    run: &Run,
    index: usize,
    settings: &str,
    metrics: &Metrics,
    make_task: impl FnOnce(Rows, &FloatModel, &mut BertModel) -> Result<Box<dyn Task>>,
) -> Result<(usize, f64)> {
    let mut trainer = Trainer::new(run, index, settings, metrics, make_task)?;
    trainer.resume()?;
    trainer.run_steps()?;
    trainer.finish()
}

/// A stage in training.
struct Trainer<'a> {
    run: &'a Run,
    stage: &'a Stage,
    training: &'a Training,
    settings: &'a str,
    metrics: &'a Metrics,
    task: Box<dyn Task>,
    evaluation: Evaluation,
    model: BertModel,
    optimizer: AdamW,
    average: Option<WeightAverage>,
    quantize: Option<FakeQuant>,
    schedule: Schedule,
    order: Order,
    clock: Clock,
    /// Steps done.
    step: usize,
}

impl<'a> Trainer<'a> {
    fn new(
        run: &'a Run,
        index: usize,
        settings: &'a str,
        metrics: &'a Metrics,
        make_task: impl FnOnce(Rows, &FloatModel, &mut BertModel) -> Result<Box<dyn Task>>,
    ) -> Result<Self> {
        let stage = &run.recipe.stages[index];
        let training = stage.training().expect("only stages that train come here");
        let float = run.model_before(index, training.model)?;
        let mut model = BertModel::from_float_model(&float, &run.device)?;
        model.use_precision(training.precision);
        model.freeze(frozen(training))?;
        eprintln!("{}: reading data", stage.name);
        let rows = run.rows(stage)?;
        let task = make_task(rows, &float, &mut model)?;
        let mut missing = Vec::new();
        let evaluation = Evaluation::new(run.evaluation_rows(&mut missing)?, |texts| {
            run.store(&float, training.model, Purpose::Evaluation, texts.iter().copied())
        })?;
        for file in missing {
            eprintln!("{}: {file} is not in {}; not evaluated", stage.name, run.data.display());
        }
        let seed = seed_of(run.recipe.seed, &stage.name, 0);
        let order = Order::new(task.lengths(), training.batch, seed);
        let (all, trainable) = model.parameters().count();
        eprintln!(
            "{}: {} examples, {} batches of {} a pass, {trainable} of {all} parameters trained",
            stage.name,
            order.lengths.len(),
            order.per_pass,
            order.batch,
        );
        let schedule = Schedule {
            peak: training.learning_rate,
            warmup_steps: (training.warmup * training.steps as f64).round() as usize,
            total_steps: training.steps,
            decay: training.decay,
            final_fraction: training.final_fraction,
        };
        let config = AdamWConfig { weight_decay: training.weight_decay, ..AdamWConfig::default() };
        Ok(Trainer {
            run,
            stage,
            training,
            settings,
            metrics,
            task,
            evaluation,
            model,
            optimizer: AdamW::new(config)?,
            average: training.average.map(|average| WeightAverage::new(average.decay)),
            quantize: fake_quant(training),
            schedule,
            order,
            clock: Clock::new(0.0),
            step: 0,
        })
    }

    fn checkpoint_file(&self) -> PathBuf {
        self.run.folder(self.stage).join("checkpoint.safetensors")
    }

    /// Goes on from the stage's checkpoint, if there is one.
    fn resume(&mut self) -> Result<()> {
        let file = self.checkpoint_file();
        if file.exists() {
            let checkpoint = Checkpoint::read(&file)?;
            if checkpoint.settings != self.settings {
                return Err(other_settings(self.run, self.stage, &file));
            }
            let mut weights = self.model.parameters().to_tensors()?;
            for (name, tensor) in &checkpoint.tensors {
                if let Some(name) = name.strip_prefix("model.") {
                    weights.insert(name.to_owned(), tensor.clone());
                }
            }
            self.model.parameters().load(&weights)?;
            self.optimizer.load_state(self.model.parameters(), &checkpoint.tensors)?;
            if let Some(average) = &mut self.average {
                average.load_state(self.model.parameters(), &checkpoint.tensors)?;
            }
            (self.step, self.clock) = (checkpoint.step, Clock::new(checkpoint.seconds));
            eprintln!("{}: going on from step {}", self.stage.name, self.step);
        }
        self.metrics.rewind(&self.stage.name, self.step)
    }

    fn save(&mut self) -> Result<()> {
        let mut tensors = HashMap::new();
        for parameter in self.model.parameters().iter().filter(|parameter| parameter.trainable) {
            let value = parameter.var.as_detached_tensor();
            tensors.insert(format!("model.{}", parameter.name), value);
        }
        tensors.extend(self.optimizer.state(self.model.parameters())?);
        if let Some(average) = &self.average {
            tensors.extend(average.state()?);
        }
        let (settings, step) = (self.settings.to_owned(), self.step);
        let seconds = self.clock.seconds();
        Checkpoint { settings, step, seconds, tensors }.write(&self.checkpoint_file())
    }

    /// Measures the model as it is; `what` says how it is not the stage's final one.
    fn evaluate(&self, seconds: f64, what: &str) -> Result<()> {
        let scores = match self.task.scores(&self.model, self.quantize)? {
            Some(scores) => scores,
            None => self.evaluation.run(&self.model, self.quantize, self.stage.dimensions())?,
        };
        let mut line = String::new();
        for score in scores {
            line += &format!("  {} {} {:.2}", score.set, score.metric, score.value);
            self.metrics.push(&Metric::Score {
                stage: self.stage.name.clone(),
                step: self.step,
                seconds,
                model: format!("{}{what}", self.task.model_name(self.training.model)),
                set: score.set,
                metric: score.metric,
                value: score.value,
            })?;
        }
        if !line.is_empty() {
            eprintln!("{} step {}{what}:{line}", self.stage.name, self.step);
        }
        Ok(())
    }

    fn run_steps(&mut self) -> Result<()> {
        let (stage, training) = (self.stage, self.training);
        self.clock.go_on();
        let limit = training.minutes.map(|minutes| minutes * 60.0);
        let mut progress = Progress::new(stage, self.step);
        let mut window = Window::default();
        let mut saved = Instant::now();
        let mut due = false;
        if self.step == 0 && training.evaluate_every.is_some() {
            self.evaluate(0.0, "")?;
        }
        loop {
            let by_time = limit.map_or(0.0, |limit| self.clock.seconds() / limit);
            if self.step >= training.steps || by_time >= 1.0 {
                break;
            }
            // The schedule goes by steps or by time, whichever is further.
            let place = self.step.max((by_time * training.steps as f64) as usize);
            let (started, rate) = (Instant::now(), self.schedule.learning_rate(place));
            let taken = self.take_step(rate, due)?;
            if due {
                (due, saved) = (false, Instant::now());
            }
            self.average_weights(place as f64 / training.steps as f64)?;
            window.add(taken, started.elapsed());
            let seconds = self.clock.seconds();
            progress.step(self.step, &window, limit.map(|limit| (seconds, limit)));
            if window.steps == METRIC_STEPS || self.step == training.steps {
                self.metrics.push(&window.metric(&stage.name, self.step, seconds, rate))?;
                window = Window::default();
            }
            let every = |every: Option<usize>| every.is_some_and(|n| self.step % n.max(1) == 0);
            if every(training.evaluate_every) && self.step < training.steps {
                progress.pause(|| self.evaluate(seconds, ""))?;
                plot::write(&self.run.out, &self.metrics.read()?)?;
            }
            due |= every(training.checkpoint_every) || saved.elapsed() >= CHECKPOINT_TIME;
        }
        progress.finish();
        Ok(())
    }

    /// One step at the learning rate `rate`. With `save` the state before it is kept, once it is known to
    /// have a loss and gradients.
    fn take_step(&mut self, rate: f64, save: bool) -> Result<Taken> {
        let (batch, dropout) = (self.order.batch(self.step), self.training.dropout);
        let seed = seed_of(self.order.seed, "dropout", self.step as u64);
        let options = ForwardOptions {
            dropout: (dropout > 0.0).then_some(Dropout {
                hidden: dropout,
                attention: dropout,
                seed,
            }),
            quantize: self.quantize,
            ..ForwardOptions::training()
        };
        let step = self.task.step(&self.model, &batch, &options);
        let (loss, outputs, sentences) = step.map_err(|error| self.blame(&batch, error))?;
        let value = f64::from(loss.detach().to_scalar::<f32>()?);
        let gradients = self.model.backward(&loss, outputs);
        let gradients = gradients.map_err(|error| self.blame(&batch, error))?;
        if save {
            self.save()?;
        }
        let moved = self.optimizer.step(self.model.parameters(), &gradients, rate);
        let stats = moved.map_err(|error| self.blame(&batch, error))?;
        self.step += 1;
        Ok(Taken { loss: value, grad_norm: f64::from(stats.grad_norm), sentences })
    }

    /// Names the rows of a batch that left the finite numbers.
    fn blame(&self, batch: &[u32], error: Error) -> Error {
        if error.kind() != ErrorKind::NonFinite {
            return error;
        }
        let first: Vec<String> =
            batch.iter().take(3).map(|&index| self.task.place(index as usize)).collect();
        Error::non_finite(format!(
            "stage {:?}, step {}: {error:#}; the batch begins with {}. The last good checkpoint is \
             kept: lower the learning rate, or look at these rows",
            self.stage.name,
            self.step,
            first.join(", ")
        ))
    }

    /// Takes the weights into the average where that is due, at this `share` of the stage.
    fn average_weights(&mut self, share: f64) -> Result<()> {
        if let (Some(average), Some(how)) = (&mut self.average, self.training.average)
            && share >= how.start
            && self.step % how.every.max(1) == 0
        {
            average.update(self.model.parameters())?;
        }
        Ok(())
    }

    /// Leaves the stage's model.
    fn finish(mut self) -> Result<(usize, f64)> {
        self.model.parameters().check_finite()?;
        let seconds = self.clock.seconds();
        self.save()?;
        if let Some(average) = self.average.take().filter(|average| average.updates() > 0) {
            self.evaluate(seconds, " before averaging")?;
            let averaged = average.tensors(self.model.parameters())?;
            self.model.parameters().load(&averaged)?;
        }
        self.evaluate(seconds, "")?;
        self.task.leave(&self.model, &self.run.folder(self.stage))?;
        let mut trained = self.model.to_float_model()?;
        if let Some(quantize) = self.quantize {
            // The loss saw only rounded weights: those are what was trained.
            round_weights(&mut trained, quantize);
        }
        write_float_model(&self.run.model_file(self.stage), &trained)?;
        // The stage's model is on the disk; what it took to get there is of no more use.
        let _ = std::fs::remove_file(self.checkpoint_file());
        Ok((self.step, seconds))
    }
}

/// The order in which a stage sees its examples.
struct Order {
    lengths: Vec<usize>,
    batch: usize,
    per_pass: usize,
    seed: u64,
    /// The pass that was asked for last, and its batches.
    pass: Option<(u64, Vec<Vec<u32>>)>,
}

impl Order {
    fn new(lengths: Vec<usize>, batch: usize, seed: u64) -> Self {
        let batch = batch.min(lengths.len());
        Order { per_pass: lengths.len() / batch, lengths, batch, seed, pass: None }
    }

    /// The examples of step `step`.
    fn batch(&mut self, step: usize) -> Vec<u32> {
        let pass = (step / self.per_pass) as u64;
        let list = match self.pass.take() {
            Some((number, list)) if number == pass => list,
            _ => batches(&self.lengths, self.batch, self.seed, pass),
        };
        let examples = list[step % self.per_pass].clone();
        self.pass = Some((pass, list));
        examples
    }
}
