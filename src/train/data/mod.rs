//! Training data: tables, filtered as the recipe says, checked against
//! the evaluation sets, tokenized once.

mod batches;
mod folders;
mod leakage;
mod rows;
mod store;

pub use batches::batches;
pub use folders::{Folders, LABELLED_PAIRS, inside};
pub use leakage::EvalSentences;
pub use rows::{Row, Rows, Target};
pub use store::{Purpose, TokenStore};
