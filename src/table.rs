//! Tables: tab-separated files with a header line, and plain lines, with their line numbers.

use std::io::Read;
use std::path::Path;

use crate::error::{Error, Result};
use crate::files;

/// A file's rows, each with its line number.
pub(crate) struct Table {
    /// As messages name it.
    pub(crate) file: String,
    /// Column names.
    pub(crate) header: Vec<String>,
    /// Line number (from 1) and fields.
    pub(crate) rows: Vec<(usize, Vec<String>)>,
}

impl Table {
    /// Reads a tab-separated file with a header line, or a `.txt` file (one column, `sentence`);
    /// gzip if the name ends in `.gz`. Blank lines are passed over.
    ///
    /// # Errors
    /// `io` if it cannot be read; `data_invalid`, naming file and line,
    /// for rows of another number of fields than the header or a file without rows.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = read_text(path)?;
        let name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
        let plain = name.trim_end_matches(".gz").ends_with(".txt");
        Table::parse(&text, &path.display().to_string(), plain)
    }

    /// As [`Table::read`], from text; `plain` says that there is no header.
    pub(crate) fn parse(text: &str, file: &str, plain: bool) -> Result<Self> {
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
                return Err(Error::in_line(
                    file,
                    1,
                    "expected a header line with the column names",
                ));
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
                return Err(Error::in_line(
                    file,
                    number,
                    format!("{} fields; the header has {}", fields.len(), header.len()),
                ));
            }
            rows.push((number, fields));
        }
        if rows.is_empty() {
            return Err(Error::in_line(file, 1, "the file has no rows"));
        }
        Ok(Table { file: file.to_owned(), header, rows })
    }

    /// The place of the column `name`.
    ///
    /// # Errors
    /// `data_invalid`, listing the columns there are.
    pub(crate) fn column(&self, name: &str) -> Result<usize> {
        self.header.iter().position(|found| found == name).ok_or_else(|| {
            Error::in_line(
                &self.file,
                1,
                format!("no column {name:?}; found {:?} (tab-separated, first line)", self.header),
            )
        })
    }
}

/// A whole text file, decompressed if its name ends in `.gz`.
///
/// # Errors
/// `io` if it cannot be read or unpacked; `data_invalid`, naming file and line, where it is not UTF-8.
pub fn read_text(path: &Path) -> Result<String> {
    let mut bytes = files::read(path)?;
    if path.extension().is_some_and(|extension| extension == "gz") {
        let mut unpacked = Vec::new();
        flate2::read::MultiGzDecoder::new(bytes.as_slice())
            .read_to_end(&mut unpacked)
            .map_err(|source| Error::io(format!("cannot read {}", path.display()), source))?;
        bytes = unpacked;
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = valid.iter().filter(|&&byte| byte == b'\n').count() + 1;
        Error::in_line(&path.display().to_string(), line, "not UTF-8")
    })
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
}
