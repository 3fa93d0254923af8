//! Hugging Face checkpoint folders (`config.json`, `model.safetensors`, `tokenizer.json`) read into
//! a [`FloatModel`].

mod checkpoint;
mod hf_config;
mod tensors;

use std::fmt;
use std::path::Path;

use crate::config::{ModelConfig, Pooling};
use crate::error::{Error, ErrorKind, Result};
use crate::tokenizer::Tokenizer;
use crate::weights::{FloatModel, Layer, Matrix};
use hf_config::{Family, HfConfig};
use tensors::Tensors;

pub use crate::model::Manifest;
pub use checkpoint::checkpoint_files;

/// What to take from a checkpoint and how it is to be used.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConvertOptions {
    /// The layers to keep, counted from 0, in rising order; all of them by default.
    pub layers: Option<Vec<usize>>,
    /// How token states become one vector. By default what `1_Pooling/config.json` says if the
    /// folder has one (as sentence-transformers writes it), else [`Pooling::Mean`].
    pub pooling: Option<Pooling>,
    /// Put before every text, such as `"query: "`.
    pub prefix: String,
    /// Keep only this many positions: the most tokens of one text. All of them by default.
    pub max_tokens: Option<usize>,
}

/// Reads the checkpoint in `dir`: architectures `bert`, `roberta`, `xlm-roberta`, `distilbert`;
/// weights in f32, f16 or bf16, in one file or in shards.
///
/// RoBERTa counts positions from `pad_token_id + 1`; the rows before that are left out, so that in
/// the result position 0 is the first token's in every architecture. The row of token type 0 is
/// added to all positions.
///
/// # Errors
/// [`ErrorKind::CheckpointUnsupported`] for an architecture or option that munjang does not run,
/// [`ErrorKind::CheckpointInvalid`] for missing, misshapen or damaged parts,
/// [`ErrorKind::TokenizerInvalid`] if the tokenizer does not load or does not fit the embedding
/// rows, [`ErrorKind::InputInvalid`] for options that the checkpoint cannot satisfy,
/// [`ErrorKind::Io`] if a file cannot be read.
pub fn read_checkpoint(dir: &Path, options: &ConvertOptions) -> Result<FloatModel> {
    if !dir.is_dir() {
        return Err(Error::new(
            ErrorKind::InputInvalid,
            format!("{} is not a folder; expected a Hugging Face checkpoint folder", dir.display()),
        ));
    }
    let hf = HfConfig::read(&dir.join("config.json"))?;
    let kept = kept_layers(options.layers.as_deref(), hf.num_hidden_layers)?;
    let usable = hf.max_position_embeddings - hf.position_offset;
    let max_position_embeddings = match options.max_tokens {
        None => usable,
        Some(max) if (1..=usable).contains(&max) => max,
        Some(max) => {
            return Err(Error::new(
                ErrorKind::InputInvalid,
                format!(
                    "max_tokens is {max}; the checkpoint has {usable} positions to choose from"
                ),
            ));
        }
    };
    let config = ModelConfig {
        model_type: hf.model_type.clone(),
        vocab_size: hf.vocab_size,
        hidden_size: hf.hidden_size,
        num_hidden_layers: kept.len(),
        num_attention_heads: hf.num_attention_heads,
        intermediate_size: hf.intermediate_size,
        max_position_embeddings,
        layer_norm_eps: hf.layer_norm_eps,
        hidden_act: hf.hidden_act,
        pooling: match options.pooling {
            Some(pooling) => pooling,
            None => stored_pooling(dir)?,
        },
        prefix: options.prefix.clone(),
    };
    config.validate().map_err(|error| {
        Error::new(
            error.kind(),
            format!("{} (of {}; max_tokens can cut positions)", error, dir.display()),
        )
    })?;

    let tokenizer_json = read_tokenizer(dir)?;
    Tokenizer::from_bytes(&tokenizer_json, &config.prefix, max_position_embeddings)?
        .check_vocab_size(hf.vocab_size)?;

    let tensors = Tensors::read(dir)?;
    let prefix = tensors.prefix_of("embeddings.word_embeddings.weight")?;
    let embedding = |name: &str| format!("{prefix}embeddings.{name}");
    let hidden = hf.hidden_size;
    let word_embeddings =
        tensors.matrix(&embedding("word_embeddings.weight"), hf.vocab_size, hidden)?;
    let all_positions = tensors.matrix(
        &embedding("position_embeddings.weight"),
        hf.max_position_embeddings,
        hidden,
    )?;
    let mut position_embeddings = Matrix {
        rows: max_position_embeddings,
        cols: hidden,
        data: all_positions.data[hf.position_offset * hidden..][..max_position_embeddings * hidden]
            .to_vec(),
    };
    if hf.type_vocab_size > 0 {
        let types = tensors.matrix(
            &embedding("token_type_embeddings.weight"),
            hf.type_vocab_size,
            hidden,
        )?;
        for row in position_embeddings.data.chunks_exact_mut(hidden) {
            row.iter_mut().zip(types.row(0)).for_each(|(value, add)| *value += add);
        }
    }
    let layers = kept
        .iter()
        .map(|&index| read_layer(&tensors, &prefix, &hf, index))
        .collect::<Result<Vec<_>>>()?;
    Ok(FloatModel {
        embedding_norm: tensors.layer_norm(&embedding("LayerNorm"), hidden)?,
        config,
        tokenizer_json,
        word_embeddings,
        position_embeddings,
        layers,
    })
}

/// How many layers of which sizes a model has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Number of layers.
    pub num_hidden_layers: usize,
    /// Size of a token's state.
    pub hidden_size: usize,
    /// Units of a feed-forward.
    pub intermediate_size: usize,
}

