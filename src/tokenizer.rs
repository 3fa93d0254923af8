//! Text to token ids: our own Unigram, or the crate `tokenizers` where that does not suffice, behind a
//! small face that bounds the work, truncates as Hugging Face does and reports what it cut.
//!
//! Without the feature `general-tokenizers` there is only our own, and other tokenizers give
//! [`ErrorKind::TokenizerUnsupported`].

mod compact;
#[cfg(feature = "general-tokenizers")]
mod general;
mod unigram;

use std::borrow::Cow;

use serde_json::Value;
use unicode_normalization_alignments::UnicodeNormalization;

use compact::Compact;
#[cfg(feature = "general-tokenizers")]
use general::General;
use unigram::Unigram;

use crate::error::{Error, ErrorKind, Result};

/// The ids of one text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoding {
    /// Token ids, special tokens included; at most the tokenizer's `max_tokens`.
    pub ids: Vec<u32>,
    /// How many tokens the text has without truncation, special tokens included. Exact for texts
    /// of up to [`Tokenizer::window_chars`] characters; of longer ones only the beginning is read,
    /// and this counts what was read: at least `max_tokens + 1`, and a lower bound of the text's
    /// count. [`Tokenizer::count_tokens`] reads everything.
    pub token_count: usize,
}

impl Encoding {
    /// Whether tokens were cut off to fit the model.
    pub fn is_truncated(&self) -> bool {
        self.ids.len() < self.token_count
    }
}

/// Turns text into token ids, prefix and special tokens included.
///
/// Text with conjoining jamo (Hangul in NFD, as macOS file names have it) is composed to NFC first,
/// so that both spellings get the same ids whatever the tokenizer's own normalizer does.
pub struct Tokenizer {
    kind: Kind,
    prefix: String,
    max_tokens: usize,
    /// Special tokens before and after the text's own, such as `[CLS]` and `[SEP]`.
    leading: Vec<u32>,
    trailing: Vec<u32>,
    vocab_size: usize,
}

/// Characters read for each token that the model can take, before it is known how many tokens the
/// text has. Korean text has about two characters a token, English four or five.
const WINDOW_CHARS_PER_TOKEN: usize = 8;

/// Tokens that must follow the kept ones before a cut text is trusted: the last tokens before a cut
/// may differ from those of the whole text (half a word; in a Unigram tokenizer without word
/// boundaries a choice that later text decides), those this far away do not.
const GUARD_TOKENS: usize = 64;

/// Characters counted at once by [`Tokenizer::count_tokens`].
const COUNT_CHARS: usize = 8192;

/// By what the window grows if it held too few tokens (long runs of blanks, of combining marks, or
/// of one "word" that is a single token).
const WINDOW_GROWTH: usize = 4;

impl Tokenizer {
    /// Reads a `tokenizer.json`, or what [`compact`] made of one. `prefix` is put before every
    /// text; `max_tokens` is the most ids that [`encode`](Self::encode) returns. Truncation and
    /// padding that the file itself asks for are ignored.
    ///
    /// # Errors
    /// [`ErrorKind::TokenizerInvalid`] if the file is not a tokenizer of a kind that munjang runs
    /// (Unigram, WordPiece, BPE), or if its special tokens alone exceed `max_tokens`;
    /// [`ErrorKind::TokenizerUnsupported`] if it is of such a kind, but this build leaves that out.
    pub fn from_bytes(bytes: &[u8], prefix: &str, max_tokens: usize) -> Result<Self> {
        let compact = if compact::is_compact(bytes) {
            Some(Compact::from_bytes(bytes)?)
        } else {
            Compact::from_json(bytes)
        };
        let Some(compact) = compact else {
            return Self::from_general_json(bytes, prefix, max_tokens);
        };
        let Some(unigram) = Unigram::new(&compact) else {
            return Self::from_general_json(&compact.to_json(), prefix, max_tokens);
        };
        Self::new(Kind::Unigram(unigram), &compact.json["post_processor"], prefix, max_tokens)
    }

