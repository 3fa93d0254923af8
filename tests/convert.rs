//! Damaged and unsupported checkpoints, shards, options.
#![cfg(feature = "cli")]

mod golden_files;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use golden_files::{SMALL, small};
use munjang::config::Pooling;
use munjang::convert::{ConvertOptions, Manifest, checkpoint_files, read_checkpoint};
use munjang::{Encoder, format};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A copy of a small checkpoint, to be damaged.
struct Copy(TempDir);

type Tensor = (Dtype, Vec<usize>, Vec<u8>);

impl Copy {
    fn of(name: &str) -> Self {
        let folder = TempDir::new().unwrap();
        for file in ["config.json", "model.safetensors", "tokenizer.json"] {
            std::fs::copy(small(name).join(file), folder.path().join(file)).unwrap();
        }
        Copy(folder)
    }

    fn path(&self, file: &str) -> PathBuf {
        self.0.path().join(file)
    }

    fn edit_json(self, file: &str, edit: impl FnOnce(&mut Value)) -> Self {
        let mut value = serde_json::from_slice(&std::fs::read(self.path(file)).unwrap()).unwrap();
        edit(&mut value);
        std::fs::write(self.path(file), value.to_string()).unwrap();
        self
    }

    fn config(self, key: &str, value: impl Into<Value>) -> Self {
        let value = value.into();
        self.edit_json("config.json", |config| config[key] = value)
    }

    fn tensors(&self) -> BTreeMap<String, Tensor> {
        let bytes = std::fs::read(self.path("model.safetensors")).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        tensors
            .iter()
            .map(|(name, view)| {
                (name.to_owned(), (view.dtype(), view.shape().to_vec(), view.data().to_vec()))
            })
            .collect()
    }

    fn write_tensors(&self, file: &str, tensors: &BTreeMap<String, Tensor>) {
        let views = tensors.iter().map(|(name, (dtype, shape, data))| {
            (name, TensorView::new(*dtype, shape.clone(), data).unwrap())
        });
        std::fs::write(self.path(file), safetensors::serialize(views, None).unwrap()).unwrap();
    }

    fn edit_tensors(self, edit: impl FnOnce(&mut BTreeMap<String, Tensor>)) -> Self {
        let mut tensors = self.tensors();
        edit(&mut tensors);
        self.write_tensors("model.safetensors", &tensors);
        self
    }

    fn read(&self) -> munjang::Result<munjang::weights::FloatModel> {
        read_checkpoint(self.0.path(), &ConvertOptions::default())
    }

    /// Asserts the error's code and that its message names everything in `parts`.
    fn fails(&self, code: &str, parts: &[&str]) {
        let error = self.read().expect_err(code);
        assert_eq!(error.code(), code, "{error}");
        for part in parts {
            assert!(format!("{error:#}").contains(part), "{part:?} is not in: {error}");
        }
    }
}

#[test]
fn unsupported_architectures_are_named() {
    let unsupported = "checkpoint_unsupported";
    Copy::of("bert")
        .config("model_type", "deberta-v2")
        .fails(unsupported, &["\"deberta-v2\"", "disentangled", "distilbert"]);
    Copy::of("bert").config("model_type", "albert").fails(unsupported, &["\"albert\"", "electra"]);
    Copy::of("bert").config("hidden_act", "silu").fails(unsupported, &["\"silu\"", "gelu"]);
    Copy::of("distilbert").config("activation", "mish").fails(unsupported, &["\"mish\""]);
    Copy::of("bert")
        .config("position_embedding_type", "relative_key")
        .fails(unsupported, &["relative_key", "absolute"]);
    Copy::of("roberta").config("is_decoder", true).fails(unsupported, &["is_decoder"]);
}

