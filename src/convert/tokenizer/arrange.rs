//! A `tokenizer.json` arranged as the reference library would arrange it.
//!
//! `transformers` 5 takes the vocabulary from `tokenizer.json` and rebuilds the rest by the class that
//! `tokenizer_config.json` names; a class that it does not know, or [`AS_IT_STANDS`], takes the file as it
//! is. Without `tokenizer_config.json` it would rebuild by the default class of the model's type, which
//! lowers the case of a BERT whose `tokenizer.json` says not to; there the file is obeyed.

use serde_json::{Map, Value, json};

use super::settings::{CONFIG, Settings, added_token};
use crate::convert::hf_config::HfConfig;
use crate::convert::report::Report;
use crate::error::{Error, Result};

/// Classes that are a `tokenizer.json` and nothing else.
const AS_IT_STANDS: [&str; 4] =
    ["PreTrainedTokenizer", "TokenizersBackend", "PythonBackend", "PreTrainedTokenizerFast"];

/// Classes of `transformers` with an arrangement of their own that munjang does not know.
const OTHERS: [&str; 24] = [
    "AlbertTokenizer",
    "BartTokenizer",
    "BarthezTokenizer",
    "BertJapaneseTokenizer",
    "BertweetTokenizer",
    "BigBirdTokenizer",
    "CamembertTokenizer",
    "DebertaTokenizer",
    "DebertaV2Tokenizer",
    "FunnelTokenizer",
    "GPT2Tokenizer",
    "GemmaTokenizer",
    "HerbertTokenizer",
    "LlamaTokenizer",
    "LongformerTokenizer",
    "MBartTokenizer",
    "MPNetTokenizer",
    "MobileBertTokenizer",
    "NllbTokenizer",
    "Qwen2Tokenizer",
    "RemBertTokenizer",
    "RoFormerTokenizer",
    "T5Tokenizer",
    "XLNetTokenizer",
];

/// Which arrangement a class stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    Bert,
    Roberta,
    XlmRoberta,
}

impl Class {
    /// The class that `settings` names, or the default of the model's type. `None` for one that takes
    /// a `tokenizer.json` as it stands.
    pub(super) fn of(settings: &Settings, hf: &HfConfig) -> Option<Self> {
        match settings.class.as_deref() {
            Some("BertTokenizer" | "DistilBertTokenizer" | "ElectraTokenizer") => Some(Class::Bert),
            Some("RobertaTokenizer") => Some(Class::Roberta),
            Some("XLMRobertaTokenizer") => Some(Class::XlmRoberta),
            Some(_) => None,
            None => Some(match hf.model_type.as_str() {
                "roberta" => Class::Roberta,
                "xlm-roberta" => Class::XlmRoberta,
                _ => Class::Bert,
            }),
        }
    }

