//! The stages of a recipe, one after another, each leaving its model in its own folder.

use std::collections::HashMap;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use candle_core::{Device, Tensor, Var};
use indicatif::{ProgressBar, ProgressStyle};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::checkpoint::{Checkpoint, read_float_model, write_atomically, write_float_model};
use super::data::{EvalSentences, Folders, Row, Rows, Target, TokenStore, batches};
use super::evaluate::{EvalRows, Evaluation, Score};
use super::metrics::{Metric, Metrics};
use super::model::{
    BertModel, Dropout, FakeQuant, ForwardOptions, ForwardOutput, Freeze, TokenBatch,
};
use super::ops::pooling;
use super::optim::{AdamW, AdamWConfig, Schedule, WeightAverage};
use super::pack::Packed;
use super::recipe::{ModelUse, Recipe, Slot, Stage, StageKind, StsLoss};
use super::{export, losses, pairs, plot, prune, seed_of};
use crate::bytes::AlignedBytes;
use crate::config::ModelConfig;
use crate::convert::{ConvertOptions, Manifest, Shape, read_checkpoint};
use crate::error::{Error, ErrorKind, Result};
use crate::format::{self, ModelFile};
use crate::model::Encoder;
use crate::tokenizer::Tokenizer;
use crate::weights::FloatModel;

/// A checkpoint at least this often.
pub(super) const CHECKPOINT_TIME: Duration = Duration::from_secs(120);
/// A line in the metrics, the mean of so many steps.
const METRIC_STEPS: usize = 20;
/// A line on standard error this often where it is not a terminal.
const LINE_TIME: Duration = Duration::from_secs(30);
/// Sentences whose mean is taken for the mean of the language, of vectors and of states.
const CENTER_SENTENCES: usize = 1024;

/// Where a run finds and leaves its files.
pub struct Run {
    /// What to do.
    pub recipe: Recipe,
    /// Folder of the data files.
    pub data: PathBuf,
    /// Hugging Face checkpoint folder of the teacher.
    pub teacher: PathBuf,
    /// Of the student, where the recipe does not make it from the teacher; or with `from`, the folder
    /// of an exported model.
    pub student: Option<PathBuf>,
    /// Stages of the student before this one are left out, and `student` stands for what they leave.
    pub from: Option<usize>,
    /// Folder for everything that the run writes.
    pub out: PathBuf,
    /// Where to compute.
    pub device: Device,
    /// In place of data folder and checkpoints: what [`Packed`] holds of them.
    pub packed: Option<Packed>,
}

/// What token ids are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// Training: the model's prefix, cut to the recipe's `max_tokens` and those of the prefix.
    Training,
    /// Evaluation: the model's prefix, up to its maximum.
    Evaluation,
    /// Parts of a pair that a cross-encoder reads: no prefix, cut to `max_tokens`.
    Pairs,
}

impl Run {
    /// Runs all stages that are not done, or only the one called `only`.
    ///
    /// # Errors
    /// What goes wrong in a stage; what was done before stays, and the next call goes on from the
    /// last checkpoint.
    pub fn run(&self, only: Option<&str>) -> Result<()> {
        std::fs::create_dir_all(&self.out).map_err(|source| {
            Error::io(format!("cannot make the folder {}", self.out.display()), source)
        })?;
        let chosen = only.map(|name| self.recipe.stage(name)).transpose()?;
        self.check_fit(chosen)?;
        for index in 0..self.recipe.stages.len() {
            if chosen.is_some_and(|chosen| chosen != index) || self.left_out(index) {
                continue;
            }
            self.stage(index).map_err(|error| self.in_stage(index, error))?;
        }
        Ok(())
    }

    /// Whether [`Run::from`] says that stage `index` is not run.
    pub(super) fn left_out(&self, index: usize) -> bool {
        let of_student = written_slot(&self.recipe.stages[index]) == Some(Slot::Student);
        of_student && self.from.is_some_and(|from| index < from)
    }

    /// Says where in the recipe the stage stands that something went wrong in.
    pub(super) fn in_stage(&self, index: usize, error: Error) -> Error {
        let stage = &self.recipe.stages[index];
        let text = error.to_string();
        let text = match text.strip_prefix(&format!("stage {:?}", stage.name)) {
            Some(rest) => format!("{}{rest}", self.recipe.place(stage)),
            // These name the file that is at fault.
            None if matches!(error.kind(), ErrorKind::DataInvalid | ErrorKind::Io) => return error,
            None => format!("{}: {text}", self.recipe.place(stage)),
        };
        Error::new(error.kind(), text).with_source(error)
    }

    /// Whether the models have the layers that the recipe speaks of, before hours are spent on it.
    pub(super) fn check_fit(&self, only: Option<usize>) -> Result<()> {
        let layers_of = |slot: Slot| -> Result<Option<usize>> {
            match (&self.packed, slot, &self.student) {
                (Some(packed), _, _) => Ok(packed.num_layers(slot)),
                (None, Slot::Teacher, _) => Ok(Some(Shape::read(&self.teacher)?.num_hidden_layers)),
                // It has what the stages that are left out would leave.
                (None, Slot::Student, Some(_)) if self.from.is_some() => Ok(None),
                (None, Slot::Student, Some(folder)) => {
                    Ok(Some(Shape::read(folder)?.num_hidden_layers))
                }
                (None, Slot::Student, None) => Ok(None),
            }
        };
        self.check_exported_shape()?;
        let teacher = layers_of(Slot::Teacher)?;
        let mut student = layers_of(Slot::Student)?;
        for (index, stage) in self.recipe.stages.iter().enumerate() {
            let wrong = |what: String| {
                let text = format!("{}: {what}", self.recipe.place(stage));
                Err(Error::new(ErrorKind::InputInvalid, text))
            };
            let asked = only.is_none_or(|only| only == index);
            let own = if stage.model == Slot::Teacher { teacher } else { student };
            let of_layers = matches!(stage.kind, StageKind::PickLayers | StageKind::Widen);
            if let (true, Some(count)) = (of_layers, teacher) {
                let rising = stage.layers.windows(2).all(|pair| pair[0] < pair[1]);
                if asked && (!rising || stage.layers.iter().any(|&layer| layer >= count)) {
                    return wrong(format!(
                        "layers are {:?}; expected rising numbers below {count}, the teacher's layers",
                        stage.layers
                    ));
                }
                if stage.kind == StageKind::PickLayers {
                    student = Some(stage.layers.len());
                }
            }
            if !asked {
                continue;
            }
            if let Some(own) = own.filter(|&own| stage.freeze_layers > own) {
                return wrong(format!(
                    "freeze_layers is {}; the {} has {own} layers",
                    stage.freeze_layers,
                    stage.model.name()
                ));
            }
            let beyond = stage.middle_layers.iter().find(|pair| {
                student.is_some_and(|count| pair[0] >= count)
                    || teacher.is_some_and(|count| pair[1] >= count)
            });
            if let (Some(pair), Some(student), Some(teacher)) = (beyond, student, teacher) {
                return wrong(format!(
                    "middle_layers has {pair:?}; the student has {student} layers, the teacher {teacher}"
                ));
            }
        }
        Ok(())
    }

    /// Whether the exported model that a run goes on from has the shape that the stages which it leaves
    /// out would leave.
    fn check_exported_shape(&self) -> Result<()> {
        let (Some(from), Some(folder), None) = (self.from, &self.student, &self.packed) else {
            return Ok(());
        };
        let (file, bytes) = Manifest::read_model(&folder.join("manifest.json"))?;
        let found = Shape::of(&ModelFile::parse(AlignedBytes::from(bytes))?.config);
        // Without a stage that makes the student from the teacher, any shape can be meant.
        let mut expected = None;
        for stage in &self.recipe.stages[..from] {
            if stage.kind == StageKind::PickLayers {
                let teacher = Shape::read(&self.teacher)?;
                expected = Some(Shape { num_hidden_layers: stage.layers.len(), ..teacher });
            }
            if let (Some(expected), Some(size)) = (&mut expected, stage.intermediate_size) {
                expected.intermediate_size = size;
            }
        }
        match expected.filter(|&expected| expected != found) {
            None => Ok(()),
            Some(expected) => Err(Error::new(
                ErrorKind::InputInvalid,
                format!(
                    "{}: goes on from {expected}, but {} has {found}; name another stage with --from, or \
                     another recipe",
                    self.recipe.place(&self.recipe.stages[from]),
                    file.display()
                ),
            )),
        }
    }

