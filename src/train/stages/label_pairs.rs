//! Stage `label_pairs`: a cross-encoder's scores of pairs that nobody has scored become training data.

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::Instant;

use candle_core::{Device, Tensor};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::cross_encoder::CrossEncoder;
use super::pair_list::{PairList, given_pairs, nearest};
use super::sample::all_texts;
use super::teacher::{Teacher, TeacherUse};
use crate::error::{Error, Result};
use crate::files::write_atomically;
use crate::train::data::{LABELLED_PAIRS, Purpose, Rows, TokenStore};
use crate::train::recipe::{LabelPairs, Slot};
use crate::train::run::Run;
use crate::train::run::tensor_file::TensorFile;
use crate::train::run::training::CHECKPOINT_TIME;
use crate::train::seed::seed_of;

/// Pairs that are scored between two looks at the clock.
const PART: usize = 2048;

/// Scores pairs of the data and neighbours by the teacher's vectors with the cross-encoder and leaves them
/// as an STS file (scores 0 … 5) in the stage's folder. The pairs and their order depend on recipe and data
/// alone; a stopped run goes on from the last part of scores.
///
/// # Errors
/// When the cross-encoder has not run, data are malformed or a file cannot be written.
pub(super) fn run(run: &Run, index: usize, options: &LabelPairs, settings: &str) -> Result<()> {
    Labels { run, index, options, name: &run.recipe.stages[index].name, settings }.write()
}

/// The stage at work.
struct Labels<'a> {
    run: &'a Run,
    index: usize,
    options: &'a LabelPairs,
    name: &'a str,
    settings: &'a str,
}

