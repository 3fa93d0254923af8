//! Losses, each a scalar tensor with gradients. Sentence vectors need not be normalized: every loss
//! on angles does that itself.

use candle_core::{D, DType, Tensor};

use crate::error::{Error, ErrorKind, Result};

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::InputInvalid, message)
}

fn same_shape(what: &str, a: &Tensor, b: &Tensor) -> Result<()> {
    if a.dims() == b.dims() {
        Ok(())
    } else {
        Err(invalid(format!("{what}: shapes {:?} and {:?} differ", a.dims(), b.dims())))
    }
}

/// `values`, `n` of them, on `like`'s device.
fn constant(what: &str, values: &[f32], n: usize, like: &Tensor) -> Result<Tensor> {
    if values.len() != n {
        return Err(invalid(format!("{what}: {} scores for {n} rows", values.len())));
    }
    Ok(Tensor::from_slice(values, n, like.device())?)
}

/// `log softmax` over the last dimension, from operations that have a backward pass.
fn log_softmax(logits: &Tensor) -> Result<Tensor> {
    let shifted = logits.broadcast_sub(&logits.max_keepdim(D::Minus1)?.detach())?;
    Ok(shifted.broadcast_sub(&shifted.exp()?.sum_keepdim(D::Minus1)?.log()?)?)
}

/// The rows of `x` (`n × hidden`) divided by their L2 norms.
///
/// # Errors
/// When a tensor operation fails (wrong rank).
pub fn normalize(x: &Tensor) -> Result<Tensor> {
    // The tiny term keeps the root's gradient finite for a row of zeros.
    let norm = (x.sqr()?.sum_keepdim(D::Minus1)? + 1e-20)?.sqrt()?;
    Ok(x.broadcast_div(&norm)?)
}

/// The cosine of row `i` of `a` and row `i` of `b` (`n × hidden` both): `n` values.
///
/// # Errors
/// `input_invalid` when the shapes differ.
pub fn pair_cosine(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    same_shape("cosine", a, b)?;
    Ok((normalize(a)? * normalize(b)?)?.sum(D::Minus1)?)
}

/// Supervised SimCSE (Gao et al. 2021, eq. 5): every anchor against all positives and all hard
/// negatives of the batch, cosine / `temperature`, cross entropy.
///
/// `positives` is `n × hidden` (row i belongs to anchor i), `negatives` `m × hidden`, any number.
/// With `groups` (one per anchor) all positives whose anchor is of the same group count as
/// positives of each other (the mean of their log-probabilities is taken, as in SupCon), so that
/// repeated premises and paraphrase sets are not pushed apart.
///
/// # Errors
/// `input_invalid` when shapes, groups or temperature do not fit.
pub fn supervised_simcse(
    anchors: &Tensor,
    positives: &Tensor,
    negatives: Option<&Tensor>,
    groups: Option<&[u32]>,
    temperature: f32,
) -> Result<Tensor> {
    same_shape("SimCSE anchors and positives", anchors, positives)?;
    if !(temperature > 0.0 && temperature.is_finite()) {
        return Err(invalid(format!("SimCSE temperature is {temperature}; expected a number > 0")));
    }
    let n = anchors.dim(0)?;
    if let Some(groups) = groups.filter(|groups| groups.len() != n) {
        return Err(invalid(format!("SimCSE: {} groups for {n} anchors", groups.len())));
    }
    let candidates = match negatives {
        Some(negatives) => Tensor::cat(&[positives, negatives], 0)?,
        None => positives.clone(),
    };
    let m = candidates.dim(0)?;
    let similarities = normalize(anchors)?.matmul(&normalize(&candidates)?.t()?)?;
    let log_p = log_softmax(&(similarities / temperature as f64)?)?;
    let mut weights = vec![0.0f32; n * m];
    for (i, row) in weights.chunks_exact_mut(m).enumerate() {
        let same = |j: usize| i == j || groups.is_some_and(|groups| groups[i] == groups[j]);
        let count = (0..n).filter(|&j| same(j)).count() as f32;
        for (j, weight) in row[..n].iter_mut().enumerate() {
            if same(j) {
                *weight = -1.0 / (count * n as f32);
            }
        }
    }
    let weights = Tensor::from_vec(weights, (n, m), anchors.device())?;
    Ok((log_p * weights)?.sum_all()?)
}

/// Mean squared error of the cosine of each pair against `scores` (say, 0 … 1). With a
/// cross-encoder's scores this is its distillation into a sentence encoder.
///
/// # Errors
/// `input_invalid` when the numbers of rows differ.
pub fn cosine_mse(a: &Tensor, b: &Tensor, scores: &[f32]) -> Result<Tensor> {
    let cosine = pair_cosine(a, b)?;
    let scores = constant("cosine MSE", scores, cosine.dim(0)?, a)?;
    Ok((cosine - scores)?.sqr()?.mean_all()?)
}

