//! The student follows its teacher on unlabelled sentences.

use std::collections::HashMap;

use candle_core::{Tensor, Var};

use super::teacher::Teacher;
use super::{Purpose, Run, Task, all_texts};
use crate::error::{Error, ErrorKind, Result};
use crate::train::data::{Row, Rows, Target, TokenStore};
use crate::train::model::{BertModel, ForwardOptions, ForwardOutput, TokenBatch};
use crate::train::recipe::{Slot, Stage};
use crate::train::{losses, model, seed_of};
use crate::weights::FloatModel;

/// Texts that come into one batch because they belong together: the similarities within a batch
/// teach little where everything is unlike everything.
const GROUP_TEXTS: usize = 4;

/// The student follows the teacher's states, vectors and similarities.
pub(super) struct DistillTask {
    rows: Rows,
    student: TokenStore,
    teacher_store: TokenStore,
    /// Texts (numbers of both stores) that belong together, and a row that the first stands in.
    groups: Vec<(Vec<u32>, u32)>,
    teacher: Teacher,
    /// `teacher width × student width`, where the widths differ.
    projection: Option<Var>,
    /// The same for each of the middle layers.
    middle_projections: Vec<Option<Var>>,
    stage: Stage,
}

impl DistillTask {
    pub(super) fn new(
        run: &Run,
        index: usize,
        rows: Rows,
        float: &FloatModel,
        model: &mut BertModel,
    ) -> Result<Self> {
        let stage = run.recipe.stages[index].clone();
        let teacher_float = run.model_before(index, Slot::Teacher)?;
        let all = all_texts(&rows);
        let texts = || all.iter().copied();
        let student = run.store(float, Slot::Student, Purpose::Training, texts())?;
        let teacher_store = run.store(&teacher_float, Slot::Teacher, Purpose::Training, texts())?;
        let mut groups = related_texts(&rows.rows, |text| student.index(text));
        if stage.state_weight > 0.0 || stage.middle_weight > 0.0 {
            for (texts, _) in &mut groups {
                texts.retain(|&text| {
                    aligned(student.ids(text as usize), teacher_store.ids(text as usize))
                });
            }
            groups.retain(|(texts, _)| !texts.is_empty());
            let (before, left) =
                (student.len(), groups.iter().map(|(texts, _)| texts.len()).sum::<usize>());
            if left * 2 < before {
                return Err(Error::new(
                    ErrorKind::InputInvalid,
                    format!(
                        "stage {:?}: teacher and student cut {} of {before} sentences into other \
                         tokens, so their states cannot be compared; set state_weight and \
                         middle_weight to 0",
                        stage.name,
                        before - left
                    ),
                ));
            }
        }
        let teacher = Teacher::new(run, &stage, &teacher_float)?;
        let (from, to) = (model.config().hidden_size, teacher.config().hidden_size);
        let mut add = |name: &str, used: bool| -> Result<Option<Var>> {
            if from == to || !used {
                return Ok(None);
            }
            let seed = seed_of(run.recipe.seed, name, 0);
            let values = model::random_values(from * to, 1.0 / (from as f32).sqrt(), seed);
            let values = Tensor::from_vec(values, (to, from), &run.device)?;
            Ok(Some(model.add_parameter(name, values, true)?))
        };
        let projection = add("projection", stage.state_weight > 0.0 || stage.cosine_weight > 0.0)?;
        let middle_projections = (0..stage.middle_layers.len())
            .map(|index| add(&format!("middle_projection.{index}"), true))
            .collect::<Result<_>>()?;
        Ok(DistillTask {
            rows,
            student,
            teacher_store,
            groups,
            teacher,
            projection,
            middle_projections,
            stage,
        })
    }
}

/// `x` at the teacher's width.
fn project(projection: &Option<Var>, x: &Tensor) -> Result<Tensor> {
    match projection {
        Some(projection) => Ok(x.matmul(&projection.as_tensor().t()?)?),
        None => Ok(x.clone()),
    }
}

/// Every text (by its number) once, in groups of up to [`GROUP_TEXTS`] that share a row, an earlier text or
/// a paraphrase set, each with the first row that it stands in.
fn related_texts(rows: &[Row], number_of: impl Fn(&str) -> usize) -> Vec<(Vec<u32>, u32)> {
    let mut groups: Vec<(Vec<u32>, u32)> = Vec::new();
    let mut group_of: HashMap<usize, usize> = HashMap::new();
    let mut group_of_set: HashMap<u64, usize> = HashMap::new();
    for (at, row) in rows.iter().enumerate() {
        let numbers: Vec<usize> = row.texts.iter().map(|text| number_of(text)).collect();
        let mut group = numbers.iter().find_map(|number| group_of.get(number).copied());
        if let (None, Target::Set(set)) = (group, row.target) {
            group = group_of_set.get(&set).copied();
        }
        for number in numbers {
            if group_of.contains_key(&number) {
                continue;
            }
            let place = match group {
                Some(place) if groups[place].0.len() < GROUP_TEXTS => place,
                _ => {
                    groups.push((Vec::new(), at as u32));
                    groups.len() - 1
                }
            };
            // Sentences of one row are related only where the row says so.
            if !matches!(row.target, Target::None) {
                group = Some(place);
            }
            groups[place].0.push(number as u32);
            group_of.insert(number, place);
            if let Target::Set(set) = row.target {
                group_of_set.insert(set, place);
            }
        }
    }
    groups
}

