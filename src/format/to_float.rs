//! The inverse of writing: a model file's weights in 32-bit floats.

use super::{ModelFile, Norm, QuantizedTable, padded_channel};
use crate::kernels::{PackedMatrix, pack, padded};
use crate::weights::{Additions, FloatModel, LayerNorm, Linear, Matrix};

impl ModelFile {
    /// The model in 32-bit floats, as its rounded weights have it: [`write`](super::write) makes the same weights
    /// of it. `tokenizer_json` is the `tokenizer.json` that the file's tokenizer was made from.
    pub(crate) fn to_float(&self, tokenizer_json: Vec<u8>) -> FloatModel {
        let config = &self.config;
        let (hidden, intermediate) = (config.hidden_size, config.intermediate_size);
        let size = config.head_size();
        let linear =
            |from: &PackedMatrix, rows: &mut dyn Iterator<Item = usize>, cols: Vec<usize>| {
                let (mut data, mut bias) = (Vec::new(), Vec::new());
                for row in rows {
                    let weight = |&col: &usize| from.weights()[pack::offset(row, col, from.cols())];
                    data.extend(cols.iter().map(|col| f32::from(weight(col)) * from.scales()[row]));
                    bias.push(from.bias()[row]);
                }
                Linear { weight: Matrix { rows: bias.len(), cols: cols.len(), data }, bias }
            };
        let width = config.embedding_width();
        let norm_of = |place: &Norm, len: usize| {
            let (weight, bias) = self.norm(place);
            LayerNorm { weight: weight[..len].to_vec(), bias: bias[..len].to_vec() }
        };
        let norm = |place: &Norm| norm_of(place, hidden);
        let float_dense = |dense: &super::Dense| {
            let (weight, bias) = self.dense(dense);
            let (rows, cols) = (bias.len(), weight.len() / bias.len());
            Linear { weight: Matrix { rows, cols, data: weight.to_vec() }, bias: bias.to_vec() }
        };
        let table = |table: &QuantizedTable, rows: usize| {
            let mut data = Vec::with_capacity(rows * width);
            for row in 0..rows {
                let (values, scale) = self.row(table, row).expect("checked when it was parsed");
                data.extend(values[..width].iter().map(|&value| f32::from(value) * scale));
            }
            Matrix { rows, cols: width, data }
        };
        let of_heads: Vec<usize> = (0..hidden).map(|i| padded_channel(i, size)).collect();
        let inputs: Vec<usize> = (0..hidden).collect();
        let heads = config.num_attention_heads * padded(size);
        let layers = self.layers.iter().map(|layer| {
            let part = |n: usize| {
                let mut rows = of_heads.iter().map(|&row| n * heads + row);
                linear(&layer.query_key_value, &mut rows, inputs.clone())
            };
            crate::weights::Layer {
                query: part(0),
                key: part(1),
                value: part(2),
                attention_output: linear(
                    &layer.attention_output,
                    &mut (0..hidden),
                    of_heads.clone(),
                ),
                attention_norm: norm(&layer.attention_norm),
                intermediate: linear(&layer.intermediate, &mut (0..intermediate), inputs.clone()),
                output: linear(&layer.output, &mut (0..hidden), (0..intermediate).collect()),
                output_norm: norm(&layer.output_norm),
            }
        });
        FloatModel {
            config: config.clone(),
            tokenizer_json,
            word_embeddings: table(&self.word_embeddings, config.vocab_size),
            position_embeddings: table(&self.position_embeddings, config.max_position_embeddings),
            embedding_norm: norm_of(&self.embedding_norm, width),
            layers: layers.collect(),
            additions: Additions {
                padding_position: self.padding_position.as_ref().map(|row| table(row, 1).data),
                embedding_projection: self
                    .embedding_projection
                    .as_ref()
                    .map(|matrix| linear(matrix, &mut (0..hidden), (0..width).collect())),
                dense: self.dense.iter().map(float_dense).collect(),
            },
        }
    }
}
