//! How much of a long text is read.

/// Characters read for each token that the model can take, before it is known how many tokens the
/// text has. Korean text has about two characters a token, English four or five.
pub(super) const WINDOW_CHARS_PER_TOKEN: usize = 8;

/// Tokens that must follow the kept ones before a cut text is trusted: the last tokens before a cut
/// may differ from those of the whole text (half a word; in a Unigram tokenizer without word
/// boundaries a choice that later text decides), those this far away do not.
pub(super) const GUARD_TOKENS: usize = 64;

/// Characters counted at once by [`Tokenizer::count_tokens`](super::Tokenizer::count_tokens).
pub(super) const COUNT_CHARS: usize = 8192;

/// By what the window grows if it held too few tokens (long runs of blanks, of combining marks, or
/// of one "word" that is a single token).
pub(super) const WINDOW_GROWTH: usize = 4;

/// The most characters that [`Tokenizer::encode`](super::Tokenizer::encode) reads, even of a text of almost no tokens:
/// memory in a page never shrinks, so one such text must not cost more than the model.
pub(super) const MOST_CHARS: usize = 1 << 19;

/// At most [`MOST_CHARS`] characters of `text`.
pub(super) fn readable(text: &str) -> &str {
    if text.len() <= MOST_CHARS {
        return text;
    }
    text.char_indices().nth(MOST_CHARS).map_or(text, |(end, _)| &text[..end])
}

/// The beginning of `text`: all of it if it has at most `chars` characters, else up to the first
/// end of a word from there on, or exactly `chars` characters if no word ends in as many more.
///
/// Every supported tokenizer splits at these blanks, so no token of a text spans such a cut.
pub(super) fn cut(text: &str, chars: usize) -> &str {
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
pub(super) fn has_conjoining_jamo(text: &str) -> bool {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_at_the_end_of_a_word_or_hard() {
        assert_eq!(cut("가나다 라마", 10), "가나다 라마");
        assert_eq!(cut("가나다 라마바 사", 2), "가나다");
        assert_eq!(cut("가나다 라마바 사", 3), "가나다");
        assert_eq!(cut("가나다 라마바 사", 4), "가나다 라마바");
        assert_eq!(cut("가나다라마바사", 2), "가나");
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
}
