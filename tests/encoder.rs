//! The encoder against a plain float model, and the promise that an embedding is the same bits
//! alone and in any batch, in every table of kernels.
#![cfg(feature = "general-tokenizers")]

mod common;

use common::{Numbers, config, float_model};
use munjang::config::{Activation, ModelConfig, Pooling};
use munjang::internals::kernels;
use munjang::weights::{FloatModel, LayerNorm, Linear};
use munjang::{Encoder, ErrorKind, format};

/// BERT in double precision, straight from the definition; shares no code with the encoder.
fn reference(model: &FloatModel, ids: &[u32]) -> Vec<f64> {
    let config = &model.config;
    let norm = |x: Vec<f64>, norm: &LayerNorm| {
        let n = x.len() as f64;
        let mean = x.iter().sum::<f64>() / n;
        let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
        let factor = 1.0 / (variance + config.layer_norm_eps as f64).sqrt();
        x.iter()
            .zip(norm.weight.iter().zip(&norm.bias))
            .map(|(x, (&w, &b))| (x - mean) * factor * w as f64 + b as f64)
            .collect::<Vec<f64>>()
    };
    let linear = |x: &[f64], layer: &Linear| -> Vec<f64> {
        (0..layer.weight.rows)
            .map(|r| {
                let dot: f64 = layer.weight.row(r).iter().zip(x).map(|(&w, x)| w as f64 * x).sum();
                dot + layer.bias[r] as f64
            })
            .collect()
    };
    let act = |x: f64| match config.hidden_act {
        Activation::Relu => x.max(0.0),
        // Both GELUs agree to 5e-4, far below what int8 resolves.
        _ => {
            0.5 * x
                * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh())
        }
    };
    let add = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a + b).collect::<Vec<f64>>();
    let mut states: Vec<Vec<f64>> = ids
        .iter()
        .enumerate()
        .map(|(p, &id)| {
            let word = model.word_embeddings.row(id as usize);
            let place = model.position_embeddings.row(p);
            norm(
                word.iter().zip(place).map(|(a, b)| (a + b) as f64).collect(),
                &model.embedding_norm,
            )
        })
        .collect();
    let size = config.head_size();
    for layer in &model.layers {
        let project = |l: &Linear| states.iter().map(|x| linear(x, l)).collect::<Vec<_>>();
        let (q, k, v) = (project(&layer.query), project(&layer.key), project(&layer.value));
        states = (0..states.len())
            .map(|t| {
                let mut context = vec![0.0; config.hidden_size];
                for head in 0..config.num_attention_heads {
                    let part = head * size..(head + 1) * size;
                    let scores: Vec<f64> = k
                        .iter()
                        .map(|k| {
                            let pairs = q[t][part.clone()].iter().zip(&k[part.clone()]);
                            pairs.map(|(a, b)| a * b).sum::<f64>() / (size as f64).sqrt()
                        })
                        .collect();
                    let best = scores.iter().cloned().fold(f64::MIN, f64::max);
                    let weights: Vec<f64> = scores.iter().map(|s| (s - best).exp()).collect();
                    let total: f64 = weights.iter().sum();
                    for (v, w) in v.iter().zip(&weights) {
                        for i in part.clone() {
                            context[i] += v[i] * w / total;
                        }
                    }
                }
                let attended = linear(&context, &layer.attention_output);
                let x = norm(add(&states[t], &attended), &layer.attention_norm);
                let middle: Vec<f64> =
                    linear(&x, &layer.intermediate).into_iter().map(act).collect();
                norm(add(&x, &linear(&middle, &layer.output)), &layer.output_norm)
            })
            .collect();
    }
    let pooled: Vec<f64> = match config.pooling {
        Pooling::Cls => states[0].clone(),
        _ => (0..config.hidden_size)
            .map(|i| states.iter().map(|x| x[i]).sum::<f64>() / states.len() as f64)
            .collect(),
    };
    let length = pooled.iter().map(|x| x * x).sum::<f64>().sqrt();
    pooled.into_iter().map(|x| x / length).collect()
}

fn cosine(a: &[f32], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(&a, b)| a as f64 * b).sum()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| x.to_bits()).collect()
}

/// Lengths around every block, group and lane boundary, in no particular order.
const LENGTHS: [usize; 22] =
    [3, 1, 17, 64, 2, 255, 16, 33, 5, 65, 15, 300, 31, 4, 32, 63, 7, 257, 128, 8, 256, 9];

fn sentences(config: &ModelConfig, seed: u64) -> Vec<Vec<u32>> {
    let mut n = Numbers(seed);
    LENGTHS.iter().map(|&len| n.ids(len, config.vocab_size)).collect()
}

fn variants() -> Vec<ModelConfig> {
    let cls = ModelConfig { pooling: Pooling::Cls, hidden_act: Activation::Relu, ..config() };
    // Nothing a multiple of 16, an odd head size.
    let odd = ModelConfig {
        hidden_size: 35,
        num_attention_heads: 5,
        intermediate_size: 75,
        hidden_act: Activation::GeluTanh,
        ..config()
    };
    vec![config(), cls, odd]
}

