//! JSON objects of a checkpoint folder, whose keys are counted off as they are read.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Map, Value};

use super::read_file;
use crate::error::{Error, Result};

/// Largest file of settings. Real ones have a few kB; those with a table of labels some hundred.
const MAX_BYTES: u64 = 16 << 20;

/// An object of named values, from a file or from within one.
pub(super) struct Fields {
    /// What messages call it, such as `model/config.json`.
    name: String,
    fields: Map<String, Value>,
    seen: RefCell<BTreeSet<String>>,
}

impl Fields {
    /// The object that the file at `path` holds.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let name = path.display().to_string();
        Ok(Fields::new(name.clone(), parse(&name, &read_file(path, MAX_BYTES)?)?))
    }

    /// The object that the file at `path` holds; `None` without that file.
    pub(super) fn read_if_there(path: &Path) -> Result<Option<Self>> {
        if path.exists() { Fields::read(path).map(Some) } else { Ok(None) }
    }

    pub(super) fn new(name: impl Into<String>, fields: Map<String, Value>) -> Self {
        Fields { name: name.into(), fields, seen: RefCell::default() }
    }

    /// A field, where `null` counts as absent.
    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        self.seen.borrow_mut().insert(name.to_owned());
        self.fields.get(name).filter(|value| !value.is_null())
    }

    /// Keys that hold something and that nobody asked for, `known` ones left out.
    pub(super) fn unread(&self, known: &[&str]) -> Vec<String> {
        let seen = self.seen.borrow();
        let unread = self.fields.iter().filter(|(key, value)| {
            !value.is_null() && !seen.contains(*key) && !known.contains(&key.as_str())
        });
        unread.map(|(key, _)| key.clone()).collect()
    }

    /// The keys, in order.
    pub(super) fn keys(&self) -> impl Iterator<Item = &str> {
        self.fields.keys().map(String::as_str)
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn missing(&self, name: &str, expected: &str) -> Error {
        Error::checkpoint_invalid(format!("{}: {name} is missing; expected {expected}", self.name))
    }

    pub(super) fn wrong(&self, name: &str, value: &Value, expected: &str) -> Error {
        Error::checkpoint_invalid(format!("{}: {name} is {value}; expected {expected}", self.name))
    }

    pub(super) fn text<'a>(&'a self, name: &str, default: Option<&'a str>) -> Result<&'a str> {
        match (self.text_if_there(name)?, default) {
            (Some(text), _) | (None, Some(text)) => Ok(text),
            (None, None) => Err(self.missing(name, "a string")),
        }
    }

    pub(super) fn text_if_there(&self, name: &str) -> Result<Option<&str>> {
        self.get(name)
            .map(|value| value.as_str().ok_or_else(|| self.wrong(name, value, "a string")))
            .transpose()
    }

    pub(super) fn flag(&self, name: &str, default: bool) -> Result<bool> {
        match self.get(name) {
            None => Ok(default),
            Some(value) => value.as_bool().ok_or_else(|| self.wrong(name, value, "true or false")),
        }
    }

    pub(super) fn size(&self, name: &str, default: Option<usize>) -> Result<usize> {
        let expected = "an integer of at least 0";
        match (self.get(name), default) {
            // The bound keeps products of two sizes far from overflow; the real ones come later.
            (Some(value), _) => value
                .as_u64()
                .filter(|&size| size < 1 << 31)
                .map(|size| size as usize)
                .ok_or_else(|| self.wrong(name, value, expected)),
            (None, Some(default)) => Ok(default),
            (None, None) => Err(self.missing(name, expected)),
        }
    }

    /// A length in tokens. Python writes "no limit" as 1e30, and so do others as whatever they
    /// please: everything beyond [`usize`]'s half means no limit.
    pub(super) fn length(&self, name: &str) -> Result<Option<usize>> {
        let Some(value) = self.get(name) else { return Ok(None) };
        match value.as_f64() {
            Some(length) if length >= 1.0 => {
                let limited = length < (usize::MAX / 2) as f64;
                Ok(limited.then_some(length as usize))
            }
            _ => Err(self.wrong(name, value, "a number of at least 1")),
        }
    }

    pub(super) fn number(&self, name: &str, default: f32) -> Result<f32> {
        match self.get(name) {
            None => Ok(default),
            Some(value) => value
                .as_f64()
                .map(|number| number as f32)
                .ok_or_else(|| self.wrong(name, value, "a number")),
        }
    }

    /// An object inside this one.
    pub(super) fn object(&self, name: &str) -> Result<Option<Fields>> {
        self.get(name)
            .map(|value| match value.as_object() {
                Some(fields) => Ok(Fields::new(format!("{}: {name}", self.name), fields.clone())),
                None => Err(self.wrong(name, value, "an object")),
            })
            .transpose()
    }
}

fn parse(name: &str, bytes: &[u8]) -> Result<Map<String, Value>> {
    serde_json::from_slice(bytes).map_err(|source| {
        Error::checkpoint_invalid(format!("{name} is not a JSON object")).with_source(source)
    })
}

/// The list of objects that the file at `path` holds.
pub(super) fn read_list(path: &Path) -> Result<Vec<Fields>> {
    let name = path.display().to_string();
    let list: Vec<Map<String, Value>> = serde_json::from_slice(&read_file(path, MAX_BYTES)?)
        .map_err(|source| {
            Error::checkpoint_invalid(format!("{name} is not a JSON list of objects"))
                .with_source(source)
        })?;
    let parts = list.into_iter().enumerate();
    Ok(parts.map(|(index, fields)| Fields::new(format!("{name}: entry {index}"), fields)).collect())
}
