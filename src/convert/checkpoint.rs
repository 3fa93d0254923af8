//! A [`FloatModel`] as a Hugging Face checkpoint folder: the inverse of
//! [`read_checkpoint`](super::read_checkpoint).

use std::borrow::Cow;

use safetensors::tensor::{Dtype, View};
use serde_json::{Map, Value, json};

use super::hf_config::Family;
use crate::config::{Activation, ModelConfig, Pooling, TruncationSide};
use crate::error::{Error, Result};
use crate::weights::{FloatModel, LayerNorm, Linear};

/// A row that changes nothing it is added to, not even the sign of a zero.
const NO_TOKEN_TYPE: f32 = -0.0;

/// One tensor of the file.
struct Floats<'a> {
    shape: Vec<usize>,
    values: Cow<'a, [f32]>,
}

impl View for &Floats<'_> {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }
    fn shape(&self) -> &[usize] {
        &self.shape
    }
    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(bytemuck::cast_slice(&self.values))
    }
    fn data_len(&self) -> usize {
        4 * self.values.len()
    }
}

/// The files of a checkpoint folder that holds `model` in f32, by their paths in it: `config.json`,
/// `model.safetensors`, `tokenizer.json`, and `1_Pooling/config.json` as sentence-transformers
/// writes it. Read with [`read_checkpoint`](super::read_checkpoint), and the prefix of the model's
/// config, they give the same model to the bit; `transformers` opens the folder too.
///
/// The architecture is the one that the weights came from. Positions before the padding token's, which
/// RoBERTa has and this model does not keep, are zeros; the one token type is zeros as well, since
/// that row is part of the positions already.
///
/// # Errors
/// `CheckpointInvalid` if the model's type has no such checkpoint, or a config that the type cannot
/// express.
pub fn checkpoint_files(model: &FloatModel) -> Result<Vec<(&'static str, Vec<u8>)>> {
    let config = &model.config;
    let tokenizer: Value = serde_json::from_slice(&model.tokenizer_json).unwrap_or_default();
    let (family, offset) = match config.model_type.as_str() {
        "bert" => (Family::Bert, 0),
        "roberta" | "xlm-roberta" => {
            (Family::Bert, padding_id(config, &tokenizer).unwrap_or(1) + 1)
        }
        "distilbert" => (Family::DistilBert, 0),
        other => {
            return Err(Error::checkpoint_invalid(format!(
                "a model of type {other:?} cannot be written as a checkpoint; expected bert, \
                 roberta, xlm-roberta or distilbert"
            )));
        }
    };
    if family == Family::DistilBert && config.layer_norm_eps != 1e-12 {
        return Err(Error::checkpoint_invalid(format!(
            "layer_norm_eps is {}; a DistilBERT checkpoint always means 1e-12",
            config.layer_norm_eps
        )));
    }
    if config.truncation_side != TruncationSide::Right || !config.after_pooling.is_empty() {
        return Err(Error::checkpoint_invalid(
            "a model that cuts texts on the left or has modules after pooling cannot be written as a \
             checkpoint",
        ));
    }
    let tensors = tensors(model, family, offset);
    let views = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor));
    let metadata = [("format".to_owned(), "pt".to_owned())].into();
    let weights = safetensors::serialize(views, Some(metadata)).map_err(|source| {
        Error::checkpoint_invalid(format!("cannot serialize tensors: {source}"))
    })?;
    let pretty = |value: &Value| {
        let text = serde_json::to_string_pretty(value).expect("JSON becomes text");
        (text + "\n").into_bytes()
    };
    Ok(vec![
        ("config.json", pretty(&hf_config(model, family, offset, &tokenizer))),
        ("model.safetensors", weights),
        ("tokenizer.json", model.tokenizer_json.clone()),
        (
            "1_Pooling/config.json",
            pretty(&json!({
                "word_embedding_dimension": config.hidden_size,
                "pooling_mode_cls_token": config.pooling == Pooling::Cls,
                "pooling_mode_mean_tokens": config.pooling == Pooling::Mean,
            })),
        ),
    ])
}

/// The id of the padding token, where the config or the tokenizer names one that has a word embedding.
fn padding_id(config: &ModelConfig, tokenizer: &Value) -> Option<usize> {
    if let Some(id) = config.pad_token_id {
        return Some(id as usize);
    }
    let added = tokenizer["added_tokens"].as_array().into_iter().flatten();
    let named = added
        .filter(|token| matches!(token["content"].as_str(), Some("<pad>" | "[PAD]")))
        .find_map(|token| token["id"].as_u64());
    let id = named.or_else(|| tokenizer["padding"]["pad_id"].as_u64())?;
    usize::try_from(id).ok().filter(|&id| id < config.vocab_size)
}