impl Labels<'_> {
    fn write(&self) -> Result<()> {
        let Labels { run, index, options, name, .. } = *self;
        let scorer = run
            .recipe
            .scorer(index)
            .ok_or_else(|| Error::input_invalid("there is no such cross_encoder stage before"))?;
        let cross = CrossEncoder::load(run, &run.recipe.stages[scorer], name, self.teacher_use())?;
        let rows = run.rows(&run.recipe.stages[index])?;
        let store = run.store(&cross.float, Slot::Teacher, Purpose::Pairs, all_texts(&rows))?;
        let mut list = PairList::default();
        given_pairs(&rows, &store, &mut list);
        let given = list.pairs.len();
        self.add_mined(&rows, &store, &mut list)?;
        let pairs = list.pairs;
        if pairs.is_empty() {
            return Err(Error::data_invalid(format!(
                "{}: stage {name:?} finds no pairs to label",
                rows.place(0)
            )));
        }
        eprintln!("{name}: {given} given and {} mined pairs", pairs.len() - given);
        let mut scores = self.scores(&cross, &store, &pairs)?;

        let mut texts = vec![""; store.len()];
        for text in all_texts(&rows) {
            texts[store.index(text)] = text;
        }
        if options.teacher_share > 0.0 {
            self.mix_cosines(&texts, &pairs, &mut scores)?;
        }
        let mut file = "sentence1\tsentence2\tscore\n".to_owned();
        for (&(a, b), score) in pairs.iter().zip(&scores) {
            let (a, b) = (texts[a as usize], texts[b as usize]);
            file += &format!("{a}\t{b}\t{:.4}\n", 5.0 * score);
        }
        let folder = run.folder(&run.recipe.stages[index]);
        write_atomically(&folder.join(LABELLED_PAIRS), file.as_bytes())?;
        let _ = std::fs::remove_file(self.part_file());
        Ok(())
    }

    fn teacher_use(&self) -> TeacherUse {
        let LabelPairs { quantized_teacher: quantized, precision, .. } = *self.options;
        TeacherUse { quantized, precision }
    }

    /// Where scores are kept while there are more to come.
    fn part_file(&self) -> PathBuf {
        self.run.folder(&self.run.recipe.stages[self.index]).join("scores.partial.safetensors")
    }

    /// Pairs of sentences that the teacher finds near to each other.
    fn add_mined(&self, rows: &Rows, store: &TokenStore, list: &mut PairList) -> Result<()> {
        let Labels { run, options, name, .. } = *self;
        if options.neighbours == 0 {
            return Ok(());
        }
        let mut texts: Vec<&str> = Vec::new();
        let mut seen = HashSet::new();
        texts.extend(all_texts(rows).into_iter().filter(|text| seen.insert(*text)));
        if texts.len() > options.mined_sentences {
            let mut random = ChaCha8Rng::seed_from_u64(seed_of(run.recipe.seed, name, 0));
            texts.shuffle(&mut random);
            texts.truncate(options.mined_sentences);
        }
        let (vectors, teacher_store, hidden) = self.teacher_vectors(&texts)?;
        let vectors = Tensor::from_vec(vectors, (teacher_store.len(), hidden), &run.device)?;
        for (at, others) in nearest(&vectors, options.neighbours)?.into_iter().enumerate() {
            for other in others {
                list.add(store.index(texts[at]), store.index(texts[other as usize]));
            }
        }
        Ok(())
    }

    /// The teacher's vectors of different `texts`, what numbers them, and the vectors' width.
    fn teacher_vectors(&self, texts: &[&str]) -> Result<(Vec<f32>, TokenStore, usize)> {
        let float = self.run.model_before(self.index, Slot::Teacher)?;
        eprintln!("{}: the teacher reads {} sentences", self.name, texts.len());
        let texts = texts.iter().copied();
        let store = self.run.store(&float, Slot::Teacher, Purpose::Training, texts)?;
        let vectors = Teacher::new(self.run, self.teacher_use(), &float)?.embed_all(&store)?;
        Ok((vectors, store, float.config.hidden_size))
    }

    /// The cross-encoder's scores of all pairs, 0 … 1, from the last part that was kept.
    fn scores(
        &self,
        cross: &CrossEncoder,
        store: &TokenStore,
        pairs: &[(u32, u32)],
    ) -> Result<Vec<f64>> {
        let mut scores = self.kept_scores(pairs.len())?;
        let mut saved = Instant::now();
        while scores.len() < pairs.len() {
            let part = &pairs[scores.len()..pairs.len().min(scores.len() + PART)];
            let sequences = |swap: bool| -> Vec<Vec<u32>> {
                part.iter()
                    .map(|&(a, b)| if swap { (b, a) } else { (a, b) })
                    .map(|(a, b)| cross.joined.sequence(store, a as usize, b as usize))
                    .collect()
            };
            let mut found = cross.scores(self.run, &sequences(false))?;
            if self.options.both_orders {
                let others = cross.scores(self.run, &sequences(true))?;
                for (score, other) in found.iter_mut().zip(others) {
                    *score = 0.5 * (*score + other);
                }
            }
            if let Some(at) = found.iter().position(|score| !score.is_finite()) {
                return Err(Error::non_finite(format!(
                    "the score of pair {} is not a number",
                    scores.len() + at + 1
                )));
            }
            // As they are kept in between, so that a resumed run writes the same file.
            scores.extend(found.into_iter().map(|score| f64::from(score as f32)));
            if saved.elapsed() >= CHECKPOINT_TIME {
                eprintln!("{}: {} of {} pairs", self.name, scores.len(), pairs.len());
                self.keep_scores(&scores)?;
                saved = Instant::now();
            }
        }
        Ok(scores)
    }

    fn kept_scores(&self, most: usize) -> Result<Vec<f64>> {
        if !self.part_file().exists() {
            return Ok(Vec::new());
        }
        let part = TensorFile::read(&self.part_file())?;
        if part.notes.get("settings").map(String::as_str) == Some(self.settings)
            && let Some(kept) = part.tensors.get("scores")
            && kept.elem_count() <= most
        {
            let kept = kept.flatten_all()?.to_vec1::<f32>()?;
            eprintln!("{}: going on after {} pairs", self.name, kept.len());
            return Ok(kept.into_iter().map(f64::from).collect());
        }
        Ok(Vec::new())
    }

    fn keep_scores(&self, scores: &[f64]) -> Result<()> {
        let kept: Vec<f32> = scores.iter().map(|&score| score as f32).collect();
        let kept = Tensor::from_slice(&kept, kept.len(), &Device::Cpu)?;
        TensorFile {
            tensors: [("scores".to_owned(), kept)].into(),
            notes: [("settings".to_owned(), self.settings.to_owned())].into(),
        }
        .write(&self.part_file())
    }

    /// Makes `teacher_share` of each score the cosine of the teacher's vectors of the pair.
    fn mix_cosines(&self, texts: &[&str], pairs: &[(u32, u32)], scores: &mut [f64]) -> Result<()> {
        let (vectors, store, hidden) = self.teacher_vectors(texts)?;
        let vector = |text: u32| {
            let at = store.index(texts[text as usize]);
            &vectors[at * hidden..][..hidden]
        };
        for (&(a, b), score) in pairs.iter().zip(scores) {
            let cosine: f64 =
                vector(a).iter().zip(vector(b)).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum();
            *score += self.options.teacher_share * (cosine.clamp(0.0, 1.0) - *score);
        }
        Ok(())
    }
}
