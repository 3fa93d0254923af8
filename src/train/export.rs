//! The end of a run: the model file, its manifest and its card.

use std::fmt::Write as _;

use super::data::{Rows, TokenStore, inside};
use super::evaluate::{EvalRows, Evaluation, bm25_ndcg_at_10, ndcg_at_10, read_retrieval};
use super::metrics::{Metric, Metrics};
use super::model::BertModel;
use super::probes;
use super::recipe::{EvalKind, EvalSet, Slot, Stage, StageKind};
use super::stages::{Run, minutes};
use crate::convert::{Manifest, checkpoint_files};
use crate::error::Result;
use crate::files::{make_folder, write_atomically};
use crate::model::Encoder;
use crate::tokenizer::Tokenizer;
use crate::{eval, format};

/// A line of the card's table.
struct Line {
    set: EvalSet,
    rows: usize,
    /// Metric, value of the file (× 100), and of the float model where it was measured.
    values: Vec<(String, f64, Option<f64>)>,
    note: String,
}

/// Writes `NAME.munjang`, `manifest.json` and `MODEL_CARD.md` of the student into the stage's
/// folder, beside them in `checkpoint/` the same model in 32-bit floats as a Hugging Face checkpoint
/// (`munjang convert` makes the same `NAME.munjang` of it), and measures the file on all evaluation
/// sets.
///
/// # Errors
/// When a weight is not finite, a file cannot be written, or an evaluation set is malformed.
pub fn export(run: &Run, index: usize, metrics: &Metrics) -> Result<()> {
    let recipe = &run.recipe;
    let stage = &recipe.stages[index];
    let folder = run.folder(stage);
    let float = run.model_before(index, stage.model)?;
    let bytes = format::write(&float)?;
    let encoder = Encoder::from_bytes(bytes.clone())?;
    let info = encoder.info();
    let name = format!("{}.munjang", recipe.name);
    write_atomically(&folder.join(&name), &bytes)?;
    let manifest = Manifest::new(name, &bytes, &info);
    write_atomically(&folder.join("manifest.json"), manifest.to_json().as_bytes())?;

    for (file, bytes) in checkpoint_files(&float)? {
        let path = folder.join("checkpoint").join(file);
        if let Some(parent) = path.parent() {
            make_folder(parent)?;
        }
        write_atomically(&path, &bytes)?;
    }

    let config = &float.config;
    let tokenizer = Tokenizer::from_bytes(
        &float.tokenizer_json,
        &config.prefix,
        config.max_position_embeddings,
    )?;
    let store = |texts: &[&str]| TokenStore::new(&tokenizer, texts.iter().copied());
    let bert = BertModel::from_float_model(&float, &run.device)?;
    let mut missing = Vec::new();
    let rows = EvalRows::read(&recipe.evaluate, &run.data, &mut missing)?;
    let float_scores = Evaluation::new(rows, store)?.run(&bert, None, &[])?;
    let mut lines = Vec::new();
    for set in &recipe.evaluate {
        let path = inside(&run.data, &set.file)?;
        if !path.exists() {
            eprintln!("{}: {} is not in {}", stage.name, set.file, run.data.display());
            continue;
        }
        let mut note = String::new();
        let (rows, values) = match set.kind {
            EvalKind::Sts => {
                let score = eval::sts(&encoder, &eval::read_sts(&path)?, |_| {})?;
                let values = vec![("spearman", score.spearman), ("pearson", score.pearson)];
                (score.pairs, values)
            }
            EvalKind::Retrieval => {
                let rows = read_retrieval(&path, set)?;
                let value = retrieval(&encoder, &rows)?;
                note = format!("BM25 (character bigrams): {:.2}", 100.0 * bm25_ndcg_at_10(&rows));
                (rows.len(), vec![("ndcg@10", value)])
            }
        };
        let mut found = Vec::new();
        for (metric, value) in values {
            let value = 100.0 * value;
            let of_float = float_scores
                .iter()
                .find(|score| score.set == set.name && score.metric == metric)
                .map(|score| score.value);
            eprintln!("{}: {} {metric} {value:.2}", stage.name, set.name);
            metrics.push(&Metric::Score {
                stage: stage.name.clone(),
                step: 0,
                seconds: 0.0,
                model: "file".into(),
                set: set.name.clone(),
                metric: metric.to_owned(),
                value,
            })?;
            found.push((metric.to_owned(), value, of_float));
        }
        lines.push(Line { set: set.clone(), rows, values: found, note });
    }
    let card = card(run, index, &manifest, &encoder, &lines, &metrics.read()?)?;
    write_atomically(&folder.join("MODEL_CARD.md"), card.as_bytes())
}

