//! A run in one small folder, to be carried to a machine that has a GPU and nothing else: token ids
//! in place of text, the models that the remaining stages begin with, and the recipe.
//!
//! Texts become numbers. A packed run sees the text `"17"` wherever an unpacked one sees the
//! eighteenth text, and looks its token ids up instead of cutting it; everything else is the same
//! code. Matrices travel as f16: a weight moves by at most 2⁻¹¹ of itself, a sixteenth of the
//! smallest step of the 7-bit weights that ship. [`pack`] measures that on the data and keeps f32
//! where a sentence vector would turn by a cosine below [`LEAST_COSINE`].

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{Read, Write};
use std::path::Path;
use std::time::Instant;

use candle_core::Device;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::checkpoint::{float_model_bytes, parse_float_model, write_atomically};
use super::data::{EvalSentences, Row, Rows, Target, TokenStore};
use super::evaluate::EvalRows;
use super::metrics::Metrics;
use super::model::{BertModel, TokenBatch};
use super::recipe::{EvalSet, Recipe, Slot, Stage, StageKind};
use super::seed_of;
use super::stages::{Purpose, Run, minutes, settings, written_slot};
use crate::error::{Error, ErrorKind, Result};
use crate::eval::StsPair;
use crate::weights::FloatModel;

/// The most bytes of a packed folder.
pub const MOST_BYTES: usize = 60 << 20;
/// Sentence vectors of the f16 weights must have this cosine with those of the f32 ones.
pub const LEAST_COSINE: f32 = 0.9999;
/// Sentences on which that is measured.
const MEASURED: usize = 64;
const VERSION: u32 = 1;
const HEADER: &str = "pack.json";
const DATA: &str = "data.bin.gz";
/// What is left of the minutes for reading, evaluating and writing.
const TRAINED_SHARE: f64 = 0.96;

/// The readable part of a packed folder.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    version: u32,
    recipe: Recipe,
    /// The recipe's file and the lines of its stages, as messages name them.
    path: String,
    lines: Vec<usize>,
    /// The first stage to run.
    begin: usize,
    /// Ways of cutting text that ids are there for.
    tables: Vec<(Slot, Purpose)>,
    /// Names of data, and their files as messages name them.
    sources: Vec<(String, String)>,
    sets: Vec<EvalSet>,
    teacher: bool,
    student: bool,
}

/// What a packed run reads in place of data and checkpoints.
pub struct Packed {
    /// By table and text number; empty where a text was not cut that way.
    ids: Vec<Vec<Vec<u32>>>,
    tables: Vec<(Slot, Purpose)>,
    rows: HashMap<String, (String, Vec<Row>)>,
    evaluation: Vec<(EvalSet, EvalRows)>,
    teacher: Option<FloatModel>,
    student: Option<FloatModel>,
    begin: usize,
}

fn damaged(what: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::DataInvalid, format!("the packed folder is damaged: {what}"))
}

impl Packed {
    /// The model of `slot` that the run begins with.
    ///
    /// # Errors
    /// `input_invalid` if none was packed.
    pub fn model(&self, slot: Slot) -> Result<FloatModel> {
        self.of(slot).clone().ok_or_else(|| {
            Error::new(
                ErrorKind::InputInvalid,
                format!("the packed folder has no {}; no packed stage should need it", slot.name()),
            )
        })
    }

    /// The first stage that was packed.
    pub fn begin(&self) -> usize {
        self.begin
    }

    fn of(&self, slot: Slot) -> &Option<FloatModel> {
        match slot {
            Slot::Teacher => &self.teacher,
            Slot::Student => &self.student,
        }
    }

    /// Layers of the packed model of `slot`, if there is one.
    pub fn num_layers(&self, slot: Slot) -> Option<usize> {
        self.of(slot).as_ref().map(|model| model.config.num_hidden_layers)
    }

