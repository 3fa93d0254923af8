use candle_core::Var;

use super::*;
use crate::train::golden::{Golden, assert_close, values};
use crate::train::nn::ops::pool::Pool;

const CONFIG: AdamWConfig =
    AdamWConfig { beta1: 0.9, beta2: 0.98, eps: 1e-6, weight_decay: 0.1, max_grad_norm: Some(1.0) };
const RATES: [f64; 4] = [0.01, 0.03, 0.02, 0.005];

fn parameters(golden: &Golden) -> Parameters {
    let parameter = |name: &str, decay| Parameter {
        name: name.to_owned(),
        var: Var::from_tensor(golden.tensor(&format!("adamw.{name}.0"))).expect("a tensor"),
        trainable: true,
        decay,
    };
    Parameters { list: vec![parameter("weight", true), parameter("bias", false)] }
}

fn gradients(golden: &Golden, step: usize, device: bool) -> Gradients {
    let pool = std::sync::Arc::new(Pool::default());
    let entry = |name: &str| {
        let gradient = golden.tensor(&format!("adamw.grad.{name}.{step}"));
        Some(if device {
            Gradient::Device(gradient.clone())
        } else {
            Gradient::Host(pool.copy(&values(gradient)))
        })
    };
    Gradients { entries: vec![entry("weight"), entry("bias")] }
}

#[test]
fn steps_equal_pytorch() {
    let golden = Golden::load();
    for device in [false, true] {
        let parameters = parameters(&golden);
        let mut optimizer = AdamW::new(CONFIG).expect("valid");
        for (step, rate) in (1..).zip(RATES) {
            let gradients = gradients(&golden, step, device);
            let stats = optimizer.step(&parameters, &gradients, rate).expect("finite");
            assert_eq!(stats.clipped, step % 2 == 1, "step {step}: norm {}", stats.grad_norm);
            for parameter in parameters.iter() {
                let name = &parameter.name;
                let expected = golden.values(&format!("adamw.{name}.{step}"));
                assert_close(name, &values(&parameter.var), &expected, 2e-6, 0.0);
            }
        }
    }
}

#[test]
fn device_steps_equal_host_steps() {
    let golden = Golden::load();
    let parameters = parameters(&golden);
    let weight = parameters.get("weight").expect("known");
    let tensor = |x: &[f32]| Tensor::from_slice(x, weight.var.dims(), &Device::Cpu);
    let update = Update {
        grad_scale: 0.5,
        beta1: 0.9,
        beta2: 0.99,
        step_size: 0.02,
        second_scale: 1.5,
        eps: 1e-6,
        shrink: 0.99,
    };
    let mut w = values(&weight.var);
    let (mut m, mut v) = (vec![0.1; w.len()], vec![0.2; w.len()]);
    let gradient = golden.tensor("adamw.grad.weight.1");
    let moved = device_step(
        &weight.var,
        &tensor(&m).expect("fits"),
        &tensor(&v).expect("fits"),
        gradient,
        update,
    )
    .expect("shapes fit");
    update.apply(&mut w, &mut m, &mut v, &values(gradient));
    assert_close("weights", &values(&moved.weights), &w, 1e-6, 0.0);
    assert_close("first", &values(&moved.first), &m, 1e-6, 0.0);
    assert_close("second", &values(&moved.second), &v, 1e-6, 0.0);
}

/// The whole way of a weight on a GPU, with its rows and all at once.
#[test]
fn weights_with_moments_on_a_device_move_as_those_in_main_memory() {
    let golden = Golden::load();
    let pool = std::sync::Arc::new(Pool::default());
    let update = Update {
        grad_scale: 0.5,
        beta1: 0.9,
        beta2: 0.99,
        step_size: 0.02,
        second_scale: 1.5,
        eps: 1e-6,
        shrink: 0.99,
    };
    let dense = golden.values("adamw.grad.weight.1");
    let rows = [dense[5..10].to_vec(), dense[20..25].to_vec()].concat();
    let run = |sparse: bool, on_device: bool| {
        let parameters = parameters(&golden);
        let weight = parameters.get("weight").expect("known");
        let dims = weight.var.dims().to_vec();
        let start = |value: f32| vec![value; weight.var.elem_count()];
        let tensor =
            |x: Vec<f32>, dims: &[usize]| Tensor::from_vec(x, dims, &Device::Cpu).expect("fits");
        let gradient = match (sparse, on_device) {
            (true, true) => Gradient::DeviceRows {
                rows: Tensor::new(&[1u32, 4], &Device::Cpu).expect("a tensor"),
                values: tensor(rows.clone(), &[2, 5]),
            },
            (true, false) => Gradient::HostRows { rows: vec![1, 4], values: pool.copy(&rows) },
            (false, true) => Gradient::Device(tensor(dense.clone(), &dims)),
            (false, false) => Gradient::Host(pool.copy(&dense)),
        };
        let mut moments = match on_device {
            true => Moments::Device {
                first: tensor(start(0.1), &dims),
                second: tensor(start(0.2), &dims),
            },
            false => Moments::Host { first: start(0.1), second: start(0.2) },
        };
        for _ in 0..2 {
            move_parameter(weight, &gradient, &mut moments, update).expect("fits");
        }
        let mut optimizer = AdamW::new(CONFIG).expect("valid");
        optimizer.moments.insert("weight".to_owned(), moments);
        let state = optimizer.state(&parameters).expect("copies");
        let moment = |which: &str| values(&state[&format!("adamw.{which}.weight")]);
        [values(&weight.var), moment("first"), moment("second")]
    };
    for sparse in [false, true] {
        let (host, device) = (run(sparse, false), run(sparse, true));
        for (device, host) in device.iter().zip(&host) {
            assert_close("moved", device, host, 1e-6, 0.0);
        }
    }
}

