//! The end of a run: the model file, its manifest and its card.

use crate::convert::{Manifest, checkpoint_files};
use crate::error::Result;
use crate::files::{make_folder, write_atomically};
use crate::model::Encoder;
use crate::train::data::{Purpose, TokenStore, inside};
use crate::train::nn::bert::BertModel;
use crate::train::recipe::{EvalKind, EvalSet};
use crate::train::report::card::{SetScores, card};
use crate::train::report::evaluation::{EvalRows, Evaluation, Score};
use crate::train::report::metrics::{Metric, Metrics};
use crate::train::report::retrieval::{bm25_ndcg_at_10, ndcg_at_10, read_retrieval};
use crate::train::run::Run;
use crate::weights::FloatModel;
use crate::{eval, format};

/// Writes `NAME.munjang`, `manifest.json` and `MODEL_CARD.md` of the model into the stage's
/// folder, beside them in `checkpoint/` the same model in 32-bit floats as a Hugging Face checkpoint
/// (`munjang convert` makes the same `NAME.munjang` of it), and measures the file on all evaluation
/// sets.
///
/// # Errors
/// When a weight is not finite, a file cannot be written, or an evaluation set is malformed.
pub(super) fn export(run: &Run, index: usize, metrics: &Metrics) -> Result<()> {
    let recipe = &run.recipe;
    let stage = &recipe.stages[index];
    let folder = run.folder(stage);
    let float = run.model_before(index, stage.model())?;
    let bytes = format::write(&float)?;
    let encoder = Encoder::from_bytes(bytes.clone())?;
    let name = format!("{}.munjang", recipe.name);
    write_atomically(&folder.join(&name), &bytes)?;
    let manifest = Manifest::new(name, &bytes, &encoder.info());
    write_atomically(&folder.join("manifest.json"), manifest.to_json().as_bytes())?;
    for (file, bytes) in checkpoint_files(&float)? {
        let path = folder.join("checkpoint").join(file);
        if let Some(parent) = path.parent() {
            make_folder(parent)?;
        }
        write_atomically(&path, &bytes)?;
    }

    let float_scores = scores_of_float(run, &float)?;
    let mut scores = Vec::new();
    for set in &recipe.evaluate {
        if !inside(&run.data, &set.file)?.exists() {
            eprintln!("{}: {} is not in {}", stage.name, set.file, run.data.display());
            continue;
        }
        let mut measured = measure(run, &encoder, set)?;
        for (metric, value, of_float) in &mut measured.values {
            *of_float = float_scores
                .iter()
                .find(|score| score.set == set.name && score.metric == *metric)
                .map(|score| score.value);
            eprintln!("{}: {} {metric} {value:.2}", stage.name, set.name);
            metrics.push(&Metric::Score {
                stage: stage.name.clone(),
                step: 0,
                seconds: 0.0,
                model: "file".into(),
                set: set.name.clone(),
                metric: metric.clone(),
                value: *value,
            })?;
        }
        scores.push(measured);
    }
    let card = card(run, index, &manifest, &encoder, &scores, &metrics.read()?)?;
    write_atomically(&folder.join("MODEL_CARD.md"), card.as_bytes())
}

/// The scores of the model before it was rounded.
fn scores_of_float(run: &Run, float: &FloatModel) -> Result<Vec<Score>> {
    let tokenizer = run.tokenizer(float, Purpose::Evaluation)?;
    let store = |texts: &[&str]| TokenStore::new(&tokenizer, texts.iter().copied());
    let bert = BertModel::from_float_model(float, &run.device)?;
    let rows = EvalRows::read(&run.recipe.evaluate, &run.data, &mut Vec::new())?;
    Evaluation::new(rows, store)?.run(&bert, None, &[])
}

/// What the file scores on one set.
fn measure(run: &Run, encoder: &Encoder, set: &EvalSet) -> Result<SetScores> {
    let path = inside(&run.data, &set.file)?;
    let of = |values: &[(&str, f64)]| -> Vec<(String, f64, Option<f64>)> {
        values.iter().map(|&(metric, value)| (metric.to_owned(), 100.0 * value, None)).collect()
    };
    Ok(match set.kind {
        EvalKind::Sts => {
            let score = eval::sts(encoder, &eval::read_sts(&path)?, |_| {})?;
            let values = of(&[("spearman", score.spearman), ("pearson", score.pearson)]);
            SetScores { set: set.name.clone(), rows: score.pairs, values, note: String::new() }
        }
        EvalKind::Retrieval => {
            let rows = read_retrieval(&path, set)?;
            let note = format!("BM25 (character bigrams): {:.2}", 100.0 * bm25_ndcg_at_10(&rows));
            let values = of(&[("ndcg@10", retrieval(encoder, &rows)?)]);
            SetScores { set: set.name.clone(), rows: rows.len(), values, note }
        }
    })
}

/// nDCG@10 of an encoder.
///
/// # Errors
/// As [`Encoder::encode_batch`].
fn retrieval(encoder: &Encoder, rows: &[(String, String)]) -> Result<f64> {
    let mut places = std::collections::HashMap::new();
    let mut texts: Vec<&str> = Vec::new();
    for text in rows.iter().flat_map(|(query, document)| [&**query, &**document]) {
        places.entry(text).or_insert_with(|| {
            texts.push(text);
            texts.len() - 1
        });
    }
    let hidden = encoder.info().config.hidden_size;
    let vectors = encoder.encode_batch(&texts)?.embeddings;
    let vector = |text: &str| &vectors[places[text] * hidden..][..hidden];
    Ok(ndcg_at_10(rows, |query, document| {
        vector(query).iter().zip(vector(document)).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
    }))
}