    /// The rows of a stage; those of pairs that the run itself labelled come from its folder.
    ///
    /// # Errors
    /// When labelled pairs cannot be read.
    pub fn rows(&self, run: &Run, stage: &Stage) -> Result<Rows> {
        let mut all = Rows::default();
        for name in &stage.data {
            let file = all.files.len();
            if let Some((place, rows)) = self.rows.get(name) {
                all.files.push(place.clone());
                all.rows.extend(rows.iter().map(|row| {
                    let target = match row.target {
                        // Sets of different sources are different sets.
                        Target::Set(set) => Target::Set(seed_of(file as u64, "set", set)),
                        target => target,
                    };
                    Row { target, file, ..row.clone() }
                }));
                continue;
            }
            let one = std::slice::from_ref(name);
            let rows = Rows::read(&run.recipe, one, run.folders(), &EvalSentences::default())?;
            all.files.extend(rows.files);
            all.rows.extend(rows.rows.into_iter().map(|row| Row { file, ..row }));
        }
        Ok(all)
    }

    /// The evaluation sets.
    pub fn evaluation_rows(&self) -> Vec<(EvalSet, EvalRows)> {
        self.evaluation.clone()
    }

    /// Ids of `texts`, which are numbers.
    ///
    /// # Errors
    /// `data_invalid` if one was not packed for this use.
    pub fn store<'a>(
        &self,
        slot: Slot,
        purpose: Purpose,
        texts: impl IntoIterator<Item = &'a str>,
    ) -> Result<TokenStore> {
        let table = self
            .tables
            .iter()
            .position(|table| *table == (slot, purpose))
            .map(|table| &self.ids[table]);
        TokenStore::from_ids(texts, |text| {
            let ids = table.and_then(|table| table.get(text.parse::<usize>().ok()?));
            ids.filter(|ids| !ids.is_empty()).cloned().ok_or_else(|| {
                damaged(format!("text {text} has no ids for {purpose:?} of the {}", slot.name()))
            })
        })
    }

    /// Reads a folder that [`pack`] wrote: the recipe, and the rest.
    ///
    /// # Errors
    /// `io` if a file cannot be read, `data_invalid` if it is not what [`pack`] wrote.
    pub fn read(folder: &Path) -> Result<(Recipe, Self)> {
        let file = |name: &str| -> Result<Vec<u8>> {
            let path = folder.join(name);
            std::fs::read(&path)
                .map_err(|source| Error::io(format!("cannot read {}", path.display()), source))
        };
        let unzip = |name: &str| -> Result<Vec<u8>> {
            let mut bytes = Vec::new();
            GzDecoder::new(file(name)?.as_slice())
                .read_to_end(&mut bytes)
                .map_err(|source| damaged(format!("{name}: {source}")))?;
            Ok(bytes)
        };
        let header: Header = serde_json::from_slice(&file(HEADER)?)
            .map_err(|source| damaged(format!("{HEADER}: {source}")))?;
        if header.version != VERSION {
            return Err(damaged(format!("version {}; expected {VERSION}", header.version)));
        }
        let model = |slot: Slot, there: bool| -> Result<Option<FloatModel>> {
            let name = model_file(slot);
            there.then(|| parse_float_model(&unzip(&name)?, &folder.join(&name))).transpose()
        };
        let data = unzip(DATA)?;
        let mut body = Body { bytes: &data };
        let count = body.number()? as usize;
        let mut ids = vec![Vec::new(); header.tables.len()];
        for _ in 0..count {
            for table in &mut ids {
                let length = body.number()? as usize;
                table.push((0..length).map(|_| Ok(body.number()? as u32)).collect::<Result<_>>()?);
            }
        }
        let mut rows = HashMap::new();
        for (name, place) in &header.sources {
            rows.insert(name.clone(), (place.clone(), body.rows()?));
        }
        let mut evaluation = Vec::new();
        for set in &header.sets {
            evaluation.push((set.clone(), body.evaluation()?));
        }
        if !body.bytes.is_empty() {
            return Err(damaged(format!("{DATA}: {} bytes too many", body.bytes.len())));
        }
        let mut recipe = header.recipe;
        recipe.path = header.path;
        for (stage, line) in recipe.stages.iter_mut().zip(header.lines) {
            stage.line = line;
        }
        let packed = Packed {
            ids,
            tables: header.tables,
            rows,
            evaluation,
            teacher: model(Slot::Teacher, header.teacher)?,
            student: model(Slot::Student, header.student)?,
            begin: header.begin,
        };
        Ok((recipe, packed))
    }
}

