//! What stands beside a `tokenizer.json`: `tokenizer_config.json`, and in old folders
//! `special_tokens_map.json` and `added_tokens.json`.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use crate::config::TruncationSide;
use crate::convert::fields::Fields;
use crate::convert::hf_config::HfConfig;
use crate::convert::report::{Kind, Report};
use crate::error::{Error, Result};

pub(super) const CONFIG: &str = "tokenizer_config.json";
const SPECIAL_TOKENS: &str = "special_tokens_map.json";
const ADDED_TOKENS: &str = "added_tokens.json";

/// Names of the special tokens that every class has.
const NAMED: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// Keys without effect on the ids of a single text.
const WITHOUT_EFFECT: &[&str] = &[
    "_commit_hash",
    "add_bos_token",
    "add_eos_token",
    "auto_map",
    "backend",
    "chat_template",
    "clean_up_tokenization_spaces",
    "device_map",
    "do_basic_tokenize",
    "errors",
    "extra_ids",
    "fast_tokenizer_files",
    "full_tokenizer_file",
    "init_inputs",
    "is_local",
    "legacy",
    "local_files_only",
    "max_length",
    "model_input_names",
    "model_specific_special_tokens",
    "name_or_path",
    "never_split",
    "pad_to_multiple_of",
    "pad_token_type_id",
    "padding",
    "padding_side",
    "processor_class",
    "return_token_type_ids",
    "sp_model_kwargs",
    "special_tokens_map_file",
    "stride",
    "tokenizer_file",
    "trim_offsets",
    "truncation",
    "truncation_strategy",
    "use_fast",
    "verbose",
    "vocab_file",
    "wordpieces_prefix",
];

/// The settings of a folder's tokenizer.
pub(super) struct Settings {
    /// Whether the folder says anything about how its tokenizer is arranged.
    pub(super) stated: bool,
    /// The class named, without `Fast`.
    pub(super) class: Option<String>,
    pub(super) max_length: Option<usize>,
    pub(super) truncation_side: Option<TruncationSide>,
    pub(super) do_lower_case: Option<bool>,
    pub(super) strip_accents: Option<bool>,
    pub(super) tokenize_chinese_chars: bool,
    pub(super) add_prefix_space: Option<bool>,
    pub(super) keep_accents: bool,
    pub(super) remove_space: bool,
    /// Named special tokens, such as `cls_token`.
    pub(super) special: BTreeMap<String, String>,
    /// Tokens to be found in the raw text, as `tokenizer.json` lists them; `id` may be missing.
    pub(super) added: Vec<Value>,
    /// The file that lists them.
    pub(super) added_in: &'static str,
}

impl Settings {
    pub(super) fn read(
        dir: &Path,
        hf: &HfConfig,
        name: &dyn Fn(&str) -> String,
        report: &mut Report,
    ) -> Result<Self> {
        let fields = Fields::read_if_there(&dir.join(CONFIG))?;
        let stated = fields.is_some() || hf.tokenizer_class.is_some();
        let there = fields.is_some();
        let fields = fields.unwrap_or_else(|| Fields::new(CONFIG, serde_json::Map::new()));
        let class = fields.text_if_there("tokenizer_class")?.map(str::to_owned);
        let class = class.or_else(|| hf.tokenizer_class.clone());
        let flag = |name: &str| fields.get(name).and_then(Value::as_bool);
        if flag("split_special_tokens") == Some(true) {
            return Err(Error::checkpoint_unsupported(format!(
                "{}: split_special_tokens is true; munjang finds special tokens in a text as they are",
                fields.name()
            )));
        }
        let mut settings = Settings {
            stated,
            class: class.map(|class| class.strip_suffix("Fast").unwrap_or(&class).to_owned()),
            max_length: fields.length("model_max_length")?,
            truncation_side: match fields.text_if_there("truncation_side")? {
                None => None,
                Some("left") => Some(TruncationSide::Left),
                Some("right") => Some(TruncationSide::Right),
                Some(other) => {
                    let value = Value::from(other);
                    return Err(fields.wrong("truncation_side", &value, "\"left\" or \"right\""));
                }
            },
            do_lower_case: flag("do_lower_case"),
            strip_accents: flag("strip_accents"),
            tokenize_chinese_chars: flag("tokenize_chinese_chars").unwrap_or(true),
            add_prefix_space: flag("add_prefix_space"),
            keep_accents: flag("keep_accents").unwrap_or(false),
            remove_space: flag("remove_space").unwrap_or(true),
            special: BTreeMap::new(),
            added: Vec::new(),
            added_in: CONFIG,
        };
        settings.read_special(&fields);
        match fields.object("added_tokens_decoder")? {
            Some(decoder) => settings.read_decoder(&decoder)?,
            None => settings.read_old_files(dir, name, report)?,
        }
        settings.read_extra(&fields);
        if there {
            report.used(name(CONFIG), settings.summary());
            let unread = fields.unread(WITHOUT_EFFECT);
            if !unread.is_empty() {
                report.not_used(name(CONFIG), unread.join(", "));
            }
        }
        Ok(settings)
    }

