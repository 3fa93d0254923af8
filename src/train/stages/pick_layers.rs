//! Stage `pick_layers`: the student from layers of the teacher.

use super::units::{check_layers, left_out, units};
use crate::error::{Error, Result};
use crate::train::recipe::{PickLayers, Slot};
use crate::train::run::Run;
use crate::weights::FloatModel;

/// What stage `index` makes.
pub(super) fn run(run: &Run, index: usize, options: &PickLayers) -> Result<FloatModel> {
    let teacher = run.model_before(index, Slot::Teacher)?;
    let mut model = pick_layers(&teacher, &options.layers, options.intermediate_size)?;
    model.config.prefix = run.recipe.student.prefix.clone();
    Ok(model)
}

/// A model of some of the layers of `model`, with feed-forwards of `intermediate_size` if that is given:
/// a smaller one keeps the units of the largest weights, a larger one takes units of the layers above
/// that are left out, which on a residual stream is nearly their sum.
///
/// # Errors
/// `input_invalid` if the list is empty, not rising, or names a layer that is not there, or
/// if there are too few layers to take units from.
pub(in crate::train) fn pick_layers(
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
            return Err(Error::input_invalid(format!(
                "intermediate_size is {size}; layer {layer} and those left out beside it have {} units",
                units.len()
            )));
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
}
