//! What the trainer's own errors become in the crate's.

use candle_core::Error as TensorError;

use super::recipe::RecipeError;
use crate::error::{Error, ErrorKind};

impl From<RecipeError> for Error {
    fn from(error: RecipeError) -> Self {
        let kind = if error.in_file() { ErrorKind::DataInvalid } else { ErrorKind::InputInvalid };
        Error::new(kind, error.to_string())
    }
}

impl From<TensorError> for Error {
    fn from(error: TensorError) -> Self {
        let (kind, what) = match cause(&error) {
            TensorError::Io(_) => (ErrorKind::Io, "a tensor's file cannot be read or written"),
            TensorError::Cuda(_) | TensorError::Metal(_) => {
                let what = "the GPU failed: if its memory is full, a smaller batch or max_tokens takes less";
                (ErrorKind::ComputeFailed, what)
            }
            _ => (ErrorKind::ComputeFailed, "a tensor operation failed"),
        };
        Error::new(kind, what).with_source(error)
    }
}

/// The error below its notes.
fn cause(error: &TensorError) -> &TensorError {
    match error {
        TensorError::WithBacktrace { inner, .. }
        | TensorError::WithPath { inner, .. }
        | TensorError::Context { inner, .. } => cause(inner),
        error => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_tensors_keep_their_kind() {
        let code = |error: TensorError| Error::from(error).code();
        let full = || std::io::Error::from(std::io::ErrorKind::StorageFull);
        assert_eq!(code(TensorError::Io(full()).with_path("a.safetensors")), "io");
        assert_eq!(code(TensorError::Cuda("out of memory".into()).bt()), "compute_failed");
        assert_eq!(code(TensorError::msg("sizes differ").context("in a loss")), "compute_failed");
        let error = Error::from(TensorError::Cuda("out of memory".into()));
        assert!(
            format!("{error:#}").contains("smaller batch")
                && format!("{error:#}").ends_with("out of memory")
        );
    }
}
