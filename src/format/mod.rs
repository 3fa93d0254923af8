//! The model file: [safetensors](https://github.com/huggingface/safetensors) with int8 weights in
//! the order that the kernels read, the configuration, the tokenizer and the model id inside.
//!
//! | tensor | dtype | shape |
//! | --- | --- | --- |
//! | `layers.N.{query_key_value,attention_output,intermediate,output}.weight` | I8 | packed: `[rows / 16, cols / 4, 16 rows, 4 cols]` |
//! | `….scale`, `….bias` | F32 | `[padded channels]` |
//! | `layers.N.{attention,output}_norm.{weight,bias}`, `embedding_norm.{weight,bias}` | F32 | `[padded hidden]` |
//! | `word_embeddings`, `position_embeddings` | I8 | `[rows, padded hidden]`, with `embedding_size` padded to that |
//! | `word_embeddings.scale`, `position_embeddings.scale` | F32 | `[rows]` |
//! | `padding_position`, `padding_position.scale` (with `pad_token_id`) | I8, F32 | as a position of one row |
//! | `embedding_projection.{weight,scale,bias}` (with `embedding_size`) | I8, F32 | as a layer's matrices |
//! | `dense.N.weight`, `dense.N.bias` (with `after_pooling`) | F32 | `[out_features, in_features]`, `[out_features]` |
//! | `tokenizer` | U8 | `[bytes]`: a `tokenizer.json`, or its compact form ([`tokenizer::compact`](crate::tokenizer::compact)) |
//!
//! "Padded" means rounded up to a multiple of 16 with zeros; in `query_key_value` and in the inputs
//! of `attention_output` every head is padded by itself. The header's `__metadata__` holds
//! `format` = `munjang`, `format_version`, `model_id` and `config` (JSON, see
//! [`ModelConfig`]). Packed weights come first, so that every panel starts on a cache line.

mod header;
mod padding;
mod read;
#[cfg(feature = "train")]
mod to_float;
mod write;

use std::ops::Range;
use std::sync::Arc;

use crate::bytes::AlignedBytes;
use crate::config::ModelConfig;
use crate::kernels::{PackedMatrix, padded};

pub use header::FORMAT_VERSION;
pub use write::write;

#[cfg(target_endian = "big")]
compile_error!("model files are read in place and are little-endian");

/// A checked model file.
pub(crate) struct ModelFile {
    bytes: Arc<AlignedBytes>,
    pub(crate) config: ModelConfig,
    pub(crate) model_id: String,
    pub(crate) word_embeddings: QuantizedTable,
    pub(crate) position_embeddings: QuantizedTable,
    pub(crate) embedding_norm: Norm,
    pub(crate) layers: Vec<QuantizedLayer>,
    /// The position of RoBERTa's padding token.
    pub(crate) padding_position: Option<QuantizedTable>,
    pub(crate) embedding_projection: Option<PackedMatrix>,
    /// The dense modules after pooling, in order.
    pub(crate) dense: Vec<Dense>,
    tokenizer: Range<usize>,
}

/// Where a dense module's floats lie.
pub(crate) struct Dense {
    weight: Range<usize>,
    bias: Range<usize>,
}

/// Where a table of int8 rows lies.
pub(crate) struct QuantizedTable {
    data: Range<usize>,
    scales: Range<usize>,
}

/// Where a layer normalization lies.
pub(crate) struct Norm {
    weight: Range<usize>,
    bias: Range<usize>,
}

/// One transformer layer.
pub(crate) struct QuantizedLayer {
    pub(crate) query_key_value: PackedMatrix,
    pub(crate) attention_output: PackedMatrix,
    pub(crate) attention_norm: Norm,
    pub(crate) intermediate: PackedMatrix,
    pub(crate) output: PackedMatrix,
    pub(crate) output_norm: Norm,
}

impl ModelFile {
    /// Size of the file in bytes.
    pub(crate) fn len(&self) -> usize {
        self.bytes.as_slice().len()
    }

    /// The bytes that were parsed.
    #[cfg(target_arch = "wasm32")]
    pub(crate) fn into_bytes(self) -> Option<AlignedBytes> {
        let ModelFile { bytes, layers, embedding_projection, .. } = self;
        drop((layers, embedding_projection));
        Arc::into_inner(bytes)
    }

    /// The `tokenizer.json` or its compact form.
    pub(crate) fn tokenizer(&self) -> &[u8] {
        &self.bytes.as_slice()[self.tokenizer.clone()]
    }

    fn floats(&self, range: &Range<usize>) -> &[f32] {
        bytemuck::cast_slice(&self.bytes.as_slice()[range.clone()])
    }

    fn integers(&self, range: &Range<usize>) -> &[i8] {
        bytemuck::cast_slice(&self.bytes.as_slice()[range.clone()])
    }

    /// Gain and bias of a layer normalization, padded.
    pub(crate) fn norm(&self, norm: &Norm) -> (&[f32], &[f32]) {
        (self.floats(&norm.weight), self.floats(&norm.bias))
    }

    /// Weight (`out_features × in_features`) and bias of a dense module.
    pub(crate) fn dense(&self, dense: &Dense) -> (&[f32], &[f32]) {
        (self.floats(&dense.weight), self.floats(&dense.bias))
    }

    /// A row of a table (padded) and its scale; `None` beyond the last row.
    pub(crate) fn row(&self, table: &QuantizedTable, row: usize) -> Option<(&[i8], f32)> {
        let scale = *self.floats(&table.scales).get(row)?;
        let width = padded(self.config.embedding_width());
        Some((&self.integers(&table.data)[row * width..(row + 1) * width], scale))
    }
}

/// Where channel `i` goes when every head of `size` channels is padded by itself.
fn padded_channel(i: usize, size: usize) -> usize {
    i / size * padded(size) + i % size
}
