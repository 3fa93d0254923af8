//! The weights of the Transformer, by the names that its family gives them.

use std::cell::RefCell;
use std::collections::BTreeSet;

use super::hf_config::{Family, HfConfig};
use super::report::Report;
use super::tensors::Tensors;
use crate::error::Result;
use crate::weights::{Layer, LayerNorm, Linear, Matrix};

/// All weights before pooling.
pub(super) struct Encoder {
    pub(super) words: Matrix,
    /// Of the positions that a text's tokens have, token type 0 added in.
    pub(super) positions: Matrix,
    pub(super) norm: LayerNorm,
    pub(super) projection: Option<Linear>,
    /// The position of RoBERTa's padding token, token type 0 added in.
    pub(super) padding: Option<Vec<f32>>,
    pub(super) layers: Vec<Layer>,
    used: BTreeSet<String>,
}

/// Tensors, and the names of those that were asked for.
struct Reader<'a> {
    tensors: &'a Tensors,
    used: RefCell<BTreeSet<String>>,
}

impl Reader<'_> {
    fn note(&self, name: &str, parts: &[&str]) {
        self.used.borrow_mut().extend(parts.iter().map(|part| format!("{name}{part}")));
    }

    fn matrix(&self, name: &str, rows: usize, cols: usize) -> Result<Matrix> {
        self.note(name, &[""]);
        self.tensors.matrix(name, rows, cols)
    }

    fn linear(&self, name: &str, out: usize, in_: usize) -> Result<Linear> {
        self.note(name, &[".weight", ".bias"]);
        self.tensors.linear(name, out, in_)
    }

    fn layer_norm(&self, name: &str, size: usize) -> Result<LayerNorm> {
        self.note(name, &[".weight", ".bias", ".gamma", ".beta"]);
        self.tensors.layer_norm(name, size)
    }
}

impl Encoder {
    /// Reads the layers `kept` and the first `positions` positions.
    pub(super) fn read(
        tensors: &Tensors,
        hf: &HfConfig,
        kept: &[usize],
        positions: usize,
    ) -> Result<Self> {
        let prefix = tensors.prefix_of("embeddings.word_embeddings.weight")?;
        let reader = Reader { tensors, used: RefCell::default() };
        let embedding = |name: &str| format!("{prefix}embeddings.{name}");
        let width = hf.embedding_size;
        let words = reader.matrix(&embedding("word_embeddings.weight"), hf.vocab_size, width)?;
        let all = reader.matrix(
            &embedding("position_embeddings.weight"),
            hf.max_position_embeddings,
            width,
        )?;
        let mut rows = Matrix {
            rows: positions,
            cols: width,
            data: all.data[hf.position_offset * width..][..positions * width].to_vec(),
        };
        let mut padding = hf.pad_token_id.map(|id| all.row(id as usize).to_vec());
        if hf.type_vocab_size > 0 {
            let types = reader.matrix(
                &embedding("token_type_embeddings.weight"),
                hf.type_vocab_size,
                width,
            )?;
            for row in rows.data.chunks_exact_mut(width).chain(padding.as_deref_mut()) {
                row.iter_mut().zip(types.row(0)).for_each(|(value, add)| *value += add);
            }
        }
        let projection = (width != hf.hidden_size)
            .then(|| reader.linear(&format!("{prefix}embeddings_project"), hf.hidden_size, width))
            .transpose()?;
        let layers = kept
            .iter()
            .map(|&index| read_layer(&reader, &prefix, hf, index))
            .collect::<Result<Vec<_>>>()?;
        Ok(Encoder {
            words,
            positions: rows,
            norm: reader.layer_norm(&embedding("LayerNorm"), width)?,
            projection,
            padding,
            layers,
            used: reader.used.into_inner(),
        })
    }

    /// Says which tensors the encoder does not have: heads on top, layers left out.
    pub(super) fn report_others(
        &self,
        tensors: &Tensors,
        name: &dyn Fn(&str) -> String,
        report: &mut Report,
    ) {
        let mut others = tensors.others(&self.used);
        others.retain(|name| !name.ends_with("position_ids"));
        if !others.is_empty() {
            let shown = others.iter().take(3).copied().collect::<Vec<_>>().join(", ");
            let more = if others.len() > 3 { ", …" } else { "" };
            report.not_needed(
                name(tensors.file_name()),
                format!("{} tensors of no layer kept ({shown}{more})", others.len()),
            );
        }
    }
}

fn read_layer(reader: &Reader<'_>, prefix: &str, hf: &HfConfig, index: usize) -> Result<Layer> {
    let (hidden, wide) = (hf.hidden_size, hf.intermediate_size);
    let base = layer_base(hf.family, prefix, index);
    let [query, key, value, attention_output, attention_norm, intermediate, output, output_norm] =
        layer_names(hf.family);
    let linear = |name, out, in_| reader.linear(&format!("{base}.{name}"), out, in_);
    let norm = |name| reader.layer_norm(&format!("{base}.{name}"), hidden);
    Ok(Layer {
        query: linear(query, hidden, hidden)?,
        key: linear(key, hidden, hidden)?,
        value: linear(value, hidden, hidden)?,
        attention_output: linear(attention_output, hidden, hidden)?,
        attention_norm: norm(attention_norm)?,
        intermediate: linear(intermediate, wide, hidden)?,
        output: linear(output, hidden, wide)?,
        output_norm: norm(output_norm)?,
    })
}

/// What the names of layer `index`'s tensors begin with.
pub(super) fn layer_base(family: Family, prefix: &str, index: usize) -> String {
    match family {
        Family::Bert => format!("{prefix}encoder.layer.{index}"),
        Family::DistilBert => format!("{prefix}transformer.layer.{index}"),
    }
}

/// Query, key, value, attention output and its normalization, intermediate, output and its
/// normalization.
pub(super) fn layer_names(family: Family) -> [&'static str; 8] {
    match family {
        Family::Bert => [
            "attention.self.query",
            "attention.self.key",
            "attention.self.value",
            "attention.output.dense",
            "attention.output.LayerNorm",
            "intermediate.dense",
            "output.dense",
            "output.LayerNorm",
        ],
        Family::DistilBert => [
            "attention.q_lin",
            "attention.k_lin",
            "attention.v_lin",
            "attention.out_lin",
            "sa_layer_norm",
            "ffn.lin1",
            "ffn.lin2",
            "output_layer_norm",
        ],
    }
}