fn model_file(slot: Slot) -> String {
    format!("{}.safetensors.gz", slot.name())
}

/// Numbers of the data file, written: LEB128, signed ones folded.
#[derive(Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn number(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn signed(&mut self, value: i64) {
        self.number(((value << 1) ^ (value >> 63)) as u64);
    }

    fn row(&mut self, row: &Row, texts: &[u32], before: (usize, u32)) {
        self.signed(row.line as i64 - before.0 as i64);
        let tag = match row.target {
            Target::None => 0,
            Target::Score(_) => 1,
            Target::Entailment => 2,
            Target::Neutral => 3,
            Target::Contradiction => 4,
            Target::Set(_) => 5,
            Target::Pair => 6,
        };
        self.number(tag);
        match row.target {
            Target::Score(score) => self.0.extend_from_slice(&score.to_le_bytes()),
            Target::Set(set) => self.0.extend_from_slice(&set.to_le_bytes()),
            _ => {}
        }
        self.number(texts.len() as u64);
        let mut last = before.1;
        for &text in texts {
            self.signed(i64::from(text) - i64::from(last));
            last = text;
        }
    }
}

/// The same, read.
struct Body<'a> {
    bytes: &'a [u8],
}

impl Body<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (taken, rest) =
            self.bytes.split_first_chunk::<N>().ok_or_else(|| damaged("data end early"))?;
        self.bytes = rest;
        Ok(*taken)
    }

    fn number(&mut self) -> Result<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let [byte] = self.take()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(damaged("a number does not end"))
    }

    fn signed(&mut self) -> Result<i64> {
        let folded = self.number()?;
        Ok((folded >> 1) as i64 ^ -((folded & 1) as i64))
    }

    fn text(&mut self) -> Result<String> {
        Ok(self.number()?.to_string())
    }

    fn rows(&mut self) -> Result<Vec<Row>> {
        let count = self.number()?;
        let mut rows = Vec::new();
        let (mut line, mut text) = (0i64, 0i64);
        for _ in 0..count {
            line += self.signed()?;
            let target = match self.number()? {
                0 => Target::None,
                1 => Target::Score(f32::from_le_bytes(self.take()?)),
                2 => Target::Entailment,
                3 => Target::Neutral,
                4 => Target::Contradiction,
                5 => Target::Set(u64::from_le_bytes(self.take()?)),
                6 => Target::Pair,
                other => return Err(damaged(format!("a row of kind {other}"))),
            };
            let mut texts = Vec::new();
            for _ in 0..self.number()? {
                text += self.signed()?;
                texts.push(text.to_string());
            }
            rows.push(Row { texts, target, file: 0, line: line as usize });
        }
        Ok(rows)
    }

    fn evaluation(&mut self) -> Result<EvalRows> {
        let (kind, count) = (self.number()?, self.number()?);
        match kind {
            0 => (0..count)
                .map(|_| {
                    Ok(StsPair {
                        sentence1: self.text()?,
                        sentence2: self.text()?,
                        score: f64::from_le_bytes(self.take()?),
                    })
                })
                .collect::<Result<_>>()
                .map(EvalRows::Sts),
            1 => (0..count)
                .map(|_| Ok((self.text()?, self.text()?)))
                .collect::<Result<_>>()
                .map(EvalRows::Retrieval),
            other => Err(damaged(format!("an evaluation set of kind {other}"))),
        }
    }
}

/// Texts by their numbers.
#[derive(Default)]
struct Numbers {
    texts: Vec<String>,
    places: HashMap<String, u32>,
}

impl Numbers {
    fn of(&mut self, text: &str) -> u32 {
        if let Some(&number) = self.places.get(text) {
            return number;
        }
        let number = self.texts.len() as u32;
        self.texts.push(text.to_owned());
        self.places.insert(text.to_owned(), number);
        number
    }
}

fn zip(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder
        .write_all(bytes)
        .and_then(|()| encoder.finish())
        .map_err(|source| Error::io("cannot compress", source))
}

