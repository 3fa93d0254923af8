//! Pooling, and the modules that may follow it.

use std::path::Path;

use super::{Modules, file};
use crate::config::{AfterPooling, DenseActivation, Pooling, limits};
use crate::convert::fields::Fields;
use crate::convert::report::Report;
use crate::convert::tensors::Tensors;
use crate::error::{Error, Result};
use crate::weights::{Linear, Matrix};

/// How each pooling is called in `pooling_mode`, and in files from before that key.
const POOLING_MODES: [(&str, &str); 6] = [
    ("cls", "pooling_mode_cls_token"),
    ("max", "pooling_mode_max_tokens"),
    ("mean", "pooling_mode_mean_tokens"),
    ("mean_sqrt_len_tokens", "pooling_mode_mean_sqrt_len_tokens"),
    ("weightedmean", "pooling_mode_weightedmean_tokens"),
    ("lasttoken", "pooling_mode_lasttoken"),
];

impl Modules {
    pub(super) fn read_pooling(
        &mut self,
        path: &Path,
        name: &str,
        chosen: Option<Pooling>,
        report: &mut Report,
    ) -> Result<()> {
        let fields = Fields::read(path)?;
        let config = file(name, "config.json");
        let modes = pooling_modes(&fields)?;
        self.include_prompt = fields.flag("include_prompt", true)?;
        for key in ["embedding_dimension", "word_embedding_dimension"] {
            fields.get(key);
        }
        let asked = modes.join(" and ");
        let runs = [Pooling::Mean, Pooling::Cls]
            .into_iter()
            .find(|&pooling| modes == [pooling_name(pooling)]);
        self.pooling = match chosen.or(runs) {
            Some(pooling) if runs == Some(pooling) => {
                report.used(config.clone(), format!("pooling by {asked}"));
                pooling
            }
            Some(pooling) => {
                let what = format!("asks for {asked}; --pooling chose {}", pooling_name(pooling));
                report.not_used(config.clone(), what);
                pooling
            }
            None => {
                let old = POOLING_MODES.iter().map(|&(_, key)| key);
                let keys: Vec<&str> =
                    old.filter(|key| fields.get(key) == Some(&true.into())).collect();
                let keys =
                    if keys.is_empty() { String::new() } else { format!(" ({})", keys.join(", ")) };
                return Err(Error::checkpoint_unsupported(format!(
                    "{} asks for pooling by {asked}{keys}; munjang pools by mean or cls: choose one with \
                     --pooling, if other embeddings than the model's will do",
                    path.display()
                )));
            }
        };
        report.not_read(&config, &fields, &[]);
        Ok(())
    }

    pub(super) fn read_dense(
        &mut self,
        folder: &Path,
        name: &str,
        report: &mut Report,
    ) -> Result<()> {
        let path = folder.join("config.json");
        let fields = Fields::read(&path)?;
        check_names(&fields)?;
        let in_features = fields.size("in_features", None)?;
        let out_features = fields.size("out_features", None)?;
        for (key, size) in [("in_features", in_features), ("out_features", out_features)] {
            if !(1..=limits::HIDDEN_SIZE).contains(&size) {
                let expected = format!("1 to {}", limits::HIDDEN_SIZE);
                return Err(fields.wrong(key, &size.into(), &expected));
            }
        }
        let has_bias = fields.flag("bias", true)?;
        if fields.flag("use_residual", false)? {
            return Err(Error::checkpoint_unsupported(format!(
                "{}: use_residual is true; munjang runs Dense modules without a residual",
                fields.name()
            )));
        }
        // Without the key the library's own default holds.
        let activation = match fields
            .text("activation_function", Some("torch.nn.modules.activation.Tanh"))?
        {
            "torch.nn.modules.linear.Identity" => DenseActivation::Identity,
            "torch.nn.modules.activation.Tanh" => DenseActivation::Tanh,
            "torch.nn.modules.activation.ReLU" => DenseActivation::Relu,
            "torch.nn.modules.activation.Sigmoid" => DenseActivation::Sigmoid,
            "torch.nn.modules.activation.GELU" => DenseActivation::Gelu,
            other => {
                return Err(Error::checkpoint_unsupported(format!(
                    "{}: activation_function is {other:?}; munjang runs Identity, Tanh, ReLU, Sigmoid and \
                     GELU of torch.nn",
                    fields.name()
                )));
            }
        };
        let tensors = Tensors::read(folder)?;
        let linear = if has_bias {
            tensors.linear("linear", out_features, in_features)?
        } else {
            Linear {
                weight: tensors.matrix("linear.weight", out_features, in_features)?,
                bias: vec![0.0; out_features],
            }
        };
        let Matrix { rows, cols, .. } = linear.weight;
        report.used(
            file(name, "config.json"),
            format!(
                "Dense {cols} → {rows}, {activation:?}{}",
                if has_bias { "" } else { ", no bias" }
            ),
        );
        tensors.report(name, report);
        report.not_read(&file(name, "config.json"), &fields, &[]);
        self.dense.push(linear);
        self.after_pooling.push(AfterPooling::Dense { in_features, out_features, activation });
        Ok(())
    }
}

/// The name of a pooling in `pooling_mode`.
fn pooling_name(pooling: Pooling) -> &'static str {
    match pooling {
        Pooling::Mean => "mean",
        Pooling::Cls => "cls",
    }
}

/// Modules that read or write something else than the sentence embedding.
pub(super) fn check_names(fields: &Fields) -> Result<()> {
    for key in ["module_input_name", "module_output_name"] {
        let found = fields.text(key, Some("sentence_embedding"))?;
        if found != "sentence_embedding" {
            return Err(Error::checkpoint_unsupported(format!(
                "{}: {key} is {found:?}; munjang runs modules over \"sentence_embedding\"",
                fields.name()
            )));
        }
    }
    Ok(())
}

/// The poolings that a config asks for, in the library's order; the mean if it says nothing.
fn pooling_modes(fields: &Fields) -> Result<Vec<String>> {
    let known: Vec<&str> = POOLING_MODES.iter().map(|&(name, _)| name).collect();
    let mut old = Vec::new();
    for (name, key) in POOLING_MODES {
        if fields.flag(key, false)? {
            old.push(name.to_owned());
        }
    }
    let modes: Vec<String> = match fields.get("pooling_mode") {
        None => old,
        Some(value) => {
            let one = value.as_str().map(|mode| vec![mode.to_owned()]);
            let several = || {
                let modes = value.as_array()?.iter();
                modes.map(|mode| mode.as_str().map(str::to_owned)).collect()
            };
            let modes: Option<Vec<String>> = one.or_else(several);
            modes
                .filter(|modes| modes.iter().all(|mode| known.contains(&mode.as_str())))
                .ok_or_else(|| {
                    fields.wrong("pooling_mode", value, &format!("one of {}", known.join(", ")))
                })?
        }
    };
    Ok(if modes.is_empty() { vec!["mean".to_owned()] } else { modes })
}
