//! Quantizing a model and writing it.

use std::collections::BTreeMap;

use safetensors::tensor::{Dtype, TensorInfo};
use sha2::{Digest, Sha256};

use super::header::{FORMAT, FORMAT_VERSION, MAX_FLOAT, malformed, mismatch};
use super::padded_channel;
use crate::config::{AfterPooling, ModelConfig};
use crate::error::{Error, ErrorKind, Result};
use crate::kernels::{LANES, pack, padded};
use crate::quant::{EMBEDDING_MAX, WEIGHT_MAX, quantize_symmetric};
use crate::weights::{FloatModel, LayerNorm, Linear, Matrix};

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
    let width = config.embedding_width();
    writer.norm("embedding_norm", &model.embedding_norm, width)?;
    writer.table("word_embeddings", &model.word_embeddings, config.vocab_size, width)?;
    writer.table(
        "position_embeddings",
        &model.position_embeddings,
        config.max_position_embeddings,
        width,
    )?;
    writer.additions(model)?;
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
        let shape = vec![rows / LANES, cols / pack::GROUP, LANES, pack::GROUP];
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

    /// What the config asks for beyond a BERT's weights.
    fn additions(&mut self, model: &FloatModel) -> Result<()> {
        let FloatModel { config, additions, .. } = model;
        let width = config.embedding_width();
        let differs =
            |what: &str| mismatch(format!("{what} is there, or missing, against its config"));
        match (&additions.padding_position, config.pad_token_id) {
            (Some(row), Some(_)) => {
                let row = Matrix { rows: 1, cols: row.len(), data: row.clone() };
                self.table("padding_position", &row, 1, width)?;
            }
            (None, None) => {}
            _ => return Err(differs("the padding token's position")),
        }
        match (&additions.embedding_projection, config.embedding_size) {
            (Some(linear), Some(_)) => {
                check_linear("embedding_projection", linear, config.hidden_size, width)?;
                self.packed("embedding_projection", std::slice::from_ref(linear));
            }
            (None, None) => {}
            _ => return Err(differs("the embeddings' projection")),
        }
        let mut dense = additions.dense.iter();
        for step in &config.after_pooling {
            let &AfterPooling::Dense { in_features, out_features, .. } = step else { continue };
            let linear = dense.next().ok_or_else(|| differs("a dense module"))?;
            let name = format!("dense.{}", additions.dense.len() - dense.len() - 1);
            check_linear(&name, linear, out_features, in_features)?;
            let data = bytemuck::cast_slice(&linear.weight.data).to_vec();
            self.push(&format!("{name}.weight"), Dtype::F32, vec![out_features, in_features], data);
            self.push_floats(&format!("{name}.bias"), linear.bias.clone());
        }
        if dense.next().is_some() { Err(differs("a dense module")) } else { Ok(()) }
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
    malformed("cannot write its header").with_source(source)
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
