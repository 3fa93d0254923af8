//! Cutting texts into passages at sentence borders.
//!
//! The one rule: sentences end at a line's end, after `. ! ? …` with closing quotes and brackets where
//! white space follows, after full-width marks, and after a Hangul ending with its mark where the next
//! sentence follows at once. No sentence ends after a list's number, an initial, an abbreviation, inside
//! a date, or where a quotation goes on (`"간다." 라고`). Neighbouring sentences are joined as long as
//! they fit. A sentence that is too long is cut after a final ending (`-습니다`, `-어요`), else after a
//! comma, else at white space, else between characters, never inside one.

use std::ops::Range;

use crate::error::Result;

use super::vectors::invalid;

/// Characters of a passage where nobody says.
pub const DEFAULT_MAX_CHARS: usize = 150;

/// The least number of characters that may be asked for.
const MIN_MAX_CHARS: usize = 10;

/// The passages of `text`, as ranges of bytes in order: at most `max_chars` characters each, without
/// white space around them. None for a blank text.
///
/// # Errors
/// [`ErrorKind::InputInvalid`](crate::ErrorKind::InputInvalid) if `max_chars` is less than 10.
pub fn cut_passages(text: &str, max_chars: usize) -> Result<Vec<Range<usize>>> {
    if max_chars < MIN_MAX_CHARS {
        return Err(invalid(format!("maxChars is {max_chars}; expected at least {MIN_MAX_CHARS}")));
    }
    let mut passages: Vec<Range<usize>> = Vec::new();
    // Characters of the last passage, 0 if nothing may join it.
    let mut chars = 0;
    for sentence in sentences(text) {
        let length = text[sentence.clone()].chars().count();
        if length > max_chars {
            chars = 0;
            passages.extend(pieces(text, sentence, max_chars));
            continue;
        }
        if let Some(last) = passages.last_mut().filter(|_| chars > 0) {
            let gap = text[last.end..sentence.start].chars().count();
            if chars + gap + length <= max_chars {
                last.end = sentence.end;
                chars += gap + length;
                continue;
            }
        }
        chars = length;
        passages.push(sentence);
    }
    Ok(passages)
}

const CLOSING: &str = "”’\"'」』)）》〉】]»";
const FULL_WIDTH: &str = "。！？｡";

fn is_end_mark(c: char) -> bool {
    matches!(c, '.' | '!' | '?' | '…' | '‥' | '．') || FULL_WIDTH.contains(c)
}

fn is_line_end(c: char) -> bool {
    matches!(c, '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

fn is_hangul(c: char) -> bool {
    matches!(c, '\u{ac00}'..='\u{d7a3}')
}

/// The sentences of `text` without white space around them.
fn sentences(text: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut start = 0;
    let mut rest = text.char_indices().peekable();
    let mut push = |from: usize, to: usize| {
        let inner = text[from..to].trim_end();
        let trimmed = inner.trim_start();
        if !trimmed.is_empty() {
            let from = from + inner.len() - trimmed.len();
            found.push(from..from + trimmed.len());
        }
    };
    while let Some((at, c)) = rest.next() {
        if is_line_end(c) {
            push(start, at);
            start = at;
        } else if is_end_mark(c) {
            let mut end = at + c.len_utf8();
            let mut marks = 1;
            let mut full_width = FULL_WIDTH.contains(c);
            while let Some((at, c)) = rest.next_if(|(_, c)| is_end_mark(*c)) {
                end = at + c.len_utf8();
                marks += 1;
                full_width |= FULL_WIDTH.contains(c);
            }
            let marks_end = end;
            while let Some((at, c)) = rest.next_if(|(_, c)| CLOSING.contains(*c)) {
                end = at + c.len_utf8();
            }
            let border = Border {
                before: &text[start..at],
                after: &text[end..],
                full_stop: c == '.' && marks == 1,
                full_width,
                closed: end > marks_end,
            };
            if border.ends_sentence() {
                push(start, end);
                start = end;
            }
        }
    }
    push(start, text.len());
    found
}

/// What stands around marks that may end a sentence.
struct Border<'a> {
    /// The sentence so far.
    before: &'a str,
    after: &'a str,
    /// One full stop, which may also be part of a number or an abbreviation.
    full_stop: bool,
    full_width: bool,
    /// A quote or a bracket closes after the marks.
    closed: bool,
}

impl Border<'_> {
    fn ends_sentence(&self) -> bool {
        let Some(next) = self.after.chars().next() else { return true };
        if !next.is_whitespace() {
            if self.closed {
                // "간다."라고 말했다
                return false;
            }
            return self.full_width || self.ending_meets_next(next);
        }
        let following = self.after.trim_start();
        if self.closed {
            let goes_on = ["라고", "라며", "라는", "이라", "하고", "고 "];
            return !goes_on.iter().any(|word| following.starts_with(word));
        }
        !(self.full_stop && self.is_abbreviation(following))
    }

    /// 갔다.그리고: Hangul on both sides of the mark, and before a full stop a final ending.
    fn ending_meets_next(&self, next: char) -> bool {
        let Some(last) = self.before.chars().next_back() else { return false };
        let opens = matches!(next, '"' | '\'' | '“' | '‘' | '「' | '『' | '(');
        let ends = !self.full_stop || "다요죠까네지자라음함임됨".contains(last);
        is_hangul(last)
            && (is_hangul(next) || opens)
            && ends
            && self.last_word().chars().count() > 1
    }

    fn last_word(&self) -> &str {
        // A word longer than this is none that is asked about.
        let from = self.before.char_indices().rev().take(24).last().map_or(0, |(at, _)| at);
        let word = self.before[from..].rsplit(char::is_whitespace).next().unwrap_or("");
        word.trim_start_matches(|c: char| !c.is_alphanumeric())
    }

    /// Whether the full stop belongs to a number, an initial or an abbreviation.
    fn is_abbreviation(&self, following: &str) -> bool {
        let word = self.last_word();
        let next = following.chars().next();
        let digits = !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit());
        // A list's mark begins its line: "1. 항목", "가. 항목".
        let is_mark = word.chars().count() == 1 || digits;
        if is_mark && self.before.trim_start().chars().count() <= word.chars().count() + 1 {
            return true;
        }
        // 2024. 3. 5.
        let before = self.before[..self.before.len() - word.len()].trim_end();
        let in_date = before
            .strip_suffix('.')
            .is_some_and(|rest| rest.ends_with(|c: char| c.is_ascii_digit()));
        if digits && (in_date || next.is_some_and(|c| c.is_ascii_digit())) {
            return true;
        }
        let latin = word.chars().next().is_some_and(|c| c.is_alphabetic() && c < '\u{250}');
        if !latin {
            return false;
        }
        const TITLES: [&str; 15] = [
            "mr", "mrs", "ms", "dr", "prof", "st", "vs", "no", "fig", "inc", "ltd", "co", "jr",
            "sr", "vol",
        ];
        word.chars().count() == 1
            || word.contains('.')
            || next.is_some_and(char::is_lowercase)
            || TITLES.iter().any(|title| word.eq_ignore_ascii_case(title))
    }
}

