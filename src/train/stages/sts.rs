//! Regression of cosines on scores.

use candle_core::Tensor;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::teacher::{rows_of, teacher_vectors};
use super::{Purpose, Run, Task, all_texts, scored_pairs, wrong_kind};
use crate::error::Result;
use crate::train::data::{Row, Rows, Target, TokenStore};
use crate::train::model::{BertModel, FakeQuant, ForwardOptions, ForwardOutput, TokenBatch};
use crate::train::recipe::{Slot, Stage, StsLoss};
use crate::train::{losses, seed_of};
use crate::weights::FloatModel;

/// Regression of cosines on scores, with the teacher's term, and retrieval beside it.
pub(super) struct StsTask {
    /// Those with scores, then those without.
    rows: Rows,
    store: TokenStore,
    pairs: Vec<(u32, u32, f32)>,
    /// Texts that belong together, without a score, and their ids.
    partners: Vec<(u32, u32)>,
    partner_store: TokenStore,
    /// Their vectors by the untrained teacher, and the width.
    partner_teacher: Option<(Vec<f32>, usize)>,
    seed: u64,
    /// How much each pair counts; empty if all count alike.
    weights: Vec<f32>,
    /// The teacher's sentence vectors, by text, and their width.
    teacher: Option<(Vec<f32>, usize)>,
    /// Ids of the tokenizer's special tokens.
    special: Vec<u32>,
    stage: Stage,
}

impl StsTask {
    pub(super) fn new(run: &Run, index: usize, mut rows: Rows, float: &FloatModel) -> Result<Self> {
        let stage = run.recipe.stages[index].clone();
        // Stable: scored rows stay in their order.
        let unscored = |row: &Row| stage.pairs_weight > 0.0 && row.target == Target::Pair;
        rows.rows.sort_by_key(unscored);
        let store = run.store(float, stage.model, Purpose::Training, all_texts(&rows))?;
        let scored = rows.rows.partition_point(|row| !unscored(row));
        let mut scored_rows = Rows { files: rows.files.clone(), ..Rows::default() };
        scored_rows.rows.extend_from_slice(&rows.rows[..scored]);
        let pairs = scored_pairs(&stage, &scored_rows, &store)?;
        if pairs.is_empty() {
            return Err(wrong_kind(&stage, &rows, 0, "sts"));
        }
        let unscored_texts =
            || rows.rows[scored..].iter().flat_map(|row| &row.texts).map(String::as_str);
        let partner_store = match stage.pairs_tokens {
            Some(most) => {
                let whole = run.store(float, stage.model, Purpose::Evaluation, unscored_texts())?;
                whole.cut(most)
            }
            None => run.store(float, stage.model, Purpose::Training, unscored_texts())?,
        };
        let number = |text: &str| partner_store.index(text) as u32;
        let partners: Vec<(u32, u32)> = rows.rows[scored..]
            .iter()
            .map(|row| (number(&row.texts[0]), number(&row.texts[1])))
            .collect();
        let partner_teacher = match stage.pairs_teacher_weight > 0.0 {
            true => {
                let untrained = run.model_before(run.untrained(index)?, Slot::Teacher)?;
                let purpose = match stage.pairs_tokens {
                    Some(_) => Purpose::Evaluation,
                    None => Purpose::Training,
                };
                let store = run.store(&untrained, Slot::Teacher, purpose, unscored_texts())?;
                let store = store.cut(stage.pairs_tokens.unwrap_or(usize::MAX));
                let file = "untrained_teacher_vectors.safetensors";
                Some(teacher_vectors(run, &stage, &untrained, &store, file)?)
            }
            false => None,
        };
        let weight_of = |file: usize| run.recipe.data[&stage.data[file]].weight as f32;
        let weights = match (0..stage.data.len()).all(|file| weight_of(file) == 1.0) {
            true => Vec::new(),
            false => scored_rows.rows.iter().map(|row| weight_of(row.file)).collect(),
        };
        let teacher = if stage.teacher_weight > 0.0 && stage.model == Slot::Student {
            let teacher = run.model_before(index, Slot::Teacher)?;
            // Both stores number the same texts in the same order.
            let texts = all_texts(&scored_rows);
            let store = run.store(&teacher, Slot::Teacher, Purpose::Training, texts)?;
            let file = "teacher_vectors.safetensors";
            Some(teacher_vectors(run, &stage, &teacher, &store, file)?)
        } else {
            None
        };
        let seed = seed_of(run.recipe.seed, &stage.name, 1);
        let special = special_ids(&float.tokenizer_json);
        Ok(StsTask {
            rows,
            store,
            pairs,
            partners,
            partner_store,
            partner_teacher,
            seed,
            weights,
            teacher,
            special,
            stage,
        })
    }

