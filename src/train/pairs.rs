//! Cross-encoders: a model that reads both sentences of a pair at once judges them better than two
//! vectors can. Its scores of pairs that nobody has scored become training data.

use std::collections::HashSet;
use std::path::Path;
use std::time::Instant;

use candle_core::{Device, Tensor};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde_json::Value;

use super::checkpoint::{Checkpoint, write_atomically};
use super::data::{LABELLED_PAIRS, Rows, Target, TokenStore};
use super::evaluate::{EvalRows, Score};
use super::losses::{PairHead, binary_cross_entropy};
use super::model::{BertModel, FakeQuant, ForwardOptions, ForwardOutput, TokenBatch};
use super::recipe::{Slot, Stage};
use super::stages::{CHECKPOINT_TIME, Purpose, Run, Task, Teacher, all_texts, scored_pairs};
use super::{checkpoint, seed_of};
use crate::error::{Error, ErrorKind, Result};
use crate::eval::{StsPair, pearson, spearman};
use crate::tokenizer::Tokenizer;
use crate::weights::FloatModel;

/// The head's weights, beside the encoder's.
const HEAD: &str = "head.safetensors";
/// Tokens of one forward pass.
const TOKENS_AT_ONCE: usize = 4096;
/// Sentences whose neighbours are looked for at once.
const QUERIES_AT_ONCE: usize = 256;

/// How a tokenizer joins two texts, such as `<s> a </s></s> b </s>`.
#[derive(Clone, Debug, PartialEq)]
pub struct PairTemplate {
    /// Special tokens before the first text, between the two and after the second.
    parts: [Vec<u32>; 3],
    /// Special tokens before and after a single text.
    single: [usize; 2],
}

impl PairTemplate {
    /// The template that `tokenizer.json` gives for a pair. Token types are passed over: the models
    /// here have one.
    ///
    /// # Errors
    /// `tokenizer_invalid` if it gives none.
    pub fn new(tokenizer_json: &[u8]) -> Result<Self> {
        let json: Value = serde_json::from_slice(tokenizer_json).unwrap_or_default();
        let parts = parts(&json["post_processor"]).ok_or_else(|| {
            Error::new(
                ErrorKind::TokenizerInvalid,
                "the tokenizer has no template for pairs of texts, which a cross-encoder reads",
            )
        })?;
        let tokenizer = Tokenizer::from_bytes(tokenizer_json, "", usize::from(u16::MAX))?;
        let (leading, trailing) = tokenizer.around();
        Ok(PairTemplate { parts, single: [leading.len(), trailing.len()] })
    }

    /// The sequence of two texts, given as the token ids of each alone, in at most `max` tokens: the
    /// longer text loses its last ones.
    pub fn join(&self, a: &[u32], b: &[u32], max: usize) -> Vec<u32> {
        let content = |ids: &'_ [u32]| {
            let end = ids.len().saturating_sub(self.single[1]);
            self.single[0].min(end)..end
        };
        let (mut a, mut b) = (&a[content(a)], &b[content(b)]);
        let room = max.saturating_sub(self.parts.iter().map(Vec::len).sum());
        while a.len() + b.len() > room {
            match a.len() >= b.len() {
                true => a = &a[..a.len() - 1],
                false => b = &b[..b.len() - 1],
            }
        }
        [&self.parts[0], a, &self.parts[1], b, &self.parts[2]].concat()
    }
}

fn parts(processor: &Value) -> Option<[Vec<u32>; 3]> {
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    match processor["type"].as_str()? {
        "Sequence" => processor["processors"].as_array()?.iter().find_map(parts),
        kind @ ("BertProcessing" | "RobertaProcessing") => {
            let (cls, sep) = (id(&processor["cls"][1])?, id(&processor["sep"][1])?);
            let between = if kind == "BertProcessing" { vec![sep] } else { vec![sep, sep] };
            Some([vec![cls], between, vec![sep]])
        }
        "TemplateProcessing" => {
            let mut parts: [Vec<u32>; 3] = Default::default();
            let mut at = 0;
            for part in processor["pair"].as_array()? {
                if let Some(sequence) = part.get("Sequence") {
                    // The texts come once each, the first one first.
                    if sequence["id"].as_str()? != ["A", "B"].get(at).copied()? {
                        return None;
                    }
                    at += 1;
                    continue;
                }
                let name = part["SpecialToken"]["id"].as_str()?;
                for token in processor["special_tokens"][name]["ids"].as_array()? {
                    parts[at].push(id(token)?);
                }
            }
            (at == 2).then_some(parts)
        }
        _ => None,
    }
}

