//! The whole model: its losses and gradients against PyTorch's, against differences, and fused against
//! composed.

use candle_core::{Device, Tensor};

use super::batch::TokenBatch;
use super::bert::BertModel;
use super::gradients::Gradients;
use super::options::{Dropout, FakeQuant, ForwardOptions, Freeze};
use super::output::ForwardOutput;
use super::parameters::Parameter;
use super::random::random_float_model;
use super::testing::{small_batch, small_config, small_model};
use super::{losses, matmul, ops};
use crate::config::{Activation, ModelConfig, Pooling};
use crate::error::Result;
use crate::train::golden::{Golden, assert_close, values};
use crate::train::recipe::Precision;

const FROZEN_EMBEDDINGS: Freeze =
    Freeze { word_embeddings: true, other_embeddings: true, lowest_layers: 0 };

fn golden_model(golden: &Golden, case: &str) -> (BertModel, TokenBatch) {
    let (hidden_act, pooling, layers) = match case {
        "gelu" => (Activation::Gelu, Pooling::Mean, 2),
        _ => (Activation::GeluTanh, Pooling::Cls, 1),
    };
    let config = ModelConfig {
        hidden_act,
        pooling,
        num_hidden_layers: layers,
        layer_norm_eps: 1e-5,
        ..small_config()
    };
    let model = BertModel::from_float_model(&random_float_model(&config, 1), &Device::Cpu)
        .expect("a valid model");
    let tensors = model
        .parameters()
        .iter()
        .map(|p| (p.name.clone(), golden.tensor(&format!("{case}.weights.{}", p.name)).clone()))
        .collect();
    model.parameters().load(&tensors).expect("the fixture's shapes fit");
    let ids: Vec<u32> =
        golden.integers(&format!("{case}.ids")).into_iter().map(|id| id as u32).collect();
    let mut rest = ids.as_slice();
    let sentences: Vec<Vec<u32>> = golden
        .integers(&format!("{case}.lengths"))
        .into_iter()
        .map(|length| {
            let (sentence, after) = rest.split_at(length as usize);
            rest = after;
            sentence.to_vec()
        })
        .collect();
    (model, TokenBatch::new(&sentences).expect("no sentence is empty"))
}

/// The loss of the fixture: every output takes part.
fn golden_loss(golden: &Golden, case: &str, output: &ForwardOutput) -> Result<Tensor> {
    let weights = |name: &str| golden.tensor(&format!("{case}.{name}"));
    let states = (&output.token_states * weights("state_weights"))?.mean_all()?;
    let middle = (&output.layer_states[0] * weights("middle_weights"))?.mean_all()?;
    let pooled = (&output.pooled * weights("pooled_weights"))?.sum_all()?.tanh()?;
    let direction = losses::normalize(&output.pooled)?.sum_all()?;
    Ok((((states + middle)? + pooled)? + direction)?)
}

/// Any smooth function of pooled vectors and token states.
fn some_loss(output: &ForwardOutput) -> Result<Tensor> {
    let n = output.pooled.dim(0)?;
    let target = Tensor::arange(0f32, n as f32, &Device::Cpu)?.unsqueeze(1)?;
    let pooled = losses::normalize(&output.pooled)?.broadcast_mul(&target)?.sin()?.sum_all()?;
    let states = (output.token_states.sin()?.mean_all()? * 3.0)?;
    Ok((pooled + states)?)
}

#[test]
fn loss_and_every_gradient_equal_pytorch() {
    let golden = Golden::load();
    for case in ["gelu", "tanh"] {
        for composed in [false, true] {
            let (mut model, batch) = golden_model(&golden, case);
            model.use_composed_operations(composed);
            let options = ForwardOptions { layer_states: vec![0], ..ForwardOptions::training() };
            let output = model.forward(&batch, &options).expect("runs");
            let expect = |name: &str| golden.values(&format!("{case}.{name}"));
            let what = format!("{case}, composed: {composed}");
            assert_close(&what, &values(&output.token_states), &expect("states"), 1e-5, 0.0);
            assert_close(&what, &values(&output.pooled), &expect("pooled"), 1e-5, 0.0);
            let loss = golden_loss(&golden, case, &output).expect("shapes fit");
            assert_close(&what, &values(&loss), &expect("loss"), 1e-5, 0.0);
            let gradients = model.backward(&loss, vec![output]).expect("differentiable");
            for parameter in model.parameters().iter() {
                let name = &parameter.name;
                let gradient = gradients
                    .dense(model.parameters(), name)
                    .expect("known")
                    .unwrap_or_else(|| panic!("{what}: no gradient for {name}"));
                let gradient = values(&gradient);
                let expected = expect(&format!("grad.{name}"));
                // A key's bias shifts all scores of a query alike: its gradient is 0 in theory.
                if !name.ends_with("key.bias") {
                    assert!(gradient.iter().any(|&g| g != 0.0), "{what}: {name} is all zero");
                }
                assert_close(&format!("{what}: {name}"), &gradient, &expected, 1e-4, 1e-2);
            }
        }
    }
}

