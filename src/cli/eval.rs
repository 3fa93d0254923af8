//! `munjang eval`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::args::{ModelArg, load};
use super::corpus::IndexOptions;
use super::output::{bar, print};
use crate::error::{Error, Result};
use crate::eval::retrieval::{Retrieval, read_retrieval};
use crate::eval::{self, Columns, Interval, StsIntervals, StsPair, StsScore};
use crate::model::Encoder;
use crate::search::DEFAULT_SEMANTIC;

/// Samples of a comparison that does not say how many.
const RESAMPLES: usize = 1000;
/// Most samples: an hour for a thousand pairs.
const MAX_RESAMPLES: usize = 1_000_000;

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
    /// TSV, CSV or JSON Lines files (also .gz) with two sentences and a score: columns sentence1,
    /// sentence2, score, or as the Hugging Face Hub's data sets name them
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// The columns of first sentence, second sentence and score, if they have other names
    #[arg(long, value_name = "A,B,SCORE", value_delimiter = ',')]
    columns: Option<Vec<String>>,
    /// Also print 95 % confidence intervals, by so many samples of the pairs
    #[arg(long, value_name = "SAMPLES")]
    bootstrap: Option<usize>,
    /// A second model to measure on the same pairs, and the difference of both with its interval
    #[arg(long, value_name = "PATH")]
    compare: Option<PathBuf>,
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

/// One line of the table.
struct Row {
    file: String,
    /// `first`, `second` or `difference` of a comparison.
    part: Option<&'static str>,
    score: StsScore,
    intervals: Option<StsIntervals>,
}

fn sts(args: StsArgs) -> Result<()> {
    let columns = columns(args.columns)?;
    let resamples = args.bootstrap.or(args.compare.as_ref().map(|_| RESAMPLES));
    if resamples.is_some_and(|count| !(1..=MAX_RESAMPLES).contains(&count)) {
        return Err(Error::input_invalid(format!(
            "--bootstrap is {}; expected 1 to {MAX_RESAMPLES} samples, such as {RESAMPLES}",
            resamples.unwrap_or_default()
        )));
    }
    let encoder = args.model.load()?;
    let second = args.compare.as_deref().map(load).transpose()?;
    let mut rows = Vec::new();
    for path in &args.files {
        let pairs = eval::read_sts_columns(path, &columns)?;
        let file = path.display().to_string();
        let scores = eval::gold(&pairs);
        let cosines = measure(&encoder, &pairs)?;
        let own = |cosines: &[f64], part| Row {
            file: file.clone(),
            part,
            score: eval::score(cosines, &scores),
            intervals: resamples.map(|count| eval::intervals(cosines, &scores, count)),
        };
        let Some(second) = &second else {
            rows.push(own(&cosines, None));
            continue;
        };
        let others = measure(second, &pairs)?;
        let (first, other) = (own(&cosines, Some("first")), own(&others, Some("second")));
        let intervals =
            resamples.map(|count| eval::difference_intervals(&cosines, &others, &scores, count));
        let difference = StsScore {
            pairs: pairs.len(),
            spearman: other.score.spearman - first.score.spearman,
            pearson: other.score.pearson - first.score.pearson,
            undefined: first.score.undefined.or(other.score.undefined),
        };
        let part = Some("difference");
        rows.extend([first, other, Row { file, part, score: difference, intervals }]);
    }
    if args.json {
        print(&as_json(&rows, &encoder, second.as_ref()))
    } else {
        print(&as_table(&rows))
    }
}

fn columns(names: Option<Vec<String>>) -> Result<Columns> {
    let Some(names) = names else { return Ok(Columns::default()) };
    let names: [String; 3] = names.try_into().map_err(|names: Vec<String>| {
        Error::input_invalid(format!(
            "--columns names {} columns; expected three: first sentence, second sentence, score",
            names.len()
        ))
    })?;
    Ok(Columns { names: Some(names) })
}

fn measure(encoder: &Encoder, pairs: &[StsPair]) -> Result<Vec<f64>> {
    let progress = bar(2 * pairs.len(), "sentences");
    let cosines = eval::cosines(encoder, pairs, |done| progress.set_position(done as u64))?;
    progress.finish_and_clear();
    Ok(cosines)
}

/// Numbers are ×100. NaN has no JSON number: it becomes null, and `undefined` says why.
fn as_json(rows: &[Row], encoder: &Encoder, second: Option<&Encoder>) -> String {
    let ends = |interval: Option<Interval>| {
        interval.map(|Interval { low, high }| json!([100.0 * low, 100.0 * high]))
    };
    let files: Vec<Value> = rows
        .iter()
        .map(|Row { file, part, score, intervals }| {
            let mut row = json!({"file": file, "pairs": score.pairs,
                "spearman": 100.0 * score.spearman, "pearson": 100.0 * score.pearson});
            if let Some(part) = part {
                row["model"] = (*part).into();
            }
            if let Some(why) = score.undefined {
                row["undefined"] = why.into();
            }
            if let Some(intervals) = intervals {
                row["spearman95"] = ends(intervals.spearman).into();
                row["pearson95"] = ends(intervals.pearson).into();
            }
            row
        })
        .collect();
    let info = encoder.info();
    let mut json = json!({"modelId": info.model_id, "kernel": info.kernel, "files": files});
    if let Some(second) = second {
        json["secondModelId"] = second.info().model_id.into();
    }
    format!("{json}\n")
}

fn as_table(rows: &[Row]) -> String {
    let label = |row: &Row| match row.part {
        Some(part) => format!("{} {part}", row.file),
        None => row.file.clone(),
    };
    let cell = |value: f64, interval: Option<Interval>| match interval {
        Some(Interval { low, high }) => {
            format!("{:.2} [{:.2}, {:.2}]", 100.0 * value, 100.0 * low, 100.0 * high)
        }
        None => format!("{:.2}", 100.0 * value),
    };
    let mut lines =
        vec![["file".to_owned(), "pairs".into(), "Spearman×100".into(), "Pearson×100".into()]];
    for row in rows {
        let StsScore { pairs, spearman, pearson, .. } = row.score;
        let intervals = row.intervals;
        lines.push([
            label(row),
            pairs.to_string(),
            cell(spearman, intervals.and_then(|both| both.spearman)),
            cell(pearson, intervals.and_then(|both| both.pearson)),
        ]);
    }
    let widths: [usize; 4] = std::array::from_fn(|column| {
        lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0)
    });
    let [first, second, third, fourth] = widths;
    let mut text = String::new();
    for [file, pairs, spearman, pearson] in &lines {
        text +=
            &format!("{file:first$}  {pairs:>second$}  {spearman:>third$}  {pearson:>fourth$}\n");
    }
    if rows.iter().any(|row| row.intervals.is_some()) {
        text += "in brackets: 95 % confidence intervals (percentile bootstrap over the pairs)\n";
    }
    for row in rows {
        if let Some(why) = row.score.undefined {
            text += &format!("{}: NaN, since {why}\n", label(row));
        }
    }
    text
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
