use super::super::losses;
use super::super::pair_head::PairHead;
use super::super::random::random_float_model;
use super::super::testing::{small_batch, small_config, small_model};
use super::*;
use crate::train::golden::assert_close;

#[test]
fn a_sentence_encodes_alike_alone_and_in_a_batch() {
    let model = small_model(9);
    let all = model.encode(&small_batch(), None).expect("runs");
    let offsets = small_batch().offsets().to_vec();
    for (pair, together) in offsets.windows(2).zip(all.chunks(24)) {
        let alone = TokenBatch::new(&[&small_batch().ids()[pair[0]..pair[1]]]).expect("not empty");
        assert_close("alone", &model.encode(&alone, None).expect("runs"), together, 1e-5, 0.0);
    }
}

#[test]
fn weights_survive_the_round_trip() {
    let weights = random_float_model(&small_config(), 10);
    let model = BertModel::from_float_model(&weights, &Device::Cpu).expect("a valid model");
    assert_eq!(model.to_float_model().expect("finite"), weights);
    let other = small_model(11);
    other
        .parameters()
        .load(&model.parameters().to_tensors().expect("copies"))
        .expect("same shapes");
    assert_eq!(other.to_float_model().expect("finite"), weights);
}

#[test]
fn bad_input_is_refused() {
    let mut model = small_model(12);
    let code = |batch: &[Vec<u32>]| {
        let batch = TokenBatch::new(batch)?;
        model.forward(&batch, &ForwardOptions::default()).map(|_| ())
    };
    for batch in [vec![], vec![vec![]], vec![vec![37]], vec![vec![1; 13]]] {
        assert_eq!(code(&batch).expect_err("bad").code(), "input_invalid", "{batch:?}");
    }
    let options = ForwardOptions { layer_states: vec![2], ..ForwardOptions::default() };
    let error = model.forward(&small_batch(), &options).err().expect("no such layer");
    assert_eq!(error.code(), "input_invalid");
    let plain = model.forward(&small_batch(), &ForwardOptions::default()).expect("runs");
    let loss = plain.pooled.sum_all().expect("a tensor");
    assert_eq!(model.backward(&loss, vec![plain]).err().expect("bad").code(), "input_invalid");
    let freeze = Freeze { lowest_layers: 3, ..Freeze::default() };
    assert_eq!(model.freeze(freeze).expect_err("bad").code(), "input_invalid");

    let mut weights = random_float_model(&small_config(), 1);
    weights.layers[1].key.bias.pop();
    let error = BertModel::from_float_model(&weights, &Device::Cpu).err().expect("bad");
    assert!(error.to_string().contains("layers.1.key.bias"), "{error}");
    assert_eq!(error.code(), "weights_mismatch");
}

#[test]
fn a_weight_that_is_not_finite_stops_the_step() {
    let mut weights = random_float_model(&small_config(), 1);
    weights.layers[0].query.weight.data[3] = f32::NAN;
    let model = BertModel::from_float_model(&weights, &Device::Cpu).expect("shapes fit");
    let output = model.forward(&small_batch(), &ForwardOptions::training()).expect("runs");
    let loss = output.pooled.sum_all().expect("a tensor");
    assert_eq!(model.backward(&loss, vec![output]).err().expect("NaN").code(), "non_finite");
    assert_eq!(model.to_float_model().expect_err("NaN").code(), "non_finite");
}

#[test]
fn a_head_is_trained_with_the_model() {
    let mut model = small_model(13);
    let head = PairHead::attach(&mut model, 1, 1).expect("no head yet");
    assert_eq!(PairHead::attach(&mut model, 1, 1).err().expect("two").code(), "input_invalid");
    let output = model.forward(&small_batch(), &ForwardOptions::training()).expect("runs");
    let logits = head.forward(&output.pooled).expect("widths fit");
    let loss = losses::binary_cross_entropy(&logits, &[0.0, 1.0, 0.3, 0.5]).expect("four");
    let gradients = model.backward(&loss, vec![output]).expect("differentiable");
    for parameter in model.parameters().iter() {
        let gradient = gradients.dense(model.parameters(), &parameter.name).expect("known");
        assert!(gradient.is_some(), "no gradient for {}", parameter.name);
    }
}
