//! `munjang index`.

use std::path::PathBuf;

use clap::Args;

use super::args::ModelArg;
use super::corpus::{Corpus, IndexOptions};
use super::output::print;
use crate::error::Result;
use crate::files::write_atomically;

/// Arguments of `munjang index`.
#[derive(Args)]
pub struct IndexArgs {
    #[command(flatten)]
    model: ModelArg,
    /// Text file, one document a line; or .jsonl with objects {"text", "id", "data"}
    corpus: PathBuf,
    /// The file to write; `munjang search --index` and `SemanticIndex.fromBytes` read it
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
    #[command(flatten)]
    how: IndexOptions,
}

/// Makes an index file.
///
/// # Errors
/// Whatever is wrong with the model or the corpus, or keeps the file from being written.
pub fn run(args: IndexArgs) -> Result<()> {
    args.how.checked()?;
    let corpus = Corpus::read(&args.corpus)?;
    let encoder = args.model.load()?;
    let index = corpus.index(&encoder, &args.how)?;
    let bytes = corpus.to_bytes(&index, &args.how)?;
    write_atomically(&args.output, &bytes)?;
    print(&format!(
        "{}: {} documents, {} passages, {} bytes\n",
        args.output.display(),
        index.len(),
        index.passages(),
        bytes.len()
    ))
}
