//! What is said of a folder that [`super::pack`] did not write.

use crate::error::Error;

pub(super) fn damaged(what: impl std::fmt::Display) -> Error {
    Error::data_invalid(format!("the packed folder is damaged: {what}"))
}
