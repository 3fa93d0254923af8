//! sentencepiece's `.model` files, and the vocabularies of pieces that go with them.
//!
//! A `.model` is a protocol buffer ([`sentencepiece_model.proto`][proto]); only the fields that decide
//! a Unigram's ids are read.
//!
//! [proto]: https://github.com/google/sentencepiece/blob/master/src/sentencepiece_model.proto

use serde_json::{Value, json};

use crate::config::limits;
use crate::error::{Error, Result};

/// Stands for a blank in pieces, and begins words.
pub(super) const WORD_START: char = '▁';

/// What a piece is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PieceKind {
    Normal,
    Unknown,
    Control,
    UserDefined,
    Unused,
    Byte,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Piece {
    pub(super) text: String,
    pub(super) score: f32,
    pub(super) kind: PieceKind,
}

/// A Unigram model as sentencepiece trains it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Model {
    pub(super) pieces: Vec<Piece>,
    /// The compiled table of character replacements; empty for none.
    pub(super) charsmap: Vec<u8>,
    pub(super) add_dummy_prefix: bool,
    pub(super) remove_extra_whitespaces: bool,
    pub(super) byte_fallback: bool,
}

/// One field of a message.
enum Wire<'a> {
    Number(u64),
    Fixed32([u8; 4]),
    Bytes(&'a [u8]),
    Fixed64,
}

/// Splits a message into its fields; lengths are checked against what is there.
struct Message<'a>(&'a [u8]);

impl<'a> Message<'a> {
    fn varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for at in 0..10 {
            let (&byte, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= u64::from(byte & 0x7F).checked_shl(7 * at)?;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    fn take(&mut self, len: u64) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(usize::try_from(len).ok()?)?;
        self.0 = rest;
        Some(taken)
    }

    /// The next field and its number; an error where the message is no whole one.
    fn field(&mut self) -> Option<Result<(u64, Wire<'a>)>> {
        if self.0.is_empty() {
            return None;
        }
        let mut read = || {
            let key = self.varint()?;
            let wire = match key & 7 {
                0 => Wire::Number(self.varint()?),
                1 => self.take(8).map(|_| Wire::Fixed64)?,
                2 => {
                    let len = self.varint()?;
                    Wire::Bytes(self.take(len)?)
                }
                5 => Wire::Fixed32(self.take(4)?.try_into().ok()?),
                _ => return None,
            };
            Some((key >> 3, wire))
        };
        Some(read().ok_or_else(|| Error::checkpoint_invalid("it is no whole sentencepiece model")))
    }
}

impl Model {
    /// Reads a `.model` file's bytes.
    ///
    /// # Errors
    /// `CheckpointInvalid` if they are none, `CheckpointUnsupported` for another kind than Unigram.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self> {
        let mut model = Model {
            pieces: Vec::new(),
            charsmap: Vec::new(),
            add_dummy_prefix: true,
            remove_extra_whitespaces: true,
            byte_fallback: false,
        };
        let mut message = Message(bytes);
        while let Some(field) = message.field() {
            match field? {
                (1, Wire::Bytes(piece)) => {
                    if model.pieces.len() == limits::VOCAB_SIZE {
                        return Err(Error::checkpoint_invalid(format!(
                            "it has over {} pieces",
                            limits::VOCAB_SIZE
                        )));
                    }
                    model.pieces.push(Piece::parse(piece)?);
                }
                (2, Wire::Bytes(trainer)) => model.read_trainer(trainer)?,
                (3, Wire::Bytes(normalizer)) => model.read_normalizer(normalizer)?,
                _ => {}
            }
        }
        if model.pieces.is_empty() {
            return Err(Error::checkpoint_invalid(
                "it is no sentencepiece model: it has no pieces",
            ));
        }
        Ok(model)
    }

    fn read_trainer(&mut self, bytes: &[u8]) -> Result<()> {
        let mut message = Message(bytes);
        while let Some(field) = message.field() {
            match field? {
                (3, Wire::Number(1)) => {}
                (3, Wire::Number(kind)) => {
                    let name = match kind {
                        2 => "BPE",
                        3 => "word",
                        4 => "character",
                        _ => "unknown",
                    };
                    return Err(Error::checkpoint_unsupported(format!(
                        "it is a sentencepiece model of kind {name}; munjang reads Unigram ones: write a \
                         tokenizer.json by AutoTokenizer.from_pretrained(…).save_pretrained(…)"
                    )));
                }
                (24, Wire::Number(suffix)) if suffix != 0 => {
                    return Err(Error::checkpoint_unsupported(
                        "it puts blanks at the ends of pieces",
                    ));
                }
                (35, Wire::Number(fallback)) => self.byte_fallback = fallback != 0,
                _ => {}
            }
        }
        Ok(())
    }

