//! The encoder and the model in training against candle-transformers' BERT in f32: a second
//! implementation that shares no code with ours and needs no golden file.
//!
//! `cargo test --features train --test oracle`

#![cfg(feature = "train")]

mod golden_files;

use candle_core::{DType, Device, IndexOp, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::bert::{BertModel, Config};
use golden_files::{sentences, small};
use munjang::train::internals::{BertModel as TrainingModel, TokenBatch};
use munjang::{Encoder, convert, format};

/// Mean of candle's token states, at length 1.
fn reference(model: &BertModel, ids: &[u32]) -> Vec<f32> {
    let run = || -> candle_core::Result<Vec<f32>> {
        let ids = Tensor::new(ids, &Device::Cpu)?.unsqueeze(0)?;
        let states = model.forward(&ids, &ids.zeros_like()?, None)?;
        let mean = states.i(0)?.mean(0)?;
        mean.broadcast_div(&mean.sqr()?.sum_all()?.sqrt()?)?.to_vec1()
    };
    run().unwrap()
}

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[test]
fn candle_gives_the_same_embeddings() {
    let folder = small("bert");
    let config: Config =
        serde_json::from_slice(&std::fs::read(folder.join("config.json")).unwrap()).unwrap();
    let weights = std::fs::read(folder.join("model.safetensors")).unwrap();
    let weights = VarBuilder::from_buffered_safetensors(weights, DType::F32, &Device::Cpu).unwrap();
    let candle = BertModel::load(weights, &config).unwrap();

    let float = convert::read_checkpoint(&folder, &convert::ConvertOptions::default()).unwrap();
    let encoder = Encoder::from_bytes(format::write(&float).unwrap()).unwrap();
    let training = TrainingModel::from_float_model(&float, &Device::Cpu).unwrap();
    let mut texts = sentences();
    texts.truncate(60);
    texts.push(String::new());
    let ids: Vec<Vec<u32>> = texts.iter().map(|text| encoder.token_ids(text).unwrap()).collect();
    let hidden = config.hidden_size;
    let quantized = encoder.encode_ids(&ids).unwrap();
    let trained = training.encode(&TokenBatch::new(&ids).unwrap(), None).unwrap();
    for (index, (text, ids)) in texts.iter().zip(&ids).enumerate() {
        let expected = reference(&candle, ids);
        let row = index * hidden..(index + 1) * hidden;
        for (ours, theirs) in trained[row.clone()].iter().zip(&expected) {
            assert!((ours - theirs).abs() < 2e-6, "{text:?}: {ours} against {theirs}");
        }
        // int8 against float on a model of 48 random dimensions.
        let cosine = cosine(&quantized[row], &expected);
        assert!(cosine >= 0.995, "{text:?}: {cosine}");
    }
}
