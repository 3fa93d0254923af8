//! The backward pass, from the tape that the forward pass left.

use std::sync::Arc;

use candle_core::Tensor;

use super::super::batch::TokenBatch;
use super::super::gradients::{Gradient, Gradients, add_gradient};
use super::super::host::HostSlice;
use super::super::layout::{
    ATTENTION_NORM, ATTENTION_OUTPUT, EMBEDDING_NORM, INTERMEDIATE, KEY, OUTPUT, OUTPUT_NORM,
    POSITIONS, QUERY, VALUE, WORDS, layer_base,
};
use super::super::network::Network;
use super::super::ops::attention::Attention;
use super::super::ops::dropout::Mask;
use super::super::ops::linear::{self, LinearSize};
use super::super::ops::pool::{Buffer, Pool};
use super::super::ops::vector::{add_in_place, column_dots, column_sums};
use super::super::ops::{activation, embedding, layer_norm, pooling};
use super::super::tape::{LayerTape, Tape};
use super::weights::Weights;
use crate::error::Result;

/// Where gradients go: only trainable parameters get any.
struct Sink<'a> {
    model: &'a Network,
    gradients: &'a mut Gradients,
}

impl Sink<'_> {
    fn wants(&self, index: usize) -> bool {
        self.model.parameters.list[index].trainable
    }

    fn put(&mut self, index: usize, len: usize, compute: impl FnOnce(&mut [f32])) -> Result<()> {
        if !self.wants(index) {
            return Ok(());
        }
        let mut values = self.model.pool.take(len);
        compute(&mut values);
        add_gradient(&mut self.gradients.entries[index], Gradient::Host(values))
    }

    /// Weight and bias of the linear layer whose weight is parameter `index`; `dy` has no gaps.
    fn linear(&mut self, index: usize, size: LinearSize, dy: &[f32], x: &[f32]) -> Result<()> {
        self.put(index, size.inputs * size.outputs, |dw| {
            linear::backward_weight(size, dy, size.outputs, x, dw);
        })?;
        self.put(index + 1, size.outputs, |db| linear::backward_bias(dy, db))
    }

    fn norm(&mut self, index: usize, dy: &[f32], normalized: &[f32], cols: usize) -> Result<()> {
        self.put(index, cols, |dw| column_dots(dy, normalized, cols, dw))?;
        self.put(index + 1, cols, |db| column_sums(dy, cols, db))
    }
}

/// The gradients of an output's tensors, where the loss depends on them.
pub(in crate::train::nn) struct OutputGradients {
    pub token_states: Option<Tensor>,
    pub pooled: Option<Tensor>,
    pub layer_states: Vec<Option<Tensor>>,
}

pub(in crate::train::nn) fn backward(
    model: &Network,
    tape: Tape,
    output: OutputGradients,
    gradients: &mut Gradients,
) -> Result<()> {
    let (config, pool) = (&model.config, &model.pool);
    let weights = Weights::new(model)?;
    let hidden = config.hidden_size;
    let tokens = tape.batch.num_tokens();
    let mut sink = Sink { model, gradients };

    let mut dstates = match &output.token_states {
        Some(gradient) => pool.copy(&HostSlice::new(&gradient.contiguous()?)?),
        None => pool.zeros(tokens * hidden),
    };
    if let Some(gradient) = &output.pooled {
        let gradient = gradient.contiguous()?;
        let gradient = HostSlice::new(&gradient)?;
        pooling::backward(config.pooling, tape.batch.offsets(), hidden, &gradient, &mut dstates);
    }
    let reached_embeddings = tape.embeddings.is_some();
    for (index, layer_tape) in tape.layers.into_iter().enumerate().rev() {
        let layer = tape.first_layer + index;
        for (&wanted, gradient) in tape.layer_states.iter().zip(&output.layer_states) {
            if let (true, Some(gradient)) = (wanted == layer, gradient) {
                let gradient = gradient.contiguous()?;
                add_in_place(&mut dstates, &HostSlice::new(&gradient)?);
            }
        }
        let down = index > 0 || reached_embeddings;
        let masks = tape.dropout.layer(layer);
        dstates = layer_backward(
            &mut sink,
            &weights,
            layer,
            &tape.batch,
            layer_tape,
            masks,
            dstates,
            down,
        )?;
    }

    let Some(norm) = tape.embeddings else {
        return Ok(());
    };
    if let Some(mask) = tape.dropout.embeddings() {
        mask.apply(&mut dstates);
    }
    sink.norm(EMBEDDING_NORM, &dstates, &norm.normalized, hidden)?;
    if !sink.wants(WORDS) && !sink.wants(POSITIONS) {
        return Ok(());
    }
    let mut drows = pool.take(tokens * hidden);
    let (gain, _) = weights.pair(EMBEDDING_NORM);
    layer_norm::backward(&dstates, &norm.normalized, &norm.inverse, gain, &mut drows);
    if sink.wants(WORDS) {
        let (rows, groups) = embedding::occurrences(tape.batch.ids());
        let mut values = pool.take(rows.len() * hidden);
        embedding::backward(&drows, hidden, &groups, &mut values);
        let gradient = Gradient::HostRows { rows, values };
        add_gradient(&mut sink.gradients.entries[WORDS], gradient)?;
    }
    if sink.wants(POSITIONS) {
        let places: Vec<u32> =
            embedding::places(tape.batch.offsets()).into_iter().map(|place| place as u32).collect();
        let (rows, groups) = embedding::occurrences(&places);
        let mut values = pool.zeros(config.max_position_embeddings * hidden);
        // Positions 0 to the longest sentence's last all occur.
        embedding::backward(&drows, hidden, &groups, &mut values[..rows.len() * hidden]);
        add_gradient(&mut sink.gradients.entries[POSITIONS], Gradient::Host(values))?;
    }
    Ok(())
}