/// Whether the teacher's ids are the student's with a prefix after the first.
fn aligned(student: &[u32], teacher: &[u32]) -> bool {
    let Some(extra) = teacher.len().checked_sub(student.len()) else {
        return false;
    };
    !student.is_empty() && student[0] == teacher[0] && student[1..] == teacher[1 + extra..]
}

impl Task for DistillTask {
    fn lengths(&self) -> Vec<usize> {
        let length = |&text: &u32| self.student.ids(text as usize).len();
        // By the mean, so that a batch holds sentences of one length.
        self.groups
            .iter()
            .map(|(texts, _)| texts.iter().map(length).sum::<usize>() / texts.len())
            .collect()
    }

    fn place(&self, index: usize) -> String {
        self.rows.place(self.groups[index].1 as usize)
    }

    fn step(
        &self,
        model: &BertModel,
        batch: &[u32],
        options: &ForwardOptions,
    ) -> Result<(Tensor, Vec<ForwardOutput>, usize)> {
        let texts: Vec<usize> = batch
            .iter()
            .flat_map(|&index| &self.groups[index as usize].0)
            .map(|&text| text as usize)
            .collect();
        let ids_of = |store: &'_ TokenStore| -> Result<TokenBatch> {
            let ids: Vec<&[u32]> = texts.iter().map(|&text| store.ids(text)).collect();
            TokenBatch::new(&ids)
        };
        let (student_batch, teacher_batch) = (ids_of(&self.student)?, ids_of(&self.teacher_store)?);
        let stage = &self.stage;
        let middle = |which: usize| stage.middle_layers.iter().map(|pair| pair[which]).collect();
        let of_teacher: Vec<usize> = middle(1);
        let target = self.teacher.answer(&teacher_batch, &of_teacher, model.device())?;
        let options = ForwardOptions { layer_states: middle(0), ..options.clone() };
        let output = model.forward(&student_batch, &options)?;
        let mut loss: Option<Tensor> = None;
        let mut add = |term: Tensor, weight: f64| -> Result<()> {
            let term = (term * weight)?;
            loss = Some(match loss.take() {
                Some(loss) => (loss + term)?,
                None => term,
            });
            Ok(())
        };
        if stage.state_weight > 0.0 || stage.middle_weight > 0.0 {
            // Without the tokens of the teacher's prefix.
            let mut kept: Vec<u32> = Vec::with_capacity(student_batch.num_tokens());
            let offsets =
                student_batch.offsets().windows(2).zip(teacher_batch.offsets().windows(2));
            for (own, other) in offsets {
                let extra = (other[1] - other[0]) - (own[1] - own[0]);
                kept.push(other[0] as u32);
                kept.extend((other[0] + 1 + extra) as u32..other[1] as u32);
            }
            let kept = Tensor::from_vec(kept, student_batch.num_tokens(), model.device())?;
            if stage.state_weight > 0.0 {
                let states = target.token_states.index_select(&kept, 0)?;
                let own = project(&self.projection, &output.token_states)?;
                add(losses::token_state_mse(&own, &states)?, stage.state_weight)?;
            }
            let weight = stage.middle_weight / stage.middle_layers.len().max(1) as f64;
            let pairs = output.layer_states.iter().zip(&target.middle);
            for ((own, target), projection) in pairs.zip(&self.middle_projections) {
                let own = project(projection, own)?;
                let target = target.index_select(&kept, 0)?;
                add(losses::token_state_mse(&own, &target)?, weight)?;
            }
        }
        if stage.cosine_weight > 0.0 {
            let own = project(&self.projection, &output.pooled)?;
            add(losses::pooled_cosine_distance(&own, &target.pooled)?, stage.cosine_weight)?;
        }
        if stage.similarity_weight > 0.0 {
            let term = losses::over_dimensions(&output.pooled, &stage.dimensions, |pooled| {
                losses::similarity_kl(pooled, &target.pooled, stage.tau)
            })?;
            add(term, stage.similarity_weight)?;
        }
        let loss = loss.ok_or_else(|| {
            Error::new(
                ErrorKind::InputInvalid,
                format!("stage {:?}: all weights of its losses are 0", stage.name),
            )
        })?;
        Ok((loss, vec![output], texts.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefix_tokens_are_passed_over() {
        assert!(aligned(&[0, 7, 8, 2], &[0, 5, 6, 7, 8, 2]));
        assert!(aligned(&[0, 7, 2], &[0, 7, 2]));
        assert!(!aligned(&[0, 7, 2], &[0, 5, 9, 2]));
        assert!(!aligned(&[0, 7, 8, 2], &[0, 7, 2]));
    }

    #[test]
    fn related_texts_come_together_and_once() {
        let row = |texts: &[&str], target| Row {
            texts: texts.iter().map(|&text| text.to_owned()).collect(),
            target,
            file: 0,
            line: 1,
        };
        let rows = [
            row(&["0", "1"], Target::Score(0.5)),
            row(&["2", "3"], Target::None),
            row(&["1", "4"], Target::Entailment),
            row(&["5"], Target::Set(7)),
            row(&["6"], Target::Set(8)),
            row(&["7"], Target::Set(7)),
            row(&["0", "8"], Target::Contradiction),
            row(&["0", "9"], Target::Neutral),
            row(&["0", "4"], Target::Pair),
        ];
        let groups = related_texts(&rows, |text| text.parse().unwrap());
        let of = |texts: &[u32], row| (texts.to_vec(), row);
        let expected = [
            of(&[0, 1, 4, 8], 0),
            of(&[2], 1),
            of(&[3], 1),
            of(&[5, 7], 3),
            of(&[6], 4),
            // The first group is full.
            of(&[9], 7),
        ];
        assert_eq!(groups, expected);
    }
}
