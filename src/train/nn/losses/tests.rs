use candle_core::Var;

use super::*;
use crate::train::golden::{Golden, assert_close, values};

/// Compares a loss of the fixture's inputs, and its gradients, with PyTorch's.
fn check(case: &str, inputs: &[&str], loss: impl Fn(&[Tensor]) -> Result<Tensor>) {
    let golden = Golden::load();
    let vars: Vec<Var> = inputs
        .iter()
        .map(|name| {
            Var::from_tensor(golden.tensor(&format!("losses.{case}.{name}"))).expect("a tensor")
        })
        .collect();
    let tensors: Vec<Tensor> = vars.iter().map(|var| var.as_tensor().clone()).collect();
    let loss = loss(&tensors).expect("the fixture's shapes fit");
    let expected = golden.values(&format!("losses.{case}.value"));
    assert_close(case, &values(&loss), &expected, 1e-5, 0.0);
    let gradients = loss.backward().expect("differentiable");
    for (name, var) in inputs.iter().zip(&vars) {
        let stored = format!("losses.{case}.grad.{name}");
        if !golden.names().any(|name| name == stored) {
            assert!(gradients.get(var).is_none(), "{case}: {name} should have no gradient");
            continue;
        }
        let gradient = gradients.get(var).unwrap_or_else(|| panic!("{case}: {name} has none"));
        assert_close(&stored, &values(gradient), &golden.values(&stored), 1e-4, 0.0);
    }
}

#[test]
fn losses_and_gradients_equal_pytorch() {
    let scores = Golden::load().values("losses.scores");
    check("simcse", &["a", "p", "n"], |x| supervised_simcse(&x[0], &x[1], Some(&x[2]), None, 0.05));
    check("simcse_groups", &["a", "p"], |x| {
        supervised_simcse(&x[0], &x[1], None, Some(&[4, 1, 4, 4, 0]), 0.1)
    });
    check("cosine_mse", &["a", "b"], |x| cosine_mse(&x[0], &x[1], &scores));
    check("cosent", &["a", "b"], |x| cosent(&x[0], &x[1], &scores, 20.0));
    check("token_state_mse", &["s", "t"], |x| token_state_mse(&x[0], &x[1]));
    check("pooled_cosine", &["s", "t"], |x| pooled_cosine_distance(&x[0], &x[1]));
    check("similarity_kl", &["s", "t"], |x| similarity_kl(&x[0], &x[1], 0.1));
    check("binary_cross_entropy", &["x"], |x| binary_cross_entropy(&(&x[0] * 4.0)?, &scores));
    check("cross_entropy", &["x"], |x| cross_entropy(&x[0], &[0, 2, 1, 1, 0, 2]));
}

#[test]
fn weights_of_rows_count() {
    let golden = Golden::load();
    let tensor = |name: &str| golden.tensor(&format!("losses.cosine_mse.{name}")).clone();
    let (a, b, scores) = (tensor("a"), tensor("b"), golden.values("losses.scores"));
    let n = scores.len();
    let weighted = |weights: &[f32]| {
        let a = Var::from_tensor(&a).expect("a tensor");
        let loss = weighted_cosine_mse(&a, &b, &scores, weights).expect("fits");
        let gradients = loss.backward().expect("differentiable");
        (values(&loss)[0], values(gradients.get(&a).expect("a gradient")))
    };
    let (whole, gradient) = weighted(&vec![1.0; n]);
    assert_close("loss", &[whole], &golden.values("losses.cosine_mse.value"), 1e-5, 0.0);
    let expected = golden.values("losses.cosine_mse.grad.a");
    assert_close("gradient", &gradient, &expected, 1e-4, 0.0);
    // Row by row the losses add up, and a weight scales its own row's gradient alone.
    let mut sum = 0.0;
    for row in 0..n {
        let mut weights = vec![0.0; n];
        weights[row] = 0.5;
        let (loss, part) = weighted(&weights);
        sum += 2.0 * loss;
        let cols = part.len() / n;
        for (at, (&part, &whole)) in part.iter().zip(&gradient).enumerate() {
            let expected = if at / cols == row { 0.5 * whole } else { 0.0 };
            assert!((part - expected).abs() < 1e-6, "{row} {at}");
        }
    }
    assert!((sum - whole).abs() < 1e-6);
}

#[test]
fn cut_vectors_have_losses_and_gradients_of_their_own() {
    let golden = Golden::load();
    let a = Var::from_tensor(golden.tensor("losses.cosine_mse.a")).expect("a tensor");
    let b = golden.tensor("losses.cosine_mse.b");
    let scores = golden.values("losses.scores");
    let part = |x: &Tensor, width| x.narrow(1, 0, width).and_then(|x| x.contiguous());
    let on = |a: &Tensor| cosine_mse(a, &part(b, a.dim(1)?)?, &scores);
    let loss = over_dimensions(&a, &[2, 3], on).expect("fits");
    let by_hand: f32 = [2, 3, a.dim(1).expect("a matrix")]
        .map(|width| values(&on(&part(&a, width).expect("fits")).expect("fits"))[0])
        .iter()
        .sum();
    assert!((values(&loss)[0] - by_hand / 3.0).abs() < 1e-6);
    let gradients = loss.backward().expect("differentiable");
    let gradient = values(gradients.get(&a).expect("a gradient"));
    crate::train::nn::ops::testing::check_gradient("a", &values(&a), &gradient, 2e-2, |moved| {
        let a = Tensor::from_slice(moved, a.dims(), a.device()).expect("same shape");
        f64::from(values(&over_dimensions(&a, &[2, 3], on).expect("fits"))[0])
    });
    for bad in [0, a.dim(1).expect("a matrix")] {
        let error = over_dimensions(&a, &[bad], |a| Ok(a.sum_all()?)).expect_err("refused");
        assert_eq!(error.code(), "input_invalid");
    }
}

