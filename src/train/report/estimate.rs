//! What a run would do, from which data and in about what time.

use std::collections::{BTreeSet, HashMap};
use std::time::Instant;

use super::duration::minutes;
use crate::convert::{ConvertOptions, read_checkpoint};
use crate::error::Result;
use crate::train::data::{EvalSentences, Rows};
use crate::train::nn::batch::TokenBatch;
use crate::train::nn::bert::BertModel;
use crate::train::nn::options::ForwardOptions;
use crate::train::recipe::{Slot, Stage, StageKind};
use crate::train::run::{Run, pooling};

/// Rows of a source, and their mean tokens.
type Sizes = HashMap<String, (usize, f64)>;

/// Prints counts, parameters and times.
///
/// # Errors
/// When data or models cannot be read.
pub(in crate::train) fn print_estimate(run: &Run) -> Result<()> {
    println!("recipe {}, seed {}\n", run.recipe.name, run.recipe.seed);
    let sizes = print_data(run)?;
    let (mut layers, unit) = measure_teacher(run)?;
    println!("\n{:18} {:18} {:>9} {:>7} {:>12}", "stage", "what", "examples", "steps", "about");
    let mut total = 0.0;
    for (index, stage) in run.recipe.stages.iter().enumerate() {
        if let StageKind::PickLayers(options) = &stage.kind {
            layers[1] = options.layers.len();
        }
        if run.left_out(index) {
            continue;
        }
        let examples: usize = stage.data().iter().map(|name| sizes[name].0).sum();
        let seconds = seconds(stage, layers, unit, &sizes);
        total += seconds;
        let what = format!("{} {}", stage.kind_name().replace('_', ""), stage.model().name());
        println!(
            "{:18} {what:18} {examples:>9} {:>7} {:>12}",
            stage.name,
            stage.steps(),
            minutes(seconds)
        );
    }
    println!("\nabout {} on this machine as busy as it is now", minutes(total));
    Ok(())
}

fn print_data(run: &Run) -> Result<Sizes> {
    let recipe = &run.recipe;
    let evaluation = EvalSentences::read(recipe, &run.data)?;
    println!(
        "{:20} {:>9} {:>9} {:>9} {:>11} {:>9}  licence",
        "data", "rows", "filtered", "leaked", "in passages", "limited"
    );
    let used: BTreeSet<&String> = recipe.stages.iter().flat_map(Stage::data).collect();
    let mut sizes = Sizes::new();
    for name in used {
        let source = &recipe.data[name];
        if let Some(stage) = &source.made_by
            && !run.folders().file(source).exists()
        {
            println!("{name:20} {:>9}  will be made by stage {stage:?}", "?");
            sizes.insert(name.clone(), (0, 0.0));
            continue;
        }
        let rows = Rows::read(recipe, std::slice::from_ref(name), run.folders(), &evaluation)?;
        let (_, count) = rows.counts[0];
        println!(
            "{name:20} {:>9} {:>9} {:>9} {:>11} {:>9}  {}",
            count.kept,
            count.filtered,
            count.leaked,
            count.in_passages,
            count.beyond_limit,
            source.license
        );
        sizes.insert(name.clone(), (count.kept, tokens(&rows)));
    }
    Ok(sizes)
}

/// Layers of teacher and student, and the seconds that one token takes through one layer, forward.
fn measure_teacher(run: &Run) -> Result<([usize; 2], f64)> {
    let pooling = pooling(run.recipe.teacher.pooling);
    let options = ConvertOptions { pooling, ..ConvertOptions::default() };
    let float = read_checkpoint(&run.teacher, &options)?;
    let count = float.config.num_hidden_layers;
    let mut layers = [count, count];
    if let (Some(folder), None) = (&run.student, run.from) {
        layers[1] = read_checkpoint(folder, &ConvertOptions::default())?.config.num_hidden_layers;
    }
    let bert = BertModel::from_float_model(&float, &run.device)?;
    println!("\nteacher: {} parameters, {count} layers", bert.parameters().count().0);
    let length = 16.min(float.config.max_position_embeddings);
    let batch = TokenBatch::new(&vec![vec![0u32; length]; 32])?;
    bert.forward(&batch, &ForwardOptions::default())?;
    // A GPU only queues what it is asked for.
    run.device.synchronize()?;
    let begin = Instant::now();
    bert.forward(&batch, &ForwardOptions::default())?;
    run.device.synchronize()?;
    Ok((layers, begin.elapsed().as_secs_f64() / (batch.num_tokens() * count) as f64))
}

/// Mean tokens of a row, all its texts together, from the number of characters.
fn tokens(rows: &Rows) -> f64 {
    let chars: usize =
        rows.rows.iter().flat_map(|row| &row.texts).map(|text| text.chars().count()).sum();
    // Korean has about two characters a token; two special tokens each.
    let texts: usize = rows.rows.iter().map(|row| row.texts.len()).sum();
    (chars as f64 / 2.0 + 2.0 * texts as f64) / rows.rows.len() as f64
}

fn seconds(stage: &Stage, layers: [usize; 2], unit: f64, sizes: &Sizes) -> f64 {
    let (mut rows, mut sum) = (0usize, 0.0);
    for name in stage.data() {
        let (count, mean) = sizes[name];
        rows += count;
        sum += count as f64 * mean;
    }
    if let StageKind::LabelPairs(options) = &stage.kind {
        let mined = rows.min(options.mined_sentences) * options.neighbours;
        let orders = if options.both_orders { 2.0 } else { 1.0 };
        let pairs = sum * (1.0 + mined as f64 / rows.max(1) as f64);
        return pairs * orders * layers[0] as f64 * unit;
    }
    let Some(training) = stage.training() else { return 0.0 };
    let own = layers[(training.model == Slot::Student) as usize] as f64;
    let trained = own - training.freeze_layers as f64;
    // A backward pass costs two forward passes.
    let mut passes = own + 2.0 * trained;
    if matches!(stage.kind, StageKind::Distill(_)) {
        passes += layers[0] as f64;
    }
    let per_step = training.batch as f64 * sum / rows.max(1) as f64 * passes * unit;
    let seconds = per_step * training.steps as f64;
    training.minutes.map_or(seconds, |minutes| seconds.min(60.0 * minutes))
}