#[test]
fn rows_without_gradient_rest() {
    let golden = Golden::load();
    let run = |sparse: bool| {
        let parameters = parameters(&golden);
        let mut optimizer = AdamW::new(CONFIG).expect("valid");
        let pool = std::sync::Arc::new(Pool::default());
        let dense = golden.values("adamw.grad.weight.2");
        let gradient = if sparse {
            let mut rows = dense[5..10].to_vec();
            rows.extend_from_slice(&dense[20..25]);
            Gradient::HostRows { rows: vec![1, 4], values: pool.copy(&rows) }
        } else {
            let mut all = vec![0.0; dense.len()];
            all[5..10].copy_from_slice(&dense[5..10]);
            all[20..25].copy_from_slice(&dense[20..25]);
            Gradient::Host(pool.copy(&all))
        };
        let gradients = Gradients { entries: vec![Some(gradient), None] };
        optimizer.step(&parameters, &gradients, 0.01).expect("finite");
        values(&parameters.get("weight").expect("known").var)
    };
    let (sparse, dense, before) = (run(true), run(false), golden.values("adamw.weight.0"));
    for row in 0..6 {
        let at = row * 5..row * 5 + 5;
        let expected = if row == 1 || row == 4 { &dense } else { &before };
        assert_eq!(sparse[at.clone()], expected[at], "row {row}");
    }
}

#[test]
fn a_restored_optimizer_goes_on_bit_for_bit() {
    let golden = Golden::load();
    let straight = parameters(&golden);
    let mut optimizer = AdamW::new(CONFIG).expect("valid");
    let mut resumed = None;
    for (step, rate) in (1..).zip(RATES) {
        if step == 3 {
            let state = optimizer.state(&straight).expect("copies");
            let copy = parameters(&golden);
            copy.load(&straight.to_tensors().expect("copies")).expect("same shapes");
            let mut other = AdamW::new(CONFIG).expect("valid");
            other.load_state(&copy, &state).expect("complete");
            assert_eq!(other.steps(), 2);
            resumed = Some((copy, other));
        }
        let gradients = gradients(&golden, step, false);
        optimizer.step(&straight, &gradients, rate).expect("finite");
        if let Some((copy, other)) = &mut resumed {
            other.step(copy, &gradients, rate).expect("finite");
        }
    }
    let (copy, _) = resumed.expect("step 3 came");
    for (a, b) in straight.iter().zip(copy.iter()) {
        assert_eq!(values(&a.var), values(&b.var));
    }
}

#[test]
fn a_gradient_that_is_not_finite_changes_nothing() {
    let golden = Golden::load();
    let parameters = parameters(&golden);
    let mut optimizer = AdamW::new(CONFIG).expect("valid");
    let mut gradients = gradients(&golden, 1, false);
    if let Some(Gradient::Host(values)) = &mut gradients.entries[0] {
        values[3] = f32::NAN;
    }
    let error = optimizer.step(&parameters, &gradients, 0.1).expect_err("NaN");
    assert_eq!((error.code(), optimizer.steps()), ("non_finite", 0));
    let weight = &parameters.get("weight").expect("known").var;
    assert_eq!(values(weight), golden.values("adamw.weight.0"));
    let bad = AdamWConfig { beta1: 1.0, ..CONFIG };
    assert_eq!(AdamW::new(bad).err().expect("refused").code(), "input_invalid");
}
