//! Models in training from plain matrices and back.

use std::sync::Arc;

use candle_core::{Device, Var};

use super::bert::{BertModel, composed_here};
use super::layout::{
    ATTENTION_NORM, ATTENTION_OUTPUT, EMBEDDING_NORM, INTERMEDIATE, KEY, LAYER_NAMES, OUTPUT,
    OUTPUT_NORM, POSITIONS, QUERY, VALUE, WORDS, layer_base,
};
use super::network::Network;
use super::parameters::{Parameter, Parameters};
use crate::error::{Error, ErrorKind, Result};
use crate::train::recipe::Precision;
use crate::weights::{Additions, FloatModel, Layer, LayerNorm, Linear, Matrix};

impl BertModel {
    /// The model of `weights` on `device`, everything trainable.
    ///
    /// # Errors
    /// `weights_mismatch` when a matrix does not have the shape that the config asks for.
    pub fn from_float_model(weights: &FloatModel, device: &Device) -> Result<Self> {
        let config = &trainable_config(weights)?;
        config.validate()?;
        if weights.layers.len() != config.num_hidden_layers {
            return Err(Error::new(
                ErrorKind::WeightsMismatch,
                format!(
                    "the model has {} layers; its config says {}",
                    weights.layers.len(),
                    config.num_hidden_layers
                ),
            ));
        }
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let mut builder = Builder { device, parameters: Parameters::default() };
        builder.matrix("embeddings.word", &weights.word_embeddings, config.vocab_size, hidden)?;
        let positions = config.max_position_embeddings;
        builder.matrix("embeddings.position", &weights.position_embeddings, positions, hidden)?;
        builder.norm("embeddings.norm", &weights.embedding_norm, hidden)?;
        for (index, layer) in weights.layers.iter().enumerate() {
            for (name, which) in LAYER_NAMES {
                let name = format!("layers.{index}.{name}");
                match which {
                    QUERY => builder.linear(&name, &layer.query, hidden, hidden)?,
                    KEY => builder.linear(&name, &layer.key, hidden, hidden)?,
                    VALUE => builder.linear(&name, &layer.value, hidden, hidden)?,
                    ATTENTION_OUTPUT => {
                        builder.linear(&name, &layer.attention_output, hidden, hidden)?;
                    }
                    ATTENTION_NORM => builder.norm(&name, &layer.attention_norm, hidden)?,
                    INTERMEDIATE => builder.linear(&name, &layer.intermediate, inner, hidden)?,
                    OUTPUT => builder.linear(&name, &layer.output, hidden, inner)?,
                    _ => builder.norm(&name, &layer.output_norm, hidden)?,
                }
            }
        }
        let network = Network {
            config: config.clone(),
            parameters: builder.parameters,
            device: device.clone(),
            pool: Arc::default(),
            precision: Precision::F32,
        };
        let composed = !device.is_cpu() || composed_here();
        Ok(BertModel { network, tokenizer_json: weights.tokenizer_json.clone(), composed })
    }

    /// The present weights as the exporter wants them.
    ///
    /// # Errors
    /// `non_finite` if a weight is not finite.
    pub fn to_float_model(&self) -> Result<FloatModel> {
        self.network.parameters.check_finite()?;
        let values = |index: usize| -> Result<Vec<f32>> {
            let tensor = self.network.parameters.list[index].var.as_detached_tensor();
            Ok(tensor.flatten_all()?.to_vec1::<f32>()?)
        };
        let matrix = |index: usize| -> Result<Matrix> {
            let (rows, cols) = self.network.parameters.list[index].var.dims2()?;
            Ok(Matrix { rows, cols, data: values(index)? })
        };
        let linear = |index: usize| -> Result<Linear> {
            Ok(Linear { weight: matrix(index)?, bias: values(index + 1)? })
        };
        let norm = |index: usize| -> Result<LayerNorm> {
            Ok(LayerNorm { weight: values(index)?, bias: values(index + 1)? })
        };
        let layers = (0..self.network.config.num_hidden_layers)
            .map(|layer| {
                let base = layer_base(layer);
                Ok(Layer {
                    query: linear(base + QUERY)?,
                    key: linear(base + KEY)?,
                    value: linear(base + VALUE)?,
                    attention_output: linear(base + ATTENTION_OUTPUT)?,
                    attention_norm: norm(base + ATTENTION_NORM)?,
                    intermediate: linear(base + INTERMEDIATE)?,
                    output: linear(base + OUTPUT)?,
                    output_norm: norm(base + OUTPUT_NORM)?,
                })
            })
            .collect::<Result<_>>()?;
        Ok(FloatModel {
            config: self.network.config.clone(),
            tokenizer_json: self.tokenizer_json.clone(),
            word_embeddings: matrix(WORDS)?,
            position_embeddings: matrix(POSITIONS)?,
            embedding_norm: norm(EMBEDDING_NORM)?,
            layers,
            additions: Additions::default(),
        })
    }
}

/// The config of a model to be trained, where every token counts for positions (RoBERTa leaves its
/// padding token out, which no training text holds).
///
/// # Errors
/// `CheckpointUnsupported` for a model with a projection of its embeddings or modules after pooling.
fn trainable_config(weights: &FloatModel) -> Result<crate::config::ModelConfig> {
    let config = &weights.config;
    if config.embedding_size.is_some() || !config.after_pooling.is_empty() {
        return Err(Error::new(
            ErrorKind::CheckpointUnsupported,
            "the trainer runs models without a projection of the embeddings (ELECTRA) and without modules \
             after pooling (Dense)",
        ));
    }
    Ok(crate::config::ModelConfig { pad_token_id: None, ..config.clone() })
}

/// Collects parameters and checks their shapes.
struct Builder<'a> {
    device: &'a Device,
    parameters: Parameters,
}

impl Builder<'_> {
    fn push(&mut self, name: String, data: &[f32], dims: &[usize], decay: bool) -> Result<()> {
        if data.len() != dims.iter().product::<usize>() {
            return Err(Error::new(
                ErrorKind::WeightsMismatch,
                format!("{name} has {} values; expected {dims:?}", data.len()),
            ));
        }
        let var = Var::from_slice(data, dims, self.device)?;
        self.parameters.list.push(Parameter { name, var, trainable: true, decay });
        Ok(())
    }

    fn matrix(&mut self, name: &str, matrix: &Matrix, rows: usize, cols: usize) -> Result<()> {
        if (matrix.rows, matrix.cols) != (rows, cols) {
            return Err(Error::new(
                ErrorKind::WeightsMismatch,
                format!("{name} is {} × {}; expected {rows} × {cols}", matrix.rows, matrix.cols),
            ));
        }
        self.push(name.to_owned(), &matrix.data, &[rows, cols], true)
    }

    fn linear(&mut self, name: &str, linear: &Linear, rows: usize, cols: usize) -> Result<()> {
        self.matrix(&format!("{name}.weight"), &linear.weight, rows, cols)?;
        self.push(format!("{name}.bias"), &linear.bias, &[rows], false)
    }

    fn norm(&mut self, name: &str, norm: &LayerNorm, len: usize) -> Result<()> {
        self.push(format!("{name}.weight"), &norm.weight, &[len], false)?;
        self.push(format!("{name}.bias"), &norm.bias, &[len], false)
    }
}
