//! Stage `sts`: regression of cosines on scores, with the teacher's term, and retrieval beside it.

use candle_core::Tensor;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::partners::Partners;
use super::sample::all_texts;
use super::scored::{scored_pairs, wrong_kind};
use super::teacher::{TeacherUse, rows_of, teacher_vectors};
use super::unusual_texts::{rare_texts, short_texts, special_ids, special_texts};
use crate::error::Result;
use crate::train::data::{Purpose, Row, Rows, Target, TokenStore};
use crate::train::nn::batch::TokenBatch;
use crate::train::nn::bert::BertModel;
use crate::train::nn::losses;
use crate::train::nn::options::{FakeQuant, ForwardOptions};
use crate::train::recipe::{Slot, Sts, StsLoss, Trained};
use crate::train::run::Run;
use crate::train::run::training::{Loss, Task};
use crate::train::seed::seed_of;
use crate::weights::FloatModel;

/// Regression of cosines on scores, with the teacher's term, and retrieval beside it.
pub(super) struct StsTask {
    /// Those with scores, then those without.
    rows: Rows,
    store: TokenStore,
    pairs: Vec<(u32, u32, f32)>,
    partners: Partners,
    seed: u64,
    /// How much each row counts; empty if all count alike.
    row_weights: Vec<f32>,
    /// The teacher's sentence vectors, by text, and their width.
    teacher: Option<(Vec<f32>, usize)>,
    /// Ids of the tokenizer's special tokens.
    special: Vec<u32>,
    options: Sts,
}

impl StsTask {
    pub(super) fn new(
        run: &Run,
        index: usize,
        options: &Trained<Sts>,
        mut rows: Rows,
        float: &FloatModel,
    ) -> Result<Self> {
        let stage = &run.recipe.stages[index];
        let Trained { training, own: options } = options;
        // Stable: scored rows stay in their order.
        let unscored = |row: &Row| options.pairs_weight > 0.0 && row.target == Target::Pair;
        rows.rows.sort_by_key(unscored);
        let store = run.store(float, training.model, Purpose::Training, all_texts(&rows))?;
        let scored = rows.rows.partition_point(|row| !unscored(row));
        let mut scored_rows = Rows { files: rows.files.clone(), ..Rows::default() };
        scored_rows.rows.extend_from_slice(&rows.rows[..scored]);
        let pairs = scored_pairs(stage, &scored_rows, &store)?;
        if pairs.is_empty() {
            return Err(wrong_kind(stage, &rows, 0, "sts"));
        }
        let weight_of = |file: usize| run.recipe.data[&training.data[file]].weight as f32;
        let row_weights = match (0..training.data.len()).all(|file| weight_of(file) == 1.0) {
            true => Vec::new(),
            false => scored_rows.rows.iter().map(|row| weight_of(row.file)).collect(),
        };
        let how =
            TeacherUse { quantized: options.quantized_teacher, precision: training.precision };
        let partners = Partners::new(run, index, how, options, &rows.rows[scored..], float)?;
        let teacher = if options.teacher_weight > 0.0 && training.model == Slot::Student {
            let teacher = run.model_before(index, Slot::Teacher)?;
            // Both stores number the same texts in the same order.
            let texts = all_texts(&scored_rows);
            let store = run.store(&teacher, Slot::Teacher, Purpose::Training, texts)?;
            let file = "teacher_vectors.safetensors";
            Some(teacher_vectors(run, stage, how, &teacher, &store, file)?)
        } else {
            None
        };
        Ok(StsTask {
            rows,
            store,
            pairs,
            partners,
            seed: seed_of(run.recipe.seed, &stage.name, 1),
            row_weights,
            teacher,
            special: special_ids(&float.tokenizer_json),
            options: options.clone(),
        })
    }

    /// Random numbers of a step, the same whenever `batch` comes.
    fn random(&self, batch: &[u32]) -> ChaCha8Rng {
        let seed = batch.iter().fold(self.seed, |seed, &row| seed_of(seed, "", row.into()));
        ChaCha8Rng::seed_from_u64(seed)
    }

    /// Texts that rounding moves most, of the tokens of `ids`.
    fn unusual_texts(&self, model: &BertModel, ids: &[&[u32]], batch: &[u32]) -> Vec<Vec<u32>> {
        let short = short_texts(ids).into_iter();
        let special = special_texts(ids, &self.special);
        let vocabulary = model.config().vocab_size as u32;
        let rare = rare_texts(ids, vocabulary, &mut self.random(batch));
        short.chain(special).chain(rare).collect()
    }