    fn model_kind(self) -> &'static str {
        match self {
            Class::Bert => "WordPiece",
            Class::Roberta => "BPE",
            Class::XlmRoberta => "Unigram",
        }
    }

    fn default_token(self, name: &str) -> &'static str {
        match (self, name) {
            (Class::Bert, "cls_token" | "bos_token") => "[CLS]",
            (Class::Bert, "sep_token" | "eos_token") => "[SEP]",
            (Class::Bert, "pad_token") => "[PAD]",
            (Class::Bert, "mask_token") => "[MASK]",
            (Class::Bert, _) => "[UNK]",
            (_, "cls_token" | "bos_token") => "<s>",
            (_, "sep_token" | "eos_token") => "</s>",
            (_, "pad_token") => "<pad>",
            (_, "mask_token") => "<mask>",
            (_, _) => "<unk>",
        }
    }

    /// The tokens that the class finds in a text as they are.
    fn special_tokens(self, settings: &Settings) -> Vec<&str> {
        let names: &[&str] = match self {
            Class::Bert => &["unk_token", "sep_token", "pad_token", "cls_token", "mask_token"],
            _ => &[
                "bos_token",
                "eos_token",
                "unk_token",
                "sep_token",
                "pad_token",
                "cls_token",
                "mask_token",
            ],
        };
        let mut tokens: Vec<&str> = names.iter().map(|name| self.token(settings, name)).collect();
        tokens.sort_unstable();
        tokens.dedup();
        tokens
    }

    pub(super) fn token<'a>(self, settings: &'a Settings, name: &str) -> &'a str {
        settings.special.get(name).map_or(self.default_token(name), String::as_str)
    }

    /// Normalizer, word splitting and special tokens around a text, as the class builds them.
    /// `None` if a special token that it puts around texts is not in the vocabulary.
    pub(super) fn arrange(self, json: &mut Value, settings: &Settings) -> Option<()> {
        let (first, last) = match self {
            Class::XlmRoberta => ("bos_token", "eos_token"),
            _ => ("cls_token", "sep_token"),
        };
        let (first, last) = (self.token(settings, first), self.token(settings, last));
        let (first_id, last_id) = (id_of(json, first)?, id_of(json, last)?);
        match self {
            Class::Bert => {
                json["model"]["unk_token"] = self.token(settings, "unk_token").into();
                json["model"]["continuing_subword_prefix"] = "##".into();
                json["model"]["max_input_chars_per_word"] = 100.into();
                json["normalizer"] = json!({
                    "type": "BertNormalizer", "clean_text": true,
                    "handle_chinese_chars": settings.tokenize_chinese_chars,
                    "strip_accents": settings.strip_accents,
                    "lowercase": settings.do_lower_case.unwrap_or(true),
                });
                json["pre_tokenizer"] = json!({"type": "BertPreTokenizer"});
            }
            Class::Roberta => {
                let space = settings.add_prefix_space.unwrap_or(false);
                json["normalizer"] = Value::Null;
                json["pre_tokenizer"] = json!({"type": "ByteLevel", "add_prefix_space": space,
                    "trim_offsets": true, "use_regex": true});
                for (key, value) in [
                    ("continuing_subword_prefix", "".into()),
                    ("end_of_word_suffix", "".into()),
                    ("fuse_unk", false.into()),
                    ("dropout", Value::Null),
                    ("unk_token", Value::Null),
                    ("byte_fallback", false.into()),
                    ("ignore_merges", false.into()),
                ] {
                    json["model"][key] = value;
                }
            }
            Class::XlmRoberta => {
                json["model"]["unk_id"] = 3.into();
                json["model"]["byte_fallback"] = false.into();
                let charsmap = precompiled(&json["normalizer"]).cloned();
                json["normalizer"] = charsmap.unwrap_or(Value::Null);
                let always = settings.add_prefix_space.unwrap_or(true);
                json["pre_tokenizer"] = json!({"type": "Sequence", "pretokenizers": [
                    {"type": "WhitespaceSplit"},
                    {"type": "Metaspace", "replacement": "▁", "split": true,
                     "prepend_scheme": if always { "always" } else { "never" }},
                ]});
            }
        }
        json["post_processor"] = match self {
            Class::Roberta => json!({"type": "RobertaProcessing", "sep": [last, last_id],
                "cls": [first, first_id], "trim_offsets": true,
                "add_prefix_space": settings.add_prefix_space.unwrap_or(false)}),
            _ => around(first, first_id, last, last_id),
        };
        Some(())
    }
}

/// The post-processor that puts one token before a text and one after it.
pub(super) fn around(first: &str, first_id: u32, last: &str, last_id: u32) -> Value {
    let special = |token: &str| json!({"SpecialToken": {"id": token, "type_id": 0}});
    let text = |id: &str, kind: u32| json!({"Sequence": {"id": id, "type_id": kind}});
    let mut tokens = Map::new();
    for (token, id) in [(first, first_id), (last, last_id)] {
        tokens.insert(token.into(), json!({"id": token, "ids": [id], "tokens": [token]}));
    }
    json!({"type": "TemplateProcessing",
        "single": [special(first), text("A", 0), special(last)],
        "pair": [special(first), text("A", 0), special(last), text("B", 1), special(last)],
        "special_tokens": tokens})
}

