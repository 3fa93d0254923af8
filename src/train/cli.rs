//! `munjang train`.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Instant;

use candle_core::Device;
use clap::Args;

use super::data::{EvalSentences, Rows};
use super::model::{BertModel, ForwardOptions, TokenBatch};
use super::pack;
use super::recipe::{Recipe, Slot, Stage, StageKind};
use super::stages::{Run, minutes};
use crate::convert::{ConvertOptions, read_checkpoint};
use crate::error::{Error, ErrorKind, Result};

/// Arguments of `munjang train`.
#[derive(Args)]
pub struct TrainArgs {
    /// The recipe, such as recipes/ko-small.toml
    #[arg(required_unless_present = "packed")]
    recipe: Option<PathBuf>,
    /// Folder of the data files that the recipe names
    #[arg(long, value_name = "DIR", required_unless_present = "packed")]
    data: Option<PathBuf>,
    /// Checkpoint folder of the teacher (Hugging Face layout)
    #[arg(long, value_name = "DIR", required_unless_present = "packed")]
    teacher: Option<PathBuf>,
    /// Checkpoint folder of the student, for recipes that do not make it from the teacher; with
    /// --from, the folder of an exported model
    #[arg(long, value_name = "DIR")]
    student: Option<PathBuf>,
    /// Leave out the student's stages before this one and go on with the model in --student instead
    #[arg(long, value_name = "STAGE", requires = "student", conflicts_with = "pack")]
    from: Option<String>,
    /// Folder for models, checkpoints, metrics and curves; a run that was stopped goes on there
    #[arg(long, value_name = "DIR", required_unless_present = "pack")]
    out: Option<PathBuf>,
    /// Run only this stage, on what the stages before it left
    #[arg(long, value_name = "STAGE")]
    only: Option<String>,
    /// Print what would be done, from which data and in about what time
    #[arg(long)]
    dry_run: bool,
    /// Write what is left of the run into a folder of at most 60 MiB, to be run elsewhere with
    /// --packed; stages that are done in --out are not packed
    #[arg(long, value_name = "DIR", conflicts_with_all = ["only", "dry_run"])]
    pack: Option<PathBuf>,
    /// Run a folder that --pack wrote; only weights and metrics are left in --out
    #[arg(
        long, value_name = "DIR", requires = "minutes",
        conflicts_with_all = ["recipe", "data", "teacher", "student", "only", "dry_run", "pack"]
    )]
    packed: Option<PathBuf>,
    /// How long --packed may take
    #[arg(long, value_name = "N", requires = "packed")]
    minutes: Option<f64>,
}

/// Runs `munjang train`.
///
/// # Errors
/// Whatever stops the run, with what to do about it.
pub fn run(args: TrainArgs) -> Result<()> {
    let missing = |what: &str| Error::new(ErrorKind::InputInvalid, format!("{what} is missing"));
    let folder = |option: &str, folder: Option<PathBuf>| {
        let folder = folder.ok_or_else(|| missing(option))?;
        if !folder.is_dir() {
            return Err(Error::new(
                ErrorKind::InputInvalid,
                format!("{option} {}: no such folder", folder.display()),
            ));
        }
        Ok(folder)
    };
    if args.packed.is_some() {
        let packed = folder("--packed", args.packed)?;
        let minutes = args.minutes.ok_or_else(|| missing("--minutes"))?;
        let out = args.out.ok_or_else(|| missing("--out"))?;
        return pack::run_packed(&packed, minutes, &out, device()?);
    }
    let recipe = Recipe::read(&args.recipe.ok_or_else(|| missing("the recipe"))?)?;
    // Leading stages of a run that has no folder of its own.
    let scratch = match (&args.pack, &args.out) {
        (Some(pack), None) => {
            let mut name = pack.as_os_str().to_owned();
            name.push(".work");
            Some(PathBuf::from(name))
        }
        _ => None,
    };
    let from = args.from.map(|name| recipe.stage(&name)).transpose()?;
    let run = Run {
        recipe,
        data: folder("--data", args.data)?,
        teacher: folder("--teacher", args.teacher)?,
        student: args.student,
        from,
        out: scratch.clone().or(args.out).ok_or_else(|| missing("--out"))?,
        device: device()?,
        packed: None,
    };
    if let Some(out) = &args.pack {
        let result = pack::pack(&run, out, pack::MOST_BYTES);
        if let Some(scratch) = scratch {
            let _ = std::fs::remove_dir_all(scratch);
        }
        return result;
    }
    if args.dry_run { dry_run(&run) } else { run.run(args.only.as_deref()) }
}

