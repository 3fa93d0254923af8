//! The special tokens around a text.

use serde_json::Value;

use crate::error::{Error, Result};

/// The special tokens that a `post_processor` puts before and after a single text. `tokenizers` can
/// be asked for them only by a call that panics if the file names one that it does not define.
pub(super) fn special_tokens(
    post_processor: &Value,
    leading: &mut Vec<u32>,
    trailing: &mut Vec<u32>,
) -> Result<()> {
    let unreadable =
        |what: &str| Error::tokenizer_invalid(format!("the tokenizer's post_processor {what}"));
    let as_id = |id: &Value| id.as_u64().and_then(|id| u32::try_from(id).ok());
    if post_processor.is_null() {
        return Ok(());
    }
    match post_processor["type"].as_str() {
        Some("ByteLevel") => Ok(()),
        Some("Sequence") => post_processor["processors"]
            .as_array()
            .ok_or_else(|| unreadable("is a Sequence without processors"))?
            .iter()
            .try_for_each(|part| special_tokens(part, leading, trailing)),
        Some("BertProcessing" | "RobertaProcessing") => {
            let cls = as_id(&post_processor["cls"][1]);
            let sep = as_id(&post_processor["sep"][1]);
            let (Some(cls), Some(sep)) = (cls, sep) else {
                return Err(unreadable("has no ids for cls and sep"));
            };
            leading.insert(0, cls);
            trailing.push(sep);
            Ok(())
        }
        Some("TemplateProcessing") => {
            let single = post_processor["single"].as_array();
            let mut before = Vec::new();
            let mut after = Vec::new();
            let mut texts = 0;
            for part in single.ok_or_else(|| unreadable("has no template for a single text"))? {
                if part.get("Sequence").is_some() {
                    texts += 1;
                    continue;
                }
                let name = part["SpecialToken"]["id"].as_str().unwrap_or_default();
                let ids: Option<Vec<u32>> = post_processor["special_tokens"][name]["ids"]
                    .as_array()
                    .and_then(|ids| ids.iter().map(as_id).collect());
                let ids = ids.ok_or_else(|| {
                    unreadable(&format!("uses the special token {name:?} without defining its ids"))
                })?;
                if texts == 0 { before.extend(ids) } else { after.extend(ids) }
            }
            if texts != 1 {
                return Err(unreadable(&format!("has the text {texts} times; expected once")));
            }
            leading.splice(0..0, before);
            trailing.extend(after);
            Ok(())
        }
        other => Err(unreadable(&format!(
            "is of type {other:?}; expected TemplateProcessing, BertProcessing, RobertaProcessing, \
             ByteLevel or a Sequence of them"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_tokens_around_a_text() {
        let of = |json: serde_json::Value| {
            let (mut leading, mut trailing) = (Vec::new(), Vec::new());
            special_tokens(&json, &mut leading, &mut trailing).map(|()| (leading, trailing))
        };
        let roberta = serde_json::json!({"type": "RobertaProcessing", "sep": ["</s>", 2], "cls": ["<s>", 0],
            "trim_offsets": true, "add_prefix_space": false});
        assert_eq!(of(Value::Null).unwrap(), (vec![], vec![]));
        assert_eq!(of(roberta.clone()).unwrap(), (vec![0], vec![2]));
        let sequence =
            serde_json::json!({"type": "Sequence", "processors": [{"type": "ByteLevel"}, roberta]});
        assert_eq!(of(sequence).unwrap(), (vec![0], vec![2]));
        let template = |single: Value| {
            serde_json::json!({"type": "TemplateProcessing", "single": single, "pair": [],
                "special_tokens": {"[A]": {"id": "[A]", "ids": [7, 8], "tokens": ["a", "b"]}}})
        };
        let special = serde_json::json!({"SpecialToken": {"id": "[A]", "type_id": 0}});
        let text = serde_json::json!({"Sequence": {"id": "A", "type_id": 0}});
        assert_eq!(of(template(serde_json::json!([special, text]))).unwrap(), (vec![7, 8], vec![]));
        let unknown = serde_json::json!({"SpecialToken": {"id": "[B]", "type_id": 0}});
        for (bad, part) in [
            (template(serde_json::json!([unknown, text])), "\"[B]\""),
            (template(serde_json::json!([special])), "0 times"),
            (template(serde_json::json!([text, text])), "2 times"),
            (serde_json::json!({"type": "Other"}), "Other"),
            (serde_json::json!({"type": "BertProcessing"}), "cls"),
        ] {
            let error = of(bad).unwrap_err();
            assert!(error.to_string().contains(part), "{error}");
        }
    }
}
