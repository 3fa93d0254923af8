//! Training data: tables read with their line numbers, filtered as the recipe says, checked against
//! the evaluation sets, tokenized once.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use unicode_normalization_alignments::UnicodeNormalization;

use super::recipe::{DataKind, DataSource, EvalKind, Recipe};
use super::seed_of;
use crate::error::{Error, ErrorKind, Result};
use crate::eval::read_text;
use crate::tokenizer::Tokenizer;

/// A file's rows, each with its line number.
pub struct Table {
    /// As messages name it.
    pub file: String,
    /// Column names.
    pub header: Vec<String>,
    /// Line number (from 1) and fields.
    pub rows: Vec<(usize, Vec<String>)>,
}

impl Table {
    /// Reads a tab-separated file with a header line, or a `.txt` file (one column, `sentence`);
    /// gzip if the name ends in `.gz`. Blank lines are passed over.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] if it cannot be read; [`ErrorKind::DataInvalid`], naming file and line,
    /// for rows of another number of fields than the header or a file without rows.
    pub fn read(path: &Path) -> Result<Self> {
        let text = read_text(path)?;
        let name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
        let plain = name.trim_end_matches(".gz").ends_with(".txt");
        Table::parse(&text, &path.display().to_string(), plain)
    }

    fn parse(text: &str, file: &str, plain: bool) -> Result<Self> {
        let mut lines = text
            .trim_start_matches('\u{feff}')
            .split('\n')
            .map(|line| line.trim_end_matches('\r'))
            .enumerate()
            .map(|(index, line)| (index + 1, line));
        let header: Vec<String> = if plain {
            vec!["sentence".to_owned()]
        } else {
            let (_, first) = lines.next().unwrap_or((1, ""));
            if first.trim().is_empty() {
                return Err(bad(file, 1, "expected a header line with the column names"));
            }
            first.split('\t').map(str::to_owned).collect()
        };
        let mut rows = Vec::new();
        for (number, line) in lines {
            if line.is_empty() {
                continue;
            }
            let fields: Vec<String> = if plain {
                vec![line.to_owned()]
            } else {
                line.split('\t').map(str::to_owned).collect()
            };
            if fields.len() != header.len() {
                return Err(bad(
                    file,
                    number,
                    format!("{} fields; the header has {}", fields.len(), header.len()),
                ));
            }
            rows.push((number, fields));
        }
        if rows.is_empty() {
            return Err(bad(file, 1, "the file has no rows"));
        }
        Ok(Table { file: file.to_owned(), header, rows })
    }

    /// The place of the column `name`.
    ///
    /// # Errors
    /// [`ErrorKind::DataInvalid`], listing the columns there are.
    pub fn column(&self, name: &str) -> Result<usize> {
        self.header.iter().position(|found| found == name).ok_or_else(|| {
            bad(
                &self.file,
                1,
                format!("no column {name:?}; found {:?} (tab-separated, first line)", self.header),
            )
        })
    }
}

fn bad(file: &str, line: usize, what: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::DataInvalid, format!("{file}:{line}: {what}"))
}

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

/// Sentences and passages of the evaluation sets, in the form in which they are compared.
#[derive(Default)]
pub struct EvalSentences {
    whole: HashSet<String>,
    passages: Passages,
}

impl EvalSentences {
    /// Collects them; sets that are not in the data folder are passed over (evaluation itself
    /// reports them).
    ///
    /// # Errors
    /// [`ErrorKind::DataInvalid`] for malformed files.
    pub fn read(recipe: &Recipe, data: &Path) -> Result<Self> {
        let mut all = EvalSentences::default();
        for set in &recipe.evaluate {
            let path = data.join(&set.file);
            if !path.exists() {
                continue;
            }
            let table = Table::read(&path)?;
            let columns: Vec<usize> = if set.columns.is_empty() {
                vec![table.column("sentence1")?, table.column("sentence2")?]
            } else {
                set.columns.iter().map(|name| table.column(name)).collect::<Result<_>>()?
            };
            for (_, fields) in &table.rows {
                all.whole.extend(columns.iter().map(|&column| compared(&fields[column])));
            }
            // Query and document: the document is what sentences may be taken from.
            if let (EvalKind::Retrieval, Some(&column)) = (set.kind, columns.last()) {
                for (_, fields) in &table.rows {
                    all.passages.add(compared(&fields[column]));
                }
            }
        }
        Ok(all)
    }

