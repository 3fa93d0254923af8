//! The modules of a sentence-transformers folder: which `modules.json` lists, and what stands in their
//! folders. Without that file the library takes the folder as a Transformer and pools by the mean.

mod pooling;
mod transformer;

use std::path::{Component, Path, PathBuf};

use super::fields::{Fields, read_list};
use super::report::Report;
use crate::config::{AfterPooling, Pooling};
use crate::error::{Error, Result};
use crate::weights::Linear;
use pooling::check_names;

const MODULES: &str = "modules.json";
const MODEL: &str = "config_sentence_transformers.json";

/// Names of the Transformer's settings, by age and type, in the order in which they are looked for.
const TRANSFORMER_CONFIGS: [&str; 7] = [
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
];

/// What a folder's modules come to.
pub(super) struct Modules {
    /// Folder of the Transformer.
    pub(super) transformer: PathBuf,
    /// sentence-transformers' limit of tokens.
    pub(super) max_seq_length: Option<usize>,
    /// Whether texts are lowered before the tokenizer.
    pub(super) do_lower_case: bool,
    pub(super) pooling: Pooling,
    /// Whether the prompt's tokens are pooled.
    pub(super) include_prompt: bool,
    pub(super) after_pooling: Vec<AfterPooling>,
    /// Weights of the dense modules.
    pub(super) dense: Vec<Linear>,
    /// Prompts by name.
    pub(super) prompts: Vec<(String, String)>,
    pub(super) default_prompt: Option<String>,
}

/// Reads the modules of the folder `dir`, whose pooling `pooling` replaces if it is given.
pub(super) fn read(dir: &Path, pooling: Option<Pooling>, report: &mut Report) -> Result<Modules> {
    let mut modules = Modules {
        transformer: dir.to_owned(),
        max_seq_length: None,
        do_lower_case: false,
        pooling: pooling.unwrap_or_default(),
        include_prompt: true,
        after_pooling: Vec::new(),
        dense: Vec::new(),
        prompts: Vec::new(),
        default_prompt: None,
    };
    let list = dir.join(MODULES);
    if !list.exists() {
        modules.read_without_list(dir, pooling, report)?;
        return Ok(modules);
    }
    let list = read_list(&list)?;
    let mut stage = Stage::Start;
    let mut named = Vec::new();
    for module in &list {
        let kind = module.text("type", None)?;
        let path = module.text("path", Some(""))?;
        let name = if path.is_empty() { "" } else { path.trim_end_matches('/') };
        let folder = subfolder(dir, module, name)?;
        let last = kind.rsplit('.').next().unwrap_or_default();
        let out_of_order = |after: &str| {
            Error::checkpoint_unsupported(format!(
                "{}: a {last} module after {after}; munjang runs a Transformer, then Pooling, then Dense and \
                 Normalize modules",
                module.name()
            ))
        };
        if !kind.starts_with("sentence_transformers.") {
            return Err(Error::checkpoint_unsupported(format!(
                "{}: type is {kind:?}, code of the folder's own; munjang runs sentence-transformers' \
                 Transformer, Pooling, Dense and Normalize",
                module.name()
            )));
        }
        if let Some(arguments) = module.get("kwargs")
            && arguments.as_array().is_none_or(|list| !list.is_empty())
        {
            return Err(module.wrong("kwargs", arguments, "none"));
        }
        match (last, stage) {
            (
                // The latter by the names of the first versions.
                "Transformer" | "BERT" | "RoBERTa" | "DistilBERT" | "XLMRoBERTa",
                Stage::Start,
            ) => {
                modules.transformer = folder.clone();
                modules.read_transformer(&folder, name, report)?;
                stage = Stage::Tokens;
            }
            ("Pooling", Stage::Tokens) => {
                modules.read_pooling(&folder.join("config.json"), name, pooling, report)?;
                stage = Stage::Pooled;
            }
            ("Dense", Stage::Pooled) => modules.read_dense(&folder, name, report)?,
            ("Normalize", Stage::Pooled) => {
                if let Some(fields) = Fields::read_if_there(&folder.join("config.json"))? {
                    check_names(&fields)?;
                    report.used(file(name, "config.json"), "Normalize");
                    report.not_read(&file(name, "config.json"), &fields, &[]);
                }
                modules.after_pooling.push(AfterPooling::Normalize);
            }
            // It does nothing outside of training.
            ("Dropout", Stage::Pooled) => {}
            ("Transformer" | "Pooling", _) => return Err(out_of_order("another of its kind")),
            ("Dense" | "Normalize" | "Dropout", _) => {
                return Err(out_of_order(stage.name()));
            }
            _ => {
                return Err(Error::checkpoint_unsupported(format!(
                    "{}: type is {kind:?} at {name:?}; munjang runs Transformer, Pooling, Dense and \
                     Normalize modules",
                    module.name()
                )));
            }
        }
        named.push(if name.is_empty() { last.to_owned() } else { format!("{last} at {name}") });
    }
    if stage != Stage::Pooled {
        return Err(Error::checkpoint_unsupported(format!(
            "{}: it lists {}; expected a Transformer and a Pooling module at least",
            dir.join(MODULES).display(),
            if named.is_empty() { "no modules".to_owned() } else { named.join(", ") }
        )));
    }
    // An embedding has length 1 in any case.
    while modules.after_pooling.last() == Some(&AfterPooling::Normalize) {
        modules.after_pooling.pop();
    }
    report.used(MODULES, named.join(", "));
    modules.read_model_config(dir, report)?;
    Ok(modules)
}

