//! The settings of the Transformer module.

use std::path::Path;

use super::{Modules, TRANSFORMER_CONFIGS, file};
use crate::convert::fields::Fields;
use crate::convert::report::Report;
use crate::error::{Error, Result};

/// Settings without effect on the embedding of a single text.
const TRANSFORMER_WITHOUT_EFFECT: &[&str] =
    &["query_length", "document_length", "query_expansion", "unpad_inputs"];

impl Modules {
    pub(super) fn read_transformer(
        &mut self,
        folder: &Path,
        name: &str,
        report: &mut Report,
    ) -> Result<()> {
        let found = TRANSFORMER_CONFIGS.iter().find(|config| folder.join(config).exists());
        let Some(config) = found else { return Ok(()) };
        let fields = Fields::read(&folder.join(config))?;
        self.max_seq_length = fields.length("max_seq_length")?;
        self.do_lower_case = fields.flag("do_lower_case", false)?;
        let refuse = |key: &str, why: &str| {
            Err(Error::checkpoint_unsupported(format!(
                "{}: {key} is {}; {why}",
                fields.name(),
                fields.get(key).map(ToString::to_string).unwrap_or_default()
            )))
        };
        if fields.text("transformer_task", Some("feature-extraction"))? != "feature-extraction" {
            return refuse("transformer_task", "munjang runs \"feature-extraction\"");
        }
        if fields.text("module_output_name", Some("token_embeddings"))? != "token_embeddings" {
            return refuse("module_output_name", "munjang pools \"token_embeddings\"");
        }
        if fields.get("tokenizer_name_or_path").is_some_and(|name| *name != "") {
            return refuse("tokenizer_name_or_path", "munjang takes the tokenizer of the folder");
        }
        self.read_modalities(&fields)?;
        self.read_processing(&fields)?;
        for key in [
            "model_args",
            "model_kwargs",
            "config_args",
            "config_kwargs",
            "tokenizer_args",
            "processor_kwargs",
        ] {
            self.read_arguments(&fields, key)?;
        }
        let mut parts = Vec::new();
        if let Some(length) = self.max_seq_length {
            parts.push(format!("at most {length} tokens"));
        }
        if self.do_lower_case {
            parts.push("do_lower_case".to_owned());
        }
        if parts.is_empty() {
            parts.push("nothing beyond the defaults".to_owned());
        }
        report.used(file(name, config), parts.join(", "));
        report.not_read(&file(name, config), &fields, TRANSFORMER_WITHOUT_EFFECT);
        Ok(())
    }

    fn read_modalities(&self, fields: &Fields) -> Result<()> {
        let Some(modalities) = fields.object("modality_config")? else { return Ok(()) };
        let Some(text) = modalities.object("text")? else {
            return Err(modalities.missing("text", "how texts are encoded"));
        };
        for (key, expected) in [("method", "forward"), ("method_output_name", "last_hidden_state")]
        {
            if text.text(key, Some(expected))? != expected {
                return Err(Error::checkpoint_unsupported(format!(
                    "{}: {key} is not {expected:?}, which munjang runs",
                    text.name()
                )));
            }
        }
        Ok(())
    }

    /// Arguments of the tokenizer's calls.
    fn read_processing(&mut self, fields: &Fields) -> Result<()> {
        let Some(processing) = fields.object("processing_kwargs")? else { return Ok(()) };
        for part in ["common", "text"] {
            let Some(arguments) = processing.object(part)? else { continue };
            if let Some(length) = arguments.length("max_length")? {
                self.max_seq_length = Some(length);
            }
            let whole = arguments.get("truncation").is_none_or(|value| {
                *value == true || value == "longest_first" || value == "only_first"
            });
            let unread = arguments.unread(&[
                "max_length",
                "padding",
                "truncation",
                "return_tensors",
                "return_token_type_ids",
                "pad_to_multiple_of",
            ]);
            if !whole || !unread.is_empty() {
                return Err(Error::checkpoint_unsupported(format!(
                    "{}: {}; munjang follows max_length and truncation",
                    arguments.name(),
                    if whole { unread.join(", ") } else { "texts are not to be cut".to_owned() }
                )));
            }
        }
        Ok(())
    }

    /// Arguments given on to transformers: those that decide how it computes, not what, are let pass.
    fn read_arguments(&mut self, fields: &Fields, key: &str) -> Result<()> {
        let Some(arguments) = fields.object(key)? else { return Ok(()) };
        if let Some(length) = arguments.length("model_max_length")?
            && self.max_seq_length.is_none()
        {
            self.max_seq_length = Some(length);
        }
        let unread = arguments.unread(&[
            "attn_implementation",
            "device_map",
            "dtype",
            "low_cpu_mem_usage",
            "torch_dtype",
            "trust_remote_code",
            "use_fast",
            "use_safetensors",
            "revision",
            "token",
        ]);
        if unread.is_empty() {
            return Ok(());
        }
        Err(Error::checkpoint_unsupported(format!(
            "{}: {}; munjang has no such settings",
            arguments.name(),
            unread.join(", ")
        )))
    }
}
