//! How the encoder is run: what stays frozen, what is dropped, what is rounded.

/// Which weights stay as they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Freeze {
    /// The word embedding rows.
    pub word_embeddings: bool,
    /// Position embeddings and the embedding's layer normalization.
    pub other_embeddings: bool,
    /// This many layers, counted from the lowest.
    pub lowest_layers: usize,
}

/// Dropout of one forward pass. Masks are a function of `seed`, the place in the model and the
/// position in the batch, so a pass can be repeated exactly and there is no state to save.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dropout {
    /// On the embeddings and before each residual sum.
    pub hidden: f32,
    /// On attention probabilities.
    pub attention: f32,
    /// A new one for every pass, such as a hash of run seed, step and view.
    pub seed: u64,
}

/// Quantization-aware forward: values are rounded as [`crate::quant`] does at run time, gradients
/// pass straight through. The finer rounding inside attention (9 bits and more) is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FakeQuant {
    /// Largest magnitude of a quantized weight: 127, 63, 31 for 8, 7, 6 bits;
    /// [`crate::quant::WEIGHT_MAX`] is what ships.
    pub weight_max: i8,
    /// Whether activations are rounded before each linear layer (7 bits, per row).
    pub activations: bool,
    /// Whether word and position embedding rows are rounded to 8 bits.
    pub embeddings: bool,
}

impl FakeQuant {
    /// What the model file and the run time do.
    pub fn shipped() -> Self {
        FakeQuant { weight_max: crate::quant::WEIGHT_MAX, activations: true, embeddings: true }
    }
}

/// How to run [`BertModel::forward`](super::bert::BertModel::forward).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ForwardOptions {
    /// Keep what [`BertModel::backward`](super::bert::BertModel::backward) needs.
    pub train: bool,
    /// None for no dropout.
    pub dropout: Option<Dropout>,
    /// None for plain 32-bit floats.
    pub quantize: Option<FakeQuant>,
    /// Layers (0 = lowest) whose output states to return as well.
    pub layer_states: Vec<usize>,
}

impl ForwardOptions {
    /// Keeps a tape; no dropout, no quantization.
    pub fn training() -> Self {
        ForwardOptions { train: true, ..ForwardOptions::default() }
    }
}