    /// Where data files lie.
    pub fn folders(&self) -> Folders<'_> {
        Folders { data: &self.data, out: &self.out }
    }

    /// The folder of a stage.
    pub fn folder(&self, stage: &Stage) -> PathBuf {
        self.out.join(&stage.name)
    }

    fn model_file(&self, stage: &Stage) -> PathBuf {
        self.folder(stage).join("model.safetensors")
    }

    /// How the recipe uses the model of `slot`.
    pub fn model_use(&self, slot: Slot) -> &ModelUse {
        match slot {
            Slot::Teacher => &self.recipe.teacher,
            Slot::Student => &self.recipe.student,
        }
    }

    /// The model of `slot` as it is before stage `index`.
    ///
    /// # Errors
    /// [`ErrorKind::InputInvalid`] if an earlier stage that makes it has not run.
    pub fn model_before(&self, index: usize, slot: Slot) -> Result<FloatModel> {
        // What came before a packed run began is in the packed models.
        let first = self.packed.as_ref().map_or(0, Packed::begin).min(index);
        let made_by = (first..index).rev().find(|&earlier| {
            written_slot(&self.recipe.stages[earlier]) == Some(slot) && !self.left_out(earlier)
        });
        let Some(stage) = made_by.map(|earlier| &self.recipe.stages[earlier]) else {
            if let Some(packed) = &self.packed {
                return packed.model(slot);
            }
            let folder = match (slot, &self.student) {
                (Slot::Teacher, _) => &self.teacher,
                (Slot::Student, Some(folder)) => folder,
                (Slot::Student, None) => {
                    return Err(Error::new(
                        ErrorKind::InputInvalid,
                        "no stage makes the student: give its checkpoint with --student DIR, or \
                         put a pick_layers stage before",
                    ));
                }
            };
            if slot == Slot::Student && self.from.is_some() {
                return self.exported_student(folder, index);
            }
            let how = self.model_use(slot);
            return read_checkpoint(
                folder,
                &ConvertOptions {
                    prefix: how.prefix.clone(),
                    pooling: how.pooling,
                    ..ConvertOptions::default()
                },
            );
        };
        let file = self.model_file(stage);
        if !file.exists() {
            return Err(Error::new(
                ErrorKind::InputInvalid,
                format!(
                    "stage {:?} needs the {} of stage {:?}, which has not run in {}; run it first",
                    self.recipe.stages[index].name,
                    slot.name(),
                    stage.name,
                    self.out.display()
                ),
            ));
        }
        let mut model = read_float_model(&file)?;
        model.config.prefix = self.model_use(slot).prefix.clone();
        Ok(model)
    }

    /// The stage before which no stage has trained the teacher, for stage `index`.
    ///
    /// # Errors
    /// [`ErrorKind::InputInvalid`] if a packed run begins later.
    pub fn untrained(&self, index: usize) -> Result<usize> {
        let trains =
            |stage: &Stage| stage.kind.trains() && written_slot(stage) == Some(Slot::Teacher);
        let first = self.recipe.stages.iter().position(trains).map_or(index, |at| at.min(index));
        match &self.packed {
            Some(packed) if packed.begin() > first => Err(Error::new(
                ErrorKind::InputInvalid,
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
            return Err(Error::new(
                ErrorKind::InputInvalid,
                format!(
                    "{} has another tokenizer than the teacher at stage {:?}; go on from a model that \
                     was exported with the same vocabulary, or without --from",
                    file.display(),
                    self.recipe.stages[index].name
                ),
            ));
        }
        let mut model = exported.to_float(tokenizer);
        model.config.prefix = self.recipe.student.prefix.clone();
        Ok(model)
    }

    /// The training rows of a stage.
    ///
    /// # Errors
    /// As [`Rows::read`].
    pub fn rows(&self, stage: &Stage) -> Result<Rows> {
        if let Some(packed) = &self.packed {
            return packed.rows(self, stage);
        }
        let evaluation = EvalSentences::read(&self.recipe, &self.data)?;
        Rows::read(&self.recipe, &stage.data, self.folders(), &evaluation)
    }

    /// The evaluation sets that are looked at during training; names of missing files go to
    /// `missing`.
    ///
    /// # Errors
    /// As [`EvalRows::read`].
    pub fn evaluation_rows(
        &self,
        missing: &mut Vec<String>,
    ) -> Result<Vec<(super::recipe::EvalSet, EvalRows)>> {
        if let Some(packed) = &self.packed {
            return Ok(packed.evaluation_rows());
        }
        let sets = self.recipe.evaluate.iter().filter(|set| !set.final_only);
        EvalRows::read(sets, &self.data, missing)
    }

    /// `texts` as token ids for `model`, which is of `slot`.
    ///
    /// # Errors
    /// When the tokenizer does not load.
    pub fn store<'a>(
        &self,
        model: &FloatModel,
        slot: Slot,
        purpose: Purpose,
        texts: impl IntoIterator<Item = &'a str>,
    ) -> Result<TokenStore> {
        if let Some(packed) = &self.packed {
            return packed.store(slot, purpose, texts);
        }
        TokenStore::new(&self.tokenizer_for(model, purpose)?, texts)
    }

    /// The tokenizer of a model for one purpose.
    ///
    /// # Errors
    /// When the tokenizer does not load.
    pub fn tokenizer_for(&self, model: &FloatModel, purpose: Purpose) -> Result<Tokenizer> {
        let config = &model.config;
        let most = config.max_position_embeddings;
        let json = &model.tokenizer_json;
        match purpose {
            Purpose::Training => self.tokenizer(model),
            Purpose::Evaluation => Tokenizer::from_bytes(json, &config.prefix, most),
            Purpose::Pairs => Tokenizer::from_bytes(json, "", self.recipe.max_tokens.min(most)),
        }
    }

    /// Runs stage `index` if it is not done.
    ///
    /// # Errors
    /// What goes wrong in it.
    pub(super) fn stage(&self, index: usize) -> Result<()> {
        let stage = &self.recipe.stages[index];
        let folder = self.folder(stage);
        let settings = settings(&self.recipe, stage);
        let done = folder.join("done.json");
        if let Ok(text) = std::fs::read_to_string(&done) {
            if text != settings {
                return Err(self.other_settings(stage, &done));
            }
            eprintln!("{}: done before", stage.name);
            return Ok(());
        }
        std::fs::create_dir_all(&folder).map_err(|source| {
            Error::io(format!("cannot make the folder {}", folder.display()), source)
        })?;
        let begin = Instant::now();
        let metrics = Metrics::new(&self.out);
        let (steps, seconds) = match stage.kind {
            StageKind::Export => {
                metrics.rewind(&stage.name, 0)?;
                export::export(self, index, &metrics)?;
                (0, begin.elapsed().as_secs_f64())
            }
            StageKind::LabelPairs => {
                metrics.rewind(&stage.name, 0)?;
                pairs::label(self, index, &settings)?;
                (0, begin.elapsed().as_secs_f64())
            }
            kind if kind.trains() => self.train(index, &settings, &metrics)?,
            _ => {
                metrics.rewind(&stage.name, 0)?;
                let model = self.transform(index)?;
                write_float_model(&self.model_file(stage), &model)?;
                (0, begin.elapsed().as_secs_f64())
            }
        };
        metrics.push(&Metric::Done { stage: stage.name.clone(), step: steps, seconds })?;
        plot::write(&self.out, &metrics.read()?)?;
        write_atomically(&done, settings.as_bytes())?;
        eprintln!("{}: done in {}", stage.name, minutes(seconds));
        Ok(())
    }

    fn other_settings(&self, stage: &Stage, file: &Path) -> Error {
        Error::new(
            ErrorKind::InputInvalid,
            format!(
                "stage {:?} ran with other settings ({}); go on with the recipe of then, choose \
                 another --out, or delete {}",
                stage.name,
                file.display(),
                self.folder(stage).display()
            ),
        )
    }

    /// A stage without gradients.
    fn transform(&self, index: usize) -> Result<FloatModel> {
        let stage = &self.recipe.stages[index];
        match stage.kind {
            StageKind::PickLayers => {
                let teacher = self.model_before(index, Slot::Teacher)?;
                let mut model =
                    prune::pick_layers(&teacher, &stage.layers, stage.intermediate_size)?;
                model.config.prefix = self.recipe.student.prefix.clone();
                Ok(model)
            }
            StageKind::Widen => {
                let teacher = self.model_before(index, Slot::Teacher)?;
                let student = self.model_before(index, Slot::Student)?;
                let size = stage.intermediate_size.expect("checked with the recipe");
                prune::widen(&student, &teacher, &stage.layers, size)
            }
            StageKind::PruneVocabulary => {
                let model = self.model_before(index, stage.model)?;
                let rows = self.rows(stage)?;
                let texts = rows.rows.iter().flat_map(|row| row.texts.iter().map(String::as_str));
                let prefixes = [&*self.recipe.teacher.prefix, &*self.recipe.student.prefix];
                let pruned = prune::prune_vocabulary(&model, &prefixes, texts, stage.vocabulary)?;
                eprintln!(
                    "{}: {} of {} pieces kept",
                    stage.name, pruned.config.vocab_size, model.config.vocab_size
                );
                Ok(pruned)
            }
            _ => {
                let mut model = self.model_before(index, stage.model)?;
                let rows = self.rows(stage)?;
                let texts = all_texts(&rows);
                let every = texts.len().div_ceil(CENTER_SENTENCES);
                let texts = texts.into_iter().step_by(every);
                let store = self.store(&model, stage.model, Purpose::Training, texts)?;
                let sentences: Vec<&[u32]> = (0..store.len()).map(|i| store.ids(i)).collect();
                if stage.kind == StageKind::ShiftStates {
                    let most = prune::shift_states(&mut model, &sentences)?;
                    eprintln!("{}: channels of the states moved by up to {most:.2}", stage.name);
                    return Ok(model);
                }
                let bert = BertModel::from_float_model(&model, &self.device)?;
                let (mean, length) = prune::center(&mut model, &bert, &sentences)?;
                eprintln!(
                    "{}: the mean vector of {} sentences, length {mean:.3} of {length:.3}, moved to zero",
                    stage.name,
                    sentences.len()
                );
                Ok(model)
            }
        }
    }

    /// The tokenizer of a model as training uses it: with its prefix, cut to `max_tokens` tokens
    /// and those of the prefix.
    ///
    /// # Errors
    /// When the tokenizer does not load.
    pub fn tokenizer(&self, model: &FloatModel) -> Result<Tokenizer> {
        let config = &model.config;
        let most = config.max_position_embeddings;
        let of_prefix = if config.prefix.is_empty() {
            0
        } else {
            let plain = Tokenizer::from_bytes(&model.tokenizer_json, "", most)?.encode("")?;
            let with = Tokenizer::from_bytes(&model.tokenizer_json, &config.prefix, most)?;
            with.encode("")?.ids.len().saturating_sub(plain.ids.len())
        };
        let max = (self.recipe.max_tokens + of_prefix).min(most);
        Tokenizer::from_bytes(&model.tokenizer_json, &config.prefix, max)
    }

    /// What the training stage `index` does with its batches; it may add weights to `model`.
    fn task(
        &self,
        index: usize,
        rows: Rows,
        float: &FloatModel,
        model: &mut BertModel,
    ) -> Result<Box<dyn Task>> {
        let stage = &self.recipe.stages[index];
        Ok(match stage.kind {
            StageKind::Sts => Box::new(StsTask::new(self, index, rows, float)?),
            StageKind::Contrast => Box::new(ContrastTask::new(self, stage, rows, float)?),
            StageKind::CrossEncoder => {
                Box::new(pairs::CrossTask::new(self, index, rows, float, model)?)
            }
            _ => Box::new(DistillTask::new(self, index, rows, float, model)?),
        })
    }

    fn train(&self, index: usize, settings: &str, metrics: &Metrics) -> Result<(usize, f64)> {
        let stage = &self.recipe.stages[index];
        let folder = self.folder(stage);
        let file = folder.join("checkpoint.safetensors");
        let float = self.model_before(index, stage.model)?;
        let seed = seed_of(self.recipe.seed, &stage.name, 0);

        let mut model = BertModel::from_float_model(&float, &self.device)?;
        model.use_precision(stage.precision);
        model.freeze(frozen(stage))?;
        eprintln!("{}: reading data", stage.name);
        let rows = self.rows(stage)?;
        let task = self.task(index, rows, &float, &mut model)?;
        let mut missing = Vec::new();
        let evaluation = Evaluation::new(self.evaluation_rows(&mut missing)?, |texts| {
            self.store(&float, stage.model, Purpose::Evaluation, texts.iter().copied())
        })?;
        for file in missing {
            eprintln!("{}: {file} is not in {}; not evaluated", stage.name, self.data.display());
        }

        let lengths = task.lengths();
        let batch = stage.batch.min(lengths.len());
        let per_epoch = lengths.len() / batch;
        let (all, trainable) = model.parameters().count();
        eprintln!(
            "{}: {} examples, {per_epoch} batches of {batch} a pass, {} of {} parameters trained",
            stage.name,
            lengths.len(),
            trainable,
            all
        );
        let schedule = Schedule {
            peak: stage.learning_rate,
            warmup_steps: (stage.warmup * stage.steps as f64).round() as usize,
            total_steps: stage.steps,
            decay: stage.decay,
            final_fraction: stage.final_fraction,
        };
        let config = AdamWConfig { weight_decay: stage.weight_decay, ..AdamWConfig::default() };
        let mut optimizer = AdamW::new(config)?;
        let mut average = stage.average.map(|average| WeightAverage::new(average.decay));
        let quantize = fake_quant(stage);

        let mut step = 0;
        let mut before = 0.0f64;
        if file.exists() {
            let checkpoint = Checkpoint::read(&file)?;
            if checkpoint.notes.get("settings").map(String::as_str) != Some(settings) {
                return Err(self.other_settings(stage, &file));
            }
            step = checkpoint.number("step")?;
            before = checkpoint.number("seconds")?;
            let mut weights = model.parameters().to_tensors()?;
            for (name, tensor) in &checkpoint.tensors {
                if let Some(name) = name.strip_prefix("model.") {
                    weights.insert(name.to_owned(), tensor.clone());
                }
            }
            model.parameters().load(&weights)?;
            optimizer.load_state(model.parameters(), &checkpoint.tensors)?;
            if let Some(average) = &mut average {
                average.load_state(model.parameters(), &checkpoint.tensors)?;
            }
            eprintln!("{}: going on from step {step}", stage.name);
        }
        metrics.rewind(&stage.name, step)?;

        let save = |step: usize,
                    seconds: f64,
                    model: &BertModel,
                    optimizer: &AdamW,
                    average: &Option<WeightAverage>|
         -> Result<()> {
            let mut tensors = HashMap::new();
            for parameter in model.parameters().iter().filter(|parameter| parameter.trainable) {
                let value = parameter.var.as_detached_tensor();
                tensors.insert(format!("model.{}", parameter.name), value);
            }
            tensors.extend(optimizer.state(model.parameters())?);
            if let Some(average) = average {
                tensors.extend(average.state()?);
            }
            let notes = HashMap::from([
                ("settings".to_owned(), settings.to_owned()),
                ("step".to_owned(), step.to_string()),
                ("seconds".to_owned(), seconds.to_string()),
            ]);
            Checkpoint { tensors, notes }.write(&file)
        };
        let evaluate = |step: usize, seconds: f64, model: &BertModel, what: &str| -> Result<()> {
            let mut line = String::new();
            let scores = match task.scores(model, quantize)? {
                Some(scores) => scores,
                None => evaluation.run(model, quantize, &stage.dimensions)?,
            };
            for score in scores {
                line += &format!("  {} {} {:.2}", score.set, score.metric, score.value);
                metrics.push(&Metric::Score {
                    stage: stage.name.clone(),
                    step,
                    seconds,
                    model: match stage.kind {
                        StageKind::CrossEncoder => format!("cross-encoder{what}"),
                        _ => format!("{}{what}", stage.model.name()),
                    },
                    set: score.set,
                    metric: score.metric,
                    value: score.value,
                })?;
            }
            if !line.is_empty() {
                eprintln!("{} step {step}{what}:{line}", stage.name);
            }
            Ok(())
        };

        let mut clock = Clock::new();
        let limit = stage.minutes.map(|minutes| minutes * 60.0);
        let mut progress = Progress::new(stage, step);
        let mut epoch: Option<(u64, Vec<Vec<u32>>)> = None;
        let mut saved = Instant::now();
        let mut due = false;
        let mut window = Window::default();
        if step == 0 && stage.evaluate_every.is_some() {
            evaluate(0, 0.0, &model, "")?;
        }
        loop {
            let seconds = before + clock.seconds();
            let by_time = limit.map_or(0.0, |limit| seconds / limit);
            if step >= stage.steps || by_time >= 1.0 {
                break;
            }
            // The schedule goes by steps or by time, whichever is further.
            let virtual_step = step.max((by_time * stage.steps as f64) as usize);
            let pass = (step / per_epoch) as u64;
            if epoch.as_ref().is_none_or(|(number, _)| *number != pass) {
                epoch = Some((pass, batches(&lengths, batch, seed, pass)));
            }
            let Some((_, list)) = &epoch else { continue };
            let indices = &list[step % per_epoch];
            let options = ForwardOptions {
                dropout: (stage.dropout > 0.0).then(|| Dropout {
                    hidden: stage.dropout,
                    attention: stage.dropout,
                    seed: seed_of(seed, "dropout", step as u64),
                }),
                quantize,
                ..ForwardOptions::training()
            };
            let started = Instant::now();
            let at = step;
            let blame = |error: Error| {
                if error.kind() != ErrorKind::NonFinite {
                    return error;
                }
                let first: Vec<String> =
                    indices.iter().take(3).map(|&index| task.place(index as usize)).collect();
                Error::new(
                    ErrorKind::NonFinite,
                    format!(
                        "stage {:?}, step {at}: {error}; the batch begins with {}. The last good \
                         checkpoint is kept: lower the learning rate, or look at these rows",
                        stage.name,
                        first.join(", ")
                    ),
                )
            };
            let (loss, outputs, sentences) = task.step(&model, indices, &options).map_err(blame)?;
            let value = f64::from(loss.detach().to_scalar::<f32>()?);
            let gradients = model.backward(&loss, outputs).map_err(blame)?;
            if due {
                // Only now it is known that these weights have a loss and gradients.
                save(step, before + clock.seconds(), &model, &optimizer, &average)?;
                (due, saved) = (false, Instant::now());
            }
            let rate = schedule.learning_rate(virtual_step);
            let stats = optimizer.step(model.parameters(), &gradients, rate).map_err(blame)?;
            step += 1;

            let share = virtual_step as f64 / stage.steps as f64;
            if let (Some(average), Some(how)) = (&mut average, stage.average)
                && share >= how.start
                && step % how.every.max(1) == 0
            {
                average.update(model.parameters())?;
            }
            window.add(value, f64::from(stats.grad_norm), sentences, started.elapsed());
            let seconds = before + clock.seconds();
            progress.step(step, &window, limit.map(|limit| (seconds, limit)));
            if window.steps == METRIC_STEPS || step == stage.steps {
                metrics.push(&window.metric(stage, step, seconds, rate))?;
                window = Window::default();
            }
            if stage.evaluate_every.is_some_and(|every| step % every.max(1) == 0)
                && step < stage.steps
            {
                progress.pause(|| evaluate(step, seconds, &model, ""))?;
                plot::write(&self.out, &metrics.read()?)?;
            }
            let by_steps = stage.checkpoint_every.is_some_and(|every| step % every.max(1) == 0);
            due |= by_steps || saved.elapsed() >= CHECKPOINT_TIME;
        }
        progress.finish();
        model.parameters().check_finite()?;
        let seconds = before + clock.seconds();
        save(step, seconds, &model, &optimizer, &average)?;
        if let Some(average) = average.filter(|average| average.updates() > 0) {
            evaluate(step, seconds, &model, " before averaging")?;
            model.parameters().load(&average.tensors(model.parameters())?)?;
        }
        evaluate(step, seconds, &model, "")?;
        task.leave(&model, &folder)?;
        let mut trained = model.to_float_model()?;
        if let Some(quantize) = quantize {
            // The loss saw only rounded weights: those are what was trained.
            prune::round_weights(&mut trained, quantize);
        }
        write_float_model(&self.model_file(stage), &trained)?;
        // The stage's model is on the disk; what it took to get there is of no more use.
        let _ = std::fs::remove_file(&file);
        Ok((step, seconds))
    }
}