/// A sentence of more than `max_chars` characters in pieces.
fn pieces(text: &str, sentence: Range<usize>, max_chars: usize) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut start = sentence.start;
    loop {
        let rest = &text[start..sentence.end];
        let Some((limit, _)) = rest.char_indices().nth(max_chars) else {
            found.push(start..sentence.end);
            return found;
        };
        let end = cut(rest, limit);
        let piece = rest[..end].trim_end();
        found.push(start..start + piece.len());
        start += end + (rest[end..].len() - rest[end..].trim_start().len());
    }
}

/// Where to cut `text`, at most at `limit`: after at least one character.
fn cut(text: &str, limit: usize) -> usize {
    let (mut ending, mut comma, mut blank) = (0, 0, 0);
    let mut before = ['\0'; 2];
    for (at, c) in text.char_indices().take_while(|&(at, _)| at <= limit) {
        if c.is_whitespace() && at > 0 {
            blank = at;
            let [last_but_one, last] = before;
            if is_final_ending(last_but_one, last) {
                ending = at;
            }
            if matches!(last, ',' | ';' | ':' | '、' | '，' | '；' | '—' | '·') {
                comma = at;
            }
        }
        before = [before[1], c];
    }
    // Not so early that a short piece is left for a better border.
    if ending >= limit / 3 && ending > 0 {
        return ending;
    }
    if comma >= limit / 2 && comma > 0 {
        return comma;
    }
    if blank > 0 {
        return blank;
    }
    // Marks, vowels and finals of decomposed Hangul, joiners and the like stay with what they belong to.
    let continues = |at: usize| {
        let next = text[at..].chars().next();
        let last = text[..at].chars().next_back();
        next.is_some_and(continues_character) || last == Some('\u{200d}')
    };
    let mut at = limit;
    while at > 0 && continues(at) {
        at -= text[..at].chars().next_back().map_or(0, char::len_utf8);
    }
    if at > 0 { at } else { limit }
}

/// 습니다, 어요 and their like: what ends sentences that have no full stop.
fn is_final_ending(last_but_one: char, last: char) -> bool {
    match last {
        '다' => last_but_one == '니',
        '요' => "어아해예에세네까군데지려여워와돼죠".contains(last_but_one),
        '죠' => true,
        _ => false,
    }
}

