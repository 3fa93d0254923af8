//! `munjang similarity`.

use clap::Args;

use super::args::{ModelArg, text};
use super::output::print;
use crate::error::Result;
use crate::search::{dot, similarity_matrix};

/// Arguments of `munjang similarity`.
#[derive(Args)]
pub struct SimilarityArgs {
    #[command(flatten)]
    model: ModelArg,
    /// Two sentences (prints one number) or more (prints a matrix)
    #[arg(required = true, num_args = 2.., value_parser = text)]
    sentences: Vec<String>,
}

/// Prints the similarities.
///
/// # Errors
/// Whatever is wrong with the model or the input, or keeps the output from being written.
pub fn run(args: SimilarityArgs) -> Result<()> {
    let encoder = args.model.load()?;
    let embeddings = encoder.encode_batch(&args.sentences)?.embeddings;
    let hidden = encoder.dimension();
    if let [_, _] = args.sentences[..] {
        let (a, b) = embeddings.split_at(hidden);
        return print(&format!("{:.4}\n", dot(a, b)));
    }
    let scores = similarity_matrix(&embeddings, &embeddings, hidden);
    let mut text = String::new();
    for row in scores.chunks_exact(args.sentences.len()) {
        let cells: Vec<String> = row.iter().map(|score| format!("{score:.4}")).collect();
        text += &(cells.join("\t") + "\n");
    }
    print(&text)
}