/// As [`cosine_mse`], but the squared error of row `i` counts `weights[i]` times.
///
/// # Errors
/// `input_invalid` when the numbers of rows differ.
pub fn weighted_cosine_mse(
    a: &Tensor,
    b: &Tensor,
    scores: &[f32],
    weights: &[f32],
) -> Result<Tensor> {
    let cosine = pair_cosine(a, b)?;
    let scores = constant("cosine MSE", scores, cosine.dim(0)?, a)?;
    let weights = constant("weights of the cosine MSE", weights, cosine.dim(0)?, a)?;
    Ok(((cosine - scores)?.sqr()? * weights)?.mean_all()?)
}

/// The mean of a loss over `x` itself and its leading `dimensions` columns (Matryoshka,
/// Kusupati et al. 2022).
///
/// # Errors
/// `input_invalid` when `x` has no more columns than a cut asks for; what `loss` returns.
pub fn over_dimensions(
    x: &Tensor,
    dimensions: &[usize],
    loss: impl Fn(&Tensor) -> Result<Tensor>,
) -> Result<Tensor> {
    let width = x.dim(1)?;
    let mut sum = loss(x)?;
    if dimensions.is_empty() {
        return Ok(sum);
    }
    for &dimension in dimensions {
        if dimension == 0 || dimension >= width {
            return Err(invalid(format!(
                "vectors of {width} values cannot be cut to {dimension}; expected 1 to {}",
                width - 1
            )));
        }
        sum = (sum + loss(&x.narrow(1, 0, dimension)?.contiguous()?)?)?;
    }
    Ok((sum / (1 + dimensions.len()) as f64)?)
}

/// The sum of terms, each times its weight; `None` of none.
///
/// # Errors
/// When a tensor operation fails.
pub fn weighted_sum(terms: Vec<(Tensor, f64)>) -> Result<Option<Tensor>> {
    let mut sum: Option<Tensor> = None;
    for (term, weight) in terms {
        let term = (term * weight)?;
        sum = Some(match sum {
            Some(sum) => (sum + term)?,
            None => term,
        });
    }
    Ok(sum)
}

/// CoSENT (Su 2022): `log(1 + Σ exp(scale · (cosᵢ − cosⱼ)))` over all pairs with scoreᵢ < scoreⱼ;
/// only the order of the scores counts. The usual `scale` is 20.
///
/// # Errors
/// `input_invalid` when the numbers of rows differ.
pub fn cosent(a: &Tensor, b: &Tensor, scores: &[f32], scale: f32) -> Result<Tensor> {
    let cosine = (pair_cosine(a, b)? * scale as f64)?;
    let n = cosine.dim(0)?;
    constant("CoSENT", scores, n, a)?;
    let differences = cosine.unsqueeze(1)?.broadcast_sub(&cosine.unsqueeze(0)?)?;
    let hide: Vec<f32> = scores
        .iter()
        .flat_map(|i| scores.iter().map(move |j| if i < j { 0.0 } else { -1e12 }))
        .collect();
    let hide = Tensor::from_vec(hide, (n, n), a.device())?;
    let terms = (differences + hide)?.flatten_all()?;
    // The 1 is one more term, exp(0).
    let terms = Tensor::cat(&[&terms, &Tensor::zeros(1, DType::F32, a.device())?], 0)?;
    let max = terms.max(0)?.detach();
    Ok((terms.broadcast_sub(&max)?.exp()?.sum_all()?.log()? + max)?)
}

/// Mean squared difference of two `tokens × hidden` states; the teacher's side gets no gradient.
///
/// # Errors
/// `input_invalid` when the shapes differ.
pub fn token_state_mse(student: &Tensor, teacher: &Tensor) -> Result<Tensor> {
    same_shape("token-state MSE", student, teacher)?;
    // Row by row first: a GPU sums everything at once in a single block.
    Ok((student - teacher.detach())?.sqr()?.mean(D::Minus1)?.mean_all()?)
}

/// Mean of `1 − cos` between student and teacher vectors; the teacher's side gets no gradient.
///
/// # Errors
/// `input_invalid` when the shapes differ.
pub fn pooled_cosine_distance(student: &Tensor, teacher: &Tensor) -> Result<Tensor> {
    twin_cosine_distance(student, &teacher.detach())
}

/// Mean of `1 − cos` between the vectors of one model computed in two ways; both get gradients.
///
/// # Errors
/// `input_invalid` when the shapes differ.
pub fn twin_cosine_distance(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    Ok((1.0 - pair_cosine(a, b)?.mean_all()?)?)
}

