//! Writing a packed folder.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;

use candle_core::Device;
use flate2::Compression;
use flate2::write::GzEncoder;
use rayon::prelude::*;

use super::codec::Writer;
use super::contents::{DATA, HEADER, Header, VERSION, model_file};
use super::texts::Numbers;
use crate::error::{Error, Result};
use crate::files::{make_folder, write_atomically};
use crate::train::data::{EvalSentences, Purpose, Rows};
use crate::train::nn::batch::TokenBatch;
use crate::train::nn::bert::BertModel;
use crate::train::recipe::{EvalSet, Recipe, Slot, Stage, StageKind};
use crate::train::report::evaluation::EvalRows;
use crate::train::run::Run;
use crate::train::run::float_model::{float_model_bytes, parse_float_model};
use crate::weights::FloatModel;

/// The most bytes of a packed folder.
pub const MOST_BYTES: usize = 60 << 20;
/// Sentence vectors of the f16 weights must have this cosine with those of the f32 ones.
pub const LEAST_COSINE: f32 = 0.9999;
/// Sentences on which that is measured.
const MEASURED: usize = 64;

/// Writes what is left of `run` after its leading stages (those done in its folder, and those without
/// training) into the folder `out`, in at most `most` bytes.
///
/// # Errors
/// `input_invalid`, with the sizes, when it would be larger, or when a later stage needs what a packed
/// run does not have (text, to prune the vocabulary by); what goes wrong in reading data, in the
/// leading stages or in writing. `out` is written only when everything fits.
pub fn pack(run: &Run, out: &Path, most: usize) -> Result<()> {
    let recipe = &run.recipe;
    run.check_fit(None)?;
    make_folder(&run.out)?;
    let begin = run_leading_stages(run)?;
    let left: Vec<&Stage> = recipe.stages[begin..]
        .iter()
        .filter(|stage| !matches!(stage.kind, StageKind::Export(_)))
        .collect();
    if left.is_empty() {
        return Err(Error::input_invalid("nothing is left to train"));
    }
    check_left(run, begin)?;
    let models = Models::new(run, begin, &left)?;
    let tables = tables(&left);

    let mut texts = Texts::default();
    let (sources, mut rows_body) = training_rows(run, &left, &mut texts)?;
    let mut missing = Vec::new();
    let sets = run.evaluation_rows(&mut missing)?;
    for file in missing {
        eprintln!("{file} is not in {}; not packed", run.data.display());
    }
    write_evaluation(&sets, &mut texts, &mut rows_body);
    // Texts that belong together may be needed longer than others.
    let whole = left.iter().any(
        |stage| matches!(&stage.kind, StageKind::Sts(stage) if stage.own.pairs_tokens.is_some()),
    );
    let ids = texts.ids(run, &models, &tables, whole)?;
    let mut body = Writer::default();
    body.number(ids.len() as u64);
    for ids in ids.iter().flatten() {
        body.number(ids.len() as u64);
        ids.iter().for_each(|&id| body.number(u64::from(id)));
    }
    body.0.extend_from_slice(&rows_body.0);

    let header = Header {
        version: VERSION,
        recipe: toml::to_string(recipe).expect("a recipe becomes TOML"),
        path: recipe.path.clone(),
        lines: recipe.stages.iter().map(|stage| stage.line).collect(),
        begin,
        tables: tables.clone(),
        sources,
        sets: sets.into_iter().map(|(set, _)| set).collect(),
        teacher: models.teacher.is_some(),
        student: models.student.is_some(),
    };
    let header = serde_json::to_vec_pretty(&header).expect("a header becomes JSON");
    let mut files = vec![(HEADER.to_owned(), header), (DATA.to_owned(), zip(&body.0)?)];
    for (slot, model) in [(Slot::Teacher, &models.teacher), (Slot::Student, &models.student)] {
        let Some(model) = model else { continue };
        let table = tables.iter().position(|table| table.0 == slot);
        let sample: Vec<&[u32]> = ids
            .iter()
            .filter_map(|record| record[table?].get(..))
            .filter(|ids| !ids.is_empty())
            .take(MEASURED)
            .collect();
        files.push((model_file(slot), zip(&packed_model(slot, model, &sample)?)?));
    }
    let sizes = check_sizes(&files, most)?;
    write_folder(out, &files)?;
    println!(
        "{}: {sizes}, {} texts, stages {}",
        out.display(),
        texts.training.len(),
        left.iter().map(|stage| stage.name.as_str()).collect::<Vec<_>>().join(", ")
    );
    Ok(())
}

/// Runs the stages before the first one that is to be packed, whose number it returns.
fn run_leading_stages(run: &Run) -> Result<usize> {
    for (index, stage) in run.recipe.stages.iter().enumerate() {
        let done = run.folder(stage).join("done.json").exists();
        let costly = stage.training().is_some() || matches!(stage.kind, StageKind::LabelPairs(_));
        if costly && !done {
            return Ok(index);
        }
        if !matches!(stage.kind, StageKind::Export(_)) {
            run.run_stage(index)?;
        }
    }
    Ok(run.recipe.stages.len())
}

