//! Hugging Face checkpoint folders read into a [`FloatModel`]: what `transformers` and
//! `sentence-transformers` write, in the forms that they had over the years.
//!
//! What those libraries (5.x and 6.x) would compute is the definition. A folder's setting is taken over,
//! or the conversion ends with an error that names it, or the [`Report`] says that it was not used.

mod checkpoint;
mod encoder;
mod fields;
mod folder;
mod hf_config;
mod modules;
mod pickle;
mod report;
mod tensors;
mod tokenizer;

use std::fmt;
use std::path::Path;

use crate::config::{ModelConfig, Pooling, limits};
use crate::error::{Error, Result};
use crate::tokenizer::Tokenizer;
use crate::weights::{Additions, FloatModel};
use encoder::Encoder;
use hf_config::HfConfig;
use tensors::Tensors;

pub use crate::model::Manifest;
pub use checkpoint::checkpoint_files;
pub use report::{Finding, Kind, Report};

/// What to take from a checkpoint and how it is to be used.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConvertOptions {
    /// The layers to keep, counted from 0, in rising order; all of them by default.
    pub layers: Option<Vec<usize>>,
    /// How token states become one vector. By default what the folder's Pooling module says, else
    /// [`Pooling::Mean`].
    pub pooling: Option<Pooling>,
    /// Put before every text, such as `"query: "`. By default the folder's default prompt, if it has one.
    pub prefix: Option<String>,
    /// The name of the folder's prompt to put before every text.
    pub prompt: Option<String>,
    /// The most tokens of one text: only so many positions are kept. By default the least of what the
    /// folder's settings and its positions allow.
    pub max_tokens: Option<usize>,
    /// Whether a setting that is not used, or a doubtful one, is an error.
    pub strict: bool,
}

/// A converted folder.
#[derive(Clone, Debug, PartialEq)]
pub struct Converted {
    /// The model.
    pub model: FloatModel,
    /// What became of the folder's files.
    pub report: Report,
}

/// The model of [`read_folder`].
///
/// # Errors
/// As [`read_folder`].
pub fn read_checkpoint(dir: &Path, options: &ConvertOptions) -> Result<FloatModel> {
    Ok(read_folder(dir, options)?.model)
}

/// Reads the checkpoint in `dir`: architectures `bert`, `roberta`, `xlm-roberta`, `distilbert`,
/// `electra`; weights in f64, f32, f16 or bf16, as safetensors or as `pytorch_model.bin`, in one file or
/// in shards; with the modules that `modules.json` lists, or as a plain model.
///
/// RoBERTa counts positions from `pad_token_id + 1`; the rows before that are left out, so that in
/// the result position 0 is the first token's in every architecture. The row of token type 0 is
/// added to all positions.
///
/// # Errors
/// [`ErrorKind::CheckpointUnsupported`] for an architecture, module or setting that munjang does not run,
/// [`ErrorKind::CheckpointInvalid`] for missing, misshapen or damaged parts,
/// [`ErrorKind::TokenizerInvalid`] if the tokenizer does not load or does not fit the embedding
/// rows, [`ErrorKind::InputInvalid`] for options that the checkpoint cannot satisfy,
/// [`ErrorKind::Io`] if a file cannot be read.
pub fn read_folder(dir: &Path, options: &ConvertOptions) -> Result<Converted> {
    if !dir.is_dir() {
        return Err(Error::input_invalid(format!(
            "{} is not a folder; expected a Hugging Face checkpoint folder",
            dir.display()
        )));
    }
    let mut report = Report::default();
    let modules = modules::read(dir, options.pooling, &mut report)?;
    let prefix = modules.prefix(options.prefix.as_deref(), options.prompt.as_deref())?;
    let transformer = &modules.transformer;
    folder::refuse_adapter(transformer)?;
    let inside = transformer.strip_prefix(dir).ok().and_then(Path::to_str).unwrap_or_default();
    let name = |file: &str| modules::file(inside, file);

    let (hf, unread) = HfConfig::read(&transformer.join("config.json"))?;
    report.used(name("config.json"), hf.summary());
    if !unread.is_empty() {
        report.not_used(name("config.json"), unread.join(", "));
    }
    let kept = kept_layers(options.layers.as_deref(), hf.num_hidden_layers)?;
    let text = tokenizer::read(transformer, &hf, modules.do_lower_case, &name, &mut report)?;
    let stated = modules.max_seq_length.or(text.max_length);
    let max_position_embeddings = token_limit(options.max_tokens, stated, &hf)?;
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
        pooling: modules.pooling,
        prefix,
        prompts: modules.prompts.iter().filter(|(_, text)| !text.is_empty()).cloned().collect(),
        truncation_side: text.truncation_side,
        pad_token_id: hf.pad_token_id,
        embedding_size: (hf.embedding_size != hf.hidden_size).then_some(hf.embedding_size),
        after_pooling: modules.after_pooling,
    };
    config.validate().map_err(|error| {
        Error::new(
            error.kind(),
            format!("{error} (of {}; --max-tokens can cut positions)", dir.display()),
        )
    })?;

    let tokenizer = Tokenizer::from_bytes(&text.json, &config.prefix, max_position_embeddings)?;
    tokenizer.check_vocab_size(hf.vocab_size)?;
    if let Some(percent) = tokenizer::unknown_percent(&text.json, &tokenizer)?
        && percent > 50
    {
        report.doubtful(name("tokenizer.json"), format!(
            "{percent} of 100 tokens of ordinary Korean text are unknown to it. If the model knows Korean, the \
             tokenizer is another's or lowers what it must not: do_lower_case in tokenizer_config.json is {}",
            if text.lowers { "true, or true by default" } else { "false" }
        ));
    }

    let tensors = Tensors::read(transformer)?;
    let encoder = Encoder::read(&tensors, &hf, &kept, max_position_embeddings)?;
    tensors.report(inside, &mut report);
    encoder.report_others(&tensors, &name, &mut report);
    folder::report_others(dir, &modules::file(inside, ""), &mut report)?;
    if options.strict {
        refuse_complaints(dir, &report)?;
    }
    let Encoder { words, positions, norm, projection, padding, layers, .. } = encoder;
    let model = FloatModel {
        config,
        tokenizer_json: text.json,
        word_embeddings: words,
        position_embeddings: positions,
        embedding_norm: norm,
        layers,
        additions: Additions {
            padding_position: padding,
            embedding_projection: projection,
            dense: modules.dense,
        },
    };
    Ok(Converted { model, report })
}