fn wrong(what: String) -> Error {
    Error::new(ErrorKind::InputInvalid, what)
}

/// Whether the stage needs the model of `slot` as it was before.
fn reads(stage: &Stage, slot: Slot) -> bool {
    let own = match stage.kind {
        StageKind::Export | StageKind::LabelPairs => false,
        StageKind::PickLayers => slot == Slot::Teacher,
        StageKind::Widen => true,
        _ => stage.model == slot,
    };
    let teaches = match stage.kind {
        StageKind::Distill => true,
        StageKind::Sts => {
            let taught = stage.teacher_weight > 0.0 || stage.pairs_teacher_weight > 0.0;
            taught && stage.model == Slot::Student
        }
        StageKind::LabelPairs => true,
        _ => false,
    };
    own || slot == Slot::Teacher && teaches
}

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
    std::fs::create_dir_all(&run.out).map_err(|source| {
        Error::io(format!("cannot make the folder {}", run.out.display()), source)
    })?;
    let mut begin = 0;
    while begin < recipe.stages.len() {
        let stage = &recipe.stages[begin];
        let done = run.folder(stage).join("done.json").exists();
        if !done && (stage.kind.trains() || matches!(stage.kind, StageKind::LabelPairs)) {
            break;
        }
        if stage.kind != StageKind::Export {
            run.stage(begin)?;
        }
        begin += 1;
    }
    let left: Vec<&Stage> =
        recipe.stages[begin..].iter().filter(|stage| stage.kind != StageKind::Export).collect();
    if left.is_empty() {
        return Err(wrong("nothing is left to train".into()));
    }
    for (index, stage) in recipe.stages.iter().enumerate().skip(begin) {
        let at = |what: &str| Err(wrong(format!("{}: {what}", recipe.place(stage))));
        if stage.kind == StageKind::PruneVocabulary {
            return at("the vocabulary is pruned by text, which a packed run does not have; put \
                       this stage before the first that trains, or run those before and pack then");
        }
        if stage.pairs_teacher_weight > 0.0 && run.untrained(index)? < begin {
            return at(
                "pairs_teacher_weight needs the teacher as it was before it was trained; pack \
                       before the teacher's first stage that trains, or run this stage here",
            );
        }
        if stage.kind == StageKind::LabelPairs
            && recipe.scorer(index).is_some_and(|scorer| scorer < begin)
        {
            return at("its cross-encoder is not packed; run this stage here and pack then");
        }
    }

    // Models, where a stage reads one before another stage makes it.
    let needed = |slot: Slot| {
        let first_reader = left.iter().position(|stage| reads(stage, slot));
        let first_writer =
            left.iter().position(|stage| written_slot(stage) == Some(slot) && !reads(stage, slot));
        first_reader.is_some_and(|reader| first_writer.is_none_or(|writer| reader < writer))
    };
    let model = |slot: Slot| needed(slot).then(|| run.model_before(begin, slot)).transpose();
    let (teacher, student) = (model(Slot::Teacher)?, model(Slot::Student)?);
    let of_student = match (&student, &teacher) {
        (Some(student), _) => Some(student.clone()),
        (None, Some(teacher)) => {
            let mut picked = teacher.clone();
            picked.config.prefix = recipe.student.prefix.clone();
            Some(picked)
        }
        (None, None) => None,
    };

    // Which ways of cutting the stages ask for.
    let mut tables = BTreeMap::new();
    for stage in &left {
        for slot in [Slot::Teacher, Slot::Student] {
            if reads(stage, slot) && stage.kind != StageKind::CrossEncoder {
                tables.insert((slot as u8, Purpose::Training as u8), (slot, Purpose::Training));
            }
        }
        if stage.kind.trains() && stage.kind != StageKind::CrossEncoder {
            let key = (stage.model as u8, Purpose::Evaluation as u8);
            tables.insert(key, (stage.model, Purpose::Evaluation));
        }
        if stage.pairs_teacher_weight > 0.0 {
            let key = (Slot::Teacher as u8, Purpose::Evaluation as u8);
            tables.insert(key, (Slot::Teacher, Purpose::Evaluation));
        }
        if matches!(stage.kind, StageKind::CrossEncoder | StageKind::LabelPairs) {
            let key = (Slot::Teacher as u8, Purpose::Pairs as u8);
            tables.insert(key, (Slot::Teacher, Purpose::Pairs));
            let key = (Slot::Teacher as u8, Purpose::Evaluation as u8);
            tables.insert(key, (Slot::Teacher, Purpose::Evaluation));
        }
    }
    let tables: Vec<(Slot, Purpose)> = tables.into_values().collect();

    let mut numbers = Numbers::default();
    let mut sources = Vec::new();
    let mut rows_body = Writer::default();
    let evaluation = EvalSentences::read(recipe, &run.data)?;
    let used: BTreeSet<&String> = left.iter().flat_map(|stage| &stage.data).collect();
    for name in used {
        let made_later = recipe.data[name]
            .made_by
            .as_ref()
            .is_some_and(|maker| left.iter().any(|stage| stage.name == *maker));
        if made_later {
            continue;
        }
        let rows = Rows::read(recipe, std::slice::from_ref(name), run.folders(), &evaluation)?;
        rows_body.number(rows.rows.len() as u64);
        let mut before = (0, 0);
        for row in &rows.rows {
            let texts: Vec<u32> = row.texts.iter().map(|text| numbers.of(text)).collect();
            rows_body.row(row, &texts, before);
            before = (row.line, texts.last().copied().unwrap_or(before.1));
        }
        sources.push((name.clone(), rows.files[0].clone()));
    }
    let training_texts = numbers.texts.len();
    let mut missing = Vec::new();
    let sets = run.evaluation_rows(&mut missing)?;
    for file in missing {
        eprintln!("{file} is not in {}; not packed", run.data.display());
    }
    // Texts of evaluation are numbered apart, so that each text is cut only as it is used.
    let mut eval_numbers = Numbers::default();
    for (_, rows) in &sets {
        let mut number = |text: &str| training_texts as u64 + u64::from(eval_numbers.of(text));
        match rows {
            EvalRows::Sts(pairs) => {
                rows_body.number(0);
                rows_body.number(pairs.len() as u64);
                for pair in pairs {
                    rows_body.number(number(&pair.sentence1));
                    rows_body.number(number(&pair.sentence2));
                    rows_body.0.extend_from_slice(&pair.score.to_le_bytes());
                }
            }
            EvalRows::Retrieval(pairs) => {
                rows_body.number(1);
                rows_body.number(pairs.len() as u64);
                for (query, document) in pairs {
                    rows_body.number(number(query));
                    rows_body.number(number(document));
                }
            }
        }
    }

    let tokenizers = tables
        .iter()
        .map(|&(slot, purpose)| {
            let model = if slot == Slot::Teacher { &teacher } else { &of_student };
            let model = model.as_ref().ok_or_else(|| {
                wrong(format!("no stage leaves a {} to cut text for", slot.name()))
            })?;
            run.tokenizer_for(model, purpose)
        })
        .collect::<Result<Vec<_>>>()?;
    // Texts that belong together may be needed longer than others.
    let whole = left.iter().any(|stage| stage.pairs_tokens.is_some());
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
    let mut ids: Vec<Vec<Vec<u32>>> =
        numbers.texts.par_iter().map(|text| cut(text, true)).collect::<Result<_>>()?;
    let of_evaluation: Vec<_> =
        eval_numbers.texts.par_iter().map(|text| cut(text, false)).collect::<Result<_>>()?;
    ids.extend(of_evaluation);
    let mut body = Writer::default();
    body.number(ids.len() as u64);
    for record in &ids {
        for ids in record {
            body.number(ids.len() as u64);
            ids.iter().for_each(|&id| body.number(u64::from(id)));
        }
    }
    body.0.extend_from_slice(&rows_body.0);

    let header = Header {
        version: VERSION,
        recipe: recipe.clone(),
        path: recipe.path.clone(),
        lines: recipe.stages.iter().map(|stage| stage.line).collect(),
        begin,
        tables: tables.clone(),
        sources,
        sets: sets.into_iter().map(|(set, _)| set).collect(),
        teacher: teacher.is_some(),
        student: student.is_some(),
    };
    let header = serde_json::to_vec_pretty(&header).expect("a header becomes JSON");
    let mut files = vec![(HEADER.to_owned(), header), (DATA.to_owned(), zip(&body.0)?)];
    for (slot, model) in [(Slot::Teacher, &teacher), (Slot::Student, &student)] {
        if let Some(model) = model {
            let table = tables.iter().position(|table| table.0 == slot);
            let sample: Vec<&[u32]> = ids
                .iter()
                .filter_map(|record| record[table?].get(..))
                .filter(|ids| !ids.is_empty())
                .take(MEASURED)
                .collect();
            files.push((model_file(slot), zip(&packed_model(slot, model, &sample)?)?));
        }
    }
    let mib = |bytes: usize| bytes as f64 / (1 << 20) as f64;
    let total: usize = files.iter().map(|(_, bytes)| bytes.len()).sum();
    let sizes: Vec<String> =
        files.iter().map(|(name, bytes)| format!("{name} {:.2} MiB", mib(bytes.len()))).collect();
    let sizes = sizes.join(", ");
    if total > most {
        return Err(wrong(format!(
            "the packed run would take {:.2} MiB ({sizes}); at most {:.2} MiB fit. Set limit = N \
             for large data, lower max_tokens, or run the first stages here and pack the rest of \
             that --out",
            mib(total),
            mib(most)
        )));
    }
    write_folder(out, &files)?;
    println!(
        "{}: {:.2} MiB ({sizes}), {training_texts} texts, stages {}",
        out.display(),
        mib(total),
        left.iter().map(|stage| stage.name.as_str()).collect::<Vec<_>>().join(", ")
    );
    Ok(())
}