    /// By way of `tokenizers`, whatever the kind.
    #[cfg(feature = "general-tokenizers")]
    fn from_general_json(json: &[u8], prefix: &str, max_tokens: usize) -> Result<Self> {
        #[derive(serde::Deserialize)]
        struct Frame {
            #[serde(default)]
            post_processor: Value,
        }
        let kind = Kind::General(Box::new(General::from_json(json)?));
        let frame: Frame = serde_json::from_slice(json)
            .map_err(|source| invalid(format!("cannot read the tokenizer: {source}")))?;
        Self::new(kind, &frame.post_processor, prefix, max_tokens)
    }

    /// Tells what is a tokenizer, and would be one of a build with `tokenizers`, from what is none.
    #[cfg(not(feature = "general-tokenizers"))]
    fn from_general_json(json: &[u8], _prefix: &str, _max_tokens: usize) -> Result<Self> {
        #[derive(serde::Deserialize)]
        struct Outline {
            model: Model,
        }
        #[derive(serde::Deserialize)]
        struct Model {
            #[serde(rename = "type", default)]
            kind: String,
        }
        let outline: Outline = serde_json::from_slice(json).map_err(|source| {
            invalid(format!("cannot read the tokenizer (tokenizer.json): {source}"))
        })?;
        let kind = match outline.model.kind {
            kind if kind == "WordLevel" => return Err(word_level()),
            // `tokenizers` can do without the name.
            kind if kind.is_empty() => "unnamed".to_owned(),
            kind => kind,
        };
        Err(Error::new(
            ErrorKind::TokenizerUnsupported,
            format!(
                "the tokenizer ({kind}) asks for more than this build of munjang has: it runs Unigram \
                 tokenizers of the common arrangement only; use a build with the feature \
                 general-tokenizers"
            ),
        ))
    }

    fn new(kind: Kind, post_processor: &Value, prefix: &str, max_tokens: usize) -> Result<Self> {
        let (mut leading, mut trailing) = (Vec::new(), Vec::new());
        special_tokens(post_processor, &mut leading, &mut trailing)?;
        if leading.len() + trailing.len() >= max_tokens {
            return Err(invalid(format!(
                "the tokenizer adds {} special tokens to a text, the model takes at most {max_tokens} tokens",
                leading.len() + trailing.len(),
            )));
        }
        let vocab_size = leading
            .iter()
            .chain(&trailing)
            .map(|&id| id as usize + 1)
            .fold(kind.vocab_size(), usize::max);
        Ok(Tokenizer { kind, prefix: prefix.to_owned(), max_tokens, leading, trailing, vocab_size })
    }

    /// The ids of `text`: prefix, text and special tokens, cut to `max_tokens` on the right with
    /// the special tokens kept. Time and memory are bounded by `max_tokens`, not by the text, save
    /// for texts of almost no tokens (a million blanks), which are read whole.
    ///
    /// # Errors
    /// [`ErrorKind::TokenizerInvalid`] if the tokenizer has no way to encode it.
    pub fn encode(&self, text: &str) -> Result<Encoding> {
        let room = self.max_tokens - self.leading.len() - self.trailing.len();
        let mut chars = self.window_chars();
        let tokens = loop {
            let window = cut(text, chars);
            let tokens = self.tokens(&self.prefix, window, has_conjoining_jamo(text))?;
            if window.len() == text.len() || tokens.len() >= room + GUARD_TOKENS {
                break tokens;
            }
            chars = chars.saturating_mul(WINDOW_GROWTH);
        };
        let kept = tokens.len().min(room);
        let mut ids = Vec::with_capacity(self.leading.len() + kept + self.trailing.len());
        ids.extend_from_slice(&self.leading);
        ids.extend_from_slice(&tokens[..kept]);
        ids.extend_from_slice(&self.trailing);
        Ok(Encoding { ids, token_count: self.leading.len() + tokens.len() + self.trailing.len() })
    }

