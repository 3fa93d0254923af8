//! Search over sentence embeddings and words: similarity, an exact vector index, BM25 over character
//! bigrams, passages, and their fusion in a [`HybridIndex`].
//!
//! Scores are the same bits on every machine: products of codes are summed in integers, float
//! operations are correctly rounded and in a fixed order, and equal scores are ranked by insertion.

mod bm25;
mod dot;
mod fusion;
mod hybrid_index;
mod passages;
mod places;
mod scan;
mod top_k;
mod vector_index;
mod vectors;
mod words;

pub use bm25::{Bm25, Bm25Scores, QueryTerms};
pub use dot::{dot, similarity_matrix};
pub use fusion::{DEFAULT_SEMANTIC, RRF_K, fused_score, reciprocal_rank_fusion};
pub use hybrid_index::{HybridHit, HybridIndex, HybridQuery};
pub use passages::{DEFAULT_MAX_CHARS, cut_passages};
pub use places::{from_utf16, to_utf16};
pub use top_k::{TopK, top_k};
pub(crate) use vector_index::checked_model_id;
pub use vector_index::{SearchOptions, VectorHit, VectorIndex};
pub use vectors::{MAX_DIMENSION, Precision};
pub use words::marks;
