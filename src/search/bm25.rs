//! BM25 over character bigrams inside words, with postings that grow and shrink.

use std::collections::{BinaryHeap, HashMap};

use super::words::{BuildTermHasher, GramKind, for_each_gram, query_terms};

/// Saturation of a term's frequency.
const K1: f32 = 1.2;
/// How much a passage's length counts.
const B: f32 = 0.75;
/// Length of a removed row.
const REMOVED: u32 = u32::MAX;

/// An inverted index of documents in rows of text, their passages, numbered in order of insertion.
///
/// The score of a document is `Σ idf · tf · (k1 + 1) / (tf + k1 · (1 − b + b · length / mean length))`
/// over the distinct terms of the query, `idf = ln((documents + 1) / (df + ½))`, with k1 = 1.2 and
/// b = 0.75 (Robertson and Zaragoza, *The Probabilistic Relevance Framework: BM25 and Beyond*, 2009; the
/// idf is Lucene's, which is never negative). It depends on the documents that are there, not on how they
/// came.
#[derive(Clone, Debug, Default)]
pub struct Bm25 {
    postings: HashMap<u64, Postings, BuildTermHasher>,
    /// Terms of each row, or [`REMOVED`].
    lengths: Vec<u32>,
    /// The first row of each row's document.
    firsts: Vec<u32>,
    rows: usize,
    documents: usize,
    /// Sum of the lengths of all rows that are there.
    total: u64,
}

/// What a query finds, by row.
#[derive(Clone, Debug, Default)]
pub struct Bm25Scores {
    /// Of documents, at their first rows.
    pub documents: Vec<f32>,
    /// Of rows as if each were a document, with the documents' idf: for telling passages of one document
    /// apart.
    pub rows: Vec<f32>,
    /// `Σ idf · (k1 + 1)` over the query's distinct terms, those that no document has too. A document's score
    /// divided by it compares between queries and indexes; it is below 1.
    pub bound: f32,
}

/// The rows of one term: for each the distance from the row before and the frequency, as numbers of 7
/// bits a byte. A distance is doubled; its last bit says that a frequency other than 1 follows.
#[derive(Clone, Debug, Default)]
struct Postings {
    bytes: Vec<u8>,
    last: u32,
    documents: u32,
}

/// The terms of a query, ready for any number of rows.
#[derive(Clone, Debug)]
pub struct QueryTerms(Vec<u64>);

impl QueryTerms {
    /// The distinct bigrams of `query`.
    pub fn new(query: &str) -> Self {
        QueryTerms(query_terms(query))
    }

    /// Whether `query` has no words.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Bm25 {
    /// An empty index.
    pub fn new() -> Self {
        Self::default()
    }

    /// Rows, removed ones included.
    pub fn rows(&self) -> usize {
        self.lengths.len()
    }

    /// Appends a row; returns its number. It begins a document, or goes on with the last one, which is there.
    pub fn add(&mut self, text: &str, goes_on: bool) -> usize {
        let row = self.lengths.len() as u32;
        let first = if goes_on { self.firsts.last().copied().unwrap_or(row) } else { row };
        let mut terms = BinaryHeap::new();
        let mut length = 0;
        for_each_gram(text, &mut |gram| {
            length += u32::from(gram.kind != GramKind::Initial);
            if gram.kind != GramKind::Alone {
                terms.push(gram.term);
            }
        });
        for same in terms.into_sorted_vec().chunk_by(|a, b| a == b) {
            self.postings.entry(same[0]).or_default().push(row, same.len() as u32, first);
        }
        self.lengths.push(length);
        self.firsts.push(first);
        self.rows += 1;
        self.documents += usize::from(first == row);
        self.total += u64::from(length);
        row as usize
    }

    /// Removes a row; its postings stay until [`compact`](Self::compact), uncounted. A document's rows are removed
    /// together.
    pub fn remove(&mut self, row: usize) {
        let length = std::mem::replace(&mut self.lengths[row], REMOVED);
        if length != REMOVED {
            self.rows -= 1;
            self.documents -= usize::from(self.firsts[row] as usize == row);
            self.total -= u64::from(length);
        }
    }

    /// Gives back the space of removed rows: those that stay move up, in their order.
    pub fn compact(&mut self) {
        let mut next = 0;
        let moved: Vec<Option<u32>> = self
            .lengths
            .iter()
            .map(|&length| {
                let row = (length != REMOVED).then_some(next);
                next += u32::from(row.is_some());
                row
            })
            .collect();
        let firsts: Vec<u32> =
            self.firsts.iter().filter_map(|&first| moved[first as usize]).collect();
        self.postings.retain(|_, postings| {
            let mut kept = Postings::default();
            postings.for_each(|row, frequency| {
                if let Some(row) = moved[row as usize] {
                    kept.push(row, frequency, firsts[row as usize]);
                }
            });
            kept.bytes.shrink_to_fit();
            *postings = kept;
            postings.documents > 0
        });
        self.firsts = firsts;
        self.lengths.retain(|&length| length != REMOVED);
    }

