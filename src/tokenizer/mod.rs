//! Text to token ids: our own Unigram, or the crate `tokenizers` where that does not suffice, behind a
//! small face that bounds the work, truncates as Hugging Face does and reports what it cut.
//!
//! Without the feature `general-tokenizers` there is only our own, and other tokenizers give
//! [`ErrorKind::TokenizerUnsupported`](crate::ErrorKind::TokenizerUnsupported).

#[cfg(feature = "general-tokenizers")]
mod charsmap;
mod compact;
#[cfg(feature = "general-tokenizers")]
mod general;
mod special;
#[cfg(test)]
mod tests;
mod unigram;
mod window;

use std::borrow::Cow;

use serde_json::Value;
use unicode_normalization_alignments::UnicodeNormalization;

use compact::Compact;
#[cfg(feature = "general-tokenizers")]
use general::General;
use special::special_tokens;
use unigram::Unigram;
use window::{
    GUARD_TOKENS, WINDOW_CHARS_PER_TOKEN, WINDOW_GROWTH, cut, each_part, has_conjoining_jamo,
    readable,
};

use crate::config::TruncationSide;
use crate::error::{Error, Result};

/// The ids of one text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoding {
    /// Token ids, special tokens included; at most the tokenizer's `max_tokens`.
    pub ids: Vec<u32>,
    /// How many tokens the text has without truncation, special tokens included. Exact for texts
    /// of up to [`Tokenizer::window_chars`] characters; of longer ones only the beginning is read,
    /// and this counts what was read: at least `max_tokens + 1`, and a lower bound of the text's
    /// count. [`Tokenizer::count_tokens`] reads everything.
    pub token_count: usize,
}

impl Encoding {
    /// Whether tokens were cut off to fit the model.
    pub fn is_truncated(&self) -> bool {
        self.ids.len() < self.token_count
    }
}

/// Turns text into token ids, prefix and special tokens included.
///
/// Text with conjoining jamo (Hangul in NFD, as macOS file names have it) is composed to NFC first,
/// so that both spellings get the same ids whatever the tokenizer's own normalizer does.
pub struct Tokenizer {
    kind: Kind,
    prefix: String,
    max_tokens: usize,
    truncation_side: TruncationSide,
    /// Special tokens before and after the text's own, such as `[CLS]` and `[SEP]`.
    leading: Vec<u32>,
    trailing: Vec<u32>,
    vocab_size: usize,
}

impl Tokenizer {
    /// Reads a `tokenizer.json`, or what [`compact`] made of one. `prefix` is put before every
    /// text; `max_tokens` is the most ids that [`encode`](Self::encode) returns. Truncation and
    /// padding that the file itself asks for are ignored.
    ///
    /// # Errors
    /// [`ErrorKind::TokenizerInvalid`](crate::ErrorKind::TokenizerInvalid) if the file is not a tokenizer of a kind that munjang runs
    /// (Unigram, WordPiece, BPE), or if its special tokens alone exceed `max_tokens`;
    /// [`ErrorKind::TokenizerUnsupported`](crate::ErrorKind::TokenizerUnsupported) if it is of such a kind, but this build leaves that out.
    pub fn from_bytes(bytes: &[u8], prefix: &str, max_tokens: usize) -> Result<Self> {
        let compact = if compact::is_compact(bytes) {
            Some(Compact::from_bytes(bytes)?)
        } else {
            Compact::from_json(bytes)
        };
        let Some(compact) = compact else {
            return Self::from_general_json(bytes, prefix, max_tokens);
        };
        let Some(unigram) = Unigram::new(&compact) else {
            return Self::from_general_json(&compact.to_json(), prefix, max_tokens);
        };
        Self::new(Kind::Unigram(unigram), &compact.json["post_processor"], prefix, max_tokens)
    }

    /// By way of `tokenizers`, whatever the kind.
    #[cfg(feature = "general-tokenizers")]
    fn from_general_json(json: &[u8], prefix: &str, max_tokens: usize) -> Result<Self> {
        let general = General::from_json(json)?;
        let post_processor = general.post_processor.clone();
        Self::new(Kind::General(Box::new(general)), &post_processor, prefix, max_tokens)
    }

