//! Which training texts stand in the evaluation sets.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use unicode_normalization_alignments::UnicodeNormalization;

use crate::error::Result;
use crate::table::Table;
use crate::train::recipe::{EvalKind, Recipe};
use crate::train::seed::seed_of;

/// Sentences and passages of the evaluation sets, in the form in which they are compared.
#[derive(Default)]
pub struct EvalSentences {
    whole: HashSet<String>,
    passages: Passages,
}

impl EvalSentences {
    /// Collects them; sets that are not in the data folder are passed over (evaluation itself
    /// reports them).
    ///
    /// # Errors
    /// [`ErrorKind::DataInvalid`] for malformed files.
    pub fn read(recipe: &Recipe, data: &Path) -> Result<Self> {
        let mut all = EvalSentences::default();
        for set in &recipe.evaluate {
            let path = data.join(&set.file);
            if !path.exists() {
                continue;
            }
            let table = Table::read(&path)?;
            let columns: Vec<usize> = if set.columns.is_empty() {
                vec![table.column("sentence1")?, table.column("sentence2")?]
            } else {
                set.columns.iter().map(|name| table.column(name)).collect::<Result<_>>()?
            };
            for (_, fields) in &table.rows {
                all.whole.extend(columns.iter().map(|&column| compared(&fields[column])));
            }
            // Query and document: the document is what sentences may be taken from.
            if let (EvalKind::Retrieval, Some(&column)) = (set.kind, columns.last()) {
                for (_, fields) in &table.rows {
                    all.passages.add(compared(&fields[column]));
                }
            }
        }
        Ok(all)
    }

    /// Whether `text` is one of them but for spacing, punctuation and case.
    pub fn contains(&self, text: &str) -> bool {
        self.whole.contains(&compared(text))
    }

    /// Whether `text`, or a sentence of it, stands in a passage of a retrieval set (compared without
    /// spacing, punctuation and case). Sentences below [`Passages::SHORTEST`] letters and digits are
    /// common property and do not count.
    pub fn in_passage(&self, text: &str) -> bool {
        !self.passages.list.is_empty()
            && sentences(text).any(|sentence| self.passages.contain(&compared(sentence)))
    }
}

/// `text` cut after `.`, `?`, `!` and their wide forms.
fn sentences(text: &str) -> impl Iterator<Item = &str> {
    text.split_inclusive(['.', '?', '!', '。', '？', '！', '…'])
}

/// Texts that can be asked quickly whether they contain another.
#[derive(Default)]
struct Passages {
    list: Vec<String>,
    /// Where each run of [`Passages::SHORTEST`] characters stands: hash of passage and run.
    runs: HashMap<u64, Vec<(u32, u32)>>,
}

impl Passages {
    const SHORTEST: usize = 12;

    fn hash(run: &str) -> u64 {
        seed_of(0, run, 0)
    }

    fn add(&mut self, text: String) {
        let number = self.list.len() as u32;
        let starts: Vec<usize> =
            text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
        for ends in starts.windows(Self::SHORTEST + 1) {
            let (begin, end) = (ends[0], ends[Self::SHORTEST]);
            let places = self.runs.entry(Self::hash(&text[begin..end])).or_default();
            places.push((number, begin as u32));
        }
        self.list.push(text);
    }

    fn contain(&self, text: &str) -> bool {
        let Some((end, _)) = text.char_indices().nth(Self::SHORTEST - 1) else {
            return false;
        };
        let end = end + text[end..].chars().next().map_or(0, char::len_utf8);
        self.runs.get(&Self::hash(&text[..end])).is_some_and(|places| {
            places.iter().any(|&(number, begin)| {
                self.list[number as usize][begin as usize..].starts_with(text)
            })
        })
    }
}

/// NFKC, lower case, letters and digits only.
fn compared(text: &str) -> String {
    text.nfkc().flat_map(|(c, _)| c.to_lowercase()).filter(|c| c.is_alphanumeric()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_of_passages_are_found() {
        let mut evaluation = EvalSentences::default();
        let passage = "한강은 서울을 가로질러 흐른다. 길이는 약 494 km 이며, 서해로 들어간다.";
        evaluation.passages.add(compared(passage));
        for text in [
            "길이는 약 494km이며 서해로 들어간다",
            "한강은  서울을 가로질러 흐른다!",
            "모르는 문장이다. 한강은 서울을 가로질러 흐른다. 그렇다.",
            passage,
        ] {
            assert!(evaluation.in_passage(text), "{text}");
        }
        for text in ["한강은 서울을", "낙동강은 부산을 가로질러 흐른다고 한다", "", "..."]
        {
            assert!(!evaluation.in_passage(text), "{text}");
        }
    }

    #[test]
    fn comparison_ignores_spacing_punctuation_and_case() {
        assert_eq!(compared("오늘, 날씨가 Good!"), compared("오늘날씨가 ｇｏｏｄ"));
        assert_ne!(compared("가나"), compared("가다"));
    }
}
