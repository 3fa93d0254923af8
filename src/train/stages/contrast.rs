//! Stage `contrast`: supervised SimCSE on triples, paraphrase sets and pairs.

use std::collections::HashMap;

use super::sample::all_texts;
use super::scored::wrong_kind;
use crate::error::{Error, Result};
use crate::train::data::{Purpose, Rows, Target, TokenStore};
use crate::train::nn::batch::TokenBatch;
use crate::train::nn::bert::BertModel;
use crate::train::nn::losses;
use crate::train::nn::options::ForwardOptions;
use crate::train::recipe::{Contrast, Stage, Trained};
use crate::train::run::Run;
use crate::train::run::training::{Loss, Task};
use crate::weights::FloatModel;

/// Supervised SimCSE.
pub(super) struct ContrastTask {
    rows: Rows,
    store: TokenStore,
    examples: Vec<Triple>,
    temperature: f32,
    dimensions: Vec<usize>,
}

struct Triple {
    anchor: u32,
    positive: u32,
    negative: Option<u32>,
    group: u32,
    row: u32,
}

/// A text and what was said to follow from it (with the row that says so) or to contradict it.
#[derive(Default)]
struct Premise {
    text: usize,
    positives: Vec<(usize, usize)>,
    negatives: Vec<usize>,
}

impl ContrastTask {
    pub(super) fn new(
        run: &Run,
        index: usize,
        options: &Trained<Contrast>,
        rows: Rows,
        float: &FloatModel,
    ) -> Result<Self> {
        let stage = &run.recipe.stages[index];
        let store = run.store(float, stage.model(), Purpose::Training, all_texts(&rows))?;
        let examples = Groups::of(stage, &rows, &store)?.triples();
        if examples.is_empty() {
            return Err(Error::data_invalid(format!(
                "{}: stage {:?} finds no pair of texts that belong together",
                rows.place(0),
                stage.name
            )));
        }
        let Contrast { temperature, dimensions } = options.own.clone();
        Ok(ContrastTask { rows, store, examples, temperature, dimensions })
    }
}

/// Texts that belong together, each kind in the order in which they come; all by number, with the row that
/// says so.
#[derive(Default)]
struct Groups {
    premises: Vec<Premise>,
    sets: Vec<Vec<(usize, usize)>>,
}

impl Groups {
    fn of(stage: &Stage, rows: &Rows, store: &TokenStore) -> Result<Self> {
        let mut groups = Groups::default();
        // Rows that begin with the same text, and those of one set.
        let mut premise_of: HashMap<usize, usize> = HashMap::new();
        let mut place_of_set: HashMap<u64, usize> = HashMap::new();
        for (at, row) in rows.rows.iter().enumerate() {
            let text = |which: usize| store.index(&row.texts[which]);
            match row.target {
                Target::Entailment | Target::Neutral | Target::Contradiction | Target::Pair => {
                    let place = *premise_of.entry(text(0)).or_insert_with(|| {
                        groups.premises.push(Premise { text: text(0), ..Premise::default() });
                        groups.premises.len() - 1
                    });
                    let premise = &mut groups.premises[place];
                    match row.target {
                        Target::Entailment | Target::Pair => premise.positives.push((text(1), at)),
                        Target::Contradiction => premise.negatives.push(text(1)),
                        _ => {}
                    }
                }
                Target::Set(set) => {
                    let place = *place_of_set.entry(set).or_insert_with(|| {
                        groups.sets.push(Vec::new());
                        groups.sets.len() - 1
                    });
                    groups.sets[place].push((text(0), at));
                }
                _ => return Err(wrong_kind(stage, rows, at, "nli, sets or pairs")),
            }
        }
        Ok(groups)
    }

    fn triples(self) -> Vec<Triple> {
        let mut triples = Vec::new();
        let mut add = |anchor: usize, (positive, row): (usize, usize), negative, group: usize| {
            if positive != anchor {
                triples.push(Triple {
                    anchor: anchor as u32,
                    positive: positive as u32,
                    negative,
                    group: group as u32,
                    row: row as u32,
                });
            }
        };
        let first_set = self.premises.len();
        for (group, Premise { text, positives, negatives }) in self.premises.iter().enumerate() {
            for (which, &positive) in positives.iter().enumerate() {
                let negative =
                    (!negatives.is_empty()).then(|| negatives[which % negatives.len()] as u32);
                add(*text, positive, negative, group);
            }
        }
        for (group, set) in self.sets.iter().enumerate() {
            for (which, &(anchor, row)) in set.iter().enumerate() {
                let (positive, _) = set[(which + 1) % set.len()];
                add(anchor, (positive, row), None, first_set + group);
            }
        }
        triples
    }
}

impl Task for ContrastTask {
    fn lengths(&self) -> Vec<usize> {
        let length = |text: u32| self.store.ids(text as usize).len();
        self.examples.iter().map(|triple| length(triple.anchor) + length(triple.positive)).collect()
    }

    fn place(&self, index: usize) -> String {
        self.rows.place(self.examples[index].row as usize)
    }

    fn step(&self, model: &BertModel, batch: &[u32], options: &ForwardOptions) -> Result<Loss> {
        let triples: Vec<&Triple> =
            batch.iter().map(|&index| &self.examples[index as usize]).collect();
        let texts: Vec<u32> = (triples.iter().map(|triple| triple.anchor))
            .chain(triples.iter().map(|triple| triple.positive))
            .chain(triples.iter().filter_map(|triple| triple.negative))
            .collect();
        let ids: Vec<&[u32]> = texts.iter().map(|&text| self.store.ids(text as usize)).collect();
        let output = model.forward(&TokenBatch::new(&ids)?, options)?;
        let n = triples.len();
        let hard = texts.len() - 2 * n;
        let groups: Vec<u32> = triples.iter().map(|triple| triple.group).collect();
        let loss = losses::over_dimensions(&output.pooled, &self.dimensions, |pooled| {
            let negatives = if hard > 0 { Some(pooled.narrow(0, 2 * n, hard)?) } else { None };
            losses::supervised_simcse(
                &pooled.narrow(0, 0, n)?,
                &pooled.narrow(0, n, n)?,
                negatives.as_ref(),
                Some(&groups),
                self.temperature,
            )
        })?;
        Ok((loss, vec![output], texts.len()))
    }
}
