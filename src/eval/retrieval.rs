//! Retrieval: how high the documents that people found relevant rank.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind, Result};
use crate::index::index_texts;
use crate::model::Encoder;
use crate::search::{HybridIndex, HybridQuery, Precision};
use crate::table::read_text;

/// How many hits are looked at.
const DEPTH: usize = 100;

/// Queries, documents, and which answer which.
#[derive(Clone, Debug, PartialEq)]
pub struct RetrievalSet {
    /// Id and text.
    pub queries: Vec<(String, String)>,
    /// Id and text.
    pub corpus: Vec<(String, String)>,
    /// For each query the relevant documents, by place in the corpus, and how relevant they are.
    pub relevant: Vec<Vec<(usize, f64)>>,
}

/// Means over the queries, 0 to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RetrievalScore {
    /// Normalized discounted cumulative gain of the first 10, with linear gain as in trec_eval.
    pub ndcg_at_10: f64,
    /// Reciprocal rank of the first relevant document, 0 beyond 10.
    pub mrr_at_10: f64,
    /// Share of the relevant documents among the first 10.
    pub recall_at_10: f64,
    /// Share of the relevant documents among the first 100.
    pub recall_at_100: f64,
}

/// Reads a folder: `queries.tsv` and `corpus.tsv` with the columns `id` and `text`, and `relevance.tsv` with
/// `query`, `document` and, if not all are equally relevant, `relevance` (a number; 0 and less is not
/// relevant). UTF-8, tabs without quoting, a header line; each may end in `.gz`. Names of BEIR are taken
/// too: `qrels.tsv`, `query-id`, `corpus-id`, `score`, `_id`. Queries without relevant documents are left out.
///
/// # Errors
/// [`ErrorKind::Io`] for a file that is missing or cannot be read; [`ErrorKind::DataInvalid`], naming file and
/// line, for missing columns, ids that come twice or are not known, or no query with a relevant document.
pub fn read_retrieval(folder: &Path) -> Result<RetrievalSet> {
    let queries = read_texts(&find(folder, &["queries.tsv"])?)?;
    let corpus = read_texts(&find(folder, &["corpus.tsv"])?)?;
    let numbered = |texts: &[(String, String)]| -> HashMap<String, usize> {
        texts.iter().enumerate().map(|(i, (id, _))| (id.clone(), i)).collect()
    };
    let (query_of, document_of) = (numbered(&queries), numbered(&corpus));
    let path = find(folder, &["relevance.tsv", "qrels.tsv"])?;
    let table = Table::read(&path)?;
    let query = table.column(&["query", "query_id", "query-id"])?;
    let document =
        table.column(&["document", "document_id", "doc_id", "corpus-id", "corpus_id"])?;
    let relevance = table.column(&["relevance", "score"]).ok();
    let mut relevant = vec![Vec::new(); queries.len()];
    for (line, fields) in &table.rows {
        let known = |of: &HashMap<String, usize>, at: usize, what: &str| {
            of.get(&fields[at])
                .copied()
                .ok_or_else(|| table.bad(*line, format!("no {what} has the id {:?}", fields[at])))
        };
        let gain = match relevance {
            None => 1.0,
            Some(at) => match fields[at].trim().parse() {
                Ok(gain) if f64::is_finite(gain) => gain,
                _ => {
                    return Err(table
                        .bad(*line, format!("relevance is {:?}; expected a number", fields[at])));
                }
            },
        };
        let (query, document) =
            (known(&query_of, query, "query")?, known(&document_of, document, "document")?);
        if gain > 0.0 && !relevant[query].iter().any(|&(known, _)| known == document) {
            relevant[query].push((document, gain));
        }
    }
    let (queries, relevant): (Vec<_>, Vec<_>) =
        queries.into_iter().zip(relevant).filter(|(_, relevant)| !relevant.is_empty()).unzip();
    if queries.is_empty() {
        return Err(table.bad(1, "no query has a relevant document".into()));
    }
    Ok(RetrievalSet { queries, corpus, relevant })
}

fn find(folder: &Path, names: &[&str]) -> Result<PathBuf> {
    let all = names.iter().flat_map(|name| [folder.join(name), folder.join(format!("{name}.gz"))]);
    all.clone().find(|path| path.is_file()).ok_or_else(|| {
        Error::new(
            ErrorKind::Io,
            format!(
                "{} has no {}; expected queries.tsv, corpus.tsv and relevance.tsv",
                folder.display(),
                names[0]
            ),
        )
    })
}

