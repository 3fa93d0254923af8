//! `munjang train`.

use std::path::{Path, PathBuf};

use candle_core::Device;
use clap::Args;

use super::packed;
use super::recipe::Recipe;
use super::report::estimate::print_estimate;
use super::run::Run;
use crate::error::{Error, Result};
use crate::files::{make_folder, read};

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
    if args.packed.is_some() {
        let packed = folder("--packed", args.packed)?;
        let minutes = args.minutes.ok_or_else(|| missing("--minutes"))?;
        let out = args.out.ok_or_else(|| missing("--out"))?;
        return packed::run_packed(&packed, minutes, &out, device()?);
    }
    let recipe = read_recipe(&args.recipe.ok_or_else(|| missing("the recipe"))?)?;
    let from = args.from.map(|name| recipe.stage(&name)).transpose()?;
    let (data, teacher) = (folder("--data", args.data)?, folder("--teacher", args.teacher)?);
    let device = device()?;
    // Leading stages of a run that has no folder of its own.
    let scratch = match (&args.pack, &args.out) {
        (Some(pack), None) => Some(Scratch::beside(pack)?),
        _ => None,
    };
    let out = scratch.as_ref().map(|scratch| scratch.0.clone()).or(args.out);
    let run = Run::new(recipe, data, teacher, out.ok_or_else(|| missing("--out"))?);
    let run = Run { student: args.student, from, device, ..run };
    match &args.pack {
        Some(out) => packed::pack(&run, out, packed::MOST_BYTES),
        None if args.dry_run => print_estimate(&run),
        None => run.run(args.only.as_deref()),
    }
}

fn missing(what: &str) -> Error {
    Error::input_invalid(format!("{what} is missing"))
}

/// The folder that an option names, if it is there.
fn folder(option: &str, folder: Option<PathBuf>) -> Result<PathBuf> {
    let folder = folder.ok_or_else(|| missing(option))?;
    if !folder.is_dir() {
        return Err(Error::input_invalid(format!("{option} {}: no such folder", folder.display())));
    }
    Ok(folder)
}

/// Reads and checks a recipe.
///
/// # Errors
/// `io` if it cannot be read; `data_invalid`, naming file and line, for anything that does not fit.
pub fn read_recipe(path: &Path) -> Result<Recipe> {
    let file = path.display().to_string();
    let text = String::from_utf8(read(path)?)
        .map_err(|_| Error::data_invalid(format!("{file}: not UTF-8")))?;
    Ok(Recipe::parse(&text, &file)?)
}

/// A folder that is made for one command and deleted with it. What was there before is not touched.
struct Scratch(PathBuf);

impl Scratch {
    /// `FOLDER.work`, for `FOLDER`.
    fn beside(folder: &Path) -> Result<Self> {
        let mut name = folder.as_os_str().to_owned();
        name.push(".work");
        let path = PathBuf::from(name);
        if let Some(parent) = path.parent() {
            make_folder(parent)?;
        }
        match std::fs::create_dir(&path) {
            Ok(()) => Ok(Scratch(path)),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                Err(Error::input_invalid(format!(
                    "{} is there already: delete it if a stopped --pack left it, or name a folder for the \
                     stages before the packed ones with --out",
                    path.display()
                )))
            }
            Err(source) => {
                Err(Error::io(format!("cannot make the folder {}", path.display()), source))
            }
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            eprintln!("cannot delete {}: {error}", self.0.display());
        }
    }
}

fn device() -> Result<Device> {
    if !cfg!(feature = "cuda") {
        return Ok(Device::Cpu);
    }
    Device::new_cuda(0).map_err(|source| {
        Error::input_invalid(
            "this program trains on an NVIDIA GPU and finds none; build it with --features train, without \
             cuda, to train on the CPU",
        )
        .with_source(source)
    })
}
