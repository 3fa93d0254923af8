//! The encoder on any device: candle's differentiable operations on padded batches, and on a GPU our own in
//! place of the most frequent compositions.
//!
//! Only operations with a backward pass are used (candle's fused LayerNorm and softmax have none).

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CudaStorage, CustomOp1, D, Layout, Shape, Storage, Tensor, cuda};

use super::batch::TokenBatch;
#[cfg(feature = "cuda")]
use super::gpu;
use super::layout::{
    ATTENTION_NORM, ATTENTION_OUTPUT, EMBEDDING_NORM, FORWARD_SITES, INTERMEDIATE, KEY, OUTPUT,
    OUTPUT_NORM, POSITIONS, QUERY, VALUE, WORDS, layer_base,
};
use super::network::Network;
use super::ops::dropout::Mask;
use super::ops::embedding::occurrences;
use super::options::{FakeQuant, ForwardOptions};
use super::output::ForwardOutput;
use crate::config::{Activation, Pooling};
use crate::error::Result;
use crate::quant::{ACTIVATION_MAX, EMBEDDING_MAX, ROUNDING_MAGIC};
use crate::train::recipe::Precision;

/// Runs `work` with a GPU's products in `precision`: bf16 there lets the tensor cores round factors to
/// TF32, 11 significant bits.
pub(super) fn in_precision<R>(precision: Precision, work: impl FnOnce() -> R) -> R {
    let before = cuda::gemm_reduced_precision_f32();
    cuda::set_gemm_reduced_precision_f32(precision == Precision::Bf16);
    let result = work();
    cuda::set_gemm_reduced_precision_f32(before);
    result
}

/// Rows of padded states that hold tokens. candle's own `index_select` has a gradient that adds rows one
/// after another; no row is taken twice here, so the gradient can be looked up like the rows.
#[derive(Clone)]
struct RealRows {
    /// The padded row of each token.
    padded: Tensor,
    /// The token of each padded row, or `u32::MAX`.
    places: Tensor,
}

impl CustomOp1 for RealRows {
    fn name(&self) -> &'static str {
        "real_rows"
    }

    fn cpu_fwd(
        &self,
        storage: &CpuStorage,
        layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let (ids, ids_layout) = self.padded.storage_and_layout();
        let Storage::Cpu(ids) = &*ids else { candle_core::bail!("indices lie on another device") };
        let rows = storage.index_select(ids, layout, ids_layout, 0)?;
        Ok((rows, Shape::from((self.padded.elem_count(), layout.dims()[1]))))
    }

    fn cuda_fwd(
        &self,
        storage: &CudaStorage,
        layout: &Layout,
    ) -> candle_core::Result<(CudaStorage, Shape)> {
        let (ids, ids_layout) = self.padded.storage_and_layout();
        let Storage::Cuda(ids) = &*ids else { candle_core::bail!("indices lie on another device") };
        let rows = storage.index_select(ids, layout, ids_layout, 0)?;
        Ok((rows, Shape::from((self.padded.elem_count(), layout.dims()[1]))))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, grad: &Tensor) -> candle_core::Result<Option<Tensor>> {
        Ok(Some(grad.contiguous()?.index_select(&self.places, 0)?))
    }
}

struct Pass<'a> {
    model: &'a Network,
    options: &'a ForwardOptions,
    sentences: usize,
    longest: usize,
}

