//! Stage `prune_vocabulary`: the pieces that the data use.

use std::collections::HashSet;

use rayon::prelude::*;
use serde_json::{Value, json};

use super::sample::all_texts;
use crate::error::{Error, Result};
use crate::tokenizer::Tokenizer;
use crate::train::recipe::PruneVocabulary;
use crate::train::run::Run;
use crate::weights::{FloatModel, Matrix};

/// What stage `index` makes.
pub(super) fn run(run: &Run, index: usize, options: &PruneVocabulary) -> Result<FloatModel> {
    let stage = &run.recipe.stages[index];
    let model = run.model_before(index, options.model)?;
    let rows = run.rows(stage)?;
    let prefixes = [&*run.recipe.teacher.prefix, &*run.recipe.student.prefix];
    let pruned = prune_vocabulary(&model, &prefixes, all_texts(&rows), options.vocabulary)?;
    eprintln!(
        "{}: {} of {} pieces kept",
        stage.name, pruned.config.vocab_size, model.config.vocab_size
    );
    Ok(pruned)
}

/// Keeps `size` pieces of the vocabulary: special ones, single characters, and of the rest those
/// that `texts` use most. Tokenizer and embedding rows are renumbered.
///
/// # Errors
/// `tokenizer_invalid` for tokenizers other than Unigram and WordPiece (a BPE piece cannot go without
/// the merges that lead through it).
pub fn prune_vocabulary<'a>(
    model: &FloatModel,
    prefixes: &[&str],
    texts: impl IntoIterator<Item = &'a str>,
    size: usize,
) -> Result<FloatModel> {
    let mut json: Value = serde_json::from_slice(&model.tokenizer_json)
        .map_err(|source| invalid("tokenizer.json is not JSON").with_source(source))?;
    let pieces =
        pieces(&json).ok_or_else(|| invalid("expected a Unigram or WordPiece tokenizer"))?;
    let most = model.config.max_position_embeddings;
    let tokenizer = Tokenizer::from_bytes(&model.tokenizer_json, "", most)?;
    let texts: Vec<&str> = texts.into_iter().collect();
    let uses = count_uses(&tokenizer, &texts, model.config.vocab_size)?;
    let mut keep = needed(&json, &pieces);
    for text in prefixes.iter().chain(&[""]) {
        keep.extend(tokenizer.encode(text)?.ids);
    }
    let mut others: Vec<u32> =
        pieces.iter().map(|(id, _)| *id).filter(|id| !keep.contains(id)).collect();
    others.sort_by_key(|&id| (std::cmp::Reverse(uses[id as usize]), id));
    let room = size.saturating_sub(keep.len());
    keep.extend(others.into_iter().take(room));
    let mut kept: Vec<u32> = keep.into_iter().collect();
    kept.sort_unstable();
    renumber(&mut json, &kept)?;

    let hidden = model.config.hidden_size;
    let mut data = Vec::with_capacity(kept.len() * hidden);
    for &id in &kept {
        data.extend_from_slice(model.word_embeddings.row(id as usize));
    }
    let mut pruned = model.clone();
    pruned.word_embeddings = Matrix { rows: kept.len(), cols: hidden, data };
    pruned.config.vocab_size = kept.len();
    pruned.tokenizer_json = serde_json::to_vec(&json).expect("JSON becomes text");
    Tokenizer::from_bytes(&pruned.tokenizer_json, "", most)?.check_vocab_size(kept.len())?;
    Ok(pruned)
}

fn invalid(what: &str) -> Error {
    Error::tokenizer_invalid(format!("cannot prune the vocabulary: {what}"))
}

/// How often each piece is used.
fn count_uses(tokenizer: &Tokenizer, texts: &[&str], vocab_size: usize) -> Result<Vec<u64>> {
    let none = || vec![0u64; vocab_size];
    texts
        .par_chunks(4096)
        .map(|texts| {
            let mut uses = none();
            for text in texts {
                for id in tokenizer.encode(text)?.ids {
                    uses[id as usize] += 1;
                }
            }
            Ok::<_, Error>(uses)
        })
        .try_reduce(none, |mut all, uses| {
            all.iter_mut().zip(uses).for_each(|(all, uses)| *all += uses);
            Ok(all)
        })
}