fn continues_character(c: char) -> bool {
    matches!(c,
        '\u{300}'..='\u{36f}' | '\u{1160}'..='\u{11ff}' | '\u{d7b0}'..='\u{d7ff}' | '\u{200d}'
        | '\u{20d0}'..='\u{20ff}' | '\u{302a}'..='\u{302f}' | '\u{3099}' | '\u{309a}'
        | '\u{fe00}'..='\u{fe0f}' | '\u{1f3fb}'..='\u{1f3ff}' | '\u{e0020}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(text: &str) -> Vec<&str> {
        sentences(text).into_iter().map(|range| &text[range]).collect()
    }

    fn cut_to(text: &str, max_chars: usize) -> Vec<&str> {
        cut_passages(text, max_chars).unwrap().into_iter().map(|range| &text[range]).collect()
    }

    #[test]
    fn korean_sentences() {
        assert_eq!(
            split("비가 온다. 우산을 쓴다!  왜? 젖으니까…"),
            ["비가 온다.", "우산을 쓴다!", "왜?", "젖으니까…"]
        );
        assert_eq!(split("집에 갔다.그리고 잤다.“그래”"), ["집에 갔다.", "그리고 잤다.", "“그래”"]);
        assert_eq!(split("정말?그래!좋아"), ["정말?", "그래!", "좋아"]);
        assert_eq!(split("3.5배와 2024. 3. 5. 회의. 끝"), ["3.5배와 2024. 3. 5. 회의.", "끝"]);
        assert_eq!(split("첫 줄\n둘째 줄\r\n\r\n셋째 줄"), ["첫 줄", "둘째 줄", "셋째 줄"]);
        assert_eq!(split(" \n\t "), [""; 0]);
    }

    #[test]
    fn quotations() {
        assert_eq!(
            split("\"나는 간다.\"라고 말했다. 그랬다."),
            ["\"나는 간다.\"라고 말했다.", "그랬다."]
        );
        assert_eq!(split("“나는 간다.” 라고 말했다."), ["“나는 간다.” 라고 말했다."]);
        assert_eq!(split("“나는 간다.” 그가 말했다."), ["“나는 간다.”", "그가 말했다."]);
        assert_eq!(split("(비가 왔다.) 그래도 갔다."), ["(비가 왔다.)", "그래도 갔다."]);
        assert_eq!(split("「行く。」と言った。次。"), ["「行く。」と言った。", "次。"]);
    }

    #[test]
    fn lists_and_abbreviations() {
        assert_eq!(
            split("1. 첫째 항목\n2. 둘째 항목\n- 셋째"),
            ["1. 첫째 항목", "2. 둘째 항목", "- 셋째"]
        );
        assert_eq!(split("가. 목적\n나. 범위"), ["가. 목적", "나. 범위"]);
        assert_eq!(
            split("Dr. Kim met J. Lee. They spoke."),
            ["Dr. Kim met J. Lee.", "They spoke."]
        );
        assert_eq!(
            split("The U.S. economy, e.g. trade. It grew."),
            ["The U.S. economy, e.g. trade.", "It grew."]
        );
        assert_eq!(split("See example.com for v1.2.3 now."), ["See example.com for v1.2.3 now."]);
        assert_eq!(split("값은 10. 다음 값은 20이다."), ["값은 10.", "다음 값은 20이다."]);
    }

    #[test]
    fn sentences_are_joined_as_long_as_they_fit() {
        let text = "하나 둘 셋. 넷 다섯 여섯. 일곱 여덟.";
        assert_eq!(cut_to(text, 150), [text]);
        assert_eq!(cut_to(text, 16), ["하나 둘 셋. 넷 다섯 여섯.", "일곱 여덟."]);
        assert_eq!(cut_to(text, 15), ["하나 둘 셋.", "넷 다섯 여섯. 일곱 여덟."]);
        assert_eq!(cut_to("", 150), [""; 0]);
        assert!(cut_passages("", 9).is_err());
    }

    #[test]
    fn long_sentences_are_cut_where_it_hurts_least() {
        assert_eq!(
            cut_to("오늘은 비가 왔습니다 그래서 집에 있었어요 정말", 15),
            ["오늘은 비가 왔습니다", "그래서 집에 있었어요 정말"]
        );
        assert_eq!(
            cut_to("가나다 라마바, 사아자 차카타 파하", 12),
            ["가나다 라마바,", "사아자 차카타 파하"]
        );
        assert_eq!(
            cut_to("가나다라마바사아자차카타파하", 10),
            ["가나다라마바사아자차", "카타파하"]
        );
        let family = "👨\u{200d}👩\u{200d}👧";
        assert_eq!(
            cut_to(&format!("가나다라마바사아{family}나"), 10),
            ["가나다라마바사아", &format!("{family}나")]
        );
        assert_eq!(cut_to(&"\u{301}".repeat(25), 10).len(), 3);
    }

    #[test]
    fn every_passage_fits_and_nothing_is_lost() {
        let mut text = String::new();
        for i in 0..400usize {
            text += [
                "비가 ",
                "왔습니다. ",
                "끝",
                "a.b ",
                "!",
                "\n",
                "가나다라마바사아자차카타파하",
                "\u{1100}\u{1161}",
                "👩\u{200d}🚀",
            ][(i * i + i / 3) % 9];
        }
        for max in [10, 11, 37, 150] {
            let passages = cut_passages(&text, max).unwrap();
            let mut at = 0;
            for passage in passages {
                assert!(text[at..passage.start].trim().is_empty());
                let inner = &text[passage.clone()];
                assert!(!inner.is_empty() && inner.trim() == inner && inner.chars().count() <= max);
                at = passage.end;
            }
            assert!(text[at..].trim().is_empty());
        }
    }
}
