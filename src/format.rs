//! The model file: [safetensors](https://github.com/huggingface/safetensors) with int8 weights in
//! the order that the kernels read, the configuration, the tokenizer and the model id inside.
//!
//! | tensor | dtype | shape |
//! | --- | --- | --- |
//! | `layers.N.{query_key_value,attention_output,intermediate,output}.weight` | I8 | packed, see [`crate::kernels::pack`] |
//! | `….scale`, `….bias` | F32 | `[padded channels]` |
//! | `layers.N.{attention,output}_norm.{weight,bias}`, `embedding_norm.{weight,bias}` | F32 | `[padded hidden]` |
//! | `word_embeddings`, `position_embeddings` | I8 | `[rows, padded hidden]` |
//! | `word_embeddings.scale`, `position_embeddings.scale` | F32 | `[rows]` |
//! | `tokenizer` | U8 | `[bytes]`: a `tokenizer.json`, or its compact form ([`tokenizer::compact`](crate::tokenizer::compact)) |
//!
//! "Padded" means rounded up to a multiple of 16 with zeros; in `query_key_value` and in the inputs
//! of `attention_output` every head is padded by itself. The header's `__metadata__` holds
//! `format` = `munjang`, `format_version`, `model_id` and `config` (JSON, see
//! [`ModelConfig`]). Packed weights come first, so that every panel starts on a cache line.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use safetensors::tensor::{Dtype, Metadata, SafeTensors, TensorInfo};
use sha2::{Digest, Sha256};

use crate::bytes::AlignedBytes;
use crate::config::ModelConfig;
use crate::error::{Error, ErrorKind, Result};
use crate::kernels::pack::{PackedMatrix, padded};
use crate::kernels::{self, pack};
use crate::quant::{EMBEDDING_MAX, WEIGHT_MAX, quantize_symmetric};
use crate::weights::{FloatModel, LayerNorm, Linear, Matrix};

#[cfg(target_endian = "big")]
compile_error!("model files are read in place and are little-endian");

/// The version of the format that this build writes and reads.
pub const FORMAT_VERSION: u32 = 1;
/// Value of the `format` key.
const FORMAT: &str = "munjang";
/// Largest header that is parsed; a model of 64 layers needs about 80 kB.
const MAX_HEADER_BYTES: u64 = 1 << 20;
/// Largest magnitude of a scale, bias or gain. Real models stay below 100; with this bound every
/// intermediate sum of a model of the allowed sizes stays finite.
const MAX_FLOAT: f32 = 1e4;

fn malformed(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::WeightsMalformed, format!("not a usable model file: {}", message.into()))
}

fn mismatch(message: String) -> Error {
    Error::new(
        ErrorKind::WeightsMismatch,
        format!("the model file does not fit its config: {message}"),
    )
}

/// A checked model file.
pub(crate) struct ModelFile {
    bytes: AlignedBytes,
    pub(crate) config: ModelConfig,
    pub(crate) model_id: String,
    pub(crate) word_embeddings: QuantizedTable,
    pub(crate) position_embeddings: QuantizedTable,
    pub(crate) embedding_norm: Norm,
    pub(crate) layers: Vec<Layer>,
    tokenizer: Range<usize>,
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

/// Where a packed matrix lies.
pub(crate) struct Packed {
    data: Range<usize>,
    scales: Range<usize>,
    bias: Range<usize>,
    rows: usize,
    cols: usize,
    sums: Vec<i32>,
    steps: Vec<u8>,
}

/// One transformer layer.
pub(crate) struct Layer {
    pub(crate) query_key_value: Packed,
    pub(crate) attention_output: Packed,
    pub(crate) attention_norm: Norm,
    pub(crate) intermediate: Packed,
    pub(crate) output: Packed,
    pub(crate) output_norm: Norm,
}

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

    /// Size of the file in bytes.
    pub(crate) fn len(&self) -> usize {
        self.bytes.as_slice().len()
    }