#[test]
fn the_fixture_covers_every_parameter() {
    let golden = Golden::load();
    let (model, _) = golden_model(&golden, "gelu");
    let stored = golden.names().filter(|name| name.starts_with("gelu.grad.")).count();
    assert_eq!(stored, model.parameters().len());
}

#[test]
fn gradients_agree_with_differences_in_every_mode() {
    let quantized = FakeQuant { weight_max: 63, activations: false, embeddings: false };
    for (dropout, quantize) in [
        (None, None),
        (Some(Dropout { hidden: 0.2, attention: 0.2, seed: 5 }), None),
        // Straight-through gradients are not those of the rounded function: only its shape is
        // checked below, against the composed form.
        (None, Some(quantized)),
    ] {
        let model = small_model(3);
        let batch = small_batch();
        let options = ForwardOptions { dropout, quantize, ..ForwardOptions::training() };
        let loss_now = || {
            let output = model.forward(&batch, &options).expect("runs");
            let loss = some_loss(&output).expect("shapes fit");
            (loss, output)
        };
        let (loss, output) = loss_now();
        let gradients = model.backward(&loss, vec![output]).expect("differentiable");
        if quantize.is_some() {
            assert!(gradients.global_norm().expect("finite") > 0.0);
            continue;
        }
        for name in ["layers.0.query.weight", "layers.1.output.weight", "embeddings.norm.weight"] {
            let parameter = model.parameters().get(name).expect("known");
            let gradient = gradients.dense(model.parameters(), name).expect("known");
            let gradient = values(&gradient.expect("trainable"));
            let before = values(&parameter.var);
            let largest = (0..gradient.len())
                .max_by(|&a, &b| gradient[a].abs().total_cmp(&gradient[b].abs()))
                .expect("not empty");
            for at in [0, largest] {
                let at_step = |step: f32| {
                    let mut moved = before.clone();
                    moved[at] += step;
                    let moved = Tensor::from_vec(moved, parameter.var.dims(), &Device::Cpu);
                    parameter.var.set(&moved.expect("same shape")).expect("same shape");
                    loss_now().0.to_scalar::<f32>().expect("a scalar")
                };
                let slope = (at_step(2e-3) - at_step(-2e-3)) / 4e-3;
                at_step(0.0);
                let size = gradient[largest].abs();
                assert!(
                    (slope - gradient[at]).abs() < 0.02 * size,
                    "{name}[{at}]: {} against {slope}",
                    gradient[at]
                );
            }
        }
    }
}

#[test]
fn fused_and_composed_agree_when_quantization_aware() {
    for quantize in [
        FakeQuant::shipped(),
        FakeQuant { weight_max: 31, activations: false, embeddings: false },
        FakeQuant { weight_max: 127, activations: true, embeddings: false },
    ] {
        let run = |composed: bool| {
            let mut model = small_model(4);
            model.use_composed_operations(composed);
            let options = ForwardOptions { quantize: Some(quantize), ..ForwardOptions::training() };
            let output = model.forward(&small_batch(), &options).expect("runs");
            let pooled = values(&output.pooled);
            let loss = some_loss(&output).expect("shapes fit");
            let gradients = model.backward(&loss, vec![output]).expect("differentiable");
            (model, pooled, gradients)
        };
        let (model, fused, fused_gradients) = run(false);
        let (_, composed, composed_gradients) = run(true);
        // A value that lies on a rounding boundary may fall to either side.
        assert_close("pooled", &fused, &composed, 0.02, 0.0);
        for parameter in model.parameters().iter() {
            let name = &parameter.name;
            let dense = |gradients: &Gradients| {
                values(&gradients.dense(model.parameters(), name).expect("known").expect("some"))
            };
            assert_close(name, &dense(&fused_gradients), &dense(&composed_gradients), 0.1, 0.05);
        }
    }
}

#[test]
fn rounded_weights_give_what_the_plain_pass_gives_with_them() {
    let quantize = FakeQuant { weight_max: 63, activations: false, embeddings: true };
    let model = small_model(5);
    let rounded = small_model(5);
    for parameter in rounded.parameters().iter().filter(|parameter| parameter.decay) {
        let mut data = values(&parameter.var);
        let cols = parameter.var.dims()[1];
        let limit = if parameter.name.starts_with("embeddings") { 127 } else { 63 };
        ops::fake_quant::symmetric(&mut data, cols, limit);
        let data = Tensor::from_vec(data, parameter.var.dims(), &Device::Cpu);
        parameter.var.set(&data.expect("same shape")).expect("same shape");
    }
    let aware = model.encode(&small_batch(), Some(quantize)).expect("runs");
    assert_eq!(aware, rounded.encode(&small_batch(), None).expect("runs"));
}

