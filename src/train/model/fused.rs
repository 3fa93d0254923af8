//! The encoder on the CPU: fused operations on packed rows, and a tape for the backward pass.

use std::sync::Arc;

use candle_core::{Device, Tensor, Var};

use super::parameters::{Gradient, HostSlice, add_gradient};
use super::{
    ATTENTION_NORM, ATTENTION_OUTPUT, BertModel, EMBEDDING_NORM, FORWARD_SITES, FakeQuant,
    ForwardOptions, ForwardOutput, Gradients, INTERMEDIATE, KEY, OUTPUT, OUTPUT_NORM, POSITIONS,
    QUERY, TokenBatch, VALUE, WORDS, layer_base,
};
use crate::error::Result;
use crate::train::ops::attention::Attention;
use crate::train::ops::dropout::Mask;
use crate::train::ops::linear::{self, Shape};
use crate::train::ops::pool::{Buffer, Pool};
use crate::train::ops::{
    activation, add_in_place, column_dots, column_sums, embedding, fake_quant, layer_norm, pooling,
};

/// What the backward pass needs of one forward pass.
pub(super) struct Tape {
    batch: TokenBatch,
    dropout: Dropouts,
    embeddings: Option<NormTape>,
    /// From the lowest layer that needs gradients upwards.
    layers: Vec<LayerTape>,
    first_layer: usize,
    layer_states: Vec<usize>,
}

struct NormTape {
    normalized: Buffer,
    inverse: Buffer,
}

struct LayerTape {
    /// Inputs of the linear layers (rounded when quantization-aware).
    input: Arc<Buffer>,
    qkv: Buffer,
    probabilities: Buffer,
    context: Buffer,
    attention_norm: NormTape,
    middle: Arc<Buffer>,
    activated: Buffer,
    slope: Buffer,
    output_norm: NormTape,
    weights: Option<RoundedWeights>,
}

/// A layer's six matrices, rounded.
type RoundedWeights = [Buffer; 6];
const LINEARS: [usize; 6] = [QUERY, KEY, VALUE, ATTENTION_OUTPUT, INTERMEDIATE, OUTPUT];

#[derive(Clone, Copy)]
struct Dropouts {
    hidden: f32,
    attention: f32,
    seed: u64,
}

impl Dropouts {
    fn new(options: &ForwardOptions) -> Self {
        options.dropout.map_or(Dropouts { hidden: 0.0, attention: 0.0, seed: 0 }, |dropout| {
            Dropouts { hidden: dropout.hidden, attention: dropout.attention, seed: dropout.seed }
        })
    }

    fn embeddings(&self) -> Option<Mask> {
        Mask::new(self.hidden, self.seed, 0)
    }

    /// Attention, its output and the feed-forward output of one layer.
    fn layer(&self, layer: usize) -> [Option<Mask>; 3] {
        let site = 1 + layer as u32 * FORWARD_SITES;
        [
            Mask::new(self.attention, self.seed, site),
            Mask::new(self.hidden, self.seed, site + 1),
            Mask::new(self.hidden, self.seed, site + 2),
        ]
    }
}

/// All weights, borrowed.
struct Weights<'a> {
    values: Vec<HostSlice<'a>>,
}

impl<'a> Weights<'a> {
    fn new(model: &'a BertModel) -> Result<Self> {
        let values = model
            .parameters
            .list
            .iter()
            .map(|parameter| HostSlice::new(&parameter.var))
            .collect::<Result<_>>()?;
        Ok(Weights { values })
    }

    /// Gain or weight of what begins at parameter `index`, and its bias.
    fn pair(&self, index: usize) -> (&[f32], &[f32]) {
        (&self.values[index], &self.values[index + 1])
    }

    fn layer(&'a self, layer: usize, rounded: Option<&'a RoundedWeights>) -> LayerWeights<'a> {
        LayerWeights { all: self, base: layer_base(layer), rounded }
    }
}

struct LayerWeights<'a> {
    all: &'a Weights<'a>,
    base: usize,
    rounded: Option<&'a RoundedWeights>,
}

impl LayerWeights<'_> {
    /// The matrix that products use, and the bias.
    fn linear(&self, which: usize) -> (&[f32], &[f32]) {
        let (weight, bias) = self.all.pair(self.base + which);
        let place = LINEARS.iter().position(|&linear| linear == which);
        match (self.rounded, place) {
            (Some(rounded), Some(place)) => (&rounded[place], bias),
            _ => (weight, bias),
        }
    }

    fn norm(&self, which: usize) -> (&[f32], &[f32]) {
        self.all.pair(self.base + which)
    }
}

fn rounded_weights(
    model: &BertModel,
    weights: &Weights<'_>,
    layer: usize,
    limit: i8,
) -> RoundedWeights {
    LINEARS.map(|which| {
        let mut rounded = model.pool.copy(&weights.values[layer_base(layer) + which]);
        let inputs = match which {
            OUTPUT => model.config.intermediate_size,
            _ => model.config.hidden_size,
        };
        fake_quant::symmetric(&mut rounded, inputs, limit);
        rounded
    })
}