    /// Bytes held, approximately.
    pub fn byte_len(&self) -> usize {
        let entry = size_of::<(u64, Postings)>() + 1;
        let bytes: usize = self.postings.values().map(|postings| postings.bytes.capacity()).sum();
        bytes + self.postings.capacity() * entry + 8 * self.lengths.capacity()
    }

    /// The scores of all rows.
    pub fn score(&self, query: &QueryTerms) -> Bm25Scores {
        let rows = self.lengths.len();
        let mut scores =
            Bm25Scores { documents: vec![0.0; rows], rows: vec![0.0; rows], bound: 0.0 };
        let mut lengths = vec![0u32; rows];
        for (&first, &length) in self.firsts.iter().zip(&self.lengths) {
            if length != REMOVED {
                lengths[first as usize] = lengths[first as usize].saturating_add(length);
            }
        }
        let slope = |count: usize| {
            let mean = (self.total as f64 / count.max(1) as f64) as f32;
            if mean > 0.0 { K1 * B / mean } else { 0.0 }
        };
        let (by_document, by_row) = (slope(self.documents), slope(self.rows));
        let part = |frequency: u32, slope: f32, length: u32| {
            let frequency = frequency as f32;
            frequency / (frequency + (K1 * (1.0 - B) + slope * length as f32))
        };
        for term in &query.0 {
            let postings = self.postings.get(term);
            let df = postings.map_or(0, |postings| self.live_documents(postings));
            let weight = idf(self.documents, df) * (K1 + 1.0);
            scores.bound += weight;
            let Some(postings) = postings else { continue };
            // The document at hand and how often it has the term: its rows are neighbours.
            let mut at_hand: Option<(usize, u32)> = None;
            let mut end = |document: Option<(usize, u32)>| {
                if let Some((first, frequency)) = document {
                    scores.documents[first] +=
                        weight * part(frequency, by_document, lengths[first]);
                }
            };
            postings.for_each(|row, frequency| {
                let (row, length) = (row as usize, self.lengths[row as usize]);
                if length == REMOVED {
                    return;
                }
                scores.rows[row] += weight * part(frequency, by_row, length);
                let first = self.firsts[row] as usize;
                at_hand = match at_hand {
                    Some((document, sum)) if document == first => {
                        Some((first, sum.saturating_add(frequency)))
                    }
                    other => {
                        end(other);
                        Some((first, frequency))
                    }
                };
            });
            end(at_hand);
        }
        scores
    }

    fn live_documents(&self, postings: &Postings) -> u32 {
        if self.rows == self.lengths.len() {
            return postings.documents;
        }
        let (mut documents, mut last) = (0, None);
        postings.for_each(|row, _| {
            let first = self.firsts[row as usize];
            if self.lengths[row as usize] != REMOVED && last != Some(first) {
                documents += 1;
                last = Some(first);
            }
        });
        documents
    }
}

impl Postings {
    /// Takes a row of the document that begins at `first`; rows come in order.
    fn push(&mut self, row: u32, frequency: u32, first: u32) {
        let distance = u64::from(row - self.last);
        self.documents += u32::from(self.bytes.is_empty() || self.last < first);
        self.put(distance << 1 | u64::from(frequency != 1));
        if frequency != 1 {
            self.put(u64::from(frequency));
        }
        self.last = row;
    }

    fn put(&mut self, mut number: u64) {
        while number >= 128 {
            self.bytes.push(number as u8 | 128);
            number >>= 7;
        }
        self.bytes.push(number as u8);
    }

    fn for_each(&self, mut found: impl FnMut(u32, u32)) {
        let mut bytes = self.bytes.iter();
        let mut number = move || {
            let mut number = 0;
            for shift in (0..).step_by(7) {
                let &byte = bytes.next()?;
                number |= u64::from(byte & 127) << shift;
                if byte < 128 {
                    break;
                }
            }
            Some(number)
        };
        let mut row = 0;
        while let Some(distance) = number() {
            row += (distance >> 1) as u32;
            let frequency = if distance & 1 == 1 { number().unwrap_or(1) as u32 } else { 1 };
            found(row, frequency);
        }
    }
}

/// How rare a term is that `df` of `documents` have.
fn idf(documents: usize, df: u32) -> f32 {
    ln((documents as f64 + 1.0) / (f64::from(df) + 0.5)) as f32
}