    /// The bytes that were parsed.
    #[cfg(target_arch = "wasm32")]
    pub(crate) fn into_bytes(self) -> AlignedBytes {
        self.bytes
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

    /// The weights and channels of a packed matrix.
    pub(crate) fn packed<'a>(&'a self, matrix: &'a Packed) -> PackedMatrix<'a> {
        PackedMatrix {
            data: self.integers(&matrix.data),
            rows: matrix.rows,
            cols: matrix.cols,
            scales: self.floats(&matrix.scales),
            bias: self.floats(&matrix.bias),
            sums: &matrix.sums,
            steps: &matrix.steps,
        }
    }

    /// Gain and bias of a layer normalization, padded.
    pub(crate) fn norm(&self, norm: &Norm) -> (&[f32], &[f32]) {
        (self.floats(&norm.weight), self.floats(&norm.bias))
    }

    /// The model in 32-bit floats, as its rounded weights have it: [`write`] makes the same weights
    /// of it. `tokenizer_json` is the `tokenizer.json` that the file's tokenizer was made from.
    #[cfg(feature = "train")]
    pub(crate) fn to_float(&self, tokenizer_json: Vec<u8>) -> FloatModel {
        let config = &self.config;
        let (hidden, intermediate) = (config.hidden_size, config.intermediate_size);
        let size = config.head_size();
        let linear = |matrix: &Packed, rows: &mut dyn Iterator<Item = usize>, cols: Vec<usize>| {
            let from = self.packed(matrix);
            let (mut data, mut bias) = (Vec::new(), Vec::new());
            for row in rows {
                let weight = |&col: &usize| from.data[pack::offset(row, col, from.cols)];
                data.extend(cols.iter().map(|col| f32::from(weight(col)) * from.scales[row]));
                bias.push(from.bias[row]);
            }
            Linear { weight: Matrix { rows: bias.len(), cols: cols.len(), data }, bias }
        };
        let norm = |place: &Norm| {
            let (weight, bias) = self.norm(place);
            LayerNorm { weight: weight[..hidden].to_vec(), bias: bias[..hidden].to_vec() }
        };
        let table = |table: &QuantizedTable, rows: usize| {
            let mut data = Vec::with_capacity(rows * hidden);
            for row in 0..rows {
                let (values, scale) = self.row(table, row).expect("checked when it was parsed");
                data.extend(values[..hidden].iter().map(|&value| f32::from(value) * scale));
            }
            Matrix { rows, cols: hidden, data }
        };
        let of_heads: Vec<usize> = (0..hidden).map(|i| padded_channel(i, size)).collect();
        let inputs: Vec<usize> = (0..hidden).collect();
        let heads = config.num_attention_heads * padded(size);
        let layers = self.layers.iter().map(|layer| {
            let part = |n: usize| {
                let mut rows = of_heads.iter().map(|&row| n * heads + row);
                linear(&layer.query_key_value, &mut rows, inputs.clone())
            };
            crate::weights::Layer {
                query: part(0),
                key: part(1),
                value: part(2),
                attention_output: linear(
                    &layer.attention_output,
                    &mut (0..hidden),
                    of_heads.clone(),
                ),
                attention_norm: norm(&layer.attention_norm),
                intermediate: linear(&layer.intermediate, &mut (0..intermediate), inputs.clone()),
                output: linear(&layer.output, &mut (0..hidden), (0..intermediate).collect()),
                output_norm: norm(&layer.output_norm),
            }
        });
        FloatModel {
            config: config.clone(),
            tokenizer_json,
            word_embeddings: table(&self.word_embeddings, config.vocab_size),
            position_embeddings: table(&self.position_embeddings, config.max_position_embeddings),
            embedding_norm: norm(&self.embedding_norm),
            layers: layers.collect(),
        }
    }

    /// A row of a table (padded) and its scale; `None` beyond the last row.
    pub(crate) fn row(&self, table: &QuantizedTable, row: usize) -> Option<(&[i8], f32)> {
        let scale = *self.floats(&table.scales).get(row)?;
        let width = padded(self.config.hidden_size);
        Some((&self.integers(&table.data)[row * width..(row + 1) * width], scale))
    }
}

/// Splits the file into its header and the offset of its data.
fn read_header(bytes: &[u8]) -> Result<(usize, Metadata)> {
    let Some(length) = bytes.first_chunk::<8>() else {
        return Err(Error::new(
            ErrorKind::WeightsTruncated,
            format!("the model file has {} bytes; even its header is missing", bytes.len()),
        ));
    };
    let length = u64::from_le_bytes(*length);
    if length > MAX_HEADER_BYTES {
        return Err(malformed(format!(
            "its header claims {length} bytes, more than the {MAX_HEADER_BYTES} allowed (is this a \
             web page or another kind of file?)"
        )));
    }
    let start = 8 + length as usize;
    if bytes.len() < start {
        return Err(truncated(bytes.len(), start));
    }
    match SafeTensors::read_metadata(bytes) {
        Ok((_, metadata)) => Ok((start, metadata)),
        // The checks inside compare the last offset with the file's length; tell which way it is off.
        Err(source) => Err(match data_end(&bytes[8..start]) {
            Some(end) if bytes.len() - start < end => {
                truncated(bytes.len(), start.saturating_add(end))
            }
            Some(end) if bytes.len() - start > end => {
                malformed(format!("{} bytes follow its last tensor", bytes.len() - start - end))
            }
            _ => malformed(format!("its header is not valid: {source}")),
        }
        .with_source(source)),
    }
}

fn truncated(found: usize, expected: usize) -> Error {
    Error::new(
        ErrorKind::WeightsTruncated,
        format!("the model file ends after {found} bytes of {expected}; load it again"),
    )
}

/// Where the header says that the data ends, if it can be read at all.
fn data_end(header: &[u8]) -> Option<usize> {
    let header: HashMap<String, serde_json::Value> = serde_json::from_slice(header).ok()?;
    let end = |tensor: &serde_json::Value| tensor["data_offsets"][1].as_u64();
    header
        .iter()
        .filter(|(name, _)| *name != "__metadata__")
        .filter_map(|(_, t)| end(t))
        .max()
        .and_then(|end| usize::try_from(end).ok())
}

fn metadata_value<'a>(metadata: &'a Metadata, key: &str) -> Result<&'a str> {
    let values = metadata.metadata().as_ref();
    values.and_then(|values| values.get(key)).map(String::as_str).ok_or_else(|| {
        malformed(format!(
            "its header has no {key:?}; convert the checkpoint with `munjang convert`"
        ))
    })
}