    /// Whether `text` is one of them but for spacing, punctuation and case.
    pub fn contains(&self, text: &str) -> bool {
        self.whole.contains(&compared(text))
    }

    /// Whether `text`, or a sentence of it, stands in a passage of a retrieval set (compared without
    /// spacing, punctuation and case). Sentences below [`Passages::SHORTEST`] letters and digits are
    /// common property and do not count.
    pub fn in_passage(&self, text: &str) -> bool {
        !self.passages.list.is_empty()
            && sentences(text).any(|sentence| self.passages.contain(&compared(sentence)))
    }
}

/// `text` cut after `.`, `?`, `!` and their wide forms.
fn sentences(text: &str) -> impl Iterator<Item = &str> {
    text.split_inclusive(['.', '?', '!', '。', '？', '！', '…'])
}

/// Texts that can be asked quickly whether they contain another.
#[derive(Default)]
struct Passages {
    list: Vec<String>,
    /// Where each run of [`Passages::SHORTEST`] characters stands: hash of passage and run.
    runs: HashMap<u64, Vec<(u32, u32)>>,
}

impl Passages {
    const SHORTEST: usize = 12;

    fn hash(run: &str) -> u64 {
        seed_of(0, run, 0)
    }

    fn add(&mut self, text: String) {
        let number = self.list.len() as u32;
        let starts: Vec<usize> =
            text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
        for ends in starts.windows(Self::SHORTEST + 1) {
            let (begin, end) = (ends[0], ends[Self::SHORTEST]);
            let places = self.runs.entry(Self::hash(&text[begin..end])).or_default();
            places.push((number, begin as u32));
        }
        self.list.push(text);
    }

    fn contain(&self, text: &str) -> bool {
        let Some((end, _)) = text.char_indices().nth(Self::SHORTEST - 1) else {
            return false;
        };
        let end = end + text[end..].chars().next().map_or(0, char::len_utf8);
        self.runs.get(&Self::hash(&text[..end])).is_some_and(|places| {
            places.iter().any(|&(number, begin)| {
                self.list[number as usize][begin as usize..].starts_with(text)
            })
        })
    }
}

/// Where the files of data lie.
#[derive(Clone, Copy, Debug)]
pub struct Folders<'a> {
    /// Files that recipes name.
    pub data: &'a Path,
    /// What the run itself makes.
    pub out: &'a Path,
}

impl Folders<'_> {
    /// The file of a source.
    pub fn file(&self, source: &DataSource) -> PathBuf {
        match &source.made_by {
            Some(stage) => self.out.join(stage).join(LABELLED_PAIRS),
            None => self.data.join(&source.file),
        }
    }
}

/// What a `label_pairs` stage leaves in its folder.
pub const LABELLED_PAIRS: &str = "pairs.tsv";