/// nDCG@10 of an encoder.
///
/// # Errors
/// As [`Encoder::encode_batch`].
pub fn retrieval(encoder: &Encoder, rows: &[(String, String)]) -> Result<f64> {
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

fn card(
    run: &Run,
    index: usize,
    manifest: &Manifest,
    encoder: &Encoder,
    lines: &[Line],
    metrics: &[Metric],
) -> Result<String> {
    let recipe = &run.recipe;
    let config = encoder.info().config;
    let mut text = format!("# {}\n\n", recipe.name);
    if !recipe.description.is_empty() {
        let _ = writeln!(text, "{}\n", recipe.description.trim());
    }
    let prefix = match config.prefix.as_str() {
        "" => "none".to_owned(),
        prefix => format!("`{prefix}`, added by the encoder"),
    };
    let _ = write!(
        text,
        "| | |\n| --- | --- |\n\
         | architecture | {} layers × hidden {}, {} heads, feed-forward {}, at most {} tokens |\n\
         | vocabulary | {} pieces |\n| pooling | {}, then length 1 |\n| prefix | {prefix} |\n\
         | weights | int8 (7 significant bits, per channel); embedding rows int8 |\n\
         | cost | {:.1} million multiplications per token, attention aside; times are in the \
         project's docs/PERFORMANCE.md |\n\
         | file | `{}`, {} bytes |\n| SHA-256 | `{}` |\n| model id | `{}` |\n\n",
        config.num_hidden_layers,
        config.hidden_size,
        config.num_attention_heads,
        config.intermediate_size,
        config.max_position_embeddings,
        config.vocab_size,
        match config.pooling {
            crate::config::Pooling::Mean => "mean over all tokens",
            _ => "first token",
        },
        (config.num_hidden_layers
            * (4 * config.hidden_size * config.hidden_size
                + 2 * config.hidden_size * config.intermediate_size)) as f64
            / 1e6,
        manifest.file,
        manifest.bytes,
        manifest.sha256,
        manifest.model_id,
    );

    text += "## Scores\n\nMeasured on this very file: cosine of the embeddings against human scores \
             (× 100), or nDCG@10 (× 100) of finding the passage by its question among all passages \
             of the set. *float* is the same model in 32-bit floats \
             (of quantization-aware training: the weights that its loss saw).\n\n\
             | set | rows | metric | this file | float | |\n| --- | --- | --- | --- | --- | --- |\n";
    for line in lines {
        for (metric, value, float) in &line.values {
            let float = float.map_or("–".to_owned(), |value| format!("{value:.2}"));
            let _ = writeln!(
                text,
                "| {} | {} | {metric} | {value:.2} | {float} | {} |",
                line.set.name, line.rows, line.note
            );
        }
    }
    text += "\nFor comparison (as their authors report, Spearman × 100): the published DistilKoBERT \
             sentence encoder (3 × 768) has 86.53 on KorSTS dev, 83.12 on KorSTS test, 86.87 on \
             KLUE-STS dev; Korean SRoBERTa base 83.54 and 80.29 on KorSTS dev and test.\n\n";

    text += "## Teacher\n\n";
    let _ = writeln!(text, "{}\n", recipe.teacher.about.trim());

    text += "## Training\n\n| stage | what | steps | time |\n| --- | --- | --- | --- |\n";
    for (at, stage) in recipe.stages[..index].iter().enumerate() {
        if run.left_out(at) {
            let _ = writeln!(text, "| {} | {} | | in an earlier run |", stage.name, what(stage));
            continue;
        }
        let done = metrics.iter().find_map(|metric| match metric {
            Metric::Done { stage: name, step, seconds } if *name == stage.name => {
                Some((*step, *seconds))
            }
            _ => None,
        });
        let (steps, time) =
            done.map_or(("–".to_owned(), "–".to_owned()), |(steps, seconds)| {
                let steps = if steps == 0 { "–".to_owned() } else { steps.to_string() };
                (steps, minutes(seconds))
            });
        let _ = writeln!(text, "| {} | {} | {steps} | {time} |", stage.name, what(stage));
    }

    if let (Some(from), Some(folder)) = (run.from, &run.student) {
        let (_, bytes) = Manifest::read_model(&folder.join("manifest.json"))?;
        let before = Encoder::from_bytes(bytes)?.info();
        let _ = writeln!(
            text,
            "\nThe stages of an earlier run left a model file (model id `{}`) from which stage {} went on.",
            before.model_id, recipe.stages[from].name
        );
    }

    text += "\n## Data\n\n| data | rows used | licence | source |\n| --- | --- | --- | --- |\n";
    let evaluation = super::data::EvalSentences::read(recipe, &run.data)?;
    for (name, source) in &recipe.data {
        if !recipe.stages[..index].iter().any(|stage| stage.data.contains(name)) {
            continue;
        }
        let rows = Rows::read(recipe, std::slice::from_ref(name), run.folders(), &evaluation)?;
        let _ = writeln!(
            text,
            "| {name} (`{}`) | {} | {} | {} |",
            source.made_by.as_ref().unwrap_or(&source.file),
            rows.rows.len(),
            source.license,
            source.origin
        );
    }
    text += "\nRows that share a text with an evaluation set, or of which a sentence stands in a \
             passage of one (compared without spacing, punctuation and case), are left out. Data under CC BY-SA asks for attribution, which \
             this table gives, and for the same licence of adapted material.\n\n";
    text += &probes::sections(encoder)?;
    text += "## Limits\n\n\
             - Trained on short sentences: long passages are less well told apart, and text beyond \
             the maximum of tokens is cut (the encoder reports it).\n\
             - Opposites, changed numbers, names and roles come out as similar; the tables above show \
             how much.\n\
             - Sentences that people wrote on the web, such as reviews and petitions, can be rude and \
             biased, and the vectors carry associations from them and from the teacher.\n\
             - Languages other than Korean are not trained for.\n\n";
    let _ = write!(
        text,
        "## Reproduce\n\n```\nmunjang train RECIPE.toml --data DATA --teacher TEACHER --out OUT\n\
         ```\n\nThe model file, its manifest and this card are then in `OUT/{}`.\n",
        recipe.stages[index].name
    );
    Ok(text)
}

/// A stage in a few words.
fn what(stage: &Stage) -> String {
    let data = stage.data.len();
    match stage.kind {
        StageKind::PruneVocabulary => format!("vocabulary cut to {} pieces", stage.vocabulary),
        StageKind::Center => {
            format!("mean sentence vector of the {} moved to zero", stage.model.name())
        }
        StageKind::ShiftStates => {
            format!("states of the {} moved near zero, biases with them", stage.model.name())
        }
        StageKind::PickLayers => format!("student from layers {:?} of the teacher", stage.layers),
        StageKind::Widen => format!(
            "feed-forwards of the student widened to {} units, from the layers left out",
            stage.intermediate_size.unwrap_or_default()
        ),
        StageKind::Contrast => {
            format!("supervised SimCSE of the {} on {data} sets", stage.model.name())
        }
        StageKind::Sts => {
            let teacher = if stage.model == Slot::Student && stage.teacher_weight > 0.0 {
                " with the teacher's term"
            } else {
                ""
            };
            let pairs = match (stage.pairs_weight > 0.0, stage.pairs_teacher_weight > 0.0) {
                (true, true) => " and retrieval of partners, as the untrained teacher ranks them",
                (true, false) => " and retrieval of partners",
                _ => "",
            };
            format!("STS regression of the {}{teacher}{pairs}", stage.model.name())
        }
        StageKind::Distill => format!("distillation on sentences of {data} sources"),
        StageKind::CrossEncoder => "cross-encoder from the teacher, on scored pairs".into(),
        StageKind::LabelPairs => format!("pairs of {data} sources scored by the cross-encoder"),
        StageKind::Export => "export".into(),
    }
}
