//! Stage `widen`: more units in the student's feed-forwards, with the same vectors.

use super::units::{check_layers, left_out, units};
use crate::error::{Error, Result};
use crate::train::recipe::{Slot, Widen};
use crate::train::run::Run;
use crate::weights::FloatModel;

/// What stage `index` makes.
pub(super) fn run(run: &Run, index: usize, options: &Widen) -> Result<FloatModel> {
    let teacher = run.model_before(index, Slot::Teacher)?;
    let student = run.model_before(index, Slot::Student)?;
    let size = options.intermediate_size.expect("checked with the recipe");
    widen(&student, &teacher, &options.layers, size)
}

/// `student` with feed-forwards of `intermediate_size`: the new units are the strongest of the layers
/// of `teacher` that were left out beside `layers`, those from which the student's were picked. Their
/// output weights begin at zero, so that the model's vectors are those of before
/// (as in Net2Net, <https://arxiv.org/abs/1511.05641>, widening keeps the function).
///
/// # Errors
/// `input_invalid` if `layers` are not rising layers of the teacher, one for each of the
/// student's, if hidden sizes differ, if the feed-forwards are as wide already, or if there are too few
/// layers to take units from.
pub(in crate::train) fn widen(
    student: &FloatModel,
    teacher: &FloatModel,
    layers: &[usize],
    intermediate_size: usize,
) -> Result<FloatModel> {
    check_layers(teacher, layers)?;
    let wrong = |what: String| Err(Error::input_invalid(what));
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

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::super::pick_layers::pick_layers;
    use super::*;
    use crate::convert::{ConvertOptions, read_checkpoint};
    use crate::train::nn::batch::TokenBatch;
    use crate::train::nn::bert::BertModel;
    use crate::train::nn::options::ForwardOptions;

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