/// Kullback–Leibler divergence from the teacher's to the student's distribution of similarities
/// within the batch: row-wise softmax of cosine / `tau` over the other sentences (the diagonal is
/// left out), mean over rows. The widths of student and teacher may differ; the teacher gets no
/// gradient.
///
/// # Errors
/// `input_invalid` when the numbers of rows differ or are below 2.
pub fn similarity_kl(student: &Tensor, teacher: &Tensor, tau: f32) -> Result<Tensor> {
    let n = student.dim(0)?;
    if n != teacher.dim(0)? || n < 2 {
        return Err(invalid(format!(
            "similarity KL: {n} student and {} teacher rows; expected the same number, at least 2",
            teacher.dim(0)?
        )));
    }
    let hide: Vec<f32> = (0..n * n).map(|at| if at / n == at % n { -1e9 } else { 0.0 }).collect();
    let hide = Tensor::from_vec(hide, (n, n), student.device())?;
    let log_p = |x: &Tensor| -> Result<Tensor> {
        let x = normalize(x)?;
        log_softmax(&((x.matmul(&x.t()?)? / tau as f64)? + &hide)?)
    };
    divergence(&log_p(student)?, &log_p(&teacher.detach())?)
}

/// Kullback–Leibler divergence from the teacher's to the student's distribution over the candidates
/// of each query: row-wise softmax of the cosines of `queries` and `candidates` / `tau`, mean over
/// rows. `queries` and `teacher_queries` are `n × …`, the candidates `m × …`; the widths of student and
/// teacher may differ, and the teacher gets no gradient.
///
/// # Errors
/// `input_invalid` when the numbers of rows differ.
pub fn retrieval_kl(
    queries: &Tensor,
    candidates: &Tensor,
    teacher_queries: &Tensor,
    teacher_candidates: &Tensor,
    tau: f32,
) -> Result<Tensor> {
    let rows = |a: &Tensor, b: &Tensor| Ok::<_, Error>((a.dim(0)?, b.dim(0)?));
    let (student, teacher) =
        (rows(queries, candidates)?, rows(teacher_queries, teacher_candidates)?);
    if student != teacher {
        return Err(invalid(format!(
            "retrieval KL: the student has {} × {} queries and candidates, the teacher {} × {}",
            student.0, student.1, teacher.0, teacher.1
        )));
    }
    let log_p = |a: &Tensor, b: &Tensor| -> Result<Tensor> {
        log_softmax(&(normalize(a)?.matmul(&normalize(b)?.t()?)? / tau as f64)?)
    };
    let teacher = log_p(&teacher_queries.detach(), &teacher_candidates.detach())?;
    divergence(&log_p(queries, candidates)?, &teacher)
}

/// `Σ p (log p − log q)` of each row, mean over rows. A place that both hide has a probability of
/// exactly 0.
fn divergence(log_q: &Tensor, log_p: &Tensor) -> Result<Tensor> {
    let n = log_p.dim(0)? as f64;
    Ok(((log_p.exp()? * (log_p - log_q)?)?.sum_all()? / n)?)
}

/// Binary cross entropy of `sigmoid(logits)` against `targets` in 0 … 1, the usual loss of a
/// cross-encoder that regresses similarity. `logits` is `n` or `n × 1`.
///
/// # Errors
/// `input_invalid` when the numbers differ.
pub fn binary_cross_entropy(logits: &Tensor, targets: &[f32]) -> Result<Tensor> {
    let logits = logits.flatten_all()?;
    let targets = constant("binary cross entropy", targets, logits.dim(0)?, &logits)?;
    // max(x, 0) − x · t + log(1 + exp(−|x|)), which cannot overflow.
    let softplus = (logits.abs()?.neg()?.exp()? + 1.0)?.log()?;
    Ok(((logits.relu()? - (&logits * targets)?)? + softplus)?.mean_all()?)
}

/// Cross entropy of `n × classes` logits against class numbers.
///
/// # Errors
/// `input_invalid` when the numbers differ or a class is out of range.
pub fn cross_entropy(logits: &Tensor, classes: &[u32]) -> Result<Tensor> {
    let (n, count) = logits.dims2()?;
    if classes.len() != n {
        return Err(invalid(format!("cross entropy: {} classes for {n} rows", classes.len())));
    }
    if let Some(class) = classes.iter().find(|&&class| class as usize >= count) {
        return Err(invalid(format!("cross entropy: class {class} of {count}")));
    }
    let classes = Tensor::from_slice(classes, (n, 1), logits.device())?;
    Ok(log_softmax(logits)?.gather(&classes, 1)?.mean_all()?.neg()?)
}

#[cfg(test)]
mod tests {
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
        check("simcse", &["a", "p", "n"], |x| {
            supervised_simcse(&x[0], &x[1], Some(&x[2]), None, 0.05)
        });
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
        crate::train::nn::ops::testing::check_gradient(
            "a",
            &values(&a),
            &gradient,
            2e-2,
            |moved| {
                let a = Tensor::from_slice(moved, a.dims(), a.device()).expect("same shape");
                f64::from(values(&over_dimensions(&a, &[2, 3], on).expect("fits"))[0])
            },
        );
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
        let labels =
            supervised_simcse(&queries, &partners, Some(&others), None, 0.01).expect("fits");
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
        crate::train::nn::ops::testing::check_gradient(
            "queries",
            &start,
            &gradient,
            2e-2,
            |moved| {
                let moved = Tensor::from_slice(moved, queries.dims(), queries.device());
                f64::from(values(&uncertain(&moved.expect("same shape")))[0])
            },
        );
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
}
