//! Whether what sizes were rounded up with is zeros.

use super::header::malformed;
use super::{ModelFile, Norm, QuantizedTable};
use crate::error::{Error, Result};
use crate::kernels::{PackedMatrix, pack, padded};

/// Checks all padding of a file whose shapes are right.
pub(super) fn check(file: &ModelFile) -> Result<()> {
    let config = &file.config;
    let (hidden, head) = (config.hidden_size, config.head_size());
    let sizes = [hidden, config.intermediate_size, head];
    if sizes.iter().all(|&size| padded(size) == size) {
        return Ok(());
    }
    let of_hidden = |i: usize| i < hidden;
    let of_heads = |i: usize| i % padded(head) < head;
    let of_intermediate = |i: usize| i < config.intermediate_size;
    for (n, layer) in file.layers.iter().enumerate() {
        let name = |part: &str| format!("layers.{n}.{part}");
        let part = name("query_key_value");
        matrix(&part, &layer.query_key_value, &of_heads, &of_hidden)?;
        let part = name("attention_output");
        matrix(&part, &layer.attention_output, &of_hidden, &of_heads)?;
        matrix(&name("intermediate"), &layer.intermediate, &of_intermediate, &of_hidden)?;
        matrix(&name("output"), &layer.output, &of_hidden, &of_intermediate)?;
        norm(file, &name("attention_norm"), &layer.attention_norm)?;
        norm(file, &name("output_norm"), &layer.output_norm)?;
    }
    norm(file, "embedding_norm", &file.embedding_norm)?;
    table(file, "word_embeddings", &file.word_embeddings, config.vocab_size)?;
    let positions = config.max_position_embeddings;
    table(file, "position_embeddings", &file.position_embeddings, positions)
}

fn not_zero(name: &str) -> Error {
    malformed(format!("tensor {name:?} holds something else than zeros in its padding"))
}

/// `is_row` and `is_col` tell output channels and inputs from padding.
fn matrix(
    name: &str,
    matrix: &PackedMatrix,
    is_row: &dyn Fn(usize) -> bool,
    is_col: &dyn Fn(usize) -> bool,
) -> Result<()> {
    let (weights, scales, bias) = (matrix.weights(), matrix.scales(), matrix.bias());
    let padding: Vec<usize> = (0..matrix.cols()).filter(|&col| !is_col(col)).collect();
    for row in 0..matrix.rows() {
        let zero = |col: usize| weights[pack::offset(row, col, matrix.cols())] == 0;
        let zeros = if is_row(row) {
            padding.iter().all(|&col| zero(col))
        } else {
            (0..matrix.cols()).all(zero) && scales[row] == 0.0 && bias[row] == 0.0
        };
        if !zeros {
            return Err(not_zero(name));
        }
    }
    Ok(())
}

fn norm(file: &ModelFile, name: &str, norm: &Norm) -> Result<()> {
    let hidden = file.config.hidden_size;
    let (weight, bias) = file.norm(norm);
    match weight[hidden..].iter().chain(&bias[hidden..]).all(|&value| value == 0.0) {
        true => Ok(()),
        false => Err(not_zero(name)),
    }
}

fn table(file: &ModelFile, name: &str, table: &QuantizedTable, rows: usize) -> Result<()> {
    let hidden = file.config.hidden_size;
    let zeros = (0..rows)
        .filter_map(|row| file.row(table, row))
        .all(|(values, _)| values[hidden..].iter().all(|&value| value == 0));
    if zeros { Ok(()) } else { Err(not_zero(name)) }
}
