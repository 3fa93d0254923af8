//! A `tokenizer.json` from vocabulary files: BERT's `vocab.txt`, RoBERTa's `vocab.json` and
//! `merges.txt`, XLM-RoBERTa's and KoBERT's sentencepiece models.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::MAX_BYTES;
use super::arrange::{Class, around};
use super::sentencepiece::{Model, Piece, PieceKind, WORD_START};
use super::settings::Settings;
use crate::config::limits;
use crate::convert::hf_config::HfConfig;
use crate::convert::read_file;
use crate::convert::report::Report;
use crate::error::{Error, Result};

/// What `AutoTokenizer` writes, for messages.
const HOW_TO_WRITE: &str =
    "AutoTokenizer.from_pretrained(…).save_pretrained(…) writes the expected file";

/// The tokenizer of a folder without `tokenizer.json`.
pub(super) fn read(
    dir: &Path,
    hf: &HfConfig,
    settings: &Settings,
    name: &dyn Fn(&str) -> String,
    report: &mut Report,
) -> Result<Value> {
    let vocab = dir.join("vocab.txt");
    if vocab.exists() {
        let lines = read_lines(&vocab)?;
        if !are_pieces(lines.iter().map(String::as_str)) {
            report
                .used(name("vocab.txt"), format!("WordPiece vocabulary of {} tokens", lines.len()));
            return word_piece(&vocab, lines, settings, hf);
        }
        let (path, model) = piece_model(dir)?.ok_or_else(|| Error::checkpoint_invalid(format!(
            "{} holds pieces of a sentencepiece model (▁ begins words, as KoBERT's and DistilKoBERT's do), \
             not a WordPiece vocabulary, and no readable .model file lies beside it; put the one of this \
             vocabulary there, such as tokenizer_78b3253a26.model",
            vocab.display()
        )))?;
        report.used(name("vocab.txt"), format!("ids of {} sentencepiece pieces", lines.len()));
        report.used(name(&file_name(&path)), "scores of the pieces, normalization");
        return kobert(&vocab, &path, lines, &model, settings, name, report);
    }
    if let Some((path, model)) = piece_model(dir)? {
        report.used(
            name(&file_name(&path)),
            format!("sentencepiece model of {} pieces", model.pieces.len()),
        );
        let has = |text: &str| model.pieces.iter().any(|piece| piece.text == text);
        if has("[CLS]") && has("[SEP]") {
            let lines = model.pieces.iter().map(|piece| piece.text.clone()).collect();
            return kobert(&path, &path, lines, &model, settings, name, report);
        }
        if Class::of(settings, hf) == Some(Class::XlmRoberta) {
            return xlm_roberta(&path, &model, settings);
        }
        return Err(Error::checkpoint_unsupported(format!(
            "{}: munjang reads the sentencepiece models of XLM-RoBERTa and KoBERT, not of {}: {HOW_TO_WRITE}",
            path.display(),
            settings.class.as_deref().unwrap_or(&hf.model_type)
        )));
    }
    let (vocab, merges) = (dir.join("vocab.json"), dir.join("merges.txt"));
    if vocab.exists() && merges.exists() && Class::of(settings, hf) == Some(Class::Roberta) {
        report.used(name("vocab.json"), "BPE vocabulary");
        report.used(name("merges.txt"), "BPE merges");
        return byte_level_bpe(&vocab, &merges, settings);
    }
    Err(Error::checkpoint_invalid(format!(
        "{} has no tokenizer.json, nor a vocabulary that munjang knows (vocab.txt; vocab.json with \
         merges.txt; a sentencepiece .model): {HOW_TO_WRITE}",
        dir.display()
    )))
}

