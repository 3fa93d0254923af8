//! The model file: what is written is read, and whatever is damaged is named.
#![cfg(feature = "general-tokenizers")]

mod common;

use common::{config, float_model};
use munjang::{Encoder, ErrorKind, ModelConfig, format};
use serde_json::{Value, json};

fn file() -> Vec<u8> {
    format::write(&float_model(config(), 3)).unwrap()
}

fn error_of(bytes: Vec<u8>) -> munjang::Error {
    Encoder::from_bytes(bytes).err().expect("a damaged file must not load")
}

/// Rewrites the header, keeping the data's alignment.
fn edit(file: &[u8], change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let length = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
    let mut header: Value = serde_json::from_slice(&file[8..8 + length]).unwrap();
    change(&mut header);
    let mut text = serde_json::to_vec(&header).unwrap();
    text.resize((8 + text.len()).next_multiple_of(64) - 8, b' ');
    let mut out = (text.len() as u64).to_le_bytes().to_vec();
    out.extend(text);
    out.extend(&file[8 + length..]);
    out
}

/// Where the data of tensor `name` lies in the file.
fn data_of(file: &[u8], name: &str) -> std::ops::Range<usize> {
    let length = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&file[8..8 + length]).unwrap();
    let offset = |i: usize| 8 + length + header[name]["data_offsets"][i].as_u64().unwrap() as usize;
    offset(0)..offset(1)
}

fn assert_error(bytes: Vec<u8>, kind: ErrorKind, message: &str) {
    let error = error_of(bytes);
    assert_eq!(error.kind(), kind, "{error}");
    assert!(format!("{error:#}").contains(message), "{error:#} does not say {message:?}");
}

#[test]
fn what_is_written_is_read() {
    let bytes = file();
    let length = bytes.len();
    let info = Encoder::from_bytes(bytes).unwrap().info();
    assert_eq!(info.config, config());
    assert_eq!((info.bytes, info.format_version), (length, format::FORMAT_VERSION));
    assert_eq!(info.model_id.len(), 16);
}

#[test]
fn the_model_id_follows_the_content() {
    let id = |bytes: Vec<u8>| Encoder::from_bytes(bytes).unwrap().info().model_id;
    let mut changed = float_model(config(), 3);
    changed.layers[1].output.bias[5] += 0.01;
    assert_eq!(id(file()), id(file()));
    assert_ne!(id(file()), id(format::write(&changed).unwrap()));
    let prefixed = float_model(ModelConfig { prefix: "query: ".into(), ..config() }, 3);
    assert_ne!(id(file()), id(format::write(&prefixed).unwrap()));
}

#[test]
fn other_readers_of_safetensors_open_it() {
    let bytes = file();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let words = tensors.tensor("word_embeddings").unwrap();
    assert_eq!((words.dtype(), words.shape()), (safetensors::Dtype::I8, &[100, 48][..]));
}

#[test]
fn a_file_cut_anywhere_is_truncated() {
    let whole = file();
    // Every length near the seams, and a sweep over the rest.
    let cuts = (0..200).chain((200..whole.len()).step_by(997)).chain([whole.len() - 1]);
    for cut in cuts {
        let error = error_of(whole[..cut].to_vec());
        assert_eq!(error.kind(), ErrorKind::WeightsTruncated, "{cut}: {error}");
    }
}

#[test]
fn a_file_with_more_than_its_tensors_is_refused() {
    let mut bytes = file();
    bytes.extend([0; 13]);
    assert_error(bytes, ErrorKind::WeightsMalformed, "13 bytes follow its last tensor");
}

