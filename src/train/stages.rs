//! The stages of a recipe, one after another, each leaving its model in its own folder.

mod contrast;
mod distill;
mod progress;
mod sts;
mod teacher;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use candle_core::{Device, Tensor};

use self::contrast::ContrastTask;
use self::distill::DistillTask;
use self::progress::{Progress, Window};
use self::sts::StsTask;
pub(super) use self::teacher::Teacher;
use super::checkpoint::{Checkpoint, read_float_model, write_atomically, write_float_model};
use super::data::{EvalSentences, Folders, Rows, Target, TokenStore, batches};
use super::evaluate::{EvalRows, Evaluation, Score};
use super::metrics::{Metric, Metrics};
use super::model::{BertModel, Dropout, FakeQuant, ForwardOptions, ForwardOutput, Freeze};
use super::optim::{AdamW, AdamWConfig, Schedule, WeightAverage};
use super::pack::Packed;
use super::recipe::{ModelUse, Recipe, Slot, Stage, StageKind};
use super::{export, pairs, plot, prune, seed_of};
use crate::bytes::AlignedBytes;
use crate::convert::{ConvertOptions, Manifest, Shape, read_checkpoint};
use crate::error::{Error, ErrorKind, Result};
use crate::format::ModelFile;
use crate::tokenizer::Tokenizer;
use crate::weights::FloatModel;

/// A checkpoint at least this often.
pub(super) const CHECKPOINT_TIME: Duration = Duration::from_secs(120);
/// A line in the metrics, the mean of so many steps.
const METRIC_STEPS: usize = 20;
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
        error.reworded(text)
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
                        "stage {:?}, step {at}: {error:#}; the batch begins with {}. The last good \
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

fn wrong_kind(stage: &Stage, rows: &Rows, at: usize, expected: &str) -> Error {
    Error::new(
        ErrorKind::DataInvalid,
        format!("{}: stage {:?} needs data of kind {expected}", rows.place(at), stage.name),
    )
}

#[cfg(test)]
mod agreement;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ModelConfig;

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
}