/// The gradient of a layer's input from that of its output; of arbitrary content without `down`.
#[expect(clippy::too_many_arguments, reason = "one call, all of them different things")]
fn layer_backward(
    sink: &mut Sink<'_>,
    weights: &Weights<'_>,
    layer: usize,
    batch: &TokenBatch,
    tape: LayerTape,
    [mask_attention, mask_context, mask_output]: [Option<Mask>; 3],
    dy: Buffer,
    down: bool,
) -> Result<Buffer> {
    let (config, pool) = (&sink.model.config, &sink.model.pool);
    let (hidden, inner, rows) = (config.hidden_size, config.intermediate_size, batch.num_tokens());
    let (base, precision) = (layer_base(layer), sink.model.precision);
    let weights = weights.layer(layer, tape.weights.as_ref());
    let square = LinearSize { rows, inputs: hidden, outputs: hidden, precision };

    // Feed-forward: y = LayerNorm(dropout(act(m · Wiᵀ) · Woᵀ) + m).
    sink.norm(base + OUTPUT_NORM, &dy, &tape.output_norm.normalized, hidden)?;
    let (gain, _) = weights.norm(OUTPUT_NORM);
    let mut dmiddle = pool.take(rows * hidden);
    let norm = &tape.output_norm;
    layer_norm::backward(&dy, &norm.normalized, &norm.inverse, gain, &mut dmiddle);
    drop(dy);
    let mut dinner = pool.take(rows * inner);
    {
        let dropped = dropped(pool, &dmiddle, mask_output);
        let dout: &[f32] = dropped.as_deref().unwrap_or(&dmiddle);
        let shape = LinearSize { rows, inputs: inner, outputs: hidden, precision };
        sink.linear(base + OUTPUT, shape, dout, &tape.activated)?;
        linear::backward_input(shape, dout, hidden, weights.linear(OUTPUT).0, &mut dinner, false);
    }
    activation::backward(&mut dinner, &tape.slope);
    let shape = LinearSize { rows, inputs: hidden, outputs: inner, precision };
    sink.linear(base + INTERMEDIATE, shape, &dinner, &tape.middle)?;
    let weight = weights.linear(INTERMEDIATE).0;
    linear::backward_input(shape, &dinner, inner, weight, &mut dmiddle, true);
    drop(dinner);

    // Attention: m = LayerNorm(dropout(context · Woᵀ) + x).
    sink.norm(base + ATTENTION_NORM, &dmiddle, &tape.attention_norm.normalized, hidden)?;
    let (gain, _) = weights.norm(ATTENTION_NORM);
    let mut dx = pool.take(rows * hidden);
    let norm = &tape.attention_norm;
    layer_norm::backward(&dmiddle, &norm.normalized, &norm.inverse, gain, &mut dx);
    let mut dcontext = dmiddle;
    {
        let dropped = dropped(pool, &dx, mask_context);
        let dout: &[f32] = dropped.as_deref().unwrap_or(&dx);
        sink.linear(base + ATTENTION_OUTPUT, square, dout, &tape.context)?;
        let weight = weights.linear(ATTENTION_OUTPUT).0;
        linear::backward_input(square, dout, hidden, weight, &mut dcontext, false);
    }
    let attention = Attention {
        offsets: batch.offsets(),
        heads: config.num_attention_heads,
        hidden,
        dropout: mask_attention,
    };
    let mut dqkv = pool.take(rows * 3 * hidden);
    attention.backward(&tape.qkv, &tape.probabilities, &dcontext, &mut dqkv);
    drop(dcontext);
    let mut dbias = vec![0.0; 3 * hidden];
    column_sums(&dqkv, 3 * hidden, &mut dbias);
    for (part, which) in [QUERY, KEY, VALUE].into_iter().enumerate() {
        let dpart = &dqkv[part * hidden..];
        sink.put(base + which, hidden * hidden, |dw| {
            linear::backward_weight(square, dpart, 3 * hidden, &tape.input, dw);
        })?;
        sink.put(base + which + 1, hidden, |db| {
            db.copy_from_slice(&dbias[part * hidden..][..hidden]);
        })?;
        if down {
            let weight = weights.linear(which).0;
            linear::backward_input(square, dpart, 3 * hidden, weight, &mut dx, true);
        }
    }
    Ok(dx)
}

/// A copy of `x` with the mask applied, if there is one.
fn dropped(pool: &Arc<Pool>, x: &[f32], mask: Option<Mask>) -> Option<Buffer> {
    mask.map(|mask| {
        let mut copy = pool.copy(x);
        mask.apply(&mut copy);
        copy
    })
}
