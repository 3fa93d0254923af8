//! Files of sentence pairs with scores: TSV, CSV, JSON Lines and JSON, with the column names in use.

use std::path::Path;

use serde_json::{Map, Value};

use crate::error::{Error, ErrorKind, Result};
use crate::table::read_text;

/// A row of an STS file.
#[derive(Clone, Debug, PartialEq)]
pub struct StsPair {
    /// One sentence.
    pub sentence1: String,
    /// The other.
    pub sentence2: String,
    /// How similar people found them; any scale.
    pub score: f64,
}

/// Names of a column, the likeliest first; those of data sets on the Hugging Face Hub, mostly.
const FIRST: [&str; 8] =
    ["sentence1", "sentence_1", "sentence_a", "text1", "text_a", "sent1", "premise", "anchor"];
const SECOND: [&str; 8] =
    ["sentence2", "sentence_2", "sentence_b", "text2", "text_b", "sent2", "hypothesis", "positive"];
const SCORE: [&str; 9] = [
    "score",
    "similarity_score",
    "relatedness_score",
    "similarity",
    // KLUE-STS: one of several labels, the mean that people gave.
    "labels.real-label",
    "real-label",
    "real_label",
    "label",
    "labels.label",
];

/// Which columns hold what, where their names are not the usual ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Columns {
    /// First sentence, second sentence, score.
    pub names: Option<[String; 3]>,
}

/// A file's lines, for messages, and what to make of them.
struct Source<'a> {
    file: &'a str,
    columns: &'a Columns,
}

/// Reads an STS file by its name's ending, `.gz` taken off: `.csv` with quotes as RFC 4180 has them;
/// `.jsonl`, `.ndjson` and `.json`, an object a line or a list of objects; anything else tab-separated
/// without quoting. The first line of CSV and TSV names the columns; others than the three are ignored.
///
/// # Errors
/// [`ErrorKind::Io`] if it cannot be read; [`ErrorKind::DataInvalid`], naming file and line, for
/// missing columns, rows of another number of fields, empty sentences, scores that are no finite
/// number, or no rows at all.
pub fn read_sts(path: &Path) -> Result<Vec<StsPair>> {
    read_sts_columns(path, &Columns::default())
}

/// [`read_sts`] of a file whose columns have the names `columns`.
///
/// # Errors
/// As [`read_sts`].
pub fn read_sts_columns(path: &Path, columns: &Columns) -> Result<Vec<StsPair>> {
    let text = read_text(path)?;
    let file = path.display().to_string();
    let source = Source { file: &file, columns };
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let name = name.strip_suffix(".gz").unwrap_or(name).to_ascii_lowercase();
    let text = text.trim_start_matches('\u{feff}');
    let pairs = match name.rsplit('.').next() {
        Some("csv") => source.csv(text)?,
        Some("jsonl" | "ndjson") => source.json_lines(text)?,
        Some("json") if text.trim_start().starts_with('[') => source.json_list(text)?,
        Some("json") => source.json_lines(text)?,
        _ => source.tsv(text)?,
    };
    if pairs.is_empty() {
        return Err(source.bad(1, "no rows; expected at least one pair of sentences".into()));
    }
    Ok(pairs)
}

