//! `config.json` of a checkpoint.

use std::path::Path;

use serde_json::Value;

use super::fields::Fields;
use crate::config::Activation;
use crate::error::{Error, Result};

/// Which names the tensors have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    /// BERT, RoBERTa and ELECTRA: `encoder.layer.N.attention.self.query`, ….
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
    /// Width of the embeddings, which ELECTRA projects to `hidden_size`.
    pub(super) embedding_size: usize,
    pub(super) num_hidden_layers: usize,
    pub(super) num_attention_heads: usize,
    pub(super) intermediate_size: usize,
    /// Rows of the position embedding, offset included.
    pub(super) max_position_embeddings: usize,
    /// Row of the first token's position.
    pub(super) position_offset: usize,
    /// The id that RoBERTa leaves out when it counts positions.
    pub(super) pad_token_id: Option<u32>,
    /// Rows of the token type embedding; 0 if there is none.
    pub(super) type_vocab_size: usize,
    pub(super) layer_norm_eps: f32,
    pub(super) hidden_act: Activation,
    /// The class of tokenizer that old files name here.
    pub(super) tokenizer_class: Option<String>,
}

/// Keys that say nothing about what an encoder computes for a sentence: dropout and other settings
/// of training, heads, names, what is returned beside the states.
const WITHOUT_EFFECT: &[&str] = &[
    "_name_or_path",
    "_attn_implementation_autoset",
    "architectures",
    "attention_dropout",
    "attention_probs_dropout_prob",
    "bad_words_ids",
    "begin_suppress_tokens",
    "bos_token_id",
    "chunk_size_feed_forward",
    "classifier_dropout",
    "cls_token_id",
    "decoder_start_token_id",
    "directionality",
    "dropout",
    "dtype",
    "eos_token_id",
    "export_model_type",
    "finetuning_task",
    "generator_hidden_size",
    "generator_size",
    "gradient_checkpointing",
    "hidden_dropout_prob",
    "id2label",
    "initializer_range",
    "is_encoder_decoder",
    "kobert_version",
    "label2id",
    "language",
    "mask_token_id",
    "max_length",
    "name",
    "num_labels",
    "output_attentions",
    "output_hidden_states",
    "output_past",
    "pad_token_id",
    "pooler_fc_size",
    "pooler_num_attention_heads",
    "pooler_num_fc_layers",
    "pooler_size_per_head",
    "pooler_type",
    "prefix",
    "problem_type",
    "qa_dropout",
    "return_dict",
    "sep_token_id",
    "seq_classif_dropout",
    "sinusoidal_pos_embds",
    "summary_activation",
    "summary_first_dropout",
    "summary_last_dropout",
    "summary_proj_to_labels",
    "summary_type",
    "summary_use_proj",
    "task_specific_params",
    "tie_weights_",
    "tie_word_embeddings",
    "torch_dtype",
    "torchscript",
    "transformers_version",
    "type_vocab_size",
    "use_bfloat16",
    "use_cache",
    "vocab",
];

impl HfConfig {
    /// Reads `config.json`, with the keys in it that may concern the model and are not read.
    pub(super) fn read(path: &Path) -> Result<(Self, Vec<String>)> {
        let fields = Fields::read(path)?;
        let config = parse(&fields)?;
        let unread = fields.unread(WITHOUT_EFFECT);
        Ok((config, unread))
    }
}

impl HfConfig {
    /// What it is, for the report.
    pub(super) fn summary(&self) -> String {
        let size = self.hidden_size;
        let projected = match self.embedding_size {
            width if width != size => format!(" (embeddings of {width})"),
            _ => String::new(),
        };
        format!(
            "{}, {} layers of hidden size {size}{projected}, {} positions",
            self.model_type,
            self.num_hidden_layers,
            self.max_position_embeddings - self.position_offset
        )
    }
}

