//! Where each weight stands among a model's parameters.

/// The order of the parameters: these, then [`LAYER_PARAMETERS`] for each layer; a bias follows its
/// weight.
pub(super) const WORDS: usize = 0;
pub(super) const POSITIONS: usize = 1;
pub(super) const EMBEDDING_NORM: usize = 2;
pub(super) const FIRST_LAYER: usize = 4;
pub(super) const LAYER_PARAMETERS: usize = 16;
pub(super) const QUERY: usize = 0;
pub(super) const KEY: usize = 2;
pub(super) const VALUE: usize = 4;
pub(super) const ATTENTION_OUTPUT: usize = 6;
pub(super) const ATTENTION_NORM: usize = 8;
pub(super) const INTERMEDIATE: usize = 10;
pub(super) const OUTPUT: usize = 12;
pub(super) const OUTPUT_NORM: usize = 14;
pub(super) const LAYER_NAMES: [(&str, usize); 8] = [
    ("query", QUERY),
    ("key", KEY),
    ("value", VALUE),
    ("attention_output", ATTENTION_OUTPUT),
    ("attention_norm", ATTENTION_NORM),
    ("intermediate", INTERMEDIATE),
    ("output", OUTPUT),
    ("output_norm", OUTPUT_NORM),
];
/// Places of a layer where dropout may act.
pub(super) const FORWARD_SITES: u32 = 3;

pub(super) fn layer_base(layer: usize) -> usize {
    FIRST_LAYER + layer * LAYER_PARAMETERS
}