/// The table of replacements in a normalizer.
fn precompiled(normalizer: &Value) -> Option<&Value> {
    match normalizer["type"].as_str()? {
        "Precompiled" => Some(normalizer),
        "Sequence" => normalizer["normalizers"].as_array()?.iter().find_map(precompiled),
        _ => None,
    }
}

/// The id of a token, by the vocabulary and the added tokens.
pub(super) fn id_of(json: &Value, token: &str) -> Option<u32> {
    let added = json["added_tokens"].as_array().into_iter().flatten();
    let id = added.filter(|added| added["content"] == token).find_map(|added| added["id"].as_u64());
    let id = id.or_else(|| match &json["model"]["vocab"] {
        Value::Object(vocab) => vocab.get(token)?.as_u64(),
        Value::Array(vocab) => {
            let at = vocab.iter().position(|piece| piece[0] == token || *piece == token)?;
            Some(at as u64)
        }
        _ => None,
    });
    id.and_then(|id| u32::try_from(id).ok())
}

fn is_added(json: &Value, content: &str) -> bool {
    let added = json["added_tokens"].as_array();
    added.is_some_and(|added| added.iter().any(|token| token["content"] == content))
}

/// The kind of a `tokenizer.json`'s model, which old files do not name.
fn model_kind(json: &Value) -> &str {
    let model = &json["model"];
    match model["type"].as_str() {
        Some(kind) => kind,
        None if model["merges"].is_array() => "BPE",
        None if model["vocab"].is_array() => "Unigram",
        None => "WordPiece",
    }
}

/// Rebuilds `json` by the class that the folder names, if it names one that has an arrangement.
pub(super) fn as_class_says(
    json: &mut Value,
    settings: &Settings,
    hf: &HfConfig,
    name: &dyn Fn(&str) -> String,
    changes: &mut Vec<String>,
    report: &mut Report,
) {
    if !settings.stated {
        return;
    }
    let named = settings.class.as_deref();
    let Some(class) = Class::of(settings, hf) else {
        if let Some(other) = named.filter(|class| OTHERS.contains(class)) {
            report.not_used(name(CONFIG), format!(
                "tokenizer_class {other}: munjang does not know how it arranges a tokenizer, and takes \
                 tokenizer.json as it stands"
            ));
        } else if let Some(other) = named.filter(|class| !AS_IT_STANDS.contains(class)) {
            changes.push(format!("as it stands, since {other} is no class of transformers"));
        }
        return;
    };
    let kind = model_kind(json).to_owned();
    if kind != class.model_kind() {
        report.not_used(name(CONFIG), format!(
            "tokenizer_class {}: it stands for {}, tokenizer.json holds {kind}; tokenizer.json is taken as it \
             stands",
            named.unwrap_or("(by default)"), class.model_kind()
        ));
        return;
    }
    let before = json.clone();
    if class.arrange(json, settings).is_none() {
        *json = before;
        report.not_used(
            name(CONFIG),
            "a special token around texts is not in the vocabulary; \
            tokenizer.json is taken as it stands",
        );
        return;
    }
    // Files leave out what is the default, so both are compared as the library reads them.
    for (part, what) in [
        ("normalizer", "normalizer"),
        ("pre_tokenizer", "word splitting"),
        ("post_processor", "special tokens around a text"),
    ] {
        if json[part] != before[part] {
            changes.push(format!("{what} by {}", named.unwrap_or("its default class")));
        }
    }
}

