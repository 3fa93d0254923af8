//! Stage `center`: the mean sentence vector moved to zero.

use super::sample::sample;
use crate::error::Result;
use crate::train::nn::batch::TokenBatch;
use crate::train::nn::bert::BertModel;
use crate::train::nn::options::ForwardOptions;
use crate::train::run::Run;
use crate::weights::FloatModel;

/// What stage `index` makes.
pub(super) fn run(run: &Run, index: usize) -> Result<FloatModel> {
    let stage = &run.recipe.stages[index];
    let mut model = run.model_before(index, stage.model())?;
    let store = sample(run, stage, &model)?;
    let sentences: Vec<&[u32]> = (0..store.len()).map(|index| store.ids(index)).collect();
    let bert = BertModel::from_float_model(&model, &run.device)?;
    let (mean, length) = center(&mut model, &bert, &sentences)?;
    eprintln!(
        "{}: the mean vector of {} sentences, length {mean:.3} of {length:.3}, moved to zero",
        stage.name,
        sentences.len()
    );
    Ok(model)
}

/// Moves the mean of the sentence vectors of `sentences` (token ids) to zero, by the bias of the
/// last layer normalization: every token state moves by the same vector, and so does every pooled
/// one. Returns the length of the mean and the root mean square length of the vectors before.
///
/// # Errors
/// When a forward pass fails.
fn center(model: &mut FloatModel, bert: &BertModel, sentences: &[&[u32]]) -> Result<(f64, f64)> {
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
