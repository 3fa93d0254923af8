//! Stage `cross_encoder`: a model that reads both sentences of a pair at once judges them better than two
//! vectors can.

use std::path::Path;

use candle_core::Tensor;

use super::pair_sequences::Joined;
use super::sample::all_texts;
use super::scored::scored_pairs;
use super::teacher::{Teacher, TeacherUse};
use crate::error::{Error, Result};
use crate::eval::{StsPair, pearson, spearman};
use crate::train::data::{Purpose, Rows, TokenStore};
use crate::train::nn::batch::TokenBatch;
use crate::train::nn::bert::BertModel;
use crate::train::nn::losses::binary_cross_entropy;
use crate::train::nn::options::{FakeQuant, ForwardOptions};
use crate::train::nn::pair_head::PairHead;
use crate::train::recipe::{Slot, Stage};
use crate::train::report::evaluation::{EvalRows, Score};
use crate::train::run::Run;
use crate::train::run::float_model::read_float_model;
use crate::train::run::tensor_file::TensorFile;
use crate::train::run::training::{Loss, Task};
use crate::train::seed::seed_of;
use crate::weights::FloatModel;

/// The head's weights, beside the encoder's.
const HEAD: &str = "head.safetensors";
/// Tokens of one forward pass.
const TOKENS_AT_ONCE: usize = 4096;

/// Training of a cross-encoder: binary cross entropy of a head on the pooled states of both
/// sentences against the score.
pub(super) struct CrossTask {
    rows: Rows,
    store: TokenStore,
    pairs: Vec<(u32, u32, f32)>,
    joined: Joined,
    head: PairHead,
    /// Name, sequences and human scores of the STS sets that are looked at.
    dev: Vec<(String, Vec<Vec<u32>>, Vec<f64>)>,
}

impl CrossTask {
    pub(super) fn new(
        run: &Run,
        index: usize,
        rows: Rows,
        float: &FloatModel,
        model: &mut BertModel,
    ) -> Result<Self> {
        let stage = &run.recipe.stages[index];
        let store = run.store(float, stage.model(), Purpose::Pairs, all_texts(&rows))?;
        let pairs = scored_pairs(stage, &rows, &store)?;
        let joined = Joined::new(run, float)?;
        let head = PairHead::attach(model, 1, seed_of(run.recipe.seed, &stage.name, 1))?;
        let mut dev = Vec::new();
        // Missing files were named where sentence vectors are prepared.
        for (set, rows) in run.evaluation_rows(&mut Vec::new())? {
            let EvalRows::Sts(pairs) = &rows else { continue };
            let texts = run.store(float, stage.model(), Purpose::Pairs, rows.texts())?;
            let sequence = |pair: &StsPair| {
                joined.sequence(&texts, texts.index(&pair.sentence1), texts.index(&pair.sentence2))
            };
            let sequences = pairs.iter().map(sequence).collect();
            dev.push((set.name, sequences, pairs.iter().map(|pair| pair.score).collect()));
        }
        Ok(CrossTask { rows, store, pairs, joined, head, dev })
    }
}

impl Task for CrossTask {
    fn lengths(&self) -> Vec<usize> {
        let length = |text: u32| self.store.ids(text as usize).len();
        self.pairs.iter().map(|&(a, b, _)| length(a) + length(b)).collect()
    }

    fn place(&self, index: usize) -> String {
        self.rows.place(index)
    }

    fn step(&self, model: &BertModel, batch: &[u32], options: &ForwardOptions) -> Result<Loss> {
        let mut sequences = Vec::with_capacity(batch.len());
        let mut scores = Vec::with_capacity(batch.len());
        for (place, &index) in batch.iter().enumerate() {
            let (a, b, score) = self.pairs[index as usize];
            // Similarity has no direction: about half of the pairs are read the other way round,
            // and not the same half in every pass.
            let (a, b) = if (index as usize + place).is_multiple_of(2) { (a, b) } else { (b, a) };
            sequences.push(self.joined.sequence(&self.store, a as usize, b as usize));
            scores.push(score);
        }
        let output = model.forward(&TokenBatch::new(&sequences)?, options)?;
        let loss = binary_cross_entropy(&self.head.forward(&output.pooled)?, &scores)?;
        Ok((loss, vec![output], 2 * batch.len()))
    }