/// A folder of these files and no others.
fn write_folder(folder: &Path, files: &[(String, Vec<u8>)]) -> Result<()> {
    let cannot = |source| Error::io(format!("cannot make the folder {}", folder.display()), source);
    std::fs::create_dir_all(folder).map_err(cannot)?;
    for entry in std::fs::read_dir(folder).map_err(cannot)? {
        let name = entry.map_err(cannot)?.file_name();
        let name = name.to_string_lossy();
        let ours = [Slot::Teacher, Slot::Student].map(model_file);
        if ![HEADER, DATA, &ours[0], &ours[1]].contains(&&*name) {
            return Err(wrong(format!(
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

/// Runs a packed folder for about `time` minutes and leaves in `out` the weights of the last teacher
/// and student and the metrics. `out` is then a folder of the recipe's run: with data and teacher at
/// hand, `munjang train` goes on from it (to the export, say).
///
/// The minutes are shared among the stages as the recipe's own `minutes` are (or as their steps are,
/// where one has none); a stage that ends by its steps leaves its time to those after it.
///
/// # Errors
/// What goes wrong in a stage; the next call goes on from the last checkpoint.
pub fn run_packed(folder: &Path, time: f64, out: &Path, device: Device) -> Result<()> {
    if !(time > 0.0 && time.is_finite()) {
        return Err(wrong(format!("--minutes is {time}; expected a number above 0")));
    }
    let started = Instant::now();
    let (recipe, packed) = Packed::read(folder)?;
    let begin = packed.begin;
    let mut run = Run {
        recipe,
        data: folder.to_owned(),
        teacher: folder.to_owned(),
        student: None,
        from: None,
        out: out.to_owned(),
        device,
        packed: Some(packed),
    };
    std::fs::create_dir_all(out)
        .map_err(|source| Error::io(format!("cannot make the folder {}", out.display()), source))?;
    run.check_fit(None)?;
    let timed = run.recipe.stages.iter().filter(|stage| stage.kind.trains());
    let by_minutes = timed.clone().all(|stage| stage.minutes.is_some());
    let shares: Vec<f64> = run
        .recipe
        .stages
        .iter()
        .map(|stage| match stage.minutes {
            _ if !stage.kind.trains() => 0.0,
            Some(minutes) if by_minutes => minutes,
            _ => (stage.steps * stage.batch) as f64,
        })
        .collect();
    for index in begin..run.recipe.stages.len() {
        if run.recipe.stages[index].kind == StageKind::Export {
            continue;
        }
        let rest: f64 = shares[index..].iter().sum();
        let left = time * TRAINED_SHARE - started.elapsed().as_secs_f64() / 60.0;
        if shares[index] > 0.0 {
            run.recipe.stages[index].minutes = Some((left * shares[index] / rest).max(1e-3));
        }
        run.stage(index).map_err(|error| run.in_stage(index, error))?;
    }
    clean_up(&run, begin)?;
    println!("done in {}", minutes(started.elapsed().as_secs_f64()));
    Ok(())
}

/// Leaves the last model of each slot, the marks of what is done, and the metrics.
fn clean_up(run: &Run, begin: usize) -> Result<()> {
    let stages = &run.recipe.stages;
    let last = |slot: Slot| {
        stages.iter().enumerate().skip(begin).rfind(|(_, stage)| written_slot(stage) == Some(slot))
    };
    let kept: Vec<usize> =
        [Slot::Teacher, Slot::Student].into_iter().filter_map(last).map(|found| found.0).collect();
    for (index, stage) in stages.iter().enumerate() {
        let folder = run.folder(stage);
        if index < begin || stage.kind == StageKind::Export || !folder.is_dir() {
            continue;
        }
        let cannot = |source| Error::io(format!("cannot clear {}", folder.display()), source);
        for entry in std::fs::read_dir(&folder).map_err(cannot)? {
            let path = entry.map_err(cannot)?.path();
            let name = path.file_name().unwrap_or_default();
            let keep = name == "done.json" || name == "model.safetensors" && kept.contains(&index);
            if !keep {
                std::fs::remove_file(&path).map_err(cannot)?;
            }
        }
        debug_assert_eq!(
            std::fs::read_to_string(folder.join("done.json")).ok(),
            Some(settings(&run.recipe, stage))
        );
    }
    for curves in ["loss.svg", "scores.svg"] {
        let _ = std::fs::remove_file(run.out.join(curves));
    }
    let scores = Metrics::new(&run.out).read()?.len();
    eprintln!("{}: weights and {scores} lines of metrics", run.out.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_survive() {
        let mut writer = Writer::default();
        let values = [0, 1, 127, 128, 16_383, 16_384, u64::from(u32::MAX), u64::MAX];
        values.iter().for_each(|&value| writer.number(value));
        let signed = [0, -1, 1, 63, -64, 64, i64::MAX, i64::MIN];
        signed.iter().for_each(|&value| writer.signed(value));
        let mut body = Body { bytes: &writer.0 };
        for value in values {
            assert_eq!(body.number().unwrap(), value);
        }
        for value in signed {
            assert_eq!(body.signed().unwrap(), value);
        }
        assert_eq!(body.number().unwrap_err().code(), "data_invalid");
        assert!(Body { bytes: &[0xff; 12] }.number().is_err());
    }

    #[test]
    fn rows_survive() {
        let row = |line, target, texts: &[&str]| Row {
            texts: texts.iter().map(|text| (*text).to_owned()).collect(),
            target,
            file: 0,
            line,
        };
        let rows = [
            row(2, Target::Score(0.3), &["0", "1"]),
            row(5, Target::Set(u64::MAX), &["2"]),
            row(4, Target::Pair, &["2", "0"]),
            row(9, Target::None, &[]),
        ];
        let mut writer = Writer::default();
        writer.number(rows.len() as u64);
        let mut before = (0, 0);
        for row in &rows {
            let texts: Vec<u32> = row.texts.iter().map(|text| text.parse().unwrap()).collect();
            writer.row(row, &texts, before);
            before = (row.line, texts.last().copied().unwrap_or(before.1));
        }
        let mut body = Body { bytes: &writer.0 };
        assert_eq!(body.rows().unwrap(), rows);
        for end in 0..writer.0.len() {
            assert!(Body { bytes: &writer.0[..end] }.rows().is_err(), "{end}");
        }
    }
}
