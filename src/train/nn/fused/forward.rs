//! The forward pass.

use std::sync::Arc;

use candle_core::{Device, Tensor, Var};

use super::super::batch::TokenBatch;
use super::super::layout::{
    ATTENTION_NORM, ATTENTION_OUTPUT, EMBEDDING_NORM, INTERMEDIATE, KEY, OUTPUT, OUTPUT_NORM,
    POSITIONS, QUERY, VALUE, WORDS,
};
use super::super::network::Network;
use super::super::ops::attention::Attention;
use super::super::ops::dropout::Mask;
use super::super::ops::linear::{self, LinearSize};
use super::super::ops::pool::{Buffer, Pool};
use super::super::ops::{activation, embedding, fake_quant, layer_norm, pooling};
use super::super::options::{FakeQuant, ForwardOptions};
use super::super::output::ForwardOutput;
use super::super::tape::{Dropouts, LayerTape, NormTape, Tape};
use super::weights::{LayerWeights, Weights, rounded_weights};
use crate::error::Result;

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

/// Sees the states after each layer normalization, in the order of [`BertModel::observe_norms`](crate::train::nn::bert::BertModel::observe_norms).
pub(in crate::train::nn) type Observer<'a> = dyn FnMut(usize, &[f32]) + 'a;

pub(in crate::train::nn) fn forward(
    model: &Network,
    batch: &TokenBatch,
    options: &ForwardOptions,
    observe: &mut Observer<'_>,
) -> Result<ForwardOutput> {
    let config = &model.config;
    let weights = Weights::new(model)?;
    let dropout = Dropouts::new(options);
    let quantize = options.quantize;
    let hidden = config.hidden_size;
    let first_layer = if options.train { model.first_trainable_layer() } else { usize::MAX };

    let (mut states, norm) = embed(model, &weights, batch, quantize);
    observe(0, &states);
    if let Some(mask) = dropout.embeddings() {
        mask.apply(&mut states);
    }
    let embeddings = (options.train && model.embeddings_trainable()).then_some(norm);

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

/// The normalized sum of word and position embeddings.
fn embed(
    model: &Network,
    weights: &Weights<'_>,
    batch: &TokenBatch,
    quantize: Option<FakeQuant>,
) -> (Buffer, NormTape) {
    let (config, pool) = (&model.config, &model.pool);
    let (hidden, tokens) = (config.hidden_size, batch.num_tokens());
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
    (states, NormTape { normalized, inverse })
}

/// `LayerNorm(dropout(x · wᵀ + b) + residual)`, the end of both halves of a layer.
struct Sum<'a> {
    residual: &'a [f32],
    dropout: Option<Mask>,
    /// The linear layer and the normalization.
    which: [usize; 2],
}

impl Sum<'_> {
    fn forward(
        &self,
        model: &Network,
        weights: &LayerWeights<'_>,
        size: LinearSize,
        x: &[f32],
    ) -> (Buffer, NormTape) {
        let [linear, norm] = self.which;
        let mut normalized = model.pool.take(size.rows * size.outputs);
        let (weight, bias) = weights.linear(linear);
        linear::forward(size, x, weight, &mut normalized, size.outputs);
        linear::add_bias(&mut normalized, bias);
        let mut output = model.pool.take(size.rows * size.outputs);
        let mut inverse = model.pool.take(size.rows);
        let (gain, bias) = weights.norm(norm);
        layer_norm::forward(
            &mut normalized,
            Some(self.residual),
            self.dropout,
            gain,
            bias,
            model.config.layer_norm_eps,
            &mut output,
            &mut inverse,
        );
        (output, NormTape { normalized, inverse })
    }
}

#[expect(clippy::too_many_arguments, reason = "a layer has that many sides")]
fn layer_forward(
    model: &Network,
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
    let precision = model.precision;
    let square = LinearSize { rows, inputs: hidden, outputs: hidden, precision };

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

    let sum =
        Sum { residual: &states, dropout: mask_context, which: [ATTENTION_OUTPUT, ATTENTION_NORM] };
    let (middle, attention_norm) = sum.forward(model, weights, square, &context);
    drop(states);
    observe(&middle);
    let middle = Arc::new(middle);

    let middle_input = linear_input(pool, &middle, hidden, quantize);
    let mut activated = pool.take(rows * inner);
    let (weight, bias) = weights.linear(INTERMEDIATE);
    let up = LinearSize { rows, inputs: hidden, outputs: inner, precision };
    linear::forward(up, &middle_input, weight, &mut activated, inner);
    let mut slope = keep.then(|| pool.take(rows * inner));
    activation::bias_activation(config.hidden_act, &mut activated, bias, slope.as_deref_mut());
    if quantize.is_some_and(|quantize| quantize.activations) {
        fake_quant::activations(&mut activated, inner);
    }

    let down = LinearSize { rows, inputs: inner, outputs: hidden, precision };
    let sum = Sum { residual: &middle, dropout: mask_output, which: [OUTPUT, OUTPUT_NORM] };
    let (output, output_norm) = sum.forward(model, weights, down, &activated);
    let tape = slope.map(|slope| LayerTape {
        input,
        qkv,
        probabilities,
        context,
        attention_norm,
        middle: middle_input,
        activated,
        slope,
        output_norm,
        weights: None,
    });
    (Arc::new(output), tape)
}