#[test]
fn bad_configs_are_named() {
    let bert = || Copy::of("bert");
    bert().config("hidden_size", "big").fails("checkpoint_invalid", &["hidden_size", "\"big\""]);
    bert().config("hidden_size", -3).fails("checkpoint_invalid", &["hidden_size", "-3"]);
    bert()
        .config("vocab_size", Value::Null)
        .fails("checkpoint_invalid", &["vocab_size is missing"]);
    bert().config("num_attention_heads", 7).fails("config_invalid", &["48", "7"]);
    bert().config("num_hidden_layers", 0).fails("checkpoint_invalid", &["0 layers"]);
    bert()
        .config("max_position_embeddings", 100_000)
        .fails("config_invalid", &["max_position_embeddings", "100000", "--max-tokens"]);
    let copy = bert();
    std::fs::write(copy.path("config.json"), "<html>").unwrap();
    copy.fails("checkpoint_invalid", &["config.json", "not a JSON object"]);
    std::fs::remove_file(copy.path("config.json")).unwrap();
    copy.fails("io", &["config.json"]);
}

#[test]
fn missing_and_misshapen_tensors_are_named() {
    let key = "encoder.layer.1.attention.self.key.weight";
    Copy::of("bert")
        .edit_tensors(|tensors| drop(tensors.remove(key)))
        .fails("checkpoint_invalid", &[key, "missing", "[48, 48]"]);
    Copy::of("bert")
        .edit_tensors(|tensors| tensors.get_mut(key).unwrap().1 = vec![24, 96])
        .fails("checkpoint_invalid", &[key, "[24, 96]", "[48, 48]"]);
    Copy::of("bert")
        .edit_tensors(|tensors| {
            let tensor = tensors.get_mut(key).unwrap();
            tensor.0 = Dtype::I32;
        })
        .fails("checkpoint_invalid", &[key, "I32", "F16"]);
    Copy::of("bert")
        .edit_tensors(|tensors| {
            tensors.get_mut(key).unwrap().2[40..44].copy_from_slice(&f32::NAN.to_le_bytes())
        })
        .fails("checkpoint_invalid", &[key, "NaN", "index 10"]);
    Copy::of("bert")
        .edit_tensors(|tensors| tensors.retain(|name, _| !name.contains("word_embeddings")))
        .fails("checkpoint_invalid", &["embeddings.word_embeddings.weight", "found"]);
    // One layer more than the file has, one row less than the config says.
    Copy::of("bert")
        .config("num_hidden_layers", 4)
        .fails("checkpoint_invalid", &["encoder.layer.3"]);
    Copy::of("xlm-roberta")
        .config("max_position_embeddings", 71)
        .fails("checkpoint_invalid", &["position_embeddings", "[70, 56]", "[71, 56]"]);
}

#[test]
fn vocabularies_that_do_not_match_are_refused() {
    let rows = Copy::of("roberta").tensors()["embeddings.word_embeddings.weight"].1[0];
    Copy::of("roberta")
        .config("vocab_size", rows as u64 + 1)
        .fails("checkpoint_invalid", &["word_embeddings", &format!("[{rows}, 64]")]);
    // The tokenizer of another model.
    let copy = Copy::of("roberta");
    std::fs::copy(small("bert").join("tokenizer.json"), copy.path("tokenizer.json")).unwrap();
    copy.fails("tokenizer_invalid", &[&rows.to_string(), "do not belong together"]);
    std::fs::write(copy.path("tokenizer.json"), "{}").unwrap();
    copy.fails("tokenizer_invalid", &["tokenizer.json"]);
    std::fs::remove_file(copy.path("tokenizer.json")).unwrap();
    copy.fails("checkpoint_invalid", &["tokenizer.json", "vocab.txt", "save_pretrained"]);
    std::fs::write(copy.path("vocab.txt"), "").unwrap();
    copy.fails("checkpoint_invalid", &["vocab.txt", "0 lines"]);
}