    /// Tells what is a tokenizer, and would be one of a build with `tokenizers`, from what is none.
    #[cfg(not(feature = "general-tokenizers"))]
    fn from_general_json(json: &[u8], _prefix: &str, _max_tokens: usize) -> Result<Self> {
        #[derive(serde::Deserialize)]
        struct Outline {
            model: Model,
        }
        #[derive(serde::Deserialize)]
        struct Model {
            #[serde(rename = "type", default)]
            kind: String,
        }
        let outline: Outline = serde_json::from_slice(json).map_err(|source| {
            Error::tokenizer_invalid(format!(
                "cannot read the tokenizer (tokenizer.json): {source}"
            ))
        })?;
        let kind = match outline.model.kind {
            kind if kind == "WordLevel" => return Err(word_level()),
            // `tokenizers` can do without the name.
            kind if kind.is_empty() => "unnamed".to_owned(),
            kind => kind,
        };
        Err(Error::tokenizer_unsupported(format!(
            "the tokenizer ({kind}) asks for more than this build of munjang has: it runs Unigram \
                 tokenizers of the common arrangement only; use a build with the feature \
                 general-tokenizers"
        )))
    }

    fn new(kind: Kind, post_processor: &Value, prefix: &str, max_tokens: usize) -> Result<Self> {
        let (mut leading, mut trailing) = (Vec::new(), Vec::new());
        special_tokens(post_processor, &mut leading, &mut trailing)?;
        if leading.len() + trailing.len() >= max_tokens {
            return Err(Error::tokenizer_invalid(format!(
                "the tokenizer adds {} special tokens to a text, the model takes at most {max_tokens} tokens",
                leading.len() + trailing.len(),
            )));
        }
        let vocab_size = leading
            .iter()
            .chain(&trailing)
            .map(|&id| id as usize + 1)
            .fold(kind.vocab_size(), usize::max);
        Ok(Tokenizer {
            kind,
            prefix: prefix.to_owned(),
            max_tokens,
            truncation_side: TruncationSide::Right,
            leading,
            trailing,
            vocab_size,
        })
    }

    /// The same, cutting too long a text on this side.
    pub fn truncating(mut self, side: TruncationSide) -> Self {
        self.truncation_side = side;
        self
    }

    /// The ids of `text`: prefix, text and special tokens, cut to `max_tokens` with the special
    /// tokens kept. Cut on the right, time and memory are bounded by `max_tokens`, not by the text,
    /// save for texts of almost no tokens (a million blanks), which are read up to 2¹⁹ characters; cut on the left,
    /// every text is.
    ///
    /// # Errors
    /// [`ErrorKind::TokenizerInvalid`](crate::ErrorKind::TokenizerInvalid) if the tokenizer has no way to encode it.
    pub fn encode(&self, text: &str) -> Result<Encoding> {
        let room = self.max_tokens - self.leading.len() - self.trailing.len();
        let (tokens, count) = match self.truncation_side {
            TruncationSide::Left => self.last_tokens(text, room)?,
            TruncationSide::Right => {
                let read = readable(text);
                let mut tokens = self.first_tokens(read, room)?;
                // What was not read has a token at least.
                let count = tokens.len() + usize::from(read.len() < text.len());
                tokens.truncate(room);
                (tokens, count)
            }
        };
        let ids = [self.leading.as_slice(), &tokens, &self.trailing].concat();
        Ok(Encoding { ids, token_count: self.leading.len() + count + self.trailing.len() })
    }

    /// The tokens of the beginning of `text`, [`GUARD_TOKENS`] more than `room` if there are as many.
    fn first_tokens(&self, text: &str, room: usize) -> Result<Vec<u32>> {
        let compose = has_conjoining_jamo(text);
        let mut chars = self.window_chars();
        loop {
            let window = cut(text, chars);
            let tokens = self.tokens(&self.prefix, window, compose)?;
            if window.len() == text.len() || tokens.len() >= room + GUARD_TOKENS {
                return Ok(tokens);
            }
            chars = chars.saturating_mul(WINDOW_GROWTH);
        }
    }

