//! `config.json` of a checkpoint.

use std::path::Path;

use serde_json::{Map, Value};

use super::{invalid, read_file, unsupported};
use crate::config::Activation;
use crate::error::Result;

/// Which names the tensors have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    /// BERT and RoBERTa: `encoder.layer.N.attention.self.query`, ….
    Bert,
    /// DistilBERT: `transformer.layer.N.attention.q_lin`, …; no token types.
    DistilBert,
}

/// The part of a Hugging Face configuration that decides what the encoder computes.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct HfConfig {
    pub(super) model_type: String,
    pub(super) family: Family,
    pub(super) vocab_size: usize,
    pub(super) hidden_size: usize,
    pub(super) num_hidden_layers: usize,
    pub(super) num_attention_heads: usize,
    pub(super) intermediate_size: usize,
    /// Rows of the position embedding, offset included.
    pub(super) max_position_embeddings: usize,
    /// Row of the first token's position.
    pub(super) position_offset: usize,
    /// Rows of the token type embedding; 0 if there is none.
    pub(super) type_vocab_size: usize,
    pub(super) layer_norm_eps: f32,
    pub(super) hidden_act: Activation,
}

impl HfConfig {
    pub(super) fn read(path: &Path) -> Result<Self> {
        let file = path.display().to_string();
        let fields: Map<String, Value> =
            serde_json::from_slice(&read_file(path)?).map_err(|source| {
                invalid(format!("{file} is not a JSON object")).with_source(source)
            })?;
        Fields { file, fields }.parse()
    }
}

struct Fields {
    file: String,
    fields: Map<String, Value>,
}

impl Fields {
    fn parse(&self) -> Result<HfConfig> {
        let model_type = self.text("model_type", None)?;
        let bert_like = matches!(model_type, "bert" | "roberta" | "xlm-roberta");
        if !bert_like && model_type != "distilbert" {
            return Err(unsupported(format!(
                "{}: model_type is {model_type:?}; munjang runs bert, roberta, xlm-roberta and distilbert",
                self.file
            )));
        }
        let positions = self.text("position_embedding_type", Some("absolute"))?;
        if positions != "absolute" {
            return Err(unsupported(format!(
                "{}: position_embedding_type is {positions:?}; munjang runs \"absolute\" only",
                self.file
            )));
        }
        for flag in ["is_decoder", "add_cross_attention"] {
            if self.get(flag) == Some(&Value::Bool(true)) {
                return Err(unsupported(format!(
                    "{}: {flag} is true; munjang runs bidirectional encoders only",
                    self.file
                )));
            }
        }
        let config = if bert_like {
            // The position of a token is its place plus pad_token_id + 1 in RoBERTa.
            let position_offset = match model_type {
                "bert" => 0,
                _ => self.size("pad_token_id", Some(1))? + 1,
            };
            HfConfig {
                model_type: model_type.to_owned(),
                family: Family::Bert,
                vocab_size: self.size("vocab_size", None)?,
                hidden_size: self.size("hidden_size", None)?,
                num_hidden_layers: self.size("num_hidden_layers", None)?,
                num_attention_heads: self.size("num_attention_heads", None)?,
                intermediate_size: self.size("intermediate_size", None)?,
                max_position_embeddings: self.size("max_position_embeddings", None)?,
                position_offset,
                type_vocab_size: self.size("type_vocab_size", Some(2))?,
                layer_norm_eps: self.number("layer_norm_eps", 1e-12)?,
                hidden_act: self.activation("hidden_act")?,
            }
        } else {
            HfConfig {
                model_type: model_type.to_owned(),
                family: Family::DistilBert,
                vocab_size: self.size("vocab_size", None)?,
                hidden_size: self.size("dim", None)?,
                num_hidden_layers: self.size("n_layers", None)?,
                num_attention_heads: self.size("n_heads", None)?,
                intermediate_size: self.size("hidden_dim", None)?,
                max_position_embeddings: self.size("max_position_embeddings", None)?,
                position_offset: 0,
                type_vocab_size: 0,
                // transformers' DistilBERT has this constant in its code.
                layer_norm_eps: 1e-12,
                hidden_act: self.activation("activation")?,
            }
        };
        if config.num_hidden_layers == 0 {
            return Err(invalid(format!(
                "{}: the model has 0 layers; expected at least 1",
                self.file
            )));
        }
        if config.position_offset >= config.max_position_embeddings {
            return Err(invalid(format!(
                "{}: max_position_embeddings is {}; {model_type} needs more than pad_token_id + 1 = {}",
                self.file, config.max_position_embeddings, config.position_offset
            )));
        }
        Ok(config)
    }