#[test]
fn what_is_no_model_file_is_told_apart() {
    let page = b"<!doctype html><html><body>404 Not Found</body></html>".to_vec();
    assert_error(page, ErrorKind::WeightsMalformed, "is this a web page");
    let mut bytes = file();
    bytes[8] = b'[';
    assert_error(bytes, ErrorKind::WeightsMalformed, "header is not valid");
    let other = edit(&file(), |h| h["__metadata__"]["format"] = json!("pt"));
    assert_error(other, ErrorKind::WeightsMalformed, "its format is \"pt\"");
    let bare = edit(&file(), |h| drop(h.as_object_mut().unwrap().remove("__metadata__")));
    assert_error(bare, ErrorKind::WeightsMalformed, "munjang convert");
    let newer = edit(&file(), |h| h["__metadata__"]["format_version"] = json!("99"));
    assert_error(newer, ErrorKind::WeightsVersion, "format version 99");
}

#[test]
fn tensors_are_checked_by_name_dtype_and_shape() {
    let renamed = edit(&file(), |h| {
        let header = h.as_object_mut().unwrap();
        let tensor = header.remove("layers.1.output.bias").unwrap();
        header.insert("layers.7.output.bias".into(), tensor);
    });
    assert_error(
        renamed,
        ErrorKind::WeightsMismatch,
        "\"layers.1.output.bias\" (F32 [48]) is missing",
    );
    let dtype = edit(&file(), |h| h["embedding_norm.weight"]["dtype"] = json!("I32"));
    assert_error(
        dtype,
        ErrorKind::WeightsMismatch,
        "\"embedding_norm.weight\" is I32 [48]; expected F32",
    );
    let shape = edit(&file(), |h| h["word_embeddings"]["shape"] = json!([50, 96]));
    assert_error(shape, ErrorKind::WeightsMismatch, "is I8 [50, 96]; expected I8 [100, 48]");
    let extra = edit(&file(), |h| {
        let layers = h["__metadata__"]["config"].as_str().unwrap();
        let layers = layers.replace("\"num_hidden_layers\":2", "\"num_hidden_layers\":1");
        h["__metadata__"]["config"] = json!(layers);
    });
    assert_error(extra, ErrorKind::WeightsMalformed, "that no model has");
}

