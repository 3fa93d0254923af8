//! Texts as token ids, for each use.

use super::place::Run;
use crate::error::Result;
use crate::tokenizer::Tokenizer;
use crate::train::data::TokenStore;
use crate::train::recipe::Slot;
use crate::weights::FloatModel;

pub use crate::train::data::Purpose;

impl Run {
    /// `texts` as token ids for `model`, which is of `slot`.
    ///
    /// # Errors
    /// When the tokenizer does not load.
    pub fn store<'a>(
        &self,
        model: &FloatModel,
        slot: Slot,
        purpose: Purpose,
        texts: impl IntoIterator<Item = &'a str>,
    ) -> Result<TokenStore> {
        if let Some(packed) = &self.packed {
            return packed.store(slot, purpose, texts);
        }
        TokenStore::new(&self.tokenizer(model, purpose)?, texts)
    }

    /// The tokenizer of a model for one purpose.
    ///
    /// # Errors
    /// When the tokenizer does not load.
    pub fn tokenizer(&self, model: &FloatModel, purpose: Purpose) -> Result<Tokenizer> {
        let config = &model.config;
        let most = config.max_position_embeddings;
        let json = &model.tokenizer_json;
        match purpose {
            Purpose::Training => {
                let max = self.recipe.max_tokens + prefix_tokens(model)?;
                Tokenizer::from_bytes(json, &config.prefix, max.min(most))
            }
            Purpose::Evaluation => Tokenizer::from_bytes(json, &config.prefix, most),
            Purpose::Pairs => Tokenizer::from_bytes(json, "", self.recipe.max_tokens.min(most)),
        }
    }
}

/// How many tokens a model's prefix takes.
fn prefix_tokens(model: &FloatModel) -> Result<usize> {
    let config = &model.config;
    if config.prefix.is_empty() {
        return Ok(0);
    }
    let blank = |prefix: &str| {
        let most = config.max_position_embeddings;
        Tokenizer::from_bytes(&model.tokenizer_json, prefix, most)?.encode("")
    };
    Ok(blank(&config.prefix)?.ids.len().saturating_sub(blank("")?.ids.len()))
}