/// Time in which the run ran: a process that was stopped or a machine that slept for longer than any
/// step takes loses none of its minutes.
struct Clock {
    last: Instant,
    total: Duration,
}

impl Clock {
    const LONGEST: Duration = Duration::from_secs(60);

    fn new() -> Self {
        Clock { last: Instant::now(), total: Duration::ZERO }
    }

    fn seconds(&mut self) -> f64 {
        let gap = self.last.elapsed();
        self.last += gap;
        self.total += gap.min(Self::LONGEST);
        self.total.as_secs_f64()
    }
}

/// Which model a stage leaves behind, if any.
pub(super) fn written_slot(stage: &Stage) -> Option<Slot> {
    match stage.kind {
        StageKind::PickLayers | StageKind::Widen => Some(Slot::Student),
        // A cross-encoder is neither; it stays in its stage's folder.
        StageKind::Export | StageKind::CrossEncoder | StageKind::LabelPairs => None,
        _ => Some(stage.model),
    }
}

/// What must be the same for a stage to go on: everything but how long it lasts and how often it
/// looks around.
pub(super) fn settings(recipe: &Recipe, stage: &Stage) -> String {
    let mut stage = stage.clone();
    stage.minutes = None;
    stage.evaluate_every = None;
    stage.checkpoint_every = None;
    let data: Vec<_> = stage.data.iter().map(|name| (name, &recipe.data[name])).collect();
    serde_json::json!({
        "seed": recipe.seed, "max_tokens": recipe.max_tokens, "stage": stage, "data": data,
        "teacher_prefix": recipe.teacher.prefix, "student_prefix": recipe.student.prefix,
    })
    .to_string()
}