/// Sequences of pairs for one model.
struct Joined {
    template: PairTemplate,
    max: usize,
}

impl Joined {
    fn new(run: &Run, float: &FloatModel) -> Result<Self> {
        let max = (2 * run.recipe.max_tokens).min(float.config.max_position_embeddings);
        Ok(Joined { template: PairTemplate::new(&float.tokenizer_json)?, max })
    }

    fn sequence(&self, store: &TokenStore, a: usize, b: usize) -> Vec<u32> {
        self.template.join(store.ids(a), store.ids(b), self.max)
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
        let store = run.store(float, stage.model, Purpose::Pairs, all_texts(&rows))?;
        let pairs = scored_pairs(stage, &rows, &store)?;
        let joined = Joined::new(run, float)?;
        let head = PairHead::attach(model, 1, seed_of(run.recipe.seed, &stage.name, 1))?;
        let mut dev = Vec::new();
        // Missing files were named where sentence vectors are prepared.
        for (set, rows) in run.evaluation_rows(&mut Vec::new())? {
            let EvalRows::Sts(pairs) = &rows else { continue };
            let texts = run.store(float, stage.model, Purpose::Pairs, rows.texts())?;
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

    fn step(
        &self,
        model: &BertModel,
        batch: &[u32],
        options: &ForwardOptions,
    ) -> Result<(Tensor, Vec<ForwardOutput>, usize)> {
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

    fn leave(&self, model: &BertModel, folder: &Path) -> Result<()> {
        let parameters = model.parameters().to_tensors()?;
        let tensors =
            parameters.into_iter().filter(|(name, _)| name.starts_with("head.")).collect();
        Checkpoint { tensors, notes: Default::default() }.write(&folder.join(HEAD))
    }
}

/// A trained cross-encoder.
struct CrossEncoder {
    encoder: Teacher,
    head: PairHead,
    joined: Joined,
    float: FloatModel,
}

impl CrossEncoder {
    /// What `stage` left; `label` says whether it runs quantized.
    fn load(run: &Run, stage: &Stage, label: &Stage) -> Result<Self> {
        let folder = run.folder(stage);
        let file = folder.join("model.safetensors");
        if !file.exists() {
            return Err(Error::new(
                ErrorKind::InputInvalid,
                format!(
                    "stage {:?} needs the cross-encoder of stage {:?}, which has not run in {}; \
                     run it first",
                    label.name,
                    stage.name,
                    run.out.display()
                ),
            ));
        }
        let float = checkpoint::read_float_model(&file)?;
        let kept = Checkpoint::read(&folder.join(HEAD))?;
        // The head's own parameters are all that is used of this model.
        let mut model = BertModel::from_float_model(&float, &run.device)?;
        let head = PairHead::attach(&mut model, 1, 0)?;
        let mut tensors = model.parameters().to_tensors()?;
        tensors.extend(kept.tensors);
        model.parameters().load(&tensors)?;
        let encoder = Teacher::new(run, label, &float)?;
        Ok(CrossEncoder { encoder, head, joined: Joined::new(run, &float)?, float })
    }

    fn scores(&self, run: &Run, sequences: &[Vec<u32>]) -> Result<Vec<f64>> {
        let logits = logits(sequences, &self.head, |batch| {
            Ok(self.encoder.answer(batch, &[], &run.device)?.pooled)
        })?;
        Ok(logits.into_iter().map(sigmoid).collect())
    }
}

/// Pairs of texts of `store`, without order and without repetition.
#[derive(Default)]
struct PairList {
    pairs: Vec<(u32, u32)>,
    seen: HashSet<(u32, u32)>,
}

impl PairList {
    fn add(&mut self, a: usize, b: usize) {
        let (a, b) = (a as u32, b as u32);
        if a != b && self.seen.insert((a.min(b), a.max(b))) {
            self.pairs.push((a, b));
        }
    }
}

/// Pairs that the rows themselves make: two texts of a row, neighbours in a paraphrase set.
fn given_pairs(rows: &Rows, store: &TokenStore, list: &mut PairList) {
    let mut last: Option<(u64, usize)> = None;
    for row in &rows.rows {
        let number = |which: usize| store.index(&row.texts[which]);
        match (row.target, row.texts.len()) {
            (Target::None, _) => {}
            (Target::Set(set), 1) => {
                if let Some((_, before)) = last.filter(|(other, _)| *other == set) {
                    list.add(before, number(0));
                }
                last = Some((set, number(0)));
            }
            (_, 2) => list.add(number(0), number(1)),
            _ => {}
        }
    }
}

/// The `count` nearest other rows of each row of `vectors` (`n × hidden`, length 1), nearest first;
/// of equally near ones the earlier.
fn nearest(vectors: &Tensor, count: usize) -> Result<Vec<Vec<u32>>> {
    let n = vectors.dim(0)?;
    let transposed = vectors.t()?;
    let mut all = Vec::with_capacity(n);
    for begin in (0..n).step_by(QUERIES_AT_ONCE) {
        let queries = vectors.narrow(0, begin, QUERIES_AT_ONCE.min(n - begin))?;
        for (at, row) in queries.matmul(&transposed)?.to_vec2::<f32>()?.into_iter().enumerate() {
            let mut others: Vec<u32> =
                (0..n as u32).filter(|&other| other as usize != begin + at).collect();
            let by_score =
                |a: &u32, b: &u32| row[*b as usize].total_cmp(&row[*a as usize]).then(a.cmp(b));
            let count = count.min(others.len());
            if count > 0 && count < others.len() {
                others.select_nth_unstable_by(count - 1, by_score);
            }
            others.truncate(count);
            others.sort_by(by_score);
            all.push(others);
        }
    }
    Ok(all)
}

/// Pairs of sentences that the teacher finds near to each other.
fn mined_pairs(
    run: &Run,
    index: usize,
    rows: &Rows,
    store: &TokenStore,
    list: &mut PairList,
) -> Result<()> {
    let stage = &run.recipe.stages[index];
    if stage.neighbours == 0 {
        return Ok(());
    }
    let mut texts: Vec<&str> = Vec::new();
    let mut seen = HashSet::new();
    texts.extend(all_texts(rows).into_iter().filter(|text| seen.insert(*text)));
    if texts.len() > stage.mined_sentences {
        let mut random = ChaCha8Rng::seed_from_u64(seed_of(run.recipe.seed, &stage.name, 0));
        texts.shuffle(&mut random);
        texts.truncate(stage.mined_sentences);
    }
    let float = run.model_before(index, Slot::Teacher)?;
    eprintln!("{}: the teacher reads {} sentences", stage.name, texts.len());
    let teacher_store =
        run.store(&float, Slot::Teacher, Purpose::Training, texts.iter().copied())?;
    let vectors = Teacher::new(run, stage, &float)?.embed_all(&teacher_store)?;
    let shape = (teacher_store.len(), float.config.hidden_size);
    let vectors = Tensor::from_vec(vectors, shape, &run.device)?;
    for (at, others) in nearest(&vectors, stage.neighbours)?.into_iter().enumerate() {
        for other in others {
            list.add(store.index(texts[at]), store.index(texts[other as usize]));
        }
    }
    Ok(())
}

/// Makes `teacher_share` of each score the cosine of the teacher's vectors of the pair.
fn mix_cosines(
    run: &Run,
    index: usize,
    texts: &[&str],
    pairs: &[(u32, u32)],
    scores: &mut [f64],
) -> Result<()> {
    let stage = &run.recipe.stages[index];
    let float = run.model_before(index, Slot::Teacher)?;
    eprintln!("{}: the teacher reads {} sentences", stage.name, texts.len());
    let store = run.store(&float, Slot::Teacher, Purpose::Training, texts.iter().copied())?;
    let (vectors, hidden) =
        (Teacher::new(run, stage, &float)?.embed_all(&store)?, float.config.hidden_size);
    let vector = |text: u32| {
        let at = store.index(texts[text as usize]);
        &vectors[at * hidden..][..hidden]
    };
    for (&(a, b), score) in pairs.iter().zip(scores) {
        let cosine: f64 =
            vector(a).iter().zip(vector(b)).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum();
        *score += stage.teacher_share * (cosine.clamp(0.0, 1.0) - *score);
    }
    Ok(())
}

/// A `label_pairs` stage: scores pairs of the data and neighbours by the teacher's vectors with the
/// cross-encoder and leaves them as an STS file (scores 0 … 5) in the stage's folder. The pairs and
/// their order depend on recipe and data alone; a stopped run goes on from the last part of scores.
///
/// # Errors
/// When the cross-encoder has not run, data are malformed or a file cannot be written.
pub(super) fn label(run: &Run, index: usize, settings: &str) -> Result<()> {
    let stage = &run.recipe.stages[index];
    let scorer = run.recipe.scorer(index).ok_or_else(|| {
        Error::new(ErrorKind::InputInvalid, "there is no such cross_encoder stage before")
    })?;
    let cross = CrossEncoder::load(run, &run.recipe.stages[scorer], stage)?;
    let rows = run.rows(stage)?;
    let store = run.store(&cross.float, Slot::Teacher, Purpose::Pairs, all_texts(&rows))?;
    let mut list = PairList::default();
    given_pairs(&rows, &store, &mut list);
    let given = list.pairs.len();
    mined_pairs(run, index, &rows, &store, &mut list)?;
    let pairs = list.pairs;
    if pairs.is_empty() {
        return Err(Error::new(
            ErrorKind::DataInvalid,
            format!("{}: stage {:?} finds no pairs to label", rows.place(0), stage.name),
        ));
    }
    eprintln!("{}: {given} given and {} mined pairs", stage.name, pairs.len() - given);

    let part_file = run.folder(stage).join("scores.partial.safetensors");
    let mut scores: Vec<f64> = Vec::with_capacity(pairs.len());
    if part_file.exists() {
        let part = Checkpoint::read(&part_file)?;
        if part.notes.get("settings").map(String::as_str) == Some(settings)
            && let Some(kept) = part.tensors.get("scores")
            && kept.elem_count() <= pairs.len()
        {
            scores.extend(kept.flatten_all()?.to_vec1::<f32>()?.into_iter().map(f64::from));
            eprintln!("{}: going on after {} pairs", stage.name, scores.len());
        }
    }
    const PART: usize = 2048;
    let mut saved = Instant::now();
    while scores.len() < pairs.len() {
        let part = &pairs[scores.len()..pairs.len().min(scores.len() + PART)];
        let sequences = |swap: bool| -> Vec<Vec<u32>> {
            part.iter()
                .map(|&(a, b)| if swap { (b, a) } else { (a, b) })
                .map(|(a, b)| cross.joined.sequence(&store, a as usize, b as usize))
                .collect()
        };
        let mut found = cross.scores(run, &sequences(false))?;
        if stage.both_orders {
            for (score, other) in found.iter_mut().zip(cross.scores(run, &sequences(true))?) {
                *score = 0.5 * (*score + other);
            }
        }
        if let Some(at) = found.iter().position(|score| !score.is_finite()) {
            return Err(Error::new(
                ErrorKind::NonFinite,
                format!("the score of pair {} is not a number", scores.len() + at + 1),
            ));
        }
        // As they are kept in between, so that a resumed run writes the same file.
        scores.extend(found.into_iter().map(|score| f64::from(score as f32)));
        if saved.elapsed() >= CHECKPOINT_TIME {
            eprintln!("{}: {} of {} pairs", stage.name, scores.len(), pairs.len());
            let kept: Vec<f32> = scores.iter().map(|&score| score as f32).collect();
            let kept = Tensor::from_slice(&kept, kept.len(), &Device::Cpu)?;
            Checkpoint {
                tensors: [("scores".to_owned(), kept)].into(),
                notes: [("settings".to_owned(), settings.to_owned())].into(),
            }
            .write(&part_file)?;
            saved = Instant::now();
        }
    }

    let mut texts = vec![""; store.len()];
    for text in all_texts(&rows) {
        texts[store.index(text)] = text;
    }
    if stage.teacher_share > 0.0 {
        mix_cosines(run, index, &texts, &pairs, &mut scores)?;
    }
    let mut file = "sentence1\tsentence2\tscore\n".to_owned();
    for (&(a, b), score) in pairs.iter().zip(&scores) {
        let (a, b) = (texts[a as usize], texts[b as usize]);
        file += &format!("{a}\t{b}\t{:.4}\n", 5.0 * score);
    }
    write_atomically(&run.folder(stage).join(LABELLED_PAIRS), file.as_bytes())?;
    let _ = std::fs::remove_file(&part_file);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(json: &str) -> Option<[Vec<u32>; 3]> {
        parts(&serde_json::from_str(json).unwrap())
    }

    #[test]
    fn templates_of_pairs() {
        let roberta = r#"{"type": "RobertaProcessing", "sep": ["</s>", 2], "cls": ["<s>", 0]}"#;
        assert_eq!(template(roberta), Some([vec![0], vec![2, 2], vec![2]]));
        let bert = r#"{"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]}"#;
        let sequence =
            format!(r#"{{"type": "Sequence", "processors": [{{"type": "ByteLevel"}}, {bert}]}}"#);
        assert_eq!(template(&sequence), Some([vec![2], vec![3], vec![3]]));
        let of = |pair: &str| {
            template(&format!(
                r#"{{"type": "TemplateProcessing", "pair": [{pair}],
                    "special_tokens": {{"<s>": {{"ids": [0]}}, "</s>": {{"ids": [2]}}}}}}"#
            ))
        };
        let special =
            |name: &str| format!(r#"{{"SpecialToken": {{"id": "{name}", "type_id": 0}}}}"#);
        let text = |name: &str| format!(r#"{{"Sequence": {{"id": "{name}", "type_id": 0}}}}"#);
        let (s, e) = (special("<s>"), special("</s>"));
        let xlm = [&*s, &text("A"), &e, &e, &text("B"), &e].join(",");
        assert_eq!(of(&xlm), Some([vec![0], vec![2, 2], vec![2]]));
        for odd in [text("A"), [text("B"), text("A")].join(","), special("<x>")] {
            assert_eq!(of(&odd), None, "{odd}");
        }
        assert_eq!(template("null"), None);
    }

    #[test]
    fn the_longer_text_is_cut() {
        let template = PairTemplate { parts: [vec![0], vec![2, 2], vec![2]], single: [1, 1] };
        let (a, b) = ([0, 11, 12, 13, 2], [0, 21, 2]);
        assert_eq!(template.join(&a, &b, 99), [0, 11, 12, 13, 2, 2, 21, 2]);
        assert_eq!(template.join(&a, &b, 7), [0, 11, 12, 2, 2, 21, 2]);
        assert_eq!(template.join(&a, &b, 5), [0, 2, 2, 21, 2]);
        assert_eq!(template.join(&a, &b, 2), [0, 2, 2, 2]);
    }

    #[test]
    fn neighbours_come_in_one_order() {
        let vectors = [[1.0f32, 0.0], [0.8, 0.6], [0.6, 0.8], [0.8, -0.6], [-1.0, 0.0]];
        let vectors = Tensor::new(&vectors, &Device::Cpu).unwrap();
        let found = nearest(&vectors, 2).unwrap();
        // Rows 1 and 3 are equally near to row 0.
        assert_eq!(found[0], [1, 3]);
        assert_eq!(found[1], [2, 0]);
        assert_eq!(found[4], [2, 1]);
        assert_eq!(nearest(&vectors, 9).unwrap()[3].len(), 4);
    }
}
