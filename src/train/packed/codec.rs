//! Rows, evaluation sets and numbers as bytes.

use super::damaged::damaged;
use crate::error::Result;
use crate::eval::StsPair;
use crate::train::data::{Row, Target};
use crate::train::report::evaluation::EvalRows;

/// Numbers of the data file, written: LEB128, signed ones folded.
#[derive(Default)]
pub(super) struct Writer(pub(super) Vec<u8>);

impl Writer {
    pub(super) fn number(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    pub(super) fn signed(&mut self, value: i64) {
        self.number(((value << 1) ^ (value >> 63)) as u64);
    }

    pub(super) fn row(&mut self, row: &Row, texts: &[u32], before: (usize, u32)) {
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
pub(super) struct Body<'a> {
    pub(super) bytes: &'a [u8],
}

impl Body<'_> {
    pub(super) fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (taken, rest) =
            self.bytes.split_first_chunk::<N>().ok_or_else(|| damaged("data end early"))?;
        self.bytes = rest;
        Ok(*taken)
    }

    pub(super) fn number(&mut self) -> Result<u64> {
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

    pub(super) fn signed(&mut self) -> Result<i64> {
        let folded = self.number()?;
        Ok((folded >> 1) as i64 ^ -((folded & 1) as i64))
    }

    pub(super) fn text(&mut self) -> Result<String> {
        Ok(self.number()?.to_string())
    }

    pub(super) fn rows(&mut self) -> Result<Vec<Row>> {
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

    pub(super) fn evaluation(&mut self) -> Result<EvalRows> {
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