fn read_config(metadata: &Metadata) -> Result<ModelConfig> {
    let format = metadata_value(metadata, "format")?;
    if format != FORMAT {
        return Err(malformed(format!("its format is {format:?}, not {FORMAT:?}")));
    }
    let version = metadata_value(metadata, "format_version")?;
    if version != FORMAT_VERSION.to_string() {
        return Err(Error::new(
            ErrorKind::WeightsVersion,
            format!(
                "the model file has format version {version}; this build reads version \
                 {FORMAT_VERSION}: use matching versions of munjang and the model"
            ),
        ));
    }
    let config: ModelConfig =
        serde_json::from_str(metadata_value(metadata, "config")?).map_err(|source| {
            Error::new(
                ErrorKind::ConfigInvalid,
                format!("cannot read the model's config: {source}"),
            )
            .with_source(source)
        })?;
    config.validate()?;
    Ok(config)
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

/// Quantizes `model` and writes it as a model file.
///
/// The model id is the first 16 hex digits of the SHA-256 of the config and all tensors: the same
/// weights give the same id, and any change gives another.
///
/// # Errors
/// [`ErrorKind::ConfigInvalid`] if the config is out of bounds, [`ErrorKind::WeightsMismatch`] if a
/// matrix does not have the config's shape, [`ErrorKind::NonFinite`] if a weight is NaN, infinite
/// or absurdly large.
pub fn write(model: &FloatModel) -> Result<Vec<u8>> {
    let config = &model.config;
    config.validate()?;
    if model.layers.len() != config.num_hidden_layers {
        return Err(mismatch(format!(
            "it has {} layers; the config says {}",
            model.layers.len(),
            config.num_hidden_layers
        )));
    }
    let (hidden, intermediate) = (config.hidden_size, config.intermediate_size);
    let mut writer = Writer::default();
    for (n, layer) in model.layers.iter().enumerate() {
        let name = |part: &str| format!("layers.{n}.{part}");
        let size = config.head_size();
        let attention = [&layer.query, &layer.key, &layer.value];
        for linear in attention.into_iter().chain([&layer.attention_output]) {
            check_linear(&name("attention"), linear, hidden, hidden)?;
        }
        check_linear(&name("intermediate"), &layer.intermediate, intermediate, hidden)?;
        check_linear(&name("output"), &layer.output, hidden, intermediate)?;
        let attention: Vec<Linear> =
            attention.into_iter().map(|linear| pad_heads(linear, size)).collect();
        writer.packed(&name("query_key_value"), &attention);
        let output = pad_head_inputs(&layer.attention_output, size);
        writer.packed(&name("attention_output"), std::slice::from_ref(&output));
        writer.packed(&name("intermediate"), std::slice::from_ref(&layer.intermediate));
        writer.packed(&name("output"), std::slice::from_ref(&layer.output));
        writer.norm(&name("attention_norm"), &layer.attention_norm, hidden)?;
        writer.norm(&name("output_norm"), &layer.output_norm, hidden)?;
    }
    writer.norm("embedding_norm", &model.embedding_norm, hidden)?;
    writer.table("word_embeddings", &model.word_embeddings, config.vocab_size, hidden)?;
    writer.table(
        "position_embeddings",
        &model.position_embeddings,
        config.max_position_embeddings,
        hidden,
    )?;
    let tokenizer = crate::tokenizer::compact(&model.tokenizer_json).into_owned();
    writer.push("tokenizer", Dtype::U8, vec![tokenizer.len()], tokenizer);
    writer.finish(config)
}

/// Tensors in the order in which they are written: packed weights, floats, tables, the tokenizer.
/// The first are whole cache lines and the second whole floats, so everything stays aligned without
/// gaps (which safetensors does not allow).
#[derive(Default)]
struct Writer {
    tensors: Vec<(String, TensorInfo, Vec<u8>)>,
}

impl Writer {
    fn push(&mut self, name: &str, dtype: Dtype, shape: Vec<usize>, data: Vec<u8>) {
        let info = TensorInfo { dtype, shape, data_offsets: (0, 0) };
        self.tensors.push((name.to_owned(), info, data));
    }

    fn floats(&mut self, name: &str, values: &[f32], len: usize) -> Result<()> {
        check_finite(name, values)?;
        if values.len() != len {
            return Err(mismatch(format!("{name} has {} values; expected {len}", values.len())));
        }
        let mut padded_values = values.to_vec();
        padded_values.resize(padded(len), 0.0);
        self.push_floats(name, padded_values);
        Ok(())
    }

    fn push_floats(&mut self, name: &str, values: Vec<f32>) {
        self.push(name, Dtype::F32, vec![values.len()], bytemuck::cast_slice(&values).to_vec());
    }

    fn norm(&mut self, name: &str, norm: &LayerNorm, len: usize) -> Result<()> {
        self.floats(&format!("{name}.weight"), &norm.weight, len)?;
        self.floats(&format!("{name}.bias"), &norm.bias, len)
    }

    /// Several matrices with the same inputs, stacked by output channel, each padded on its own.
    fn packed(&mut self, name: &str, parts: &[Linear]) {
        let (mut data, mut scales, mut bias) = (Vec::new(), Vec::new(), Vec::new());
        let cols = parts[0].weight.cols;
        for Linear { weight, bias: part_bias } in parts {
            let mut quantized = vec![0i8; weight.rows * cols];
            for (row, out) in quantized.chunks_exact_mut(cols).enumerate() {
                scales.push(quantize_symmetric(weight.row(row), WEIGHT_MAX, out));
            }
            scales.resize(padded(scales.len()), 0.0);
            bias.extend_from_slice(part_bias);
            bias.resize(scales.len(), 0.0);
            data.extend(pack::pack(&quantized, weight.rows, cols));
        }
        let (rows, cols) = (scales.len(), padded(cols));
        let shape = vec![rows / pack::LANES, cols / pack::GROUP, pack::LANES, pack::GROUP];
        let data = bytemuck::cast_slice(&data).to_vec();
        self.push(&format!("{name}.weight"), Dtype::I8, shape, data);
        self.push_floats(&format!("{name}.scale"), scales);
        self.push_floats(&format!("{name}.bias"), bias);
    }

    fn table(&mut self, name: &str, matrix: &Matrix, rows: usize, cols: usize) -> Result<()> {
        check_shape(name, matrix, rows, cols)?;
        let width = padded(cols);
        let mut data = vec![0i8; rows * width];
        let mut scales = Vec::with_capacity(rows);
        for (row, out) in data.chunks_exact_mut(width).enumerate() {
            scales.push(quantize_symmetric(matrix.row(row), EMBEDDING_MAX, out));
        }
        self.push(name, Dtype::I8, vec![rows, width], bytemuck::cast_slice(&data).to_vec());
        self.push_floats(&format!("{name}.scale"), scales);
        Ok(())
    }

    fn finish(mut self, config: &ModelConfig) -> Result<Vec<u8>> {
        let rank = |(name, info, _): &(String, TensorInfo, Vec<u8>)| match info.dtype {
            Dtype::I8 if name.ends_with(".weight") => 0,
            Dtype::F32 => 1,
            Dtype::I8 => 2,
            _ => 3,
        };
        self.tensors.sort_by_key(rank);
        let config = to_json(config)?;
        let mut hash = Sha256::new();
        hash.update(&config);
        let mut at = 0;
        for (name, info, data) in &mut self.tensors {
            hash.update(name.as_bytes());
            hash.update(&data);
            info.data_offsets = (at, at + data.len());
            at += data.len();
        }
        let digest = hash.finalize();
        let model_id: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();

        let mut header = BTreeMap::new();
        let metadata = BTreeMap::from([
            ("format", FORMAT.to_owned()),
            ("format_version", FORMAT_VERSION.to_string()),
            ("model_id", model_id),
            ("config", config),
        ]);
        header.insert("__metadata__", to_value(&metadata)?);
        for (name, info, _) in &self.tensors {
            header.insert(name, to_value(info)?);
        }
        let mut header = to_json(&header)?.into_bytes();
        header.resize((8 + header.len()).next_multiple_of(64) - 8, b' ');

        let mut file = Vec::with_capacity(8 + header.len() + at);
        file.extend((header.len() as u64).to_le_bytes());
        file.extend(header);
        for (_, _, data) in self.tensors {
            file.extend(data);
        }
        Ok(file)
    }
}

fn to_json(value: &impl serde::Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(json_error)
}

fn to_value(value: &impl serde::Serialize) -> Result<serde_json::Value> {
    serde_json::to_value(value).map_err(json_error)
}

fn json_error(source: serde_json::Error) -> Error {
    malformed(format!("cannot write its header: {source}")).with_source(source)
}

fn check_shape(name: &str, matrix: &Matrix, rows: usize, cols: usize) -> Result<()> {
    if (matrix.rows, matrix.cols) != (rows, cols) || matrix.data.len() != rows * cols {
        return Err(mismatch(format!(
            "{name} is {} × {}; expected {rows} × {cols}",
            matrix.rows, matrix.cols
        )));
    }
    check_finite(name, &matrix.data)
}

fn check_linear(name: &str, linear: &Linear, rows: usize, cols: usize) -> Result<()> {
    check_shape(name, &linear.weight, rows, cols)?;
    check_finite(name, &linear.bias)?;
    if linear.bias.len() != rows {
        return Err(mismatch(format!("{name} has {} biases; expected {rows}", linear.bias.len())));
    }
    Ok(())
}

/// Where channel `i` goes when every head of `size` channels is padded by itself.
fn padded_channel(i: usize, size: usize) -> usize {
    i / size * padded(size) + i % size
}

/// Pads the output channels of every head with zeros.
fn pad_heads(linear: &Linear, size: usize) -> Linear {
    let Matrix { rows, cols, .. } = linear.weight;
    let padded_rows = rows / size * padded(size);
    let mut data = vec![0.0; padded_rows * cols];
    let mut bias = vec![0.0; padded_rows];
    for row in 0..rows {
        let to = padded_channel(row, size);
        data[to * cols..(to + 1) * cols].copy_from_slice(linear.weight.row(row));
        bias[to] = linear.bias[row];
    }
    Linear { weight: Matrix { rows: padded_rows, cols, data }, bias }
}

/// Pads the inputs that come from every head with zeros.
fn pad_head_inputs(linear: &Linear, size: usize) -> Linear {
    let Matrix { rows, cols, .. } = linear.weight;
    let padded_cols = cols / size * padded(size);
    let mut data = vec![0.0; rows * padded_cols];
    for row in 0..rows {
        for (col, &weight) in linear.weight.row(row).iter().enumerate() {
            data[row * padded_cols + padded_channel(col, size)] = weight;
        }
    }
    Linear { weight: Matrix { rows, cols: padded_cols, data }, bias: linear.bias.clone() }
}

fn check_finite(name: &str, values: &[f32]) -> Result<()> {
    match values.iter().position(|x| !(x.abs() <= MAX_FLOAT)) {
        None => Ok(()),
        Some(at) => Err(Error::new(
            ErrorKind::NonFinite,
            format!(
                "{name} holds {} at {at}; expected finite numbers of at most {MAX_FLOAT}",
                values[at]
            ),
        )),
    }
}