/// The natural logarithm of a number of at least 1, to 1e-12: the system's differ between machines.
fn ln(x: f64) -> f64 {
    let bits = x.to_bits();
    let mut exponent = (bits >> 52) as i64 - 1023;
    let mut mantissa = f64::from_bits(bits & ((1 << 52) - 1) | 1023 << 52);
    if mantissa > std::f64::consts::SQRT_2 {
        mantissa /= 2.0;
        exponent += 1;
    }
    // ln m = 2 · artanh((m − 1) / (m + 1)).
    let s = (mantissa - 1.0) / (mantissa + 1.0);
    let square = s * s;
    let series = (0..8).rev().fold(0.0, |sum, i| sum * square + 1.0 / f64::from(2 * i + 1));
    exponent as f64 * std::f64::consts::LN_2 + 2.0 * s * series
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXTS: [&str; 5] = [
        "비가 옵니다",
        "밖에 비가 많이 내립니다",
        "주가가 크게 올랐다",
        "학교에서 공부를 했다. 학교는 멀다",
        "",
    ];

    fn index() -> Bm25 {
        let mut index = Bm25::new();
        TEXTS.iter().for_each(|text| {
            index.add(text, false);
        });
        index
    }

    fn scores(index: &Bm25, query: &str) -> (Vec<f32>, f32) {
        let scores = index.score(&QueryTerms::new(query));
        assert_eq!(scores.documents, scores.rows, "documents of one row");
        (scores.documents, scores.bound)
    }

    #[test]
    fn as_the_formula_says() {
        // Lengths: 비가 + 옵니 니다 = 3; 1 + 1 + 1 + 3 = 6; 2 + 1 + 2 = 5; 3 + 2 + 1 + 2 + 1 = 9; 0.
        let (found, bound) = scores(&index(), "학교 하늘");
        let mean = 23.0 / 5.0;
        let idf = |df: f64| (6.0f64 / (df + 0.5)).ln();
        let tf = 2.0;
        let expected = idf(1.0) * tf * 2.2 / (tf + 1.2 * (0.25 + 0.75 * 9.0 / mean));
        assert!((f64::from(found[3]) - expected).abs() < 1e-6, "{} {expected}", found[3]);
        assert!((f64::from(bound) - 2.2 * (idf(1.0) + idf(0.0))).abs() < 1e-5);
        assert_eq!([found[0], found[1], found[2], found[4]], [0.0; 4]);
    }

    #[test]
    fn a_word_of_one_character_finds_what_begins_with_it() {
        let (found, _) = scores(&index(), "비");
        assert!(found[0] > found[1] && found[1] > 0.0, "the shorter row first");
        assert_eq!(found[2], 0.0);
        assert!(QueryTerms::new("?! ").is_empty());
    }

    #[test]
    fn what_was_removed_counts_for_nothing() {
        let mut index = index();
        let query = "비가 학교에 옵니다";
        for text in ["비가 비가 비가", "옵니다 학교에", "학교에 비가 옵니다"] {
            let row = index.add(text, false);
            index.remove(row);
            index.remove(row);
        }
        let extra = index.add("비가 옵니다 학교에", false);
        let (with_dead, bound) = scores(&index, query);
        let mut fresh = self::index();
        fresh.add("비가 옵니다 학교에", false);
        let expected = scores(&fresh, query);
        assert_eq!(with_dead[..5], expected.0[..5]);
        assert_eq!((with_dead[extra], bound), (expected.0[5], expected.1));
        index.compact();
        assert_eq!(scores(&index, query), expected);
        assert_eq!(index.rows(), 6);
    }

    #[test]
    fn passages_of_a_document_count_together() {
        let mut whole = Bm25::new();
        let mut cut = Bm25::new();
        for text in ["학교에 간다 비가 온다", "비가 온다", "학교에 간다 학교에 간다"]
        {
            whole.add(text, false);
            for (i, words) in text.split(' ').collect::<Vec<_>>().chunks(2).enumerate() {
                cut.add(&words.join(" "), i > 0);
            }
        }
        let terms = QueryTerms::new("학교에 비가");
        let (whole_scores, scores) = (whole.score(&terms), cut.score(&terms));
        assert_eq!(scores.bound, whole_scores.bound);
        assert_eq!([0, 2, 3].map(|first| scores.documents[first]), whole_scores.documents[..]);
        assert!(scores.rows[0] > 0.0 && scores.rows[1] > 0.0);
        for row in [0, 1] {
            cut.remove(row);
        }
        whole.remove(0);
        let expected = whole.score(&terms);
        assert_eq!(cut.score(&terms).documents[2..4], expected.documents[1..]);
        cut.compact();
        let compacted = cut.score(&terms);
        assert_eq!(
            (compacted.documents[..2].to_vec(), compacted.bound),
            (expected.documents[1..].to_vec(), expected.bound)
        );
    }

    #[test]
    fn numbers_of_every_size_are_packed() {
        let mut postings = Postings::default();
        let entries =
            [(0, 1), (1, 2), (64, 127), (300, 128), (1 << 20, 1), (u32::MAX - 1, u32::MAX)];
        entries.iter().for_each(|&(row, frequency)| postings.push(row, frequency, row));
        let mut found = Vec::new();
        postings.for_each(|row, frequency| found.push((row, frequency)));
        assert_eq!(found, entries);
    }

    #[test]
    fn logarithms() {
        for x in [1.0, 1.0000001, 1.4142, 1.4143, 2.0, 3.5, 10.0, 1e3, 123_456.789, 4e9] {
            assert!((ln(x) - f64::ln(x)).abs() <= 1e-11 * f64::ln(x).abs().max(1.0), "{x}");
        }
    }
}