pub(super) fn forward(
    model: &Network,
    batch: &TokenBatch,
    options: &ForwardOptions,
) -> Result<ForwardOutput> {
    let (config, device) = (&model.config, &model.device);
    let (hidden, longest, sentences) = (config.hidden_size, batch.longest(), batch.num_sentences());
    let pass = Pass { model, options, sentences, longest };

    let mut ids = vec![0u32; sentences * longest];
    let mut padded_rows = Vec::with_capacity(batch.num_tokens());
    // candle reads zeros at the largest index.
    let mut places = vec![u32::MAX; sentences * longest];
    let mut real = vec![0.0f32; sentences * longest];
    for (sentence, pair) in batch.offsets().windows(2).enumerate() {
        for (place, token) in (pair[0]..pair[1]).enumerate() {
            let at = sentence * longest + place;
            ids[at] = batch.ids()[token];
            real[at] = 1.0;
            places[at] = padded_rows.len() as u32;
            padded_rows.push(at as u32);
        }
    }
    let tokens = padded_rows.len();
    let real_rows = RealRows {
        padded: Tensor::from_vec(padded_rows, tokens, device)?,
        places: Tensor::from_vec(places, sentences * longest, device)?,
    };
    let hide: Vec<f32> = real.iter().map(|real| (real - 1.0) * 1e9).collect();
    let hide = Tensor::from_vec(hide, (sentences, 1, 1, longest), device)?;
    let real = Tensor::from_vec(real, (sentences, longest, 1), device)?;
    let ids = Tensor::from_vec(ids, sentences * longest, device)?;

    let mut words = pass.parameter(WORDS).index_select(&ids, 0)?;
    let mut positions = pass.parameter(POSITIONS).narrow(0, 0, longest)?;
    if options.quantize.is_some_and(|quantize| quantize.embeddings) {
        words = symmetric(&words, EMBEDDING_MAX)?;
        positions = symmetric(&positions, EMBEDDING_MAX)?;
    }
    let words = words.reshape((sentences, longest, hidden))?;
    let states = words.broadcast_add(&positions)?.reshape((sentences * longest, hidden))?;
    let mut states = pass.layer_norm(&states, EMBEDDING_NORM)?;
    let rates = options.dropout;
    states = pass.dropout(&states, rates.map_or(0.0, |rates| rates.hidden), 0)?;

    let mut layer_states = vec![None; options.layer_states.len()];
    for layer in 0..config.num_hidden_layers {
        states = pass.layer(&states, layer, &hide)?;
        for (wanted, state) in options.layer_states.iter().zip(&mut layer_states) {
            if *wanted == layer {
                *state = Some(states.apply_op1(real_rows.clone())?);
            }
        }
    }
    let padded = states.reshape((sentences, longest, hidden))?;
    let pooled = match config.pooling {
        Pooling::Cls => padded.narrow(1, 0, 1)?.squeeze(1)?,
        Pooling::Mean => padded.broadcast_mul(&real)?.sum(1)?.broadcast_div(&real.sum(1)?)?,
    };
    let finish = |tensor: Tensor| if options.train { tensor } else { tensor.detach() };
    let rows = (options.train && model.parameters.list[WORDS].trainable)
        .then(|| occurrences(batch.ids()).0);
    Ok(ForwardOutput {
        token_states: finish(states.apply_op1(real_rows)?),
        pooled: finish(pooled),
        layer_states: layer_states.into_iter().flatten().map(finish).collect(),
        train: options.train,
        tape: None,
        rows,
    })
}