fn read_texts(path: &Path) -> Result<Vec<(String, String)>> {
    let table = Table::read(path)?;
    let (id, text) = (table.column(&["id", "_id"])?, table.column(&["text"])?);
    let mut seen = HashMap::new();
    let mut texts = Vec::new();
    for (line, fields) in &table.rows {
        if let Some(first) = seen.insert(fields[id].clone(), line) {
            return Err(
                table.bad(*line, format!("the id {:?} is in line {first} already", fields[id]))
            );
        }
        texts.push((fields[id].clone(), fields[text].clone()));
    }
    Ok(texts)
}

/// A TSV file with a header line.
struct Table {
    file: String,
    header: Vec<String>,
    /// Line numbers and fields, as many as the header has.
    rows: Vec<(usize, Vec<String>)>,
}

impl Table {
    fn read(path: &Path) -> Result<Self> {
        let text = read_text(path)?;
        let split = |line: &str| line.split('\t').map(str::to_owned).collect::<Vec<_>>();
        let mut lines = text.trim_start_matches('\u{feff}').lines().enumerate();
        let header = lines.next().map_or_else(Vec::new, |(_, line)| split(line));
        let mut table = Table { file: path.display().to_string(), header, rows: Vec::new() };
        for (index, line) in lines.filter(|(_, line)| !line.is_empty()) {
            let fields = split(line);
            if fields.len() != table.header.len() {
                let message =
                    format!("{} fields; the header has {}", fields.len(), table.header.len());
                return Err(table.bad(index + 1, message));
            }
            table.rows.push((index + 1, fields));
        }
        Ok(table)
    }

    fn column(&self, names: &[&str]) -> Result<usize> {
        let found = self.header.iter().position(|name| names.contains(&name.as_str()));
        found.ok_or_else(|| {
            self.bad(
                1,
                format!(
                    "no column {:?}; found {:?} (tab-separated, first line)",
                    names[0], self.header
                ),
            )
        })
    }

    fn bad(&self, line: usize, what: String) -> Error {
        Error::new(ErrorKind::DataInvalid, format!("{}:{line}: {what}", self.file))
    }
}

/// The corpus as an index, and the queries' embeddings.
pub struct Retrieval<'a> {
    set: &'a RetrievalSet,
    index: HybridIndex,
    vectors: Vec<f32>,
}

impl<'a> Retrieval<'a> {
    /// Encodes the corpus, cut into passages, and the queries. `progress` is told how many of how many texts are
    /// done.
    ///
    /// # Errors
    /// What the encoder says of a text.
    pub fn new(
        encoder: &Encoder,
        set: &'a RetrievalSet,
        (precision, max_chars): (Precision, usize),
        mut progress: impl FnMut(usize, usize),
    ) -> Result<Self> {
        let texts: Vec<&str> = set.corpus.iter().map(|(_, text)| text.as_str()).collect();
        let index = index_texts(encoder, &texts, (precision, max_chars), &mut progress)?;
        let mut vectors = Vec::new();
        for batch in set.queries.chunks(512) {
            let texts: Vec<&str> = batch.iter().map(|(_, text)| text.as_str()).collect();
            vectors.extend(encoder.encode_batch(&texts)?.embeddings);
        }
        Ok(Retrieval { set, index, vectors })
    }

    /// Searches all queries with `semantic` as the weight of meaning against words: 1 by meaning alone, 0 by
    /// words alone. A query that is itself in the corpus (the same id and text) does not find itself.
    ///
    /// # Errors
    /// [`ErrorKind::InputInvalid`] if `semantic` is outside of 0 to 1.
    pub fn score(&self, semantic: f32) -> Result<RetrievalScore> {
        let itself: HashMap<&(String, String), usize> =
            self.set.corpus.iter().enumerate().map(|(i, document)| (document, i)).collect();
        let mut sum = RetrievalScore::default();
        let vectors = self.vectors.chunks_exact(self.index.dimension());
        for ((query, vector), relevant) in
            self.set.queries.iter().zip(vectors).zip(&self.set.relevant)
        {
            let hits = self.index.search(HybridQuery {
                vector: (semantic > 0.0).then_some(vector),
                text: (semantic < 1.0).then_some(query.1.as_str()),
                top_k: DEPTH + 1,
                min_score: f32::NEG_INFINITY,
                semantic,
                mask: None,
            })?;
            let own = itself.get(query);
            let ranking: Vec<usize> = hits
                .iter()
                .map(|hit| hit.document as usize)
                .filter(|document| Some(document) != own)
                .take(DEPTH)
                .collect();
            let score = score_ranking(&ranking, relevant);
            sum.ndcg_at_10 += score.ndcg_at_10;
            sum.mrr_at_10 += score.mrr_at_10;
            sum.recall_at_10 += score.recall_at_10;
            sum.recall_at_100 += score.recall_at_100;
        }
        let mean = |sum: f64| sum / self.set.queries.len() as f64;
        Ok(RetrievalScore {
            ndcg_at_10: mean(sum.ndcg_at_10),
            mrr_at_10: mean(sum.mrr_at_10),
            recall_at_10: mean(sum.recall_at_10),
            recall_at_100: mean(sum.recall_at_100),
        })
    }
}

