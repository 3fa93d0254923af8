//! Text to token ids: [`tokenizers`] behind a small face.

use crate::error::{Error, ErrorKind, Result};

/// The ids of one text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoding {
    /// Token ids, special tokens included; at most the tokenizer's `max_tokens`.
    pub ids: Vec<u32>,
    /// How many tokens the text has without truncation, special tokens included.
    pub token_count: usize,
}

impl Encoding {
    /// Whether tokens were cut off to fit the model.
    pub fn is_truncated(&self) -> bool {
        self.ids.len() < self.token_count
    }
}

/// Turns text into token ids, prefix and special tokens included.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    prefix: String,
    max_tokens: usize,
}

impl Tokenizer {
    /// Reads a `tokenizer.json`. `prefix` is put before every text; `max_tokens` is the most ids
    /// that [`encode`](Self::encode) returns.
    ///
    /// # Errors
    /// [`ErrorKind::TokenizerInvalid`] if the JSON is not a tokenizer of this library's kinds.
    pub fn from_json(json: &[u8], prefix: &str, max_tokens: usize) -> Result<Self> {
        let inner = tokenizers::Tokenizer::from_bytes(json).map_err(|source| {
            Error::new(ErrorKind::TokenizerInvalid, format!("cannot read the tokenizer: {source}"))
        })?;
        Ok(Tokenizer { inner, prefix: prefix.to_owned(), max_tokens })
    }

    /// The ids of `text`.
    ///
    /// # Errors
    /// [`ErrorKind::TokenizerInvalid`] if the tokenizer has no way to encode it.
    pub fn encode(&self, text: &str) -> Result<Encoding> {
        let text = format!("{}{text}", self.prefix);
        let encoding = self.inner.encode_fast(text, true).map_err(|source| {
            Error::new(ErrorKind::TokenizerInvalid, format!("cannot tokenize: {source}"))
        })?;
        let ids = encoding.get_ids().to_vec();
        Ok(Encoding { token_count: ids.len(), ids })
    }

    /// One more than the largest id that can come out.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }
}