impl Pass<'_> {
    fn parameter(&self, index: usize) -> Tensor {
        let parameter = &self.model.parameters.list[index];
        if self.options.train { parameter.tensor() } else { parameter.var.as_detached_tensor() }
    }

    fn layer(&self, x: &Tensor, layer: usize, hide: &Tensor) -> Result<Tensor> {
        let config = &self.model.config;
        let (base, site) = (layer_base(layer), 1 + layer as u32 * FORWARD_SITES);
        let rates = self.options.dropout;
        let (attention_rate, hidden_rate) =
            rates.map_or((0.0, 0.0), |rates| (rates.attention, rates.hidden));
        let heads = (self.sentences, self.longest, config.num_attention_heads, config.head_size());

        let input = self.linear_input(x)?;
        let part = |which: usize| -> Result<Tensor> {
            let part = self.linear(&input, base + which)?.reshape(heads)?;
            Ok(part.transpose(1, 2)?.contiguous()?)
        };
        let (query, key, value) = (part(QUERY)?, part(KEY)?, part(VALUE)?);
        let p = softmax(&query.matmul(&key.t()?)?, hide, 1.0 / (config.head_size() as f64).sqrt())?;
        let p = self.dropout(&p, attention_rate, site)?;
        let context = p.matmul(&value)?.transpose(1, 2)?.contiguous()?;
        let context = context.reshape((self.sentences * self.longest, config.hidden_size))?;
        let context = self.linear(&self.linear_input(&context)?, base + ATTENTION_OUTPUT)?;
        let context = self.dropout(&context, hidden_rate, site + 1)?;
        let middle = self.layer_norm(&(context + x)?, base + ATTENTION_NORM)?;

        let inner = self.product(&self.linear_input(&middle)?, base + INTERMEDIATE)?;
        let inner = activated(&inner, &self.parameter(base + INTERMEDIATE + 1), config.hidden_act)?;
        let out = self.linear(&self.linear_input(&inner)?, base + OUTPUT)?;
        let out = self.dropout(&out, hidden_rate, site + 2)?;
        self.layer_norm(&(out + middle)?, base + OUTPUT_NORM)
    }

    fn linear_input(&self, x: &Tensor) -> Result<Tensor> {
        match self.options.quantize {
            Some(FakeQuant { activations: true, .. }) => activations(x),
            _ => Ok(x.clone()),
        }
    }

    /// `x` times the weight `index`.
    fn product(&self, x: &Tensor, index: usize) -> Result<Tensor> {
        let mut weight = self.parameter(index);
        if let Some(quantize) = self.options.quantize {
            weight = symmetric(&weight, quantize.weight_max)?;
        }
        Ok(x.matmul(&weight.t()?)?)
    }

    fn linear(&self, x: &Tensor, index: usize) -> Result<Tensor> {
        let product = self.product(x, index)?;
        #[cfg(feature = "cuda")]
        if x.device().is_cuda() {
            return Ok(gpu::add_bias(&product, &self.parameter(index + 1), false)?);
        }
        Ok(product.broadcast_add(&self.parameter(index + 1))?)
    }

    fn layer_norm(&self, x: &Tensor, index: usize) -> Result<Tensor> {
        #[cfg(feature = "cuda")]
        if x.device().is_cuda() {
            let (weight, bias) = (self.parameter(index), self.parameter(index + 1));
            return Ok(gpu::layer_norm(x, &weight, &bias, self.model.config.layer_norm_eps)?);
        }
        let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
        let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
        let deviation = (variance + self.model.config.layer_norm_eps as f64)?.sqrt()?;
        let normalized = centred.broadcast_div(&deviation)?;
        let scaled = normalized.broadcast_mul(&self.parameter(index))?;
        Ok(scaled.broadcast_add(&self.parameter(index + 1))?)
    }

    fn dropout(&self, x: &Tensor, rate: f32, site: u32) -> Result<Tensor> {
        let seed = self.options.dropout.map_or(0, |dropout| dropout.seed);
        let Some(mask) = Mask::new(rate, seed, site) else {
            return Ok(x.clone());
        };
        #[cfg(feature = "cuda")]
        if x.device().is_cuda() {
            return Ok(gpu::dropout(&x.contiguous()?, mask)?);
        }
        let factors = (0..x.elem_count() as u32).map(|at| mask.factor(at)).collect();
        Ok((x * Tensor::from_vec(factors, x.dims(), x.device())?)?)
    }
}

/// Softmax over the last dimension of `scale · x + hide`.
fn softmax(x: &Tensor, hide: &Tensor, scale: f64) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        return Ok(gpu::softmax(x, hide, scale as f32)?);
    }
    let scores = (x * scale)?.broadcast_add(hide)?;
    let scores = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?.detach())?.exp()?;
    Ok(scores.broadcast_div(&scores.sum_keepdim(D::Minus1)?)?)
}

/// The activation function of `x + bias`.
fn activated(x: &Tensor, bias: &Tensor, function: Activation) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() && function == Activation::Gelu {
        return Ok(gpu::add_bias(x, bias, true)?);
    }
    let x = x.broadcast_add(bias)?;
    Ok(match function {
        Activation::Gelu => x.gelu_erf()?,
        Activation::GeluTanh => x.gelu()?,
        Activation::Relu => x.relu()?,
    })
}