/// Whether the stages from `begin` on can do without what is not packed.
fn check_left(run: &Run, begin: usize) -> Result<()> {
    let recipe = &run.recipe;
    for (index, stage) in recipe.stages.iter().enumerate().skip(begin) {
        let at = |what: &str| Err(Error::input_invalid(format!("{}: {what}", recipe.place(stage))));
        if matches!(stage.kind, StageKind::PruneVocabulary(_)) {
            return at("the vocabulary is pruned by text, which a packed run does not have; put \
                       this stage before the first that trains, or run those before and pack then");
        }
        if stage.follows_untrained_teacher() && run.untrained(index)? < begin {
            return at(
                "pairs_teacher_weight needs the teacher as it was before it was trained; pack \
                       before the teacher's first stage that trains, or run this stage here",
            );
        }
        if recipe.scorer(index).is_some_and(|scorer| scorer < begin) {
            return at("its cross-encoder is not packed; run this stage here and pack then");
        }
    }
    Ok(())
}

/// The models that stages read before another stage makes them.
struct Models {
    teacher: Option<FloatModel>,
    student: Option<FloatModel>,
    /// The student, or what it will be made of: whose tokenizer cuts its texts.
    of_student: Option<FloatModel>,
}

impl Models {
    fn new(run: &Run, begin: usize, left: &[&Stage]) -> Result<Self> {
        let needed = |slot: Slot| {
            let reader = left.iter().position(|stage| stage.reads(slot));
            let writer =
                left.iter().position(|stage| stage.writes() == Some(slot) && !stage.reads(slot));
            reader.is_some_and(|reader| writer.is_none_or(|writer| reader < writer))
        };
        let model = |slot: Slot| needed(slot).then(|| run.model_before(begin, slot)).transpose();
        let (teacher, student) = (model(Slot::Teacher)?, model(Slot::Student)?);
        let of_student = student.clone().or_else(|| {
            let mut picked = teacher.clone()?;
            picked.config.prefix = run.recipe.student.prefix.clone();
            Some(picked)
        });
        Ok(Models { teacher, student, of_student })
    }
}

/// The ways of cutting texts that the stages ask for.
fn tables(left: &[&Stage]) -> Vec<(Slot, Purpose)> {
    let mut tables = BTreeSet::new();
    for stage in left {
        let cross_encoder = matches!(stage.kind, StageKind::CrossEncoder(_));
        for slot in Slot::ALL {
            if stage.reads(slot) && !cross_encoder {
                tables.insert((slot, Purpose::Training));
            }
        }
        if stage.training().is_some() && !cross_encoder {
            tables.insert((stage.model(), Purpose::Evaluation));
        }
        if stage.follows_untrained_teacher() {
            tables.insert((Slot::Teacher, Purpose::Evaluation));
        }
        if cross_encoder || matches!(stage.kind, StageKind::LabelPairs(_)) {
            tables.insert((Slot::Teacher, Purpose::Pairs));
            tables.insert((Slot::Teacher, Purpose::Evaluation));
        }
    }
    tables.into_iter().collect()
}

/// Texts of training and, numbered after them, of evaluation, so that each is cut only as it is used.
#[derive(Default)]
struct Texts {
    training: Numbers,
    evaluation: Numbers,
}

impl Texts {
    /// The token ids of all texts, by text and table.
    fn ids(
        &self,
        run: &Run,
        models: &Models,
        tables: &[(Slot, Purpose)],
        whole: bool,
    ) -> Result<Vec<Vec<Vec<u32>>>> {
        let tokenizers = tables
            .iter()
            .map(|&(slot, purpose)| {
                let model = match slot {
                    Slot::Teacher => &models.teacher,
                    Slot::Student => &models.of_student,
                };
                let model = model.as_ref().ok_or_else(|| {
                    Error::input_invalid(format!(
                        "no stage leaves a {} to cut text for",
                        slot.name()
                    ))
                })?;
                run.tokenizer(model, purpose)
            })
            .collect::<Result<Vec<_>>>()?;
        let cut = |text: &String, training: bool| -> Result<Vec<Vec<u32>>> {
            tables
                .iter()
                .zip(&tokenizers)
                .map(|(&(_, purpose), tokenizer)| match purpose {
                    Purpose::Training if !training => Ok(Vec::new()),
                    Purpose::Evaluation if training && !whole => Ok(Vec::new()),
                    _ => Ok(tokenizer.encode(text)?.ids),
                })
                .collect()
        };
        let training = self.training.texts().par_iter().map(|text| cut(text, true));
        let evaluation = self.evaluation.texts().par_iter().map(|text| cut(text, false));
        training.chain(evaluation).collect()
    }
}

