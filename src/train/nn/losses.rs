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
mod tests;