impl Source<'_> {
    fn bad(&self, line: usize, what: String) -> Error {
        Error::new(ErrorKind::DataInvalid, format!("{}:{line}: {what}", self.file))
    }

    /// Which of the `found` columns are the three.
    fn choose(&self, found: &[&str], line: usize, kind: &str) -> Result<[usize; 3]> {
        let place = |names: &[&str], what: &str| {
            let place =
                names.iter().find_map(|name| found.iter().position(|column| column == name));
            place.ok_or_else(|| {
                self.bad(line, format!(
                    "no column for the {what}, such as {:?}; found {found:?} ({kind}); name the three by \
                     --columns FIRST,SECOND,SCORE", names[0]
                ))
            })
        };
        match &self.columns.names {
            Some([first, second, score]) => Ok([
                place(&[first], "first sentence")?,
                place(&[second], "second sentence")?,
                place(&[score], "score")?,
            ]),
            None => Ok([
                place(&FIRST, "first sentence")?,
                place(&SECOND, "second sentence")?,
                place(&SCORE, "score")?,
            ]),
        }
    }

    fn pair(&self, line: usize, [first, second, score]: [&str; 3]) -> Result<StsPair> {
        if first.trim().is_empty() || second.trim().is_empty() {
            return Err(self.bad(line, "a sentence is empty".into()));
        }
        let score = match score.trim().parse() {
            Ok(score) if f64::is_finite(score) => score,
            _ => {
                return Err(self.bad(line, format!("score is {score:?}; expected a finite number")));
            }
        };
        Ok(StsPair { sentence1: first.to_owned(), sentence2: second.to_owned(), score })
    }

    fn tsv(&self, text: &str) -> Result<Vec<StsPair>> {
        let mut lines = text.lines().enumerate();
        let header: Vec<&str> = match lines.next() {
            Some((_, line)) => line.split('\t').collect(),
            None => return Err(self.bad(1, "the file is empty; expected a header line".into())),
        };
        let places = self.choose(&header, 1, "tab-separated, first line")?;
        let mut pairs = Vec::new();
        for (index, line) in lines.filter(|(_, line)| !line.is_empty()) {
            let fields: Vec<&str> = line.split('\t').collect();
            if fields.len() != header.len() {
                let what = format!("{} fields; the header has {}", fields.len(), header.len());
                return Err(self.bad(index + 1, what));
            }
            pairs.push(self.pair(index + 1, places.map(|place| fields[place]))?);
        }
        Ok(pairs)
    }

    fn csv(&self, text: &str) -> Result<Vec<StsPair>> {
        let mut reader = csv::ReaderBuilder::new().from_reader(text.as_bytes());
        let bad = |error: csv::Error| {
            let line = error.position().map_or(1, |position| position.line() as usize);
            let what = match error.kind() {
                csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
                    format!("{len} fields; the header has {expected_len}")
                }
                _ => "not CSV".to_owned(),
            };
            self.bad(line, what).with_source(error)
        };
        let header = reader.headers().map_err(bad)?.clone();
        let header: Vec<&str> = header.iter().map(str::trim).collect();
        if header.is_empty() {
            return Err(self.bad(1, "the file is empty; expected a header line".into()));
        }
        let places = self.choose(&header, 1, "comma-separated, first line")?;
        let mut pairs = Vec::new();
        for record in reader.records() {
            let record = record.map_err(bad)?;
            let line = record.position().map_or(0, |position| position.line() as usize);
            pairs.push(self.pair(line, places.map(|place| &record[place]))?);
        }
        Ok(pairs)
    }

    fn json_lines(&self, text: &str) -> Result<Vec<StsPair>> {
        let mut pairs = Vec::new();
        for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let row: Map<String, Value> = serde_json::from_str(line).map_err(|source| {
                self.bad(index + 1, "not a JSON object".into()).with_source(source)
            })?;
            pairs.push(self.row(index + 1, &row)?);
        }
        Ok(pairs)
    }

    fn json_list(&self, text: &str) -> Result<Vec<StsPair>> {
        let rows: Vec<Map<String, Value>> = serde_json::from_str(text).map_err(|source| {
            let line = source.line();
            self.bad(line, "not a list of JSON objects".into()).with_source(source)
        })?;
        // A list's rows are counted, since nothing says on which line they lie.
        rows.iter().enumerate().map(|(index, row)| self.row(index + 1, row)).collect()
    }

    fn row(&self, line: usize, row: &Map<String, Value>) -> Result<StsPair> {
        let mut names: Vec<String> = Vec::new();
        let mut values: Vec<String> = Vec::new();
        let mut put = |name: String, value: &Value| {
            names.push(name);
            values.push(value.as_str().map_or_else(|| value.to_string(), str::to_owned));
        };
        for (name, value) in row {
            match value.as_object() {
                Some(inner) => {
                    inner.iter().for_each(|(key, value)| put(format!("{name}.{key}"), value));
                }
                None => put(name.clone(), value),
            }
        }
        let found: Vec<&str> = names.iter().map(String::as_str).collect();
        let places = self.choose(&found, line, "a JSON object's keys")?;
        self.pair(line, places.map(|place| values[place].as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, text: &str) -> Result<Vec<StsPair>> {
        read_with(name, text, &Columns::default())
    }

    fn read_with(name: &str, text: &str, columns: &Columns) -> Result<Vec<StsPair>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        read_sts_columns(&path, columns)
    }

    fn pair(sentence1: &str, sentence2: &str, score: f64) -> StsPair {
        StsPair { sentence1: sentence1.into(), sentence2: sentence2.into(), score }
    }

    #[test]
    fn columns_are_found_by_name() {
        let text = "\u{feff}genre\tscore\tsentence2\tsentence1\r\nnews\t 4.5\t나 다\t가\r\n\r\n";
        assert_eq!(read("x.tsv", text).unwrap(), [pair("가", "나 다", 4.5)]);
        // Quotes in a TSV are characters like others.
        let text = "sentence1\tsentence2\tscore\n\"가\t나\"\t1\n";
        assert_eq!(read("x.tsv", text).unwrap(), [pair("\"가", "나\"", 1.0)]);
    }

    #[test]
    fn csv_has_quotes_and_lines_in_fields() {
        let text = "\u{feff}id,text1,text2,similarity\r\n1,\"가, \"\"나\"\"\",\"다\n라\",0.5\r\n2,마,바,1\r\n";
        assert_eq!(
            read("x.CSV", text).unwrap(),
            [pair("가, \"나\"", "다\n라", 0.5), pair("마", "바", 1.0)]
        );
        let error = read("x.csv", "sentence1,sentence2,score\n가,나,1\n다,라\n").unwrap_err();
        assert!(error.to_string().contains("x.csv:3: 2 fields"), "{error}");
    }

    #[test]
    fn json_of_the_hub_is_read() {
        let klue = r#"{"guid": "a", "sentence1": "가", "sentence2": "나",
            "labels": {"label": 3.7, "real-label": 3.714285714285714, "binary-label": 1}}"#
            .replace('\n', " ");
        let glue = r#"{"premise": "다", "hypothesis": "라", "label": 2.5, "idx": 0}"#;
        let expected = [pair("가", "나", 3.714285714285714), pair("다", "라", 2.5)];
        assert_eq!(read("x.jsonl", &format!("{klue}\n\n{glue}\n")).unwrap(), expected);
        assert_eq!(read("x.json", &format!("{klue}\n{glue}")).unwrap(), expected);
        assert_eq!(read("x.json", &format!(" [{klue},\n{glue}]")).unwrap(), expected);
        let text = r#"{"sentence1": "가", "sentence2": "나", "score": "0.25", "label": 1}"#;
        assert_eq!(read("x.ndjson", text).unwrap(), [pair("가", "나", 0.25)]);
        let error = read("x.jsonl", "{\"sentence1\": \"가\"}").unwrap_err().to_string();
        assert!(error.contains("x.jsonl:1") && error.contains("--columns"), "{error}");
        assert!(read("x.jsonl", "[1]").unwrap_err().to_string().contains("not a JSON object"));
    }

    #[test]
    fn other_columns_can_be_named() {
        let columns = Columns { names: Some(["ko".into(), "other".into(), "gold".into()]) };
        let text = "ko\tother\tgold\tscore\n가\t나\t1\t5\n";
        assert_eq!(read_with("x.tsv", text, &columns).unwrap(), [pair("가", "나", 1.0)]);
        let text = "sentence1\tsentence2\tscore\n가\t나\t1\n";
        let error = read_with("x.tsv", text, &columns).unwrap_err().to_string();
        assert!(error.contains("\"ko\"") && error.contains("\"sentence1\""), "{error}");
    }

    #[test]
    fn bad_rows_are_named_by_line() {
        let message = |text: &str| {
            let error = read("x.tsv", text).unwrap_err();
            assert_eq!(error.code(), "data_invalid");
            error.to_string()
        };
        assert!(message("").contains("x.tsv:1: the file is empty"));
        assert!(message("a\tb\n").contains("\"sentence1\""));
        let header = "sentence1\tsentence2\tscore\n";
        assert!(message(header).contains("x.tsv:1: no rows"));
        assert!(message(&format!("{header}가\t나\t1\n가\t나\n")).contains("x.tsv:3: 2 fields"));
        assert!(message(&format!("{header}가\t나\tmany\n")).contains("\"many\""));
        assert!(message(&format!("{header}가\t나\tNaN\n")).contains("finite"));
        assert!(message(&format!("{header}가\t \t1\n")).contains("x.tsv:2: a sentence is empty"));
    }
}