#[test]
fn frozen_weights_get_no_gradient_and_the_rest_keep_theirs() {
    let run = |freeze: Freeze, composed: bool| {
        let mut model = small_model(6);
        model.use_composed_operations(composed);
        model.freeze(freeze).expect("enough layers");
        let output = model.forward(&small_batch(), &ForwardOptions::training()).expect("runs");
        let loss = some_loss(&output).expect("shapes fit");
        let gradients = model.backward(&loss, vec![output]).expect("differentiable");
        (model, gradients)
    };
    for composed in [false, true] {
        let (_, all) = run(Freeze::default(), composed);
        for freeze in [
            Freeze { word_embeddings: true, ..Freeze::default() },
            FROZEN_EMBEDDINGS,
            Freeze { lowest_layers: 1, ..FROZEN_EMBEDDINGS },
            Freeze { lowest_layers: 1, ..Freeze::default() },
        ] {
            let (model, some) = run(freeze, composed);
            for parameter in model.parameters().iter() {
                let dense = |gradients: &Gradients| {
                    let dense = gradients.dense(model.parameters(), &parameter.name);
                    dense.expect("known").as_ref().map(values)
                };
                let expected = if parameter.trainable { dense(&all) } else { None };
                match (dense(&some), expected) {
                    (Some(got), Some(expected)) => {
                        assert_close(&parameter.name, &got, &expected, 1e-5, 1e-2);
                    }
                    (got, expected) => {
                        assert!(got.is_none() && expected.is_none(), "{}", parameter.name);
                    }
                }
            }
        }
    }
}

#[test]
fn two_passes_add_their_gradients() {
    let model = small_model(7);
    let halves = [small_batch(), TokenBatch::new(&[[5u32, 9, 3]]).expect("not empty")];
    let forward =
        |batch: &TokenBatch| model.forward(batch, &ForwardOptions::training()).expect("runs");
    let outputs: Vec<_> = halves.iter().map(forward).collect();
    let loss = |output: &ForwardOutput| some_loss(output).expect("shapes fit");
    let sum = (loss(&outputs[0]) + loss(&outputs[1])).expect("scalars");
    let together = model.backward(&sum, outputs).expect("differentiable");
    let mut apart: Option<Gradients> = None;
    for batch in &halves {
        let output = forward(batch);
        let gradients = model.backward(&loss(&output), vec![output]).expect("differentiable");
        match &mut apart {
            Some(sum) => sum.accumulate(gradients).expect("same model"),
            None => apart = Some(gradients),
        }
    }
    let apart = apart.expect("two halves");
    for parameter in model.parameters().iter() {
        let dense = |gradients: &Gradients| {
            let dense = gradients.dense(model.parameters(), &parameter.name);
            values(&dense.expect("known").expect("trainable"))
        };
        assert_close(&parameter.name, &dense(&together), &dense(&apart), 1e-6, 1e-6);
    }
}

#[test]
fn repeats_bit_for_bit_on_any_number_of_threads() {
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
        pool.install(|| {
            let model = small_model(8);
            let dropout = Some(Dropout { hidden: 0.1, attention: 0.1, seed: 77 });
            let options = ForwardOptions {
                dropout,
                quantize: Some(FakeQuant::shipped()),
                ..ForwardOptions::training()
            };
            let output = model.forward(&small_batch(), &options).expect("runs");
            let loss = some_loss(&output).expect("shapes fit");
            let gradients = model.backward(&loss, vec![output]).expect("differentiable");
            let mut bits = vec![loss.to_scalar::<f32>().expect("a scalar").to_bits()];
            for parameter in model.parameters().iter() {
                let dense = gradients.dense(model.parameters(), &parameter.name);
                let dense = dense.expect("known").expect("trainable");
                bits.extend(values(&dense).iter().map(|x| x.to_bits()));
            }
            bits
        })
    };
    let once = run(2);
    assert_eq!(once, run(2));
    assert_eq!(once, run(3));
}

/// A smooth function that is a sum of squares: none of it cancels out.
fn positive_loss(output: &ForwardOutput) -> Result<Tensor> {
    let (n, hidden) = output.pooled.dims2()?;
    let target = Tensor::arange(0f32, (n * hidden) as f32, &Device::Cpu)?.sin()?;
    let away = (losses::normalize(&output.pooled)? - (target.reshape((n, hidden))? * 0.3)?)?;
    Ok((away.sqr()?.sum_all()? + output.token_states.sin()?.sqr()?.mean_all()?)?)
}

