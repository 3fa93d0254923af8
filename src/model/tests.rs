//! What no file can bring about any more, seen from inside.

use super::*;
use crate::config::Activation;
use crate::format;
use crate::weights::{Additions, FloatModel, Layer, LayerNorm, Linear, Matrix};
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

const HIDDEN: usize = 16;
const VOCAB: usize = 4;

/// A model whose token 3 is the same value in every column.
fn model(pooling: Pooling) -> Vec<u8> {
    let matrix = |rows: usize, cols: usize| Matrix {
        rows,
        cols,
        data: (0..rows * cols).map(|i| (i * 7 % 13) as f32 / 13.0 - 0.4).collect(),
    };
    let linear = || Linear { weight: matrix(HIDDEN, HIDDEN), bias: vec![0.1; HIDDEN] };
    let norm = || LayerNorm { weight: vec![1.0; HIDDEN], bias: vec![0.0; HIDDEN] };
    let mut word_embeddings = matrix(VOCAB, HIDDEN);
    word_embeddings.data[3 * HIDDEN..].fill(0.5);
    let tokenizer = r#"{"version":"1.0","truncation":null,"padding":null,"added_tokens":[],
        "normalizer":null,"pre_tokenizer":{"type":"Metaspace","replacement":"▁",
        "prepend_scheme":"always","split":true},"post_processor":null,"decoder":null,
        "model":{"type":"Unigram","unk_id":0,"byte_fallback":false,
        "vocab":[["<unk>",0.0],["a",-1.0],["b",-2.0],["c",-3.0]]}}"#;
    let layer = Layer {
        query: linear(),
        key: linear(),
        value: linear(),
        attention_output: linear(),
        attention_norm: norm(),
        intermediate: linear(),
        output: linear(),
        output_norm: norm(),
    };
    format::write(&FloatModel {
        config: ModelConfig {
            model_type: "bert".into(),
            vocab_size: VOCAB,
            hidden_size: HIDDEN,
            num_hidden_layers: 1,
            num_attention_heads: 2,
            intermediate_size: HIDDEN,
            max_position_embeddings: 8,
            layer_norm_eps: 1e-12,
            hidden_act: Activation::Gelu,
            pooling,
            ..ModelConfig::default()
        },
        tokenizer_json: tokenizer.into(),
        word_embeddings,
        position_embeddings: Matrix { rows: 8, cols: HIDDEN, data: vec![0.0; 8 * HIDDEN] },
        embedding_norm: norm(),
        layers: vec![layer],
        additions: Additions::default(),
    })
    .unwrap()
}

/// Of a sentence whose first token is fine and whose second is not, pooling by the first token would show
/// nothing.
#[test]
fn a_state_that_is_not_finite_is_seen_whatever_the_pooling() {
    for pooling in [Pooling::Mean, Pooling::Cls] {
        for table in kernels::available() {
            let file = ModelFile::parse(model(pooling).into()).unwrap();
            let tokenizer = Encoder::tokenizer_of(&file).unwrap();
            let mut encoder = Encoder::from_parts(file, tokenizer, table);
            let sentences: [&[u32]; 3] = [&[1, 2], &[1, 3], &[2, 1]];
            encoder.encode_ids(&sentences).unwrap();
            // The variance of token 3 is 0: its factor is now infinite.
            encoder.file.config.layer_norm_eps = 0.0;
            let error = encoder.encode_ids(&sentences).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NonFinite, "{} {pooling:?}", table.name);
            assert!(error.to_string().contains("sentence 1"), "{error}");
            encoder.encode_ids(&[sentences[0], sentences[2]]).unwrap();
        }
    }
}

#[test]
fn infinities_and_nan_are_found_wherever_they_are() {
    let mut values = vec![f32::MAX; 100];
    values[50..].fill(-1e-45);
    assert!(all_finite(&values) && all_finite(&[]));
    for at in [0, 49, 99] {
        for x in
            [f32::INFINITY, f32::NEG_INFINITY, f32::NAN, -f32::NAN, f32::from_bits(0x7f80_0001)]
        {
            let before = std::mem::replace(&mut values[at], x);
            assert!(!all_finite(&values), "{x} at {at}");
            values[at] = before;
        }
    }
}
