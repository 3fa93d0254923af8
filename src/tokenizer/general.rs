//! A tokenizer of any kind that munjang runs, by the crate [`tokenizers`].

use std::borrow::Cow;

use tokenizers::models::ModelWrapper;

use super::word_level;
use crate::error::{Error, Result};

/// A tokenizer of `tokenizers`, its own truncation and padding switched off.
pub(super) struct General(tokenizers::Tokenizer);

impl General {
    pub(super) fn from_json(json: &[u8]) -> Result<Self> {
        let mut inner = tokenizers::Tokenizer::from_bytes(json).map_err(|source| {
            Error::tokenizer_invalid(format!(
                "cannot read the tokenizer (tokenizer.json): {source}"
            ))
        })?;
        if matches!(inner.get_model(), ModelWrapper::WordLevel(_)) {
            return Err(word_level());
        }
        inner.with_truncation(None).map_err(|source| {
            Error::tokenizer_invalid(format!(
                "cannot switch off the tokenizer's own truncation: {source}"
            ))
        })?;
        inner.with_padding(None);
        Ok(General(inner))
    }

    /// One more than the largest id of the vocabulary and the added tokens.
    pub(super) fn vocab_size(&self) -> usize {
        // Ids may have holes, so their number says nothing about the largest.
        let model = self.0.get_vocab(false).into_values();
        let added = self.0.get_added_tokens_decoder().into_keys();
        model.chain(added).max().map_or(0, |id| id as usize + 1)
    }

    /// The ids of `text`, without special tokens around it.
    pub(super) fn encode(&self, text: Cow<'_, str>) -> Result<Vec<u32>> {
        let encoding = self.0.encode_fast(text, false).map_err(|source| {
            Error::tokenizer_invalid(format!("cannot tokenize a text: {source}"))
        })?;
        Ok(encoding.get_ids().to_vec())
    }
}