/// Adds the tokens that the folder's other files list, and takes over how they are found.
pub(super) fn add_tokens(
    json: &mut Value,
    settings: &Settings,
    hf: &HfConfig,
    name: &dyn Fn(&str) -> String,
    changes: &mut Vec<String>,
    report: &mut Report,
) {
    let mut wanted = settings.added.clone();
    let class = if settings.stated { Class::of(settings, hf) } else { None };
    let named = match class.filter(|class| model_kind(json) == class.model_kind()) {
        Some(class) => class.special_tokens(settings),
        None => settings.special.values().map(String::as_str).collect(),
    };
    for content in named {
        if !wanted.iter().any(|token| token["content"] == content) && !is_added(json, content) {
            wanted.push(added_token(None, content, None));
        }
    }
    if wanted.is_empty() {
        return;
    }
    let mut added = json["added_tokens"].as_array().cloned().unwrap_or_default();
    let mut next = added
        .iter()
        .filter_map(|token| token["id"].as_u64())
        .chain([highest_id(&json["model"]["vocab"])])
        .max()
        .unwrap_or(0)
        + 1;
    let mut changed = Vec::new();
    for token in &wanted {
        let content = token["content"].as_str().unwrap_or_default();
        let mut token = token.clone();
        let known = id_of(json, content);
        let id = known.map(u64::from).unwrap_or(next);
        if id >= hf.vocab_size as u64 {
            report.not_used(
                name(settings.added_in),
                format!("token {content:?}: the model has no row for its id {id}"),
            );
            continue;
        }
        if known.is_none() {
            next += 1;
        }
        token["id"] = id.into();
        match added.iter_mut().find(|other| other["content"] == content) {
            Some(other) if *other == token => continue,
            Some(other) => *other = token,
            None => added.push(token),
        }
        changed.push(content.to_owned());
    }
    if !changed.is_empty() {
        added.sort_by_key(|token| token["id"].as_u64());
        json["added_tokens"] = added.into();
        changes.push(format!("added tokens of {}: {}", settings.added_in, changed.join(" ")));
    }
}

fn highest_id(vocab: &Value) -> u64 {
    match vocab {
        Value::Object(vocab) => vocab.values().filter_map(Value::as_u64).max().unwrap_or(0),
        Value::Array(vocab) => vocab.len().saturating_sub(1) as u64,
        _ => 0,
    }
}

/// Whether a normalizer lowers the case.
pub(super) fn lowers(normalizer: &Value) -> bool {
    has_lowercase(normalizer)
        || normalizer["lowercase"] == true
        || normalizer["normalizers"].as_array().is_some_and(|parts| parts.iter().any(lowers))
}

/// Whether a normalizer has the step `Lowercase`.
fn has_lowercase(normalizer: &Value) -> bool {
    match normalizer["type"].as_str() {
        Some("Lowercase") => true,
        Some("Sequence") => normalizer["normalizers"]
            .as_array()
            .is_some_and(|parts| parts.iter().any(has_lowercase)),
        _ => false,
    }
}

/// Lowers the case before all else, as sentence-transformers does by `do_lower_case`; false if the
/// tokenizer has that step already.
pub(super) fn lowercase(json: &mut Value) -> bool {
    if has_lowercase(&json["normalizer"]) {
        return false;
    }
    let mut steps = vec![json!({"type": "Lowercase"})];
    match json["normalizer"].take() {
        Value::Null => {}
        sequence if sequence["type"] == "Sequence" => {
            steps.extend(sequence["normalizers"].as_array().cloned().unwrap_or_default());
        }
        one => steps.push(one),
    }
    json["normalizer"] = json!({"type": "Sequence", "normalizers": steps});
    true
}

/// munjang adds token type 0 to every token.
pub(super) fn check_token_types(json: &Value, hf: &HfConfig) -> Result<()> {
    fn other_type(post_processor: &Value) -> bool {
        let parts = post_processor["processors"].as_array().into_iter().flatten();
        let single = post_processor["single"].as_array().into_iter().flatten();
        let typed = |part: &Value| {
            ["SpecialToken", "Sequence"]
                .iter()
                .any(|&kind| part[kind]["type_id"].as_u64() > Some(0))
        };
        single.into_iter().any(typed) || parts.into_iter().any(other_type)
    }
    if hf.type_vocab_size > 1 && other_type(&json["post_processor"]) {
        return Err(Error::checkpoint_unsupported(
            "tokenizer.json: the post_processor gives tokens of a single text another type than 0; \
             munjang has token type 0 only",
        ));
    }
    Ok(())
}
