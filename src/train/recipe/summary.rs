//! Stages in a few words, as the model card shows them.

use serde_json::json;

use super::{Slot, Stage, StageKind};

impl Stage {
    /// Its kind, as recipes spell it.
    pub fn kind_name(&self) -> String {
        json!(self.kind)["kind"].as_str().unwrap_or_default().to_owned()
    }

    /// What it does, with the numbers that tell it from others of its kind.
    pub fn summary(&self) -> String {
        let (model, data) = (self.model().name(), self.data().len());
        match &self.kind {
            StageKind::PruneVocabulary(stage) => {
                format!("vocabulary cut to {} pieces", stage.vocabulary)
            }
            StageKind::Center(_) => format!("mean sentence vector of the {model} moved to zero"),
            StageKind::ShiftStates(_) => {
                format!("states of the {model} moved near zero, biases with them")
            }
            StageKind::PickLayers(stage) => {
                format!("student from layers {:?} of the teacher", stage.layers)
            }
            StageKind::Widen(stage) => format!(
                "feed-forwards of the student widened to {} units, from the layers left out",
                stage.intermediate_size.unwrap_or_default()
            ),
            StageKind::Contrast(_) => format!("supervised SimCSE of the {model} on {data} sets"),
            StageKind::Sts(stage) => {
                let stage = &stage.own;
                let teacher = if self.model() == Slot::Student && stage.teacher_weight > 0.0 {
                    " with the teacher's term"
                } else {
                    ""
                };
                let pairs = match (stage.pairs_weight > 0.0, stage.pairs_teacher_weight > 0.0) {
                    (true, true) => {
                        " and retrieval of partners, as the untrained teacher ranks them"
                    }
                    (true, false) => " and retrieval of partners",
                    _ => "",
                };
                format!("STS regression of the {model}{teacher}{pairs}")
            }
            StageKind::Distill(_) => format!("distillation on sentences of {data} sources"),
            StageKind::CrossEncoder(_) => "cross-encoder from the teacher, on scored pairs".into(),
            StageKind::LabelPairs(_) => {
                format!("pairs of {data} sources scored by the cross-encoder")
            }
            StageKind::Export(_) => "export".into(),
        }
    }
}
