//! `munjang search`.

use std::path::PathBuf;

use clap::Args;

use super::args::{ModelArg, text};
use super::corpus::{Corpus, IndexOptions};
use super::output::print;
use crate::error::{Error, ErrorKind, Result};
use crate::files::{read, write_atomically};
use crate::search::{DEFAULT_SEMANTIC, HybridIndex, HybridQuery, from_utf16};

/// Arguments of `munjang search`.
#[derive(Args)]
pub struct SearchArgs {
    #[command(flatten)]
    model: ModelArg,
    /// Text file, one document a line; or .jsonl with objects {"text", "id", "data"}
    corpus: PathBuf,
    /// What to look for
    #[arg(value_parser = text)]
    query: String,
    /// How many documents to print
    #[arg(long, short = 'k', default_value_t = 10, value_name = "K")]
    top_k: usize,
    /// The weight of meaning against words: 1 by meaning alone, 0 by words alone
    #[arg(long, default_value_t = DEFAULT_SEMANTIC, value_name = "W")]
    semantic: f32,
    /// Leave out documents of a lower score
    #[arg(long, value_name = "SCORE")]
    min_score: Option<f32>,
    /// Keep the corpus' index in this file and use it if it is there
    #[arg(long, value_name = "FILE")]
    index: Option<PathBuf>,
    #[command(flatten)]
    how: IndexOptions,
    /// Print JSON lines
    #[arg(long)]
    json: bool,
}

/// Prints the best documents: score, line and text.
///
/// # Errors
/// Whatever is wrong with the model or the input, or keeps the output from being written.
pub fn run(args: SearchArgs) -> Result<()> {
    args.how.checked()?;
    let encoder = args.model.load()?;
    let corpus = Corpus::read(&args.corpus)?;
    let index = match &args.index {
        Some(path) if path.exists() => {
            let bytes = read(path)?;
            let stored =
                HybridIndex::from_source(&bytes.as_slice(), Some(&encoder.info().model_id))?;
            if stored.json != corpus.json || stored.max_chars != args.how.max_chars {
                return Err(Error::new(
                    ErrorKind::IndexInvalid,
                    format!(
                        "{} was not made of {} with passages of {} characters: delete it to build it again",
                        path.display(),
                        args.corpus.display(),
                        args.how.max_chars
                    ),
                ));
            }
            stored.index
        }
        path => {
            let index = corpus.index(&encoder, &args.how)?;
            if let Some(path) = path {
                write_atomically(path, &corpus.to_bytes(&index, &args.how)?)?;
            }
            index
        }
    };
    let vector = encoder.encode(&args.query)?;
    let hits = index.search(HybridQuery {
        vector: (args.semantic > 0.0).then_some(&vector),
        text: (args.semantic < 1.0).then_some(&args.query),
        top_k: args.top_k,
        min_score: args.min_score.unwrap_or(f32::NEG_INFINITY),
        semantic: args.semantic,
        mask: None,
    })?;
    let mut output = String::new();
    for hit in hits {
        let text = &corpus.texts[hit.document as usize];
        let line = hit.document + 1;
        if args.json {
            let places = from_utf16(text, &[hit.place.0, hit.place.1]).unwrap_or_default();
            let passage =
                places.first().zip(places.get(1)).and_then(|(&from, &to)| text.get(from..to));
            let json = serde_json::json!({"line": line, "score": hit.score, "cosine": hit.cosine,
                "lexical": hit.lexical, "text": text, "passage": passage});
            output += &format!("{json}\n");
        } else {
            output += &format!("{:.4}\t{line}\t{text}\n", hit.score);
        }
    }
    print(&output)
}
