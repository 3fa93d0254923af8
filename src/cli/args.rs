//! Arguments that several commands share.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

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
        match &self.model {
            Some(path) => load(path),
            None => load(&default_manifest()?),
        }
    }
}

/// Loads the model at `path`: a model file, its manifest, or the folder of that.
pub(super) fn load(path: &Path) -> Result<Encoder> {
    let path = if path.is_dir() { path.join("manifest.json") } else { path.to_owned() };
    if path.extension().is_some_and(|extension| extension == "json") {
        return Encoder::from_bytes(Manifest::read_model(&path)?.1);
    }
    Encoder::from_bytes(read(&path)?)
}

/// Put before an argument that begins with a hyphen and is a text.
const TEXT: char = '\u{1}';

/// Marks arguments that begin with a hyphen but cannot be options, such as `-비가 옵니다`, so that they are
/// taken as texts wherever they stand. Options have a name of ASCII letters.
pub fn mark_texts(args: impl Iterator<Item = OsString>) -> impl Iterator<Item = OsString> {
    args.map(|arg| match arg.to_str() {
        Some(text) if is_text(text) => format!("{TEXT}{text}").into(),
        _ => arg,
    })
}

fn is_text(arg: &str) -> bool {
    let Some(name) = arg.strip_prefix('-') else { return false };
    match name.strip_prefix('-') {
        Some(long) => !long.is_empty() && !long.starts_with(|c: char| c.is_ascii_alphabetic()),
        None => !name.starts_with(|c: char| c.is_ascii_alphabetic()),
    }
}

/// A text of the command line, without the mark of [`mark_texts`].
#[allow(clippy::unnecessary_wraps)]
pub(super) fn text(arg: &str) -> std::result::Result<String, std::convert::Infallible> {
    Ok(arg.strip_prefix(TEXT).filter(|text| is_text(text)).unwrap_or(arg).to_owned())
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
