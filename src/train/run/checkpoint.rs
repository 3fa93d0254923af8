//! What a stopped stage goes on from.

use std::collections::HashMap;
use std::path::Path;

use candle_core::Tensor;

use super::tensor_file::TensorFile;
use crate::error::{Error, ErrorKind, Result};

/// The state of a running stage. It is written when its weights are known to be good: they have had a finite
/// loss and finite gradients.
pub struct Checkpoint {
    /// What the stage depends on; a run with others does not go on from here.
    pub settings: String,
    /// Steps done.
    pub step: usize,
    /// Time that they took.
    pub seconds: f64,
    /// Weights (`model.…`), moments and averages by name.
    pub tensors: HashMap<String, Tensor>,
}

impl Checkpoint {
    /// Writes it atomically.
    ///
    /// # Errors
    /// `io` (a full disk, say); an older checkpoint stays.
    pub fn write(&self, path: &Path) -> Result<()> {
        let notes = HashMap::from([
            ("settings".to_owned(), self.settings.clone()),
            ("step".to_owned(), self.step.to_string()),
            ("seconds".to_owned(), self.seconds.to_string()),
        ]);
        TensorFile { tensors: self.tensors.clone(), notes }.write(path)
    }

    /// Reads it back.
    ///
    /// # Errors
    /// `io`; `weights_malformed` if it is damaged.
    pub fn read(path: &Path) -> Result<Self> {
        let TensorFile { tensors, mut notes } = TensorFile::read(path)?;
        let mut note = |name: &str| {
            notes.remove(name).ok_or_else(|| {
                let text = format!("{}: the checkpoint lacks {name}", path.display());
                Error::new(ErrorKind::WeightsMalformed, text)
            })
        };
        let number = |name: &str, text: &str| {
            let text = format!("{}: {name} of the checkpoint is {text:?}", path.display());
            Error::new(ErrorKind::WeightsMalformed, text)
        };
        let (settings, step, seconds) = (note("settings")?, note("step")?, note("seconds")?);
        Ok(Checkpoint {
            settings,
            step: step.parse().map_err(|_| number("step", &step))?,
            seconds: seconds.parse().map_err(|_| number("seconds", &seconds))?,
            tensors,
        })
    }
}
