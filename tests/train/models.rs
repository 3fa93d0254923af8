//! What stages without gradients make of a model.

use std::fs;

use crate::golden_files::{corpus, small};
use crate::recipe::{Place, RECIPE};
use candle_core::Device;
use munjang::Encoder;
use munjang::convert::{ConvertOptions, read_checkpoint};
use munjang::tokenizer::Tokenizer;
use munjang::train::internals::{BertModel, Purpose, TokenBatch, prune_vocabulary, shift_states};
use munjang::train::recipe::Slot;
use munjang::weights::FloatModel;

#[test]
fn centring_moves_the_mean_vector_to_zero() {
    let place = Place::new();
    let run = place.run(RECIPE, "out");
    run.run(Some("vocabulary")).unwrap();
    run.run(Some("center")).unwrap();
    let model = run.model_before(2, Slot::Teacher).unwrap();
    let tokenizer = run.tokenizer(&model, Purpose::Training).unwrap();
    let text = fs::read_to_string(place.data().join("plain/lines.txt")).unwrap();
    let ids: Vec<Vec<u32>> = text.lines().map(|line| tokenizer.encode(line).unwrap().ids).collect();
    let bert = BertModel::from_float_model(&model, &Device::Cpu).unwrap();
    let batch = TokenBatch::new(&ids).unwrap();
    let pooled = bert.forward(&batch, &Default::default()).unwrap().pooled;
    let mean = pooled.mean(0).unwrap().to_vec1::<f32>().unwrap();
    let length = pooled.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap();
    assert!(mean.iter().all(|x| x.abs() < 1e-4), "{mean:?}");
    assert!(length > 1.0);
}

#[test]
fn shifted_states_are_the_same_model_and_quantize_better() {
    let mut model = read_checkpoint(&small("bert"), &ConvertOptions::default()).unwrap();
    // What trained models have: channels far from zero on every token.
    for layer in &mut model.layers {
        layer.attention_norm.bias[3] += 9.0;
        layer.output_norm.bias[5] -= 7.0;
    }
    let lines: Vec<String> = corpus().into_iter().take(100).collect();
    let max = model.config.max_position_embeddings;
    let tokenizer = Tokenizer::from_bytes(&model.tokenizer_json, "", max).unwrap();
    let ids: Vec<Vec<u32>> = lines.iter().map(|line| tokenizer.encode(line).unwrap().ids).collect();
    let sentences: Vec<&[u32]> = ids.iter().map(Vec::as_slice).collect();
    let batch = TokenBatch::new(&ids).unwrap();
    let vectors = |model: &FloatModel| {
        BertModel::from_float_model(model, &Device::Cpu).unwrap().encode(&batch, None).unwrap()
    };
    let quantized = |model: &FloatModel| {
        Encoder::from_bytes(munjang::format::write(model).unwrap())
            .unwrap()
            .encode_ids(&ids)
            .unwrap()
    };
    let distance = |a: &[f32], b: &[f32]| -> f32 {
        a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum::<f32>() / ids.len() as f32
    };
    let (float, before) = (vectors(&model), quantized(&model));
    let most = shift_states(&mut model, &sentences).unwrap();
    assert!((7.0..12.0).contains(&most), "{most}");
    assert!(distance(&float, &vectors(&model)) < 1e-9);
    let (before, after) = (distance(&float, &before), distance(&float, &quantized(&model)));
    assert!(after < before / 4.0, "{before} {after}");

    // Nothing is left to move, but for the last states, which are pooled.
    let bert = BertModel::from_float_model(&model, &Device::Cpu).unwrap();
    let hidden = model.config.hidden_size;
    let last = 2 * model.layers.len();
    bert.observe_norms(&batch, &mut |norm, states| {
        for channel in 0..hidden {
            let sum: f32 = states.iter().skip(channel).step_by(hidden).sum();
            let mean = sum / batch.num_tokens() as f32;
            assert!(norm == last || mean.abs() < 1e-3, "{norm} {channel}: {mean}");
        }
    })
    .unwrap();
}

#[test]
fn a_pruned_vocabulary_keeps_the_rows_of_its_pieces() {
    const KEPT: usize = 890;
    let lines: Vec<String> = corpus().into_iter().take(300).collect();
    let model = read_checkpoint(&small("xlm-roberta"), &ConvertOptions::default()).unwrap();
    let texts = lines.iter().map(String::as_str);
    let pruned = prune_vocabulary(&model, &["query: "], texts, KEPT).unwrap();
    assert_eq!((pruned.config.vocab_size, pruned.word_embeddings.rows), (KEPT, KEPT));
    let rows = |model: &FloatModel, text: &str| -> Vec<Vec<f32>> {
        let max = model.config.max_position_embeddings;
        let tokenizer = Tokenizer::from_bytes(&model.tokenizer_json, "", max).unwrap();
        let ids = tokenizer.encode(text).unwrap().ids;
        ids.iter().map(|&id| model.word_embeddings.row(id as usize).to_vec()).collect()
    };
    let same = lines.iter().filter(|line| rows(&model, line) == rows(&pruned, line)).count();
    assert!(same * 2 > lines.len(), "{same} of {}", lines.len());

    // A piece of a BPE vocabulary cannot go alone.
    let bpe = read_checkpoint(&small("roberta"), &ConvertOptions::default()).unwrap();
    let error = prune_vocabulary(&bpe, &[], ["가"], 100).unwrap_err();
    assert_eq!(error.code(), "tokenizer_invalid");
}
