//! Rows of training data, filtered as the recipe says and checked against the evaluation sets.

use std::collections::BTreeMap;
use std::path::Path;

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::folders::Folders;
use super::leakage::EvalSentences;
use crate::error::{Error, Result};
use crate::table::Table;
use crate::train::recipe::{DataKind, DataSource, Recipe};
use crate::train::seed::seed_of;

/// What a row asks of the model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Target {
    /// Similarity, 0 … 1.
    Score(f32),
    /// The first entails, leaves open or contradicts the second.
    Entailment,
    /// Neither follows nor contradicts.
    Neutral,
    /// Contradicts.
    Contradiction,
    /// Number of a paraphrase set, unique within a run's data.
    Set(u64),
    /// The texts belong together.
    Pair,
    /// Single texts.
    None,
}

/// One row of training data.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Its texts, in the order of the columns.
    pub texts: Vec<String>,
    /// What is known about them.
    pub target: Target,
    /// Index into [`Rows::files`].
    pub file: usize,
    /// Line number in it.
    pub line: usize,
}

/// The rows of several sources.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    /// Names of the files.
    pub files: Vec<String>,
    /// Everything that was kept.
    pub rows: Vec<Row>,
    /// By source: rows kept, rows left out by `drop` and `keep`, rows that share a sentence with an
    /// evaluation set.
    pub counts: Vec<(String, SourceCount)>,
}

/// What became of a source's rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct SourceCount {
    /// Taken.
    pub kept: usize,
    /// Left out by `drop` and `keep`.
    pub filtered: usize,
    /// Left out because a text is in an evaluation set.
    pub leaked: usize,
    /// Left out because one of its sentences stands in a passage of an evaluation set.
    pub in_passages: usize,
    /// Left out by `limit`.
    pub beyond_limit: usize,
}

impl Rows {
    /// Reads the sources called `names`.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] and [`ErrorKind::DataInvalid`], naming file and line: missing columns,
    /// empty sentences, labels or scores out of range, nothing left after filtering.
    pub fn read(
        recipe: &Recipe,
        names: &[String],
        folders: Folders<'_>,
        evaluation: &EvalSentences,
    ) -> Result<Self> {
        let mut all = Rows::default();
        for name in names {
            let path = folders.file(&recipe.data[name]);
            let file = all.files.len();
            let (rows, count) = read_source(recipe, name, &path, file, evaluation)?;
            all.files.push(path.display().to_string());
            all.rows.extend(rows);
            all.counts.push((name.clone(), count));
        }
        Ok(all)
    }

    /// Where row `index` stands, as `file:line`.
    pub fn place(&self, index: usize) -> String {
        let row = &self.rows[index];
        format!("{}:{}", self.files[row.file], row.line)
    }
}

/// Where a source's table has what the recipe asks for.
struct Columns {
    texts: Vec<usize>,
    target: Option<usize>,
    drop: Vec<(usize, String)>,
    keep: Vec<(usize, String)>,
}

impl Columns {
    fn find(table: &Table, name: &str, source: &DataSource) -> Result<Self> {
        let defaults: &[&str] = match source.kind {
            DataKind::Sts | DataKind::Nli | DataKind::Pairs => &["sentence1", "sentence2"],
            DataKind::Sets | DataKind::Sentences => &["sentence"],
        };
        let texts: Vec<usize> = if source.columns.is_empty() {
            defaults.iter().map(|name| table.column(name)).collect::<Result<_>>()?
        } else {
            source.columns.iter().map(|name| table.column(name)).collect::<Result<_>>()?
        };
        let expected = if matches!(source.kind, DataKind::Sets) { 1 } else { 2 };
        if source.kind != DataKind::Sentences && texts.len() != expected {
            let what = format!("data.{name} names {} columns; expected {expected}", texts.len());
            return Err(Error::in_line(&table.file, 1, what));
        }
        let target = match (source.kind, &source.target) {
            (DataKind::Pairs | DataKind::Sentences, _) => None,
            (_, Some(column)) => Some(table.column(column)?),
            (DataKind::Sts, None) => Some(table.column("score")?),
            (DataKind::Nli, None) => Some(table.column("label").or_else(|error| {
                // KorNLI's own files call it so.
                table.column("gold_label").map_err(|_| error)
            })?),
            (DataKind::Sets, None) => Some(table.column("set_id")?),
        };
        let conditions = |list: &BTreeMap<String, String>| -> Result<Vec<(usize, String)>> {
            list.iter().map(|(column, value)| Ok((table.column(column)?, value.clone()))).collect()
        };
        let (drop, keep) = (conditions(&source.drop)?, conditions(&source.keep)?);
        Ok(Columns { texts, target, drop, keep })
    }

    /// Whether the recipe's conditions leave a row in.
    fn take(&self, fields: &[String]) -> bool {
        let holds = |(column, value): &(usize, String)| {
            let field = fields[*column].trim();
            if value == "*" { !field.is_empty() } else { field == value }
        };
        !self.drop.iter().any(holds) && self.keep.iter().all(holds)
    }
}

