//! Unigram tokenization as sentencepiece and `tokenizers` define it, for the common arrangement of
//! normalizer and word splitting.
//!
//! `tokenizers` keeps the origin of every character, copies every piece and holds a hash map for
//! every node of its tree. This keeps ids only: it loads in a few milliseconds, takes a tenth of
//! the memory and is several times as fast. Ids are the same (tested against `tokenizers`); what
//! it does not know how to do (see [`Unigram::new`]) is left to `tokenizers`.

mod normalize;
mod tree;

use serde_json::Value;

use super::compact::Compact;
use normalize::{Step, normalize, read_normalizer};
use tree::{NO_PIECE, Tree};

use crate::error::{Error, Result};

/// Stands for a blank in pieces, and begins every word.
const WORD_START: char = '▁';
/// What an unknown character costs below the lowest score.
const UNKNOWN_PENALTY: f64 = 10.0;
/// Nothing leads to this place of a word.
const UNREACHED: u32 = u32::MAX;
/// A Unigram tokenizer without its special tokens' frame.
pub(super) struct Unigram {
    steps: Vec<Step>,
    added: Added,
    tree: Tree,
    scores: Vec<f64>,
    unknown_score: f64,
    unknown_id: u32,
}

/// Tokens found in the raw text before anything else, such as `<s>`. They are pieces as well, so the
/// tree finds them, however many there are.
struct Added {
    /// Whether one begins with the byte.
    begins: [bool; 256],
    /// Whether the piece is one, by id.
    is_added: Vec<bool>,
}

impl Unigram {
    /// `None` if the tokenizer asks for more than: normalizers Replace (of a text, of `[\x{…}…]` or of
    /// ` {2,}`), NFC, NFKC and Strip, pre-tokenizer Metaspace (`always`, splitting), plain added
    /// tokens that are in the vocabulary, no byte fallback.
    pub(super) fn new(compact: &Compact) -> Option<Self> {
        let json = &compact.json;
        let model = &json["model"];
        if model["byte_fallback"] == true {
            return None;
        }
        let unknown_id = u32::try_from(model["unk_id"].as_u64()?).ok()?;
        if unknown_id as usize >= compact.pieces.len() {
            return None;
        }
        let mut steps = Vec::new();
        read_normalizer(&json["normalizer"], &mut steps)?;
        if !is_metaspace(&json["pre_tokenizer"]) {
            return None;
        }
        let tree = Tree::new(&compact.pieces)?;
        let mut added = Added { begins: [false; 256], is_added: vec![false; compact.pieces.len()] };
        for token in json["added_tokens"].as_array()? {
            let plain = ["single_word", "lstrip", "rstrip", "normalized"]
                .iter()
                .all(|&flag| token[flag] == false);
            let content = token["content"].as_str()?;
            let id = u32::try_from(token["id"].as_u64()?).ok()?;
            if !plain || content.is_empty() || tree.find(content) != Some(id) {
                return None;
            }
            added.begins[content.as_bytes()[0] as usize] = true;
            added.is_added[id as usize] = true;
        }
        let mut scores = vec![0.0; compact.pieces.len()];
        for piece in compact.pieces.iter() {
            scores[piece.id as usize] = piece.score;
        }
        let lowest = scores.iter().copied().fold(f64::INFINITY, f64::min);
        let unknown_score = lowest - UNKNOWN_PENALTY;
        if unknown_score >= 0.0 {
            // Two unknown characters could then beat a piece of both.
            return None;
        }
        Some(Unigram { steps, added, tree, scores, unknown_score, unknown_id })
    }

    pub(super) fn vocab_size(&self) -> usize {
        self.scores.len()
    }