    /// Tokens of the whole of `text`, prefix and special tokens included, whatever the model can
    /// take. Long texts are counted window by window, cut at blanks, so memory stays bounded; in a
    /// run of thousands of characters without a blank each cut may add a token or two.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    pub fn count_tokens(&self, text: &str) -> Result<usize> {
        let compose = has_conjoining_jamo(text);
        let mut count = self.leading.len() + self.trailing.len();
        let mut rest = text;
        let mut prefix = self.prefix.as_str();
        loop {
            let window = cut(rest, COUNT_CHARS);
            count += self.tokens(prefix, window, compose)?.len();
            rest = &rest[window.len()..];
            prefix = "";
            if rest.is_empty() {
                return Ok(count);
            }
        }
    }

    /// Special tokens before and after a text.
    #[cfg(feature = "train")]
    pub(crate) fn around(&self) -> (&[u32], &[u32]) {
        (&self.leading, &self.trailing)
    }

    /// One more than the largest id that can come out.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// The most ids that [`encode`](Self::encode) returns.
    pub fn max_tokens(&self) -> usize {
        self.max_tokens
    }

    /// Texts of up to this many characters are always read whole.
    pub fn window_chars(&self) -> usize {
        (self.max_tokens + GUARD_TOKENS) * WINDOW_CHARS_PER_TOKEN
    }

    /// Checks that every id that can come out has a row in a word embedding of `rows` rows.
    ///
    /// # Errors
    /// [`ErrorKind::TokenizerInvalid`] naming both sizes.
    pub fn check_vocab_size(&self, rows: usize) -> Result<()> {
        if self.vocab_size > rows {
            return Err(invalid(format!(
                "the tokenizer has ids up to {}, the model's word embedding only {rows} rows (vocab_size): \
                 they do not belong together",
                self.vocab_size - 1
            )));
        }
        Ok(())
    }

    /// Ids of `prefix` and `text` without special tokens.
    fn tokens(&self, prefix: &str, text: &str, compose: bool) -> Result<Vec<u32>> {
        let mut input = Cow::Borrowed(text);
        if !prefix.is_empty() {
            input = Cow::Owned(format!("{prefix}{text}"));
        }
        if compose {
            input = Cow::Owned(input.nfc().map(|(c, _)| c).collect());
        }
        match &self.kind {
            Kind::Unigram(unigram) => unigram.encode(&input),
            #[cfg(feature = "general-tokenizers")]
            Kind::General(general) => general.encode(input),
        }
    }
}

/// The form of a tokenizer that is stored in a model file: smaller and quicker to load if it is a
/// Unigram tokenizer, otherwise `json` as it is.
pub fn compact(json: &[u8]) -> Cow<'_, [u8]> {
    match Compact::from_json(json) {
        Some(compact) => Cow::Owned(compact.to_bytes()),
        None => Cow::Borrowed(json),
    }
}

/// Who turns text into ids.
enum Kind {
    #[cfg(feature = "general-tokenizers")]
    General(Box<General>),
    Unigram(Unigram),
}

impl Kind {
    /// One more than the largest id of the vocabulary and the added tokens.
    fn vocab_size(&self) -> usize {
        match self {
            Kind::Unigram(unigram) => unigram.vocab_size(),
            #[cfg(feature = "general-tokenizers")]
            Kind::General(general) => general.vocab_size(),
        }
    }
}