    /// What was taken over, for the report.
    fn summary(&self) -> String {
        let mut parts = vec![match &self.class {
            Some(class) => format!("class {class}"),
            None => "no class".to_owned(),
        }];
        if let Some(lower) = self.do_lower_case {
            parts.push(format!("do_lower_case {lower}"));
        }
        if let Some(length) = self.max_length {
            parts.push(format!("model_max_length {length}"));
        }
        if let Some(side) = self.truncation_side {
            parts.push(format!("truncation_side {}", side.name()));
        }
        parts.join(", ")
    }

    fn read_special(&mut self, fields: &Fields) {
        for name in NAMED {
            let Some(value) = fields.get(name) else { continue };
            if let Some(content) = value.as_str().or_else(|| value["content"].as_str()) {
                self.special.insert(name.to_owned(), content.to_owned());
            }
        }
    }

    /// `extra_special_tokens`, in files from before transformers 5 `additional_special_tokens`.
    fn read_extra(&mut self, fields: &Fields) {
        for name in ["extra_special_tokens", "additional_special_tokens"] {
            let tokens: Vec<&Value> = match fields.get(name) {
                Some(Value::Array(tokens)) => tokens.iter().collect(),
                Some(Value::Object(tokens)) => tokens.values().collect(),
                _ => continue,
            };
            for token in tokens {
                let Some(content) = token.as_str().or_else(|| token["content"].as_str()) else {
                    continue;
                };
                let known = |added: &Value| added["content"] == content;
                if !self.added.iter().any(known) {
                    self.added.push(added_token(None, content, Some(token)));
                }
            }
        }
    }

    fn read_decoder(&mut self, decoder: &Fields) -> Result<()> {
        for key in decoder.keys().map(str::to_owned).collect::<Vec<_>>() {
            let Some(token) = decoder.get(&key) else { continue };
            let (Ok(id), Some(content)) = (key.parse::<u32>(), token["content"].as_str()) else {
                return Err(decoder.wrong(&key, token, "an id with a token's content"));
            };
            self.added.push(added_token(Some(id), content, Some(token)));
        }
        Ok(())
    }

    /// What transformers reads where `tokenizer_config.json` does not list the added tokens.
    fn read_old_files(
        &mut self,
        dir: &Path,
        name: &dyn Fn(&str) -> String,
        report: &mut Report,
    ) -> Result<()> {
        if let Some(map) = Fields::read_if_there(&dir.join(SPECIAL_TOKENS))? {
            self.read_special(&map);
            self.read_extra(&map);
            report.used(name(SPECIAL_TOKENS), "names of special tokens");
        }
        if let Some(map) = Fields::read_if_there(&dir.join(ADDED_TOKENS))? {
            let tokens: Vec<String> = map.keys().map(str::to_owned).collect();
            for content in tokens {
                let id = map.size(&content, None)? as u32;
                let special = self.special.values().any(|token| *token == content);
                let flags = json!({"special": special, "normalized": !special});
                self.added.push(added_token(Some(id), &content, Some(&flags)));
            }
            self.added_in = ADDED_TOKENS;
            report.add(Kind::Used, name(ADDED_TOKENS), "added tokens");
        }
        Ok(())
    }
}

/// A token as `tokenizer.json` lists it.
pub(super) fn added_token(id: Option<u32>, content: &str, flags: Option<&Value>) -> Value {
    let flag = |name: &str, default: bool| {
        flags.and_then(|flags| flags[name].as_bool()).unwrap_or(default)
    };
    let special = flag("special", true);
    json!({
        "id": id, "content": content, "single_word": flag("single_word", false),
        "lstrip": flag("lstrip", false), "rstrip": flag("rstrip", false),
        "normalized": flag("normalized", !special), "special": special,
    })
}
