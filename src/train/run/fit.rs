//! Whether models and recipe fit each other, before hours are spent on it.

use super::place::Run;
use crate::bytes::AlignedBytes;
use crate::convert::{Manifest, Shape};
use crate::error::{Error, Result};
use crate::format::ModelFile;
use crate::train::packed::contents::PackedRun;
use crate::train::recipe::{Slot, Stage, StageKind};

/// Layers of teacher and student, where they are known.
struct Layers {
    teacher: Option<usize>,
    student: Option<usize>,
}

impl Run {
    /// Whether the models have the layers that the recipe speaks of; of stage `only`, if it is given.
    pub(in crate::train) fn check_fit(&self, only: Option<usize>) -> Result<()> {
        self.check_exported_shape()?;
        let mut layers =
            Layers { teacher: self.layers(Slot::Teacher)?, student: self.layers(Slot::Student)? };
        for (index, stage) in self.recipe.stages.iter().enumerate() {
            let asked = only.is_none_or(|only| only == index);
            check_stage(stage, asked, &mut layers).map_err(|what| {
                Error::input_invalid(format!("{}: {what}", self.recipe.place(stage)))
            })?;
        }
        Ok(())
    }

    /// Layers of the model of `slot` that the run begins with, if there is one.
    fn layers(&self, slot: Slot) -> Result<Option<usize>> {
        let of = |folder| Ok(Some(Shape::read(folder)?.num_hidden_layers));
        match (&self.packed, slot, &self.student) {
            (Some(packed), _, _) => Ok(PackedRun::num_layers(packed, slot)),
            (None, Slot::Teacher, _) => of(&self.teacher),
            // It has what the stages that are left out would leave.
            (None, Slot::Student, Some(_)) if self.from.is_some() => Ok(None),
            (None, Slot::Student, Some(folder)) => of(folder),
            (None, Slot::Student, None) => Ok(None),
        }
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
            let size = match &stage.kind {
                StageKind::PickLayers(stage) => {
                    let teacher = Shape::read(&self.teacher)?;
                    expected = Some(Shape { num_hidden_layers: stage.layers.len(), ..teacher });
                    stage.intermediate_size
                }
                StageKind::Widen(stage) => stage.intermediate_size,
                _ => None,
            };
            if let (Some(expected), Some(size)) = (&mut expected, size) {
                expected.intermediate_size = size;
            }
        }
        match expected.filter(|&expected| expected != found) {
            None => Ok(()),
            Some(expected) => Err(Error::input_invalid(format!(
                "{}: goes on from {expected}, but {} has {found}; name another stage with --from, or \
                 another recipe",
                self.recipe.place(&self.recipe.stages[from]),
                file.display()
            ))),
        }
    }
}

/// What is wrong with one stage, if it is `asked` for; in any case what it makes of the student's layers.
fn check_stage(stage: &Stage, asked: bool, layers: &mut Layers) -> std::result::Result<(), String> {
    let picked = match &stage.kind {
        StageKind::PickLayers(options) => Some(&options.layers),
        StageKind::Widen(options) => Some(&options.layers),
        _ => None,
    };
    if let (Some(picked), Some(count)) = (picked, layers.teacher) {
        let rising = picked.windows(2).all(|pair| pair[0] < pair[1]);
        if asked && (!rising || picked.iter().any(|&layer| layer >= count)) {
            return Err(format!(
                "layers are {picked:?}; expected rising numbers below {count}, the teacher's layers"
            ));
        }
        if matches!(stage.kind, StageKind::PickLayers(_)) {
            layers.student = Some(picked.len());
        }
    }
    if !asked {
        return Ok(());
    }
    let own = match stage.model() {
        Slot::Teacher => layers.teacher,
        Slot::Student => layers.student,
    };
    let frozen = stage.training().map_or(0, |training| training.freeze_layers);
    if let Some(own) = own.filter(|&own| frozen > own) {
        let model = stage.model().name();
        return Err(format!("freeze_layers is {frozen}; the {model} has {own} layers"));
    }
    let StageKind::Distill(distill) = &stage.kind else { return Ok(()) };
    let beyond = distill.own.middle_layers.iter().find(|pair| {
        layers.student.is_some_and(|count| pair[0] >= count)
            || layers.teacher.is_some_and(|count| pair[1] >= count)
    });
    if let (Some(pair), Some(student), Some(teacher)) = (beyond, layers.student, layers.teacher) {
        return Err(format!(
            "middle_layers has {pair:?}; the student has {student} layers, the teacher {teacher}"
        ));
    }
    Ok(())
}