#[test]
fn a_certain_teacher_of_retrieval_is_a_label() {
    let golden = Golden::load();
    let tensor = |name: &str| golden.tensor(&format!("losses.simcse.{name}")).clone();
    let (queries, partners, others) =
        (Var::from_tensor(&tensor("a")).expect("a tensor"), tensor("p"), tensor("n"));
    let candidates = Tensor::cat(&[&partners, &others], 0).expect("of one width");
    let (n, m) = (queries.dims()[0], candidates.dims()[0]);
    // Unit vectors along the axes: cosine 1 with one's own candidate, 0 with all others.
    let axes = Tensor::eye(m, DType::F32, &candle_core::Device::Cpu).expect("a tensor");
    let certain = |queries: &Tensor| {
        let of_teacher = axes.narrow(0, 0, n).expect("m is at least n");
        retrieval_kl(queries, &candidates, &of_teacher, &axes, 0.01).expect("fits")
    };
    let labels = supervised_simcse(&queries, &partners, Some(&others), None, 0.01).expect("fits");
    let loss = certain(&queries);
    assert_close("loss", &values(&loss), &values(&labels), 1e-5, 0.0);
    // Less certain ones in the same way.
    let uncertain = |queries: &Tensor| {
        let of_teacher = axes.narrow(0, 0, n).expect("m is at least n");
        retrieval_kl(queries, &candidates, &of_teacher, &axes, 0.3).expect("fits")
    };
    let loss = uncertain(&queries);
    let gradients = loss.backward().expect("differentiable");
    let gradient = values(gradients.get(&queries).expect("a gradient"));
    let start = values(&queries);
    crate::train::nn::ops::testing::check_gradient("queries", &start, &gradient, 2e-2, |moved| {
        let moved = Tensor::from_slice(moved, queries.dims(), queries.device());
        f64::from(values(&uncertain(&moved.expect("same shape")))[0])
    });
    let same = retrieval_kl(&queries, &candidates, &queries, &candidates, 0.3).expect("fits");
    assert_close("nothing to learn", &values(&same), &[0.0], 0.0, 1e-6);
}

#[test]
fn extreme_inputs_stay_finite() {
    let device = &candle_core::Device::Cpu;
    let zeros = Var::zeros((3, 4), DType::F32, device).expect("a tensor");
    let ones = Tensor::ones((3, 4), DType::F32, device).expect("a tensor");
    for loss in [
        cosine_mse(&zeros, &ones, &[0.0, 0.5, 1.0]).expect("fits"),
        cosent(&zeros, &ones, &[0.0, 0.5, 1.0], 20.0).expect("fits"),
        supervised_simcse(&zeros, &ones, None, None, 0.01).expect("fits"),
        similarity_kl(&zeros, &ones, 0.01).expect("fits"),
        retrieval_kl(&zeros, &ones, &ones, &ones, 0.01).expect("fits"),
    ] {
        assert!(loss.to_scalar::<f32>().expect("a scalar").is_finite());
        let gradients = loss.backward().expect("differentiable");
        let gradient = values(gradients.get(&zeros).expect("a gradient"));
        assert!(gradient.iter().all(|g| g.is_finite()), "{gradient:?}");
    }
    let logits = Tensor::new(&[200.0f32, -200.0], device).expect("a tensor");
    let loss = binary_cross_entropy(&logits, &[0.0, 1.0]).expect("fits");
    assert_eq!(loss.to_scalar::<f32>().expect("a scalar"), 200.0);
}

#[test]
fn equal_scores_give_cosent_nothing_to_do() {
    let x = Tensor::ones((3, 4), DType::F32, &candle_core::Device::Cpu).expect("a tensor");
    let loss = cosent(&x, &x, &[0.5; 3], 20.0).expect("fits");
    assert_eq!(loss.to_scalar::<f32>().expect("a scalar"), 0.0);
}

#[test]
fn bad_input_is_refused() {
    let device = &candle_core::Device::Cpu;
    let x = Tensor::ones((3, 4), DType::F32, device).expect("a tensor");
    let y = Tensor::ones((2, 4), DType::F32, device).expect("a tensor");
    for result in [
        pair_cosine(&x, &y),
        cosine_mse(&x, &x, &[0.0]),
        cosent(&x, &x, &[0.0], 20.0),
        token_state_mse(&x, &y),
        similarity_kl(&x, &y, 0.1),
        similarity_kl(&x.narrow(0, 0, 1).expect("a row"), &y, 0.1),
        retrieval_kl(&x, &x, &x, &y, 0.1),
        retrieval_kl(&y, &x, &x, &x, 0.1),
        supervised_simcse(&x, &y, None, None, 0.1),
        supervised_simcse(&x, &x, None, Some(&[1]), 0.1),
        supervised_simcse(&x, &x, None, None, 0.0),
        binary_cross_entropy(&x, &[1.0]),
        cross_entropy(&x, &[0, 1]),
        cross_entropy(&x, &[0, 1, 4]),
    ] {
        assert_eq!(result.expect_err("refused").code(), "input_invalid");
    }
}