    /// The ids of `text`, without special tokens around it.
    pub(super) fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let mut ids = Vec::with_capacity(text.len() / 4 + 4);
        let mut lattice = Vec::new();
        let mut rest = text;
        while let Some((at, content, id)) = self.next_added(rest) {
            self.encode_plain(&rest[..at], &mut lattice, &mut ids)?;
            ids.push(id);
            rest = &rest[at + content..];
        }
        self.encode_plain(rest, &mut lattice, &mut ids)?;
        Ok(ids)
    }

    /// The first added token in `text`, the longest if several begin there: place, length, id.
    fn next_added(&self, text: &str) -> Option<(usize, usize, u32)> {
        let bytes = text.as_bytes();
        let mut from = 0;
        while let Some(at) = bytes[from..].iter().position(|&byte| self.added.begins[byte as usize])
        {
            let at = from + at;
            // Where a character may begin, one does: its first byte is that of no other place.
            if let Some((len, id)) = self.added_at(&text[at..]) {
                return Some((at, len, id));
            }
            from = at + 1;
        }
        None
    }

    /// The longest added token that `text` begins with: length, id.
    fn added_at(&self, text: &str) -> Option<(usize, u32)> {
        let mut longest = None;
        let mut node = Tree::ROOT;
        for (at, c) in text.char_indices() {
            let Some(child) = self.tree.child(node, c) else { break };
            node = child;
            let id = self.tree.pieces[node];
            if id != NO_PIECE && self.added.is_added[id as usize] {
                longest = Some((at + c.len_utf8(), id));
            }
        }
        longest
    }

    fn encode_plain(&self, text: &str, lattice: &mut Vec<Best>, ids: &mut Vec<u32>) -> Result<()> {
        let normalized = normalize(&self.steps, text);
        if normalized.is_empty() {
            return Ok(());
        }
        let mut words = String::with_capacity(normalized.len() + normalized.len() / 4 + 8);
        if !normalized.starts_with([' ', WORD_START]) {
            words.push(WORD_START);
        }
        words.extend(normalized.chars().map(|c| if c == ' ' { WORD_START } else { c }));
        let mut rest = words.as_str();
        while !rest.is_empty() {
            // A word begins with its mark; the next mark begins the next word.
            let after_mark = WORD_START.len_utf8();
            let len = match rest[after_mark..].find(WORD_START) {
                Some(len) => after_mark + len,
                None => rest.len(),
            };
            self.encode_word(&rest[..len], lattice, ids)?;
            rest = &rest[len..];
        }
        Ok(())
    }

    /// The pieces of `word` with the highest sum of scores (Viterbi). The order of comparison and
    /// of the additions is that of `tokenizers`, so that ties and rounding fall the same way.
    fn encode_word(&self, word: &str, lattice: &mut Vec<Best>, ids: &mut Vec<u32>) -> Result<()> {
        if u32::try_from(word.len()).is_err() {
            return Err(Error::tokenizer_invalid("a word of 4 GiB"));
        }
        let word_at = ids.len();
        // Places from `base` on; there all that lies before is decided and written to `ids`.
        let mut base = 0;
        lattice.clear();
        lattice.push(Best::unreached(0.0));
        let mut start = 0;
        while start < word.len() {
            let score_here = lattice[start - base].score;
            if start > base && start - base + 1 == lattice.len() {
                // No piece spans this place, so every path comes by here. Deciding now keeps the
                // lattice short in endless words.
                self.trace(lattice, word_at, ids);
                lattice.clear();
                lattice.push(Best::unreached(score_here));
                base = start;
            }
            let mut reach = |end: usize, score: f64, id: u32| {
                if end - base >= lattice.len() {
                    lattice.resize(end - base + 1, Best::unreached(0.0));
                }
                let best = &mut lattice[end - base];
                if best.start == UNREACHED || score > best.score {
                    *best = Best { score, start: (start - base) as u32, id };
                }
            };
            let mut first_char = 0;
            let mut known_char = false;
            let mut node = Tree::ROOT;
            for (at, c) in word[start..].char_indices() {
                let end = start + at + c.len_utf8();
                if at == 0 {
                    first_char = end;
                }
                let Some(child) = self.tree.child(node, c) else { break };
                node = child;
                let id = self.tree.pieces[node];
                if id != NO_PIECE {
                    reach(end, self.scores[id as usize] + score_here, id);
                    known_char |= at == 0;
                }
            }
            if !known_char {
                reach(first_char, self.unknown_score + score_here, self.unknown_id);
            }
            start = first_char;
        }
        self.trace(lattice, word_at, ids);
        Ok(())
    }

    /// Writes the pieces of the best path through all of `lattice`. Neighbouring unknown characters
    /// of a word, which began at `word_at` in `ids`, become one token.
    fn trace(&self, lattice: &[Best], word_at: usize, ids: &mut Vec<u32>) {
        let part_at = ids.len();
        let mut end = lattice.len() - 1;
        while end > 0 {
            let Best { start, id, .. } = lattice[end];
            if id != self.unknown_id || ids.len() == part_at || ids[ids.len() - 1] != id {
                ids.push(id);
            }
            end = start as usize;
        }
        ids[part_at..].reverse();
        let both_unknown = |pair: &[u32]| pair == [self.unknown_id, self.unknown_id];
        if part_at > word_at && ids.get(part_at - 1..=part_at).is_some_and(both_unknown) {
            ids.remove(part_at);
        }
    }
}

/// The best way to reach a place in a word.
#[derive(Clone, Copy)]
struct Best {
    score: f64,
    /// Where its last piece begins, or [`UNREACHED`].
    start: u32,
    id: u32,
}

impl Best {
    fn unreached(score: f64) -> Self {
        Best { score, start: UNREACHED, id: 0 }
    }
}

fn is_metaspace(json: &Value) -> bool {
    // Older files say add_prefix_space; without `split` they split.
    json["type"] == "Metaspace"
        && json["replacement"] == "▁"
        && json.get("split").is_none_or(|split| split == true)
        && json.get("add_prefix_space").is_none_or(|add| add == true)
        && json.get("prepend_scheme").is_none_or(|scheme| scheme == "always")
}