/// What a stage leaves as it is.
fn frozen(stage: &Stage) -> Freeze {
    Freeze {
        word_embeddings: stage.freeze_word_embeddings || stage.freeze_embeddings,
        other_embeddings: stage.freeze_embeddings,
        lowest_layers: stage.freeze_layers,
    }
}

/// How a stage rounds while it trains.
fn fake_quant(stage: &Stage) -> Option<FakeQuant> {
    stage.quantize_bits.map(|bits| FakeQuant {
        weight_max: ((1i16 << (bits - 1)) - 1) as i8,
        ..FakeQuant::shipped()
    })
}

/// All texts, row after row.
pub(super) fn all_texts(rows: &Rows) -> Vec<&str> {
    rows.rows.iter().flat_map(|row| row.texts.iter().map(String::as_str)).collect()
}

/// A time as people say it.
pub(super) fn minutes(seconds: f64) -> String {
    if seconds < 60.0 { format!("{seconds:.0} s") } else { format!("{:.1} min", seconds / 60.0) }
}

/// What a training stage does with a batch.
pub(super) trait Task {
    /// Tokens of each example, for sorting.
    fn lengths(&self) -> Vec<usize>;
    /// Where example `index` comes from.
    fn place(&self, index: usize) -> String;
    /// The loss of a batch, what it was computed from, and the number of sentences.
    fn step(
        &self,
        model: &BertModel,
        batch: &[u32],
        options: &ForwardOptions,
    ) -> Result<(Tensor, Vec<ForwardOutput>, usize)>;
    /// Scores on the evaluation sets of a task that trains something else than sentence vectors.
    fn scores(&self, _: &BertModel, _: Option<FakeQuant>) -> Result<Option<Vec<Score>>> {
        Ok(None)
    }
    /// Leaves what later stages need besides the encoder's weights.
    fn leave(&self, _: &BertModel, _folder: &Path) -> Result<()> {
        Ok(())
    }
}

/// Regression of cosines on scores, with the teacher's term, and retrieval beside it.
struct StsTask {
    /// Those with scores, then those without.
    rows: Rows,
    store: TokenStore,
    pairs: Vec<(u32, u32, f32)>,
    /// Texts that belong together, without a score, and their ids.
    partners: Vec<(u32, u32)>,
    partner_store: TokenStore,
    /// Their vectors by the untrained teacher, and the width.
    partner_teacher: Option<(Vec<f32>, usize)>,
    seed: u64,
    /// How much each pair counts; empty if all count alike.
    weights: Vec<f32>,
    /// The teacher's sentence vectors, by text, and their width.
    teacher: Option<(Vec<f32>, usize)>,
    /// Ids of the tokenizer's special tokens.
    special: Vec<u32>,
    stage: Stage,
}

impl StsTask {
    fn new(run: &Run, index: usize, mut rows: Rows, float: &FloatModel) -> Result<Self> {
        let stage = run.recipe.stages[index].clone();
        // Stable: scored rows stay in their order.
        let unscored = |row: &Row| stage.pairs_weight > 0.0 && row.target == Target::Pair;
        rows.rows.sort_by_key(unscored);
        let store = run.store(float, stage.model, Purpose::Training, all_texts(&rows))?;
        let scored = rows.rows.partition_point(|row| !unscored(row));
        let mut scored_rows = Rows { files: rows.files.clone(), ..Rows::default() };
        scored_rows.rows.extend_from_slice(&rows.rows[..scored]);
        let pairs = scored_pairs(&stage, &scored_rows, &store)?;
        if pairs.is_empty() {
            return Err(wrong_kind(&stage, &rows, 0, "sts"));
        }
        let unscored_texts =
            || rows.rows[scored..].iter().flat_map(|row| &row.texts).map(String::as_str);
        let partner_store = match stage.pairs_tokens {
            Some(most) => {
                let whole = run.store(float, stage.model, Purpose::Evaluation, unscored_texts())?;
                whole.cut(most)
            }
            None => run.store(float, stage.model, Purpose::Training, unscored_texts())?,
        };
        let number = |text: &str| partner_store.index(text) as u32;
        let partners: Vec<(u32, u32)> = rows.rows[scored..]
            .iter()
            .map(|row| (number(&row.texts[0]), number(&row.texts[1])))
            .collect();
        let partner_teacher = match stage.pairs_teacher_weight > 0.0 {
            true => {
                let untrained = run.model_before(run.untrained(index)?, Slot::Teacher)?;
                let purpose = match stage.pairs_tokens {
                    Some(_) => Purpose::Evaluation,
                    None => Purpose::Training,
                };
                let store = run.store(&untrained, Slot::Teacher, purpose, unscored_texts())?;
                let store = store.cut(stage.pairs_tokens.unwrap_or(usize::MAX));
                let file = "untrained_teacher_vectors.safetensors";
                Some(teacher_vectors(run, &stage, &untrained, &store, file)?)
            }
            false => None,
        };
        let weight_of = |file: usize| run.recipe.data[&stage.data[file]].weight as f32;
        let weights = match (0..stage.data.len()).all(|file| weight_of(file) == 1.0) {
            true => Vec::new(),
            false => scored_rows.rows.iter().map(|row| weight_of(row.file)).collect(),
        };
        let teacher = if stage.teacher_weight > 0.0 && stage.model == Slot::Student {
            let teacher = run.model_before(index, Slot::Teacher)?;
            // Both stores number the same texts in the same order.
            let texts = all_texts(&scored_rows);
            let store = run.store(&teacher, Slot::Teacher, Purpose::Training, texts)?;
            let file = "teacher_vectors.safetensors";
            Some(teacher_vectors(run, &stage, &teacher, &store, file)?)
        } else {
            None
        };
        let seed = seed_of(run.recipe.seed, &stage.name, 1);
        let special = special_ids(&float.tokenizer_json);
        Ok(StsTask {
            rows,
            store,
            pairs,
            partners,
            partner_store,
            partner_teacher,
            seed,
            weights,
            teacher,
            special,
            stage,
        })
    }

    /// Random numbers of a step, the same whenever `batch` comes.
    fn random(&self, batch: &[u32]) -> ChaCha8Rng {
        let seed = batch.iter().fold(self.seed, |seed, &row| seed_of(seed, "", row.into()));
        ChaCha8Rng::seed_from_u64(seed)
    }

    /// How badly `model` tells the partners of some texts apart, drawn by what is in `batch`.
    fn retrieval(
        &self,
        model: &BertModel,
        batch: &[u32],
        options: &ForwardOptions,
    ) -> Result<(Tensor, ForwardOutput)> {
        let mut random = self.random(batch);
        let n = self.stage.pairs_batch.min(self.partners.len());
        let drawn: Vec<(u32, u32)> = rand::seq::index::sample(&mut random, self.partners.len(), n)
            .into_iter()
            .map(|at| self.partners[at])
            .collect();
        let texts = drawn.iter().map(|pair| pair.0).chain(drawn.iter().map(|pair| pair.1));
        let texts: Vec<usize> = texts.map(|text| text as usize).collect();
        let ids: Vec<&[u32]> = texts.iter().map(|&text| self.partner_store.ids(text)).collect();
        let output = model.forward(&TokenBatch::new(&ids)?, options)?;
        // Several questions may have one passage.
        let groups: Vec<u32> = drawn.iter().map(|pair| pair.1).collect();
        let of_teacher = match &self.partner_teacher {
            Some(vectors) => Some(rows_of(vectors, &texts, model.device())?),
            None => None,
        };
        let loss = losses::over_dimensions(&output.pooled, &self.stage.dimensions, |pooled| {
            let (texts, partners) = (pooled.narrow(0, 0, n)?, pooled.narrow(0, n, n)?);
            let tau = self.stage.temperature;
            let missed = losses::supervised_simcse(&texts, &partners, None, Some(&groups), tau)?;
            Ok(match &of_teacher {
                Some(of_teacher) => {
                    let (a, b) = (of_teacher.narrow(0, 0, n)?, of_teacher.narrow(0, n, n)?);
                    let ranked = losses::retrieval_kl(&texts, &partners, &a, &b, tau)?;
                    (missed + (ranked * self.stage.pairs_teacher_weight)?)?
                }
                None => missed,
            })
        })?;
        Ok((loss, output))
    }
}

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

