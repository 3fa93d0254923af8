//! Reading a model file: every name, dtype, shape, offset and value is checked.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use safetensors::tensor::{Dtype, TensorInfo};

use super::header::{MAX_FLOAT, malformed, mismatch, read_config, read_header, read_model_id};
use super::{Dense, ModelFile, Norm, QuantizedLayer, QuantizedTable, padding};
use crate::bytes::{AlignedBytes, SharedSlice};
use crate::config::AfterPooling;
use crate::error::Result;
use crate::kernels::{LANES, PackedMatrix, pack, padded};

impl ModelFile {
    /// Checks every name, dtype, shape, offset and value before anything is built on it.
    pub(crate) fn parse(bytes: AlignedBytes) -> Result<Self> {
        let bytes = Arc::new(bytes);
        let (start, metadata) = read_header(bytes.as_slice())?;
        let config = read_config(&metadata)?;
        let model_id = read_model_id(&metadata)?;

        let mut tensors = Tensors { bytes: &bytes, start, found: metadata.tensors() };
        let hidden = padded(config.hidden_size);
        let heads = config.num_attention_heads * padded(config.head_size());
        let intermediate = padded(config.intermediate_size);
        let mut layers = Vec::with_capacity(config.num_hidden_layers);
        for n in 0..config.num_hidden_layers {
            let name = |part: &str| format!("layers.{n}.{part}");
            layers.push(QuantizedLayer {
                query_key_value: tensors.packed(&name("query_key_value"), 3 * heads, hidden)?,
                attention_output: tensors.packed(&name("attention_output"), hidden, heads)?,
                attention_norm: tensors.norm(&name("attention_norm"), hidden)?,
                intermediate: tensors.packed(&name("intermediate"), intermediate, hidden)?,
                output: tensors.packed(&name("output"), hidden, intermediate)?,
                output_norm: tensors.norm(&name("output_norm"), hidden)?,
            });
        }
        let width = padded(config.embedding_width());
        let embedding_norm = tensors.norm("embedding_norm", width)?;
        let word_embeddings = tensors.table("word_embeddings", config.vocab_size, width)?;
        let position_embeddings =
            tensors.table("position_embeddings", config.max_position_embeddings, width)?;
        let padding_position =
            config.pad_token_id.map(|_| tensors.table("padding_position", 1, width)).transpose()?;
        let embedding_projection = config
            .embedding_size
            .map(|_| tensors.packed("embedding_projection", hidden, width))
            .transpose()?;
        let mut dense = Vec::new();
        for step in &config.after_pooling {
            if let &AfterPooling::Dense { in_features, out_features, .. } = step {
                let name = format!("dense.{}", dense.len());
                dense.push(tensors.dense(&name, out_features, in_features)?);
            }
        }
        let tokenizer = tensors.bytes("tokenizer")?;
        if let Some(name) = tensors.found.keys().min() {
            return Err(malformed(format!("it holds a tensor {name:?} that no model has")));
        }
        let file = ModelFile {
            config,
            model_id,
            word_embeddings,
            position_embeddings,
            embedding_norm,
            layers,
            padding_position,
            embedding_projection,
            dense,
            tokenizer,
            bytes,
        };
        padding::check(&file)?;
        Ok(file)
    }
}

/// The tensors not yet taken.
struct Tensors<'a> {
    bytes: &'a Arc<AlignedBytes>,
    start: usize,
    found: HashMap<String, &'a TensorInfo>,
}

impl Tensors<'_> {
    /// Takes tensor `name` after checking its dtype and shape.
    fn take(&mut self, name: &str, dtype: Dtype, shape: &[usize]) -> Result<Range<usize>> {
        let info = self
            .found
            .remove(name)
            .ok_or_else(|| mismatch(format!("tensor {name:?} ({dtype:?} {shape:?}) is missing")))?;
        if info.dtype != dtype || info.shape != shape {
            return Err(mismatch(format!(
                "tensor {name:?} is {:?} {:?}; expected {dtype:?} {shape:?}",
                info.dtype, info.shape
            )));
        }
        let (from, to) = info.data_offsets;
        Ok(self.start + from..self.start + to)
    }

    fn content(&self, range: &Range<usize>) -> &[u8] {
        &self.bytes.as_slice()[range.clone()]
    }

    fn floats(&mut self, name: &str, len: usize) -> Result<Range<usize>> {
        self.floats_of_shape(name, &[len])
    }

    fn dense(&mut self, name: &str, out: usize, in_: usize) -> Result<Dense> {
        Ok(Dense {
            weight: self.floats_of_shape(&format!("{name}.weight"), &[out, in_])?,
            bias: self.floats(&format!("{name}.bias"), out)?,
        })
    }

    fn floats_of_shape(&mut self, name: &str, shape: &[usize]) -> Result<Range<usize>> {
        let range = self.take(name, Dtype::F32, shape)?;
        let values: &[f32] = bytemuck::try_cast_slice(self.content(&range)).map_err(|_| {
            malformed(format!("tensor {name:?} does not start on a multiple of 4 bytes"))
        })?;
        // Written so that NaN fails.
        match values.iter().position(|x| !(x.abs() <= MAX_FLOAT)) {
            None => Ok(range),
            Some(at) => Err(malformed(format!(
                "tensor {name:?} holds {} at {at}; expected finite numbers of at most {MAX_FLOAT}",
                values[at]
            ))),
        }
    }

    fn scales(&mut self, name: &str, len: usize) -> Result<Range<usize>> {
        let range = self.floats(name, len)?;
        let values: &[f32] = bytemuck::cast_slice(self.content(&range));
        match values.iter().position(|&x| x < 0.0) {
            None => Ok(range),
            Some(at) => Err(malformed(format!(
                "tensor {name:?} holds the scale {} at {at}; scales are not negative",
                values[at]
            ))),
        }
    }

    fn packed(&mut self, name: &str, rows: usize, cols: usize) -> Result<PackedMatrix> {
        let weight = format!("{name}.weight");
        let shape = [rows / LANES, cols / pack::GROUP, LANES, pack::GROUP];
        let weights = self.take(&weight, Dtype::I8, &shape)?;
        let scales = self.scales(&format!("{name}.scale"), rows)?;
        let bias = self.floats(&format!("{name}.bias"), rows)?;
        PackedMatrix::new(
            self.shared(name, weights)?,
            (rows, cols),
            self.shared(name, scales)?,
            self.shared(name, bias)?,
        )
        .map_err(|source| malformed(format!("tensor {weight:?}: {source}")).with_source(source))
    }

    /// A part of the file that outlives the reading.
    fn shared<T: bytemuck::AnyBitPattern>(
        &self,
        name: &str,
        range: Range<usize>,
    ) -> Result<SharedSlice<T>> {
        SharedSlice::new(self.bytes, range)
            .ok_or_else(|| malformed(format!("a tensor of {name:?} is not aligned")))
    }

    fn norm(&mut self, name: &str, len: usize) -> Result<Norm> {
        Ok(Norm {
            weight: self.floats(&format!("{name}.weight"), len)?,
            bias: self.floats(&format!("{name}.bias"), len)?,
        })
    }

    fn table(&mut self, name: &str, rows: usize, cols: usize) -> Result<QuantizedTable> {
        Ok(QuantizedTable {
            data: self.take(name, Dtype::I8, &[rows, cols])?,
            scales: self.scales(&format!("{name}.scale"), rows)?,
        })
    }

    fn bytes(&mut self, name: &str) -> Result<Range<usize>> {
        let len = self.found.get(name).map_or(0, |info| info.shape.iter().product());
        self.take(name, Dtype::U8, &[len])
    }
}
