//! A model's weights and where they are: what both ways of running the encoder read.

use std::sync::Arc;

use candle_core::Device;

use super::layout::{FIRST_LAYER, LAYER_PARAMETERS, layer_base};
use super::ops::pool::Pool;
use super::parameters::Parameters;
use crate::config::ModelConfig;
use crate::train::recipe::Precision;

/// The encoder's weights, in the order of [`super::layout`], then added ones.
pub(super) struct Network {
    pub(super) config: ModelConfig,
    pub(super) parameters: Parameters,
    pub(super) device: Device,
    pub(super) pool: Arc<Pool>,
    pub(super) precision: Precision,
}

impl Network {
    pub(super) fn embeddings_trainable(&self) -> bool {
        self.parameters.list[..FIRST_LAYER].iter().any(|parameter| parameter.trainable)
    }

    /// The lowest layer that gradients must reach.
    pub(super) fn first_trainable_layer(&self) -> usize {
        if self.embeddings_trainable() {
            return 0;
        }
        let end = layer_base(self.config.num_hidden_layers);
        self.parameters.list[FIRST_LAYER..end]
            .iter()
            .position(|parameter| parameter.trainable)
            .map_or(self.config.num_hidden_layers, |index| index / LAYER_PARAMETERS)
    }
}
