//! The files of a folder that nothing reads.

use std::path::Path;

use super::report::Report;
use crate::error::{Error, Result};

/// Most files that are named one by one.
const MAX_NAMED: usize = 40;

/// transformers loads an adapter that lies in a folder on top of the weights.
pub(super) fn refuse_adapter(dir: &Path) -> Result<()> {
    let path = dir.join("adapter_config.json");
    if path.exists() {
        return Err(Error::checkpoint_unsupported(format!(
            "{}: the folder holds an adapter, which changes the weights; merge it (merge_and_unload of peft), \
             save the model, and convert that folder",
            path.display()
        )));
    }
    Ok(())
}

/// Says about every file at most two folders deep what it is, if the report does not yet.
/// `transformer` is what the names of the Transformer's files begin with.
pub(super) fn report_others(dir: &Path, transformer: &str, report: &mut Report) -> Result<()> {
    let mut files = Vec::new();
    list(dir, "", 2, &mut files)?;
    files.sort();
    let mut unknown = Vec::new();
    let mut not_needed = Vec::new();
    for file in files {
        if report.names(&file) {
            continue;
        }
        let name = file.strip_prefix(transformer).unwrap_or(&file);
        if is_not_needed(name) { not_needed.push(file) } else { unknown.push(file) }
    }
    if !not_needed.is_empty() {
        let more = not_needed.len().saturating_sub(MAX_NAMED);
        not_needed.truncate(MAX_NAMED);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        report.not_needed(not_needed.join(", ") + &more, "");
    }
    let more = unknown.len().saturating_sub(MAX_NAMED);
    for file in unknown.into_iter().take(MAX_NAMED) {
        report.not_used(file, "munjang does not know this file");
    }
    if more > 0 {
        report.not_used(format!("{more} more files"), "munjang does not know them");
    }
    Ok(())
}

fn list(dir: &Path, inside: &str, depth: usize, files: &mut Vec<String>) -> Result<()> {
    let entries = std::fs::read_dir(dir)
        .map_err(|source| Error::io(format!("cannot read {}", dir.display()), source))?;
    for entry in entries.flatten() {
        let name = format!("{inside}{}", entry.file_name().to_string_lossy());
        let path = entry.path();
        if !path.is_dir() {
            files.push(name);
        } else if entry.file_name().to_string_lossy().starts_with('.') {
            // A version control's or a download's own.
        } else if depth > 0 && !SKIPPED_FOLDERS.contains(&name.as_str()) {
            list(&path, &format!("{name}/"), depth - 1, files)?;
        } else {
            files.push(format!("{name}/"));
        }
    }
    Ok(())
}

/// Folders of other forms of the same weights.
const SKIPPED_FOLDERS: [&str; 6] = ["onnx", "openvino", "coreml", "eval", "runs", "checkpoints"];

/// Names of files that say nothing about sentence embeddings, or the same in another form.
fn is_not_needed(file: &str) -> bool {
    const NAMES: [&str; 34] = [
        "onnx/",
        "openvino/",
        "coreml/",
        "eval/",
        "runs/",
        "checkpoints/",
        ".DS_Store",
        ".gitattributes",
        ".gitignore",
        "LICENSE",
        "NOTICE",
        "README",
        "added_tokens.json",
        "chat_template.jinja",
        "config_sentence_transformers.json.bak",
        "flax_model.msgpack",
        "generation_config.json",
        "merges.txt",
        "model.onnx",
        "modules.json.bak",
        "optimizer.pt",
        "pytorch_model.bin",
        "pytorch_model.bin.index.json",
        "rust_model.ot",
        "scheduler.pt",
        "special_tokens_map.json",
        "tf_model.h5",
        "tokenizer.model",
        "trainer_state.json",
        "training_args.bin",
        "train_script.py",
        "vocab.json",
        "vocab.txt",
        "similarity_evaluation_results.csv",
    ];
    const ENDS: [&str; 14] = [
        ".md", ".rst", ".pdf", ".png", ".jpg", ".jpeg", ".gif", ".svg", ".csv", ".log", ".model",
        ".spiece", ".h5", ".ot",
    ];
    let name = file.rsplit('/').next().unwrap_or(file);
    NAMES.contains(&file)
        || NAMES.contains(&name)
        || ENDS.iter().any(|end| name.ends_with(end))
        // Shards of weights that were read in another form.
        || (name.starts_with("pytorch_model-") && name.ends_with(".bin"))
        || (name.starts_with("model-") && name.ends_with(".safetensors"))
        || name.starts_with("events.out.tfevents")
        || name.starts_with("rng_state")
}