    /// A field, where `null` counts as absent.
    fn get(&self, name: &str) -> Option<&Value> {
        self.fields.get(name).filter(|value| !value.is_null())
    }

    fn missing(&self, name: &str, expected: &str) -> crate::Error {
        invalid(format!("{}: {name} is missing; expected {expected}", self.file))
    }

    fn wrong(&self, name: &str, value: &Value, expected: &str) -> crate::Error {
        invalid(format!("{}: {name} is {value}; expected {expected}", self.file))
    }

    fn text<'a>(&'a self, name: &str, default: Option<&'a str>) -> Result<&'a str> {
        match (self.get(name), default) {
            (Some(value), _) => value.as_str().ok_or_else(|| self.wrong(name, value, "a string")),
            (None, Some(default)) => Ok(default),
            (None, None) => Err(self.missing(name, "a string")),
        }
    }

    fn size(&self, name: &str, default: Option<usize>) -> Result<usize> {
        let expected = "an integer of at least 0";
        match (self.get(name), default) {
            // The bound keeps products of two sizes far from overflow; the real ones come later.
            (Some(value), _) => value
                .as_u64()
                .filter(|&size| size < 1 << 31)
                .map(|size| size as usize)
                .ok_or_else(|| self.wrong(name, value, expected)),
            (None, Some(default)) => Ok(default),
            (None, None) => Err(self.missing(name, expected)),
        }
    }

    fn number(&self, name: &str, default: f32) -> Result<f32> {
        match self.get(name) {
            None => Ok(default),
            Some(value) => value
                .as_f64()
                .map(|number| number as f32)
                .ok_or_else(|| self.wrong(name, value, "a number")),
        }
    }

    fn activation(&self, name: &str) -> Result<Activation> {
        match self.text(name, Some("gelu"))? {
            "gelu" => Ok(Activation::Gelu),
            // The same formula under three names.
            "gelu_new" | "gelu_fast" | "gelu_pytorch_tanh" => Ok(Activation::GeluTanh),
            "relu" => Ok(Activation::Relu),
            other => Err(unsupported(format!(
                "{}: {name} is {other:?}; munjang runs gelu, gelu_new, gelu_fast, \
                 gelu_pytorch_tanh and relu",
                self.file
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<HfConfig> {
        Fields { file: "config.json".into(), fields: serde_json::from_str(json).unwrap() }.parse()
    }

    const SIZES: &str = r#""vocab_size": 100, "hidden_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 4, "intermediate_size": 80, "max_position_embeddings": 66"#;

    #[test]
    fn roberta_counts_positions_from_the_padding_id() {
        let roberta =
            parse(&format!(r#"{{"model_type": "xlm-roberta", "pad_token_id": 4, {SIZES}}}"#))
                .unwrap();
        assert_eq!(roberta.position_offset, 5);
        let bert =
            parse(&format!(r#"{{"model_type": "bert", "pad_token_id": 4, {SIZES}}}"#)).unwrap();
        assert_eq!(bert.position_offset, 0);
        assert_eq!(bert.layer_norm_eps, 1e-12);
    }

    #[test]
    fn errors_name_found_and_expected() {
        let message = |json: String| {
            let error = parse(&json).unwrap_err();
            format!("{}: {error}", error.code())
        };
        let unknown = message(format!(r#"{{"model_type": "electra", {SIZES}}}"#));
        assert!(unknown.contains("checkpoint_unsupported") && unknown.contains("\"electra\""));
        assert!(unknown.contains("xlm-roberta"), "{unknown}");
        let act = message(format!(r#"{{"model_type": "bert", "hidden_act": "silu", {SIZES}}}"#));
        assert!(act.contains("\"silu\"") && act.contains("gelu_new"), "{act}");
        let relative = message(format!(
            r#"{{"model_type": "bert", "position_embedding_type": "relative_key", {SIZES}}}"#
        ));
        assert!(relative.contains("relative_key") && relative.contains("absolute"), "{relative}");
        let missing = message(r#"{"model_type": "bert"}"#.into());
        assert!(missing.contains("vocab_size is missing"), "{missing}");
        let text = message(r#"{"model_type": "bert", "vocab_size": "many"}"#.into());
        assert!(text.contains("\"many\"") && text.contains("integer"), "{text}");
        let none = message("{}".into());
        assert!(none.contains("model_type is missing"), "{none}");
        let offset = message(
            r#"{"model_type": "roberta", "pad_token_id": 70, "vocab_size": 9, "hidden_size": 8,
                "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8,
                "max_position_embeddings": 66}"#
                .into(),
        );
        assert!(offset.contains("71"), "{offset}");
    }
}