/// Pieces that stay whether they are used or not: special ones, and single characters, so that any
/// character that could be written before can be written still.
fn needed(json: &Value, pieces: &[(u32, String)]) -> HashSet<u32> {
    let mut keep: HashSet<u32> = HashSet::new();
    let added = json["added_tokens"].as_array().into_iter().flatten();
    keep.extend(added.filter_map(|token| token["id"].as_u64()).map(|id| id as u32));
    keep.extend(json["model"]["unk_id"].as_u64().map(|id| id as u32));
    if let Some(unknown) = json["model"]["unk_token"].as_str() {
        keep.extend(pieces.iter().filter(|(_, piece)| piece == unknown).map(|(id, _)| *id));
    }
    let single = |piece: &str| {
        let bare = piece.trim_start_matches("##").trim_start_matches('▁');
        bare.chars().count() <= 1
    };
    keep.extend(pieces.iter().filter(|(_, piece)| single(piece)).map(|(id, _)| *id));
    keep
}

/// Takes all pieces but `kept` (rising) out of a `tokenizer.json`; the others get their places as ids.
fn renumber(json: &mut Value, kept: &[u32]) -> Result<()> {
    let new_of = |old: u64| kept.binary_search(&(old as u32)).ok();
    match &mut json["model"]["vocab"] {
        Value::Array(vocab) => {
            let mut id = 0u64;
            vocab.retain(|_| {
                id += 1;
                new_of(id - 1).is_some()
            });
        }
        Value::Object(vocab) => {
            vocab.retain(|_, id| id.as_u64().is_some_and(|id| new_of(id).is_some()));
            for id in vocab.values_mut() {
                *id = json!(id.as_u64().and_then(new_of));
            }
        }
        _ => return Err(invalid("model.vocab is neither a list nor a map")),
    }
    if let Some(id) = json["model"]["unk_id"].as_u64() {
        json["model"]["unk_id"] = json!(new_of(id));
    }
    for token in json["added_tokens"].as_array_mut().into_iter().flatten() {
        if let Some(id) = token["id"].as_u64() {
            token["id"] = json!(new_of(id));
        }
    }
    renumber_post_processor(&mut json["post_processor"], &new_of);
    Ok(())
}

/// Ids and spellings.
fn pieces(json: &Value) -> Option<Vec<(u32, String)>> {
    match (&json["model"]["vocab"], json["model"]["merges"].is_array()) {
        (Value::Array(vocab), _) => vocab
            .iter()
            .enumerate()
            .map(|(id, entry)| Some((id as u32, entry.get(0)?.as_str()?.to_owned())))
            .collect(),
        (Value::Object(vocab), false) => {
            vocab.iter().map(|(piece, id)| Some((id.as_u64()? as u32, piece.clone()))).collect()
        }
        _ => None,
    }
}

fn renumber_post_processor(value: &mut Value, new_of: &impl Fn(u64) -> Option<usize>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                match (key.as_str(), &mut *value) {
                    // TemplateProcessing
                    ("ids", Value::Array(ids)) => {
                        for id in ids {
                            *id = json!(id.as_u64().and_then(new_of));
                        }
                    }
                    // BertProcessing, RobertaProcessing: ["[SEP]", 3]
                    ("sep" | "cls", Value::Array(pair)) if pair.len() == 2 => {
                        pair[1] = json!(pair[1].as_u64().and_then(new_of));
                    }
                    _ => renumber_post_processor(value, new_of),
                }
            }
        }
        Value::Array(list) => {
            list.iter_mut().for_each(|value| renumber_post_processor(value, new_of));
        }
        _ => {}
    }
}
