//! `manifest.json`: which model file lies beside it, and how to know that it is whole.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::ModelInfo;
use crate::error::{Error, ErrorKind, Result};
use crate::files::read;
use crate::hash::sha256_hex;

/// What a loader needs to know before it fetches a model file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Name of the model file, beside the manifest.
    pub file: String,
    /// Its size.
    pub bytes: usize,
    /// SHA-256 of its bytes, in hex.
    pub sha256: String,
    /// [`ModelInfo::model_id`] of the model in it.
    pub model_id: String,
    /// [`ModelInfo::format_version`] of the file.
    pub format_version: u32,
}

impl Manifest {
    /// Describes the model file `file` with the content `bytes`, loaded as `info`.
    pub fn new(file: impl Into<String>, bytes: &[u8], info: &ModelInfo) -> Self {
        Manifest {
            file: file.into(),
            bytes: bytes.len(),
            sha256: sha256_hex(bytes),
            model_id: info.model_id.clone(),
            format_version: info.format_version,
        }
    }

    /// The manifest as JSON text with a final line break.
    pub fn to_json(&self) -> String {
        let json = serde_json::to_string_pretty(self).expect("strings and numbers become JSON");
        json + "\n"
    }

    /// Reads the model file that the manifest at `path` names and checks it against size and
    /// SHA-256.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] if a file cannot be read, [`ErrorKind::DataInvalid`] if the manifest is
    /// not one, [`ErrorKind::WeightsMismatch`] if the model file is another.
    pub fn read_model(path: &Path) -> Result<(PathBuf, Vec<u8>)> {
        let manifest: Manifest = serde_json::from_slice(&read(path)?).map_err(|source| {
            Error::new(ErrorKind::DataInvalid, format!("{} is not a manifest", path.display()))
                .with_source(source)
        })?;
        if Path::new(&manifest.file).components().count() != 1 {
            return Err(Error::new(
                ErrorKind::DataInvalid,
                format!("{}: file is {:?}; expected a name", path.display(), manifest.file),
            ));
        }
        let file = path.with_file_name(&manifest.file);
        let bytes = read(&file)?;
        let differs = |what: &str, found: String, expected: String| {
            Error::new(
                ErrorKind::WeightsMismatch,
                format!(
                    "{} is not the file that {} describes: {what} is {found}; expected {expected}",
                    file.display(),
                    path.display()
                ),
            )
        };
        if bytes.len() != manifest.bytes {
            return Err(differs("size", bytes.len().to_string(), manifest.bytes.to_string()));
        }
        let sha256 = sha256_hex(&bytes);
        if sha256 != manifest.sha256 {
            return Err(differs("SHA-256", sha256, manifest.sha256));
        }
        Ok((file, bytes))
    }
}
