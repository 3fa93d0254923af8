//! The encoder in plain 64-bit floats: slow, obvious, and apart from the crate's own.

use munjang::config::{Activation, AfterPooling, DenseActivation, Pooling};
use munjang::weights::{FloatModel, LayerNorm, Linear};

type Rows = Vec<Vec<f64>>;

/// The sentence embedding of `ids`, of length 1.
pub fn embed(model: &FloatModel, ids: &[u32]) -> Vec<f32> {
    let config = &model.config;
    let eps = f64::from(config.layer_norm_eps);
    let mut position = 0;
    let mut states: Rows = ids
        .iter()
        .map(|&id| {
            let word = model.word_embeddings.row(id as usize);
            let place = match &model.additions.padding_position {
                Some(place) if config.pad_token_id == Some(id) => place,
                _ => {
                    position += 1;
                    model.position_embeddings.row(position - 1)
                }
            };
            word.iter().zip(place).map(|(&a, &b)| f64::from(a) + f64::from(b)).collect()
        })
        .collect();
    norm(&mut states, &model.embedding_norm, eps);
    if let Some(projection) = &model.additions.embedding_projection {
        states = linear(&states, projection);
    }
    for layer in &model.layers {
        let (q, k, v) = (
            linear(&states, &layer.query),
            linear(&states, &layer.key),
            linear(&states, &layer.value),
        );
        let size = config.head_size();
        let mut context = vec![vec![0.0; config.hidden_size]; ids.len()];
        for head in 0..config.num_attention_heads {
            let part = head * size..(head + 1) * size;
            for (row, query) in q.iter().enumerate() {
                let scores: Vec<f64> = k
                    .iter()
                    .map(|key| dot(&query[part.clone()], &key[part.clone()]) / (size as f64).sqrt())
                    .collect();
                let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let weights: Vec<f64> = scores.iter().map(|score| (score - max).exp()).collect();
                let total: f64 = weights.iter().sum();
                for (weight, value) in weights.iter().zip(&v) {
                    for column in part.clone() {
                        context[row][column] += weight / total * value[column];
                    }
                }
            }
        }
        add(&mut states, &linear(&context, &layer.attention_output));
        norm(&mut states, &layer.attention_norm, eps);
        let mut wide = linear(&states, &layer.intermediate);
        for value in wide.iter_mut().flatten() {
            *value = activate(*value, config.hidden_act);
        }
        add(&mut states, &linear(&wide, &layer.output));
        norm(&mut states, &layer.output_norm, eps);
    }
    let pooled: Vec<f64> = match config.pooling {
        Pooling::Cls => states[0].clone(),
        _ => (0..config.hidden_size)
            .map(|column| states.iter().map(|row| row[column]).sum::<f64>() / ids.len() as f64)
            .collect(),
    };
    let mut modules = model.additions.dense.iter();
    let mut pooled = vec![pooled];
    for step in &config.after_pooling {
        match step {
            AfterPooling::Normalize => pooled = vec![unit(&pooled[0])],
            AfterPooling::Dense { activation, .. } => {
                pooled = linear(&pooled, modules.next().unwrap());
                pooled[0].iter_mut().for_each(|x| *x = activate_dense(*x, *activation));
            }
            other => unreachable!("{other:?} is not tested"),
        }
    }
    unit(&pooled[0]).iter().map(|&value| value as f32).collect()
}

fn unit(x: &[f64]) -> Vec<f64> {
    let length = dot(x, x).sqrt();
    x.iter().map(|value| value / length).collect()
}

fn activate_dense(x: f64, activation: DenseActivation) -> f64 {
    match activation {
        DenseActivation::Identity => x,
        DenseActivation::Tanh => x.tanh(),
        DenseActivation::Relu => x.max(0.0),
        DenseActivation::Sigmoid => 1.0 / (1.0 + (-x).exp()),
        DenseActivation::Gelu => activate(x, Activation::Gelu),
        other => unreachable!("{other:?} is not tested"),
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn linear(rows: &Rows, linear: &Linear) -> Rows {
    rows.iter()
        .map(|row| {
            (0..linear.weight.rows)
                .map(|out| {
                    let weights = linear.weight.row(out).iter();
                    let sum: f64 = weights.zip(row).map(|(&w, x)| f64::from(w) * x).sum();
                    sum + f64::from(linear.bias[out])
                })
                .collect()
        })
        .collect()
}

fn add(states: &mut Rows, more: &Rows) {
    for (value, add) in states.iter_mut().flatten().zip(more.iter().flatten()) {
        *value += add;
    }
}

fn norm(states: &mut Rows, norm: &LayerNorm, eps: f64) {
    for row in states {
        let mean = row.iter().sum::<f64>() / row.len() as f64;
        let variance = row.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / row.len() as f64;
        for (x, (&gain, &bias)) in row.iter_mut().zip(norm.weight.iter().zip(&norm.bias)) {
            *x = (*x - mean) / (variance + eps).sqrt() * f64::from(gain) + f64::from(bias);
        }
    }
}

fn activate(x: f64, activation: Activation) -> f64 {
    match activation {
        Activation::Gelu => x * 0.5 * (1.0 + erf(x * std::f64::consts::FRAC_1_SQRT_2)),
        Activation::GeluTanh => {
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x);
            0.5 * x * (1.0 + inner.tanh())
        }
        Activation::Relu => x.max(0.0),
        other => unreachable!("{other:?} is not tested"),
    }
}

/// Abramowitz and Stegun 7.1.26, error below 1.5e-7.
fn erf(x: f64) -> f64 {
    let t = 1.0 / (1.0 + 0.3275911 * x.abs());
    let poly = ((((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t
        + 0.254829592)
        * t;
    (1.0 - poly * (-x * x).exp()).copysign(x)
}