/// The special tokens that a `post_processor` puts before and after a single text. `tokenizers` can
/// be asked for them only by a call that panics if the file names one that it does not define.
fn special_tokens(
    post_processor: &Value,
    leading: &mut Vec<u32>,
    trailing: &mut Vec<u32>,
) -> Result<()> {
    let unreadable = |what: &str| invalid(format!("the tokenizer's post_processor {what}"));
    let as_id = |id: &Value| id.as_u64().and_then(|id| u32::try_from(id).ok());
    if post_processor.is_null() {
        return Ok(());
    }
    match post_processor["type"].as_str() {
        Some("ByteLevel") => Ok(()),
        Some("Sequence") => post_processor["processors"]
            .as_array()
            .ok_or_else(|| unreadable("is a Sequence without processors"))?
            .iter()
            .try_for_each(|part| special_tokens(part, leading, trailing)),
        Some("BertProcessing" | "RobertaProcessing") => {
            let cls = as_id(&post_processor["cls"][1]);
            let sep = as_id(&post_processor["sep"][1]);
            let (Some(cls), Some(sep)) = (cls, sep) else {
                return Err(unreadable("has no ids for cls and sep"));
            };
            leading.insert(0, cls);
            trailing.push(sep);
            Ok(())
        }
        Some("TemplateProcessing") => {
            let single = post_processor["single"].as_array();
            let mut before = Vec::new();
            let mut after = Vec::new();
            let mut texts = 0;
            for part in single.ok_or_else(|| unreadable("has no template for a single text"))? {
                if part.get("Sequence").is_some() {
                    texts += 1;
                    continue;
                }
                let name = part["SpecialToken"]["id"].as_str().unwrap_or_default();
                let ids: Option<Vec<u32>> = post_processor["special_tokens"][name]["ids"]
                    .as_array()
                    .and_then(|ids| ids.iter().map(as_id).collect());
                let ids = ids.ok_or_else(|| {
                    unreadable(&format!("uses the special token {name:?} without defining its ids"))
                })?;
                if texts == 0 { before.extend(ids) } else { after.extend(ids) }
            }
            if texts != 1 {
                return Err(unreadable(&format!("has the text {texts} times; expected once")));
            }
            leading.splice(0..0, before);
            trailing.extend(after);
            Ok(())
        }
        other => Err(unreadable(&format!(
            "is of type {other:?}; expected TemplateProcessing, BertProcessing, RobertaProcessing, \
             ByteLevel or a Sequence of them"
        ))),
    }
}

/// The beginning of `text`: all of it if it has at most `chars` characters, else up to the first
/// end of a word from there on, or exactly `chars` characters if no word ends in as many more.
///
/// Every supported tokenizer splits at these blanks, so no token of a text spans such a cut.
fn cut(text: &str, chars: usize) -> &str {
    if text.len() <= chars {
        return text;
    }
    let Some((hard, _)) = text.char_indices().nth(chars) else {
        return text;
    };
    let is_blank = |c: char| matches!(c, ' ' | '\n' | '\t' | '\r' | '\u{3000}');
    let mut after_word = !text[..hard].ends_with(is_blank);
    for (at, c) in text[hard..].char_indices().take(chars) {
        if is_blank(c) && after_word {
            return &text[..hard + at];
        }
        after_word = !is_blank(c);
    }
    &text[..hard]
}

/// Whether `text` has Hangul in pieces: U+1100–11FF, U+A960–A97F or U+D7B0–D7FF.
fn has_conjoining_jamo(text: &str) -> bool {
    // Their UTF-8 begins with E1 84…87, EA A5 or ED 9E/9F; syllables (U+AC00–D7A3) share only ED 9E.
    let mut bytes = text.as_bytes();
    while let Some(at) = bytes.iter().position(|&b| matches!(b, 0xE1 | 0xEA | 0xED)) {
        match bytes[at..] {
            [0xE1, 0x84..=0x87, ..] | [0xEA, 0xA5, 0xA0..=0xBF, ..] | [0xED, 0x9F, ..] => {
                return true;
            }
            [0xED, 0x9E, third, ..] if third >= 0xB0 => return true,
            _ => bytes = &bytes[at + 1..],
        }
    }
    false
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::TokenizerInvalid, message)
}

