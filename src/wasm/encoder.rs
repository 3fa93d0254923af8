//! The encoder as an exported class.

use js_sys::{Array, Float32Array, Object, Reflect, Uint8Array, Uint32Array};
use serde::Serialize;
use wasm_bindgen::prelude::*;

use super::error::to_js;
use crate::bytes::AlignedBytes;
use crate::config::ModelConfig;
use crate::error::{Error, ErrorKind};
use crate::format::ModelFile;
use crate::kernels;

/// A sentence encoder; made by `ModelBuffer.finish`.
#[wasm_bindgen]
pub struct Encoder {
    inner: crate::Encoder,
}

/// [`crate::ModelInfo`] with the names that JavaScript expects.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Info {
    model_id: String,
    format_version: u32,
    bytes: usize,
    kernel: &'static str,
    dimension: usize,
    config: ModelConfig,
}

impl Encoder {
    /// With the error, the bytes of a file in which only the tokenizer is at fault.
    pub(super) fn from_bytes(
        bytes: AlignedBytes,
    ) -> Result<Encoder, (JsValue, Option<AlignedBytes>)> {
        let file = ModelFile::parse(bytes).map_err(|error| (to_js(error), None))?;
        match crate::Encoder::tokenizer_of(&file) {
            Ok(tokenizer) => Ok(Encoder {
                inner: crate::Encoder::from_parts(file, tokenizer, kernels::select()),
            }),
            Err(error) => Err((to_js(error), file.into_bytes())),
        }
    }
}

#[wasm_bindgen]
impl Encoder {
    /// Encodes an array of strings: `{ embeddings: Float32Array (n × hiddenSize), tokenCounts:
    /// Uint32Array (n), truncated: Uint8Array (n, 0 or 1) }`, in input order.
    ///
    /// Lone surrogates become U+FFFD on the way in. Throws `input_invalid`, naming the index, for an
    /// element that is not a string.
    #[wasm_bindgen(js_name = encodeBatch)]
    pub fn encode_batch(&self, texts: &Array) -> Result<Object, JsValue> {
        let texts = texts
            .iter()
            .enumerate()
            .map(|(index, text)| {
                text.as_string().ok_or_else(|| {
                    to_js(Error::new(
                        ErrorKind::InputInvalid,
                        format!("texts[{index}] is not a string; pass strings only"),
                    ))
                })
            })
            .collect::<Result<Vec<String>, JsValue>>()?;
        let encoded = self.inner.encode_batch(&texts).map_err(to_js)?;
        let truncated: Vec<u8> = encoded.truncated.iter().map(|&cut| u8::from(cut)).collect();
        let result = Object::new();
        set(&result, "embeddings", &Float32Array::from(encoded.embeddings.as_slice()))?;
        set(&result, "tokenCounts", &Uint32Array::from(encoded.token_counts.as_slice()))?;
        set(&result, "truncated", &Uint8Array::from(truncated.as_slice()))?;
        Ok(result)
    }

    /// Encodes token ids (special tokens included by the caller): `flat` holds all sentences' ids
    /// one after the other, `lengths` how many belong to each. Returns `n × hiddenSize` values.
    ///
    /// Throws `input_invalid` if the lengths do not add up to the ids, or for ids outside of the
    /// vocabulary and sentences longer than the model's maximum.
    #[wasm_bindgen(js_name = encodeIds)]
    pub fn encode_ids(&self, flat: &[u32], lengths: &[u32]) -> Result<Vec<f32>, JsValue> {
        let mut rest = flat;
        let mut batch = Vec::with_capacity(lengths.len());
        for &length in lengths {
            let Some((ids, after)) = rest.split_at_checked(length as usize) else {
                return Err(lengths_disagree(flat.len(), lengths));
            };
            batch.push(ids);
            rest = after;
        }
        if !rest.is_empty() {
            return Err(lengths_disagree(flat.len(), lengths));
        }
        self.inner.encode_ids(&batch).map_err(to_js)
    }

    /// Tokens of `text` before truncation, prefix and special tokens included.
    #[wasm_bindgen(js_name = countTokens)]
    pub fn count_tokens(&self, text: &str) -> Result<usize, JsValue> {
        self.inner.count_tokens(text).map_err(to_js)
    }

    /// What was loaded, as a plain object: `{ modelId, formatVersion, bytes, kernel,
    /// dimension, config }`.
    pub fn info(&self) -> Result<JsValue, JsValue> {
        let info = self.inner.info();
        let info = Info {
            model_id: info.model_id,
            format_version: info.format_version,
            bytes: info.bytes,
            kernel: info.kernel,
            dimension: info.config.dimension(),
            config: info.config,
        };
        Ok(serde_wasm_bindgen::to_value(&info)?)
    }
}

fn set(object: &Object, name: &str, value: &JsValue) -> Result<(), JsValue> {
    Reflect::set(object, &JsValue::from_str(name), value).map(drop)
}

fn lengths_disagree(ids: usize, lengths: &[u32]) -> JsValue {
    let sum: u64 = lengths.iter().map(|&length| u64::from(length)).sum();
    to_js(Error::new(
        ErrorKind::InputInvalid,
        format!("{ids} token ids were given, but the lengths add up to {sum}"),
    ))
}