fn device() -> Result<Device> {
    if !cfg!(feature = "cuda") {
        return Ok(Device::Cpu);
    }
    Device::new_cuda(0).map_err(|source| {
        Error::new(
            ErrorKind::InputInvalid,
            "this program trains on an NVIDIA GPU and finds none; build it with \
             --features train, without cuda, to train on the CPU",
        )
        .with_source(source)
    })
}

/// Counts, parameters and times.
fn dry_run(run: &Run) -> Result<()> {
    let recipe = &run.recipe;
    let evaluation = EvalSentences::read(recipe, &run.data)?;
    println!("recipe {}, seed {}\n", recipe.name, recipe.seed);
    println!(
        "{:20} {:>9} {:>9} {:>9} {:>11} {:>9}  licence",
        "data", "rows", "filtered", "leaked", "in passages", "limited"
    );
    let used: BTreeSet<&String> = recipe.stages.iter().flat_map(|stage| &stage.data).collect();
    let mut sizes = std::collections::HashMap::new();
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

    let options = ConvertOptions { pooling: recipe.teacher.pooling, ..ConvertOptions::default() };
    let float = read_checkpoint(&run.teacher, &options)?;
    let config = float.config.clone();
    let teacher_layers = config.num_hidden_layers;
    let mut layers = [teacher_layers, teacher_layers];
    if let (Some(folder), None) = (&run.student, run.from) {
        layers[1] = read_checkpoint(folder, &ConvertOptions::default())?.config.num_hidden_layers;
    }
    let bert = BertModel::from_float_model(&float, &run.device)?;
    println!("\nteacher: {} parameters, {teacher_layers} layers", bert.parameters().count().0);
    // Seconds for one token through one layer, forward.
    let batch = TokenBatch::new(&vec![vec![0u32; 16.min(config.max_position_embeddings)]; 32])?;
    bert.forward(&batch, &ForwardOptions::default())?;
    // A GPU only queues what it is asked for.
    run.device.synchronize()?;
    let begin = Instant::now();
    bert.forward(&batch, &ForwardOptions::default())?;
    run.device.synchronize()?;
    let unit = begin.elapsed().as_secs_f64() / (batch.num_tokens() * teacher_layers) as f64;

    println!("\n{:18} {:18} {:>9} {:>7} {:>12}", "stage", "what", "examples", "steps", "about");
    let mut total = 0.0;
    for (index, stage) in recipe.stages.iter().enumerate() {
        if stage.kind == StageKind::PickLayers {
            layers[1] = stage.layers.len();
        }
        if run.left_out(index) {
            continue;
        }
        let examples: usize = stage.data.iter().map(|name| sizes[name].0).sum();
        let seconds = seconds(stage, layers, unit, &sizes);
        total += seconds;
        let what = format!("{:?} {}", stage.kind, stage.model.name()).to_lowercase();
        println!(
            "{:18} {what:18} {examples:>9} {:>7} {:>12}",
            stage.name,
            stage.steps,
            minutes(seconds)
        );
    }
    println!("\nabout {} on this machine as busy as it is now", minutes(total));
    Ok(())
}

/// Mean tokens of a row, all its texts together, from the number of characters.
fn tokens(rows: &Rows) -> f64 {
    let chars: usize =
        rows.rows.iter().flat_map(|row| &row.texts).map(|text| text.chars().count()).sum();
    // Korean has about two characters a token; two special tokens each.
    let texts: usize = rows.rows.iter().map(|row| row.texts.len()).sum();
    (chars as f64 / 2.0 + 2.0 * texts as f64) / rows.rows.len() as f64
}

fn seconds(
    stage: &Stage,
    layers: [usize; 2],
    unit: f64,
    sizes: &std::collections::HashMap<String, (usize, f64)>,
) -> f64 {
    let (mut rows, mut sum) = (0usize, 0.0);
    for name in &stage.data {
        let (count, mean) = sizes[name];
        rows += count;
        sum += count as f64 * mean;
    }
    if stage.kind == StageKind::LabelPairs {
        let mined = rows.min(stage.mined_sentences) * stage.neighbours;
        let orders = if stage.both_orders { 2.0 } else { 1.0 };
        let pairs = sum * (1.0 + mined as f64 / rows.max(1) as f64);
        return pairs * orders * layers[0] as f64 * unit;
    }
    if !stage.kind.trains() {
        return 0.0;
    }
    let own = layers[(stage.model == Slot::Student) as usize] as f64;
    let trained = own - stage.freeze_layers as f64;
    // A backward pass costs two forward passes.
    let mut passes = own + 2.0 * trained;
    if stage.kind == StageKind::Distill {
        passes += layers[0] as f64;
    }
    let per_step = stage.batch as f64 * sum / rows.max(1) as f64 * passes * unit;
    let seconds = per_step * stage.steps as f64;
    stage.minutes.map_or(seconds, |minutes| seconds.min(60.0 * minutes))
}
