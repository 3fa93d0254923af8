//! The model card.

use std::fmt::Write as _;

use super::duration::minutes;
use super::metrics::Metric;
use super::probes;
use crate::config::{ModelConfig, Pooling};
use crate::convert::Manifest;
use crate::error::Result;
use crate::model::Encoder;
use crate::train::data::{EvalSentences, Rows};
use crate::train::run::Run;

/// What an exported file scored on one evaluation set: a part of the card's table.
pub(in crate::train) struct SetScores {
    /// Name of the set.
    pub(in crate::train) set: String,
    pub(in crate::train) rows: usize,
    /// Metric, value of the file (× 100), and of the float model where it was measured.
    pub(in crate::train) values: Vec<(String, f64, Option<f64>)>,
    pub(in crate::train) note: String,
}

/// The card of the model that stage `index` exported as `manifest` says.
///
/// # Errors
/// When data cannot be read, or the encoder fails on a probe.
pub(in crate::train) fn card(
    run: &Run,
    index: usize,
    manifest: &Manifest,
    encoder: &Encoder,
    scores: &[SetScores],
    metrics: &[Metric],
) -> Result<String> {
    let recipe = &run.recipe;
    let mut text = format!("# {}\n\n", recipe.name);
    if !recipe.description.is_empty() {
        let _ = writeln!(text, "{}\n", recipe.description.trim());
    }
    text += &facts(encoder.config(), manifest);
    text += &score_table(scores);
    text += "## Teacher\n\n";
    let _ = writeln!(text, "{}\n", recipe.teacher.about.trim());
    text += &training_table(run, index, metrics)?;
    text += &data_table(run, index)?;
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

/// Sizes, and how the file is known again.
fn facts(config: &ModelConfig, manifest: &Manifest) -> String {
    let prefix = match config.prefix.as_str() {
        "" => "none".to_owned(),
        prefix => format!("`{prefix}`, added by the encoder"),
    };
    format!(
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
            Pooling::Mean => "mean over all tokens",
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
    )
}

fn score_table(scores: &[SetScores]) -> String {
    let mut text = String::new();
    text += "## Scores\n\nMeasured on this very file: cosine of the embeddings against human scores \
             (× 100), or nDCG@10 (× 100) of finding the passage by its question among all passages \
             of the set. *float* is the same model in 32-bit floats \
             (of quantization-aware training: the weights that its loss saw).\n\n\
             | set | rows | metric | this file | float | |\n| --- | --- | --- | --- | --- | --- |\n";
    for scores in scores {
        for (metric, value, float) in &scores.values {
            let float = float.map_or("–".to_owned(), |value| format!("{value:.2}"));
            let _ = writeln!(
                text,
                "| {} | {} | {metric} | {value:.2} | {float} | {} |",
                scores.set, scores.rows, scores.note
            );
        }
    }
    text += "\nFor comparison (as their authors report, Spearman × 100): the published DistilKoBERT \
             sentence encoder (3 × 768) has 86.53 on KorSTS dev, 83.12 on KorSTS test, 86.87 on \
             KLUE-STS dev; Korean SRoBERTa base 83.54 and 80.29 on KorSTS dev and test.\n\n";
    text
}

/// What was done, in which time.
fn training_table(run: &Run, index: usize, metrics: &[Metric]) -> Result<String> {
    let recipe = &run.recipe;
    let mut text = String::new();
    text += "## Training\n\n| stage | what | steps | time |\n| --- | --- | --- | --- |\n";
    for (at, stage) in recipe.stages[..index].iter().enumerate() {
        if run.left_out(at) {
            let _ =
                writeln!(text, "| {} | {} | | in an earlier run |", stage.name, stage.summary());
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
        let _ = writeln!(text, "| {} | {} | {steps} | {time} |", stage.name, stage.summary());
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
    Ok(text)
}

fn data_table(run: &Run, index: usize) -> Result<String> {
    let recipe = &run.recipe;
    let mut text = String::new();
    text += "\n## Data\n\n| data | rows used | licence | source |\n| --- | --- | --- | --- |\n";
    let evaluation = EvalSentences::read(recipe, &run.data)?;
    for (name, source) in &recipe.data {
        if !recipe.stages[..index].iter().any(|stage| stage.data().contains(name)) {
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
    Ok(text)
}