/// Loss and every parameter's gradient of `model`.
fn loss_and_gradients(
    model: &BertModel,
    batch: &TokenBatch,
    options: &ForwardOptions,
) -> (f32, Vec<(String, Option<Vec<f32>>)>) {
    let output = model.forward(batch, options).expect("runs");
    let loss = positive_loss(&output).expect("shapes fit");
    let gradients = model.backward(&loss, vec![output]).expect("differentiable");
    let gradient = |parameter: &Parameter| {
        let dense = gradients.dense(model.parameters(), &parameter.name).expect("known");
        (parameter.name.clone(), dense.as_ref().map(values))
    };
    (loss.to_scalar().expect("a scalar"), model.parameters().iter().map(gradient).collect())
}

fn norm(x: impl IntoIterator<Item = f32>) -> f64 {
    x.into_iter().map(|x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt()
}

/// bfloat16 has 8 significant bits: a factor moves by at most 2⁻⁹ of itself, by 2⁻⁹/√3 in the root
/// mean square, and a sum of products of two such by about 0.0016 of its size. On the way from the
/// loss to a weight lie at most the 12 products of two layers forward and as many backward, whose
/// errors are independent: √24 · 0.0016 = 0.008. Six times that leaves room for gradients of which
/// most cancels out; an error of layout or of one factor is of the size of the gradient itself.
#[test]
fn bf16_moves_loss_and_gradients_by_its_rounding_and_no_more() {
    const BOUND: f64 = 0.05;
    // Rows, and with them the depth of the weights' gradients, are odd: the last lane has one value.
    let sentences = [vec![3, 9, 9, 30], vec![7, 2], vec![1, 2, 3, 4, 5, 6, 7, 8, 36], vec![0, 9]];
    let batch = TokenBatch::new(&sentences).expect("no sentence is empty");
    assert_eq!(batch.num_tokens() % 2, 1);
    let dropout = Some(Dropout { hidden: 0.2, attention: 0.2, seed: 5 });
    for (freeze, dropout) in [
        (Freeze::default(), None),
        (Freeze::default(), dropout),
        (Freeze { lowest_layers: 1, ..FROZEN_EMBEDDINGS }, None),
    ] {
        let run = |precision: Precision| {
            let mut model = small_model(14);
            model.use_precision(precision);
            model.freeze(freeze).expect("enough layers");
            let options = ForwardOptions { dropout, ..ForwardOptions::training() };
            let (loss, gradients) = loss_and_gradients(&model, &batch, &options);
            for (parameter, (name, gradient)) in model.parameters().iter().zip(&gradients) {
                assert_eq!(gradient.is_some(), parameter.trainable, "{name}");
            }
            (loss, gradients)
        };
        let (exact, rounded) = (run(Precision::F32), run(Precision::Bf16));
        let (loss, error) = (f64::from(exact.0.abs()), f64::from((exact.0 - rounded.0).abs()));
        assert!(error <= BOUND * loss, "losses {} and {}", exact.0, rounded.0);
        if !matmul::has_bf16() {
            assert!(exact == rounded, "this machine has no products of bfloat16");
            continue;
        }
        for ((name, exact), (_, rounded)) in exact.1.iter().zip(&rounded.1) {
            let (Some(exact), Some(rounded)) = (exact, rounded) else { continue };
            let size = norm(exact.iter().copied());
            let error = norm(exact.iter().zip(rounded).map(|(exact, rounded)| exact - rounded));
            // A key's bias shifts all scores of a query alike: its gradient is 0 in theory.
            if name.ends_with("key.bias") {
                assert!(rounded.iter().all(|x| x.is_finite()), "{name}");
                continue;
            }
            assert!(error <= BOUND * size, "{name} moves by {error} of {size}");
            assert!(error > 1e-5 * size, "{name} is as in f32: nothing was rounded");
        }
    }
}

/// Without padding, values have the same positions in both, and so the same masks.
#[test]
fn fused_and_composed_agree_under_dropout() {
    let sentences = [vec![3, 9, 9, 30, 4], vec![7, 1, 2, 8, 11], vec![1, 2, 3, 4, 36]];
    let batch = TokenBatch::new(&sentences).expect("no sentence is empty");
    let dropout = Some(Dropout { hidden: 0.3, attention: 0.2, seed: 41 });
    let options = ForwardOptions { dropout, ..ForwardOptions::training() };
    let run = |composed: bool| {
        let mut model = small_model(15);
        model.use_composed_operations(composed);
        loss_and_gradients(&model, &batch, &options)
    };
    let (fused, composed) = (run(false), run(true));
    assert_close("loss", &[composed.0], &[fused.0], 1e-4, 0.0);
    for ((name, fused), (_, composed)) in fused.1.iter().zip(&composed.1) {
        let (fused, composed) = (fused.as_ref().expect("some"), composed.as_ref().expect("some"));
        assert_close(name, composed, fused, 1e-4, 1e-3);
    }
}