    /// The loss on the scores of `batch`; `pooled` has its first texts, then its second ones.
    fn regression(&self, pooled: &Tensor, batch: &[u32]) -> Result<Tensor> {
        let n = batch.len();
        let scores: Vec<f32> = batch.iter().map(|&index| self.pairs[index as usize].2).collect();
        let row_weights: Vec<f32> = match self.row_weights.is_empty() {
            true => Vec::new(),
            false => batch.iter().map(|&index| self.row_weights[index as usize]).collect(),
        };
        losses::over_dimensions(pooled, &self.options.dimensions, |pooled| {
            let (a, b) = (pooled.narrow(0, 0, n)?, pooled.narrow(0, n, n)?);
            match self.options.loss {
                StsLoss::Mse if row_weights.is_empty() => losses::cosine_mse(&a, &b, &scores),
                StsLoss::Mse => losses::weighted_cosine_mse(&a, &b, &scores, &row_weights),
                StsLoss::Cosent => losses::cosent(&a, &b, &scores, 20.0),
            }
        })
    }

    /// How far `texts` are from where the teacher has them.
    fn teacher_term(
        &self,
        model: &BertModel,
        pooled: &Tensor,
        vectors: &(Vec<f32>, usize),
        texts: &[usize],
    ) -> Result<Tensor> {
        let options = &self.options;
        let teacher = rows_of(vectors, texts, model.device())?;
        let near = losses::over_dimensions(pooled, &options.dimensions, |pooled| {
            losses::similarity_kl(pooled, &teacher, options.tau)
        })?;
        let mut term = (near * options.similarity_weight)?;
        if vectors.1 == model.config().hidden_size {
            let near = losses::pooled_cosine_distance(pooled, &teacher)?;
            term = (term + (near * options.cosine_weight)?)?;
        }
        Ok(term)
    }
}

impl Task for StsTask {
    fn lengths(&self) -> Vec<usize> {
        let length = |text: u32| self.store.ids(text as usize).len();
        self.pairs.iter().map(|&(a, b, _)| length(a) + length(b)).collect()
    }

    fn place(&self, index: usize) -> String {
        self.rows.place(index)
    }

    fn step(&self, model: &BertModel, batch: &[u32], forward: &ForwardOptions) -> Result<Loss> {
        let options = &self.options;
        let n = batch.len();
        let pairs: Vec<_> = batch.iter().map(|&index| self.pairs[index as usize]).collect();
        let texts: Vec<usize> = pairs
            .iter()
            .map(|pair| pair.0 as usize)
            .chain(pairs.iter().map(|pair| pair.1 as usize))
            .collect();
        let mut ids: Vec<&[u32]> = texts.iter().map(|&text| self.store.ids(text)).collect();
        let unusual = match options.rounding_weight > 0.0 {
            true => self.unusual_texts(model, &ids, batch),
            false => Vec::new(),
        };
        ids.extend(unusual.iter().map(Vec::as_slice));
        let ids = TokenBatch::new(&ids)?;
        let output = model.forward(&ids, forward)?;
        let pooled = output.pooled.narrow(0, 0, 2 * n)?;
        let mut loss = self.regression(&pooled, batch)?;
        if let Some(vectors) = &self.teacher {
            let near = self.teacher_term(model, &pooled, vectors, &texts)?;
            loss = (loss + (near * options.teacher_weight)?)?;
        }
        let mut outputs = vec![output];
        if let (true, Some(quantize)) = (options.rounding_weight > 0.0, forward.quantize) {
            let quantize = Some(FakeQuant { activations: false, ..quantize });
            let smooth = model.forward(&ids, &ForwardOptions { quantize, ..forward.clone() })?;
            let moved = losses::twin_cosine_distance(&outputs[0].pooled, &smooth.pooled)?;
            loss = (loss + (moved * options.rounding_weight)?)?;
            outputs.push(smooth);
        }
        if !self.partners.is_empty() {
            let mut random = self.random(batch);
            let (missed, output) = self.partners.loss(model, options, forward, &mut random)?;
            loss = (loss + (missed * options.pairs_weight)?)?;
            outputs.push(output);
        }
        Ok((loss, outputs, 2 * n))
    }
}