fn parse(fields: &Fields) -> Result<HfConfig> {
    let file = fields.name();
    let model_type = fields.text("model_type", None)?;
    let family = match model_type {
        "bert" | "roberta" | "xlm-roberta" | "electra" => Family::Bert,
        "distilbert" => Family::DistilBert,
        other => return Err(other_architecture(file, other)),
    };
    let refused = |key: &str, value: &Value, why: &str| {
        Err(Error::checkpoint_unsupported(format!("{file}: {key} is {value}; {why}")))
    };
    if let Some(value) = fields.get("position_embedding_type")
        && value != "absolute"
    {
        return refused("position_embedding_type", value, "munjang runs \"absolute\" only");
    }
    for key in ["is_decoder", "add_cross_attention", "is_encoder_decoder"] {
        if fields.get(key) == Some(&Value::Bool(true)) {
            return refused(key, &Value::Bool(true), "munjang runs bidirectional encoders only");
        }
    }
    if let Some(value) = fields.get("quantization_config") {
        let why = "convert the checkpoint from before it was quantized";
        return refused("quantization_config", value, why);
    }
    if let Some(value) = fields.get("pruned_heads")
        && value.as_object().is_none_or(|heads| !heads.is_empty())
    {
        return refused("pruned_heads", value, "munjang runs layers with all their heads");
    }
    let tokenizer_class = fields.text_if_there("tokenizer_class")?.map(str::to_owned);
    let config = match family {
        Family::Bert => {
            let vocab_size = fields.size("vocab_size", None)?;
            let hidden_size = fields.size("hidden_size", None)?;
            let counts_padding = matches!(model_type, "roberta" | "xlm-roberta");
            let pad_token_id = counts_padding.then(|| fields.size("pad_token_id", Some(1)));
            let pad_token_id = pad_token_id.transpose()?;
            HfConfig {
                model_type: model_type.to_owned(),
                family,
                vocab_size,
                hidden_size,
                embedding_size: match model_type {
                    // transformers' default; KoELECTRA's files say it.
                    "electra" => fields.size("embedding_size", Some(128))?,
                    _ => hidden_size,
                },
                num_hidden_layers: fields.size("num_hidden_layers", None)?,
                num_attention_heads: fields.size("num_attention_heads", None)?,
                intermediate_size: fields.size("intermediate_size", None)?,
                max_position_embeddings: fields.size("max_position_embeddings", None)?,
                // The position of a token is its place plus pad_token_id + 1 in RoBERTa.
                position_offset: pad_token_id.map_or(0, |id| id + 1),
                pad_token_id: pad_token_id.map(|id| id as u32),
                type_vocab_size: fields.size("type_vocab_size", Some(2))?,
                layer_norm_eps: fields.number("layer_norm_eps", 1e-12)?,
                hidden_act: activation(fields, "hidden_act")?,
                tokenizer_class,
            }
        }
        Family::DistilBert => {
            let hidden_size = fields.size("dim", None)?;
            HfConfig {
                model_type: model_type.to_owned(),
                family,
                vocab_size: fields.size("vocab_size", None)?,
                hidden_size,
                embedding_size: hidden_size,
                num_hidden_layers: fields.size("n_layers", None)?,
                num_attention_heads: fields.size("n_heads", None)?,
                intermediate_size: fields.size("hidden_dim", None)?,
                max_position_embeddings: fields.size("max_position_embeddings", None)?,
                position_offset: 0,
                pad_token_id: None,
                type_vocab_size: 0,
                // transformers' DistilBERT has this constant in its code.
                layer_norm_eps: 1e-12,
                hidden_act: activation(fields, "activation")?,
                tokenizer_class,
            }
        }
    };
    if config.num_hidden_layers == 0 {
        return Err(Error::checkpoint_invalid(format!(
            "{file}: the model has 0 layers; expected at least 1"
        )));
    }
    if config.position_offset >= config.max_position_embeddings {
        return Err(Error::checkpoint_invalid(format!(
            "{file}: max_position_embeddings is {}; {model_type} needs more than pad_token_id + 1 = {}",
            config.max_position_embeddings, config.position_offset
        )));
    }
    Ok(config)
}

fn other_architecture(file: &str, model_type: &str) -> Error {
    let why = match model_type {
        "deberta" | "deberta-v2" => {
            "DeBERTa's attention scores relative positions against content (disentangled attention), \
             three products where munjang's kernels have one; "
        }
        "albert" => "ALBERT runs one layer's weights many times; ",
        "mpnet" | "t5" | "mt5" => "its attention has a relative position bias; ",
        "modernbert" | "nomic_bert" | "new" | "gte" => {
            "its attention turns queries and keys by their positions (rotary embeddings); "
        }
        "gpt2" | "llama" | "qwen2" | "qwen3" | "gemma" | "mistral" => {
            "it is a decoder, which sees only the tokens before; "
        }
        _ => "",
    };
    Error::checkpoint_unsupported(format!(
        "{file}: model_type is {model_type:?}; {why}munjang runs bert, roberta, xlm-roberta, distilbert \
         and electra: convert a model of one of these types"
    ))
}

fn activation(fields: &Fields, name: &str) -> Result<Activation> {
    match fields.text(name, Some("gelu"))? {
        // The same function, computed in other ways.
        "gelu" | "gelu_python" => Ok(Activation::Gelu),
        // The same formula under three names.
        "gelu_new" | "gelu_fast" | "gelu_pytorch_tanh" => Ok(Activation::GeluTanh),
        "relu" => Ok(Activation::Relu),
        other => Err(Error::checkpoint_unsupported(format!(
            "{}: {name} is {other:?}; munjang runs gelu, gelu_new, gelu_fast, gelu_pytorch_tanh and relu",
            fields.name()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<HfConfig> {
        super::parse(&Fields::new("config.json", serde_json::from_str(json).unwrap()))
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
        let unknown = message(format!(r#"{{"model_type": "deberta-v2", {SIZES}}}"#));
        assert!(unknown.contains("checkpoint_unsupported") && unknown.contains("\"deberta-v2\""));
        assert!(unknown.contains("disentangled") && unknown.contains("xlm-roberta"), "{unknown}");
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