#[test]
fn embeddings_follow_the_float_model() {
    for config in variants() {
        let model = float_model(config.clone(), 7);
        let encoder = Encoder::from_bytes(format::write(&model).unwrap()).unwrap();
        for ids in sentences(&config, 11) {
            let embedding = encoder.encode_ids(&[&ids]).unwrap();
            let expected = reference(&model, &ids);
            let cosine = cosine(&embedding, &expected);
            assert!(cosine >= 0.996, "{} tokens: cosine {cosine}", ids.len());
            let length: f32 = embedding.iter().map(|x| x * x).sum::<f32>().sqrt();
            assert!((length - 1.0).abs() < 1e-6);
        }
    }
}

#[test]
fn every_batch_and_every_table_give_the_same_bits() {
    for config in variants() {
        let model = float_model(config.clone(), 8);
        let file = format::write(&model).unwrap();
        let batch = sentences(&config, 12);
        let expected: Vec<Vec<u32>> = {
            let encoder =
                Encoder::with_kernels(file.as_slice(), &kernels::scalar::KERNELS).unwrap();
            batch.iter().map(|ids| bits(&encoder.encode_ids(&[ids]).unwrap())).collect()
        };
        for table in kernels::available() {
            let encoder = Encoder::with_kernels(file.as_slice(), table).unwrap();
            let mut order: Vec<usize> = (0..batch.len()).collect();
            for round in 0..4 {
                order.rotate_left(5 * round);
                // More sentences than one task takes, so that threads take part.
                let many: Vec<&[u32]> =
                    order.iter().cycle().take(150).map(|&i| batch[i].as_slice()).collect();
                let many = &many[..if round == 0 { 150 } else { batch.len() }];
                let out = encoder.encode_ids(many).unwrap();
                for (i, row) in out.chunks(config.hidden_size).enumerate() {
                    let sentence = order[i % order.len()];
                    assert_eq!(bits(row), expected[sentence], "{} sentence {sentence}", table.name);
                }
            }
        }
    }
}

#[test]
fn ids_that_the_model_cannot_take_are_named() {
    let encoder = Encoder::from_bytes(format::write(&float_model(config(), 1)).unwrap()).unwrap();
    let long = vec![5u32; 301];
    let cases: [(&[u32], &str); 3] = [
        (&[], "sentence 1 has no tokens"),
        (&long, "sentence 1 has 301 tokens; the model takes at most 300"),
        (&[4, 100], "sentence 1 has the token id 100; the model's ids end at 99"),
    ];
    for (ids, message) in cases {
        let error = encoder.encode_ids(&[&[3u32][..], ids]).unwrap_err();
        assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::InputInvalid, message));
    }
    assert_eq!(encoder.encode_ids::<&[u32]>(&[]).unwrap(), Vec::<f32>::new());
}

#[test]
fn texts_are_encoded_in_order_with_a_truncation_report() {
    let encoder = Encoder::from_bytes(format::write(&float_model(config(), 1)).unwrap()).unwrap();
    let long = "단어7 ".repeat(400);
    let texts = ["단어3 단어4", "", "   ", long.as_str(), "모르는 말"];
    let encoded = encoder.encode_batch(&texts).unwrap();
    assert_eq!(encoded.token_counts, [4, 2, 2, 402, 4]);
    assert_eq!(encoded.truncated, [false, false, false, true, false]);
    assert_eq!((encoded.len(), encoded.rows().len(), encoded.hidden_size), (5, 5, 48));
    for (i, (text, row)) in texts.iter().zip(encoded.rows()).enumerate() {
        assert_eq!(bits(row), bits(&encoder.encode(text).unwrap()));
        assert_eq!(bits(row), bits(encoded.row(i)));
    }
    assert_eq!(bits(encoded.row(1)), bits(encoded.row(2)));
    let whole = encoder.encode_ids(&[encoder.token_ids(&long).unwrap()]).unwrap();
    assert_eq!(bits(&whole), bits(encoded.row(3)));
    let nothing: [&str; 0] = [];
    let none = encoder.encode_batch(&nothing).unwrap();
    assert!(none.is_empty() && none.embeddings.is_empty() && none.rows().next().is_none());
}

/// Files that a fuzzer made, in which a row of equal values was divided by zero: the tables then disagreed,
/// and debug builds panicked.
#[test]
fn a_model_without_layer_norm_eps_is_refused() {
    for name in ["zero-eps-cls", "zero-eps-one-column"] {
        let path = format!("{}/tests/fixtures/hostile/{name}.munjang", env!("CARGO_MANIFEST_DIR"));
        let file = std::fs::read(path).unwrap();
        let error = Encoder::from_bytes(file.as_slice()).map(|_| ()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConfigInvalid, "{name}");
        assert!(
            error.to_string().contains("layer_norm_eps is 0e0; expected 1e-12 to 1"),
            "{error}"
        );
    }
}
