//! Two texts as one sequence, which a cross-encoder reads.

use serde_json::Value;

use crate::error::{Error, Result};
use crate::tokenizer::Tokenizer;
use crate::train::data::TokenStore;
use crate::train::run::Run;
use crate::weights::FloatModel;

/// How a tokenizer joins two texts, such as `<s> a </s></s> b </s>`.
#[derive(Clone, Debug, PartialEq)]
struct PairTemplate {
    /// Special tokens before the first text, between the two and after the second.
    parts: [Vec<u32>; 3],
    /// Special tokens before and after a single text.
    single: [usize; 2],
}

impl PairTemplate {
    /// The template that `tokenizer.json` gives for a pair. Token types are passed over: the models
    /// here have one.
    ///
    /// # Errors
    /// `tokenizer_invalid` if it gives none.
    fn new(tokenizer_json: &[u8]) -> Result<Self> {
        let json: Value = serde_json::from_slice(tokenizer_json).unwrap_or_default();
        let parts = parts(&json["post_processor"]).ok_or_else(|| {
            Error::tokenizer_invalid(
                "the tokenizer has no template for pairs of texts, which a cross-encoder reads",
            )
        })?;
        let tokenizer = Tokenizer::from_bytes(tokenizer_json, "", usize::from(u16::MAX))?;
        let (leading, trailing) = tokenizer.around();
        Ok(PairTemplate { parts, single: [leading.len(), trailing.len()] })
    }

    /// The sequence of two texts, given as the token ids of each alone, in at most `max` tokens: the
    /// longer text loses its last ones.
    fn join(&self, a: &[u32], b: &[u32], max: usize) -> Vec<u32> {
        let content = |ids: &'_ [u32]| {
            let end = ids.len().saturating_sub(self.single[1]);
            self.single[0].min(end)..end
        };
        let (mut a, mut b) = (&a[content(a)], &b[content(b)]);
        let room = max.saturating_sub(self.parts.iter().map(Vec::len).sum());
        while a.len() + b.len() > room {
            match a.len() >= b.len() {
                true => a = &a[..a.len() - 1],
                false => b = &b[..b.len() - 1],
            }
        }
        [&self.parts[0], a, &self.parts[1], b, &self.parts[2]].concat()
    }
}

fn parts(processor: &Value) -> Option<[Vec<u32>; 3]> {
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    match processor["type"].as_str()? {
        "Sequence" => processor["processors"].as_array()?.iter().find_map(parts),
        kind @ ("BertProcessing" | "RobertaProcessing") => {
            let (cls, sep) = (id(&processor["cls"][1])?, id(&processor["sep"][1])?);
            let between = if kind == "BertProcessing" { vec![sep] } else { vec![sep, sep] };
            Some([vec![cls], between, vec![sep]])
        }
        "TemplateProcessing" => {
            let mut parts: [Vec<u32>; 3] = Default::default();
            let mut at = 0;
            for part in processor["pair"].as_array()? {
                if let Some(sequence) = part.get("Sequence") {
                    // The texts come once each, the first one first.
                    if sequence["id"].as_str()? != ["A", "B"].get(at).copied()? {
                        return None;
                    }
                    at += 1;
                    continue;
                }
                let name = part["SpecialToken"]["id"].as_str()?;
                for token in processor["special_tokens"][name]["ids"].as_array()? {
                    parts[at].push(id(token)?);
                }
            }
            (at == 2).then_some(parts)
        }
        _ => None,
    }
}

/// Sequences of pairs for one model.
pub(super) struct Joined {
    template: PairTemplate,
    max: usize,
}

impl Joined {
    pub(super) fn new(run: &Run, float: &FloatModel) -> Result<Self> {
        let max = (2 * run.recipe.max_tokens).min(float.config.max_position_embeddings);
        Ok(Joined { template: PairTemplate::new(&float.tokenizer_json)?, max })
    }

    pub(super) fn sequence(&self, store: &TokenStore, a: usize, b: usize) -> Vec<u32> {
        self.template.join(store.ids(a), store.ids(b), self.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(json: &str) -> Option<[Vec<u32>; 3]> {
        parts(&serde_json::from_str(json).unwrap())
    }

    #[test]
    fn templates_of_pairs() {
        let roberta = r#"{"type": "RobertaProcessing", "sep": ["</s>", 2], "cls": ["<s>", 0]}"#;
        assert_eq!(template(roberta), Some([vec![0], vec![2, 2], vec![2]]));
        let bert = r#"{"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]}"#;
        let sequence =
            format!(r#"{{"type": "Sequence", "processors": [{{"type": "ByteLevel"}}, {bert}]}}"#);
        assert_eq!(template(&sequence), Some([vec![2], vec![3], vec![3]]));
        let of = |pair: &str| {
            template(&format!(
                r#"{{"type": "TemplateProcessing", "pair": [{pair}],
                    "special_tokens": {{"<s>": {{"ids": [0]}}, "</s>": {{"ids": [2]}}}}}}"#
            ))
        };
        let special =
            |name: &str| format!(r#"{{"SpecialToken": {{"id": "{name}", "type_id": 0}}}}"#);
        let text = |name: &str| format!(r#"{{"Sequence": {{"id": "{name}", "type_id": 0}}}}"#);
        let (s, e) = (special("<s>"), special("</s>"));
        let xlm = [&*s, &text("A"), &e, &e, &text("B"), &e].join(",");
        assert_eq!(of(&xlm), Some([vec![0], vec![2, 2], vec![2]]));
        for odd in [text("A"), [text("B"), text("A")].join(","), special("<x>")] {
            assert_eq!(of(&odd), None, "{odd}");
        }
        assert_eq!(template("null"), None);
    }

    #[test]
    fn the_longer_text_is_cut() {
        let template = PairTemplate { parts: [vec![0], vec![2, 2], vec![2]], single: [1, 1] };
        let (a, b) = ([0, 11, 12, 13, 2], [0, 21, 2]);
        assert_eq!(template.join(&a, &b, 99), [0, 11, 12, 13, 2, 2, 21, 2]);
        assert_eq!(template.join(&a, &b, 7), [0, 11, 12, 2, 2, 21, 2]);
        assert_eq!(template.join(&a, &b, 5), [0, 2, 2, 21, 2]);
        assert_eq!(template.join(&a, &b, 2), [0, 2, 2, 2]);
    }
}
