//! `munjang convert`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::args::text;
use super::output::print;
use crate::config::Pooling;
use crate::convert::{self, ConvertOptions, Converted, Manifest};
use crate::error::{Error, Result};
use crate::files::write_atomically;
use crate::format;
use crate::model::Encoder;

/// Arguments of `munjang convert`.
#[derive(Args)]
pub struct ConvertArgs {
    /// Folder of a model, as transformers or sentence-transformers write it: bert, roberta,
    /// xlm-roberta, distilbert or electra; weights as safetensors or pytorch_model.bin
    checkpoint: PathBuf,
    /// The model file to write, such as my-model.munjang
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
    /// Keep only these layers, counted from 0, such as 0,5,11
    #[arg(long, value_delimiter = ',', value_name = "LIST")]
    layers: Option<Vec<usize>>,
    /// How token states become one vector [default: what the folder's Pooling says, else mean]
    #[arg(long)]
    pooling: Option<PoolingArg>,
    /// Put before every text, such as "query: " [default: the folder's default prompt, if any]
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true, value_parser = text, conflicts_with = "prompt")]
    prefix: Option<String>,
    /// Put this prompt of the folder (config_sentence_transformers.json) before every text
    #[arg(long, value_name = "NAME", allow_hyphen_values = true, value_parser = text)]
    prompt: Option<String>,
    /// The most tokens of one text: keep only so many positions [default: what the folder allows]
    #[arg(long, value_name = "N")]
    max_tokens: Option<usize>,
    /// End with an error if the folder holds something that is not used, or doubtful
    #[arg(long)]
    strict: bool,
    /// Also write manifest.json beside the model file
    #[arg(long)]
    manifest: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum PoolingArg {
    /// The mean over all tokens
    Mean,
    /// The first token
    Cls,
}

/// Converts, and loads what was made before it is written.
///
/// # Errors
/// Whatever is wrong with the checkpoint, or keeps the file from being written.
pub fn run(args: ConvertArgs) -> Result<()> {
    let options = ConvertOptions {
        layers: args.layers,
        pooling: args.pooling.map(|pooling| match pooling {
            PoolingArg::Mean => Pooling::Mean,
            PoolingArg::Cls => Pooling::Cls,
        }),
        prefix: args.prefix,
        prompt: args.prompt,
        max_tokens: args.max_tokens,
        strict: args.strict,
    };
    let name = args.output.file_name().and_then(|name| name.to_str()).ok_or_else(|| {
        Error::input_invalid(format!("--output {} is not a file name", args.output.display()))
    })?;
    let Converted { model, report } = convert::read_folder(&args.checkpoint, &options)?;
    let bytes = format::write(&model)?;
    // What is written must load; better to learn it here than in a page.
    let info = Encoder::from_bytes(bytes.as_slice())?.info();
    write_atomically(&args.output, &bytes)?;
    if args.manifest {
        let manifest = Manifest::new(name, &bytes, &info);
        write_atomically(
            &args.output.with_file_name("manifest.json"),
            manifest.to_json().as_bytes(),
        )?;
    }
    let config = &info.config;
    let prefix = match config.prefix.as_str() {
        "" => "no prefix".to_owned(),
        prefix => format!("prefix {prefix:?}"),
    };
    print(&format!(
        "{}: model {}, {} bytes\n\
         {} values, pooling by {}, at most {} tokens (cut on the {}), {prefix}\n\
         {report}",
        args.output.display(),
        info.model_id,
        bytes.len(),
        config.dimension(),
        match config.pooling {
            Pooling::Mean => "mean",
            Pooling::Cls => "cls",
        },
        config.max_position_embeddings,
        config.truncation_side.name(),
    ))
}