/// Names and files of the data that the stages read, and their rows.
fn training_rows(
    run: &Run,
    left: &[&Stage],
    texts: &mut Texts,
) -> Result<(Vec<(String, String)>, Writer)> {
    let recipe = &run.recipe;
    let mut sources = Vec::new();
    let mut body = Writer::default();
    let evaluation = EvalSentences::read(recipe, &run.data)?;
    let used: BTreeSet<&String> = left.iter().flat_map(|stage| stage.data()).collect();
    for name in used {
        if made_later(recipe, name, left) {
            continue;
        }
        let rows = Rows::read(recipe, std::slice::from_ref(name), run.folders(), &evaluation)?;
        body.number(rows.rows.len() as u64);
        let mut before = (0, 0);
        for row in &rows.rows {
            let texts: Vec<u32> = row.texts.iter().map(|text| texts.training.of(text)).collect();
            body.row(row, &texts, before);
            before = (row.line, texts.last().copied().unwrap_or(before.1));
        }
        sources.push((name.clone(), rows.files[0].clone()));
    }
    Ok((sources, body))
}

fn made_later(recipe: &Recipe, name: &str, left: &[&Stage]) -> bool {
    let maker = recipe.data[name].made_by.as_ref();
    maker.is_some_and(|maker| left.iter().any(|stage| stage.name == *maker))
}

fn write_evaluation(sets: &[(EvalSet, EvalRows)], texts: &mut Texts, body: &mut Writer) {
    let first = texts.training.len() as u64;
    let mut number = |text: &str| first + u64::from(texts.evaluation.of(text));
    for (_, rows) in sets {
        match rows {
            EvalRows::Sts(pairs) => {
                body.number(0);
                body.number(pairs.len() as u64);
                for pair in pairs {
                    body.number(number(&pair.sentence1));
                    body.number(number(&pair.sentence2));
                    body.0.extend_from_slice(&pair.score.to_le_bytes());
                }
            }
            EvalRows::Retrieval(pairs) => {
                body.number(1);
                body.number(pairs.len() as u64);
                for (query, document) in pairs {
                    body.number(number(query));
                    body.number(number(document));
                }
            }
        }
    }
}

/// Says the sizes of `files`; an error if they take more than `most` bytes.
fn check_sizes(files: &[(String, Vec<u8>)], most: usize) -> Result<String> {
    let mib = |bytes: usize| bytes as f64 / (1 << 20) as f64;
    let total: usize = files.iter().map(|(_, bytes)| bytes.len()).sum();
    let sizes: Vec<String> =
        files.iter().map(|(name, bytes)| format!("{name} {:.2} MiB", mib(bytes.len()))).collect();
    let sizes = format!("{:.2} MiB ({})", mib(total), sizes.join(", "));
    if total > most {
        return Err(Error::input_invalid(format!(
            "the packed run would take {sizes}; at most {:.2} MiB fit. Set limit = N for large data, \
             lower max_tokens, or run the first stages here and pack the rest of that --out",
            mib(most)
        )));
    }
    Ok(sizes)
}

fn zip(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder
        .write_all(bytes)
        .and_then(|()| encoder.finish())
        .map_err(|source| Error::io("cannot compress", source))
}

/// A folder of these files and no others.
fn write_folder(folder: &Path, files: &[(String, Vec<u8>)]) -> Result<()> {
    make_folder(folder)?;
    let cannot = |source| Error::io(format!("cannot clear {}", folder.display()), source);
    for entry in std::fs::read_dir(folder).map_err(cannot)? {
        let name = entry.map_err(cannot)?.file_name();
        let name = name.to_string_lossy();
        let ours = Slot::ALL.map(model_file);
        if ![HEADER, DATA, &ours[0], &ours[1]].contains(&&*name) {
            return Err(Error::input_invalid(format!(
                "{} holds {name:?}, which is not of a packed run; give an empty folder",
                folder.display()
            )));
        }
        std::fs::remove_file(folder.join(&*name)).map_err(cannot)?;
    }
    for (name, bytes) in files {
        write_atomically(&folder.join(name), bytes)?;
    }
    Ok(())
}

/// A model's file, in f16 unless that turns a vector of `sample`.
fn packed_model(slot: Slot, model: &FloatModel, sample: &[&[u32]]) -> Result<Vec<u8>> {
    let half = float_model_bytes(model, true)?;
    if sample.is_empty() {
        return Ok(half);
    }
    let vectors = |model: &FloatModel| {
        BertModel::from_float_model(model, &Device::Cpu)?.encode(&TokenBatch::new(sample)?, None)
    };
    let (exact, rounded) = (vectors(model)?, vectors(&parse_float_model(&half, Path::new(""))?)?);
    let hidden = model.config.hidden_size;
    let least = exact
        .chunks_exact(hidden)
        .zip(rounded.chunks_exact(hidden))
        .map(|(a, b)| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>())
        .fold(f32::INFINITY, f32::min);
    let fine = least >= LEAST_COSINE;
    eprintln!(
        "{}: least cosine of f16 to f32 weights {least:.6} over {} sentences; {} kept",
        slot.name(),
        sample.len(),
        if fine { "f16" } else { "f32" }
    );
    if fine { Ok(half) } else { float_model_bytes(model, false) }
}
