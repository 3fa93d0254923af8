//! Stage `shift_states`: the mean of the states before every layer moved to zero.

use candle_core::Device;

use super::sample::sample;
use crate::error::Result;
use crate::train::nn::batch::TokenBatch;
use crate::train::nn::bert::BertModel;
use crate::train::run::Run;
use crate::weights::{FloatModel, Linear};

/// What stage `index` makes.
pub(super) fn run(run: &Run, index: usize) -> Result<FloatModel> {
    let stage = &run.recipe.stages[index];
    let mut model = run.model_before(index, stage.model())?;
    let store = sample(run, stage, &model)?;
    let sentences: Vec<&[u32]> = (0..store.len()).map(|index| store.ids(index)).collect();
    let most = shift_states(&mut model, &sentences)?;
    eprintln!("{}: channels of the states moved by up to {most:.2}", stage.name);
    Ok(model)
}

/// Takes a constant vector from the states before every layer and gives it back in the biases that
/// read them: the same function in real numbers. The vector is each channel's mean over the tokens of
/// `sentences`; the last layer's states, which are pooled, stay as they are.
///
/// A layer that is then put on another one than it was trained on ([`pick_layers`](super::pick_layers::pick_layers)) finds the mean
/// that it expects. And a channel that lies far from zero on every token no longer widens the 7-bit
/// step of a row.
///
/// With x' = x − c, `W x + b` = `W x' + (b + W c)`, and the residual `x + f(x)` is `x' + (f(x) + c)`.
///
/// Returns the largest constant of any channel.
///
/// # Errors
/// When a forward pass fails.
pub fn shift_states(model: &mut FloatModel, sentences: &[&[u32]]) -> Result<f32> {
    const BATCH: usize = 64;
    let bert = BertModel::from_float_model(model, &Device::Cpu)?;
    let hidden = model.config.hidden_size;
    let mut sums = vec![vec![0.0f64; hidden]; 2 * model.layers.len()];
    let mut tokens = 0usize;
    for chunk in sentences.chunks(BATCH) {
        let batch = TokenBatch::new(chunk)?;
        tokens += batch.num_tokens();
        bert.observe_norms(&batch, &mut |norm, states| {
            let Some(sums) = sums.get_mut(norm) else { return };
            for row in states.chunks_exact(hidden) {
                sums.iter_mut().zip(row).for_each(|(sum, &x)| *sum += f64::from(x));
            }
        })?;
    }
    let shifts: Vec<Vec<f64>> = sums
        .iter()
        .map(|sums| sums.iter().map(|sum| sum / tokens.max(1) as f64).collect())
        .collect();

    let add = |bias: &mut [f32], by: &[f64], sign: f64| {
        for (bias, by) in bias.iter_mut().zip(by) {
            *bias = (f64::from(*bias) + sign * by) as f32;
        }
    };
    let read_shifted = |linear: &mut Linear, shift: &[f64]| {
        for (row, bias) in linear.bias.iter_mut().enumerate() {
            let product: f64 =
                linear.weight.row(row).iter().zip(shift).map(|(&w, c)| f64::from(w) * c).sum();
            *bias = (f64::from(*bias) + product) as f32;
        }
    };
    for (index, shift) in shifts.iter().enumerate() {
        let layer = index / 2;
        let norm = match index {
            0 => &mut model.embedding_norm,
            _ if index % 2 == 1 => &mut model.layers[layer].attention_norm,
            _ => &mut model.layers[layer - 1].output_norm,
        };
        add(&mut norm.bias, shift, -1.0);
        let layer = &mut model.layers[layer];
        if index % 2 == 0 {
            for linear in [&mut layer.query, &mut layer.key, &mut layer.value] {
                read_shifted(linear, shift);
            }
            add(&mut layer.attention_output.bias, shift, 1.0);
        } else {
            read_shifted(&mut layer.intermediate, shift);
            add(&mut layer.output.bias, shift, 1.0);
        }
    }
    Ok(shifts.iter().flatten().fold(0.0, |most: f64, shift| most.max(shift.abs())) as f32)
}