/// The vectors of `float` for all texts of `store`, computed once and kept in a file of the stage's
/// folder so that a resumed run sees the same numbers; and their width.
fn teacher_vectors(
    run: &Run,
    stage: &Stage,
    float: &FloatModel,
    store: &TokenStore,
    file: &str,
) -> Result<(Vec<f32>, usize)> {
    let file = run.folder(stage).join(file);
    let (count, hidden) = (store.len(), float.config.hidden_size);
    if file.exists() {
        let kept = Checkpoint::read(&file)?;
        if let Some(vectors) = kept.tensors.get("vectors")
            && vectors.dims() == [count, hidden]
        {
            return Ok((vectors.flatten_all()?.to_vec1()?, hidden));
        }
    }
    eprintln!("{}: the teacher reads {count} texts", stage.name);
    let vectors = Teacher::new(run, stage, float)?.embed_all(store)?;
    let tensor = Tensor::from_slice(&vectors, (count, hidden), &Device::Cpu)?;
    let tensors = HashMap::from([("vectors".to_owned(), tensor)]);
    Checkpoint { tensors, notes: HashMap::new() }.write(&file)?;
    Ok((vectors, hidden))
}

/// The rows of `vectors` (with their width) that belong to `texts`.
fn rows_of(
    (vectors, width): &(Vec<f32>, usize),
    texts: &[usize],
    device: &Device,
) -> Result<Tensor> {
    let rows = texts.iter().flat_map(|&text| &vectors[text * width..][..*width]);
    let rows: Vec<f32> = rows.copied().collect();
    Ok(Tensor::from_vec(rows, (texts.len(), *width), device)?)
}

fn wrong_kind(stage: &Stage, rows: &Rows, at: usize, expected: &str) -> Error {
    Error::new(
        ErrorKind::DataInvalid,
        format!("{}: stage {:?} needs data of kind {expected}", rows.place(at), stage.name),
    )
}

impl Task for StsTask {
    fn lengths(&self) -> Vec<usize> {
        let length = |text: u32| self.store.ids(text as usize).len();
        self.pairs.iter().map(|&(a, b, _)| length(a) + length(b)).collect()
    }

    fn place(&self, index: usize) -> String {
        self.rows.place(index)
    }

    fn step(
        &self,
        model: &BertModel,
        batch: &[u32],
        options: &ForwardOptions,
    ) -> Result<(Tensor, Vec<ForwardOutput>, usize)> {
        let n = batch.len();
        let pairs: Vec<_> = batch.iter().map(|&index| self.pairs[index as usize]).collect();
        let texts: Vec<usize> = pairs
            .iter()
            .map(|pair| pair.0 as usize)
            .chain(pairs.iter().map(|pair| pair.1 as usize))
            .collect();
        let mut ids: Vec<&[u32]> = texts.iter().map(|&text| self.store.ids(text)).collect();
        let scores: Vec<f32> = pairs.iter().map(|pair| pair.2).collect();
        let unusual = match self.stage.rounding_weight > 0.0 {
            true => {
                let short = short_texts(&ids).into_iter();
                let special = special_texts(&ids, &self.special);
                let vocabulary = model.config().vocab_size as u32;
                let rare = rare_texts(&ids, vocabulary, &mut self.random(batch));
                short.chain(special).chain(rare).collect()
            }
            false => Vec::new(),
        };
        ids.extend(unusual.iter().map(Vec::as_slice));
        let ids = TokenBatch::new(&ids)?;
        let output = model.forward(&ids, options)?;
        let pooled = output.pooled.narrow(0, 0, 2 * n)?;
        let weights: Vec<f32> = match self.weights.is_empty() {
            true => Vec::new(),
            false => batch.iter().map(|&index| self.weights[index as usize]).collect(),
        };
        let dimensions = &self.stage.dimensions;
        let mut loss = losses::over_dimensions(&pooled, dimensions, |pooled| {
            let (a, b) = (pooled.narrow(0, 0, n)?, pooled.narrow(0, n, n)?);
            match self.stage.loss {
                StsLoss::Mse if weights.is_empty() => losses::cosine_mse(&a, &b, &scores),
                StsLoss::Mse => losses::weighted_cosine_mse(&a, &b, &scores, &weights),
                StsLoss::Cosent => losses::cosent(&a, &b, &scores, 20.0),
            }
        })?;
        if let Some(vectors) = &self.teacher {
            let teacher = rows_of(vectors, &texts, model.device())?;
            let near = losses::over_dimensions(&pooled, dimensions, |pooled| {
                losses::similarity_kl(pooled, &teacher, self.stage.tau)
            })?;
            let mut term = (near * self.stage.similarity_weight)?;
            if vectors.1 == model.config().hidden_size {
                let near = losses::pooled_cosine_distance(&pooled, &teacher)?;
                term = (term + (near * self.stage.cosine_weight)?)?;
            }
            loss = (loss + (term * self.stage.teacher_weight)?)?;
        }
        let mut outputs = vec![output];
        if let (true, Some(quantize)) = (self.stage.rounding_weight > 0.0, options.quantize) {
            let quantize = Some(FakeQuant { activations: false, ..quantize });
            let smooth = model.forward(&ids, &ForwardOptions { quantize, ..options.clone() })?;
            let moved = losses::twin_cosine_distance(&outputs[0].pooled, &smooth.pooled)?;
            loss = (loss + (moved * self.stage.rounding_weight)?)?;
            outputs.push(smooth);
        }
        if !self.partners.is_empty() {
            let (missed, output) = self.retrieval(model, batch, options)?;
            loss = (loss + (missed * self.stage.pairs_weight)?)?;
            outputs.push(output);
        }
        Ok((loss, outputs, 2 * n))
    }
}

/// Blank texts, and the first one to three pieces of some of `ids`.
fn short_texts(ids: &[&[u32]]) -> Vec<Vec<u32>> {
    const COUNT: usize = 7;
    let cut = |(at, ids): (usize, &&[u32])| {
        let (&last, rest) = ids.split_last()?;
        Some(rest.iter().take(1 + at % 4).copied().chain([last]).collect())
    };
    ids.iter().enumerate().take(COUNT).filter_map(cut).collect()
}

/// Texts of special tokens, which a page's visitor can type: all of them in turn, one of the pieces of
/// some of `ids` between any two, and without.
fn special_texts(ids: &[&[u32]], special: &[u32]) -> Vec<Vec<u32>> {
    const COUNT: usize = 3;
    if special.is_empty() {
        return Vec::new();
    }
    let of = |(at, ids): (usize, &&[u32])| {
        let (&last, rest) = ids.split_last()?;
        let (&first, pieces) = rest.split_first()?;
        let mut text = vec![first];
        for i in 0..special.len() {
            text.push(special[(i + at + pieces.len()) % special.len()]);
            if at != 0 {
                text.extend(pieces.get(i));
            }
        }
        text.push(last);
        Some(text)
    };
    ids.iter().enumerate().take(COUNT).filter_map(of).collect()
}

/// Texts of pieces that training data hardly has (other scripts, jamo, symbols): any pieces between the ends
/// of some of `ids`.
fn rare_texts(ids: &[&[u32]], vocabulary: u32, random: &mut ChaCha8Rng) -> Vec<Vec<u32>> {
    const COUNT: usize = 8;
    let mut of = |ids: &&[u32]| {
        let (&first, &last) = (ids.first()?, ids.last()?);
        let pieces = random.random_range(2..=10);
        let mut text = vec![first];
        text.extend((0..pieces).map(|_| random.random_range(0..vocabulary)));
        text.push(last);
        Some(text)
    };
    ids.iter().take(COUNT).filter_map(&mut of).collect()
}

/// The ids of a `tokenizer.json`'s special tokens, the first few: some reserve hundreds.
fn special_ids(tokenizer_json: &[u8]) -> Vec<u32> {
    let json: serde_json::Value = serde_json::from_slice(tokenizer_json).unwrap_or_default();
    let added = json["added_tokens"].as_array().into_iter().flatten();
    let special = added.filter(|token| token["special"] == true);
    special.filter_map(|token| token["id"].as_u64()?.try_into().ok()).take(8).collect()
}

/// Supervised SimCSE.
struct ContrastTask {
    rows: Rows,
    store: TokenStore,
    examples: Vec<Triple>,
    temperature: f32,
    dimensions: Vec<usize>,
}

struct Triple {
    anchor: u32,
    positive: u32,
    negative: Option<u32>,
    group: u32,
    row: u32,
}

/// A text and what was said to follow from it (with the row that says so) or to contradict it.
#[derive(Default)]
struct Premise {
    text: usize,
    positives: Vec<(usize, usize)>,
    negatives: Vec<usize>,
}

