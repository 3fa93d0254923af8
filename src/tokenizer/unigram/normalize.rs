//! Normalization of a text before it is cut into pieces.

use std::borrow::Cow;

use serde_json::Value;
use unicode_normalization_alignments::UnicodeNormalization;

/// A step of normalization.
#[derive(Debug, PartialEq)]
pub(super) enum Step {
    /// Replaces each of the characters (sorted) by a text.
    ReplaceAny(Vec<char>, String),
    /// Replaces a text by another.
    Replace(String, String),
    /// Makes one blank of several.
    CollapseBlanks,
    Nfc,
    Nfkc,
    Strip {
        left: bool,
        right: bool,
    },
}

/// Appends the steps of a `normalizer`; `None` if there is one that is not known.
pub(super) fn read_normalizer(json: &Value, steps: &mut Vec<Step>) -> Option<()> {
    if json.is_null() {
        return Some(());
    }
    let step = match json["type"].as_str()? {
        "Sequence" => {
            return json["normalizers"]
                .as_array()?
                .iter()
                .try_for_each(|part| read_normalizer(part, steps));
        }
        "NFC" => Step::Nfc,
        "NFKC" => Step::Nfkc,
        "Strip" => Step::Strip {
            left: json["strip_left"].as_bool()?,
            right: json["strip_right"].as_bool()?,
        },
        "Replace" => {
            let by = json["content"].as_str()?.to_owned();
            match (json["pattern"]["String"].as_str(), json["pattern"]["Regex"].as_str()) {
                (Some(text), None) if !text.is_empty() => Step::Replace(text.to_owned(), by),
                (None, Some(" {2,}")) if by == " " => Step::CollapseBlanks,
                (None, Some(set)) => Step::ReplaceAny(read_set(set)?, by),
                _ => return None,
            }
        }
        _ => return None,
    };
    steps.push(step);
    Some(())
}

/// The characters of a pattern like `[\x{1}\x{200B}]`, sorted.
fn read_set(pattern: &str) -> Option<Vec<char>> {
    let mut rest = pattern.strip_prefix('[')?.strip_suffix(']')?;
    let mut chars = Vec::new();
    while !rest.is_empty() {
        let (hex, tail) = rest.strip_prefix("\\x{")?.split_once('}')?;
        chars.push(char::from_u32(u32::from_str_radix(hex, 16).ok()?)?);
        rest = tail;
    }
    chars.sort_unstable();
    (!chars.is_empty()).then_some(chars)
}

/// `text` after all `steps`.
pub(super) fn normalize<'a>(steps: &[Step], text: &'a str) -> Cow<'a, str> {
    // Neither composition touches text of ASCII and whole syllables only.
    let mut inert = text.chars().all(|c| c.is_ascii() || matches!(c, '가'..='힣'));
    let mut text = Cow::Borrowed(text);
    for step in steps {
        match step {
            Step::ReplaceAny(chars, by) => {
                // The sets in use hold controls and exotic blanks; a glance spares the search.
                let ordinary = |c| matches!(c, ' '..='~' | '가'..='힣');
                let hit = |c: char| {
                    (!ordinary(c) || chars.iter().any(|&found| ordinary(found)))
                        && chars.binary_search(&c).is_ok()
                };
                if let Some(at) = text.find(hit) {
                    let mut replaced = String::with_capacity(text.len());
                    replaced.push_str(&text[..at]);
                    for c in text[at..].chars() {
                        if hit(c) { replaced.push_str(by) } else { replaced.push(c) }
                    }
                    inert &= by.is_ascii();
                    text = Cow::Owned(replaced);
                }
            }
            Step::Replace(from, by) => {
                if text.contains(from.as_str()) {
                    text = Cow::Owned(text.replace(from.as_str(), by));
                    inert &= by.is_ascii();
                }
            }
            Step::CollapseBlanks => {
                if text.contains("  ") {
                    let mut collapsed = String::with_capacity(text.len());
                    let mut after_blank = false;
                    for c in text.chars() {
                        if c != ' ' || !after_blank {
                            collapsed.push(c);
                        }
                        after_blank = c == ' ';
                    }
                    text = Cow::Owned(collapsed);
                }
            }
            Step::Nfc if !inert => text = Cow::Owned(text.nfc().map(|(c, _)| c).collect()),
            Step::Nfkc if !inert => text = Cow::Owned(text.nfkc().map(|(c, _)| c).collect()),
            Step::Nfc | Step::Nfkc => {}
            Step::Strip { left, right } => {
                let mut kept: &str = &text;
                if *left {
                    kept = kept.trim_start();
                }
                if *right {
                    kept = kept.trim_end();
                }
                if kept.len() < text.len() {
                    text = Cow::Owned(kept.to_owned());
                }
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_read_or_refused() {
        assert_eq!(read_set(r"[\x{200B}\x{1}]"), Some(vec!['\u{1}', '\u{200B}']));
        for other in [r"[^\x{1}]", r"[\x{1}-\x{5}]", "[]", r"[a]", r"\x{1}", r"[\x{D800}]"] {
            assert_eq!(read_set(other), None, "{other}");
        }
    }
}
