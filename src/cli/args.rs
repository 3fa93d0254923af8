//! Arguments that several commands share.

use std::path::PathBuf;

use clap::Args;

use crate::convert::Manifest;
use crate::error::{Error, Result};
use crate::files::read;
use crate::model::Encoder;

/// Which model.
#[derive(Args)]
pub struct ModelArg {
    /// The model file, its manifest.json, or the folder of that. Without it the first of:
    /// MUNJANG_MODEL; models/manifest.json in the working directory or one above it; the same
    /// beside the program or above it
    #[arg(long, value_name = "PATH", env = "MUNJANG_MODEL")]
    model: Option<PathBuf>,
}

impl ModelArg {
    /// Loads the model that `--model`, `MUNJANG_MODEL` or the default place names.
    pub(super) fn load(&self) -> Result<Encoder> {
        let path = match &self.model {
            Some(path) if path.is_dir() => path.join("manifest.json"),
            Some(path) => path.clone(),
            None => default_manifest()?,
        };
        if path.extension().is_some_and(|extension| extension == "json") {
            return Encoder::from_bytes(Manifest::read_model(&path)?.1);
        }
        Encoder::from_bytes(read(&path)?)
    }
}

fn default_manifest() -> Result<PathBuf> {
    let starts = [std::env::current_dir(), std::env::current_exe()];
    starts
        .iter()
        .flatten()
        .flat_map(|start| start.ancestors())
        .map(|folder| folder.join("models/manifest.json"))
        .find(|path| path.is_file())
        .ok_or_else(|| {
            Error::input_invalid(
                "no model: give --model PATH, set MUNJANG_MODEL, or run where models/manifest.json is",
            )
        })
}
