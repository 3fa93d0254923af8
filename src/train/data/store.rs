//! Texts as token ids, each text once.

use std::collections::HashMap;

use rayon::prelude::*;

use crate::error::Result;
use crate::tokenizer::Tokenizer;

/// What token ids are for.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// Training: the model's prefix, cut to the recipe's `max_tokens` and those of the prefix.
    Training,
    /// Evaluation: the model's prefix, up to its maximum.
    Evaluation,
    /// Parts of a pair that a cross-encoder reads: no prefix, cut to `max_tokens`.
    Pairs,
}

/// Token ids of many texts, each text once.
pub struct TokenStore {
    ids: Vec<Vec<u32>>,
    places: HashMap<String, u32>,
}

impl TokenStore {
    /// Tokenizes `texts` on all cores.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn new<'a>(
        tokenizer: &Tokenizer,
        texts: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self> {
        let mut places = HashMap::new();
        let mut unique: Vec<&str> = Vec::new();
        for text in texts {
            places.entry(text.to_owned()).or_insert_with(|| {
                unique.push(text);
                unique.len() as u32 - 1
            });
        }
        let ids = unique
            .par_iter()
            .map(|text| Ok(tokenizer.encode(text)?.ids))
            .collect::<Result<Vec<_>>>()?;
        Ok(TokenStore { ids, places })
    }

    /// Texts whose ids are known: `lookup` gives them.
    ///
    /// # Errors
    /// What `lookup` returns.
    pub fn from_ids<'a>(
        texts: impl IntoIterator<Item = &'a str>,
        lookup: impl Fn(&str) -> Result<Vec<u32>>,
    ) -> Result<Self> {
        let mut store = TokenStore { ids: Vec::new(), places: HashMap::new() };
        for text in texts {
            if !store.places.contains_key(text) {
                store.places.insert(text.to_owned(), store.ids.len() as u32);
                store.ids.push(lookup(text)?);
            }
        }
        Ok(store)
    }

    /// The same texts in at most `most` tokens, the last of which stays what it was.
    pub fn cut(mut self, most: usize) -> Self {
        for ids in &mut self.ids {
            if ids.len() > most && most > 0 {
                let last = ids[ids.len() - 1];
                ids.truncate(most);
                ids[most - 1] = last;
            }
        }
        self
    }

    /// The number of a text that was given to [`TokenStore::new`].
    pub fn index(&self, text: &str) -> usize {
        self.places[text] as usize
    }

    /// Ids of text number `index`.
    pub fn ids(&self, index: usize) -> &[u32] {
        &self.ids[index]
    }

    /// Number of different texts.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_is_cut_before_the_last_token() {
        let ids = |text: &str| Ok((0..=text.len() as u32).collect());
        let store = TokenStore::from_ids(["", "a", "abcdef"], ids).unwrap().cut(3);
        assert_eq!([store.ids(0), store.ids(1), store.ids(2)], [&[0][..], &[0, 1], &[0, 1, 6]]);
    }
}
