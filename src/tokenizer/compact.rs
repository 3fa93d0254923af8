//! A Unigram tokenizer in a form that loads in a fraction of the time and size of `tokenizer.json`.
//!
//! ```text
//! magic                8 bytes
//! length of the JSON   u32
//! JSON                 tokenizer.json with an empty vocabulary
//! n, number of pieces  u32
//! scores               n × f32, or n × f64 in version 2 ┐
//! ids                  n × u32                          │ in the pieces' byte order
//! pieces               n × { bytes shared with the piece before: u8, length of the rest: u8, rest }
//! ```
//! Numbers are little-endian. Pieces lie in rising byte order, and each shares all that it can with
//! the piece before, so that the search tree is built from them in one pass over the stored bytes.

use serde_json::Value;

use crate::error::{Error, Result};

/// Begins every compact tokenizer.
const MAGIC: &[u8; 7] = b"MJTOK\0\0";
/// Follows [`MAGIC`]: scores are f32, as sentencepiece trains them.
const SINGLE: u8 = 1;
/// Follows [`MAGIC`]: scores are f64, as `tokenizers` trains them.
const DOUBLE: u8 = 2;
/// More pieces than any vocabulary that munjang takes.
const MAX_PIECES: usize = crate::config::limits::VOCAB_SIZE;

/// Bytes of all pieces of a vocabulary, written out, that are taken: sixteen for each piece that
/// there may be. A vocabulary of sentencepiece has ten times less; without a bound a file of
/// megabytes could ask for gigabytes.
const MAX_TEXT: usize = 16 * MAX_PIECES;

/// One piece of a Unigram vocabulary, but for its text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Piece {
    /// Bytes that its text begins with as the piece before does.
    shared: u8,
    /// Bytes of its own after those.
    own: u8,
    pub(super) score: f64,
    pub(super) id: u32,
}

/// The pieces of a vocabulary in rising byte order, each text once, the ids 0 to n − 1 in some
/// order. They are kept as they are stored: what pieces share is not written out.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Pieces {
    list: Vec<Piece>,
    /// Every piece's own bytes, one after another.
    own: Vec<u8>,
    /// The last text, and the bytes of all.
    last: Vec<u8>,
    text_len: usize,
}

impl Pieces {
    /// Appends a piece; what it says is wrong, otherwise.
    fn push(
        &mut self,
        shared: u8,
        own: &[u8],
        score: f64,
        id: u32,
    ) -> std::result::Result<(), &'static str> {
        let (common, before) = (shared as usize, self.last.len());
        if common > before {
            return Err("a piece shares more than the piece before has");
        }
        // Where they part, the piece before ends or has the smaller byte.
        if own.is_empty() || (common < before && self.last[common] >= own[0]) {
            return Err("its pieces are not in rising order, or share less than they could");
        }
        // Only the character that they part in can be cut.
        let whole = char_boundary(&self.last, common);
        self.last.truncate(common);
        self.last.extend(own);
        if std::str::from_utf8(&self.last[whole..]).is_err() {
            return Err("a piece is not UTF-8");
        }
        self.text_len += self.last.len();
        if self.text_len > MAX_TEXT {
            return Err("its pieces are longer than those of any vocabulary");
        }
        self.list.push(Piece { shared, own: own.len() as u8, score, id });
        self.own.extend(own);
        Ok(())
    }

    /// The number of pieces.
    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    /// The pieces without their texts.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Piece> {
        self.list.iter()
    }

    /// Calls `visit` with each piece, the bytes of whole characters that its text begins with as the
    /// text before does, and the rest of its text. This takes time by what is stored, not by what
    /// the texts are written out.
    pub(super) fn walk(&self, mut visit: impl FnMut(&Piece, usize, &str)) {
        let mut text: Vec<u8> = Vec::new();
        let mut own = self.own.as_slice();
        for piece in &self.list {
            let whole = char_boundary(&text, piece.shared as usize);
            text.truncate(piece.shared as usize);
            let (head, tail) = own.split_at(piece.own as usize);
            text.extend(head);
            own = tail;
            let rest = std::str::from_utf8(&text[whole..]).expect("checked by `push`");
            visit(piece, whole, rest);
        }
    }
}

/// The last place at or before `at` where a character of `text` begins or the text ends.
fn char_boundary(text: &[u8], mut at: usize) -> usize {
    while at < text.len() && at > 0 && text[at] & 0xC0 == 0x80 {
        at -= 1;
    }
    at
}

/// A compact tokenizer, taken apart.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Compact {
    /// `tokenizer.json` with an empty vocabulary.
    pub(super) json: Value,
    pub(super) pieces: Pieces,
}

/// Whether `bytes` are meant to be a compact tokenizer.
pub(super) fn is_compact(bytes: &[u8]) -> bool {
    bytes.starts_with(&MAGIC[..5])
}