impl Shape {
    /// Of the checkpoint in `dir`, from its `config.json` alone.
    ///
    /// # Errors
    /// As [`read_checkpoint`].
    pub fn read(dir: &Path) -> Result<Shape> {
        let hf = HfConfig::read(&dir.join("config.json"))?;
        Ok(Shape {
            num_hidden_layers: hf.num_hidden_layers,
            hidden_size: hf.hidden_size,
            intermediate_size: hf.intermediate_size,
        })
    }

    /// Of a model with this configuration.
    pub fn of(config: &ModelConfig) -> Shape {
        Shape {
            num_hidden_layers: config.num_hidden_layers,
            hidden_size: config.hidden_size,
            intermediate_size: config.intermediate_size,
        }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shape { num_hidden_layers, hidden_size, intermediate_size } = self;
        write!(
            f,
            "{num_hidden_layers} layers of hidden size {hidden_size} and intermediate size {intermediate_size}"
        )
    }
}

fn read_layer(tensors: &Tensors, prefix: &str, hf: &HfConfig, index: usize) -> Result<Layer> {
    let (hidden, wide) = (hf.hidden_size, hf.intermediate_size);
    let base = layer_base(hf.family, prefix, index);
    let [query, key, value, attention_output, attention_norm, intermediate, output, output_norm] =
        layer_names(hf.family);
    let linear = |name, out, in_| tensors.linear(&format!("{base}.{name}"), out, in_);
    let norm = |name| tensors.layer_norm(&format!("{base}.{name}"), hidden);
    Ok(Layer {
        query: linear(query, hidden, hidden)?,
        key: linear(key, hidden, hidden)?,
        value: linear(value, hidden, hidden)?,
        attention_output: linear(attention_output, hidden, hidden)?,
        attention_norm: norm(attention_norm)?,
        intermediate: linear(intermediate, wide, hidden)?,
        output: linear(output, hidden, wide)?,
        output_norm: norm(output_norm)?,
    })
}

/// What the names of layer `index`'s tensors begin with.
fn layer_base(family: Family, prefix: &str, index: usize) -> String {
    match family {
        Family::Bert => format!("{prefix}encoder.layer.{index}"),
        Family::DistilBert => format!("{prefix}transformer.layer.{index}"),
    }
}

/// Query, key, value, attention output and its normalization, intermediate, output and its
/// normalization.
fn layer_names(family: Family) -> [&'static str; 8] {
    match family {
        Family::Bert => [
            "attention.self.query",
            "attention.self.key",
            "attention.self.value",
            "attention.output.dense",
            "attention.output.LayerNorm",
            "intermediate.dense",
            "output.dense",
            "output.LayerNorm",
        ],
        Family::DistilBert => [
            "attention.q_lin",
            "attention.k_lin",
            "attention.v_lin",
            "attention.out_lin",
            "sa_layer_norm",
            "ffn.lin1",
            "ffn.lin2",
            "output_layer_norm",
        ],
    }
}

/// The layers to keep, checked against how many there are.
fn kept_layers(wanted: Option<&[usize]>, available: usize) -> Result<Vec<usize>> {
    let Some(wanted) = wanted else {
        return Ok((0..available).collect());
    };
    let rising = wanted.windows(2).all(|pair| pair[0] < pair[1]);
    if wanted.is_empty() || !rising || wanted.iter().any(|&layer| layer >= available) {
        return Err(Error::new(
            ErrorKind::InputInvalid,
            format!(
                "layers are {wanted:?}; expected rising numbers from 0 to {} (the checkpoint has \
                 {available} layers)",
                available - 1
            ),
        ));
    }
    Ok(wanted.to_vec())
}

/// The pooling in sentence-transformers' `1_Pooling/config.json`; the mean without that file.
fn stored_pooling(dir: &Path) -> Result<Pooling> {
    let path = dir.join("1_Pooling/config.json");
    if !path.exists() {
        return Ok(Pooling::Mean);
    }
    let config: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(&read_file(&path)?).map_err(|source| {
            invalid(format!("{} is not a JSON object", path.display())).with_source(source)
        })?;
    let modes: Vec<&str> = config
        .iter()
        .filter(|(key, value)| key.starts_with("pooling_mode_") && **value == true)
        .map(|(key, _)| key.as_str())
        .collect();
    match modes[..] {
        ["pooling_mode_mean_tokens"] => Ok(Pooling::Mean),
        ["pooling_mode_cls_token"] => Ok(Pooling::Cls),
        _ => Err(unsupported(format!(
            "{} asks for {modes:?}; munjang pools by pooling_mode_mean_tokens or \
             pooling_mode_cls_token: choose one with --pooling",
            path.display()
        ))),
    }
}

fn read_tokenizer(dir: &Path) -> Result<Vec<u8>> {
    let path = dir.join("tokenizer.json");
    if path.exists() {
        return read_file(&path);
    }
    let others: Vec<&str> = ["vocab.txt", "sentencepiece.bpe.model", "spiece.model", "vocab.json"]
        .into_iter()
        .filter(|name| dir.join(name).exists())
        .collect();
    let hint = if others.is_empty() {
        String::new()
    } else {
        format!(
            "; found {}: AutoTokenizer.from_pretrained(…).save_pretrained(…) writes the expected file",
            others.join(", ")
        )
    };
    Err(invalid(format!("{} has no tokenizer.json{hint}", dir.display())))
}

fn read_file(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path)
        .map_err(|source| Error::io(format!("cannot read {}", path.display()), source))
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::CheckpointInvalid, message)
}

fn unsupported(message: String) -> Error {
    Error::new(ErrorKind::CheckpointUnsupported, message)
}