fn hf_config(model: &FloatModel, family: Family, offset: usize, tokenizer: &Value) -> Value {
    let config = &model.config;
    let activation = match config.hidden_act {
        Activation::Gelu => "gelu",
        Activation::GeluTanh => "gelu_new",
        Activation::Relu => "relu",
    };
    let [architecture, hidden, layers, heads, inner, act] = match family {
        Family::DistilBert => {
            ["DistilBertModel", "dim", "n_layers", "n_heads", "hidden_dim", "activation"]
        }
        Family::Bert => [
            match config.model_type.as_str() {
                "roberta" => "RobertaModel",
                "xlm-roberta" => "XLMRobertaModel",
                _ => "BertModel",
            },
            "hidden_size",
            "num_hidden_layers",
            "num_attention_heads",
            "intermediate_size",
            "hidden_act",
        ],
    };
    let mut fields = Map::new();
    let mut put = |name: &str, value: Value| fields.insert(name.to_owned(), value);
    put("architectures", json!([architecture]));
    put("model_type", json!(config.model_type));
    put("vocab_size", json!(config.vocab_size));
    put(hidden, json!(config.hidden_size));
    put(layers, json!(config.num_hidden_layers));
    put(heads, json!(config.num_attention_heads));
    put(inner, json!(config.intermediate_size));
    put(act, json!(activation));
    put("max_position_embeddings", json!(config.max_position_embeddings + offset));
    put("pad_token_id", json!(offset.checked_sub(1).or_else(|| padding_id(config, tokenizer))));
    put("dtype", json!("float32"));
    if family == Family::Bert {
        put("type_vocab_size", json!(1));
        put("position_embedding_type", json!("absolute"));
        // The shortest decimal of the f32, not of the f64 that it widens to.
        let eps = config.layer_norm_eps.to_string().parse::<f64>();
        put("layer_norm_eps", json!(eps.unwrap_or(f64::from(config.layer_norm_eps))));
    }
    Value::Object(fields)
}

fn tensors<'a>(model: &'a FloatModel, family: Family, offset: usize) -> Vec<(String, Floats<'a>)> {
    let hidden = model.config.hidden_size;
    let mut all: Vec<(String, Floats<'a>)> = Vec::new();
    let mut put = |name: String, shape: Vec<usize>, values: Cow<'a, [f32]>| {
        all.push((name, Floats { shape, values }));
    };
    let words = &model.word_embeddings;
    put(
        "embeddings.word_embeddings.weight".into(),
        vec![words.rows, hidden],
        Cow::Borrowed(&words.data),
    );
    let positions = &model.position_embeddings;
    let mut rows = vec![0.0; offset * hidden];
    if let (Some(row), Some(at)) = (&model.additions.padding_position, offset.checked_sub(1)) {
        rows[at * hidden..].copy_from_slice(row);
    }
    rows.extend_from_slice(&positions.data);
    put(
        "embeddings.position_embeddings.weight".into(),
        vec![offset + positions.rows, hidden],
        rows.into(),
    );
    if family == Family::Bert {
        let row = vec![NO_TOKEN_TYPE; hidden];
        put("embeddings.token_type_embeddings.weight".into(), vec![1, hidden], row.into());
    }
    let mut norm = |name: &str, norm: &'a LayerNorm| {
        put(format!("{name}.weight"), vec![hidden], Cow::Borrowed(&norm.weight));
        put(format!("{name}.bias"), vec![hidden], Cow::Borrowed(&norm.bias));
    };
    let names = super::encoder::layer_names(family);
    norm("embeddings.LayerNorm", &model.embedding_norm);
    for (index, layer) in model.layers.iter().enumerate() {
        let base = super::encoder::layer_base(family, "", index);
        norm(&format!("{base}.{}", names[4]), &layer.attention_norm);
        norm(&format!("{base}.{}", names[7]), &layer.output_norm);
    }
    for (index, layer) in model.layers.iter().enumerate() {
        let base = super::encoder::layer_base(family, "", index);
        let mut linear = |name: &str, linear: &'a Linear| {
            let Linear { weight, bias } = linear;
            let shape = vec![weight.rows, weight.cols];
            put(format!("{base}.{name}.weight"), shape, Cow::Borrowed(&weight.data));
            put(format!("{base}.{name}.bias"), vec![bias.len()], Cow::Borrowed(bias));
        };
        linear(names[0], &layer.query);
        linear(names[1], &layer.key);
        linear(names[2], &layer.value);
        linear(names[3], &layer.attention_output);
        linear(names[5], &layer.intermediate);
        linear(names[6], &layer.output);
    }
    all
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::{ConvertOptions, read_checkpoint};
    use super::*;

    #[test]
    fn reading_gives_the_same_model_to_the_bit() {
        for name in ["bert", "roberta", "xlm-roberta", "distilbert"] {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/small");
            let options = ConvertOptions {
                pooling: (name == "roberta").then_some(Pooling::Cls),
                prefix: Some("query: ".into()),
                max_tokens: Some(40),
                ..ConvertOptions::default()
            };
            let model = read_checkpoint(&folder.join(name), &options).unwrap();
            let written = tempfile::tempdir().unwrap();
            for (file, bytes) in checkpoint_files(&model).unwrap() {
                let path = written.path().join(file);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, bytes).unwrap();
            }
            let options =
                ConvertOptions { prefix: Some("query: ".into()), ..ConvertOptions::default() };
            let again = read_checkpoint(written.path(), &options).unwrap();
            assert!(again == model, "{name}");
            assert_eq!(
                crate::format::write(&again).unwrap(),
                crate::format::write(&model).unwrap(),
                "{name}"
            );
        }
    }

    #[test]
    fn what_no_checkpoint_can_say_is_refused() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/small/distilbert");
        let mut model = read_checkpoint(&folder, &ConvertOptions::default()).unwrap();
        model.config.layer_norm_eps = 1e-5;
        assert!(checkpoint_files(&model).unwrap_err().to_string().contains("1e-12"));
        model.config.model_type = "electra".into();
        assert_eq!(checkpoint_files(&model).unwrap_err().code(), "checkpoint_invalid");
    }
}
