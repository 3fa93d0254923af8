//! Units of feed-forwards, for students that are made of a teacher's layers.

use crate::error::{Error, Result};
use crate::weights::{FloatModel, Layer};

/// Whether `layers` are rising numbers of layers of `model`.
pub(super) fn check_layers(model: &FloatModel, layers: &[usize]) -> Result<()> {
    let rising = layers.windows(2).all(|pair| pair[0] < pair[1]);
    if layers.is_empty() || !rising || layers.iter().any(|&layer| layer >= model.layers.len()) {
        return Err(Error::input_invalid(format!(
            "layers are {layers:?}; expected rising numbers below {}",
            model.layers.len()
        )));
    }
    Ok(())
}

/// The layers of `model` that were left out beside the kept one at `place` of `layers`: those up to the
/// next that is kept, then those down to the one before.
pub(super) fn left_out(
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
pub(super) fn units(
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
pub(super) fn strongest(layer: &Layer, most: usize) -> impl Iterator<Item = usize> {
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
