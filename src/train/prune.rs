//! Changes of whole models between training stages: fewer layers, fewer pieces, no means.

use std::collections::HashSet;

use candle_core::Device;
use rayon::prelude::*;
use serde_json::{Value, json};

use super::model::{BertModel, FakeQuant, ForwardOptions, TokenBatch};
use super::ops::fake_quant;
use crate::error::{Error, ErrorKind, Result};
use crate::quant::EMBEDDING_MAX;
use crate::tokenizer::Tokenizer;
use crate::weights::{FloatModel, Layer, Linear, Matrix};

/// A model of some of the layers of `model`, with feed-forwards of `intermediate_size` if that is given:
/// a smaller one keeps the units of the largest weights, a larger one takes units of the layers above
/// that are left out, which on a residual stream is nearly their sum.
///
/// # Errors
/// [`ErrorKind::InputInvalid`] if the list is empty, not rising, or names a layer that is not there, or
/// if there are too few layers to take units from.
pub fn pick_layers(
    model: &FloatModel,
    layers: &[usize],
    intermediate_size: Option<usize>,
) -> Result<FloatModel> {
    check_layers(model, layers)?;
    let mut picked = model.clone();
    picked.layers = layers.iter().map(|&layer| model.layers[layer].clone()).collect();
    picked.config.num_hidden_layers = layers.len();
    let Some(size) = intermediate_size else { return Ok(picked) };
    for (place, &layer) in layers.iter().enumerate() {
        let sources = std::iter::once(layer).chain(left_out(model, layers, place));
        let units = units(model, sources, size);
        if units.len() < size {
            return Err(Error::new(
                ErrorKind::InputInvalid,
                format!(
                    "intermediate_size is {size}; layer {layer} and those left out beside it have {} units",
                    units.len()
                ),
            ));
        }
        let of = &mut picked.layers[place];
        let hidden = model.config.hidden_size;
        of.intermediate.weight.data.clear();
        of.intermediate.bias.clear();
        for &(source, at) in &units {
            let from = &model.layers[source].intermediate;
            of.intermediate.weight.data.extend_from_slice(from.weight.row(at));
            of.intermediate.bias.push(from.bias[at]);
        }
        of.intermediate.weight.rows = size;
        of.output.weight.data = (0..hidden)
            .flat_map(|row| {
                units
                    .iter()
                    .map(move |&(source, at)| model.layers[source].output.weight.row(row)[at])
            })
            .collect();
        of.output.weight.cols = size;
    }
    picked.config.intermediate_size = size;
    Ok(picked)
}

/// `student` with feed-forwards of `intermediate_size`: the new units are the strongest of the layers
/// of `teacher` that were left out beside `layers`, those from which the student's were picked. Their
/// output weights begin at zero, so that the model's vectors are those of before
/// (as in Net2Net, <https://arxiv.org/abs/1511.05641>, widening keeps the function).
///
/// # Errors
/// [`ErrorKind::InputInvalid`] if `layers` are not rising layers of the teacher, one for each of the
/// student's, if hidden sizes differ, if the feed-forwards are as wide already, or if there are too few
/// layers to take units from.
pub fn widen(
    student: &FloatModel,
    teacher: &FloatModel,
    layers: &[usize],
    intermediate_size: usize,
) -> Result<FloatModel> {
    check_layers(teacher, layers)?;
    let wrong = |what: String| Err(Error::new(ErrorKind::InputInvalid, what));
    let (hidden, was) = (student.config.hidden_size, student.config.intermediate_size);
    if layers.len() != student.layers.len() || hidden != teacher.config.hidden_size {
        return wrong(format!(
            "layers are {layers:?} of a teacher with hidden size {}; the student has {} layers of hidden size {hidden}",
            teacher.config.hidden_size,
            student.layers.len(),
        ));
    }
    if intermediate_size <= was {
        return wrong(format!(
            "intermediate_size is {intermediate_size}; the student's is {was} already"
        ));
    }
    let mut wide = student.clone();
    for (place, of) in wide.layers.iter_mut().enumerate() {
        let added = intermediate_size - was;
        let units = units(teacher, left_out(teacher, layers, place), added);
        if units.len() < added {
            return wrong(format!(
                "intermediate_size is {intermediate_size}, {added} more than the student's; the layers left \
                 out beside layer {} have {} units",
                layers[place],
                units.len()
            ));
        }
        for &(source, at) in &units {
            let from = &teacher.layers[source].intermediate;
            of.intermediate.weight.data.extend_from_slice(from.weight.row(at));
            of.intermediate.bias.push(from.bias[at]);
        }
        of.intermediate.weight.rows = intermediate_size;
        let output = &mut of.output.weight;
        let mut data = Vec::with_capacity(output.rows * intermediate_size);
        for row in 0..output.rows {
            data.extend_from_slice(output.row(row));
            data.resize((row + 1) * intermediate_size, 0.0);
        }
        output.data = data;
        output.cols = intermediate_size;
    }
    wide.config.intermediate_size = intermediate_size;
    Ok(wide)
}