    fn read_normalizer(&mut self, bytes: &[u8]) -> Result<()> {
        let mut message = Message(bytes);
        while let Some(field) = message.field() {
            match field? {
                (2, Wire::Bytes(charsmap)) => self.charsmap = charsmap.to_vec(),
                (3, Wire::Number(add)) => self.add_dummy_prefix = add != 0,
                (4, Wire::Number(remove)) => self.remove_extra_whitespaces = remove != 0,
                (5, Wire::Number(0)) => {
                    return Err(Error::checkpoint_unsupported(
                        "its pieces have blanks as they are",
                    ));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Normalization as sentencepiece does it, in `tokenizers`' terms, after `first` steps.
    pub(super) fn normalizer(&self, mut first: Vec<Value>) -> Value {
        if !self.charsmap.is_empty() {
            first.push(
                json!({"type": "Precompiled", "precompiled_charsmap": base64(&self.charsmap)}),
            );
        }
        if self.remove_extra_whitespaces {
            first.push(json!({"type": "Strip", "strip_left": true, "strip_right": true}));
            first.push(json!({"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}));
        }
        json!({"type": "Sequence", "normalizers": first})
    }
}

impl Piece {
    fn parse(bytes: &[u8]) -> Result<Self> {
        let mut piece = Piece { text: String::new(), score: 0.0, kind: PieceKind::Normal };
        let mut message = Message(bytes);
        while let Some(field) = message.field() {
            match field? {
                (1, Wire::Bytes(text)) => {
                    piece.text = std::str::from_utf8(text)
                        .map_err(|_| Error::checkpoint_invalid("one of its pieces is not UTF-8"))?
                        .to_owned();
                }
                (2, Wire::Fixed32(score)) => piece.score = f32::from_le_bytes(score),
                (3, Wire::Number(kind)) => {
                    piece.kind = match kind {
                        1 => PieceKind::Normal,
                        2 => PieceKind::Unknown,
                        3 => PieceKind::Control,
                        4 => PieceKind::UserDefined,
                        5 => PieceKind::Unused,
                        6 => PieceKind::Byte,
                        _ => {
                            return Err(Error::checkpoint_invalid(format!(
                                "one of its pieces is of kind {kind}"
                            )));
                        }
                    }
                }
                _ => {}
            }
        }
        if piece.text.is_empty() || !piece.score.is_finite() {
            return Err(Error::checkpoint_invalid(
                "one of its pieces is empty or has no finite score",
            ));
        }
        Ok(piece)
    }
}

/// Standard base64 with padding, as `tokenizers` reads the table of replacements.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let bits = chunk.iter().fold(0u32, |bits, &byte| bits << 8 | u32::from(byte))
            << (8 * (3 - chunk.len()));
        for digit in 0..4 {
            let known = digit <= chunk.len();
            let index = (bits >> (18 - 6 * digit)) as usize & 63;
            text.push(if known { char::from(DIGITS[index]) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(fields: &[(u8, &[u8])]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (key, content) in fields {
            bytes.push(*key);
            if key & 7 == 2 {
                bytes.push(content.len() as u8);
            }
            bytes.extend_from_slice(content);
        }
        bytes
    }

    #[test]
    fn pieces_and_settings_are_read() {
        let piece = message(&[(0x0A, "▁가".as_bytes()), (0x15, &(-2.5f32).to_le_bytes())]);
        let unknown = message(&[(0x0A, b"<unk>"), (0x18, &[2])]);
        let normalizer = message(&[(0x12, &[1, 2, 3, 4]), (0x18, &[0])]);
        let bytes = message(&[
            (0x0A, &unknown),
            (0x0A, &piece),
            (0x12, &message(&[(0x18, &[1])])),
            (0x1A, &normalizer),
        ]);
        let model = Model::parse(&bytes).unwrap();
        assert_eq!(model.pieces[0].kind, PieceKind::Unknown);
        assert_eq!((model.pieces[1].text.as_str(), model.pieces[1].score), ("▁가", -2.5));
        assert_eq!(
            (model.charsmap.as_slice(), model.add_dummy_prefix),
            ([1, 2, 3, 4].as_slice(), false)
        );
        for len in 1..bytes.len() {
            Model::parse(&bytes[..len]).ok();
        }
        let bpe = message(&[(0x0A, &piece), (0x12, &message(&[(0x18, &[2])]))]);
        assert!(Model::parse(&bpe).unwrap_err().to_string().contains("BPE"));
        for bad in [&b""[..], b"\n", b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f", b"<html>"] {
            assert!(Model::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn base64_of_every_remainder() {
        for (bytes, text) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")]
        {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }
}
