//! The weights of a model as the fused operations read them.

use super::super::host::HostSlice;
use super::super::layout::{OUTPUT, layer_base};
use super::super::network::Network;
use super::super::ops::fake_quant;
use super::super::tape::{LINEARS, RoundedWeights};
use crate::error::Result;

/// All weights, borrowed.
pub(super) struct Weights<'a> {
    pub(super) values: Vec<HostSlice<'a>>,
}

impl<'a> Weights<'a> {
    pub(super) fn new(model: &'a Network) -> Result<Self> {
        let values = model
            .parameters
            .list
            .iter()
            .map(|parameter| HostSlice::new(&parameter.var))
            .collect::<Result<_>>()?;
        Ok(Weights { values })
    }

    /// Gain or weight of what begins at parameter `index`, and its bias.
    pub(super) fn pair(&self, index: usize) -> (&[f32], &[f32]) {
        (&self.values[index], &self.values[index + 1])
    }

    pub(super) fn layer(
        &'a self,
        layer: usize,
        rounded: Option<&'a RoundedWeights>,
    ) -> LayerWeights<'a> {
        LayerWeights { all: self, base: layer_base(layer), rounded }
    }
}

pub(super) struct LayerWeights<'a> {
    pub(super) all: &'a Weights<'a>,
    pub(super) base: usize,
    pub(super) rounded: Option<&'a RoundedWeights>,
}

impl LayerWeights<'_> {
    /// The matrix that products use, and the bias.
    pub(super) fn linear(&self, which: usize) -> (&[f32], &[f32]) {
        let (weight, bias) = self.all.pair(self.base + which);
        let place = LINEARS.iter().position(|&linear| linear == which);
        match (self.rounded, place) {
            (Some(rounded), Some(place)) => (&rounded[place], bias),
            _ => (weight, bias),
        }
    }

    pub(super) fn norm(&self, which: usize) -> (&[f32], &[f32]) {
        self.all.pair(self.base + which)
    }
}

pub(super) fn rounded_weights(
    model: &Network,
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