/// NFKC, lower case, letters and digits only.
fn compared(text: &str) -> String {
    text.nfkc().flat_map(|(c, _)| c.to_lowercase()).filter(|c| c.is_alphanumeric()).collect()
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
            let source = &recipe.data[name];
            let path = folders.file(source);
            let file = all.files.len();
            let (rows, count) = read_source(recipe, name, source, &path, file, evaluation)?;
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

fn read_source(
    recipe: &Recipe,
    name: &str,
    source: &DataSource,
    path: &Path,
    file: usize,
    evaluation: &EvalSentences,
) -> Result<(Vec<Row>, SourceCount)> {
    let table = Table::read(path)?;
    let defaults: &[&str] = match source.kind {
        DataKind::Sts | DataKind::Nli | DataKind::Pairs => &["sentence1", "sentence2"],
        DataKind::Sets | DataKind::Sentences => &["sentence"],
    };
    let columns: Vec<usize> = if source.columns.is_empty() {
        defaults.iter().map(|name| table.column(name)).collect::<Result<_>>()?
    } else {
        source.columns.iter().map(|name| table.column(name)).collect::<Result<_>>()?
    };
    let expected = if matches!(source.kind, DataKind::Sets) { 1 } else { 2 };
    if source.kind != DataKind::Sentences && columns.len() != expected {
        return Err(bad(
            &table.file,
            1,
            format!("data.{name} names {} columns; expected {expected}", columns.len()),
        ));
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
    let holds = |fields: &[String], (column, value): &(usize, String)| {
        let field = fields[*column].trim();
        if value == "*" { !field.is_empty() } else { field == value }
    };

    let mut count = SourceCount::default();
    let mut rows = Vec::new();
    for (line, fields) in &table.rows {
        let bad = |what: String| bad(&table.file, *line, what);
        if drop.iter().any(|condition| holds(fields, condition))
            || !keep.iter().all(|condition| holds(fields, condition))
        {
            count.filtered += 1;
            continue;
        }
        if let Some(&column) = columns.iter().find(|&&column| fields[column].trim().is_empty()) {
            return Err(bad(format!("{} is empty", table.header[column])));
        }
        let target = match (source.kind, target) {
            (DataKind::Sts, Some(column)) => match fields[column].trim().parse::<f64>() {
                Ok(score) if (0.0..=source.max_score).contains(&score) => {
                    Target::Score((score / source.max_score) as f32)
                }
                _ => {
                    return Err(bad(format!(
                        "score is {:?}; expected a number from 0 to {}",
                        fields[column], source.max_score
                    )));
                }
            },
            (DataKind::Nli, Some(column)) => match fields[column].trim() {
                "entailment" => Target::Entailment,
                "neutral" => Target::Neutral,
                "contradiction" => Target::Contradiction,
                other => {
                    return Err(bad(format!(
                        "label is {other:?}; expected entailment, neutral or contradiction"
                    )));
                }
            },
            (DataKind::Sets, Some(column)) => {
                Target::Set(seed_of(file as u64, fields[column].trim(), 0))
            }
            (DataKind::Pairs, _) => Target::Pair,
            _ => Target::None,
        };
        let texts: Vec<String> = columns.iter().map(|&column| fields[column].clone()).collect();
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
        return Err(bad(&table.file, 1, format!("data.{name}: no row is left after filtering")));
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

/// Token ids of many texts, each text once.
pub struct TokenStore {
    ids: Vec<Vec<u32>>,
    places: HashMap<String, u32>,
}

impl TokenStore {
    /// Tokenizes `texts` on all cores.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn new<'a>(
        tokenizer: &Tokenizer,
        texts: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self> {
        let mut places = HashMap::new();
        let mut unique: Vec<&str> = Vec::new();
        for text in texts {
            places.entry(text.to_owned()).or_insert_with(|| {
                unique.push(text);
                unique.len() as u32 - 1
            });
        }
        let ids = unique
            .par_iter()
            .map(|text| Ok(tokenizer.encode(text)?.ids))
            .collect::<Result<Vec<_>>>()?;
        Ok(TokenStore { ids, places })
    }

    /// Texts whose ids are known: `lookup` gives them.
    ///
    /// # Errors
    /// What `lookup` returns.
    pub fn from_ids<'a>(
        texts: impl IntoIterator<Item = &'a str>,
        lookup: impl Fn(&str) -> Result<Vec<u32>>,
    ) -> Result<Self> {
        let mut store = TokenStore { ids: Vec::new(), places: HashMap::new() };
        for text in texts {
            if !store.places.contains_key(text) {
                store.places.insert(text.to_owned(), store.ids.len() as u32);
                store.ids.push(lookup(text)?);
            }
        }
        Ok(store)
    }

    /// The same texts in at most `most` tokens, the last of which stays what it was.
    pub fn cut(mut self, most: usize) -> Self {
        for ids in &mut self.ids {
            if ids.len() > most && most > 0 {
                let last = ids[ids.len() - 1];
                ids.truncate(most);
                ids[most - 1] = last;
            }
        }
        self
    }

    /// The number of a text that was given to [`TokenStore::new`].
    pub fn index(&self, text: &str) -> usize {
        self.places[text] as usize
    }

    /// Ids of text number `index`.
    pub fn ids(&self, index: usize) -> &[u32] {
        &self.ids[index]
    }

    /// Number of different texts.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }
}

/// The batches of pass `epoch` over `lengths.len()` examples: shuffled by `seed`, sorted by length
/// within a window so that a batch's sentences are of one size, and the batches shuffled again. What
/// is left over after the last full batch waits for another pass.
pub fn batches(lengths: &[usize], batch: usize, seed: u64, epoch: u64) -> Vec<Vec<u32>> {
    const WINDOW: usize = 32;
    let batch = batch.min(lengths.len()).max(1);
    let mut random = ChaCha8Rng::seed_from_u64(seed_of(seed, "epoch", epoch));
    let mut order: Vec<u32> = (0..lengths.len() as u32).collect();
    order.shuffle(&mut random);
    order.truncate(order.len() / batch * batch);
    for window in order.chunks_mut(batch * WINDOW) {
        window.sort_by_key(|&index| lengths[index as usize]);
    }
    let mut batches: Vec<Vec<u32>> = order.chunks_exact(batch).map(<[u32]>::to_vec).collect();
    batches.shuffle(&mut random);
    batches
}

/// The path of a data file, checked to be inside of the data folder.
///
/// # Errors
/// [`ErrorKind::DataInvalid`] if it leaves the folder.
pub fn inside(data: &Path, file: &str) -> Result<PathBuf> {
    let relative = Path::new(file);
    let plain = relative.components().all(|part| matches!(part, std::path::Component::Normal(_)));
    if !plain {
        return Err(Error::new(
            ErrorKind::DataInvalid,
            format!("data file {file:?}: expected a path below the data folder"),
        ));
    }
    Ok(data.join(relative))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_name_bad_lines() {
        let message = |text: &str| Table::parse(text, "x.tsv", false).err().unwrap().to_string();
        assert!(message("").starts_with("x.tsv:1:"));
        assert!(message("a\tb\n").starts_with("x.tsv:1: the file has no rows"));
        assert!(message("a\tb\n1\t2\n\n3\n").starts_with("x.tsv:4: 1 fields"));
        let table = Table::parse("a\tb\r\n1\t2\r\n", "x.tsv", false).unwrap();
        assert_eq!(table.rows, [(2, vec!["1".to_owned(), "2".to_owned()])]);
        assert!(table.column("c").unwrap_err().to_string().contains("no column \"c\""));
    }

    #[test]
    fn batches_are_a_function_of_seed_and_pass() {
        let lengths: Vec<usize> = (0..103).map(|i| i * 7 % 31).collect();
        let first = batches(&lengths, 8, 5, 0);
        assert_eq!(first, batches(&lengths, 8, 5, 0));
        assert_ne!(first, batches(&lengths, 8, 5, 1));
        assert_ne!(first, batches(&lengths, 8, 6, 0));
        assert_eq!(first.len(), 12);
        let seen: HashSet<u32> = first.iter().flatten().copied().collect();
        assert_eq!(seen.len(), 96);
        let spread = |batch: &Vec<u32>| {
            let of = |f: fn(usize, usize) -> usize| {
                batch.iter().map(|&i| lengths[i as usize]).reduce(f).unwrap()
            };
            of(usize::max) - of(usize::min)
        };
        assert!(first.iter().all(|batch| spread(batch) < 12));
        assert_eq!(batches(&lengths[..3], 8, 5, 0).len(), 1);
    }

    #[test]
    fn sentences_of_passages_are_found() {
        let mut evaluation = EvalSentences::default();
        let passage = "한강은 서울을 가로질러 흐른다. 길이는 약 494 km 이며, 서해로 들어간다.";
        evaluation.passages.add(compared(passage));
        for text in [
            "길이는 약 494km이며 서해로 들어간다",
            "한강은  서울을 가로질러 흐른다!",
            "모르는 문장이다. 한강은 서울을 가로질러 흐른다. 그렇다.",
            passage,
        ] {
            assert!(evaluation.in_passage(text), "{text}");
        }
        for text in ["한강은 서울을", "낙동강은 부산을 가로질러 흐른다고 한다", "", "..."]
        {
            assert!(!evaluation.in_passage(text), "{text}");
        }
    }

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

    #[test]
    fn a_store_is_cut_before_the_last_token() {
        let ids = |text: &str| Ok((0..=text.len() as u32).collect());
        let store = TokenStore::from_ids(["", "a", "abcdef"], ids).unwrap().cut(3);
        assert_eq!([store.ids(0), store.ids(1), store.ids(2)], [&[0][..], &[0, 1], &[0, 1, 6]]);
    }

    #[test]
    fn comparison_ignores_spacing_punctuation_and_case() {
        assert_eq!(compared("오늘, 날씨가 Good!"), compared("오늘날씨가 ｇｏｏｄ"));
        assert_ne!(compared("가나"), compared("가다"));
    }
}
