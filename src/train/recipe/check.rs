//! What a recipe must hold to be run, beyond its spelling.

use super::{
    DataKind, DataSource, Distill, LabelPairs, Precision, Recipe, RecipeError, Slot, Stage,
    StageKind, Sts, StsLoss, Trained, Training,
};

/// What is wrong, without the place.
type Check = Result<(), String>;

/// Ends a check with a message unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            return Err(format!($($message)+));
        }
    };
}

impl Recipe {
    pub(super) fn check(&self) -> Result<(), RecipeError> {
        let in_file = |what: String| RecipeError::file(format!("{}: {what}", self.path));
        self.check_head().map_err(in_file)?;
        for (name, source) in &self.data {
            self.check_source(name, source).map_err(in_file)?;
        }
        for (index, stage) in self.stages.iter().enumerate() {
            self.check_stage(index, stage)
                .map_err(|what| RecipeError::file(format!("{}: {what}", self.place(stage))))?;
        }
        Ok(())
    }

    fn check_head(&self) -> Check {
        ensure!(is_plain(&self.name), "name is {:?}; expected letters, digits, - _ .", self.name);
        ensure!(!self.stages.is_empty(), "there is no [[stage]]");
        ensure!(
            (4..=1024).contains(&self.max_tokens),
            "max_tokens is {}; expected 4 to 1024",
            self.max_tokens
        );
        Ok(())
    }

    fn check_source(&self, name: &str, source: &DataSource) -> Check {
        let license = source.license.trim().to_lowercase();
        ensure!(
            !(license.is_empty() || license.contains("not stated") || license == "unknown"),
            "data.{name} has no stated licence ({:?}); a model trained on it cannot be given away",
            source.license
        );
        ensure!(
            source.file.is_empty() != source.made_by.is_none(),
            "data.{name} needs one of file and made_by"
        );
        ensure!(
            source.made_by.is_none() || source.kind == DataKind::Sts,
            "data.{name}: labelled pairs are of kind \"sts\""
        );
        ensure!(
            !source.running_text || source.kind == DataKind::Sentences,
            "data.{name}: running_text is for kind \"sentences\""
        );
        ensure!(
            source.weight > 0.0 && source.weight.is_finite(),
            "data.{name}: weight is {}",
            source.weight
        );
        ensure!(
            !is_evaluation_split(&source.file),
            "data.{name} is {:?}, a dev or test split: it may only stand under [[evaluate]]",
            source.file
        );
        ensure!(
            self.evaluate.iter().all(|set| set.file != source.file),
            "data.{name} is {:?}, an evaluation set too",
            source.file
        );
        ensure!(
            source.max_score > 0.0 && source.max_score.is_finite(),
            "data.{name}: max_score is {}",
            source.max_score
        );
        Ok(())
    }