impl Compact {
    /// Takes a `tokenizer.json` apart; `None` if it cannot be written in the compact form without
    /// loss (another model, a score that is not finite, a piece twice, empty or of more than 255 bytes).
    pub(super) fn from_json(json: &[u8]) -> Option<Self> {
        #[derive(serde::Deserialize)]
        struct Outline<'a> {
            #[serde(borrow)]
            model: Model<'a>,
        }
        #[derive(serde::Deserialize)]
        struct Model<'a> {
            #[serde(rename = "type", borrow)]
            kind: std::borrow::Cow<'a, str>,
        }
        // A glance before the vocabulary is read: most of a tokenizer.json is vocabulary.
        let outline: Outline = serde_json::from_slice(json).ok()?;
        if outline.model.kind != "Unigram" {
            return None;
        }
        let mut json: Value = serde_json::from_slice(json).ok()?;
        let vocab = json["model"]["vocab"].take();
        json["model"]["vocab"] = Value::Array(Vec::new());
        let vocab: Vec<(String, f64)> = serde_json::from_value(vocab).ok()?;
        if vocab.len() > MAX_PIECES {
            return None;
        }
        let mut sorted = Vec::with_capacity(vocab.len());
        for (id, (text, score)) in vocab.into_iter().enumerate() {
            if text.is_empty() || text.len() > 255 || !score.is_finite() {
                return None;
            }
            // sentencepiece's scores are f32; JSON spells them as f64 and is read to the last bit
            // but one.
            let rounded = f64::from(score as f32);
            let single = (rounded - score).abs() <= 1e-14 * score.abs();
            sorted.push((text, if single { rounded } else { score }, id as u32));
        }
        sorted.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        let mut pieces = Pieces::default();
        for (text, score, id) in &sorted {
            let text = text.as_bytes();
            let shared = pieces.last.iter().zip(text).take_while(|(a, b)| a == b).count();
            // Fails where a text comes twice.
            pieces.push(shared as u8, &text[shared..], *score, *id).ok()?;
        }
        Some(Compact { json, pieces })
    }

    /// The `tokenizer.json` that this was taken from, up to white space.
    pub(super) fn to_json(&self) -> Vec<u8> {
        let mut vocab = vec![Value::Null; self.pieces.len()];
        let mut text = String::new();
        self.pieces.walk(|piece, known, rest| {
            text.truncate(known);
            text.push_str(rest);
            vocab[piece.id as usize] = serde_json::json!([text, piece.score]);
        });
        let mut json = self.json.clone();
        json["model"]["vocab"] = Value::Array(vocab);
        json.to_string().into_bytes()
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let json = self.json.to_string();
        let single = self.pieces.iter().all(|piece| f64::from(piece.score as f32) == piece.score);
        let mut bytes = MAGIC.to_vec();
        bytes.push(if single { SINGLE } else { DOUBLE });
        bytes.extend((json.len() as u32).to_le_bytes());
        bytes.extend(json.bytes());
        bytes.extend((self.pieces.len() as u32).to_le_bytes());
        if single {
            bytes.extend(self.pieces.iter().flat_map(|piece| (piece.score as f32).to_le_bytes()));
        } else {
            bytes.extend(self.pieces.iter().flat_map(|piece| piece.score.to_le_bytes()));
        }
        bytes.extend(self.pieces.iter().flat_map(|piece| piece.id.to_le_bytes()));
        let mut own = self.pieces.own.as_slice();
        for piece in self.pieces.iter() {
            let (head, tail) = own.split_at(piece.own as usize);
            bytes.extend([piece.shared, piece.own]);
            bytes.extend(head);
            own = tail;
        }
        bytes
    }

    /// Reads what [`to_bytes`](Self::to_bytes) wrote, trusting nothing.
    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let damaged = |what: &str| {
            Error::tokenizer_invalid(format!("the compact tokenizer is damaged: {what}"))
        };
        let newer =
            || damaged("unknown version; the model file is newer than this build of munjang");
        let mut rest = bytes.strip_prefix(MAGIC).ok_or_else(newer)?;
        let score_len = match take(&mut rest, 1) {
            Some(&[SINGLE]) => 4,
            Some(&[DOUBLE]) => 8,
            _ => return Err(newer()),
        };
        let json_len = take_u32(&mut rest).ok_or_else(|| damaged("it ends early"))? as usize;
        let json = take(&mut rest, json_len).ok_or_else(|| damaged("it ends in its JSON"))?;
        let json: Value = serde_json::from_slice(json)
            .map_err(|source| damaged("its JSON").with_source(source))?;
        let count = take_u32(&mut rest).ok_or_else(|| damaged("it ends early"))? as usize;
        // Ten bytes a piece are certain, so this also bounds what is allocated below.
        if count > MAX_PIECES || count * 10 > rest.len() {
            return Err(damaged(&format!("{count} pieces in {} bytes", rest.len())));
        }
        let early = || damaged("it ends in its vocabulary");
        let scores = take(&mut rest, score_len * count).ok_or_else(early)?;
        let scores = scores.chunks_exact(score_len).map(|bytes| match *bytes {
            [a, b, c, d] => f64::from(f32::from_le_bytes([a, b, c, d])),
            _ => f64::from_le_bytes(bytes.try_into().unwrap_or_default()),
        });
        let ids = take(&mut rest, 4 * count).ok_or_else(early)?.as_chunks().0;
        let mut pieces = Pieces { list: Vec::with_capacity(count), ..Pieces::default() };
        let mut seen = vec![false; count];
        for (score, &id) in scores.zip(ids) {
            let &[shared, len] = take(&mut rest, 2).ok_or_else(early)? else { return Err(early()) };
            let own = take(&mut rest, len as usize).ok_or_else(early)?;
            let id = u32::from_le_bytes(id);
            if !score.is_finite() {
                return Err(damaged(&format!("a score is {score}")));
            }
            match seen.get_mut(id as usize) {
                Some(seen) if !*seen => *seen = true,
                _ => return Err(damaged(&format!("id {id} twice or too large"))),
            }
            pieces.push(shared, own, score, id).map_err(damaged)?;
        }
        if !rest.is_empty() {
            return Err(damaged(&format!("{} bytes follow its vocabulary", rest.len())));
        }
        if !json["model"].is_object() {
            return Err(damaged("its JSON has no model"));
        }
        Ok(Compact { json, pieces })
    }
}

fn take<'a>(rest: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (head, tail) = rest.split_at_checked(len)?;
    *rest = tail;
    Some(head)
}

fn take_u32(rest: &mut &[u8]) -> Option<u32> {
    take(rest, 4)?.try_into().ok().map(u32::from_le_bytes)
}
