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
//! Numbers are little-endian. Pieces lie in rising byte order, which is what the search tree is
//! built from in one pass.

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

/// One piece of a Unigram vocabulary.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Piece {
    pub(super) text: String,
    pub(super) score: f64,
    pub(super) id: u32,
}

/// A compact tokenizer, taken apart.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Compact {
    /// `tokenizer.json` with an empty vocabulary.
    pub(super) json: Value,
    /// In rising byte order, each text once, the ids 0 to n − 1 in some order.
    pub(super) pieces: Vec<Piece>,
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
        let mut pieces = Vec::with_capacity(vocab.len());
        for (id, (text, score)) in vocab.into_iter().enumerate() {
            if text.is_empty() || text.len() > 255 || !score.is_finite() {
                return None;
            }
            // sentencepiece's scores are f32; JSON spells them as f64 and is read to the last bit
            // but one.
            let rounded = f64::from(score as f32);
            let single = (rounded - score).abs() <= 1e-14 * score.abs();
            pieces.push(Piece { text, score: if single { rounded } else { score }, id: id as u32 });
        }
        pieces.sort_unstable_by(|a, b| a.text.cmp(&b.text));
        let twice = pieces.windows(2).any(|pair| pair[0].text == pair[1].text);
        (!twice).then_some(Compact { json, pieces })
    }

    /// The `tokenizer.json` that this was taken from, up to white space.
    pub(super) fn to_json(&self) -> Vec<u8> {
        let mut vocab = vec![Value::Null; self.pieces.len()];
        for piece in &self.pieces {
            vocab[piece.id as usize] = serde_json::json!([piece.text, piece.score]);
        }
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
        let mut before: &[u8] = b"";
        for piece in &self.pieces {
            let text = piece.text.as_bytes();
            let shared = before.iter().zip(text).take_while(|(a, b)| a == b).count();
            bytes.extend([shared as u8, (text.len() - shared) as u8]);
            bytes.extend(&text[shared..]);
            before = text;
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
        let mut pieces: Vec<Piece> = Vec::with_capacity(count);
        let mut seen = vec![false; count];
        let mut text: Vec<u8> = Vec::new();
        for (score, &id) in scores.zip(ids) {
            let &[shared, len] = take(&mut rest, 2).ok_or_else(early)? else { return Err(early()) };
            let suffix = take(&mut rest, len as usize).ok_or_else(early)?;
            if shared as usize > text.len() {
                return Err(damaged("a piece shares more than the piece before has"));
            }
            text.truncate(shared as usize);
            text.extend(suffix);
            let piece = Piece {
                text: std::str::from_utf8(&text)
                    .map_err(|_| damaged("a piece is not UTF-8"))?
                    .to_owned(),
                score,
                id: u32::from_le_bytes(id),
            };
            if pieces.last().is_some_and(|before| before.text >= piece.text) || text.is_empty() {
                return Err(damaged("its pieces are not in rising order"));
            }
            if !piece.score.is_finite() {
                return Err(damaged(&format!("a score is {}", piece.score)));
            }
            match seen.get_mut(piece.id as usize) {
                Some(seen) if !*seen => *seen = true,
                _ => return Err(damaged(&format!("id {} twice or too large", piece.id))),
            }
            pieces.push(piece);
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
