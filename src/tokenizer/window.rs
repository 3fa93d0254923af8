//! How much of a long text is read, and in which parts.

use crate::error::Result;

/// Characters read for each token that the model can take, before it is known how many tokens the
/// text has. Korean text has about two characters a token, English four or five.
pub(super) const WINDOW_CHARS_PER_TOKEN: usize = 8;

/// Tokens that must follow the kept ones before a cut text is trusted: the last tokens before a cut
/// may differ from those of the whole text (half a word, which WordPiece makes one unknown token if it
/// has over 100 characters; in a Unigram tokenizer without word boundaries a choice that later text
/// decides), those this far away do not.
pub(super) const GUARD_TOKENS: usize = 128;

/// Characters of the parts in which a text is read that is read whole.
pub(super) const PART_CHARS: usize = 8192;

/// Characters after a part that must give the same tokens with it and without it.
const OVERLAP_CHARS: usize = 512;

/// Places tried before a part is made longer.
const PLACES: usize = 3;

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
    let mut after_word = !text[..hard].ends_with(is_blank);
    for (at, c) in text[hard..].char_indices().take(chars) {
        if is_blank(c) && after_word {
            return &text[..hard + at];
        }
        after_word = !is_blank(c);
    }
    &text[..hard]
}

fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\n' | '\t' | '\r' | '\u{3000}')
}

/// Gives the tokens of all of `text` to `sink`, part after part, as `tokens` gives them for the whole.
///
/// Whether a text may be cut at a place is for its tokenizer to say: a normalizer may put something
/// before every text, a word may have no blank, a token may span one. So a part is tokenized with what
/// follows it, and that once more alone; only where both give the same tokens is the text cut, between
/// words. Where no place will do, the part grows, up to the whole.
pub(super) fn each_part(
    text: &str,
    mut tokens: impl FnMut(&str) -> Result<Vec<u32>>,
    mut sink: impl FnMut(&[u32]),
) -> Result<()> {
    let mut rest = text;
    let mut chars = PART_CHARS;
    'parts: while let Some(from) = byte_of(rest, chars) {
        for place in places(rest, from).take(PLACES) {
            let Some(overlap) = byte_of(&rest[place..], OVERLAP_CHARS) else { break };
            let (with, after) = (tokens(&rest[..place + overlap])?, &rest[place..place + overlap]);
            let after = tokens(after)?;
            if !after.is_empty()
                && let Some(part) = with.strip_suffix(after.as_slice())
            {
                sink(part);
                rest = &rest[place..];
                chars = PART_CHARS;
                continue 'parts;
            }
        }
        chars = chars.saturating_mul(WINDOW_GROWTH);
    }
    sink(&tokens(rest)?);
    Ok(())
}

/// Where the character number `chars` begins; `None` if the text has no more than that.
fn byte_of(text: &str, chars: usize) -> Option<usize> {
    if text.len() <= chars {
        return None;
    }
    text.char_indices().nth(chars).map(|(at, _)| at)
}

/// Places from `from` on where a blank, and not another, follows a word and precedes one.
fn places(text: &str, from: usize) -> impl Iterator<Item = usize> {
    let mut before = text[..from].chars().next_back().unwrap_or(' ');
    let mut chars = text[from..].char_indices().peekable();
    std::iter::from_fn(move || {
        while let Some((at, c)) = chars.next() {
            let next = chars.peek().map_or(' ', |&(_, next)| next);
            let here = is_blank(c) && !is_blank(before) && !is_blank(next);
            before = c;
            if here {
                return Some(from + at);
            }
        }
        None
    })
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