fn check_layers(model: &FloatModel, layers: &[usize]) -> Result<()> {
    let rising = layers.windows(2).all(|pair| pair[0] < pair[1]);
    if layers.is_empty() || !rising || layers.iter().any(|&layer| layer >= model.layers.len()) {
        return Err(Error::new(
            ErrorKind::InputInvalid,
            format!("layers are {layers:?}; expected rising numbers below {}", model.layers.len()),
        ));
    }
    Ok(())
}

/// The layers of `model` that were left out beside the kept one at `place` of `layers`: those up to the
/// next that is kept, then those down to the one before.
fn left_out(
    model: &FloatModel,
    layers: &[usize],
    place: usize,
) -> impl Iterator<Item = usize> + use<> {
    let layer = layers[place];
    let end = layers.get(place + 1).copied().unwrap_or(model.layers.len());
    let begin = layers[..place].last().map_or(0, |&before| before + 1);
    (layer + 1..end).chain((begin..layer).rev())
}

/// The strongest `most` units of the feed-forwards of the layers `sources`, earlier layers first, as
/// layer and unit; fewer if they have fewer.
fn units(
    model: &FloatModel,
    sources: impl Iterator<Item = usize>,
    most: usize,
) -> Vec<(usize, usize)> {
    let mut units: Vec<(usize, usize)> = Vec::new();
    for source in sources {
        let found = strongest(&model.layers[source], most - units.len());
        units.extend(found.map(|at| (source, at)));
    }
    units
}

