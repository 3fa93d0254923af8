//! A run in one small folder, to be carried to a machine that has a GPU and nothing else: token ids
//! in place of text, the models that the remaining stages begin with, and the recipe.
//!
//! Texts become numbers. A packed run sees the text `"17"` wherever an unpacked one sees the
//! eighteenth text, and looks its token ids up instead of cutting it; everything else is the same
//! code. Matrices travel as f16: a weight moves by at most 2⁻¹¹ of itself, a sixteenth of the
//! smallest step of the 7-bit weights that ship. [`pack`] measures that on the data and keeps f32
//! where a sentence vector would turn by a cosine below `LEAST_COSINE`.

mod codec;
pub(super) mod contents;
mod damaged;
mod run;
mod texts;
mod write;

pub use contents::PackedRun;
pub use run::run_packed;
pub use write::{MOST_BYTES, pack};
