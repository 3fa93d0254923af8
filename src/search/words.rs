//! Words and their character bigrams: what the lexical half of a search compares.
//!
//! A word is a run of letters and digits after canonical composition (NFC) and lower-casing. It counts by
//! its pairs of neighbouring characters, so that 학교에서 and 학교를 share 학교 without a dictionary of
//! particles. A word of one character counts by itself, and in a query stands for all words that begin
//! with it.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};
use std::ops::Range;

use unicode_normalization_alignments::UnicodeNormalization;
use unicode_normalization_alignments::char::{canonical_combining_class, compose};

/// One or two neighbouring characters of a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gram {
    /// Both characters, or 0 and the first one of a word.
    pub term: u64,
    pub kind: GramKind,
    /// Bytes of the text.
    pub start: usize,
    pub end: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GramKind {
    /// The first character of any word.
    Initial,
    /// Two neighbours.
    Pair,
    /// A whole word of one character; follows its `Initial`, with the same term.
    Alone,
}

/// Calls `found` for the grams of all words of `text`, in order.
pub(super) fn for_each_gram(text: &str, found: &mut dyn FnMut(Gram)) {
    // The character before, where it lies, and whether it is its word's first.
    let mut before: Option<(char, Range<usize>, bool)> = None;
    let alone = |before: &Option<(char, Range<usize>, bool)>, found: &mut dyn FnMut(Gram)| {
        if let Some((c, range, true)) = before {
            let term = u64::from(*c);
            found(Gram { term, kind: GramKind::Alone, start: range.start, end: range.end });
        }
    };
    for_each_char(text, &mut |c, range| {
        if !c.is_alphanumeric() {
            alone(&before, found);
            before = None;
            return;
        }
        let term = u64::from(c);
        match &before {
            None => {
                let (start, end) = (range.start, range.end);
                found(Gram { term, kind: GramKind::Initial, start, end });
            }
            Some((first, place, _)) => {
                let term = u64::from(*first) << 21 | term;
                found(Gram { term, kind: GramKind::Pair, start: place.start, end: range.end });
            }
        }
        before = Some((c, range, before.is_none()));
    });
    alone(&before, found);
}

/// The characters of `text` composed and in lower case, each with the bytes that it stands for.
fn for_each_char(text: &str, found: &mut dyn FnMut(char, Range<usize>)) {
    let mut rest = text.char_indices().peekable();
    while let Some((start, c)) = rest.next() {
        // What follows may combine with this one.
        let mut last = c;
        let mut end = start + c.len_utf8();
        let mut combined = false;
        while let Some(&(_, next)) = rest.peek() {
            if !joins(last, next) {
                break;
            }
            combined = true;
            last = next;
            end += next.len_utf8();
            rest.next();
        }
        let range = start..end;
        if combined || changes(c) {
            for c in composed(&text[range.clone()]).chars() {
                lower(c, |c| found(c, range.clone()));
            }
        } else {
            lower(c, |c| found(c, range.clone()));
        }
    }
}

/// Characters that composition leaves alone wherever they stand: nearly all text.
fn is_plain(c: char) -> bool {
    c < '\u{300}' || matches!(c, '\u{ac00}'..='\u{d7a3}' | '\u{4e00}'..='\u{9fff}')
}

/// Whether composition may draw `c` to the character before it.
fn joins(before: char, c: char) -> bool {
    !is_plain(c)
        && (matches!(c, '\u{1161}'..='\u{1175}' | '\u{11a8}'..='\u{11c2}')
            || canonical_combining_class(c) != 0
            || compose(before, c).is_some())
}

/// `text` composed; rare, so it may be slow.
#[inline(never)]
fn composed(text: &str) -> String {
    text.nfc().map(|(c, _)| c).collect()
}

/// Whether composition turns `c` alone into another character, such as the Kelvin sign.
fn changes(c: char) -> bool {
    !is_plain(c) && composed(c.encode_utf8(&mut [0; 4])).chars().ne([c])
}

fn lower(c: char, mut found: impl FnMut(char)) {
    if c.is_ascii() {
        found(c.to_ascii_lowercase());
    } else if matches!(c, '\u{3040}'..='\u{9fff}' | '\u{ac00}'..='\u{d7a3}') {
        found(c);
    } else {
        c.to_lowercase().for_each(found);
    }
}

/// Hashes of terms; the same on every machine.
#[derive(Clone, Debug, Default)]
pub(super) struct TermHasher(u64);

