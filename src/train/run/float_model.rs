//! Models in 32-bit floats as files: what a stage leaves.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensors};

use super::tensor_file::{Raw, damaged, floats, serialize};
use crate::config::ModelConfig;
use crate::error::Result;
use crate::files::{read, write_atomically};
use crate::weights::{Additions, FloatModel, Layer, LayerNorm, Linear, Matrix};

/// Every matrix and vector of a model under its name, in a fixed order.
fn parts(model: &FloatModel) -> Vec<(String, Vec<usize>, &[f32])> {
    let mut parts: Vec<(String, Vec<usize>, &[f32])> = Vec::new();
    parts.push((
        "embeddings.word".into(),
        vec![model.word_embeddings.rows, model.word_embeddings.cols],
        &model.word_embeddings.data,
    ));
    parts.push((
        "embeddings.position".into(),
        vec![model.position_embeddings.rows, model.position_embeddings.cols],
        &model.position_embeddings.data,
    ));
    push_norm(&mut parts, "embeddings.norm", &model.embedding_norm);
    for (index, layer) in model.layers.iter().enumerate() {
        let at = |name: &str| format!("layers.{index}.{name}");
        push_linear(&mut parts, &at("query"), &layer.query);
        push_linear(&mut parts, &at("key"), &layer.key);
        push_linear(&mut parts, &at("value"), &layer.value);
        push_linear(&mut parts, &at("attention_output"), &layer.attention_output);
        push_norm(&mut parts, &at("attention_norm"), &layer.attention_norm);
        push_linear(&mut parts, &at("intermediate"), &layer.intermediate);
        push_linear(&mut parts, &at("output"), &layer.output);
        push_norm(&mut parts, &at("output_norm"), &layer.output_norm);
    }
    parts
}

fn push_linear<'a>(
    parts: &mut Vec<(String, Vec<usize>, &'a [f32])>,
    name: &str,
    linear: &'a Linear,
) {
    let weight = &linear.weight;
    parts.push((format!("{name}.weight"), vec![weight.rows, weight.cols], &weight.data));
    parts.push((format!("{name}.bias"), vec![linear.bias.len()], &linear.bias));
}

fn push_norm<'a>(
    parts: &mut Vec<(String, Vec<usize>, &'a [f32])>,
    name: &str,
    norm: &'a LayerNorm,
) {
    parts.push((format!("{name}.weight"), vec![norm.weight.len()], &norm.weight));
    parts.push((format!("{name}.bias"), vec![norm.bias.len()], &norm.bias));
}

/// Writes a model in 32-bit floats (safetensors, the config in its metadata, the tokenizer in it).
///
/// # Errors
/// `io`, naming the file.
pub fn write_float_model(path: &Path, model: &FloatModel) -> Result<()> {
    write_atomically(path, &float_model_bytes(model, false)?)
}

/// The bytes of such a file; with `half`, matrices whose values f16 can hold are in f16.
///
/// # Errors
/// `weights_malformed` if the model is beyond what the format can hold.
pub fn float_model_bytes(model: &FloatModel, half: bool) -> Result<Vec<u8>> {
    let mut raws = BTreeMap::new();
    for (name, shape, values) in parts(model) {
        let largest = half::f16::MAX.to_f32();
        let raw = if half && shape.len() == 2 && values.iter().all(|x| x.abs() <= largest) {
            let bytes = values.iter().flat_map(|&x| half::f16::from_f32(x).to_le_bytes());
            Raw { dtype: Dtype::F16, shape, bytes: Cow::Owned(bytes.collect()) }
        } else {
            Raw { dtype: Dtype::F32, shape, bytes: Cow::Borrowed(bytemuck::cast_slice(values)) }
        };
        raws.insert(name, raw);
    }
    raws.insert(
        "tokenizer".into(),
        Raw {
            dtype: Dtype::U8,
            shape: vec![model.tokenizer_json.len()],
            bytes: Cow::Borrowed(&model.tokenizer_json),
        },
    );
    let config = serde_json::to_string(&model.config).expect("a config becomes JSON");
    let metadata = HashMap::from([
        ("format".to_owned(), "munjang float model".to_owned()),
        ("config".to_owned(), config),
    ]);
    serialize(&raws, metadata)
}

/// Reads what [`write_float_model`] wrote.
///
/// # Errors
/// `io`; `weights_malformed` if it is damaged.
pub fn read_float_model(path: &Path) -> Result<FloatModel> {
    parse_float_model(&read(path)?, path)
}

/// Reads what [`float_model_bytes`] gave; `path` is named in messages.
///
/// # Errors
/// `weights_malformed` if it is damaged.
pub fn parse_float_model(bytes: &[u8], path: &Path) -> Result<FloatModel> {
    let (_, metadata) =
        SafeTensors::read_metadata(bytes).map_err(|source| damaged(path, source))?;
    let config: ModelConfig = metadata
        .metadata()
        .as_ref()
        .and_then(|metadata| serde_json::from_str(metadata.get("config")?).ok())
        .ok_or_else(|| damaged(path, "it has no config"))?;
    let file = SafeTensors::deserialize(bytes).map_err(|source| damaged(path, source))?;
    let view = |name: &str| file.tensor(name).map_err(|source| damaged(path, source));
    let vector = |name: &str| -> Result<Vec<f32>> {
        let view = view(name)?;
        match view.dtype() {
            Dtype::F32 => Ok(floats(view.data())),
            Dtype::F16 => {
                let halves = view.data().as_chunks().0.iter();
                Ok(halves.map(|&bytes| half::f16::from_le_bytes(bytes).to_f32()).collect())
            }
            _ => Err(damaged(path, format!("{name} is neither f32 nor f16"))),
        }
    };
    let matrix = |name: &str| -> Result<Matrix> {
        let shape = view(name)?.shape().to_vec();
        match shape[..] {
            [rows, cols] => Ok(Matrix { rows, cols, data: vector(name)? }),
            _ => Err(damaged(path, format!("{name} is not a matrix"))),
        }
    };
    let linear = |name: &str| -> Result<Linear> {
        Ok(Linear {
            weight: matrix(&format!("{name}.weight"))?,
            bias: vector(&format!("{name}.bias"))?,
        })
    };
    let norm = |name: &str| -> Result<LayerNorm> {
        Ok(LayerNorm {
            weight: vector(&format!("{name}.weight"))?,
            bias: vector(&format!("{name}.bias"))?,
        })
    };
    let layers = (0..config.num_hidden_layers)
        .map(|index| {
            let at = |name: &str| format!("layers.{index}.{name}");
            Ok(Layer {
                query: linear(&at("query"))?,
                key: linear(&at("key"))?,
                value: linear(&at("value"))?,
                attention_output: linear(&at("attention_output"))?,
                attention_norm: norm(&at("attention_norm"))?,
                intermediate: linear(&at("intermediate"))?,
                output: linear(&at("output"))?,
                output_norm: norm(&at("output_norm"))?,
            })
        })
        .collect::<Result<Vec<_>>>()?;
    Ok(FloatModel {
        tokenizer_json: view("tokenizer")?.data().to_vec(),
        word_embeddings: matrix("embeddings.word")?,
        position_embeddings: matrix("embeddings.position")?,
        embedding_norm: norm("embeddings.norm")?,
        config,
        layers,
        additions: Additions::default(),
    })
}
