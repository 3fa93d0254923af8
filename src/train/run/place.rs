//! Where a run finds and leaves its files.

use std::path::PathBuf;

use candle_core::Device;

use crate::error::{Error, ErrorKind};
use crate::train::data::Folders;
use crate::train::packed::contents::PackedRun;
use crate::train::recipe::{Recipe, Slot, Stage};

/// A recipe, and the folders that it is run on.
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
    /// In place of data folder and checkpoints: what [`PackedRun`] holds of them.
    pub packed: Option<PackedRun>,
}

impl Run {
    /// A run on the CPU that makes its student from the teacher.
    pub fn new(recipe: Recipe, data: PathBuf, teacher: PathBuf, out: PathBuf) -> Self {
        let device = Device::Cpu;
        Run { recipe, data, teacher, student: None, from: None, out, device, packed: None }
    }

    /// Where data files lie.
    pub fn folders(&self) -> Folders<'_> {
        Folders { data: &self.data, out: &self.out }
    }

    /// The folder of a stage.
    pub fn folder(&self, stage: &Stage) -> PathBuf {
        self.out.join(&stage.name)
    }

    /// The file of the model that a stage leaves.
    pub(in crate::train) fn model_file(&self, stage: &Stage) -> PathBuf {
        self.folder(stage).join("model.safetensors")
    }

    /// Whether [`Run::from`] says that stage `index` is not run.
    pub(in crate::train) fn left_out(&self, index: usize) -> bool {
        let of_student = self.recipe.stages[index].writes() == Some(Slot::Student);
        of_student && self.from.is_some_and(|from| index < from)
    }

    /// Says where in the recipe the stage stands that something went wrong in.
    pub(in crate::train) fn in_stage(&self, index: usize, error: Error) -> Error {
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
}