impl Hasher for TermHasher {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.write_u64(u64::from(byte)));
    }
    fn write_u32(&mut self, value: u32) {
        self.write_u64(u64::from(value));
    }
    fn write_u64(&mut self, value: u64) {
        let mixed = (self.0 ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ mixed >> 32;
    }
    fn finish(&self) -> u64 {
        self.0
    }
}

pub(super) type BuildTermHasher = BuildHasherDefault<TermHasher>;

/// The distinct terms of a query in order of appearance: pairs, and words of one character.
pub(super) fn query_terms(query: &str) -> Vec<u64> {
    let mut seen = HashSet::<u64, BuildTermHasher>::default();
    let mut terms = Vec::new();
    for_each_gram(query, &mut |gram| {
        if gram.kind != GramKind::Initial && seen.insert(gram.term) {
            terms.push(gram.term);
        }
    });
    terms
}

/// The bytes of `text` in which words of `query` are found again, in order; neighbours are joined.
pub fn marks(text: &str, query: &str) -> Vec<Range<usize>> {
    let terms: HashSet<u64, BuildTermHasher> = query_terms(query).into_iter().collect();
    let mut ranges: Vec<Range<usize>> = Vec::new();
    for_each_gram(text, &mut |gram| {
        if !terms.contains(&gram.term) {
            return;
        }
        match ranges.last_mut() {
            Some(last) if last.end >= gram.start => last.end = last.end.max(gram.end),
            _ => ranges.push(gram.start..gram.end),
        }
    });
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grams(text: &str) -> Vec<String> {
        let mut all = Vec::new();
        for_each_gram(text, &mut |gram| {
            let char = |code: u64| char::from_u32(code as u32).unwrap();
            all.push(match gram.kind {
                GramKind::Initial => format!("^{}", char(gram.term)),
                GramKind::Pair => {
                    [char(gram.term >> 21), char(gram.term & 0x1f_ffff)].iter().collect()
                }
                GramKind::Alone => format!("{}$", char(gram.term)),
            });
        });
        all
    }

    #[test]
    fn bigrams_inside_words() {
        assert_eq!(grams("학교에 간다."), ["^학", "학교", "교에", "^간", "간다"]);
        assert_eq!(grams("비, A b2!"), ["^비", "비$", "^a", "a$", "^b", "b2"]);
        assert_eq!(grams(""), [""; 0]);
        assert_eq!(grams(" .,!? \n"), [""; 0]);
    }

    #[test]
    fn composed_and_in_lower_case() {
        let decomposed: String = "한글이다".nfd().map(|(c, _)| c).collect();
        assert_eq!(grams(&decomposed), grams("한글이다"));
        assert_eq!(grams("CAFE\u{301} \u{212a}g"), grams("café kg"));
        assert_eq!(grams("ΣΟΦΙΑ"), grams("σοφια"));
        // Tone marks of old Hangul and stray marks are no trouble.
        assert_eq!(grams("\u{301}"), [""; 0]);
        assert_eq!(grams("\u{1161}\u{11a8}").len(), grams("\u{1161}\u{11a8}").len());
    }

    #[test]
    fn composing_by_pieces_is_composing() {
        let mut samples: Vec<String> = [
            "a\u{327}\u{301}b",
            "각\u{11a8}",
            "가\u{11a8}\u{11a8}",
            "\u{1100}\u{1161}\u{11a8}\u{1100}",
            "\u{9c7}\u{9be}",
            "e\u{301}\u{327}",
            "\u{344}x",
            "\u{2126}\u{301}",
        ]
        .map(str::to_owned)
        .into();
        samples.push(samples.concat());
        for sample in samples {
            let mut pieces = String::new();
            for_each_char(&sample, &mut |c, _| pieces.push(c));
            let whole: String = sample.nfc().flat_map(|(c, _)| c.to_lowercase()).collect();
            assert_eq!(pieces, whole, "{sample:?}");
        }
    }

    #[test]
    fn marks_lie_in_the_text() {
        let marked = |text: &str, query: &str| -> Vec<String> {
            marks(text, query).into_iter().map(|range| text[range].to_owned()).collect()
        };
        assert_eq!(marked("학교에서 공부를 했다", "학교 공부"), ["학교", "공부"]);
        assert_eq!(marked("대학교에서", "대학교"), ["대학교"]);
        assert_eq!(marked("비가 왔다. 준비", "비"), ["비"]);
        assert_eq!(marked("아무것도", "없다"), [""; 0]);
        let decomposed: String = "한글".nfd().map(|(c, _)| c).collect();
        assert_eq!(marked(&format!("{decomposed}!"), "한글"), [decomposed]);
    }
}