#[test]
fn truncated_weights_are_refused_at_every_length() {
    let copy = Copy::of("bert");
    let whole = std::fs::read(copy.path("model.safetensors")).unwrap();
    for len in [0, 4, 8, 100, 3000, whole.len() / 2, whole.len() - 1] {
        std::fs::write(copy.path("model.safetensors"), &whole[..len]).unwrap();
        copy.fails("checkpoint_invalid", &["model.safetensors", &format!("({len} bytes)")]);
    }
    std::fs::remove_file(copy.path("model.safetensors")).unwrap();
    std::fs::write(copy.path("pytorch_model.bin"), "").unwrap();
    copy.fails("checkpoint_invalid", &["pytorch_model.bin", "(0 bytes)", "torch.save"]);
    std::fs::remove_file(copy.path("pytorch_model.bin")).unwrap();
    copy.fails("checkpoint_invalid", &["model.safetensors", "pytorch_model.bin"]);
}

#[test]
fn prefixes_and_old_names_are_understood() {
    for name in SMALL {
        let expected = Copy::of(name).read().unwrap();
        for prefix in ["bert.", "roberta.", "distilbert.", "model."] {
            let copy = Copy::of(name).edit_tensors(|tensors| {
                *tensors = std::mem::take(tensors)
                    .into_iter()
                    .map(|(name, tensor)| (format!("{prefix}{name}"), tensor))
                    .collect();
                // A head on top is none of our business.
                tensors.insert("classifier.bias".into(), (Dtype::F32, vec![1], vec![0; 4]));
            });
            assert!(copy.read().unwrap() == expected, "{name} with {prefix}");
        }
    }
    let copy = Copy::of("bert").edit_tensors(|tensors| {
        *tensors = std::mem::take(tensors)
            .into_iter()
            .map(|(name, tensor)| {
                let old = name.replace("LayerNorm.weight", "LayerNorm.gamma");
                (old.replace("LayerNorm.bias", "LayerNorm.beta"), tensor)
            })
            .collect();
    });
    assert!(copy.read().unwrap() == Copy::of("bert").read().unwrap());
    let copy = Copy::of("bert").edit_tensors(|tensors| {
        let tensor = tensors["embeddings.word_embeddings.weight"].clone();
        tensors.insert("other.embeddings.word_embeddings.weight".into(), tensor);
    });
    copy.fails("checkpoint_invalid", &["more than once", "other."]);
}

#[test]
fn shards_are_joined() {
    let copy = Copy::of("bert");
    let expected = copy.read().unwrap();
    let mut first = copy.tensors();
    let second = first.split_off("encoder.layer.1");
    let map: BTreeMap<&String, &str> = first
        .keys()
        .map(|name| (name, "model-00001-of-00002.safetensors"))
        .chain(second.keys().map(|name| (name, "model-00002-of-00002.safetensors")))
        .collect();
    copy.write_tensors("model-00001-of-00002.safetensors", &first);
    copy.write_tensors("model-00002-of-00002.safetensors", &second);
    let index = json!({"metadata": {}, "weight_map": map}).to_string();
    std::fs::write(copy.path("model.safetensors.index.json"), index).unwrap();
    std::fs::remove_file(copy.path("model.safetensors")).unwrap();
    assert!(copy.read().unwrap() == expected);

    std::fs::remove_file(copy.path("model-00002-of-00002.safetensors")).unwrap();
    copy.fails("io", &["model-00002-of-00002.safetensors"]);
    let outside = json!({"weight_map": {"a": "../model.safetensors"}}).to_string();
    std::fs::write(copy.path("model.safetensors.index.json"), outside).unwrap();
    copy.fails("checkpoint_invalid", &["../model.safetensors"]);
}

