//! Where the files of data lie.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::train::recipe::DataSource;

/// The folders of a run's data.
#[derive(Clone, Copy, Debug)]
pub struct Folders<'a> {
    /// Files that recipes name.
    pub data: &'a Path,
    /// What the run itself makes.
    pub out: &'a Path,
}

impl Folders<'_> {
    /// The file of a source.
    pub fn file(&self, source: &DataSource) -> PathBuf {
        match &source.made_by {
            Some(stage) => self.out.join(stage).join(LABELLED_PAIRS),
            None => self.data.join(&source.file),
        }
    }
}

/// What a `label_pairs` stage leaves in its folder.
pub const LABELLED_PAIRS: &str = "pairs.tsv";

/// The path of a data file, checked to be inside of the data folder.
///
/// # Errors
/// [`ErrorKind::DataInvalid`] if it leaves the folder.
pub fn inside(data: &Path, file: &str) -> Result<PathBuf> {
    let relative = Path::new(file);
    let plain = relative.components().all(|part| matches!(part, std::path::Component::Normal(_)));
    if !plain {
        return Err(Error::data_invalid(format!(
            "data file {file:?}: expected a path below the data folder"
        )));
    }
    Ok(data.join(relative))
}
