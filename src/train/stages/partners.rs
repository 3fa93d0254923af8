//! Retrieval beside regression: texts that belong together, without a score.

use candle_core::Tensor;
use rand_chacha::ChaCha8Rng;

use super::teacher::{TeacherUse, rows_of, teacher_vectors};
use crate::error::Result;
use crate::train::data::{Purpose, Row, TokenStore};
use crate::train::nn::batch::TokenBatch;
use crate::train::nn::bert::BertModel;
use crate::train::nn::losses;
use crate::train::nn::options::ForwardOptions;
use crate::train::nn::output::ForwardOutput;
use crate::train::recipe::{Slot, Sts};
use crate::train::run::Run;
use crate::weights::FloatModel;

/// Pairs of texts that belong together.
pub(super) struct Partners {
    pairs: Vec<(u32, u32)>,
    store: TokenStore,
    /// Their vectors by the untrained teacher, and the width.
    teacher: Option<(Vec<f32>, usize)>,
}

impl Partners {
    /// The texts of `rows`, two in each, for stage `index`, which trains the model `float`.
    pub(super) fn new(
        run: &Run,
        index: usize,
        how: TeacherUse,
        options: &Sts,
        rows: &[Row],
        float: &FloatModel,
    ) -> Result<Self> {
        let stage = &run.recipe.stages[index];
        let texts = || rows.iter().flat_map(|row| &row.texts).map(String::as_str);
        let purpose = match options.pairs_tokens {
            Some(_) => Purpose::Evaluation,
            None => Purpose::Training,
        };
        let most = options.pairs_tokens.unwrap_or(usize::MAX);
        let store = run.store(float, stage.model(), purpose, texts())?.cut(most);
        let number = |text: &str| store.index(text) as u32;
        let pairs = rows.iter().map(|row| (number(&row.texts[0]), number(&row.texts[1]))).collect();
        let teacher = match options.pairs_teacher_weight > 0.0 {
            true => {
                let untrained = run.model_before(run.untrained(index)?, Slot::Teacher)?;
                let store = run.store(&untrained, Slot::Teacher, purpose, texts())?.cut(most);
                let file = "untrained_teacher_vectors.safetensors";
                Some(teacher_vectors(run, stage, how, &untrained, &store, file)?)
            }
            false => None,
        };
        Ok(Partners { pairs, store, teacher })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// How badly `model` tells the partners of some texts, drawn by `random`, apart.
    pub(super) fn loss(
        &self,
        model: &BertModel,
        options: &Sts,
        forward: &ForwardOptions,
        random: &mut ChaCha8Rng,
    ) -> Result<(Tensor, ForwardOutput)> {
        let n = options.pairs_batch.min(self.pairs.len());
        let drawn: Vec<(u32, u32)> = rand::seq::index::sample(random, self.pairs.len(), n)
            .into_iter()
            .map(|at| self.pairs[at])
            .collect();
        let texts = drawn.iter().map(|pair| pair.0).chain(drawn.iter().map(|pair| pair.1));
        let texts: Vec<usize> = texts.map(|text| text as usize).collect();
        let ids: Vec<&[u32]> = texts.iter().map(|&text| self.store.ids(text)).collect();
        let output = model.forward(&TokenBatch::new(&ids)?, forward)?;
        // Several questions may have one passage.
        let groups: Vec<u32> = drawn.iter().map(|pair| pair.1).collect();
        let of_teacher = match &self.teacher {
            Some(vectors) => Some(rows_of(vectors, &texts, model.device())?),
            None => None,
        };
        let loss = losses::over_dimensions(&output.pooled, &options.dimensions, |pooled| {
            let (texts, partners) = (pooled.narrow(0, 0, n)?, pooled.narrow(0, n, n)?);
            let tau = options.temperature;
            let missed = losses::supervised_simcse(&texts, &partners, None, Some(&groups), tau)?;
            Ok(match &of_teacher {
                Some(of_teacher) => {
                    let (a, b) = (of_teacher.narrow(0, 0, n)?, of_teacher.narrow(0, n, n)?);
                    let ranked = losses::retrieval_kl(&texts, &partners, &a, &b, tau)?;
                    (missed + (ranked * options.pairs_teacher_weight)?)?
                }
                None => missed,
            })
        })?;
        Ok((loss, output))
    }
}