/// Refuses a WordPiece over the pieces of a sentencepiece model: what `AutoTokenizer` makes of
/// KoBERT's folder. Nearly every Korean word is unknown to it.
pub(super) fn refuse_disguised_pieces(path: &Path, json: &Value) -> Result<()> {
    let vocab = json["model"]["vocab"].as_object();
    let Some(vocab) = vocab.filter(|_| json["model"]["type"] == "WordPiece") else { return Ok(()) };
    if are_pieces(vocab.keys().map(String::as_str)) {
        return Err(Error::checkpoint_invalid(format!(
            "{} is a WordPiece tokenizer over the pieces of a sentencepiece model (▁ begins words), as \
             AutoTokenizer makes it of KoBERT's vocab.txt: it knows almost no Korean word. Take it out of \
             the folder and put vocab.txt and its .model (such as tokenizer_78b3253a26.model) there",
            path.display()
        )));
    }
    Ok(())
}

/// Whether tokens are pieces of a sentencepiece model rather than WordPiece's: some begin with ▁, and
/// none, or far fewer, with `##`.
fn are_pieces<'a>(tokens: impl Iterator<Item = &'a str>) -> bool {
    let (mut begin_words, mut go_on) = (0, 0);
    for token in tokens {
        begin_words +=
            usize::from(token.len() > WORD_START.len_utf8() && token.starts_with(WORD_START));
        go_on += usize::from(token.len() > 2 && token.starts_with("##"));
    }
    begin_words > 0 && begin_words > 4 * go_on
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The lines of a vocabulary, one token each, as Python's `readlines` cuts them.
fn read_lines(path: &Path) -> Result<Vec<String>> {
    let text = String::from_utf8(read_file(path, MAX_BYTES)?)
        .map_err(|_| Error::checkpoint_invalid(format!("{} is not UTF-8", path.display())))?;
    let lines: Vec<String> = text.lines().map(str::to_owned).collect();
    if lines.is_empty() || lines.len() > limits::VOCAB_SIZE {
        return Err(Error::checkpoint_invalid(format!(
            "{} has {} lines; expected 1 to {} tokens, one a line",
            path.display(),
            lines.len(),
            limits::VOCAB_SIZE
        )));
    }
    Ok(lines)
}

/// The sentencepiece model of a folder: the first readable one by name. What is no model (an empty
/// file, a Git LFS pointer) is an error only if there is no other.
fn piece_model(dir: &Path) -> Result<Option<(PathBuf, Model)>> {
    let entries = std::fs::read_dir(dir)
        .map_err(|source| Error::io(format!("cannot read {}", dir.display()), source))?;
    let is_model = |path: &PathBuf| {
        let extension = path.extension().and_then(|extension| extension.to_str());
        matches!(extension, Some("model" | "spiece" | "spm"))
    };
    let mut paths: Vec<PathBuf> =
        entries.flatten().map(|entry| entry.path()).filter(is_model).collect();
    paths.sort();
    let mut first_error = None;
    for path in paths {
        match Model::parse(&read_file(&path, MAX_BYTES)?) {
            Ok(model) => return Ok(Some((path, model))),
            Err(error) => {
                let error = Error::new(error.kind(), format!("{}: {error}", path.display()));
                first_error.get_or_insert(error);
            }
        }
    }
    first_error.map_or(Ok(None), Err)
}

/// The outline of a `tokenizer.json` around `model`.
fn outline(model: Value, added: &[(&str, u32)]) -> Value {
    let mut added: Vec<(&str, u32)> = added.to_vec();
    added.sort_by_key(|&(_, id)| id);
    added.dedup();
    let added: Vec<Value> = added
        .into_iter()
        .map(|(content, id)| super::settings::added_token(Some(id), content, None))
        .collect();
    json!({"version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
        "normalizer": null, "pre_tokenizer": null, "post_processor": null, "decoder": null, "model": model})
}

/// Named special tokens that are in `ids`.
fn special<'a>(
    class: Class,
    settings: &'a Settings,
    ids: &HashMap<String, u32>,
) -> Vec<(&'a str, u32)> {
    ["unk_token", "pad_token", "cls_token", "sep_token", "mask_token"]
        .iter()
        .map(|name| class.token(settings, name))
        .filter_map(|token| Some((token, *ids.get(token)?)))
        .collect()
}

