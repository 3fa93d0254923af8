//! Documents of a file, as indexes are made of them.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use clap::Args;
use serde_json::Value;

use super::lines::Lines;
use super::output::bar;
use crate::error::{Error, ErrorKind, Result};
use crate::index::index_texts;
use crate::model::Encoder;
use crate::search::{DEFAULT_MAX_CHARS, HybridIndex, Precision};

/// How an index is made.
#[derive(Args)]
pub struct IndexOptions {
    /// How vectors are kept: int8, float32, or binary (a sign for each value)
    #[arg(long, default_value = "int8", value_name = "NAME")]
    precision: String,
    /// Characters of a passage at most; long texts are cut at sentence borders
    #[arg(long, default_value_t = DEFAULT_MAX_CHARS, value_name = "N")]
    pub(super) max_chars: usize,
}

impl IndexOptions {
    pub(super) fn checked(&self) -> Result<(Precision, usize)> {
        Ok((Precision::from_name(&self.precision)?, self.max_chars))
    }
}

/// The documents of a file: texts, and all that is kept of them as JSON.
pub(super) struct Corpus {
    pub texts: Vec<String>,
    pub json: String,
}

impl Corpus {
    /// Reads a text file with a document a line, whose id is the line's number from 1; or, if the name ends in
    /// `.jsonl`, objects with `text` and, if there are, `id` and `data`.
    pub fn read(path: &Path) -> Result<Self> {
        let name = path.display().to_string();
        let file =
            File::open(path).map_err(|source| Error::io(format!("cannot read {name}"), source))?;
        let lines = Lines::new(BufReader::new(file), &name).take(usize::MAX)?;
        let bad = |line: usize, what: String| {
            Error::new(ErrorKind::DataInvalid, format!("{name}:{line}: {what}"))
        };
        if lines.is_empty() {
            return Err(bad(1, "the file is empty".into()));
        }
        let is_jsonl = path.extension().is_some_and(|extension| extension == "jsonl");
        let mut texts = Vec::new();
        let mut documents = Vec::new();
        for (index, line) in lines.into_iter().enumerate() {
            let number = index + 1;
            if !is_jsonl {
                documents.push(serde_json::json!({"id": number, "text": line}));
                texts.push(line);
                continue;
            }
            if line.trim().is_empty() {
                continue;
            }
            let mut given: Value = serde_json::from_str(&line)
                .map_err(|error| bad(number, format!("not JSON: {error}")))?;
            let Some(text) = given["text"].as_str().map(str::to_owned) else {
                return Err(bad(number, "no string \"text\" in the object".into()));
            };
            let mut document = serde_json::json!({"id": number, "text": text});
            match &given["id"] {
                Value::Null => {}
                id @ (Value::String(_) | Value::Number(_)) => document["id"] = id.clone(),
                id => {
                    return Err(bad(number, format!("id is {id}; expected a string or a number")));
                }
            }
            if !given["data"].is_null() {
                document["data"] = given["data"].take();
            }
            documents.push(document);
            texts.push(text);
        }
        let mut seen = std::collections::HashSet::new();
        for (index, document) in documents.iter().enumerate() {
            if !seen.insert(document["id"].to_string()) {
                return Err(bad(index + 1, format!("the id {} comes twice", document["id"])));
            }
        }
        Ok(Corpus { texts, json: Value::from(documents).to_string() })
    }

    /// Encodes everything.
    pub fn index(&self, encoder: &Encoder, options: &IndexOptions) -> Result<HybridIndex> {
        let progress = bar(0, "passages");
        let index = index_texts(encoder, &self.texts, options.checked()?, |done, total| {
            progress.set_length(total as u64);
            progress.set_position(done as u64);
        })?;
        progress.finish_and_clear();
        Ok(index)
    }

    /// An index of these documents as a file.
    pub fn to_bytes(&self, index: &HybridIndex, options: &IndexOptions) -> Result<Vec<u8>> {
        let documents: Vec<u32> = (0..self.texts.len() as u32).collect();
        let mut bytes = Vec::new();
        index.write(&documents, &self.json, options.max_chars, &mut |piece| {
            bytes.extend_from_slice(piece)
        })?;
        Ok(bytes)
    }
}
