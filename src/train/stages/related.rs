//! Texts that belong together, and texts that two tokenizers cut alike.

use std::collections::HashMap;

use crate::train::data::{Row, Target};

/// Texts that come into one batch because they belong together: the similarities within a batch
/// teach little where everything is unlike everything.
const GROUP_TEXTS: usize = 4;

/// Every text (by its number) once, in groups of up to [`GROUP_TEXTS`] that share a row, an earlier text or
/// a paraphrase set, each with the first row that it stands in.
pub(super) fn related_texts(
    rows: &[Row],
    number_of: impl Fn(&str) -> usize,
) -> Vec<(Vec<u32>, u32)> {
    let mut groups: Vec<(Vec<u32>, u32)> = Vec::new();
    let mut group_of: HashMap<usize, usize> = HashMap::new();
    let mut group_of_set: HashMap<u64, usize> = HashMap::new();
    for (at, row) in rows.iter().enumerate() {
        let numbers: Vec<usize> = row.texts.iter().map(|text| number_of(text)).collect();
        let mut group = numbers.iter().find_map(|number| group_of.get(number).copied());
        if let (None, Target::Set(set)) = (group, row.target) {
            group = group_of_set.get(&set).copied();
        }
        for number in numbers {
            if group_of.contains_key(&number) {
                continue;
            }
            let place = match group {
                Some(place) if groups[place].0.len() < GROUP_TEXTS => place,
                _ => {
                    groups.push((Vec::new(), at as u32));
                    groups.len() - 1
                }
            };
            // Sentences of one row are related only where the row says so.
            if !matches!(row.target, Target::None) {
                group = Some(place);
            }
            groups[place].0.push(number as u32);
            group_of.insert(number, place);
            if let Target::Set(set) = row.target {
                group_of_set.insert(set, place);
            }
        }
    }
    groups
}

/// Whether the teacher's ids are the student's with a prefix after the first.
pub(super) fn aligned(student: &[u32], teacher: &[u32]) -> bool {
    let Some(extra) = teacher.len().checked_sub(student.len()) else {
        return false;
    };
    !student.is_empty() && student[0] == teacher[0] && student[1..] == teacher[1 + extra..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefix_tokens_are_passed_over() {
        assert!(aligned(&[0, 7, 8, 2], &[0, 5, 6, 7, 8, 2]));
        assert!(aligned(&[0, 7, 2], &[0, 7, 2]));
        assert!(!aligned(&[0, 7, 2], &[0, 5, 9, 2]));
        assert!(!aligned(&[0, 7, 8, 2], &[0, 7, 2]));
    }

    #[test]
    fn related_texts_come_together_and_once() {
        let row = |texts: &[&str], target| Row {
            texts: texts.iter().map(|&text| text.to_owned()).collect(),
            target,
            file: 0,
            line: 1,
        };
        let rows = [
            row(&["0", "1"], Target::Score(0.5)),
            row(&["2", "3"], Target::None),
            row(&["1", "4"], Target::Entailment),
            row(&["5"], Target::Set(7)),
            row(&["6"], Target::Set(8)),
            row(&["7"], Target::Set(7)),
            row(&["0", "8"], Target::Contradiction),
            row(&["0", "9"], Target::Neutral),
            row(&["0", "4"], Target::Pair),
        ];
        let groups = related_texts(&rows, |text| text.parse().unwrap());
        let of = |texts: &[u32], row| (texts.to_vec(), row);
        let expected = [
            of(&[0, 1, 4, 8], 0),
            of(&[2], 1),
            of(&[3], 1),
            of(&[5, 7], 3),
            of(&[6], 4),
            // The first group is full.
            of(&[9], 7),
        ];
        assert_eq!(groups, expected);
    }
}