/// The last of several lines that are the same counts, as in transformers.
fn ids_of(lines: &[String]) -> HashMap<String, u32> {
    lines.iter().enumerate().map(|(id, line)| (line.clone(), id as u32)).collect()
}

fn word_piece(
    path: &Path,
    lines: Vec<String>,
    settings: &Settings,
    hf: &HfConfig,
) -> Result<Value> {
    // A vocab.txt is BERT's whatever the model's type: klue/roberta has one.
    let class = match Class::of(settings, hf) {
        Some(Class::Roberta | Class::XlmRoberta) | None => Class::Bert,
        Some(class) => class,
    };
    let ids = ids_of(&lines);
    let special = special(class, settings, &ids);
    let mut json = outline(json!({"type": "WordPiece", "vocab": ids}), &special);
    class.arrange(&mut json, settings).ok_or_else(|| no_frame(path, class, settings))?;
    Ok(json)
}

fn no_frame(path: &Path, class: Class, settings: &Settings) -> Error {
    Error::checkpoint_invalid(format!(
        "{} has no {:?} or no {:?}, the special tokens around a text",
        path.display(),
        class.token(settings, "cls_token"),
        class.token(settings, "sep_token")
    ))
}

fn byte_level_bpe(vocab: &Path, merges: &Path, settings: &Settings) -> Result<Value> {
    let ids: HashMap<String, u32> =
        serde_json::from_slice(&read_file(vocab, MAX_BYTES)?).map_err(|source| {
            Error::checkpoint_invalid(format!("{} is no table of tokens and ids", vocab.display()))
                .with_source(source)
        })?;
    let lines = read_lines(merges)?;
    let pairs: Vec<Value> = lines
        .iter()
        .map(|line| line.trim())
        .filter(|line| !line.is_empty() && !line.starts_with("#version"))
        .map(|line| match line.split_once(' ') {
            Some((left, right)) => Ok(json!([left, right])),
            None => Err(Error::checkpoint_invalid(format!(
                "{}: {line:?}; expected two parts",
                merges.display()
            ))),
        })
        .collect::<Result<_>>()?;
    let special = special(Class::Roberta, settings, &ids);
    let mut json = outline(json!({"type": "BPE", "vocab": ids, "merges": pairs}), &special);
    Class::Roberta
        .arrange(&mut json, settings)
        .ok_or_else(|| no_frame(vocab, Class::Roberta, settings))?;
    Ok(json)
}

/// `<s> <pad> </s> <unk>`, the pieces from the fourth on, `<mask>`.
fn xlm_roberta(path: &Path, model: &Model, settings: &Settings) -> Result<Value> {
    let mut vocab: Vec<Value> =
        ["<s>", "<pad>", "</s>", "<unk>"].iter().map(|token| json!([token, 0.0])).collect();
    vocab.extend(model.pieces.iter().skip(3).map(|piece| json!([piece.text, piece.score])));
    vocab.push(json!(["<mask>", 0.0]));
    let ids =
        [("<s>", 0), ("<pad>", 1), ("</s>", 2), ("<unk>", 3), ("<mask>", vocab.len() as u32 - 1)];
    let mut json = outline(json!({"type": "Unigram", "unk_id": 3, "vocab": vocab}), &ids);
    if !model.charsmap.is_empty() {
        json["normalizer"] = model.normalizer(Vec::new())["normalizers"][0].clone();
    }
    Class::XlmRoberta
        .arrange(&mut json, settings)
        .ok_or_else(|| no_frame(path, Class::XlmRoberta, settings))?;
    Ok(json)
}

