//! Batches of token ids.

use crate::error::{Error, ErrorKind, Result};

/// Sentences as token ids, one after another without padding; the order is kept.
///
/// One large batch is faster than several small ones: put both sides of all pairs into one and cut
/// [`pooled`](super::ForwardOutput::pooled) with `narrow`. Lengths may be mixed freely on the CPU;
/// other devices pad to the longest, so batches of similar lengths are better there.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenBatch {
    ids: Vec<u32>,
    offsets: Vec<usize>,
}

impl TokenBatch {
    /// A batch of `sequences`, each with at least one token.
    ///
    /// # Errors
    /// `input_invalid` for an empty batch or an empty sequence, naming its index.
    pub fn new<S: AsRef<[u32]>>(sequences: &[S]) -> Result<Self> {
        if sequences.is_empty() {
            return Err(Error::new(ErrorKind::InputInvalid, "a batch needs at least one sentence"));
        }
        let mut batch = TokenBatch { ids: Vec::new(), offsets: vec![0] };
        for (index, sequence) in sequences.iter().enumerate() {
            if sequence.as_ref().is_empty() {
                return Err(Error::new(
                    ErrorKind::InputInvalid,
                    format!(
                        "sentence {index} of the batch has no tokens; give it its special tokens"
                    ),
                ));
            }
            batch.ids.extend_from_slice(sequence.as_ref());
            batch.offsets.push(batch.ids.len());
        }
        Ok(batch)
    }

    /// All ids, sentence after sentence.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// `num_sentences + 1` positions in [`TokenBatch::ids`] where sentences begin and end.
    pub fn offsets(&self) -> &[usize] {
        &self.offsets
    }

    /// Number of sentences.
    pub fn num_sentences(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Number of tokens of all sentences.
    pub fn num_tokens(&self) -> usize {
        self.ids.len()
    }

    /// Tokens of the longest sentence.
    pub fn longest(&self) -> usize {
        self.offsets.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0)
    }

    /// Checks ids and lengths against a model's sizes.
    pub(super) fn check(&self, vocab_size: usize, positions: usize) -> Result<()> {
        if let Some(id) = self.ids.iter().find(|&&id| id as usize >= vocab_size) {
            return Err(Error::new(
                ErrorKind::InputInvalid,
                format!("token id {id} is outside of the vocabulary of {vocab_size}"),
            ));
        }
        if self.longest() > positions {
            return Err(Error::new(
                ErrorKind::InputInvalid,
                format!(
                    "a sentence has {} tokens, the model {positions} positions; truncate it",
                    self.longest()
                ),
            ));
        }
        Ok(())
    }
}