#[derive(Clone, Copy, PartialEq)]
enum Stage {
    Start,
    Tokens,
    Pooled,
}

impl Stage {
    fn name(self) -> &'static str {
        match self {
            Stage::Start => "nothing",
            Stage::Tokens => "a Transformer",
            Stage::Pooled => "Pooling",
        }
    }
}

/// The name of a file in a module's folder.
pub(super) fn file(module: &str, name: &str) -> String {
    if module.is_empty() { name.to_owned() } else { format!("{module}/{name}") }
}

/// The folder that a module names: inside `dir`, and there.
fn subfolder(dir: &Path, module: &Fields, path: &str) -> Result<PathBuf> {
    let inside = Path::new(path)
        .components()
        .all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    if !inside {
        return Err(Error::checkpoint_invalid(format!(
            "{}: path is {path:?}; expected a folder inside the checkpoint",
            module.name()
        )));
    }
    Ok(dir.join(path))
}

impl Modules {
    /// A folder of transformers, or one whose `1_Pooling` came without `modules.json`.
    fn read_without_list(
        &mut self,
        dir: &Path,
        pooling: Option<Pooling>,
        report: &mut Report,
    ) -> Result<()> {
        let path = dir.join("1_Pooling/config.json");
        if path.exists() {
            self.read_pooling(&path, "1_Pooling", pooling, report)?;
        }
        if dir.join(MODEL).exists() {
            report.not_used(MODEL, "there is no modules.json, without which nothing reads it");
        }
        for name in TRANSFORMER_CONFIGS.iter().filter(|name| dir.join(name).exists()) {
            report.not_used(*name, "there is no modules.json, without which nothing reads it");
        }
        Ok(())
    }

    fn read_model_config(&mut self, dir: &Path, report: &mut Report) -> Result<()> {
        let Some(fields) = Fields::read_if_there(&dir.join(MODEL))? else { return Ok(()) };
        let kind = fields.text("model_type", Some("SentenceTransformer"))?;
        if kind != "SentenceTransformer" {
            return Err(Error::checkpoint_unsupported(format!(
                "{}: model_type is {kind:?}; munjang runs sentence encoders (SentenceTransformer)",
                fields.name()
            )));
        }
        if let Some(prompts) = fields.object("prompts")? {
            for name in prompts.keys().map(str::to_owned).collect::<Vec<_>>() {
                let text = prompts.text(&name, Some(""))?.to_owned();
                self.prompts.push((name, text));
            }
        }
        self.default_prompt = fields.text_if_there("default_prompt_name")?.map(str::to_owned);
        if let Some(name) = &self.default_prompt
            && self.prompt(name).is_none()
        {
            return Err(Error::checkpoint_invalid(format!(
                "{}: default_prompt_name is {name:?}; the prompts are {}",
                fields.name(),
                self.prompt_names()
            )));
        }
        let prompts = self.prompts.iter().filter(|(_, text)| !text.is_empty()).count();
        let default = match &self.default_prompt {
            Some(name) => format!("{name:?} the default"),
            None => "none of them the default".to_owned(),
        };
        let what = if prompts == 0 {
            "no prompts".to_owned()
        } else {
            format!("{prompts} prompts, {default}")
        };
        report.used(MODEL, what);
        let similarity = fields.text("similarity_fn_name", Some("cosine"))?;
        if similarity != "cosine" {
            report.not_used(MODEL, format!(
                "similarity_fn_name {similarity:?}: embeddings have length 1, so their dot product is the cosine"
            ));
        }
        report.not_read(&MODEL, &fields, &["__version__", "requirements"]);
        Ok(())
    }

    fn prompt(&self, name: &str) -> Option<&str> {
        self.prompts.iter().find(|(known, _)| known == name).map(|(_, text)| text.as_str())
    }

    fn prompt_names(&self) -> String {
        let names: Vec<String> = self.prompts.iter().map(|(name, _)| format!("{name:?}")).collect();
        if names.is_empty() { "none".to_owned() } else { names.join(", ") }
    }

    /// The text put before every other: `prefix` if given, else that of the prompt `name`, else the
    /// default prompt's.
    ///
    /// # Errors
    /// `InputInvalid` for a name that the folder does not have, or for both.
    pub(super) fn prefix(&self, prefix: Option<&str>, name: Option<&str>) -> Result<String> {
        let input_invalid = |message| Error::input_invalid(message);
        let text = match (prefix, name) {
            (Some(_), Some(_)) => {
                return Err(input_invalid(
                    "both a prefix and a prompt are given; choose one".into(),
                ));
            }
            (Some(prefix), None) => prefix,
            (None, Some(name)) => self.prompt(name).ok_or_else(|| {
                input_invalid(format!(
                    "the checkpoint has no prompt {name:?}; its prompts are: {}",
                    self.prompt_names()
                ))
            })?,
            (None, None) => match &self.default_prompt {
                Some(name) => self.prompt(name).unwrap_or_default(),
                None => "",
            },
        };
        if !self.include_prompt && !text.is_empty() {
            return Err(Error::checkpoint_unsupported(
                "the folder's Pooling leaves the prompt's tokens out (include_prompt is false), and munjang \
                 pools every token: convert with --prefix \"\" and put no prompt before texts",
            ));
        }
        Ok(text.to_owned())
    }
}
