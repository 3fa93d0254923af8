//! Places in a text, in bytes and as JavaScript counts.

use std::ops::Range;

/// Ranges of bytes, in order, as UTF-16 units.
pub fn to_utf16(text: &str, ranges: &[Range<usize>]) -> Vec<u32> {
    let mut chars = text.char_indices();
    let (mut byte, mut unit) = (0, 0);
    let mut place = |wanted: usize| {
        while byte < wanted {
            let Some((_, c)) = chars.next() else { break };
            byte += c.len_utf8();
            unit += c.len_utf16() as u32;
        }
        unit
    };
    ranges.iter().flat_map(|range| [place(range.start), place(range.end)]).collect()
}

/// Places in UTF-16 units, in order, as bytes; none if one of them lies before the last, beyond the text or
/// inside a character.
pub fn from_utf16(text: &str, places: &[u32]) -> Option<Vec<usize>> {
    let mut chars = text.chars();
    let (mut byte, mut unit) = (0, 0);
    let mut bytes = Vec::with_capacity(places.len());
    for &place in places {
        while unit < place {
            let c = chars.next()?;
            byte += c.len_utf8();
            unit += c.len_utf16() as u32;
        }
        if unit != place {
            return None;
        }
        bytes.push(byte);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        let text = "a가👩b";
        let ranges = [0..1, 1..4, 4..8, 8..9, 0..0];
        assert_eq!(to_utf16(text, &ranges[..4]), [0, 1, 1, 2, 2, 4, 4, 5]);
        assert_eq!(from_utf16(text, &[0, 1, 2, 4, 5]), Some(vec![0, 1, 4, 8, 9]));
        assert_eq!(from_utf16(text, &[5, 0]), None);
        assert_eq!(from_utf16(text, &[3]), None);
        assert_eq!(from_utf16(text, &[6]), None);
    }
}