    /// The last `room` tokens of `text`, and how many it has.
    fn last_tokens(&self, text: &str, room: usize) -> Result<(Vec<u32>, usize)> {
        let (mut tokens, mut count) = (Vec::new(), 0);
        self.each_part(text, |part| {
            count += part.len();
            tokens.extend_from_slice(part);
            tokens.drain(..tokens.len().saturating_sub(room));
        })?;
        Ok((tokens, count))
    }

    /// Tokens of the whole of `text`, prefix and special tokens included, whatever the model can
    /// take: the length of the ids without truncation. Long texts are read in parts, so memory stays
    /// bounded where words end (see [`window`]).
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    pub fn count_tokens(&self, text: &str) -> Result<usize> {
        let mut count = self.leading.len() + self.trailing.len();
        self.each_part(text, |part| count += part.len())?;
        Ok(count)
    }

    /// Gives the tokens of prefix and text to `sink`, part after part.
    fn each_part(&self, text: &str, sink: impl FnMut(&[u32])) -> Result<()> {
        let input = self.input(&self.prefix, text, has_conjoining_jamo(text));
        each_part(&input, |part| self.tokens_of(Cow::Borrowed(part)), sink)
    }

    /// Special tokens before and after a text.
    #[cfg(feature = "train")]
    pub(crate) fn around(&self) -> (&[u32], &[u32]) {
        (&self.leading, &self.trailing)
    }

    /// One more than the largest id that can come out.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// The most ids that [`encode`](Self::encode) returns.
    pub fn max_tokens(&self) -> usize {
        self.max_tokens
    }

    /// Texts of up to this many characters are always read whole.
    pub fn window_chars(&self) -> usize {
        (self.max_tokens + GUARD_TOKENS) * WINDOW_CHARS_PER_TOKEN
    }

    /// Checks that every id that can come out has a row in a word embedding of `rows` rows.
    ///
    /// # Errors
    /// [`ErrorKind::TokenizerInvalid`](crate::ErrorKind::TokenizerInvalid) naming both sizes.
    pub fn check_vocab_size(&self, rows: usize) -> Result<()> {
        if self.vocab_size > rows {
            return Err(Error::tokenizer_invalid(format!(
                "the tokenizer has ids up to {}, the model's word embedding only {rows} rows (vocab_size): \
                 they do not belong together",
                self.vocab_size - 1
            )));
        }
        Ok(())
    }

    /// Ids of `prefix` and `text` without special tokens.
    fn tokens(&self, prefix: &str, text: &str, compose: bool) -> Result<Vec<u32>> {
        self.tokens_of(self.input(prefix, text, compose))
    }

    /// What is tokenized.
    fn input<'a>(&self, prefix: &str, text: &'a str, compose: bool) -> Cow<'a, str> {
        let mut input = Cow::Borrowed(text);
        if !prefix.is_empty() {
            input = Cow::Owned(format!("{prefix}{text}"));
        }
        if compose {
            input = Cow::Owned(input.nfc().map(|(c, _)| c).collect());
        }
        input
    }

    fn tokens_of(&self, input: Cow<'_, str>) -> Result<Vec<u32>> {
        match &self.kind {
            Kind::Unigram(unigram) => unigram.encode(&input),
            #[cfg(feature = "general-tokenizers")]
            Kind::General(general) => general.encode(input),
        }
    }
}

/// The form of a tokenizer that is stored in a model file: smaller and quicker to load if it is a
/// Unigram tokenizer, otherwise `json` as it is.
pub fn compact(json: &[u8]) -> Cow<'_, [u8]> {
    match Compact::from_json(json) {
        Some(compact) => Cow::Owned(compact.to_bytes()),
        None => Cow::Borrowed(json),
    }
}

/// Who turns text into ids.
enum Kind {
    #[cfg(feature = "general-tokenizers")]
    General(Box<General>),
    Unigram(Unigram),
}

impl Kind {
    /// One more than the largest id of the vocabulary and the added tokens.
    fn vocab_size(&self) -> usize {
        match self {
            Kind::Unigram(unigram) => unigram.vocab_size(),
            #[cfg(feature = "general-tokenizers")]
            Kind::General(general) => general.vocab_size(),
        }
    }
}

fn word_level() -> Error {
    Error::tokenizer_invalid(
        "the tokenizer's model is WordLevel; expected Unigram, WordPiece or BPE",
    )
}
