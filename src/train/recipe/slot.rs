//! Teacher and student.

use serde::{Deserialize, Serialize};

/// Which of the two models a stage works on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Slot {
    /// The large one.
    Teacher,
    /// The one that is exported.
    #[default]
    Student,
}

impl Slot {
    /// Both.
    pub const ALL: [Slot; 2] = [Slot::Teacher, Slot::Student];

    /// As the recipe spells it.
    pub fn name(self) -> &'static str {
        match self {
            Slot::Teacher => "teacher",
            Slot::Student => "student",
        }
    }
}
