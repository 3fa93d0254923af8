//! Checks of sentencepiece's normalization table (`precompiled_charsmap`), which the crate
//! `spm_precompiled` inside of `tokenizers` reads unchecked: it panics on a table that is not whole,
//! while loading as while encoding, and reserves what the table says of its size.
//!
//! The table is base64 of: the size in bytes of a double-array trie (u32), the trie (u32 units), and
//! UTF-8 texts, each up to a NUL. A unit holds a label, whether a value follows, and how far off the
//! units of its children lie; the child for byte `b` is at that place XOR `b`. See
//! `DoubleArray` in darts-clone, which sentencepiece's `normalizer.cc` uses.

use serde_json::Value;

use crate::error::{Error, Result};

/// Units of a trie: sixteen times those of the largest that sentencepiece brings.
const MAX_UNITS: usize = 1 << 20;

/// Checks every table in a `normalizer`.
///
/// # Errors
/// [`ErrorKind::TokenizerInvalid`](crate::ErrorKind::TokenizerInvalid) with what is wrong.
pub(super) fn check(normalizer: &Value) -> Result<()> {
    match normalizer {
        Value::Array(parts) => parts.iter().try_for_each(check),
        Value::Object(fields) => {
            if fields.contains_key(FIELD) || fields.get("type").is_some_and(|t| t == "Precompiled")
            {
                check_table(fields.get(FIELD)).map_err(|what| {
                    Error::tokenizer_invalid(format!(
                        "the tokenizer's normalizer has a {FIELD} that {what}"
                    ))
                })?;
            }
            fields.values().try_for_each(check)
        }
        _ => Ok(()),
    }
}

const FIELD: &str = "precompiled_charsmap";

fn check_table(table: Option<&Value>) -> std::result::Result<(), &'static str> {
    let text = table.and_then(Value::as_str).ok_or("is not a text")?;
    let bytes = base64::decode(text).map_err(|_| "is not base64")?;
    let (size, rest) = bytes.split_first_chunk::<4>().ok_or("ends early")?;
    let units = u32::from_le_bytes(*size) as usize / 4;
    if units > MAX_UNITS {
        return Err("is larger than any of sentencepiece");
    }
    let (trie, texts) = rest.split_at_checked(4 * units).ok_or("ends early")?;
    let texts = std::str::from_utf8(texts).map_err(|_| "holds texts that are not UTF-8")?;
    let trie: Vec<u32> = trie.as_chunks().0.iter().map(|&unit| u32::from_le_bytes(unit)).collect();

    let children = |unit: u32| ((unit >> 10) as usize) << ((unit & (1 << 9)) >> 6);
    let has_value = |unit: u32| unit >> 8 & 1 == 1;
    let outside = "points outside of itself";
    let root = *trie.first().ok_or("is empty")?;
    let mut seen = vec![false; trie.len()];
    // Where the children of nodes begin; which were met.
    let mut open = vec![children(root)];
    while let Some(base) = open.pop() {
        // Every byte of a text but 0 is looked up there before its label is compared.
        if base | 0xFF >= trie.len() {
            return Err(outside);
        }
        if std::mem::replace(&mut seen[base], true) {
            continue;
        }
        for byte in 1..=0xFF {
            let unit = trie[base ^ byte];
            if unit & (1 << 31 | 0xFF) != byte as u32 {
                continue;
            }
            let below = base ^ byte ^ children(unit);
            open.push(below);
            if has_value(unit) {
                let value = *trie.get(below).ok_or(outside)? & !(1 << 31);
                if !texts.is_char_boundary(value as usize) {
                    return Err(outside);
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A table that maps `a` to `texts` from `value` on.
    fn table(value: u32, texts: &[u8]) -> Vec<u8> {
        let mut trie = vec![0u32; 512];
        // The root's children lie at 0 XOR byte, those of `a` at 256 XOR byte.
        trie[0] = 0;
        let b = b'a' as usize;
        trie[b] = b as u32 | 1 << 8 | ((256 ^ b) as u32) << 10;
        trie[256] = value | 1 << 31;
        let mut bytes = (4 * trie.len() as u32).to_le_bytes().to_vec();
        bytes.extend(trie.iter().flat_map(|unit| unit.to_le_bytes()));
        bytes.extend(texts);
        bytes
    }

    fn checked(bytes: &[u8]) -> std::result::Result<(), &'static str> {
        check_table(Some(&Value::String(base64::encode(bytes))))
    }

    #[test]
    fn whole_tables_are_taken_and_others_named() {
        checked(&table(2, b"x\0yz\0")).unwrap();
        assert_eq!(checked(&table(9, b"x\0yz\0")), Err("points outside of itself"));
        assert_eq!(checked(&table(1, "가".as_bytes())), Err("points outside of itself"));
        assert_eq!(checked(&table(0, &[0xFF])), Err("holds texts that are not UTF-8"));
        assert_eq!(checked(&table(0, b"")[..1000]), Err("ends early"));
        assert_eq!(checked(&[0, 0]), Err("ends early"));
        assert_eq!(checked(&[0; 4]), Err("is empty"));
        assert_eq!(checked(&[0xFF; 8]), Err("is larger than any of sentencepiece"));
        // A node whose children lie beyond the end.
        let mut far = table(0, b"x\0");
        far[4 + 4 * 'a' as usize + 2] = 0xFF;
        assert_eq!(checked(&far), Err("points outside of itself"));
        assert_eq!(check_table(Some(&Value::String("?".into()))), Err("is not base64"));
        assert_eq!(check_table(None), Err("is not a text"));
    }

    #[test]
    fn tables_are_found_wherever_a_normalizer_has_them() {
        let bad = serde_json::json!({"type": "Precompiled", "precompiled_charsmap": "?"});
        let within = serde_json::json!({"type": "Sequence", "normalizers": [{"type": "NFC"}, bad]});
        for normalizer in [&bad, &within, &serde_json::json!({"type": "Precompiled"})] {
            let error = check(normalizer).unwrap_err();
            assert!(error.to_string().contains(FIELD), "{error}");
        }
        check(&serde_json::json!({"type": "NFC"})).unwrap();
        check(&Value::Null).unwrap();
    }

    /// What the check lets pass, `tokenizers` can use: every byte of a small table changed by turns.
    #[test]
    fn what_passes_does_not_panic() {
        let whole = table(2, "x\0가나\0".as_bytes());
        let mut passed = 0;
        for at in 0..whole.len() {
            for change in [0x01, 0x40, 0xFF] {
                let mut bytes = whole.clone();
                bytes[at] ^= change;
                if checked(&bytes).is_err() {
                    continue;
                }
                passed += 1;
                let json = serde_json::json!({
                    "normalizer": {"type": "Precompiled", "precompiled_charsmap": base64::encode(&bytes)},
                    "model": {"type": "WordPiece", "vocab": {"a": 0, "[UNK]": 1}, "unk_token": "[UNK]",
                        "continuing_subword_prefix": "##", "max_input_chars_per_word": 100}
                });
                let tokenizer = tokenizers::Tokenizer::from_bytes(json.to_string()).unwrap();
                for text in ["a", "aa가b", "\u{7f}~é\u{10ffff}aé"] {
                    tokenizer.encode(text, false).unwrap();
                }
            }
        }
        assert!(passed > 100, "{passed}");
    }
}