/// The units of a feed-forward with the largest product of the lengths of their weights, at most `most`,
/// in their own order.
fn strongest(layer: &Layer, most: usize) -> impl Iterator<Item = usize> {
    let length = |values: &mut dyn Iterator<Item = f32>| {
        values.map(|x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt()
    };
    let output = &layer.output.weight;
    let strength: Vec<f64> = (0..layer.intermediate.weight.rows)
        .map(|at| {
            length(&mut layer.intermediate.weight.row(at).iter().copied())
                * length(&mut (0..output.rows).map(|row| output.row(row)[at]))
        })
        .collect();
    let mut order: Vec<usize> = (0..strength.len()).collect();
    order.sort_by(|&a, &b| strength[b].total_cmp(&strength[a]));
    order.truncate(most);
    order.sort_unstable();
    order.into_iter()
}

/// Rounds the weights as quantization-aware training sees them, which the exporter then finds
/// without an error.
pub fn round_weights(model: &mut FloatModel, quantize: FakeQuant) {
    let round = |matrix: &mut Matrix, limit: i8| {
        fake_quant::symmetric(&mut matrix.data, matrix.cols, limit);
    };
    if quantize.embeddings {
        for matrix in [&mut model.word_embeddings, &mut model.position_embeddings] {
            round(matrix, EMBEDDING_MAX);
        }
    }
    for layer in &mut model.layers {
        let attention = [&mut layer.query, &mut layer.key, &mut layer.value];
        let others = [&mut layer.attention_output, &mut layer.intermediate, &mut layer.output];
        for linear in attention.into_iter().chain(others) {
            round(&mut linear.weight, quantize.weight_max);
        }
    }
}

/// Moves the mean of the sentence vectors of `sentences` (token ids) to zero, by the bias of the
/// last layer normalization: every token state moves by the same vector, and so does every pooled
/// one. Returns the length of the mean and the root mean square length of the vectors before.
///
/// # Errors
/// When a forward pass fails.
pub fn center(
    model: &mut FloatModel,
    bert: &BertModel,
    sentences: &[&[u32]],
) -> Result<(f64, f64)> {
    const BATCH: usize = 64;
    let hidden = model.config.hidden_size;
    let mut mean = vec![0.0f64; hidden];
    let mut squares = 0.0f64;
    for chunk in sentences.chunks(BATCH) {
        let output = bert.forward(&TokenBatch::new(chunk)?, &ForwardOptions::default())?;
        for row in output.pooled.to_vec2::<f32>()? {
            mean.iter_mut().zip(&row).for_each(|(mean, &x)| *mean += f64::from(x));
            squares += row.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>();
        }
    }
    let n = sentences.len().max(1) as f64;
    mean.iter_mut().for_each(|mean| *mean /= n);
    let bias = match model.layers.last_mut() {
        Some(layer) => &mut layer.output_norm.bias,
        None => &mut model.embedding_norm.bias,
    };
    bias.iter_mut().zip(&mean).for_each(|(bias, mean)| *bias -= *mean as f32);
    Ok((mean.iter().map(|x| x * x).sum::<f64>().sqrt(), (squares / n).sqrt()))
}

/// Takes a constant vector from the states before every layer and gives it back in the biases that
/// read them: the same function in real numbers. The vector is each channel's mean over the tokens of
/// `sentences`; the last layer's states, which are pooled, stay as they are.
///
/// A layer that is then put on another one than it was trained on ([`pick_layers`]) finds the mean
/// that it expects. And a channel that lies far from zero on every token no longer widens the 7-bit
/// step of a row.
///
/// With x' = x − c, `W x + b` = `W x' + (b + W c)`, and the residual `x + f(x)` is `x' + (f(x) + c)`.
///
/// Returns the largest constant of any channel.
///
/// # Errors
/// When a forward pass fails.
pub fn shift_states(model: &mut FloatModel, sentences: &[&[u32]]) -> Result<f32> {
    const BATCH: usize = 64;
    let bert = BertModel::from_float_model(model, &Device::Cpu)?;
    let hidden = model.config.hidden_size;
    let mut sums = vec![vec![0.0f64; hidden]; 2 * model.layers.len()];
    let mut tokens = 0usize;
    for chunk in sentences.chunks(BATCH) {
        let batch = TokenBatch::new(chunk)?;
        tokens += batch.num_tokens();
        bert.observe_norms(&batch, &mut |norm, states| {
            let Some(sums) = sums.get_mut(norm) else { return };
            for row in states.chunks_exact(hidden) {
                sums.iter_mut().zip(row).for_each(|(sum, &x)| *sum += f64::from(x));
            }
        })?;
    }
    let shifts: Vec<Vec<f64>> = sums
        .iter()
        .map(|sums| sums.iter().map(|sum| sum / tokens.max(1) as f64).collect())
        .collect();

    let add = |bias: &mut [f32], by: &[f64], sign: f64| {
        for (bias, by) in bias.iter_mut().zip(by) {
            *bias = (f64::from(*bias) + sign * by) as f32;
        }
    };
    let read_shifted = |linear: &mut Linear, shift: &[f64]| {
        for (row, bias) in linear.bias.iter_mut().enumerate() {
            let product: f64 =
                linear.weight.row(row).iter().zip(shift).map(|(&w, c)| f64::from(w) * c).sum();
            *bias = (f64::from(*bias) + product) as f32;
        }
    };
    for (index, shift) in shifts.iter().enumerate() {
        let layer = index / 2;
        let norm = match index {
            0 => &mut model.embedding_norm,
            _ if index % 2 == 1 => &mut model.layers[layer].attention_norm,
            _ => &mut model.layers[layer - 1].output_norm,
        };
        add(&mut norm.bias, shift, -1.0);
        let layer = &mut model.layers[layer];
        if index % 2 == 0 {
            for linear in [&mut layer.query, &mut layer.key, &mut layer.value] {
                read_shifted(linear, shift);
            }
            add(&mut layer.attention_output.bias, shift, 1.0);
        } else {
            read_shifted(&mut layer.intermediate, shift);
            add(&mut layer.output.bias, shift, 1.0);
        }
    }
    Ok(shifts.iter().flatten().fold(0.0, |most: f64, shift| most.max(shift.abs())) as f32)
}

/// Keeps `size` pieces of the vocabulary: special ones, single characters, and of the rest those
/// that `texts` use most. Tokenizer and embedding rows are renumbered.
///
/// # Errors
/// [`ErrorKind::TokenizerInvalid`] for tokenizers other than Unigram and WordPiece (a BPE piece
/// cannot go without the merges that lead through it).
pub fn prune_vocabulary<'a>(
    model: &FloatModel,
    prefixes: &[&str],
    texts: impl IntoIterator<Item = &'a str>,
    size: usize,
) -> Result<FloatModel> {
    let invalid = |what: &str| {
        Error::new(ErrorKind::TokenizerInvalid, format!("cannot prune the vocabulary: {what}"))
    };
    let mut json: Value = serde_json::from_slice(&model.tokenizer_json)
        .map_err(|source| invalid("tokenizer.json is not JSON").with_source(source))?;
    let pieces =
        pieces(&json).ok_or_else(|| invalid("expected a Unigram or WordPiece tokenizer"))?;
    let tokenizer =
        Tokenizer::from_bytes(&model.tokenizer_json, "", model.config.max_position_embeddings)?;
    let texts: Vec<&str> = texts.into_iter().collect();
    let empty = || vec![0u64; model.config.vocab_size];
    let uses = texts
        .par_chunks(4096)
        .map(|texts| {
            let mut uses = empty();
            for text in texts {
                for id in tokenizer.encode(text)?.ids {
                    uses[id as usize] += 1;
                }
            }
            Ok::<_, Error>(uses)
        })
        .try_reduce(empty, |mut all, uses| {
            all.iter_mut().zip(uses).for_each(|(all, uses)| *all += uses);
            Ok(all)
        })?;
    let mut keep: HashSet<u32> = HashSet::new();
    for prefix in prefixes {
        keep.extend(tokenizer.encode(prefix)?.ids);
    }
    keep.extend(tokenizer.encode("")?.ids);
    let added = json["added_tokens"].as_array().into_iter().flatten();
    keep.extend(added.filter_map(|token| token["id"].as_u64()).map(|id| id as u32));
    keep.extend(json["model"]["unk_id"].as_u64().map(|id| id as u32));
    if let Some(unknown) = json["model"]["unk_token"].as_str() {
        keep.extend(pieces.iter().filter(|(_, piece)| piece == unknown).map(|(id, _)| *id));
    }
    // Any character that could be written before can be written still.
    let single = |piece: &str| {
        let bare = piece.trim_start_matches("##").trim_start_matches('▁');
        bare.chars().count() <= 1
    };
    keep.extend(pieces.iter().filter(|(_, piece)| single(piece)).map(|(id, _)| *id));
    let mut others: Vec<u32> =
        pieces.iter().map(|(id, _)| *id).filter(|id| !keep.contains(id)).collect();
    others.sort_by_key(|&id| (std::cmp::Reverse(uses[id as usize]), id));
    let room = size.saturating_sub(keep.len());
    keep.extend(others.into_iter().take(room));
    let mut kept: Vec<u32> = keep.into_iter().collect();
    kept.sort_unstable();

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

    let hidden = model.config.hidden_size;
    let mut data = Vec::with_capacity(kept.len() * hidden);
    for &id in &kept {
        data.extend_from_slice(model.word_embeddings.row(id as usize));
    }
    let mut pruned = model.clone();
    pruned.word_embeddings = Matrix { rows: kept.len(), cols: hidden, data };
    pruned.config.vocab_size = kept.len();
    pruned.tokenizer_json = serde_json::to_vec(&json).expect("JSON becomes text");
    Tokenizer::from_bytes(&pruned.tokenizer_json, "", pruned.config.max_position_embeddings)?
        .check_vocab_size(kept.len())?;
    Ok(pruned)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::convert::{ConvertOptions, read_checkpoint};

    #[test]
    fn feed_forwards_are_narrowed_and_widened() {
        let small = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/small/bert");
        let model = read_checkpoint(small.as_ref(), &ConvertOptions::default()).unwrap();
        let size = model.config.intermediate_size;
        let pick = |layers: &[usize], size| pick_layers(&model, layers, size);
        assert!(pick(&[0, 2], Some(size)).unwrap() == pick(&[0, 2], None).unwrap());

        let half = pick(&[1], Some(size / 2)).unwrap();
        assert_eq!(half.config.intermediate_size, size / 2);
        let (layer, from) = (&half.layers[0], &model.layers[1]);
        assert_eq!(
            (layer.intermediate.weight.rows, layer.output.weight.cols),
            (size / 2, size / 2)
        );
        // Every unit is one of those that were there, with its own bias and output weights.
        for at in 0..size / 2 {
            let row = layer.intermediate.weight.row(at);
            let was = (0..size).find(|&was| from.intermediate.weight.row(was) == row).unwrap();
            assert_eq!(layer.intermediate.bias[at], from.intermediate.bias[was]);
            for out in 0..model.config.hidden_size {
                assert_eq!(layer.output.weight.row(out)[at], from.output.weight.row(out)[was]);
            }
        }

        // Layer 0 takes units of layer 1, the last one those below it that were left out.
        for (layers, place, other) in [([0, 2], 0, 1), ([0, 2], 1, 1)] {
            let wide = pick(&layers, Some(size + 3)).unwrap();
            let weight = &wide.layers[place].intermediate.weight;
            assert_eq!(weight.rows, size + 3);
            assert_eq!(
                weight.row(size - 1),
                model.layers[layers[place]].intermediate.weight.row(size - 1)
            );
            let lent = &model.layers[other].intermediate.weight;
            assert!((0..size).any(|was| lent.row(was) == weight.row(size + 2)));
        }
        let error = pick(&[0, 1, 2], Some(size + 1)).unwrap_err().to_string();
        assert!(error.contains("intermediate_size"), "{error}");
    }

    #[test]
    fn widening_keeps_the_vectors() {
        let small = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/small/bert");
        let teacher = read_checkpoint(small.as_ref(), &ConvertOptions::default()).unwrap();
        let size = teacher.config.intermediate_size;
        let student = pick_layers(&teacher, &[0, 2], None).unwrap();
        let wide = widen(&student, &teacher, &[0, 2], size + 3).unwrap();
        for (place, layer) in wide.layers.iter().enumerate() {
            let of = &student.layers[place];
            assert_eq!(
                (layer.intermediate.bias.len(), layer.output.weight.cols),
                (size + 3, size + 3)
            );
            assert_eq!(layer.intermediate.weight.row(5), of.intermediate.weight.row(5));
            let lent = &teacher.layers[1].intermediate;
            let was = (0..size)
                .find(|&was| lent.weight.row(was) == layer.intermediate.weight.row(size + 2));
            assert_eq!(layer.intermediate.bias[size + 2], lent.bias[was.unwrap()]);
        }
        let batch = TokenBatch::new(&[vec![2u32, 9, 7, 3], vec![2, 3]]).unwrap();
        let vectors = |model: &FloatModel| {
            let bert = BertModel::from_float_model(model, &Device::Cpu).unwrap();
            let output = bert.forward(&batch, &ForwardOptions::default()).unwrap();
            output.pooled.flatten_all().unwrap().to_vec1::<f32>().unwrap()
        };
        for (a, b) in vectors(&wide).iter().zip(vectors(&student)) {
            assert!((a - b).abs() < 1e-5, "{a} {b}");
        }
        for (layers, size, message) in [
            (&[0, 2][..], size, "already"),
            (&[0, 1, 2], size + 1, "the student has 2 layers"),
            (&[0, 1], 3 * size, "left out beside layer 0 have 0 units"),
            (&[0, 3], size + 1, "rising numbers below 3"),
        ] {
            let error = widen(&student, &teacher, layers, size).unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
        }
    }
}