#[test]
fn options_choose_layers_pooling_prefix_and_length() {
    let read = |options: ConvertOptions| read_checkpoint(&small("bert"), &options);
    let all = read(ConvertOptions::default()).unwrap();
    let cut = read(ConvertOptions {
        layers: Some(vec![0, 2]),
        pooling: Some(Pooling::Cls),
        prefix: Some("query: ".into()),
        max_tokens: Some(17),
        ..ConvertOptions::default()
    })
    .unwrap();
    assert_eq!(cut.config.num_hidden_layers, 2);
    assert!(cut.layers[0] == all.layers[0] && cut.layers[1] == all.layers[2]);
    assert_eq!(cut.config.pooling, Pooling::Cls);
    assert_eq!(cut.position_embeddings.rows, 17);
    let encoder = Encoder::from_bytes(format::write(&cut).unwrap()).unwrap();
    assert_eq!(encoder.config().prefix, "query: ");
    assert_eq!(encoder.token_ids(&"가 ".repeat(50)).unwrap().len(), 17);

    for layers in [vec![], vec![0, 3], vec![1, 0], vec![1, 1]] {
        let error =
            read(ConvertOptions { layers: Some(layers), ..Default::default() }).unwrap_err();
        assert_eq!(error.code(), "input_invalid");
        assert!(error.to_string().contains("3 layers"), "{error}");
    }
    for max_tokens in [0, 65] {
        let options = ConvertOptions { max_tokens: Some(max_tokens), ..Default::default() };
        assert!(read(options).unwrap_err().to_string().contains("64 positions"));
    }
    let error = read_checkpoint(Path::new("no such folder"), &ConvertOptions::default());
    assert_eq!(error.unwrap_err().code(), "input_invalid");
}

#[test]
fn pooling_of_sentence_transformers_is_obeyed() {
    let copy = Copy::of("bert");
    std::fs::create_dir(copy.path("1_Pooling")).unwrap();
    let write = |cls: bool, mean: bool, max: bool| {
        let config = json!({"word_embedding_dimension": 48, "pooling_mode_cls_token": cls,
            "pooling_mode_mean_tokens": mean, "pooling_mode_max_tokens": max});
        std::fs::write(copy.path("1_Pooling/config.json"), config.to_string()).unwrap();
    };
    write(true, false, false);
    assert_eq!(copy.read().unwrap().config.pooling, Pooling::Cls);
    write(false, true, false);
    assert_eq!(copy.read().unwrap().config.pooling, Pooling::Mean);
    write(false, false, true);
    copy.fails("checkpoint_unsupported", &["pooling_mode_max_tokens"]);
}

#[test]
fn a_manifest_guards_its_model() {
    let folder = TempDir::new().unwrap();
    let bytes = format::write(&Copy::of("bert").read().unwrap()).unwrap();
    let info = Encoder::from_bytes(bytes.as_slice()).unwrap().info();
    let manifest = Manifest::new("tiny.munjang", &bytes, &info);
    let path = folder.path().join("manifest.json");
    std::fs::write(&path, manifest.to_json()).unwrap();
    std::fs::write(folder.path().join("tiny.munjang"), &bytes).unwrap();
    assert_eq!(Manifest::read_model(&path).unwrap().1, bytes);

    let mut damaged = bytes.clone();
    *damaged.last_mut().unwrap() ^= 1;
    std::fs::write(folder.path().join("tiny.munjang"), &damaged).unwrap();
    let error = Manifest::read_model(&path).unwrap_err();
    assert!(error.code() == "weights_mismatch" && error.to_string().contains("SHA-256"), "{error}");
    std::fs::write(folder.path().join("tiny.munjang"), &bytes[1..]).unwrap();
    assert!(Manifest::read_model(&path).unwrap_err().to_string().contains("size"));
    std::fs::write(&path, manifest.to_json().replace("tiny.munjang", "../tiny.munjang")).unwrap();
    assert_eq!(Manifest::read_model(&path).unwrap_err().code(), "data_invalid");
}

#[test]
fn a_model_written_as_a_checkpoint_converts_to_the_same_file() {
    for name in SMALL {
        let model = read_checkpoint(&small(name), &ConvertOptions::default()).unwrap();
        let folder = TempDir::new().unwrap();
        for (file, bytes) in checkpoint_files(&model).unwrap() {
            let path = folder.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
        let again = read_checkpoint(folder.path(), &ConvertOptions::default()).unwrap();
        assert_eq!(again.config, model.config, "{name}");
        assert_eq!(format::write(&again).unwrap(), format::write(&model).unwrap(), "{name}");
    }
}
