//! How well passages are found by their questions.

use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};
use std::path::Path;

use crate::error::{Error, Result};
use crate::table::Table;
use crate::train::recipe::EvalSet;

/// Queries and documents of a retrieval set.
///
/// # Errors
/// `data_invalid`, naming file and line.
pub fn read_retrieval(path: &Path, set: &EvalSet) -> Result<Vec<(String, String)>> {
    let table = Table::read(path)?;
    let [query, document] = &set.columns[..] else {
        return Err(Error::data_invalid(format!(
            "evaluation set {:?}: columns = [query, document] is missing",
            set.name
        )));
    };
    let (query, document) = (table.column(query)?, table.column(document)?);
    Ok(table.rows.iter().map(|(_, row)| (row[query].clone(), row[document].clone())).collect())
}

/// Mean nDCG@10 over the rows' queries, each with one right document among all different ones.
/// Equal scores count as ranked before it.
pub fn ndcg_at_10(rows: &[(String, String)], score: impl Fn(&str, &str) -> f64) -> f64 {
    let mut documents: Vec<&str> = Vec::new();
    let mut seen = HashSet::new();
    for (_, document) in rows {
        if seen.insert(document.as_str()) {
            documents.push(document);
        }
    }
    let mut sum = 0.0;
    for (query, right) in rows {
        let best = score(query, right);
        let before = documents
            .iter()
            .filter(|&&document| document != right)
            // NaN is not below anything.
            .filter(|&&document| score(query, document).partial_cmp(&best) != Some(Ordering::Less))
            .count();
        if before < 10 {
            sum += 1.0 / (before as f64 + 2.0).log2();
        }
    }
    sum / rows.len() as f64
}

/// Okapi BM25 (k₁ 1.2, b 0.75) over character bigrams, which serves Korean without a
/// morphological analyser: nDCG@10 as [`ndcg_at_10`].
pub fn bm25_ndcg_at_10(rows: &[(String, String)]) -> f64 {
    let grams = |text: &str| -> HashMap<[char; 2], f64> {
        let mut counts = HashMap::new();
        for word in text.to_lowercase().split(|c: char| !c.is_alphanumeric()) {
            let chars: Vec<char> = word.chars().collect();
            if let [one] = chars[..] {
                *counts.entry([one, ' ']).or_default() += 1.0;
            }
            for pair in chars.windows(2) {
                *counts.entry([pair[0], pair[1]]).or_default() += 1.0;
            }
        }
        counts
    };
    let mut documents: HashMap<&str, HashMap<[char; 2], f64>> = HashMap::new();
    for (_, document) in rows {
        documents.entry(document).or_insert_with(|| grams(document));
    }
    let length = |counts: &HashMap<[char; 2], f64>| counts.values().sum::<f64>();
    let mean = documents.values().map(&length).sum::<f64>() / documents.len() as f64;
    let mut frequency: HashMap<[char; 2], f64> = HashMap::new();
    for counts in documents.values() {
        for gram in counts.keys() {
            *frequency.entry(*gram).or_default() += 1.0;
        }
    }
    let n = documents.len() as f64;
    let queries: HashMap<&str, HashMap<[char; 2], f64>> =
        rows.iter().map(|(query, _)| (query.as_str(), grams(query))).collect();
    let lengths: HashMap<&str, f64> =
        documents.iter().map(|(text, counts)| (*text, length(counts))).collect();
    ndcg_at_10(rows, |query, document| {
        let counts = &documents[document];
        let mut terms: Vec<([char; 2], f64)> =
            queries[query].keys().filter_map(|gram| Some((*gram, *counts.get(gram)?))).collect();
        // Sums in one order, so that the result does not depend on the map's.
        terms.sort_by_key(|term| term.0);
        terms
            .into_iter()
            .map(|(gram, count)| {
                let df = frequency[&gram];
                let idf = (1.0 + (n - df + 0.5) / (df + 0.5)).ln();
                let norm = 1.2 * (0.25 + 0.75 * lengths[document] / mean);
                idf * count * 2.2 / (count + norm)
            })
            .sum()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Vec<(String, String)> {
        [
            ("사과 색", "사과는 빨간 과일이다"),
            ("바다 깊이", "바다는 깊고 푸르다"),
            ("산은", "산은 높다"),
        ]
        .map(|(query, document)| (query.to_owned(), document.to_owned()))
        .to_vec()
    }

    #[test]
    fn ndcg_counts_what_stands_before() {
        let rows = rows();
        let right = |query: &str, document: &str| {
            rows.iter().any(|(q, d)| q == query && d == document) as u8 as f64
        };
        assert_eq!(ndcg_at_10(&rows, right), 1.0);
        assert_eq!(ndcg_at_10(&rows, |query, document| -right(query, document)), 0.5);
        // Nothing is told apart: everything else counts as before it.
        assert_eq!(ndcg_at_10(&rows, |_, _| f64::NAN), 0.5);
    }

    #[test]
    fn bm25_finds_shared_words() {
        assert_eq!(bm25_ndcg_at_10(&rows()), 1.0);
    }
}
