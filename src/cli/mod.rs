//! The command line: one file a command, each with its arguments and a `run`. Public because the
//! program `munjang` needs it, not as an interface.

mod args;
pub mod convert;
mod corpus;
pub mod encode;
pub mod eval;
pub mod index;
pub mod info;
mod lines;
mod output;
pub mod search;
pub mod similarity;
#[cfg(feature = "train")]
pub mod train;

pub use args::mark_texts;
pub use output::exit_code;