impl ContrastTask {
    fn new(run: &Run, stage: &Stage, rows: Rows, float: &FloatModel) -> Result<Self> {
        let store = run.store(float, stage.model, Purpose::Training, all_texts(&rows))?;
        let mut examples = Vec::new();
        // Rows that begin with the same text, in the order in which they come.
        let mut premises: HashMap<usize, usize> = HashMap::new();
        let mut groups: Vec<Premise> = Vec::new();
        let mut sets: HashMap<u64, usize> = HashMap::new();
        let mut members: Vec<Vec<(usize, usize)>> = Vec::new();
        for (at, row) in rows.rows.iter().enumerate() {
            let text = |which: usize| store.index(&row.texts[which]);
            match row.target {
                Target::Entailment | Target::Neutral | Target::Contradiction | Target::Pair => {
                    let group = *premises.entry(text(0)).or_insert_with(|| {
                        groups.push(Premise { text: text(0), ..Premise::default() });
                        groups.len() - 1
                    });
                    match row.target {
                        Target::Entailment | Target::Pair => {
                            groups[group].positives.push((text(1), at))
                        }
                        Target::Contradiction => groups[group].negatives.push(text(1)),
                        _ => {}
                    }
                }
                Target::Set(set) => {
                    let place = *sets.entry(set).or_insert_with(|| {
                        members.push(Vec::new());
                        members.len() - 1
                    });
                    members[place].push((text(0), at));
                }
                _ => return Err(wrong_kind(stage, &rows, at, "nli, sets or pairs")),
            }
        }
        let mut number = 0;
        for Premise { text: anchor, positives, negatives } in groups {
            for (which, &(positive, row)) in positives.iter().enumerate() {
                if positive == anchor {
                    continue;
                }
                let negative =
                    (!negatives.is_empty()).then(|| negatives[which % negatives.len()] as u32);
                examples.push(Triple {
                    anchor: anchor as u32,
                    positive: positive as u32,
                    negative,
                    group: number,
                    row: row as u32,
                });
            }
            number += 1;
        }
        for set in members {
            for (which, &(anchor, row)) in set.iter().enumerate() {
                let (positive, _) = set[(which + 1) % set.len()];
                if positive != anchor {
                    examples.push(Triple {
                        anchor: anchor as u32,
                        positive: positive as u32,
                        negative: None,
                        group: number,
                        row: row as u32,
                    });
                }
            }
            number += 1;
        }
        if examples.is_empty() {
            return Err(Error::new(
                ErrorKind::DataInvalid,
                format!(
                    "{}: stage {:?} finds no pair of texts that belong together",
                    rows.place(0),
                    stage.name
                ),
            ));
        }
        let (temperature, dimensions) = (stage.temperature, stage.dimensions.clone());
        Ok(ContrastTask { rows, store, examples, temperature, dimensions })
    }
}

impl Task for ContrastTask {
    fn lengths(&self) -> Vec<usize> {
        let length = |text: u32| self.store.ids(text as usize).len();
        self.examples.iter().map(|triple| length(triple.anchor) + length(triple.positive)).collect()
    }

    fn place(&self, index: usize) -> String {
        self.rows.place(self.examples[index].row as usize)
    }

    fn step(
        &self,
        model: &BertModel,
        batch: &[u32],
        options: &ForwardOptions,
    ) -> Result<(Tensor, Vec<ForwardOutput>, usize)> {
        let triples: Vec<&Triple> =
            batch.iter().map(|&index| &self.examples[index as usize]).collect();
        let texts: Vec<u32> = (triples.iter().map(|triple| triple.anchor))
            .chain(triples.iter().map(|triple| triple.positive))
            .chain(triples.iter().filter_map(|triple| triple.negative))
            .collect();
        let ids: Vec<&[u32]> = texts.iter().map(|&text| self.store.ids(text as usize)).collect();
        let output = model.forward(&TokenBatch::new(&ids)?, options)?;
        let n = triples.len();
        let hard = texts.len() - 2 * n;
        let groups: Vec<u32> = triples.iter().map(|triple| triple.group).collect();
        let loss = losses::over_dimensions(&output.pooled, &self.dimensions, |pooled| {
            let negatives = if hard > 0 { Some(pooled.narrow(0, 2 * n, hard)?) } else { None };
            losses::supervised_simcse(
                &pooled.narrow(0, 0, n)?,
                &pooled.narrow(0, n, n)?,
                negatives.as_ref(),
                Some(&groups),
                self.temperature,
            )
        })?;
        Ok((loss, vec![output], texts.len()))
    }
}

/// A teacher that only answers.
pub(super) enum Teacher {
    Float(BertModel),
    Quantized(Box<Encoder>),
}

/// What a teacher says to a batch.
pub(super) struct Answer {
    pub token_states: Tensor,
    /// Not normalized.
    pub pooled: Tensor,
    /// Token states after each of the layers asked for.
    pub middle: Vec<Tensor>,
}

impl Teacher {
    /// `float` as it is, or quantized if the stage says so.
    pub(super) fn new(run: &Run, stage: &Stage, float: &FloatModel) -> Result<Self> {
        // A GPU is faster without rounding than the rest of its machine is with it.
        if stage.quantized_teacher && run.device.is_cpu() {
            return Ok(Teacher::Quantized(Box::new(Encoder::from_bytes(format::write(float)?)?)));
        }
        let mut model = BertModel::from_float_model(float, &run.device)?;
        model.use_precision(stage.precision);
        Ok(Teacher::Float(model))
    }

    fn config(&self) -> &ModelConfig {
        match self {
            Teacher::Float(model) => model.config(),
            Teacher::Quantized(encoder) => encoder.config(),
        }
    }

    /// L2-normalized sentence vectors of all of `store`.
    pub(super) fn embed_all(&self, store: &TokenStore) -> Result<Vec<f32>> {
        match self {
            Teacher::Float(teacher) => super::evaluate::embed_all(teacher, store, None),
            Teacher::Quantized(teacher) => {
                let ids: Vec<&[u32]> = (0..store.len()).map(|index| store.ids(index)).collect();
                teacher.encode_ids(&ids)
            }
        }
    }

    /// States and vectors of `batch`, and the states after the layers `middle`.
    pub(super) fn answer(
        &self,
        batch: &TokenBatch,
        middle: &[usize],
        device: &Device,
    ) -> Result<Answer> {
        match self {
            Teacher::Float(model) => {
                let layer_states = middle.to_vec();
                let options = ForwardOptions { layer_states, ..ForwardOptions::default() };
                let output = model.forward(batch, &options)?;
                Ok(Answer {
                    token_states: output.token_states,
                    pooled: output.pooled,
                    middle: output.layer_states,
                })
            }
            Teacher::Quantized(encoder) => {
                let (config, offsets) = (encoder.config(), batch.offsets());
                let ids: Vec<&[u32]> =
                    offsets.windows(2).map(|ends| &batch.ids()[ends[0]..ends[1]]).collect();
                let mut layers = middle.to_vec();
                layers.push(config.num_hidden_layers - 1);
                let hidden = config.hidden_size;
                let mut states = encoder.token_states(&ids, &layers)?;
                let last = states.pop().unwrap_or_default();
                let mut pooled = vec![0.0; batch.num_sentences() * hidden];
                pooling::forward(config.pooling, offsets, hidden, &last, &mut pooled);
                let tensor = |values: Vec<f32>| {
                    let shape = (values.len() / hidden, hidden);
                    Tensor::from_vec(values, shape, device)
                };
                Ok(Answer {
                    token_states: tensor(last)?,
                    pooled: tensor(pooled)?,
                    middle: states.into_iter().map(tensor).collect::<candle_core::Result<_>>()?,
                })
            }
        }
    }
}

/// Texts that come into one batch because they belong together: the similarities within a batch
/// teach little where everything is unlike everything.
const GROUP_TEXTS: usize = 4;

/// The student follows the teacher's states, vectors and similarities.
struct DistillTask {
    rows: Rows,
    student: TokenStore,
    teacher_store: TokenStore,
    /// Texts (numbers of both stores) that belong together, and a row that the first stands in.
    groups: Vec<(Vec<u32>, u32)>,
    teacher: Teacher,
    /// `teacher width × student width`, where the widths differ.
    projection: Option<Var>,
    /// The same for each of the middle layers.
    middle_projections: Vec<Option<Var>>,
    stage: Stage,
}

impl DistillTask {
    fn new(
        run: &Run,
        index: usize,
        rows: Rows,
        float: &FloatModel,
        model: &mut BertModel,
    ) -> Result<Self> {
        let stage = run.recipe.stages[index].clone();
        let teacher_float = run.model_before(index, Slot::Teacher)?;
        let all = all_texts(&rows);
        let texts = || all.iter().copied();
        let student = run.store(float, Slot::Student, Purpose::Training, texts())?;
        let teacher_store = run.store(&teacher_float, Slot::Teacher, Purpose::Training, texts())?;
        let mut groups = related_texts(&rows.rows, |text| student.index(text));
        if stage.state_weight > 0.0 || stage.middle_weight > 0.0 {
            for (texts, _) in &mut groups {
                texts.retain(|&text| {
                    aligned(student.ids(text as usize), teacher_store.ids(text as usize))
                });
            }
            groups.retain(|(texts, _)| !texts.is_empty());
            let (before, left) =
                (student.len(), groups.iter().map(|(texts, _)| texts.len()).sum::<usize>());
            if left * 2 < before {
                return Err(Error::new(
                    ErrorKind::InputInvalid,
                    format!(
                        "stage {:?}: teacher and student cut {} of {before} sentences into other \
                         tokens, so their states cannot be compared; set state_weight and \
                         middle_weight to 0",
                        stage.name,
                        before - left
                    ),
                ));
            }
        }
        let teacher = Teacher::new(run, &stage, &teacher_float)?;
        let (from, to) = (model.config().hidden_size, teacher.config().hidden_size);
        let mut add = |name: &str, used: bool| -> Result<Option<Var>> {
            if from == to || !used {
                return Ok(None);
            }
            let seed = seed_of(run.recipe.seed, name, 0);
            let values = super::model::random_values(from * to, 1.0 / (from as f32).sqrt(), seed);
            let values = Tensor::from_vec(values, (to, from), &run.device)?;
            Ok(Some(model.add_parameter(name, values, true)?))
        };
        let projection = add("projection", stage.state_weight > 0.0 || stage.cosine_weight > 0.0)?;
        let middle_projections = (0..stage.middle_layers.len())
            .map(|index| add(&format!("middle_projection.{index}"), true))
            .collect::<Result<_>>()?;
        Ok(DistillTask {
            rows,
            student,
            teacher_store,
            groups,
            teacher,
            projection,
            middle_projections,
            stage,
        })
    }
}

