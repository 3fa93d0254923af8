//! The tokenizer of a checkpoint folder, as `transformers` 5 would build it: from `tokenizer.json`, or
//! from vocabulary files where there is none, arranged as the class says that `tokenizer_config.json`
//! names.

mod arrange;
mod sentencepiece;
mod settings;
mod vocabulary;

use std::path::Path;

use serde_json::Value;

use super::hf_config::HfConfig;
use super::read_file;
use super::report::Report;
use crate::config::TruncationSide;
use crate::error::{Error, Result};
use crate::tokenizer::Tokenizer;
use settings::Settings;

/// Largest tokenizer file: twelve times that of XLM-RoBERTa's 250,000 pieces.
const MAX_BYTES: u64 = 200 << 20;

/// What a folder says about text and ids.
pub(super) struct FolderTokenizer {
    /// A `tokenizer.json`.
    pub(super) json: Vec<u8>,
    /// The most tokens that it gives (`model_max_length`).
    pub(super) max_length: Option<usize>,
    pub(super) truncation_side: TruncationSide,
    /// Whether it lowers the case.
    pub(super) lowers: bool,
}

/// Reads the tokenizer of the Transformer module in `dir`. `lowercase` is sentence-transformers'
/// `do_lower_case`; `name` gives a file's name in the report.
pub(super) fn read(
    dir: &Path,
    hf: &HfConfig,
    lowercase: bool,
    name: &dyn Fn(&str) -> String,
    report: &mut Report,
) -> Result<FolderTokenizer> {
    let settings = Settings::read(dir, hf, name, report)?;
    let path = dir.join("tokenizer.json");
    let (mut bytes, mut json) = if path.exists() {
        let bytes = read_file(&path, MAX_BYTES)?;
        let json: Value = serde_json::from_slice(&bytes).map_err(|source| {
            let error = crate::Error::new(
                crate::ErrorKind::TokenizerInvalid,
                format!("{}: cannot read the tokenizer (tokenizer.json)", path.display()),
            );
            error.with_source(source)
        })?;
        vocabulary::refuse_disguised_pieces(&path, &json)?;
        (Some(bytes), json)
    } else {
        (None, vocabulary::read(dir, hf, &settings, name, report)?)
    };
    let mut changes = Vec::new();
    if bytes.is_some() {
        arrange::as_class_says(&mut json, &settings, hf, name, &mut changes, report);
    }
    arrange::add_tokens(&mut json, &settings, hf, name, &mut changes, report);
    if lowercase && arrange::lowercase(&mut json) {
        changes.push("lower case first (do_lower_case of sentence-transformers)".to_owned());
    }
    arrange::check_token_types(&json, hf)?;
    let stored_side = match json["truncation"]["direction"].as_str() {
        Some("Left") => TruncationSide::Left,
        _ => TruncationSide::Right,
    };
    let truncation_side = settings.truncation_side.unwrap_or(stored_side);
    if truncation_side == TruncationSide::Left {
        changes.push("texts beyond the limit lose their beginning (truncation side left)".into());
    }
    let changed = !changes.is_empty();
    if path.exists() {
        let what = if changed { changes.join("; ") } else { "as it stands".to_owned() };
        report.used(name("tokenizer.json"), what);
    }
    if changed || bytes.is_none() {
        bytes = Some(json.to_string().into_bytes());
    }
    let json_bytes = bytes.expect("read or made");
    Ok(FolderTokenizer {
        json: json_bytes,
        max_length: settings.max_length,
        truncation_side,
        lowers: arrange::lowers(&json["normalizer"]),
    })
}

/// Ordinary Korean, to see whether a tokenizer knows any.
const KOREAN: [&str; 6] = [
    "오늘은 날씨가 좋아서 공원에 갔다",
    "서울에서 부산까지 기차를 타고 갑니다",
    "이 영화는 정말 재미있었어요",
    "회사에서 회의가 있어 늦게 집에 왔습니다",
    "아이들이 학교에서 책을 읽고 있다",
    "비가 오면 우산을 가지고 나가세요",
];

/// How much of ordinary Korean text the tokenizer does not know: unknown tokens per hundred. `None`
/// if it names no unknown token.
pub(super) fn unknown_percent(json: &[u8], tokenizer: &Tokenizer) -> Result<Option<usize>> {
    let json: Value = serde_json::from_slice(json).map_err(|source| {
        Error::checkpoint_invalid(format!("cannot read the tokenizer: {source}"))
    })?;
    let model = &json["model"];
    let unknown = match (model["unk_id"].as_u64(), model["unk_token"].as_str()) {
        (Some(id), _) => id,
        (None, Some(token)) => match model["vocab"][token].as_u64() {
            Some(id) => id,
            None => return Ok(None),
        },
        (None, None) => return Ok(None),
    };
    let around = tokenizer.encode("")?.ids.len();
    let (mut unknowns, mut tokens) = (0, 0);
    for text in KOREAN {
        let ids = tokenizer.encode(text)?.ids;
        unknowns += ids.iter().filter(|&&id| u64::from(id) == unknown).count();
        tokens += ids.len().saturating_sub(around);
    }
    Ok(Some(100 * unknowns / tokens.max(1)))
}
