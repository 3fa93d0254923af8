//! `munjang convert`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::output::print;
use crate::config::Pooling;
use crate::convert::{self, ConvertOptions, Manifest};
use crate::error::{Error, Result};
use crate::files::write_atomically;
use crate::format;
use crate::model::Encoder;

/// Arguments of `munjang convert`.
#[derive(Args)]
pub struct ConvertArgs {
    /// Folder with config.json, model.safetensors (f32, f16 or bf16) and tokenizer.json
    checkpoint: PathBuf,
    /// The model file to write, such as my-model.munjang
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
    /// Keep only these layers, counted from 0, such as 0,5,11
    #[arg(long, value_delimiter = ',', value_name = "LIST")]
    layers: Option<Vec<usize>>,
    /// How token states become one vector [default: what the folder's 1_Pooling says, else mean]
    #[arg(long)]
    pooling: Option<PoolingArg>,
    /// Put before every text, such as "query: "
    #[arg(long, default_value = "", value_name = "TEXT")]
    prefix: String,
    /// Keep only this many positions: the most tokens of one text
    #[arg(long, value_name = "N")]
    max_tokens: Option<usize>,
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
        max_tokens: args.max_tokens,
    };
    let name = args.output.file_name().and_then(|name| name.to_str()).ok_or_else(|| {
        Error::input_invalid(format!("--output {} is not a file name", args.output.display()))
    })?;
    let model = convert::read_checkpoint(&args.checkpoint, &options)?;
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
    print(&format!("{}: model {}, {} bytes\n", args.output.display(), info.model_id, bytes.len()))
}
