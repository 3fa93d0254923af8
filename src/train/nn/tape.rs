//! What the fused forward pass keeps for the backward pass.

use std::sync::Arc;

use super::batch::TokenBatch;
use super::layout::{ATTENTION_OUTPUT, FORWARD_SITES, INTERMEDIATE, KEY, OUTPUT, QUERY, VALUE};
use super::ops::dropout::Mask;
use super::ops::pool::Buffer;
use super::options::ForwardOptions;

/// What the backward pass needs of one forward pass.
pub(super) struct Tape {
    pub(super) batch: TokenBatch,
    pub(super) dropout: Dropouts,
    pub(super) embeddings: Option<NormTape>,
    /// From the lowest layer that needs gradients upwards.
    pub(super) layers: Vec<LayerTape>,
    pub(super) first_layer: usize,
    pub(super) layer_states: Vec<usize>,
}

pub(super) struct NormTape {
    pub(super) normalized: Buffer,
    pub(super) inverse: Buffer,
}

pub(super) struct LayerTape {
    /// Inputs of the linear layers (rounded when quantization-aware).
    pub(super) input: Arc<Buffer>,
    pub(super) qkv: Buffer,
    pub(super) probabilities: Buffer,
    pub(super) context: Buffer,
    pub(super) attention_norm: NormTape,
    pub(super) middle: Arc<Buffer>,
    pub(super) activated: Buffer,
    pub(super) slope: Buffer,
    pub(super) output_norm: NormTape,
    pub(super) weights: Option<RoundedWeights>,
}

/// A layer's six matrices, rounded.
pub(super) type RoundedWeights = [Buffer; 6];
pub(super) const LINEARS: [usize; 6] = [QUERY, KEY, VALUE, ATTENTION_OUTPUT, INTERMEDIATE, OUTPUT];

#[derive(Clone, Copy)]
pub(super) struct Dropouts {
    pub(super) hidden: f32,
    pub(super) attention: f32,
    pub(super) seed: u64,
}

impl Dropouts {
    pub(super) fn new(options: &ForwardOptions) -> Self {
        options.dropout.map_or(Dropouts { hidden: 0.0, attention: 0.0, seed: 0 }, |dropout| {
            Dropouts { hidden: dropout.hidden, attention: dropout.attention, seed: dropout.seed }
        })
    }

    pub(super) fn embeddings(&self) -> Option<Mask> {
        Mask::new(self.hidden, self.seed, 0)
    }

    /// Attention, its output and the feed-forward output of one layer.
    pub(super) fn layer(&self, layer: usize) -> [Option<Mask>; 3] {
        let site = 1 + layer as u32 * FORWARD_SITES;
        [
            Mask::new(self.attention, self.seed, site),
            Mask::new(self.hidden, self.seed, site + 1),
            Mask::new(self.hidden, self.seed, site + 2),
        ]
    }
}
