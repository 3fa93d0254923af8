//! A teacher that only answers, in float or as the run time would.

use std::collections::HashMap;

use candle_core::{Device, Tensor};

use crate::config::ModelConfig;
use crate::error::Result;
use crate::format;
use crate::model::Encoder;
use crate::train::data::TokenStore;
use crate::train::nn::batch::TokenBatch;
use crate::train::nn::bert::BertModel;
use crate::train::nn::ops::pooling;
use crate::train::nn::options::ForwardOptions;
use crate::train::recipe::{Precision, Stage};
use crate::train::report::evaluation;
use crate::train::run::Run;
use crate::train::run::tensor_file::TensorFile;
use crate::weights::FloatModel;

/// How a stage runs its teacher.
#[derive(Clone, Copy)]
pub(super) struct TeacherUse {
    /// As an exported file would, on a CPU.
    pub(super) quantized: bool,
    /// Of the products without that.
    pub(super) precision: Precision,
}

/// A teacher that only answers.
pub(super) enum Teacher {
    Float(BertModel),
    Quantized(Box<Encoder>),
}

/// What a teacher says to a batch.
pub(super) struct Answer {
    pub(super) token_states: Tensor,
    /// Not normalized.
    pub(super) pooled: Tensor,
    /// Token states after each of the layers asked for.
    pub(super) middle: Vec<Tensor>,
}

impl Teacher {
    /// `float`, run as the stage says.
    pub(super) fn new(run: &Run, how: TeacherUse, float: &FloatModel) -> Result<Self> {
        // A GPU is faster without rounding than the rest of its machine is with it.
        if how.quantized && run.device.is_cpu() {
            return Ok(Teacher::Quantized(Box::new(Encoder::from_bytes(format::write(float)?)?)));
        }
        let mut model = BertModel::from_float_model(float, &run.device)?;
        model.use_precision(how.precision);
        Ok(Teacher::Float(model))
    }

    pub(super) fn config(&self) -> &ModelConfig {
        match self {
            Teacher::Float(model) => model.config(),
            Teacher::Quantized(encoder) => encoder.config(),
        }
    }

    /// L2-normalized sentence vectors of all of `store`.
    pub(super) fn embed_all(&self, store: &TokenStore) -> Result<Vec<f32>> {
        match self {
            Teacher::Float(teacher) => evaluation::embed_all(teacher, store, None),
            Teacher::Quantized(teacher) => {
                let ids: Vec<&[u32]> = (0..store.len()).map(|index| store.ids(index)).collect();
                teacher.encode_ids(&ids)
            }
        }
    }

    /// States and vectors of `batch`, and the states after the layers `middle`.
    pub(super) fn answer(
        &self,
        batch: &TokenBatch,
        middle: &[usize],
        device: &Device,
    ) -> Result<Answer> {
        match self {
            Teacher::Float(model) => {
                let layer_states = middle.to_vec();
                let options = ForwardOptions { layer_states, ..ForwardOptions::default() };
                let output = model.forward(batch, &options)?;
                Ok(Answer {
                    token_states: output.token_states,
                    pooled: output.pooled,
                    middle: output.layer_states,
                })
            }
            Teacher::Quantized(encoder) => {
                let (config, offsets) = (encoder.config(), batch.offsets());
                let ids: Vec<&[u32]> =
                    offsets.windows(2).map(|ends| &batch.ids()[ends[0]..ends[1]]).collect();
                let mut layers = middle.to_vec();
                layers.push(config.num_hidden_layers - 1);
                let hidden = config.hidden_size;
                let mut states = encoder.token_states(&ids, &layers)?;
                let last = states.pop().unwrap_or_default();
                let mut pooled = vec![0.0; batch.num_sentences() * hidden];
                pooling::forward(config.pooling, offsets, hidden, &last, &mut pooled);
                let tensor = |values: Vec<f32>| {
                    let shape = (values.len() / hidden, hidden);
                    Tensor::from_vec(values, shape, device)
                };
                Ok(Answer {
                    token_states: tensor(last)?,
                    pooled: tensor(pooled)?,
                    middle: states.into_iter().map(tensor).collect::<candle_core::Result<_>>()?,
                })
            }
        }
    }
}

/// The vectors of `float` for all texts of `store`, computed once and kept in a file of the stage's
/// folder so that a resumed run sees the same numbers; and their width.
pub(super) fn teacher_vectors(
    run: &Run,
    stage: &Stage,
    how: TeacherUse,
    float: &FloatModel,
    store: &TokenStore,
    file: &str,
) -> Result<(Vec<f32>, usize)> {
    let file = run.folder(stage).join(file);
    let (count, hidden) = (store.len(), float.config.hidden_size);
    if file.exists() {
        let kept = TensorFile::read(&file)?;
        if let Some(vectors) = kept.tensors.get("vectors")
            && vectors.dims() == [count, hidden]
        {
            return Ok((vectors.flatten_all()?.to_vec1()?, hidden));
        }
    }
    eprintln!("{}: the teacher reads {count} texts", stage.name);
    let vectors = Teacher::new(run, how, float)?.embed_all(store)?;
    let tensor = Tensor::from_slice(&vectors, (count, hidden), &Device::Cpu)?;
    let tensors = HashMap::from([("vectors".to_owned(), tensor)]);
    TensorFile { tensors, notes: HashMap::new() }.write(&file)?;
    Ok((vectors, hidden))
}

/// The rows of `vectors` (with their width) that belong to `texts`.
pub(super) fn rows_of(
    (vectors, width): &(Vec<f32>, usize),
    texts: &[usize],
    device: &Device,
) -> Result<Tensor> {
    let rows = texts.iter().flat_map(|&text| &vectors[text * width..][..*width]);
    let rows: Vec<f32> = rows.copied().collect();
    Ok(Tensor::from_vec(rows, (texts.len(), *width), device)?)
}
