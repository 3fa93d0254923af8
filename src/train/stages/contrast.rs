//! Supervised SimCSE on triples, paraphrase sets and pairs.

use std::collections::HashMap;

use candle_core::Tensor;

use super::{Purpose, Run, Task, all_texts, wrong_kind};
use crate::error::{Error, ErrorKind, Result};
use crate::train::data::{Rows, Target, TokenStore};
use crate::train::losses;
use crate::train::model::{BertModel, ForwardOptions, ForwardOutput, TokenBatch};
use crate::train::recipe::Stage;
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
    pub(super) fn new(run: &Run, stage: &Stage, rows: Rows, float: &FloatModel) -> Result<Self> {
        let store = run.store(float, stage.model, Purpose::Training, all_texts(&rows))?;
        let mut examples = Vec::new();
        // Rows that begin with the same text, in the order in which they come.
        let mut premises: HashMap<usize, usize> = HashMap::new();
        let mut groups: Vec<Premise> = Vec::new();
        let mut sets: HashMap<u64, usize> = HashMap::new();
        let mut members: Vec<Vec<(usize, usize)>> = Vec::new();
        for (at, row) in rows.rows.iter().enumerate() {
            let text = |which: usize| store.index(&row.texts[which]);
            match row.target {
                Target::Entailment | Target::Neutral | Target::Contradiction | Target::Pair => {
                    let group = *premises.entry(text(0)).or_insert_with(|| {
                        groups.push(Premise { text: text(0), ..Premise::default() });
                        groups.len() - 1
                    });
                    match row.target {
                        Target::Entailment | Target::Pair => {
                            groups[group].positives.push((text(1), at))
                        }
                        Target::Contradiction => groups[group].negatives.push(text(1)),
                        _ => {}
                    }
                }
                Target::Set(set) => {
                    let place = *sets.entry(set).or_insert_with(|| {
                        members.push(Vec::new());
                        members.len() - 1
                    });
                    members[place].push((text(0), at));
                }
                _ => return Err(wrong_kind(stage, &rows, at, "nli, sets or pairs")),
            }
        }
        let mut number = 0;
        for Premise { text: anchor, positives, negatives } in groups {
            for (which, &(positive, row)) in positives.iter().enumerate() {
                if positive == anchor {
                    continue;
                }
                let negative =
                    (!negatives.is_empty()).then(|| negatives[which % negatives.len()] as u32);
                examples.push(Triple {
                    anchor: anchor as u32,
                    positive: positive as u32,
                    negative,
                    group: number,
                    row: row as u32,
                });
            }
            number += 1;
        }
        for set in members {
            for (which, &(anchor, row)) in set.iter().enumerate() {
                let (positive, _) = set[(which + 1) % set.len()];
                if positive != anchor {
                    examples.push(Triple {
                        anchor: anchor as u32,
                        positive: positive as u32,
                        negative: None,
                        group: number,
                        row: row as u32,
                    });
                }
            }
            number += 1;
        }
        if examples.is_empty() {
            return Err(Error::new(
                ErrorKind::DataInvalid,
                format!(
                    "{}: stage {:?} finds no pair of texts that belong together",
                    rows.place(0),
                    stage.name
                ),
            ));
        }
        let (temperature, dimensions) = (stage.temperature, stage.dimensions.clone());
        Ok(ContrastTask { rows, store, examples, temperature, dimensions })
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

    fn step(
        &self,
        model: &BertModel,
        batch: &[u32],
        options: &ForwardOptions,
    ) -> Result<(Tensor, Vec<ForwardOutput>, usize)> {
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