/// `x` at the teacher's width.
fn project(projection: &Option<Var>, x: &Tensor) -> Result<Tensor> {
    match projection {
        Some(projection) => Ok(x.matmul(&projection.as_tensor().t()?)?),
        None => Ok(x.clone()),
    }
}

/// Every text (by its number) once, in groups of up to [`GROUP_TEXTS`] that share a row, an earlier text or
/// a paraphrase set, each with the first row that it stands in.
fn related_texts(rows: &[Row], number_of: impl Fn(&str) -> usize) -> Vec<(Vec<u32>, u32)> {
    let mut groups: Vec<(Vec<u32>, u32)> = Vec::new();
    let mut group_of: HashMap<usize, usize> = HashMap::new();
    let mut group_of_set: HashMap<u64, usize> = HashMap::new();
    for (at, row) in rows.iter().enumerate() {
        let numbers: Vec<usize> = row.texts.iter().map(|text| number_of(text)).collect();
        let mut group = numbers.iter().find_map(|number| group_of.get(number).copied());
        if let (None, Target::Set(set)) = (group, row.target) {
            group = group_of_set.get(&set).copied();
        }
        for number in numbers {
            if group_of.contains_key(&number) {
                continue;
            }
            let place = match group {
                Some(place) if groups[place].0.len() < GROUP_TEXTS => place,
                _ => {
                    groups.push((Vec::new(), at as u32));
                    groups.len() - 1
                }
            };
            // Sentences of one row are related only where the row says so.
            if !matches!(row.target, Target::None) {
                group = Some(place);
            }
            groups[place].0.push(number as u32);
            group_of.insert(number, place);
            if let Target::Set(set) = row.target {
                group_of_set.insert(set, place);
            }
        }
    }
    groups
}

/// Whether the teacher's ids are the student's with a prefix after the first.
fn aligned(student: &[u32], teacher: &[u32]) -> bool {
    let Some(extra) = teacher.len().checked_sub(student.len()) else {
        return false;
    };
    !student.is_empty() && student[0] == teacher[0] && student[1..] == teacher[1 + extra..]
}

impl Task for DistillTask {
    fn lengths(&self) -> Vec<usize> {
        let length = |&text: &u32| self.student.ids(text as usize).len();
        // By the mean, so that a batch holds sentences of one length.
        self.groups
            .iter()
            .map(|(texts, _)| texts.iter().map(length).sum::<usize>() / texts.len())
            .collect()
    }

    fn place(&self, index: usize) -> String {
        self.rows.place(self.groups[index].1 as usize)
    }

    fn step(
        &self,
        model: &BertModel,
        batch: &[u32],
        options: &ForwardOptions,
    ) -> Result<(Tensor, Vec<ForwardOutput>, usize)> {
        let texts: Vec<usize> = batch
            .iter()
            .flat_map(|&index| &self.groups[index as usize].0)
            .map(|&text| text as usize)
            .collect();
        let ids_of = |store: &'_ TokenStore| -> Result<TokenBatch> {
            let ids: Vec<&[u32]> = texts.iter().map(|&text| store.ids(text)).collect();
            TokenBatch::new(&ids)
        };
        let (student_batch, teacher_batch) = (ids_of(&self.student)?, ids_of(&self.teacher_store)?);
        let stage = &self.stage;
        let middle = |which: usize| stage.middle_layers.iter().map(|pair| pair[which]).collect();
        let of_teacher: Vec<usize> = middle(1);
        let target = self.teacher.answer(&teacher_batch, &of_teacher, model.device())?;
        let options = ForwardOptions { layer_states: middle(0), ..options.clone() };
        let output = model.forward(&student_batch, &options)?;
        let mut loss: Option<Tensor> = None;
        let mut add = |term: Tensor, weight: f64| -> Result<()> {
            let term = (term * weight)?;
            loss = Some(match loss.take() {
                Some(loss) => (loss + term)?,
                None => term,
            });
            Ok(())
        };
        if stage.state_weight > 0.0 || stage.middle_weight > 0.0 {
            // Without the tokens of the teacher's prefix.
            let mut kept: Vec<u32> = Vec::with_capacity(student_batch.num_tokens());
            let offsets =
                student_batch.offsets().windows(2).zip(teacher_batch.offsets().windows(2));
            for (own, other) in offsets {
                let extra = (other[1] - other[0]) - (own[1] - own[0]);
                kept.push(other[0] as u32);
                kept.extend((other[0] + 1 + extra) as u32..other[1] as u32);
            }
            let kept = Tensor::from_vec(kept, student_batch.num_tokens(), model.device())?;
            if stage.state_weight > 0.0 {
                let states = target.token_states.index_select(&kept, 0)?;
                let own = project(&self.projection, &output.token_states)?;
                add(losses::token_state_mse(&own, &states)?, stage.state_weight)?;
            }
            let weight = stage.middle_weight / stage.middle_layers.len().max(1) as f64;
            let pairs = output.layer_states.iter().zip(&target.middle);
            for ((own, target), projection) in pairs.zip(&self.middle_projections) {
                let own = project(projection, own)?;
                let target = target.index_select(&kept, 0)?;
                add(losses::token_state_mse(&own, &target)?, weight)?;
            }
        }
        if stage.cosine_weight > 0.0 {
            let own = project(&self.projection, &output.pooled)?;
            add(losses::pooled_cosine_distance(&own, &target.pooled)?, stage.cosine_weight)?;
        }
        if stage.similarity_weight > 0.0 {
            let term = losses::over_dimensions(&output.pooled, &stage.dimensions, |pooled| {
                losses::similarity_kl(pooled, &target.pooled, stage.tau)
            })?;
            add(term, stage.similarity_weight)?;
        }
        let loss = loss.ok_or_else(|| {
            Error::new(
                ErrorKind::InputInvalid,
                format!("stage {:?}: all weights of its losses are 0", stage.name),
            )
        })?;
        Ok((loss, vec![output], texts.len()))
    }
}

/// Sums since the last line of metrics.
#[derive(Default)]
struct Window {
    steps: usize,
    loss: f64,
    grad_norm: f64,
    sentences: usize,
    time: Duration,
}

impl Window {
    fn add(&mut self, loss: f64, grad_norm: f64, sentences: usize, time: Duration) {
        self.steps += 1;
        self.loss += loss;
        self.grad_norm += grad_norm;
        self.sentences += sentences;
        self.time += time;
    }

    fn mean_loss(&self) -> f64 {
        self.loss / self.steps as f64
    }

    fn speed(&self) -> f64 {
        self.sentences as f64 / self.time.as_secs_f64().max(1e-9)
    }