/// `x` as a linear layer sees it: rounded in a copy, or itself.
fn linear_input(
    pool: &Arc<Pool>,
    x: &Arc<Buffer>,
    cols: usize,
    quantize: Option<FakeQuant>,
) -> Arc<Buffer> {
    match quantize {
        Some(FakeQuant { activations: true, .. }) => {
            let mut rounded = pool.copy(x);
            fake_quant::activations(&mut rounded, cols);
            Arc::new(rounded)
        }
        _ => x.clone(),
    }
}

/// Sees the states after each layer normalization, in the order of [`BertModel::observe_norms`].
pub(super) type Observer<'a> = dyn FnMut(usize, &[f32]) + 'a;

pub(super) fn forward(
    model: &BertModel,
    batch: &TokenBatch,
    options: &ForwardOptions,
    observe: &mut Observer<'_>,
) -> Result<ForwardOutput> {
    let (config, pool) = (&model.config, &model.pool);
    let weights = Weights::new(model)?;
    let dropout = Dropouts::new(options);
    let quantize = options.quantize;
    let hidden = config.hidden_size;
    let tokens = batch.num_tokens();
    let first_layer = if options.train { model.first_trainable_layer() } else { usize::MAX };

    let mut normalized = pool.take(tokens * hidden);
    embedding::forward(
        batch.ids(),
        batch.offsets(),
        hidden,
        &weights.values[WORDS],
        &weights.values[POSITIONS],
        quantize.is_some_and(|quantize| quantize.embeddings),
        &mut normalized,
    );
    let mut inverse = pool.take(tokens);
    let mut states = pool.take(tokens * hidden);
    let (gain, bias) = weights.pair(EMBEDDING_NORM);
    layer_norm::forward(
        &mut normalized,
        None,
        None,
        gain,
        bias,
        config.layer_norm_eps,
        &mut states,
        &mut inverse,
    );
    observe(0, &states);
    if let Some(mask) = dropout.embeddings() {
        mask.apply(&mut states);
    }
    let embeddings =
        (options.train && model.embeddings_trainable()).then_some(NormTape { normalized, inverse });

    let mut states = Arc::new(states);
    let mut layers = Vec::new();
    let mut layer_states = vec![None; options.layer_states.len()];
    for layer in 0..config.num_hidden_layers {
        let rounded = quantize.map(|q| rounded_weights(model, &weights, layer, q.weight_max));
        let layer_weights = weights.layer(layer, rounded.as_ref());
        let keep = layer >= first_layer;
        let (next, tape) = layer_forward(
            model,
            &layer_weights,
            batch,
            states,
            dropout.layer(layer),
            quantize,
            keep,
            &mut |states| observe(1 + 2 * layer, states),
        );
        states = next;
        observe(2 + 2 * layer, &states);
        if let Some(mut tape) = tape {
            tape.weights = rounded;
            layers.push(tape);
        }
        for (wanted, state) in options.layer_states.iter().zip(&mut layer_states) {
            if *wanted == layer {
                *state = Some(states.to_vec());
            }
        }
    }

    let mut pooled = vec![0.0; batch.num_sentences() * hidden];
    pooling::forward(config.pooling, batch.offsets(), hidden, &states, &mut pooled);
    let output = |values: Vec<f32>| -> Result<Tensor> {
        let shape = (values.len() / hidden, hidden);
        if options.train {
            // A leaf for candle: the loss's gradient ends here and goes on in `backward`.
            Ok(Var::from_vec(values, shape, &Device::Cpu)?.into_inner())
        } else {
            Ok(Tensor::from_vec(values, shape, &Device::Cpu)?)
        }
    };
    Ok(ForwardOutput {
        token_states: output(states.to_vec())?,
        pooled: output(pooled)?,
        layer_states: layer_states.into_iter().flatten().map(output).collect::<Result<_>>()?,
        train: options.train,
        tape: options.train.then(|| Tape {
            batch: batch.clone(),
            dropout,
            embeddings,
            layers,
            first_layer,
            layer_states: options.layer_states.clone(),
        }),
        rows: None,
    })
}

