//! `munjang eval`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::args::ModelArg;
use super::output::{bar, print};
use crate::error::Result;
use crate::eval;

/// What to measure.
#[derive(Subcommand)]
pub enum EvalCommand {
    /// Correlate the cosine of sentence pairs with scores given by people
    Sts(StsArgs),
}

/// Arguments of `munjang eval sts`.
#[derive(Args)]
pub struct StsArgs {
    #[command(flatten)]
    model: ModelArg,
    /// TSV files (also .gz) with a header line and the columns sentence1, sentence2, score
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Print one JSON object instead of a table
    #[arg(long)]
    json: bool,
}

/// Measures a model.
///
/// # Errors
/// Whatever is wrong with the model or the files.
pub fn run(command: EvalCommand) -> Result<()> {
    match command {
        EvalCommand::Sts(args) => sts(args),
    }
}

fn sts(args: StsArgs) -> Result<()> {
    let encoder = args.model.load()?;
    let mut rows = Vec::new();
    for path in &args.files {
        let pairs = eval::read_sts(path)?;
        let progress = bar(2 * pairs.len(), "sentences");
        let score = eval::sts(&encoder, &pairs, |done| progress.set_position(done as u64))?;
        progress.finish_and_clear();
        rows.push((path.display().to_string(), score));
    }
    if args.json {
        // NaN (fewer than two pairs, constant scores) has no JSON number: it becomes null.
        let files: Vec<_> = rows
            .iter()
            .map(|(file, score)| {
                serde_json::json!({"file": file, "pairs": score.pairs,
                    "spearman": 100.0 * score.spearman, "pearson": 100.0 * score.pearson})
            })
            .collect();
        let info = encoder.info();
        let json =
            serde_json::json!({"modelId": info.model_id, "kernel": info.kernel, "files": files});
        return print(&format!("{json}\n"));
    }
    let width = rows.iter().map(|(file, _)| file.chars().count()).max().unwrap_or(0).max(4);
    let mut text = format!(
        "{:width$}  {:>7}  {:>12}  {:>11}\n",
        "file", "pairs", "Spearman×100", "Pearson×100"
    );
    for (file, score) in &rows {
        text += &format!(
            "{file:width$}  {:>7}  {:>12.2}  {:>11.2}\n",
            score.pairs,
            100.0 * score.spearman,
            100.0 * score.pearson
        );
    }
    print(&text)
}
