//! Text, line by line.

use std::io::BufRead;

use crate::error::{Error, ErrorKind, Result};

/// Lines given to the encoder at once: enough for all its threads, few enough for a pipe to flow.
pub(super) const LINES_PER_BATCH: usize = 512;

/// Lines of UTF-8 text, numbered for messages.
pub(super) struct Lines<'a, R> {
    reader: R,
    name: &'a str,
    number: usize,
}

impl<'a, R: BufRead> Lines<'a, R> {
    pub(super) fn new(reader: R, name: &'a str) -> Self {
        Lines { reader, name, number: 0 }
    }

    /// At most `count` further lines, without their line ends.
    pub(super) fn take(&mut self, count: usize) -> Result<Vec<String>> {
        let mut lines = Vec::new();
        while lines.len() < count {
            let mut line = Vec::new();
            let read = self.reader.read_until(b'\n', &mut line);
            if read.map_err(|source| Error::io(format!("cannot read {}", self.name), source))? == 0
            {
                break;
            }
            self.number += 1;
            while line.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
                line.pop();
            }
            lines.push(String::from_utf8(line).map_err(|_| {
                Error::new(
                    ErrorKind::DataInvalid,
                    format!("{}:{}: not UTF-8", self.name, self.number),
                )
            })?);
        }
        Ok(lines)
    }
}