    fn metric(&self, stage: &Stage, step: usize, seconds: f64, learning_rate: f64) -> Metric {
        Metric::Train {
            stage: stage.name.clone(),
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
struct Progress {
    bar: ProgressBar,
    name: String,
    steps: usize,
    first: usize,
    begin: Instant,
    line: Instant,
    terminal: bool,
}

impl Progress {
    fn new(stage: &Stage, step: usize) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let bar = if terminal {
            let style = ProgressStyle::with_template("{prefix} {bar:30} {pos}/{len}  {msg}");
            ProgressBar::new(stage.steps as u64)
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
            steps: stage.steps,
            first: step,
            begin: now,
            line: now,
            terminal,
        }
    }

    fn step(&mut self, step: usize, window: &Window, limit: Option<(f64, f64)>) {
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

    fn pause(&self, work: impl FnOnce() -> Result<()>) -> Result<()> {
        self.bar.suspend(work)
    }

    fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod agreement;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_texts_hold_every_special_token_between_the_ends() {
        let json = br#"{"added_tokens":[{"id":0,"special":true},{"id":7,"special":true},{"id":9,"special":false}]}"#;
        let special = special_ids(json);
        assert_eq!(special, [0, 7]);
        let ids: [&[u32]; 4] = [&[1, 20, 21, 2], &[1, 30, 2], &[1, 2], &[1, 40, 2]];
        let texts = special_texts(&ids, &special);
        assert_eq!(texts, [vec![1, 0, 7, 2], vec![1, 0, 30, 7, 2], vec![1, 0, 7, 2]]);
        assert!(special_texts(&ids, &special_ids(b"not json")).is_empty());
    }

    #[test]
    fn rare_texts_are_of_any_pieces_between_the_ends() {
        let ids: [&[u32]; 3] = [&[1, 20, 21, 2], &[1, 30, 2], &[]];
        let of = |seed| rare_texts(&ids, 50, &mut ChaCha8Rng::seed_from_u64(seed));
        let texts = of(1);
        assert_eq!(texts.len(), 2);
        for text in &texts {
            assert!((4..=12).contains(&text.len()) && text.iter().all(|&id| id < 50));
            assert_eq!((text[0], text[text.len() - 1]), (1, 2));
        }
        assert_eq!(of(1), texts);
        assert_ne!(of(2), texts);
    }

    /// One step of every kind of training stage: each trainable weight gets a gradient, also those
    /// that the stage adds to the model.
    #[test]
    fn every_trainable_weight_of_every_task_gets_a_gradient() {
        let place = tempfile::tempdir().unwrap();
        let write = |file: &str, text: &str| std::fs::write(place.path().join(file), text).unwrap();
        let words =
            ["봄이 왔다", "꽃이 핀다", "비가 내린다", "눈이 온다", "바람이 분다", "해가 뜬다"];
        let (mut sts, mut nli, mut lines) = (
            "sentence1\tsentence2\tscore\n".to_owned(),
            "sentence1\tsentence2\tlabel\n".to_owned(),
            String::new(),
        );
        for (at, word) in words.iter().enumerate() {
            let next = words[(at + 1) % words.len()];
            sts += &format!("{word}\t{next}\t{at}\n").replace("\t5\n", "\t4.5\n");
            let label = ["entailment", "contradiction"][at % 2];
            nli += &format!("{}\t{next}\t{label}\n", words[at / 2]);
            lines += &format!("{word}\n");
        }
        write("sts.tsv", &sts);
        write("nli.tsv", &nli);
        write("lines.txt", &lines);
        let text = r#"
            name = "x"
            seed = 1
            max_tokens = 16
            [data.sts]
            file = "sts.tsv"
            kind = "sts"
            license = "CC0"
            weight = 0.5
            [data.plain_sts]
            file = "sts.tsv"
            kind = "sts"
            license = "CC0"
            [data.nli]
            file = "nli.tsv"
            kind = "nli"
            license = "CC0"
            [data.pairs]
            file = "sts.tsv"
            kind = "pairs"
            license = "CC0"
            [data.lines]
            file = "lines.txt"
            kind = "sentences"
            license = "CC0"
            [[stage]]
            name = "simcse"
            kind = "contrast"
            data = ["nli"]
            steps = 1
            batch = 3
            dimensions = [24]
            [[stage]]
            name = "sts"
            kind = "sts"
            data = ["sts"]
            steps = 1
            batch = 6
            teacher_weight = 0.5
            dimensions = [24]
            [[stage]]
            name = "rounded"
            kind = "sts"
            data = ["sts"]
            steps = 1
            batch = 6
            quantize_bits = 7
            rounding_weight = 1.0
            [[stage]]
            name = "both"
            kind = "sts"
            data = ["sts", "pairs"]
            steps = 1
            batch = 6
            pairs_weight = 0.5
            pairs_batch = 4
            pairs_tokens = 5
            pairs_teacher_weight = 0.5
            [[stage]]
            name = "distill"
            kind = "distill"
            data = ["lines"]
            steps = 1
            batch = 6
            dimensions = [24]
            middle_weight = 1.0
            middle_layers = [[0, 0], [1, 1]]
            [[stage]]
            name = "middle_only"
            kind = "distill"
            data = ["lines"]
            steps = 1
            batch = 6
            cosine_weight = 0.0
            similarity_weight = 0.0
            state_weight = 0.5
            middle_weight = 1.0
            middle_layers = [[2, 1]]
            [[stage]]
            name = "cross"
            kind = "cross_encoder"
            model = "teacher"
            data = ["plain_sts"]
            steps = 1
            batch = 6
        "#;
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/small");
        // Teacher and student of one tokenizer, of different widths in the last case.
        for (teacher, student) in [("bert", "bert"), ("distilbert", "bert")] {
            let run = Run {
                recipe: Recipe::parse(text, "test.toml").unwrap(),
                data: place.path().to_owned(),
                teacher: fixtures.join(teacher),
                student: Some(fixtures.join(student)),
                out: place.path().join(teacher),
                device: Device::Cpu,
                from: None,
                packed: None,
            };
            for (index, stage) in run.recipe.stages.iter().enumerate() {
                // Different tokenizers: states cannot be compared.
                if teacher != student && stage.kind == StageKind::Distill {
                    continue;
                }
                std::fs::create_dir_all(run.folder(stage)).unwrap();
                let mut float = run.model_before(0, stage.model).unwrap();
                // Another model than the teacher, or there would be nothing to learn from it.
                float.layers.reverse();
                let mut model = BertModel::from_float_model(&float, &Device::Cpu).unwrap();
                let rows = run.rows(stage).unwrap();
                let task = run.task(index, rows, &float, &mut model).unwrap();
                let batch: Vec<u32> = (0..stage.batch.min(task.lengths().len()) as u32).collect();
                let options =
                    ForwardOptions { quantize: fake_quant(stage), ..ForwardOptions::training() };
                let (loss, outputs, _) = task.step(&model, &batch, &options).unwrap();
                let gradients = model.backward(&loss, outputs).unwrap();
                for parameter in model.parameters().iter() {
                    let gradient = gradients.dense(model.parameters(), &parameter.name).unwrap();
                    let gradient = gradient.unwrap_or_else(|| {
                        panic!("{}: no gradient for {}", stage.name, parameter.name)
                    });
                    let largest = gradient.abs().unwrap().max_all().unwrap();
                    let largest = largest.to_scalar::<f32>().unwrap();
                    // A key's bias shifts all scores of a query alike.
                    let still = parameter.name.ends_with("key.bias");
                    assert!(still || largest > 0.0, "{}: {} is 0", stage.name, parameter.name);
                }
                let added = model.parameters().len() - 4 - 16 * float.layers.len();
                let head = if stage.kind == StageKind::CrossEncoder { 4 } else { 0 };
                assert_eq!(added, head, "{}", stage.name);
            }
        }
    }

    #[test]
    fn states_of_another_width_are_projected() {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/small");
        let place = tempfile::tempdir().unwrap();
        std::fs::write(place.path().join("lines.txt"), "봄이 왔다\n꽃이 핀다\n비가 내린다\n")
            .unwrap();
        // The same tokenizer in a wider teacher.
        let narrow = read_checkpoint(&fixtures.join("bert"), &ConvertOptions::default()).unwrap();
        let config = ModelConfig {
            hidden_size: 64,
            model_type: "bert".into(),
            num_hidden_layers: 4,
            ..narrow.config.clone()
        };
        let mut wide = super::super::model::random_float_model(&config, 3);
        wide.tokenizer_json = narrow.tokenizer_json.clone();
        let teacher = place.path().join("teacher");
        for (file, bytes) in crate::convert::checkpoint_files(&wide).unwrap() {
            let path = teacher.join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
        let text = r#"
            name = "x"
            seed = 1
            [data.lines]
            file = "lines.txt"
            kind = "sentences"
            license = "CC0"
            [[stage]]
            name = "distill"
            kind = "distill"
            data = ["lines"]
            steps = 1
            batch = 3
            STATES
            middle_weight = 1.0
            middle_layers = [[0, 1], [1, 3]]
        "#;
        for (states, projections) in [("state_weight = 1.0", 3), ("cosine_weight = 0.0", 2)] {
            let run = Run {
                recipe: Recipe::parse(&text.replace("STATES", states), "test.toml").unwrap(),
                data: place.path().to_owned(),
                teacher: teacher.clone(),
                student: Some(fixtures.join("bert")),
                out: place.path().join("out"),
                device: Device::Cpu,
                from: None,
                packed: None,
            };
            let stage = &run.recipe.stages[0];
            let mut model = BertModel::from_float_model(&narrow, &Device::Cpu).unwrap();
            let before = model.parameters().len();
            let task = run.task(0, run.rows(stage).unwrap(), &narrow, &mut model).unwrap();
            assert_eq!(model.parameters().len() - before, projections, "{states}");
            let step = |model: &BertModel| {
                task.step(model, &[0, 1, 2], &ForwardOptions::training()).unwrap()
            };
            let (loss, outputs, _) = step(&model);
            let gradients = model.backward(&loss, outputs).unwrap();
            for parameter in model.parameters().iter().skip(before) {
                let gradient = gradients.dense(model.parameters(), &parameter.name).unwrap();
                let gradient = gradient.expect("projections are trained").flatten_all().unwrap();
                let gradient = gradient.to_vec1::<f32>().unwrap();
                let values = parameter.var.flatten_all().unwrap().to_vec1::<f32>().unwrap();
                let at = (0..gradient.len())
                    .max_by(|&a, &b| gradient[a].abs().total_cmp(&gradient[b].abs()))
                    .unwrap();
                let moved = |by: f32| {
                    let mut values = values.clone();
                    values[at] += by;
                    let values = Tensor::from_vec(values, parameter.var.dims(), &Device::Cpu);
                    parameter.var.set(&values.unwrap()).unwrap();
                    step(&model).0.to_scalar::<f32>().unwrap()
                };
                let slope = (moved(1e-2) - moved(-1e-2)) / 2e-2;
                moved(0.0);
                let (found, size) = (gradient[at], gradient[at].abs());
                assert!((slope - found).abs() < 0.02 * size, "{found} against {slope}");
            }
        }
    }

    #[test]
    fn prefix_tokens_are_passed_over() {
        assert!(aligned(&[0, 7, 8, 2], &[0, 5, 6, 7, 8, 2]));
        assert!(aligned(&[0, 7, 2], &[0, 7, 2]));
        assert!(!aligned(&[0, 7, 2], &[0, 5, 9, 2]));
        assert!(!aligned(&[0, 7, 8, 2], &[0, 7, 2]));
    }

    #[test]
    fn related_texts_come_together_and_once() {
        let row = |texts: &[&str], target| Row {
            texts: texts.iter().map(|&text| text.to_owned()).collect(),
            target,
            file: 0,
            line: 1,
        };
        let rows = [
            row(&["0", "1"], Target::Score(0.5)),
            row(&["2", "3"], Target::None),
            row(&["1", "4"], Target::Entailment),
            row(&["5"], Target::Set(7)),
            row(&["6"], Target::Set(8)),
            row(&["7"], Target::Set(7)),
            row(&["0", "8"], Target::Contradiction),
            row(&["0", "9"], Target::Neutral),
            row(&["0", "4"], Target::Pair),
        ];
        let groups = related_texts(&rows, |text| text.parse().unwrap());
        let of = |texts: &[u32], row| (texts.to_vec(), row);
        let expected = [
            of(&[0, 1, 4, 8], 0),
            of(&[2], 1),
            of(&[3], 1),
            of(&[5, 7], 3),
            of(&[6], 4),
            // The first group is full.
            of(&[9], 7),
        ];
        assert_eq!(groups, expected);
    }
}
