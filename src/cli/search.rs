//! `munjang search`.

use std::fs::File;
use std::io::BufReader;
use std::path::PathBuf;

use clap::Args;

use super::args::ModelArg;
use super::lines::{LINES_PER_BATCH, Lines};
use super::output::{bar, print};
use crate::error::{Error, ErrorKind, Result};
use crate::files::{read, write_atomically};
use crate::model::Encoder;
use crate::search::FlatIndex;

/// Arguments of `munjang search`.
#[derive(Args)]
pub struct SearchArgs {
    #[command(flatten)]
    model: ModelArg,
    /// Text file, one document a line
    corpus: PathBuf,
    /// What to look for
    query: String,
    /// How many lines to print
    #[arg(long, short = 'k', default_value_t = 10, value_name = "K")]
    top_k: usize,
    /// Keep the corpus' embeddings in this file and use them if they are there
    #[arg(long, value_name = "FILE")]
    index: Option<PathBuf>,
    /// Print JSON lines
    #[arg(long)]
    json: bool,
}

/// Prints the best lines.
///
/// # Errors
/// Whatever is wrong with the model or the input, or keeps the output from being written.
pub fn run(args: SearchArgs) -> Result<()> {
    let encoder = args.model.load()?;
    let name = args.corpus.display().to_string();
    let file = File::open(&args.corpus)
        .map_err(|source| Error::io(format!("cannot read {name}"), source))?;
    let mut lines = Lines::new(BufReader::new(file), &name);
    let texts = lines.take(usize::MAX)?;
    if texts.is_empty() {
        return Err(Error::new(ErrorKind::DataInvalid, format!("{name}:1: the file is empty")));
    }
    let index = match &args.index {
        Some(path) if path.exists() => {
            let index = FlatIndex::from_bytes(&read(path)?, &encoder.info().model_id)?;
            if index.len() != texts.len() {
                return Err(Error::new(
                    ErrorKind::IndexInvalid,
                    format!(
                        "{} holds {} rows, {name} {} lines: delete the index to build it again",
                        path.display(),
                        index.len(),
                        texts.len()
                    ),
                ));
            }
            index
        }
        path => {
            let index = build_index(&encoder, &texts)?;
            if let Some(path) = path {
                write_atomically(path, &index.to_bytes()?)?;
            }
            index
        }
    };
    let mut text = String::new();
    for hit in index.search(&encoder.encode(&args.query)?, args.top_k)? {
        let line = &texts[hit.row];
        if args.json {
            let json = serde_json::json!({"line": hit.row + 1, "score": hit.score, "text": line});
            text += &format!("{json}\n");
        } else {
            text += &format!("{:.4}\t{}\t{line}\n", hit.score, hit.row + 1);
        }
    }
    print(&text)
}

fn build_index(encoder: &Encoder, texts: &[String]) -> Result<FlatIndex> {
    let mut index = FlatIndex::new(encoder.info().model_id, encoder.config().hidden_size)?;
    let progress = bar(texts.len(), "lines");
    for batch in texts.chunks(LINES_PER_BATCH) {
        index.add(&encoder.encode_batch(batch)?.embeddings)?;
        progress.inc(batch.len() as u64);
    }
    progress.finish_and_clear();
    Ok(index)
}
