//! Text to token ids: [`tokenizers`] behind a small face that bounds the work, truncates as
//! Hugging Face does and reports what it cut.

use std::borrow::Cow;

use tokenizers::models::ModelWrapper;
use tokenizers::{PostProcessor, Token};
use unicode_normalization::UnicodeNormalization;

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
    inner: tokenizers::Tokenizer,
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

/// Stands for the text's tokens when the special tokens around it are looked up.
const PLACEHOLDER_ID: u32 = u32::MAX;

impl Tokenizer {
    /// Reads a `tokenizer.json`. `prefix` is put before every text; `max_tokens` is the most ids
    /// that [`encode`](Self::encode) returns. Truncation and padding that the file itself asks for
    /// are ignored.
    ///
    /// # Errors
    /// [`ErrorKind::TokenizerInvalid`] if the JSON is not a tokenizer of a kind that munjang runs
    /// (Unigram, WordPiece, BPE), or if its special tokens alone exceed `max_tokens`.
    pub fn from_json(json: &[u8], prefix: &str, max_tokens: usize) -> Result<Self> {
        let mut inner = tokenizers::Tokenizer::from_bytes(json).map_err(|source| {
            invalid(format!("cannot read the tokenizer (tokenizer.json): {source}"))
        })?;
        if matches!(inner.get_model(), ModelWrapper::WordLevel(_)) {
            return Err(invalid(
                "the tokenizer's model is WordLevel; expected Unigram, WordPiece or BPE".into(),
            ));
        }
        inner.with_truncation(None).map_err(|source| {
            invalid(format!("cannot switch off the tokenizer's own truncation: {source}"))
        })?;
        inner.with_padding(None);

        let (leading, trailing) = special_tokens(&inner)?;
        if leading.len() + trailing.len() >= max_tokens {
            return Err(invalid(format!(
                "the tokenizer adds {} special tokens to a text, the model takes at most {max_tokens} tokens",
                leading.len() + trailing.len(),
            )));
        }
        let vocab_size = vocab_size(&inner, leading.iter().chain(&trailing).copied());
        Ok(Tokenizer {
            inner,
            prefix: prefix.to_owned(),
            max_tokens,
            leading,
            trailing,
            vocab_size,
        })
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
            input = Cow::Owned(input.nfc().collect());
        }
        let encoding = self
            .inner
            .encode_fast(input, false)
            .map_err(|source| invalid(format!("cannot tokenize a text: {source}")))?;
        Ok(encoding.get_ids().to_vec())
    }
}

/// The special tokens that the post-processor puts before and after a single text.
fn special_tokens(tokenizer: &tokenizers::Tokenizer) -> Result<(Vec<u32>, Vec<u32>)> {
    let Some(post_processor) = tokenizer.get_post_processor() else {
        return Ok((Vec::new(), Vec::new()));
    };
    let text = vec![Token::new(PLACEHOLDER_ID, "text".into(), (0, 4))];
    let processed = post_processor
        .process(tokenizers::Encoding::from_tokens(text, 0), None, true)
        .map_err(|source| invalid(format!("the tokenizer's post_processor fails: {source}")))?;
    let mut parts = processed.get_ids().split(|&id| id == PLACEHOLDER_ID);
    match (parts.next(), parts.next(), parts.next()) {
        (Some(leading), Some(trailing), None) => Ok((leading.to_vec(), trailing.to_vec())),
        _ => Err(invalid(
            "the tokenizer's post_processor does not keep a single text in one piece; \
             expected special tokens around it"
                .into(),
        )),
    }
}

fn vocab_size(tokenizer: &tokenizers::Tokenizer, special: impl Iterator<Item = u32>) -> usize {
    let model = match tokenizer.get_model() {
        // A Unigram id is its piece's place in the list; the map need not be copied.
        ModelWrapper::Unigram(_) => tokenizer.get_vocab_size(false),
        // Others may have holes in their ids, so their number says nothing about the largest.
        _ => tokenizer.get_vocab(false).into_values().max().map_or(0, |id| id as usize + 1),
    };
    let added = tokenizer.get_added_tokens_decoder().into_keys();
    special.chain(added).map(|id| id as usize + 1).fold(model, usize::max)
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
                ["▁", -3.0], ["가", -4.0], ["나", -4.0], ["가나", -5.0], ["▁가", -4.5], ["q", -5.0], [":", -5.0]]}
        })
        .to_string()
    }

    fn tokenizer(prefix: &str, max_tokens: usize) -> Tokenizer {
        Tokenizer::from_json(unigram().as_bytes(), prefix, max_tokens).unwrap()
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
            let decomposed: String = text.nfd().collect();
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
            "가나 나 가".repeat(4000).nfd().collect(),
            format!("e\u{301}{}가", "나 ".repeat(9000)).nfd().collect(),
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
            Tokenizer::from_json(json.as_bytes(), "", max).err().map(|e| (e.code(), e.to_string()))
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
