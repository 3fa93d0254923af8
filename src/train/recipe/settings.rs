//! What must be the same for a stopped stage to go on.

use serde_json::{Value, json};

use super::{Recipe, Stage};

impl Recipe {
    /// Everything that a stage depends on but how long it lasts and how often it looks around, as one text to
    /// compare.
    pub fn settings(&self, stage: &Stage) -> String {
        let mut stage = stage.clone();
        if let Some(training) = stage.training_mut() {
            training.minutes = None;
            training.evaluate_every = None;
            training.checkpoint_every = None;
        }
        let data: Vec<_> = stage.data().iter().map(|name| (name, &self.data[name])).collect();
        let mut options = unset_options();
        if let (Value::Object(options), Value::Object(set)) = (&mut options, json!(stage)) {
            options.extend(set);
        }
        json!({
            "seed": self.seed, "max_tokens": self.max_tokens, "stage": options, "data": data,
            "teacher_prefix": self.teacher.prefix, "student_prefix": self.student.prefix,
        })
        .to_string()
    }
}

/// Once every stage had the options of every kind; runs that were stopped then go on. A new option does not
/// belong here: it is left out of the settings at its default.
fn unset_options() -> Value {
    json!({
        "model": "student", "data": [], "steps": 0, "minutes": null, "batch": 32,
        "learning_rate": 5e-5, "warmup": 0.1, "decay": "linear", "final_fraction": 0.0,
        "weight_decay": 0.01, "dropout": 0.0f32, "freeze_word_embeddings": false,
        "freeze_embeddings": false, "freeze_layers": 0, "quantize_bits": null, "average": null,
        "loss": "mse", "teacher_weight": 0.0, "temperature": 0.05f32, "state_weight": 0.0,
        "cosine_weight": 1.0, "similarity_weight": 1.0, "quantized_teacher": false, "tau": 0.1f32,
        "layers": [], "vocabulary": 0, "evaluate_every": null, "checkpoint_every": null,
    })
}