/// KoBERT: pieces by a sentencepiece model, ids by the lines of `vocab.txt`, `[CLS]` and `[SEP]` around
/// a text; case, accents and blanks as `KoBertTokenizer` treats them.
fn kobert(
    vocab_path: &Path,
    model_path: &Path,
    lines: Vec<String>,
    model: &Model,
    settings: &Settings,
    name: &dyn Fn(&str) -> String,
    report: &mut Report,
) -> Result<Value> {
    let ids = ids_of(&lines);
    let frame = special(Class::Bert, settings, &ids);
    let of = |name: &str| {
        let token = Class::Bert.token(settings, name);
        ids.get(token).map(|&id| (token, id)).ok_or_else(|| {
            Error::checkpoint_invalid(format!(
                "{} has no {token:?}, the {name}",
                vocab_path.display()
            ))
        })
    };
    let (first, last, unknown) = (of("cls_token")?, of("sep_token")?, of("unk_token")?);
    let pieces: HashMap<&str, &Piece> =
        model.pieces.iter().map(|piece| (piece.text.as_str(), piece)).collect();
    let is_text = |piece: &Piece| {
        matches!(piece.kind, PieceKind::Normal | PieceKind::UserDefined | PieceKind::Byte)
    };
    let frame_tokens: HashSet<&str> = frame.iter().map(|&(token, _)| token).collect();
    let outside: Vec<&str> = model
        .pieces
        .iter()
        .filter(|piece| is_text(piece) && !ids.contains_key(&piece.text))
        .map(|piece| piece.text.as_str())
        .collect();
    let mut vocab = Vec::with_capacity(lines.len());
    let mut strangers = Vec::new();
    let mut added = frame.clone();
    for (id, line) in lines.iter().enumerate() {
        let piece = pieces.get(line.as_str());
        let score = match piece {
            Some(piece) if piece.kind == PieceKind::Normal || piece.kind == PieceKind::Byte => {
                piece.score
            }
            _ => 0.0,
        };
        match piece {
            Some(piece) if is_text(piece) => {}
            // A control piece, or BERT's own tokens: never found inside a text.
            _ if frame_tokens.contains(line.as_str()) || piece.is_some() => {
                added.push((line, id as u32));
            }
            _ => strangers.push(line.as_str()),
        }
        if piece.is_some_and(|piece| piece.kind == PieceKind::UserDefined) {
            added.push((line, id as u32));
        }
        vocab.push(json!([line, score]));
    }
    if !strangers.is_empty() || !outside.is_empty() {
        let shown: Vec<&str> = strangers.iter().chain(&outside).take(4).copied().collect();
        return Err(Error::checkpoint_invalid(format!(
            "{} and {} do not belong together: {} tokens of the one are not in the other, {} of the other not \
             in the one ({} …)",
            vocab_path.display(),
            model_path.display(),
            strangers.len(),
            outside.len(),
            shown.join(" ")
        )));
    }
    let splits = |piece: &&Piece| {
        let mut end = piece.text.chars().rev();
        end.next() == Some(',') && end.next().is_some_and(|c| c.is_ascii_digit())
    };
    let count = model.pieces.iter().filter(splits).count();
    if count > 0 {
        report.not_used(name(&file_name(model_path)), format!(
            "KoBertTokenizer cuts {count} pieces of a digit and a comma once more; munjang keeps them whole"
        ));
    }
    let mut json = outline(
        json!({"type": "Unigram", "unk_id": unknown.1, "byte_fallback": model.byte_fallback,
            "vocab": vocab}),
        &added,
    );
    let mut first_steps = Vec::new();
    if settings.remove_space {
        first_steps.push(json!({"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "}));
        first_steps.push(json!({"type": "Strip", "strip_left": true, "strip_right": true}));
    }
    for quotes in ["``", "''"] {
        first_steps
            .push(json!({"type": "Replace", "pattern": {"String": quotes}, "content": "\""}));
    }
    if !settings.keep_accents {
        first_steps.extend([json!({"type": "NFKD"}), json!({"type": "StripAccents"})]);
    }
    if settings.do_lower_case == Some(true) {
        first_steps.push(json!({"type": "Lowercase"}));
    }
    json["normalizer"] = model.normalizer(first_steps);
    json["pre_tokenizer"] = json!({"type": "Metaspace", "replacement": "▁", "split": true,
        "prepend_scheme": if model.add_dummy_prefix { "always" } else { "never" }});
    json["post_processor"] = around(first.0, first.1, last.0, last.1);
    Ok(json)
}