#[test]
fn lying_offsets_and_sizes_are_refused_before_they_are_believed() {
    for offsets in
        [json!([0, u64::MAX]), json!([64, 0]), json!([1u64 << 40, 1u64 << 41]), json!([0, 1])]
    {
        let bytes = edit(&file(), |h| h["word_embeddings"]["data_offsets"] = offsets.clone());
        let kind = error_of(bytes).kind();
        assert!(
            matches!(kind, ErrorKind::WeightsMalformed | ErrorKind::WeightsTruncated),
            "{offsets}: {kind:?}"
        );
    }
    let mut bytes = file();
    bytes[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    assert_error(bytes, ErrorKind::WeightsMalformed, "its header claims");
    for (from, to) in [
        ("\"vocab_size\":100", "\"vocab_size\":4000000000"),
        ("\"hidden_size\":48", "\"hidden_size\":0"),
        ("\"num_attention_heads\":4", "\"num_attention_heads\":5"),
        ("\"max_position_embeddings\":300", "\"max_position_embeddings\":5000"),
        ("\"model_type\"", "\"surprise\""),
    ] {
        let bytes = edit(&file(), |h| {
            let config = h["__metadata__"]["config"].as_str().unwrap();
            assert!(config.contains(from), "{config}");
            h["__metadata__"]["config"] = json!(config.replace(from, to));
        });
        assert_eq!(error_of(bytes).kind(), ErrorKind::ConfigInvalid, "{to}");
    }
}

#[test]
fn values_that_would_poison_the_sums_are_refused() {
    for (tensor, value) in [
        ("layers.0.query_key_value.scale", f32::NAN),
        ("layers.0.output.scale", -1.0),
        ("layers.1.intermediate.bias", f32::INFINITY),
        ("output_norm.weight", 1e30),
        ("word_embeddings.scale", f32::NAN),
    ] {
        let mut bytes = file();
        let tensor =
            if tensor == "output_norm.weight" { "layers.1.output_norm.weight" } else { tensor };
        let at = data_of(&bytes, tensor).start + 8;
        bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        assert_error(bytes, ErrorKind::WeightsMalformed, tensor);
    }
    let mut bytes = file();
    let at = data_of(&bytes, "layers.1.output.weight").start + 100;
    bytes[at] = 64;
    assert_error(bytes, ErrorKind::WeightsMalformed, "beyond ±63");
}

#[test]
fn a_tokenizer_that_does_not_fit_is_refused() {
    let mut model = float_model(config(), 3);
    model.tokenizer_json = common::tokenizer_json(101);
    assert_error(format::write(&model).unwrap(), ErrorKind::TokenizerInvalid, "100");
    model.tokenizer_json = b"{}".to_vec();
    assert_error(format::write(&model).unwrap(), ErrorKind::TokenizerInvalid, "tokenizer");
}

#[test]
fn only_a_complete_finite_model_is_written() {
    let mut model = float_model(config(), 3);
    model.layers[0].key.weight.data[17] = f32::NAN;
    assert_eq!(format::write(&model).unwrap_err().kind(), ErrorKind::NonFinite);
    let mut model = float_model(config(), 3);
    model.layers.pop();
    assert_eq!(format::write(&model).unwrap_err().kind(), ErrorKind::WeightsMismatch);
    let mut model = float_model(config(), 3);
    model.layers[0].output = model.layers[0].query.clone();
    assert_eq!(format::write(&model).unwrap_err().kind(), ErrorKind::WeightsMismatch);
}

#[test]
fn a_model_id_is_sixteen_hex_digits() {
    for id in ["", "0123456789abcde", "0123456789ABCDEF", "0123456789abcdef0", "0123456789abcdeg"] {
        let bytes = edit(&file(), |h| h["__metadata__"]["model_id"] = json!(id));
        assert_error(bytes, ErrorKind::WeightsMalformed, "expected 16 hexadecimal digits");
    }
}

/// Sizes that are no multiples of 16, so that everything is padded; each padding changed by turns.
#[test]
fn padding_is_zeros() {
    let config =
        ModelConfig { hidden_size: 40, num_attention_heads: 2, intermediate_size: 72, ..config() };
    let whole = format::write(&float_model(config, 3)).unwrap();
    Encoder::from_bytes(whole.as_slice()).unwrap();
    // Heads of 20 become 32: channel 20 is padding, as are 40 of the 48 hidden and 72 of the 80
    // intermediate. A panel is 16 channels of all inputs; within, groups of 4 inputs.
    let weight = |row: usize, col: usize, cols: usize| {
        row / 16 * cols * 16 + (col / 4 * 16 + row % 16) * 4 + col % 4
    };
    let last = |name: &str| data_of(&whole, name).len() - 1;
    for (name, at) in [
        ("layers.0.query_key_value.weight", weight(20, 0, 48)),
        ("layers.0.query_key_value.weight", weight(0, 40, 48)),
        ("layers.1.query_key_value.scale", 4 * 20 + 3),
        ("layers.1.query_key_value.bias", 4 * 31 + 3),
        ("layers.0.attention_output.weight", weight(0, 20, 64)),
        ("layers.0.attention_output.weight", weight(40, 0, 64)),
        ("layers.0.intermediate.weight", weight(72, 0, 48)),
        ("layers.1.output.weight", weight(0, 72, 80)),
        ("layers.1.output.bias", last("layers.1.output.bias")),
        ("layers.1.output_norm.weight", last("layers.1.output_norm.weight")),
        ("embedding_norm.bias", last("embedding_norm.bias")),
        ("word_embeddings", last("word_embeddings")),
        ("position_embeddings", 40),
    ] {
        let mut bytes = whole.clone();
        let place = &mut bytes[data_of(&whole, name)][at];
        assert_eq!(*place, 0, "{name}");
        // A weight that is allowed elsewhere; as the last byte of a float, 0.5.
        *place = 63;
        let what = name.rsplit_once('.').filter(|_| name.contains("norm")).map_or(name, |n| n.0);
        let part =
            what.trim_end_matches(".weight").trim_end_matches(".scale").trim_end_matches(".bias");
        assert_error(
            bytes,
            ErrorKind::WeightsMalformed,
            &format!("tensor {part:?} holds something"),
        );
    }
}
