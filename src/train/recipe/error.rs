//! What can be wrong with a recipe, or with what is asked of one.

use std::fmt;

/// A message for people: what was wrong, where, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecipeError {
    message: String,
    in_file: bool,
}

impl RecipeError {
    /// The file is at fault.
    pub(super) fn file(message: impl Into<String>) -> Self {
        RecipeError { message: message.into(), in_file: true }
    }

    /// What was asked of the recipe is at fault.
    pub(super) fn request(message: impl Into<String>) -> Self {
        RecipeError { message: message.into(), in_file: false }
    }

    /// Whether the recipe's file is at fault, and not what was asked of it.
    pub fn in_file(&self) -> bool {
        self.in_file
    }
}

impl fmt::Display for RecipeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for RecipeError {}
