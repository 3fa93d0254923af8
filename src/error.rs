//! The crate's one error type.

use std::fmt;

/// What went wrong, coarsely enough to branch on. [`ErrorKind::code`] is the stable spelling that
/// the command line (`--json`) and the npm package (`MunjangError.code`) show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The model file ends before what its header promises.
    WeightsTruncated,
    /// The model file is not one: bad magic, bad JSON, lying offsets, non-finite scales.
    WeightsMalformed,
    /// A tensor is missing, or has another dtype or shape than the config asks for.
    WeightsMismatch,
    /// The model file was written in a format version that this build does not read.
    WeightsVersion,
    /// A size or name in a configuration is missing, contradictory or out of bounds.
    ConfigInvalid,
    /// A Hugging Face checkpoint is incomplete or damaged.
    CheckpointInvalid,
    /// A checkpoint is of an architecture that munjang does not run.
    CheckpointUnsupported,
    /// The tokenizer does not load or does not fit the model.
    TokenizerInvalid,
    /// The tokenizer is of a kind that this build leaves out: it was made without the feature
    /// `general-tokenizers`.
    TokenizerUnsupported,
    /// An argument is outside of what the function documents.
    InputInvalid,
    /// A data file (TSV, JSONL, recipe) has a bad row; the message names file and line.
    DataInvalid,
    /// A computation left the finite numbers.
    NonFinite,
    /// Training: a device, or its memory, failed in the middle of a computation.
    ComputeFailed,
    /// A search index belongs to another model, or is damaged.
    IndexInvalid,
    /// Reading or writing a file failed.
    Io,
    /// The work was interrupted on request.
    Interrupted,
}

impl ErrorKind {
    /// The stable code, in snake case; it never changes within a major version.
    pub fn code(self) -> &'static str {
        match self {
            ErrorKind::WeightsTruncated => "weights_truncated",
            ErrorKind::WeightsMalformed => "weights_malformed",
            ErrorKind::WeightsMismatch => "weights_mismatch",
            ErrorKind::WeightsVersion => "weights_version",
            ErrorKind::ConfigInvalid => "config_invalid",
            ErrorKind::CheckpointInvalid => "checkpoint_invalid",
            ErrorKind::CheckpointUnsupported => "checkpoint_unsupported",
            ErrorKind::TokenizerInvalid => "tokenizer_invalid",
            ErrorKind::TokenizerUnsupported => "tokenizer_unsupported",
            ErrorKind::InputInvalid => "input_invalid",
            ErrorKind::DataInvalid => "data_invalid",
            ErrorKind::NonFinite => "non_finite",
            ErrorKind::ComputeFailed => "compute_failed",
            ErrorKind::IndexInvalid => "index_invalid",
            ErrorKind::Io => "io",
            ErrorKind::Interrupted => "interrupted",
        }
    }
}

/// An error with a kind, a message for people (what was wrong, with which input, what to do) and,
/// where one exists, the underlying error as [`source`](std::error::Error::source). Shown by `{}` it
/// leaves out the source, by `{:#}` it ends with it.
pub struct Error {
    kind: ErrorKind,
    message: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// The crate's result type.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error of `kind` that says `message`.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Error { kind, message: message.into(), source: None }
    }

    /// The same error with its cause attached.
    pub fn with_source(
        mut self,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The same error in other words: kind and cause stay.
    #[cfg(feature = "train")]
    pub(crate) fn reworded(self, message: impl Into<String>) -> Self {
        Error { message: message.into(), ..self }
    }

    /// An I/O error that names what was being done, such as `"cannot read model.munjang"`.
    pub fn io(what: impl fmt::Display, source: std::io::Error) -> Self {
        Error::new(ErrorKind::Io, what.to_string()).with_source(source)
    }

    /// The kind to branch on.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Shorthand for `self.kind().code()`.
    pub fn code(&self) -> &'static str {
        self.kind.code()
    }
}

/// Errors of one kind, by the code that it has.
macro_rules! of_kinds {
    ($($name:ident $kind:ident)*) => {
        // Which of them are used depends on the features.
        #[allow(dead_code)]
        impl Error {
            $(pub(crate) fn $name(message: impl Into<String>) -> Self {
                Error::new(ErrorKind::$kind, message)
            })*

            /// [`ErrorKind::DataInvalid`] in one line of a file.
            pub(crate) fn in_line(file: &str, line: usize, what: impl fmt::Display) -> Self {
                Error::data_invalid(format!("{file}:{line}: {what}"))
            }
        }
    };
}

of_kinds! {
    weights_truncated WeightsTruncated
    weights_malformed WeightsMalformed
    weights_mismatch WeightsMismatch
    config_invalid ConfigInvalid
    checkpoint_invalid CheckpointInvalid
    checkpoint_unsupported CheckpointUnsupported
    tokenizer_invalid TokenizerInvalid
    tokenizer_unsupported TokenizerUnsupported
    input_invalid InputInvalid
    data_invalid DataInvalid
    index_invalid IndexInvalid
    non_finite NonFinite
}

/// `{}` is what was wrong, with which input and what to do; `{:#}` appends the causes, each after
/// a colon, for those who print one line.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if f.alternate() {
            let mut cause = std::error::Error::source(self);
            while let Some(error) = cause {
                write!(f, ": {error}")?;
                cause = error.source();
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:#} [{}]", self.code())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_told_once() {
        let cause = std::io::Error::new(std::io::ErrorKind::NotFound, "no such thing");
        let inner = Error::io("cannot read x", cause);
        assert_eq!(inner.to_string(), "cannot read x");
        assert_eq!(format!("{inner:#}"), "cannot read x: no such thing");
        assert_eq!(format!("{inner:?}"), "cannot read x: no such thing [io]");
        let outer = Error::data_invalid("y is not usable").with_source(inner);
        assert_eq!(format!("{outer}"), "y is not usable");
        assert_eq!(format!("{outer:#}"), "y is not usable: cannot read x: no such thing");
        assert_eq!(Error::in_line("a.tsv", 3, "bad").to_string(), "a.tsv:3: bad");
    }
}
