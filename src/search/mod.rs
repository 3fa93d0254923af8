//! Search over sentence embeddings: similarity, the best `k`, and an exact flat index.

mod flat_index;
mod similarity;
mod top_k;

pub use flat_index::{FlatIndex, Hit};
pub use similarity::{dot, similarity_matrix};
pub use top_k::top_k;
