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
        Error::new(ErrorKind::InputInvalid, "a tensor operation failed").with_source(error)
    }
}