fn word_level() -> Error {
    invalid("the tokenizer's model is WordLevel; expected Unigram, WordPiece or BPE".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unigram() -> String {
        serde_json::json!({
            "version": "1.0",
            "truncation": {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0},
            "padding": {"strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": null,
                        "pad_id": 1, "pad_type_id": 0, "pad_token": "<pad>"},
            "added_tokens": [],
            "normalizer": {"type": "Sequence", "normalizers": [
                {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "},
                {"type": "Strip", "strip_left": true, "strip_right": true}]},
            "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true},
            "post_processor": {"type": "TemplateProcessing",
                "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                           {"SpecialToken": {"id": "</s>", "type_id": 0}}],
                "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
                "special_tokens": {"<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]},
                                   "</s>": {"id": "</s>", "ids": [2], "tokens": ["</s>"]}}},
            "decoder": null,
            "model": {"type": "Unigram", "unk_id": 3, "byte_fallback": false, "vocab": [
                ["<s>", 0.0], ["<pad>", 0.0], ["</s>", 0.0], ["<unk>", 0.0],
                ["▁", -3.4635426998138428], ["가", -4.0], ["나", -4.0], ["가나", -5.0], ["▁가", -4.5], ["q", -5.0], [":", -5.0]]}
        })
        .to_string()
    }

    fn tokenizer(prefix: &str, max_tokens: usize) -> Tokenizer {
        Tokenizer::from_bytes(unigram().as_bytes(), prefix, max_tokens).unwrap()
    }

    /// The same through `tokenizers`.
    #[cfg(feature = "general-tokenizers")]
    fn reference(json: &[u8], prefix: &str, max_tokens: usize) -> Tokenizer {
        Tokenizer::from_general_json(json, prefix, max_tokens).unwrap()
    }

    /// Texts of characters that normalizers, word splitting and unknown pieces care about.
    fn odd_texts(count: usize) -> Vec<String> {
        let alphabet: Vec<char> = "가나다한글값뷁ㄱㅏㄳ　 \t\n\r\u{b}\u{85}\u{a0}\u{2028}\u{200b}\u{feff}\u{2581}\
            \u{0}\u{1}\u{7f}\u{8f}\u{301}\u{1100}\u{1161}\u{11a8}\u{11aa}\u{ffa1}\u{ffc2}ﬁ½①㈜ＡaZ09.,!?:<s></s><unk>qé\
            Å😀👍🏽\u{200d}\u{fe0f}日本語中文\u{10ffff}\u{e000}\u{fffd}   "
            .chars()
            .collect();
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = move |bound: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state % bound as u64) as usize
        };
        (0..count)
            .map(|_| {
                let mut text: String =
                    (0..next(40)).map(|_| alphabet[next(alphabet.len())]).collect();
                if next(4) == 0 {
                    text.push_str(["<s>", "</s>", "<unk>", "<pad>", "<<s>>"][next(5)]);
                    text.push_str(["", " ", "가", "<s>"][next(4)]);
                }
                text
            })
            .collect()
    }

    #[test]
    fn special_tokens_around_a_text() {
        let of = |json: serde_json::Value| {
            let (mut leading, mut trailing) = (Vec::new(), Vec::new());
            special_tokens(&json, &mut leading, &mut trailing).map(|()| (leading, trailing))
        };
        let roberta = serde_json::json!({"type": "RobertaProcessing", "sep": ["</s>", 2], "cls": ["<s>", 0],
            "trim_offsets": true, "add_prefix_space": false});
        assert_eq!(of(Value::Null).unwrap(), (vec![], vec![]));
        assert_eq!(of(roberta.clone()).unwrap(), (vec![0], vec![2]));
        let sequence =
            serde_json::json!({"type": "Sequence", "processors": [{"type": "ByteLevel"}, roberta]});
        assert_eq!(of(sequence).unwrap(), (vec![0], vec![2]));
        let template = |single: Value| {
            serde_json::json!({"type": "TemplateProcessing", "single": single, "pair": [],
                "special_tokens": {"[A]": {"id": "[A]", "ids": [7, 8], "tokens": ["a", "b"]}}})
        };
        let special = serde_json::json!({"SpecialToken": {"id": "[A]", "type_id": 0}});
        let text = serde_json::json!({"Sequence": {"id": "A", "type_id": 0}});
        assert_eq!(of(template(serde_json::json!([special, text]))).unwrap(), (vec![7, 8], vec![]));
        let unknown = serde_json::json!({"SpecialToken": {"id": "[B]", "type_id": 0}});
        for (bad, part) in [
            (template(serde_json::json!([unknown, text])), "\"[B]\""),
            (template(serde_json::json!([special])), "0 times"),
            (template(serde_json::json!([text, text])), "2 times"),
            (serde_json::json!({"type": "Other"}), "Other"),
            (serde_json::json!({"type": "BertProcessing"}), "cls"),
        ] {
            let error = of(bad).unwrap_err();
            assert!(error.to_string().contains(part), "{error}");
        }
    }

    #[cfg(feature = "general-tokenizers")]
    #[test]
    fn own_unigram_gives_the_ids_of_tokenizers() {
        let with_added_tokens = unigram().replace(
            r#""added_tokens":[]"#,
            r#""added_tokens":[{"id":0,"content":"<s>","single_word":false,"lstrip":false,"rstrip":false,
                "normalized":false,"special":true},{"id":3,"content":"<unk>","single_word":false,
                "lstrip":false,"rstrip":false,"normalized":false,"special":true}]"#,
        );
        let with_nfkc = with_added_tokens.replace(
            r#"{"content":" ","pattern":{"Regex":" {2,}"},"type":"Replace"}"#,
            r#"{"content":"","pattern":{"Regex":"[\\x{1}\\x{7F}]"},"type":"Replace"},
               {"content":" ","pattern":{"Regex":"[\\x{9}\\x{A}\\x{200B}\\x{2581}]"},"type":"Replace"},
               {"type":"NFKC"},{"content":"나","pattern":{"String":"다"},"type":"Replace"},
               {"content":" ","pattern":{"Regex":" {2,}"},"type":"Replace"}"#,
        );
        assert!(
            with_nfkc.len() > with_added_tokens.len() && with_added_tokens.len() > unigram().len()
        );
        for json in [unigram(), with_added_tokens, with_nfkc] {
            let ours = Tokenizer::from_bytes(json.as_bytes(), "q: ", 64).unwrap();
            assert!(matches!(ours.kind, Kind::Unigram(..)));
            let reference = reference(json.as_bytes(), "q: ", 64);
            assert_eq!(ours.vocab_size(), reference.vocab_size());
            for text in odd_texts(4000) {
                assert_eq!(
                    ours.encode(&text).unwrap(),
                    reference.encode(&text).unwrap(),
                    "{text:?}"
                );
            }
        }
    }

    #[cfg(feature = "general-tokenizers")]
    #[test]
    fn what_our_unigram_does_not_know_is_left_to_tokenizers() {
        let change = |from: &str, to: &str| {
            let json = unigram();
            assert!(json.contains(from), "{json}");
            let json = json.replace(from, to);
            let tokenizer = Tokenizer::from_bytes(json.as_bytes(), "", 64).unwrap();
            assert!(matches!(tokenizer.kind, Kind::General(_)), "{to}");
            let reference = reference(json.as_bytes(), "", 64);
            // Through the compact form as well.
            let stored = Tokenizer::from_bytes(&compact(json.as_bytes()), "", 64).unwrap();
            for text in odd_texts(300) {
                let expected = reference.encode(&text).unwrap();
                assert_eq!(tokenizer.encode(&text).unwrap(), expected, "{text:?}");
                assert_eq!(stored.encode(&text).unwrap(), expected, "{text:?}");
            }
        };
        change(r#""prepend_scheme":"always""#, r#""prepend_scheme":"first""#);
        change(r#""split":true"#, r#""split":false"#);
        change(r#"" {2,}""#, r#""\\s+""#);
        change(
            r#"{"strip_left":true,"strip_right":true,"type":"Strip"}"#,
            r#"{"type":"Lowercase"}"#,
        );
    }

    #[cfg(not(feature = "general-tokenizers"))]
    #[test]
    fn what_only_tokenizers_knows_is_told_from_what_is_none() {
        let code = |json: &[u8]| {
            Tokenizer::from_bytes(json, "", 64)
                .map(drop)
                .map_err(|error| (error.code(), error.to_string()))
        };
        code(unigram().as_bytes()).unwrap();
        let odd = unigram().replace(r#""split":true"#, r#""split":false"#);
        let word_piece = r#"{"model":{"type":"WordPiece","vocab":{"a":0},"unk_token":"a"}}"#;
        let bpe = r#"{"model":{"vocab":{"a":0},"merges":[]}}"#;
        for (json, kind) in [
            (odd.as_bytes(), "Unigram"),
            (&*compact(odd.as_bytes()), "Unigram"),
            (word_piece.as_bytes(), "WordPiece"),
            (bpe.as_bytes(), "unnamed"),
        ] {
            let (code, message) = code(json).unwrap_err();
            assert_eq!(code, "tokenizer_unsupported");
            assert!(message.contains(kind) && message.contains("general-tokenizers"), "{message}");
        }
        for json in ["", "{}", "[]", r#"{"model":7}"#, r#"{"model":{"type":"WordLevel"}}"#, "MJTOK"]
        {
            assert_eq!(code(json.as_bytes()).unwrap_err().0, "tokenizer_invalid", "{json}");
        }
    }

    #[test]
    fn compact_form_is_the_same_tokenizer() {
        compact_is_the_same(unigram());
        // A score that is no f32.
        compact_is_the_same(unigram().replace("-4.5]", "-4.5000000001]"));
    }

    fn compact_is_the_same(json: String) {
        let stored = compact(json.as_bytes());
        assert!(compact::is_compact(&stored));
        let tokenizer = Tokenizer::from_bytes(&stored, "q: ", 64).unwrap();
        let original = Tokenizer::from_bytes(json.as_bytes(), "q: ", 64).unwrap();
        for text in odd_texts(500) {
            assert_eq!(tokenizer.encode(&text).unwrap(), original.encode(&text).unwrap());
        }
        let back = Compact::from_bytes(&stored).unwrap().to_json();
        let value = |json: &[u8]| serde_json::from_slice::<serde_json::Value>(json).unwrap();
        assert_eq!(value(&back), value(json.as_bytes()));
        assert_eq!(compact(b"{}"), b"{}".as_slice());
    }

    #[test]
    fn damaged_compact_forms_are_refused() {
        let stored = compact(unigram().as_bytes()).into_owned();
        for len in 0..stored.len() {
            let error = Tokenizer::from_bytes(&stored[..len], "", 64).err().unwrap();
            assert_eq!(error.code(), "tokenizer_invalid");
        }
        // Every byte of the vocabulary and of the sizes turned over, by turns: an error or another
        // tokenizer, never a panic.
        for at in 0..stored.len() {
            for bit in [0x01, 0x80, 0xFF] {
                let mut damaged = stored.clone();
                damaged[at] ^= bit;
                if let Ok(tokenizer) = Tokenizer::from_bytes(&damaged, "", 64) {
                    tokenizer.encode("가나 q").ok();
                }
            }
        }
        let mut longer = stored.clone();
        longer.push(0);
        let error = Tokenizer::from_bytes(&longer, "", 64).err().unwrap();
        assert!(error.to_string().contains("1 bytes follow"), "{error}");
    }

    #[test]
    fn keeps_special_tokens_when_truncating() {
        let encoding = tokenizer("", 4).encode("가 가 가 가 가").unwrap();
        assert_eq!(encoding.ids, [0, 8, 8, 2]);
        assert_eq!(encoding.token_count, 7);
        assert!(encoding.is_truncated());
    }

    #[test]
    fn stored_truncation_and_padding_are_ignored() {
        let encoding = tokenizer("", 64).encode("가 나").unwrap();
        assert_eq!(encoding.ids, [0, 8, 4, 6, 2]);
        assert!(!encoding.is_truncated());
    }

    #[test]
    fn prefix_comes_first_and_blank_text_is_valid() {
        assert_eq!(tokenizer("q: ", 64).encode("가").unwrap().ids, [0, 4, 9, 10, 8, 2]);
        for blank in ["", " ", "  \n "] {
            assert!(tokenizer("", 64).encode(blank).unwrap().ids.starts_with(&[0]));
        }
        assert_eq!(tokenizer("", 64).encode("").unwrap().ids, [0, 2]);
    }

    #[test]
    fn decomposed_hangul_equals_composed() {
        let tokenizer = tokenizer("", 64);
        for text in ["가나 가", "나", "가é"] {
            let decomposed: String = text.nfd().map(|(c, _)| c).collect();
            assert_eq!(tokenizer.encode(&decomposed).unwrap(), tokenizer.encode(text).unwrap());
        }
    }

    #[test]
    fn jamo_are_found_and_nothing_else() {
        let jamo = |c: u32| {
            (0x1100..=0x11FF).contains(&c)
                || (0xA960..=0xA97F).contains(&c)
                || (0xD7B0..=0xD7FF).contains(&c)
        };
        for c in (0..=0x10FFFF).filter_map(char::from_u32) {
            assert_eq!(has_conjoining_jamo(&format!("x{c}y")), jamo(c as u32), "{:x}", c as u32);
        }
    }

    #[test]
    fn huge_texts_keep_the_ids_of_the_whole() {
        let tokenizer = tokenizer("q: ", 16);
        let texts = [
            "가나 나 가".repeat(4000),
            "가".repeat(20_000),
            format!("{}가나 가", " ".repeat(20_000)),
            format!("가 {}", "나가나 ".repeat(5000)),
            "각".repeat(20_000),
            "가나 나 가".repeat(4000).nfd().map(|(c, _)| c).collect(),
            format!("e\u{301}{}가", "나 ".repeat(9000)).nfd().map(|(c, _)| c).collect(),
        ];
        for text in &texts {
            let whole = tokenizer.tokens("q: ", text, true).unwrap();
            let encoding = tokenizer.encode(text).unwrap();
            let kept = whole.len().min(14);
            assert_eq!(encoding.ids[1..=kept], whole[..kept]);
            assert!(encoding.token_count <= whole.len() + 2);
            assert_eq!(encoding.is_truncated(), whole.len() > 14);
            let cuts_inside_words = if text.contains(' ') { 0 } else { text.len() / COUNT_CHARS };
            let counted = tokenizer.count_tokens(text).unwrap();
            assert!(counted.abs_diff(whole.len() + 2) <= 2 * cuts_inside_words, "{text:.20}");
        }
    }

    #[test]
    fn cuts_at_the_end_of_a_word_or_hard() {
        assert_eq!(cut("가나다 라마", 10), "가나다 라마");
        assert_eq!(cut("가나다 라마바 사", 2), "가나다");
        assert_eq!(cut("가나다 라마바 사", 3), "가나다");
        assert_eq!(cut("가나다 라마바 사", 4), "가나다 라마바");
        assert_eq!(cut("가나다라마바사", 2), "가나");
    }

    #[test]
    fn bad_tokenizers_are_named() {
        let code = |json: &str, max| {
            Tokenizer::from_bytes(json.as_bytes(), "", max).err().map(|e| (e.code(), e.to_string()))
        };
        let (kind, message) = code("{", 8).unwrap();
        assert_eq!(kind, "tokenizer_invalid");
        assert!(message.contains("cannot read"), "{message}");
        let (_, message) = code(&unigram(), 2).unwrap();
        assert!(message.contains("2 special tokens") && message.contains("at most 2"), "{message}");
        let word_level = r#"{"version":"1.0","truncation":null,"padding":null,"added_tokens":[],"normalizer":null,
            "pre_tokenizer":null,"post_processor":null,"decoder":null,
            "model":{"type":"WordLevel","vocab":{"a":0},"unk_token":"a"}}"#;
        assert!(code(word_level, 8).unwrap().1.contains("WordLevel"));
    }

    #[test]
    fn ids_beyond_the_word_embedding_are_refused() {
        let tokenizer = tokenizer("", 8);
        assert_eq!(tokenizer.vocab_size(), 11);
        tokenizer.check_vocab_size(11).unwrap();
        let error = tokenizer.check_vocab_size(10).unwrap_err();
        assert_eq!(error.code(), "tokenizer_invalid");
        assert!(
            error.to_string().contains("up to 10") && error.to_string().contains("only 10 rows")
        );
    }
}
