//! A model in 32-bit floats: what checkpoint readers and the trainer produce and what
//! [`format::write`](crate::format::write) quantizes. It is never needed at run time.

use crate::config::ModelConfig;

/// A row-major matrix, `rows × cols`.
#[derive(Clone, Debug, PartialEq)]
pub struct Matrix {
    /// Number of rows.
    pub rows: usize,
    /// Number of columns.
    pub cols: usize,
    /// `rows · cols` values, row after row.
    pub data: Vec<f32>,
}

impl Matrix {
    /// Row `row`, `cols` values.
    pub fn row(&self, row: usize) -> &[f32] {
        &self.data[row * self.cols..(row + 1) * self.cols]
    }
}

/// A linear layer `y = x · weightᵀ + bias`.
#[derive(Clone, Debug, PartialEq)]
pub struct Linear {
    /// `out_features × in_features`, as PyTorch stores it.
    pub weight: Matrix,
    /// `out_features` values.
    pub bias: Vec<f32>,
}

/// Gain and bias of a layer normalization, one value each for every value of a row.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerNorm {
    /// Gain (`weight` in PyTorch).
    pub weight: Vec<f32>,
    /// Bias.
    pub bias: Vec<f32>,
}

/// One post-norm transformer layer (BERT).
#[derive(Clone, Debug, PartialEq)]
pub struct Layer {
    /// `hidden × hidden`.
    pub query: Linear,
    /// `hidden × hidden`.
    pub key: Linear,
    /// `hidden × hidden`.
    pub value: Linear,
    /// `hidden × hidden`.
    pub attention_output: Linear,
    /// After the attention's residual.
    pub attention_norm: LayerNorm,
    /// `intermediate × hidden`.
    pub intermediate: Linear,
    /// `hidden × intermediate`.
    pub output: Linear,
    /// After the feed-forward's residual.
    pub output_norm: LayerNorm,
}

/// All weights of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct FloatModel {
    /// Sizes and choices; the matrices below have exactly these shapes.
    pub config: ModelConfig,
    /// The `tokenizer.json` that produces the ids, as bytes.
    pub tokenizer_json: Vec<u8>,
    /// `vocab_size × embedding_width`, which is `hidden_size` but in ELECTRA.
    pub word_embeddings: Matrix,
    /// `max_position_embeddings × embedding_width`, token type 0 added in.
    pub position_embeddings: Matrix,
    /// Of the sum of both.
    pub embedding_norm: LayerNorm,
    /// `num_hidden_layers` of them.
    pub layers: Vec<Layer>,
    /// What only some models have.
    pub additions: Additions,
}

/// Weights that the config asks for beyond a BERT's.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Additions {
    /// With `pad_token_id`: the position of that token, token type 0 added in; as wide as the
    /// embeddings.
    pub padding_position: Option<Vec<f32>>,
    /// With `embedding_size`: `hidden_size × embedding_size`, after the embeddings' normalization.
    pub embedding_projection: Option<Linear>,
    /// One for each dense module of `after_pooling`.
    pub dense: Vec<Linear>,
}
