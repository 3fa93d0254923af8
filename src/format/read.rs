//! Reading a model file: every name, dtype, shape, offset and value is checked.

use std::collections::HashMap;
use std::ops::Range;

use safetensors::tensor::{Dtype, TensorInfo};

use super::header::{MAX_FLOAT, malformed, metadata_value, mismatch, read_config, read_header};
use super::{Layer, ModelFile, Norm, Packed, QuantizedTable};
use crate::bytes::AlignedBytes;
use crate::error::Result;
use crate::kernels::pack::padded;
use crate::kernels::{self, pack};
use crate::quant::WEIGHT_MAX;

impl ModelFile {
    /// Checks every name, dtype, shape, offset and value before anything is built on it.
    pub(crate) fn parse(bytes: AlignedBytes) -> Result<Self> {
        let all = bytes.as_slice();
        let (start, metadata) = read_header(all)?;
        let config = read_config(&metadata)?;
        let model_id = metadata_value(&metadata, "model_id")?.to_owned();

        let mut tensors = Tensors { data: &all[start..], start, found: metadata.tensors() };
        let hidden = padded(config.hidden_size);
        let heads = config.num_attention_heads * padded(config.head_size());
        let intermediate = padded(config.intermediate_size);
        let mut layers = Vec::with_capacity(config.num_hidden_layers);
        for n in 0..config.num_hidden_layers {
            let name = |part: &str| format!("layers.{n}.{part}");
            layers.push(Layer {
                query_key_value: tensors.packed(&name("query_key_value"), 3 * heads, hidden)?,
                attention_output: tensors.packed(&name("attention_output"), hidden, heads)?,
                attention_norm: tensors.norm(&name("attention_norm"), hidden)?,
                intermediate: tensors.packed(&name("intermediate"), intermediate, hidden)?,
                output: tensors.packed(&name("output"), hidden, intermediate)?,
                output_norm: tensors.norm(&name("output_norm"), hidden)?,
            });
        }
        let embedding_norm = tensors.norm("embedding_norm", hidden)?;
        let word_embeddings = tensors.table("word_embeddings", config.vocab_size, hidden)?;
        let position_embeddings =
            tensors.table("position_embeddings", config.max_position_embeddings, hidden)?;
        let tokenizer = tensors.bytes("tokenizer")?;
        if let Some(name) = tensors.found.keys().min() {
            return Err(malformed(format!("it holds a tensor {name:?} that no model has")));
        }
        Ok(ModelFile {
            config,
            model_id,
            word_embeddings,
            position_embeddings,
            embedding_norm,
            layers,
            tokenizer,
            bytes,
        })
    }
}

/// The tensors not yet taken.
struct Tensors<'a> {
    data: &'a [u8],
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
        &self.data[range.start - self.start..range.end - self.start]
    }

    fn floats(&mut self, name: &str, len: usize) -> Result<Range<usize>> {
        let range = self.take(name, Dtype::F32, &[len])?;
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

    fn packed(&mut self, name: &str, rows: usize, cols: usize) -> Result<Packed> {
        let weight = format!("{name}.weight");
        let shape = [rows / pack::LANES, cols / pack::GROUP, pack::LANES, pack::GROUP];
        let data = self.take(&weight, Dtype::I8, &shape)?;
        let weights = bytemuck::cast_slice(self.content(&data));
        let sums = kernels::channel_sums(weights, rows, cols).ok_or_else(|| {
            malformed(format!("tensor {weight:?} holds a weight beyond ±{WEIGHT_MAX}"))
        })?;
        let steps = kernels::exact_steps(weights, rows, cols);
        Ok(Packed {
            data,
            scales: self.scales(&format!("{name}.scale"), rows)?,
            bias: self.floats(&format!("{name}.bias"), rows)?,
            rows,
            cols,
            sums,
            steps,
        })
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