/// `rounded` with the gradient of `x`.
fn straight_through(x: &Tensor, rounded: &Tensor) -> Result<Tensor> {
    Ok((rounded.detach() + (x - x.detach())?)?)
}

/// To the nearest integer, ties to even, as [`crate::quant::round_to_i32`].
fn round(x: &Tensor) -> Result<Tensor> {
    Ok(((x + ROUNDING_MAGIC as f64)? - ROUNDING_MAGIC as f64)?)
}

/// A tensor of `x`'s shape filled with `value`: candle divides by a number as it multiplies by its
/// reciprocal, which rounds twice.
fn filled(x: &Tensor, value: f64) -> Result<Tensor> {
    Ok((x.zeros_like()? + value)?)
}

/// Rows rounded to the run time's 7-bit activations, as [`crate::quant::RowScale`] does.
fn activations(x: &Tensor) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        return Ok(gpu::round_activations(&x.contiguous()?)?);
    }
    let levels = ACTIVATION_MAX as f64;
    let values = x.detach();
    let min = values.min_keepdim(D::Minus1)?.minimum(0f64)?;
    let max = values.max_keepdim(D::Minus1)?.maximum(0f64)?;
    let range = (max - &min)?.maximum(1e-30f64)?;
    let all = filled(&range, levels)?;
    let (inverse, scale) = ((&all / &range)?, (&range / &all)?);
    let zero = round(&(min.neg()? * &inverse)?)?;
    let rounded =
        round(&values.broadcast_mul(&inverse)?)?.broadcast_add(&zero)?.clamp(0f64, levels)?;
    straight_through(x, &rounded.broadcast_sub(&zero)?.broadcast_mul(&scale)?)
}

/// Rows rounded symmetrically to ±`limit`, as [`crate::quant::quantize_symmetric`] does.
fn symmetric(x: &Tensor, limit: i8) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        return Ok(gpu::round_symmetric(&x.contiguous()?, limit)?);
    }
    let limit = limit as f64;
    let values = x.detach();
    let largest = values.abs()?.max_keepdim(D::Minus1)?.maximum(1e-30f64)?;
    let scale = (&largest / filled(&largest, limit)?)?;
    let rounded = round(&values.broadcast_div(&scale)?)?.clamp(-limit, limit)?;
    straight_through(x, &rounded.broadcast_mul(&scale)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    use super::super::ops::fake_quant;
    use super::super::ops::testing::noise;
    use crate::train::golden::values;

    #[test]
    fn rounding_equals_the_fused_one() {
        let (rows, cols) = (200, 37);
        let mut x = noise(rows * cols, 3);
        // Of many sizes, one without negative and one without any values.
        for (row, x) in x.chunks_exact_mut(cols).enumerate() {
            x.iter_mut().for_each(|x| *x *= (row as f32 * 0.37).exp2() * 1e-3);
        }
        x[..cols].iter_mut().for_each(|x| *x = x.abs());
        x[cols..2 * cols].fill(0.0);
        let tensor = Tensor::from_slice(&x, (rows, cols), &Device::Cpu).expect("fits");
        let mut expected = x.clone();
        fake_quant::activations(&mut expected, cols);
        assert_eq!(values(&activations(&tensor).expect("runs")), expected);
        for limit in [127, 63, 31] {
            let mut expected = x.clone();
            fake_quant::symmetric(&mut expected, cols, limit);
            assert_eq!(values(&symmetric(&tensor, limit).expect("runs")), expected, "{limit}");
        }
    }

    #[test]
    fn rounding_passes_gradients_through() {
        let x = candle_core::Var::from_vec(noise(60, 4), (6, 10), &Device::Cpu).expect("fits");
        let weights = Tensor::from_vec(noise(60, 5), (6, 10), &Device::Cpu).expect("fits");
        for rounded in [activations(&x), symmetric(&x, 63)] {
            let loss = (rounded.expect("runs") * &weights).and_then(|x| x.sum_all());
            let store = loss.and_then(|loss| loss.backward()).expect("differentiable");
            assert_eq!(values(store.get(&x).expect("a gradient")), values(&weights));
        }
    }
}