    fn check_stage(&self, index: usize, stage: &Stage) -> Check {
        ensure!(is_plain(&stage.name), "a name has only letters, digits, - _ .");
        ensure!(
            self.stages[..index].iter().all(|other| other.name != stage.name),
            "the name occurs twice"
        );
        self.check_data(index, stage)?;
        match &stage.kind {
            StageKind::PickLayers(stage) => {
                ensure!(!stage.layers.is_empty(), "layers = [...] is missing");
            }
            StageKind::Widen(stage) => {
                ensure!(!stage.layers.is_empty(), "layers = [...] is missing");
                ensure!(stage.intermediate_size.is_some(), "intermediate_size = N is missing");
            }
            StageKind::PruneVocabulary(stage) => {
                ensure!(stage.vocabulary != 0, "vocabulary = N is missing");
            }
            StageKind::LabelPairs(stage) => self.check_labels(index, stage)?,
            StageKind::Contrast(_) => {
                let related = |name: &&String| self.data[*name].running_text;
                if let Some(name) = stage.data().iter().find(related) {
                    return Err(format!(
                        "sentences of data.{name} are related, not alike: contrast cannot use them"
                    ));
                }
            }
            _ => {}
        }
        if let Some(training) = stage.training() {
            check_training(training)?;
            ensure!(
                stage.dimensions().is_sorted_by(|a, b| a < b)
                    && stage.dimensions().first() != Some(&0),
                "dimensions are {:?}; expected rising",
                stage.dimensions()
            );
            if let Some(name) = stage.data().iter().find(|name| self.data[*name].weight != 1.0) {
                self.check_weighted(name, stage)?;
            }
        }
        match &stage.kind {
            StageKind::Sts(stage) => self.check_sts(stage),
            StageKind::Distill(stage) => check_distill(stage),
            StageKind::CrossEncoder(stage) => {
                ensure!(
                    stage.training.model == Slot::Teacher,
                    "a cross-encoder starts from the teacher: model = \"teacher\""
                );
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn check_data(&self, index: usize, stage: &Stage) -> Check {
        for name in stage.data() {
            let Some(source) = self.data.get(name) else {
                return Err(format!("there is no [data.{name}]"));
            };
            let Some(maker) = &source.made_by else { continue };
            let made = self.stages[..index].iter().any(|stage| {
                stage.name == *maker && matches!(stage.kind, StageKind::LabelPairs(_))
            });
            ensure!(made, "data.{name} needs a label_pairs stage {maker:?} before");
        }
        let works_without = matches!(
            stage.kind,
            StageKind::PickLayers(_) | StageKind::Widen(_) | StageKind::Export(_)
        );
        ensure!(works_without || !stage.data().is_empty(), "data = [...] is missing");
        Ok(())
    }

    fn check_labels(&self, index: usize, stage: &LabelPairs) -> Check {
        ensure!(self.scorer(index).is_some(), "there is no such cross_encoder stage before");
        ensure!(
            (0.0..=1.0).contains(&stage.teacher_share),
            "teacher_share is {}; expected 0 to 1",
            stage.teacher_share
        );
        Ok(())
    }

    /// Of data whose rows count otherwise than once.
    fn check_weighted(&self, name: &str, stage: &Stage) -> Check {
        let StageKind::Sts(stage) = &stage.kind else {
            return Err(format!("data.{name} has a weight, which is for sts stages"));
        };
        ensure!(
            stage.own.loss != StsLoss::Cosent,
            "data.{name} has a weight; CoSENT compares scores across rows, so use loss = \"mse\""
        );
        Ok(())
    }

    fn check_sts(&self, stage: &Trained<Sts>) -> Check {
        let Trained { training, own } = stage;
        check_weight("rounding_weight", own.rounding_weight)?;
        ensure!(
            own.rounding_weight == 0.0 || training.quantize_bits.is_some(),
            "rounding_weight is of sts stages with quantize_bits"
        );
        check_weight("pairs_weight", own.pairs_weight)?;
        let pairs = training.data.iter().any(|name| self.data[name].kind == DataKind::Pairs);
        ensure!(
            own.pairs_weight == 0.0 || pairs,
            "pairs_weight is of sts stages with data of kind \"pairs\""
        );
        if let Some(tokens) = own.pairs_tokens {
            ensure!(
                own.pairs_weight > 0.0 && (4..=1024).contains(&tokens),
                "pairs_tokens is {tokens}; expected 4 to 1024, with pairs_weight"
            );
        }
        ensure!(
            own.pairs_weight == 0.0 || own.pairs_batch >= 2,
            "pairs_batch is {}; expected at least 2",
            own.pairs_batch
        );
        check_weight("pairs_teacher_weight", own.pairs_teacher_weight)?;
        ensure!(
            own.pairs_teacher_weight == 0.0
                || own.pairs_weight > 0.0 && training.model == Slot::Student,
            "pairs_teacher_weight is of the student's stages with pairs_weight"
        );
        Ok(())
    }
}

fn check_training(training: &Training) -> Check {
    ensure!(training.steps > 0, "steps = N is missing");
    ensure!(training.batch >= 2, "batch is {}; expected at least 2", training.batch);
    let rate = training.learning_rate;
    ensure!(rate > 0.0 && rate < 1.0, "learning_rate is {rate}");
    ensure!(
        (0.0..1.0).contains(&training.dropout) && (0.0..=1.0).contains(&training.warmup),
        "dropout and warmup lie between 0 and 1"
    );
    ensure!(training.minutes.is_none_or(|minutes| minutes > 0.0), "minutes must be above 0");
    ensure!(
        training.quantize_bits.is_none_or(|bits| (4..=8).contains(&bits)),
        "quantize_bits lies between 4 and 8"
    );
    ensure!(
        training.precision == Precision::F32 || training.quantize_bits.is_none(),
        "quantize_bits need precision = \"f32\": they are the run time's"
    );
    Ok(())
}

fn check_distill(stage: &Trained<Distill>) -> Check {
    let Trained { training, own } = stage;
    ensure!(training.model == Slot::Student, "only the student is distilled");
    check_weight("middle_weight", own.middle_weight)?;
    ensure!(
        (own.middle_weight > 0.0) != own.middle_layers.is_empty(),
        "middle_weight and middle_layers go together"
    );
    Ok(())
}

fn check_weight(name: &str, weight: f64) -> Check {
    ensure!(weight >= 0.0 && weight.is_finite(), "{name} is {weight}");
    Ok(())
}

fn is_plain(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with('.')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
}

/// Whether a file's name says that it is a dev, validation or test split.
fn is_evaluation_split(file: &str) -> bool {
    let name = file.rsplit('/').next().unwrap_or(file).to_lowercase();
    name.split(|c: char| !c.is_ascii_alphabetic())
        .any(|part| matches!(part, "dev" | "test" | "valid" | "validation"))
        // Sentences of other tasks' dev sets, which no evaluation here uses.
        && !name.contains("ner_dp_dev")
}
