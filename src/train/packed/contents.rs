//! What a packed folder holds, read back.

use std::collections::HashMap;
use std::io::Read;
use std::path::Path;

use flate2::read::GzDecoder;
use serde::{Deserialize, Serialize};

use super::codec::Body;
use super::damaged::damaged;
use crate::error::{Error, Result};
use crate::files::read;
use crate::train::data::{EvalSentences, Folders, Purpose, Row, Rows, Target, TokenStore};
use crate::train::recipe::{EvalSet, Recipe, Slot, Stage};
use crate::train::report::evaluation::EvalRows;
use crate::train::run::float_model::parse_float_model;
use crate::train::seed::seed_of;
use crate::weights::FloatModel;

pub(super) const VERSION: u32 = 2;
pub(super) const HEADER: &str = "pack.json";
pub(super) const DATA: &str = "data.bin.gz";

/// The file of the model of `slot`.
pub(super) fn model_file(slot: Slot) -> String {
    format!("{}.safetensors.gz", slot.name())
}

/// What must fit before anything else is read.
#[derive(Deserialize)]
struct Version {
    version: u32,
}

/// The readable part of a packed folder.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Header {
    pub(super) version: u32,
    /// As TOML.
    pub(super) recipe: String,
    /// The recipe's file and the lines of its stages, as messages name them.
    pub(super) path: String,
    pub(super) lines: Vec<usize>,
    /// The first stage to run.
    pub(super) begin: usize,
    /// Ways of cutting text that ids are there for.
    pub(super) tables: Vec<(Slot, Purpose)>,
    /// Names of data, and their files as messages name them.
    pub(super) sources: Vec<(String, String)>,
    pub(super) sets: Vec<EvalSet>,
    pub(super) teacher: bool,
    pub(super) student: bool,
}

/// By table and text number; empty where a text was not cut that way.
type Ids = Vec<Vec<Vec<u32>>>;
/// By name of data: the file as messages name it, and its rows.
type Sources = HashMap<String, (String, Vec<Row>)>;

/// What a packed run reads in place of data and checkpoints.
pub struct PackedRun {
    ids: Ids,
    tables: Vec<(Slot, Purpose)>,
    rows: Sources,
    evaluation: Vec<(EvalSet, EvalRows)>,
    teacher: Option<FloatModel>,
    student: Option<FloatModel>,
    begin: usize,
}

impl PackedRun {
    /// The model of `slot` that the run begins with.
    ///
    /// # Errors
    /// `input_invalid` if none was packed.
    pub fn model(&self, slot: Slot) -> Result<FloatModel> {
        self.of(slot).clone().ok_or_else(|| {
            Error::input_invalid(format!(
                "the packed folder has no {}; no packed stage should need it",
                slot.name()
            ))
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
    pub(in crate::train) fn rows(
        &self,
        recipe: &Recipe,
        stage: &Stage,
        folders: Folders<'_>,
    ) -> Result<Rows> {
        let mut all = Rows::default();
        for name in stage.data() {
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
            let rows = Rows::read(recipe, one, folders, &EvalSentences::default())?;
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
        let file = |name: &str| read(&folder.join(name));
        let unzip = |name: &str| -> Result<Vec<u8>> {
            let mut bytes = Vec::new();
            GzDecoder::new(file(name)?.as_slice())
                .read_to_end(&mut bytes)
                .map_err(|source| damaged(format!("{name}: {source}")))?;
            Ok(bytes)
        };
        let header = file(HEADER)?;
        let malformed = |source| damaged(format!("{HEADER}: {source}"));
        let Version { version } = serde_json::from_slice(&header).map_err(malformed)?;
        if version != VERSION {
            return Err(damaged(format!("version {version}; expected {VERSION}")));
        }
        let header: Header = serde_json::from_slice(&header).map_err(malformed)?;
        let model = |slot: Slot, there: bool| -> Result<Option<FloatModel>> {
            let name = model_file(slot);
            there.then(|| parse_float_model(&unzip(&name)?, &folder.join(&name))).transpose()
        };
        let data = unzip(DATA)?;
        let (ids, rows, evaluation) = read_body(&header, &data)?;
        let mut recipe = Recipe::parse(&header.recipe, &header.path)?;
        for (stage, line) in recipe.stages.iter_mut().zip(header.lines) {
            stage.line = line;
        }
        let packed = PackedRun {
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

/// What stands in the data file, in its order.
fn read_body(header: &Header, data: &[u8]) -> Result<(Ids, Sources, Vec<(EvalSet, EvalRows)>)> {
    let mut body = Body { bytes: data };
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
    Ok((ids, rows, evaluation))
}
