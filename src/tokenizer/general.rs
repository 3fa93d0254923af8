//! A tokenizer of any kind that munjang runs, by the crate [`tokenizers`].

use std::borrow::Cow;

use serde_json::Value;
use tokenizers::models::ModelWrapper;

use super::{charsmap, word_level};
use crate::error::{Error, Result};

/// A tokenizer of `tokenizers`, its own truncation and padding switched off.
pub(super) struct General {
    inner: tokenizers::Tokenizer,
    /// What the file says is put around a text.
    pub(super) post_processor: Value,
}

/// Everything of a `tokenizer.json` but its model, which is most of it and which `tokenizers` reads
/// without panics. Read first: at the rest it panics where that is not JSON to the letter.
#[derive(serde::Deserialize)]
struct Frame {
    #[serde(default)]
    normalizer: Value,
    #[serde(default)]
    post_processor: Value,
    #[serde(default, rename = "pre_tokenizer")]
    _pre_tokenizer: Value,
    #[serde(default, rename = "decoder")]
    _decoder: Value,
    #[serde(default, rename = "added_tokens")]
    _added_tokens: Value,
    #[serde(default, rename = "truncation")]
    _truncation: Value,
    #[serde(default, rename = "padding")]
    _padding: Value,
}

impl General {
    pub(super) fn from_json(json: &[u8]) -> Result<Self> {
        let cannot_read = "cannot read the tokenizer (tokenizer.json)";
        let frame: Frame = serde_json::from_slice(json)
            .map_err(|source| Error::tokenizer_invalid(cannot_read).with_source(source))?;
        charsmap::check(&frame.normalizer)?;
        guarded(|| {
            let mut inner = tokenizers::Tokenizer::from_bytes(json)
                .map_err(|source| Error::tokenizer_invalid(cannot_read).with_source(source))?;
            if matches!(inner.get_model(), ModelWrapper::WordLevel(_)) {
                return Err(word_level());
            }
            inner.with_truncation(None).map_err(|source| {
                Error::tokenizer_invalid("cannot switch off the tokenizer's own truncation")
                    .with_source(source)
            })?;
            inner.with_padding(None);
            Ok(General { inner, post_processor: frame.post_processor })
        })
    }

    /// One more than the largest id of the vocabulary and the added tokens.
    pub(super) fn vocab_size(&self) -> usize {
        // Ids may have holes, so their number says nothing about the largest.
        let model = self.inner.get_vocab(false).into_values();
        let added = self.inner.get_added_tokens_decoder().into_keys();
        model.chain(added).max().map_or(0, |id| id as usize + 1)
    }

    /// The ids of `text`, without special tokens around it.
    pub(super) fn encode(&self, text: Cow<'_, str>) -> Result<Vec<u32>> {
        guarded(|| {
            let encoding = self.inner.encode_fast(text, false).map_err(|source| {
                Error::tokenizer_invalid("cannot tokenize a text").with_source(source)
            })?;
            Ok(encoding.get_ids().to_vec())
        })
    }
}

/// Makes a panic of `tokenizers` an error. What makes it panic is checked before as far as it is
/// known; this is for the rest. In WebAssembly a panic ends the instance, and the page is told so.
fn guarded<R>(run: impl FnOnce() -> Result<R>) -> Result<R> {
    // Nothing of ours is changed within, and a tokenizer only has caches, which stay usable.
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)) {
        Ok(result) => result,
        Err(panic) => {
            let said = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("no reason given");
            Err(Error::tokenizer_invalid(format!(
                "the tokenizer (tokenizer.json) asks the crate `tokenizers` for what makes it panic: {said}"
            )))
        }
    }
}