/// What a row of the source asks, or what is wrong with it.
fn target_of(
    source: &DataSource,
    field: Option<&String>,
    file: usize,
) -> std::result::Result<Target, String> {
    let field = field.map(|field| field.trim());
    Ok(match (source.kind, field) {
        (DataKind::Sts, Some(field)) => match field.parse::<f64>() {
            Ok(score) if (0.0..=source.max_score).contains(&score) => {
                Target::Score((score / source.max_score) as f32)
            }
            _ => {
                return Err(format!(
                    "score is {field:?}; expected a number from 0 to {}",
                    source.max_score
                ));
            }
        },
        (DataKind::Nli, Some("entailment")) => Target::Entailment,
        (DataKind::Nli, Some("neutral")) => Target::Neutral,
        (DataKind::Nli, Some("contradiction")) => Target::Contradiction,
        (DataKind::Nli, Some(other)) => {
            return Err(format!(
                "label is {other:?}; expected entailment, neutral or contradiction"
            ));
        }
        (DataKind::Sets, Some(set)) => Target::Set(seed_of(file as u64, set, 0)),
        (DataKind::Pairs, _) => Target::Pair,
        _ => Target::None,
    })
}

fn read_source(
    recipe: &Recipe,
    name: &str,
    path: &Path,
    file: usize,
    evaluation: &EvalSentences,
) -> Result<(Vec<Row>, SourceCount)> {
    let source = &recipe.data[name];
    let table = Table::read(path)?;
    let columns = Columns::find(&table, name, source)?;
    let mut count = SourceCount::default();
    let mut rows = Vec::new();
    for (line, fields) in &table.rows {
        let bad = |what: String| Error::in_line(&table.file, *line, what);
        if !columns.take(fields) {
            count.filtered += 1;
            continue;
        }
        let blank = columns.texts.iter().find(|&&column| fields[column].trim().is_empty());
        if let Some(&column) = blank {
            return Err(bad(format!("{} is empty", table.header[column])));
        }
        let target = columns.target.map(|column| &fields[column]);
        let target = target_of(source, target, file).map_err(bad)?;
        let texts: Vec<String> =
            columns.texts.iter().map(|&column| fields[column].clone()).collect();
        if texts.iter().any(|text| evaluation.contains(text)) {
            count.leaked += 1;
            continue;
        }
        if texts.iter().any(|text| evaluation.in_passage(text)) {
            count.in_passages += 1;
            continue;
        }
        rows.push(Row { texts, target, file, line: *line });
    }
    if let Some(limit) = source.limit.filter(|&limit| rows.len() > limit) {
        count.beyond_limit = rows.len() - limit;
        let mut random = ChaCha8Rng::seed_from_u64(seed_of(recipe.seed, name, 0));
        rows.shuffle(&mut random);
        rows.truncate(limit);
        rows.sort_by_key(|row| row.line);
    }
    if rows.is_empty() {
        let what = format!("data.{name}: no row is left after filtering");
        return Err(Error::in_line(&table.file, 1, what));
    }
    count.kept = rows.len();
    if source.running_text {
        for row in &mut rows {
            row.target = Target::Set(seed_of(file as u64, "lines", (row.line / NEIGHBOURS) as u64));
        }
    }
    Ok((rows, count))
}

/// Lines of a running text that belong together.
const NEIGHBOURS: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    /// The rows of one source of sentences, `options` added to its table.
    fn rows_of(text: &str, options: &str) -> Vec<Row> {
        let place = tempfile::tempdir().unwrap();
        std::fs::write(place.path().join("lines.txt"), text).unwrap();
        let recipe = format!(
            r#"
            name = "x"
            seed = 3
            [data.lines]
            file = "lines.txt"
            kind = "sentences"
            license = "CC0"
            {options}
            [[stage]]
            name = "distill"
            kind = "distill"
            model = "student"
            data = ["lines"]
            steps = 1
            "#
        );
        let recipe = Recipe::parse(&recipe, "x.toml").unwrap();
        let folders = Folders { data: place.path(), out: place.path() };
        let names = ["lines".to_owned()];
        Rows::read(&recipe, &names, folders, &EvalSentences::default()).unwrap().rows
    }

    #[test]
    fn neighbours_in_a_running_text_are_a_set() {
        let text = "첫째 줄이다\n둘째 줄이다\n\n넷째 줄이다\n다섯째 줄이다\n여섯째 줄이다\n";
        assert!(rows_of(text, "").iter().all(|row| row.target == Target::None));
        let rows = rows_of(text, "running_text = true");
        let target = |at: usize| rows[at].target;
        assert!(matches!(target(0), Target::Set(_)));
        // Lines 1 and 2, then 4, 5 and 6: what is left out counts.
        assert_eq!(target(0), target(1));
        assert_eq!([target(2), target(3)], [target(4); 2]);
        assert_ne!(target(0), target(2));
    }
}