    /// Random numbers of a step, the same whenever `batch` comes.
    fn random(&self, batch: &[u32]) -> ChaCha8Rng {
        let seed = batch.iter().fold(self.seed, |seed, &row| seed_of(seed, "", row.into()));
        ChaCha8Rng::seed_from_u64(seed)
    }

    /// How badly `model` tells the partners of some texts apart, drawn by what is in `batch`.
    fn retrieval(
        &self,
        model: &BertModel,
        batch: &[u32],
        options: &ForwardOptions,
    ) -> Result<(Tensor, ForwardOutput)> {
        let mut random = self.random(batch);
        let n = self.stage.pairs_batch.min(self.partners.len());
        let drawn: Vec<(u32, u32)> = rand::seq::index::sample(&mut random, self.partners.len(), n)
            .into_iter()
            .map(|at| self.partners[at])
            .collect();
        let texts = drawn.iter().map(|pair| pair.0).chain(drawn.iter().map(|pair| pair.1));
        let texts: Vec<usize> = texts.map(|text| text as usize).collect();
        let ids: Vec<&[u32]> = texts.iter().map(|&text| self.partner_store.ids(text)).collect();
        let output = model.forward(&TokenBatch::new(&ids)?, options)?;
        // Several questions may have one passage.
        let groups: Vec<u32> = drawn.iter().map(|pair| pair.1).collect();
        let of_teacher = match &self.partner_teacher {
            Some(vectors) => Some(rows_of(vectors, &texts, model.device())?),
            None => None,
        };
        let loss = losses::over_dimensions(&output.pooled, &self.stage.dimensions, |pooled| {
            let (texts, partners) = (pooled.narrow(0, 0, n)?, pooled.narrow(0, n, n)?);
            let tau = self.stage.temperature;
            let missed = losses::supervised_simcse(&texts, &partners, None, Some(&groups), tau)?;
            Ok(match &of_teacher {
                Some(of_teacher) => {
                    let (a, b) = (of_teacher.narrow(0, 0, n)?, of_teacher.narrow(0, n, n)?);
                    let ranked = losses::retrieval_kl(&texts, &partners, &a, &b, tau)?;
                    (missed + (ranked * self.stage.pairs_teacher_weight)?)?
                }
                None => missed,
            })
        })?;
        Ok((loss, output))
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

    fn step(
        &self,
        model: &BertModel,
        batch: &[u32],
        options: &ForwardOptions,
    ) -> Result<(Tensor, Vec<ForwardOutput>, usize)> {
        let n = batch.len();
        let pairs: Vec<_> = batch.iter().map(|&index| self.pairs[index as usize]).collect();
        let texts: Vec<usize> = pairs
            .iter()
            .map(|pair| pair.0 as usize)
            .chain(pairs.iter().map(|pair| pair.1 as usize))
            .collect();
        let mut ids: Vec<&[u32]> = texts.iter().map(|&text| self.store.ids(text)).collect();
        let scores: Vec<f32> = pairs.iter().map(|pair| pair.2).collect();
        let unusual = match self.stage.rounding_weight > 0.0 {
            true => {
                let short = short_texts(&ids).into_iter();
                let special = special_texts(&ids, &self.special);
                let vocabulary = model.config().vocab_size as u32;
                let rare = rare_texts(&ids, vocabulary, &mut self.random(batch));
                short.chain(special).chain(rare).collect()
            }
            false => Vec::new(),
        };
        ids.extend(unusual.iter().map(Vec::as_slice));
        let ids = TokenBatch::new(&ids)?;
        let output = model.forward(&ids, options)?;
        let pooled = output.pooled.narrow(0, 0, 2 * n)?;
        let weights: Vec<f32> = match self.weights.is_empty() {
            true => Vec::new(),
            false => batch.iter().map(|&index| self.weights[index as usize]).collect(),
        };
        let dimensions = &self.stage.dimensions;
        let mut loss = losses::over_dimensions(&pooled, dimensions, |pooled| {
            let (a, b) = (pooled.narrow(0, 0, n)?, pooled.narrow(0, n, n)?);
            match self.stage.loss {
                StsLoss::Mse if weights.is_empty() => losses::cosine_mse(&a, &b, &scores),
                StsLoss::Mse => losses::weighted_cosine_mse(&a, &b, &scores, &weights),
                StsLoss::Cosent => losses::cosent(&a, &b, &scores, 20.0),
            }
        })?;
        if let Some(vectors) = &self.teacher {
            let teacher = rows_of(vectors, &texts, model.device())?;
            let near = losses::over_dimensions(&pooled, dimensions, |pooled| {
                losses::similarity_kl(pooled, &teacher, self.stage.tau)
            })?;
            let mut term = (near * self.stage.similarity_weight)?;
            if vectors.1 == model.config().hidden_size {
                let near = losses::pooled_cosine_distance(&pooled, &teacher)?;
                term = (term + (near * self.stage.cosine_weight)?)?;
            }
            loss = (loss + (term * self.stage.teacher_weight)?)?;
        }
        let mut outputs = vec![output];
        if let (true, Some(quantize)) = (self.stage.rounding_weight > 0.0, options.quantize) {
            let quantize = Some(FakeQuant { activations: false, ..quantize });
            let smooth = model.forward(&ids, &ForwardOptions { quantize, ..options.clone() })?;
            let moved = losses::twin_cosine_distance(&outputs[0].pooled, &smooth.pooled)?;
            loss = (loss + (moved * self.stage.rounding_weight)?)?;
            outputs.push(smooth);
        }
        if !self.partners.is_empty() {
            let (missed, output) = self.retrieval(model, batch, options)?;
            loss = (loss + (missed * self.stage.pairs_weight)?)?;
            outputs.push(output);
        }
        Ok((loss, outputs, 2 * n))
    }
}

/// Blank texts, and the first one to three pieces of some of `ids`.
fn short_texts(ids: &[&[u32]]) -> Vec<Vec<u32>> {
    const COUNT: usize = 7;
    let cut = |(at, ids): (usize, &&[u32])| {
        let (&last, rest) = ids.split_last()?;
        Some(rest.iter().take(1 + at % 4).copied().chain([last]).collect())
    };
    ids.iter().enumerate().take(COUNT).filter_map(cut).collect()
}

/// Texts of special tokens, which a page's visitor can type: all of them in turn, one of the pieces of
/// some of `ids` between any two, and without.
fn special_texts(ids: &[&[u32]], special: &[u32]) -> Vec<Vec<u32>> {
    const COUNT: usize = 3;
    if special.is_empty() {
        return Vec::new();
    }
    let of = |(at, ids): (usize, &&[u32])| {
        let (&last, rest) = ids.split_last()?;
        let (&first, pieces) = rest.split_first()?;
        let mut text = vec![first];
        for i in 0..special.len() {
            text.push(special[(i + at + pieces.len()) % special.len()]);
            if at != 0 {
                text.extend(pieces.get(i));
            }
        }
        text.push(last);
        Some(text)
    };
    ids.iter().enumerate().take(COUNT).filter_map(of).collect()
}

/// Texts of pieces that training data hardly has (other scripts, jamo, symbols): any pieces between the ends
/// of some of `ids`.
fn rare_texts(ids: &[&[u32]], vocabulary: u32, random: &mut ChaCha8Rng) -> Vec<Vec<u32>> {
    const COUNT: usize = 8;
    let mut of = |ids: &&[u32]| {
        let (&first, &last) = (ids.first()?, ids.last()?);
        let pieces = random.random_range(2..=10);
        let mut text = vec![first];
        text.extend((0..pieces).map(|_| random.random_range(0..vocabulary)));
        text.push(last);
        Some(text)
    };
    ids.iter().take(COUNT).filter_map(&mut of).collect()
}

/// The ids of a `tokenizer.json`'s special tokens, the first few: some reserve hundreds.
fn special_ids(tokenizer_json: &[u8]) -> Vec<u32> {
    let json: serde_json::Value = serde_json::from_slice(tokenizer_json).unwrap_or_default();
    let added = json["added_tokens"].as_array().into_iter().flatten();
    let special = added.filter(|token| token["special"] == true);
    special.filter_map(|token| token["id"].as_u64()?.try_into().ok()).take(8).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_texts_hold_every_special_token_between_the_ends() {
        let json = br#"{"added_tokens":[{"id":0,"special":true},{"id":7,"special":true},{"id":9,"special":false}]}"#;
        let special = special_ids(json);
        assert_eq!(special, [0, 7]);
        let ids: [&[u32]; 4] = [&[1, 20, 21, 2], &[1, 30, 2], &[1, 2], &[1, 40, 2]];
        let texts = special_texts(&ids, &special);
        assert_eq!(texts, [vec![1, 0, 7, 2], vec![1, 0, 30, 7, 2], vec![1, 0, 7, 2]]);
        assert!(special_texts(&ids, &special_ids(b"not json")).is_empty());
    }

    #[test]
    fn rare_texts_are_of_any_pieces_between_the_ends() {
        let ids: [&[u32]; 3] = [&[1, 20, 21, 2], &[1, 30, 2], &[]];
        let of = |seed| rare_texts(&ids, 50, &mut ChaCha8Rng::seed_from_u64(seed));
        let texts = of(1);
        assert_eq!(texts.len(), 2);
        for text in &texts {
            assert!((4..=12).contains(&text.len()) && text.iter().all(|&id| id < 50));
            assert_eq!((text[0], text[text.len() - 1]), (1, 2));
        }
        assert_eq!(of(1), texts);
        assert_ne!(of(2), texts);
    }
}