    fn scores(&self, model: &BertModel, quantize: Option<FakeQuant>) -> Result<Option<Vec<Score>>> {
        let options = ForwardOptions { quantize, ..ForwardOptions::default() };
        let mut scores = Vec::new();
        for (set, sequences, expected) in &self.dev {
            let found: Vec<f64> =
                logits(sequences, &self.head, |batch| Ok(model.forward(batch, &options)?.pooled))?
                    .into_iter()
                    .map(sigmoid)
                    .collect();
            for (metric, value) in
                [("spearman", spearman(&found, expected)), ("pearson", pearson(&found, expected))]
            {
                let metric = metric.to_owned();
                scores.push(Score { set: set.clone(), metric, value: 100.0 * value });
            }
        }
        Ok(Some(scores))
    }

    fn model_name(&self, _: Slot) -> &'static str {
        "cross-encoder"
    }

    fn leave(&self, model: &BertModel, folder: &Path) -> Result<()> {
        let parameters = model.parameters().to_tensors()?;
        let tensors =
            parameters.into_iter().filter(|(name, _)| name.starts_with("head.")).collect();
        TensorFile { tensors, notes: Default::default() }.write(&folder.join(HEAD))
    }
}

/// A trained cross-encoder.
pub(super) struct CrossEncoder {
    encoder: Teacher,
    head: PairHead,
    pub(super) joined: Joined,
    pub(super) float: FloatModel,
}

impl CrossEncoder {
    /// What `stage` left, for the stage called `label`.
    pub(super) fn load(run: &Run, stage: &Stage, label: &str, how: TeacherUse) -> Result<Self> {
        let folder = run.folder(stage);
        let file = run.model_file(stage);
        if !file.exists() {
            return Err(Error::input_invalid(format!(
                "stage {label:?} needs the cross-encoder of stage {:?}, which has not run in {}; run it \
                 first",
                stage.name,
                run.out.display()
            )));
        }
        let float = read_float_model(&file)?;
        let kept = TensorFile::read(&folder.join(HEAD))?;
        // The head's own parameters are all that is used of this model.
        let mut model = BertModel::from_float_model(&float, &run.device)?;
        let head = PairHead::attach(&mut model, 1, 0)?;
        let mut tensors = model.parameters().to_tensors()?;
        tensors.extend(kept.tensors);
        model.parameters().load(&tensors)?;
        let encoder = Teacher::new(run, how, &float)?;
        Ok(CrossEncoder { encoder, head, joined: Joined::new(run, &float)?, float })
    }

    pub(super) fn scores(&self, run: &Run, sequences: &[Vec<u32>]) -> Result<Vec<f64>> {
        let logits = logits(sequences, &self.head, |batch| {
            Ok(self.encoder.answer(batch, &[], &run.device)?.pooled)
        })?;
        Ok(logits.into_iter().map(sigmoid).collect())
    }
}

/// The logits of `sequences`, in their order. `pooled` runs the encoder.
fn logits(
    sequences: &[Vec<u32>],
    head: &PairHead,
    pooled: impl Fn(&TokenBatch) -> Result<Tensor>,
) -> Result<Vec<f32>> {
    let mut order: Vec<usize> = (0..sequences.len()).collect();
    order.sort_by_key(|&index| (sequences[index].len(), index));
    let mut all = vec![0.0; sequences.len()];
    let mut rest = order.as_slice();
    while !rest.is_empty() {
        let longest = |count: usize| sequences[rest[count - 1]].len() * count;
        let mut count = 1;
        while count < rest.len() && longest(count + 1) <= TOKENS_AT_ONCE {
            count += 1;
        }
        let (now, later) = rest.split_at(count);
        let batch: Vec<&[u32]> = now.iter().map(|&index| sequences[index].as_slice()).collect();
        let values = head.forward(&pooled(&TokenBatch::new(&batch)?)?)?.flatten_all()?;
        for (&index, value) in now.iter().zip(values.to_vec1::<f32>()?) {
            all[index] = value;
        }
        rest = later;
    }
    Ok(all)
}

fn sigmoid(logit: f32) -> f64 {
    1.0 / (1.0 + f64::from(-logit).exp())
}
