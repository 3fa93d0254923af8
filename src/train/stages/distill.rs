//! Stage `distill`: the student follows its teacher on unlabelled sentences.

use candle_core::{Tensor, Var};

use super::related::{aligned, related_texts};
use super::sample::all_texts;
use super::teacher::{Answer, Teacher, TeacherUse};
use crate::error::{Error, Result};
use crate::train::data::{Purpose, Rows, TokenStore};
use crate::train::nn::batch::TokenBatch;
use crate::train::nn::bert::BertModel;
use crate::train::nn::losses;
use crate::train::nn::options::ForwardOptions;
use crate::train::nn::output::ForwardOutput;
use crate::train::nn::random::random_values;
use crate::train::recipe::{Distill, Slot, Trained};
use crate::train::run::Run;
use crate::train::run::training::{Loss, Task};
use crate::train::seed::seed_of;
use crate::weights::FloatModel;

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
    name: String,
    options: Distill,
}

impl DistillTask {
    pub(super) fn new(
        run: &Run,
        index: usize,
        options: &Trained<Distill>,
        rows: Rows,
        float: &FloatModel,
        model: &mut BertModel,
    ) -> Result<Self> {
        let (name, training) = (run.recipe.stages[index].name.clone(), &options.training);
        let options = options.own.clone();
        let teacher_float = run.model_before(index, Slot::Teacher)?;
        let all = all_texts(&rows);
        let texts = || all.iter().copied();
        let student = run.store(float, Slot::Student, Purpose::Training, texts())?;
        let teacher_store = run.store(&teacher_float, Slot::Teacher, Purpose::Training, texts())?;
        let mut groups = related_texts(&rows.rows, |text| student.index(text));
        if options.state_weight > 0.0 || options.middle_weight > 0.0 {
            keep_aligned(&name, &mut groups, &student, &teacher_store)?;
        }
        let how =
            TeacherUse { quantized: options.quantized_teacher, precision: training.precision };
        let teacher = Teacher::new(run, how, &teacher_float)?;
        let (from, to) = (model.config().hidden_size, teacher.config().hidden_size);
        let mut add = |name: &str, used: bool| -> Result<Option<Var>> {
            if from == to || !used {
                return Ok(None);
            }
            let seed = seed_of(run.recipe.seed, name, 0);
            let values = random_values(from * to, 1.0 / (from as f32).sqrt(), seed);
            let values = Tensor::from_vec(values, (to, from), &run.device)?;
            Ok(Some(model.add_parameter(name, values, true)?))
        };
        let used = options.state_weight > 0.0 || options.cosine_weight > 0.0;
        let projection = add("projection", used)?;
        let middle_projections = (0..options.middle_layers.len())
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
            name,
            options,
        })
    }

    /// The squared errors of states, each with its weight, of a batch as both models read it.
    fn state_terms(
        &self,
        output: &ForwardOutput,
        target: &Answer,
        (own_batch, teacher_batch): (&TokenBatch, &TokenBatch),
    ) -> Result<Vec<(Tensor, f64)>> {
        let options = &self.options;
        if options.state_weight == 0.0 && options.middle_weight == 0.0 {
            return Ok(Vec::new());
        }
        // Without the tokens of the teacher's prefix.
        let mut kept: Vec<u32> = Vec::with_capacity(own_batch.num_tokens());
        let offsets = own_batch.offsets().windows(2).zip(teacher_batch.offsets().windows(2));
        for (own, other) in offsets {
            let extra = (other[1] - other[0]) - (own[1] - own[0]);
            kept.push(other[0] as u32);
            kept.extend((other[0] + 1 + extra) as u32..other[1] as u32);
        }
        let kept = Tensor::from_vec(kept, own_batch.num_tokens(), output.pooled.device())?;
        let mut terms = Vec::new();
        if options.state_weight > 0.0 {
            let states = target.token_states.index_select(&kept, 0)?;
            let own = project(&self.projection, &output.token_states)?;
            terms.push((losses::token_state_mse(&own, &states)?, options.state_weight));
        }
        let weight = options.middle_weight / options.middle_layers.len().max(1) as f64;
        let pairs = output.layer_states.iter().zip(&target.middle);
        for ((own, target), projection) in pairs.zip(&self.middle_projections) {
            let own = project(projection, own)?;
            let target = target.index_select(&kept, 0)?;
            terms.push((losses::token_state_mse(&own, &target)?, weight));
        }
        Ok(terms)
    }
}

/// Takes the texts out of `groups` whose states cannot be compared, as long as they are the fewer.
fn keep_aligned(
    name: &str,
    groups: &mut Vec<(Vec<u32>, u32)>,
    student: &TokenStore,
    teacher: &TokenStore,
) -> Result<()> {
    for (texts, _) in &mut *groups {
        texts.retain(|&text| aligned(student.ids(text as usize), teacher.ids(text as usize)));
    }
    groups.retain(|(texts, _)| !texts.is_empty());
    let (before, left) =
        (student.len(), groups.iter().map(|(texts, _)| texts.len()).sum::<usize>());
    if left * 2 < before {
        return Err(Error::input_invalid(format!(
            "stage {name:?}: teacher and student cut {} of {before} sentences into other tokens, so their \
             states cannot be compared; set state_weight and middle_weight to 0",
            before - left
        )));
    }
    Ok(())
}

/// `x` at the teacher's width.
fn project(projection: &Option<Var>, x: &Tensor) -> Result<Tensor> {
    match projection {
        Some(projection) => Ok(x.matmul(&projection.as_tensor().t()?)?),
        None => Ok(x.clone()),
    }
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

    fn step(&self, model: &BertModel, batch: &[u32], forward: &ForwardOptions) -> Result<Loss> {
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
        let options = &self.options;
        let middle = |which: usize| options.middle_layers.iter().map(|pair| pair[which]).collect();
        let of_teacher: Vec<usize> = middle(1);
        let target = self.teacher.answer(&teacher_batch, &of_teacher, model.device())?;
        let forward = ForwardOptions { layer_states: middle(0), ..forward.clone() };
        let output = model.forward(&student_batch, &forward)?;
        let mut terms = self.state_terms(&output, &target, (&student_batch, &teacher_batch))?;
        if options.cosine_weight > 0.0 {
            let own = project(&self.projection, &output.pooled)?;
            let near = losses::pooled_cosine_distance(&own, &target.pooled)?;
            terms.push((near, options.cosine_weight));
        }
        if options.similarity_weight > 0.0 {
            let near = losses::over_dimensions(&output.pooled, &options.dimensions, |pooled| {
                losses::similarity_kl(pooled, &target.pooled, options.tau)
            })?;
            terms.push((near, options.similarity_weight));
        }
        let loss = losses::weighted_sum(terms)?.ok_or_else(|| {
            Error::input_invalid(format!("stage {:?}: all weights of its losses are 0", self.name))
        })?;
        Ok((loss, vec![output], texts.len()))
    }
}