/// The most tokens of a text: `wanted` of the positions, or what the folder states within them.
fn token_limit(wanted: Option<usize>, stated: Option<usize>, hf: &HfConfig) -> Result<usize> {
    let usable = hf.max_position_embeddings - hf.position_offset;
    let limit = match wanted {
        None => return Ok(stated.unwrap_or(usable).min(usable)),
        Some(max) => max,
    };
    if (1..=usable).contains(&limit) {
        return Ok(limit);
    }
    Err(Error::input_invalid(format!(
        "--max-tokens is {limit}; the checkpoint has {usable} positions to choose from (munjang runs up to {})",
        limits::MAX_POSITION_EMBEDDINGS
    )))
}

fn refuse_complaints(dir: &Path, report: &Report) -> Result<()> {
    let complaints: Vec<String> =
        report.complaints().map(|Finding { file, what, .. }| format!("{file}: {what}")).collect();
    if complaints.is_empty() {
        return Ok(());
    }
    Err(Error::checkpoint_unsupported(format!(
        "--strict: {} holds what the model would not do: {}",
        dir.display(),
        complaints.join("; ")
    )))
}

/// The layers to keep, checked against how many there are.
fn kept_layers(wanted: Option<&[usize]>, available: usize) -> Result<Vec<usize>> {
    let Some(wanted) = wanted else {
        return Ok((0..available).collect());
    };
    let rising = wanted.windows(2).all(|pair| pair[0] < pair[1]);
    if wanted.is_empty() || !rising || wanted.iter().any(|&layer| layer >= available) {
        return Err(Error::input_invalid(format!(
            "layers are {wanted:?}; expected rising numbers from 0 to {} (the checkpoint has \
                 {available} layers)",
            available - 1
        )));
    }
    Ok(wanted.to_vec())
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
        let dir = modules::read(dir, Some(Pooling::Mean), &mut Report::default())?.transformer;
        let (hf, _) = HfConfig::read(&dir.join("config.json"))?;
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

/// A file of at most `limit` bytes.
fn read_file(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let cannot_read = |source| Error::io(format!("cannot read {}", path.display()), source);
    let found = std::fs::metadata(path).map_err(cannot_read)?.len();
    if found > limit {
        return Err(Error::checkpoint_invalid(format!(
            "{} has {found} bytes; expected at most {limit}",
            path.display()
        )));
    }
    std::fs::read(path).map_err(cannot_read)
}