/// One query's scores: `ranking` best first, `relevant` with gains above 0.
fn score_ranking(ranking: &[usize], relevant: &[(usize, f64)]) -> RetrievalScore {
    let discount = |rank: usize| 1.0 / (rank as f64 + 2.0).log2();
    let gain = |document: &usize| {
        relevant.iter().find(|(known, _)| known == document).map_or(0.0, |&(_, gain)| gain)
    };
    let mut ideal: Vec<f64> = relevant.iter().map(|&(_, gain)| gain).collect();
    ideal.sort_by(|a, b| b.total_cmp(a));
    let dcg = |gains: &mut dyn Iterator<Item = f64>| {
        gains.take(10).enumerate().map(|(rank, gain)| gain * discount(rank)).sum::<f64>()
    };
    let found = |depth: usize| {
        let hits = ranking.iter().take(depth).filter(|document| gain(document) > 0.0).count();
        hits as f64 / relevant.len() as f64
    };
    let first = ranking.iter().take(10).position(|document| gain(document) > 0.0);
    RetrievalScore {
        ndcg_at_10: dcg(&mut ranking.iter().map(gain)) / dcg(&mut ideal.into_iter()),
        mrr_at_10: first.map_or(0.0, |rank| 1.0 / (rank as f64 + 1.0)),
        recall_at_10: found(10),
        recall_at_100: found(DEPTH),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rankings_are_scored() {
        let score = score_ranking(&[7, 3, 9, 1], &[(3, 1.0), (1, 2.0), (50, 1.0)]);
        let log = |rank: f64| 1.0 / (rank + 1.0).log2();
        let expected = (log(2.0) + 2.0 * log(4.0)) / (2.0 * log(1.0) + log(2.0) + log(3.0));
        assert!((score.ndcg_at_10 - expected).abs() < 1e-12);
        assert_eq!((score.mrr_at_10, score.recall_at_10), (0.5, 2.0 / 3.0));
        assert_eq!(score_ranking(&[], &[(3, 1.0)]), RetrievalScore::default());
        let far: Vec<usize> = (0..100).collect();
        let score = score_ranking(&far, &[(40, 1.0)]);
        assert_eq!((score.mrr_at_10, score.recall_at_10, score.recall_at_100), (0.0, 0.0, 1.0));
    }

    #[test]
    fn folders_are_read() {
        let folder = tempfile::TempDir::new().unwrap();
        let write =
            |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        let read = || read_retrieval(folder.path());
        assert_eq!(read().unwrap_err().code(), "io");
        write("queries.tsv", "id\ttext\nq1\t하나\nq2\t둘\nq3\t셋\n");
        write("corpus.tsv", "text\tid\n첫째\td1\n둘째\td2\n");
        write("relevance.tsv", "query\tdocument\nq1\td2\nq2\td1\nq2\td2\nq2\td1\n");
        let set = read().unwrap();
        assert_eq!(set.queries.len(), 2);
        assert_eq!(set.relevant, [vec![(1, 1.0)], vec![(0, 1.0), (1, 1.0)]]);
        write("relevance.tsv", "query-id\tcorpus-id\tscore\nq1\td2\t0\nq2\td1\t2\n");
        assert_eq!(read().unwrap().relevant, [vec![(0, 2.0)]]);
        for (text, expected) in [
            ("query\tdocument\nq9\td1\n", ":2: no query has the id \"q9\""),
            ("query\tdocument\nq1\td9\n", ":2: no document has the id \"d9\""),
            ("query\tdocument\trelevance\nq1\td1\thigh\n", ":2: relevance is \"high\""),
            ("query\tdocument\trelevance\nq1\td1\n", ":2: 2 fields"),
            ("query\n", "no column \"document\""),
            ("query\tdocument\n", "no query has a relevant document"),
        ] {
            write("relevance.tsv", text);
            let error = read().unwrap_err();
            assert_eq!(error.code(), "data_invalid");
            assert!(error.to_string().contains(expected), "{error}");
        }
        write("corpus.tsv", "text\tid\n첫째\td1\n둘째\td1\n");
        assert!(read().unwrap_err().to_string().contains(":3: the id \"d1\" is in line 2"));
    }
}