#[allow(clippy::too_many_arguments)] // a layer has that many sides
fn layer_forward(
    model: &BertModel,
    weights: &LayerWeights<'_>,
    batch: &TokenBatch,
    states: Arc<Buffer>,
    [mask_attention, mask_context, mask_output]: [Option<Mask>; 3],
    quantize: Option<FakeQuant>,
    keep: bool,
    observe: &mut dyn FnMut(&[f32]),
) -> (Arc<Buffer>, Option<LayerTape>) {
    let (config, pool) = (&model.config, &model.pool);
    let (hidden, inner, rows) = (config.hidden_size, config.intermediate_size, batch.num_tokens());
    let (eps, precision) = (config.layer_norm_eps, model.precision);
    let square = Shape { rows, inputs: hidden, outputs: hidden, precision };

    let input = linear_input(pool, &states, hidden, quantize);
    let mut qkv = pool.take(rows * 3 * hidden);
    let mut qkv_bias = Vec::with_capacity(3 * hidden);
    for (part, which) in [QUERY, KEY, VALUE].into_iter().enumerate() {
        let (weight, bias) = weights.linear(which);
        linear::forward(square, &input, weight, &mut qkv[part * hidden..], 3 * hidden);
        qkv_bias.extend_from_slice(bias);
    }
    linear::add_bias(&mut qkv, &qkv_bias);
    let attention = Attention {
        offsets: batch.offsets(),
        heads: config.num_attention_heads,
        hidden,
        dropout: mask_attention,
    };
    let mut probabilities = pool.take(attention.num_probabilities());
    let mut context = pool.take(rows * hidden);
    attention.forward(&qkv, &mut probabilities, &mut context);
    if quantize.is_some_and(|quantize| quantize.activations) {
        fake_quant::activations(&mut context, hidden);
    }

    let mut normalized = pool.take(rows * hidden);
    let (weight, bias) = weights.linear(ATTENTION_OUTPUT);
    linear::forward(square, &context, weight, &mut normalized, hidden);
    linear::add_bias(&mut normalized, bias);
    let mut middle = pool.take(rows * hidden);
    let mut inverse = pool.take(rows);
    let (gain, bias) = weights.norm(ATTENTION_NORM);
    layer_norm::forward(
        &mut normalized,
        Some(&states),
        mask_context,
        gain,
        bias,
        eps,
        &mut middle,
        &mut inverse,
    );
    drop(states);
    observe(&middle);
    let attention_norm = NormTape { normalized, inverse };
    let middle = Arc::new(middle);

    let middle_input = linear_input(pool, &middle, hidden, quantize);
    let mut activated = pool.take(rows * inner);
    let (weight, bias) = weights.linear(INTERMEDIATE);
    let up = Shape { rows, inputs: hidden, outputs: inner, precision };
    linear::forward(up, &middle_input, weight, &mut activated, inner);
    let mut slope = keep.then(|| pool.take(rows * inner));
    activation::bias_activation(config.hidden_act, &mut activated, bias, slope.as_deref_mut());
    if quantize.is_some_and(|quantize| quantize.activations) {
        fake_quant::activations(&mut activated, inner);
    }

    let mut normalized = pool.take(rows * hidden);
    let (weight, bias) = weights.linear(OUTPUT);
    let down = Shape { rows, inputs: inner, outputs: hidden, precision };
    linear::forward(down, &activated, weight, &mut normalized, hidden);
    linear::add_bias(&mut normalized, bias);
    let mut output = pool.take(rows * hidden);
    let mut inverse = pool.take(rows);
    let (gain, bias) = weights.norm(OUTPUT_NORM);
    layer_norm::forward(
        &mut normalized,
        Some(&middle),
        mask_output,
        gain,
        bias,
        eps,
        &mut output,
        &mut inverse,
    );
    let tape = slope.map(|slope| LayerTape {
        input,
        qkv,
        probabilities,
        context,
        attention_norm,
        middle: middle_input,
        activated,
        slope,
        output_norm: NormTape { normalized, inverse },
        weights: None,
    });
    (Arc::new(output), tape)
}

/// Where gradients go: only trainable parameters get any.
struct Sink<'a> {
    model: &'a BertModel,
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
    fn linear(&mut self, index: usize, shape: Shape, dy: &[f32], x: &[f32]) -> Result<()> {
        self.put(index, shape.inputs * shape.outputs, |dw| {
            linear::backward_weight(shape, dy, shape.outputs, x, dw);
        })?;
        self.put(index + 1, shape.outputs, |db| linear::backward_bias(dy, db))
    }

    fn norm(&mut self, index: usize, dy: &[f32], normalized: &[f32], cols: usize) -> Result<()> {
        self.put(index, cols, |dw| column_dots(dy, normalized, cols, dw))?;
        self.put(index + 1, cols, |db| column_sums(dy, cols, db))
    }
}

/// The gradients of an output's tensors, where the loss depends on them.
pub(super) struct OutputGradients {
    pub token_states: Option<Tensor>,
    pub pooled: Option<Tensor>,
    pub layer_states: Vec<Option<Tensor>>,
}

pub(super) fn backward(
    model: &BertModel,
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
    let square = Shape { rows, inputs: hidden, outputs: hidden, precision };

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
        let shape = Shape { rows, inputs: inner, outputs: hidden, precision };
        sink.linear(base + OUTPUT, shape, dout, &tape.activated)?;
        linear::backward_input(shape, dout, hidden, weights.linear(OUTPUT).0, &mut dinner, false);
    }
    activation::backward(&mut dinner, &tape.slope);
    let shape = Shape { rows, inputs: hidden, outputs: inner, precision };
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
