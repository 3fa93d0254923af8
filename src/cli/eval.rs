//! `munjang eval`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::args::ModelArg;
use super::corpus::IndexOptions;
use super::output::{bar, print};
use crate::error::Result;
use crate::eval;
use crate::eval::retrieval::{Retrieval, read_retrieval};
use crate::search::DEFAULT_SEMANTIC;

/// What to measure.
#[derive(Subcommand)]
pub enum EvalCommand {
    /// Correlate the cosine of sentence pairs with scores given by people
    Sts(StsArgs),
    /// Rank a corpus for queries whose relevant documents are known
    Retrieval(RetrievalArgs),
}

/// Arguments of `munjang eval retrieval`.
#[derive(Args)]
pub struct RetrievalArgs {
    #[command(flatten)]
    model: ModelArg,
    /// Folder with queries.tsv and corpus.tsv (id, text) and relevance.tsv (query, document and, if
    /// they differ, relevance); tab-separated with a header line, also .gz
    folder: PathBuf,
    /// The weight of meaning against words, 0 to 1, in the fusion
    #[arg(long, default_value_t = DEFAULT_SEMANTIC, value_name = "W")]
    semantic: f32,
    #[command(flatten)]
    how: IndexOptions,
    /// Print one JSON object instead of a table
    #[arg(long)]
    json: bool,
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
        EvalCommand::Retrieval(args) => retrieval(args),
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

fn retrieval(args: RetrievalArgs) -> Result<()> {
    let options = args.how.checked()?;
    let set = read_retrieval(&args.folder)?;
    let encoder = args.model.load()?;
    let progress = bar(0, "passages");
    let retrieval = Retrieval::new(&encoder, &set, options, |done, total| {
        progress.set_length(total as u64);
        progress.set_position(done as u64);
    })?;
    progress.finish_and_clear();
    let rows = [("words", 0.0), ("meaning", 1.0), ("fusion", args.semantic)]
        .map(|(name, semantic)| retrieval.score(semantic).map(|score| (name, semantic, score)));
    let rows = rows.into_iter().collect::<Result<Vec<_>>>()?;
    if args.json {
        let scores: serde_json::Map<String, serde_json::Value> = rows
            .iter()
            .map(|(name, semantic, score)| {
                let value = serde_json::json!({"semantic": semantic,
                    "ndcg@10": 100.0 * score.ndcg_at_10, "mrr@10": 100.0 * score.mrr_at_10,
                    "recall@10": 100.0 * score.recall_at_10, "recall@100": 100.0 * score.recall_at_100});
                ((*name).to_owned(), value)
            })
            .collect();
        let json = serde_json::json!({"modelId": encoder.info().model_id,
            "folder": args.folder.display().to_string(), "queries": set.queries.len(),
            "documents": set.corpus.len(), "scores": scores});
        return print(&format!("{json}\n"));
    }
    let mut text = format!(
        "{} queries, {} documents\n{:8}  {:>8}  {:>8}  {:>8}  {:>9}  {:>10}\n",
        set.queries.len(),
        set.corpus.len(),
        "×100",
        "semantic",
        "nDCG@10",
        "MRR@10",
        "recall@10",
        "recall@100"
    );
    for (name, semantic, score) in rows {
        text += &format!(
            "{name:8}  {semantic:>8}  {:>8.2}  {:>8.2}  {:>9.2}  {:>10.2}\n",
            100.0 * score.ndcg_at_10,
            100.0 * score.mrr_at_10,
            100.0 * score.recall_at_10,
            100.0 * score.recall_at_100
        );
    }
    print(&text)
}
