//! Documents searched by meaning and by words at once.

use std::collections::HashMap;
use std::ops::Range;

use super::bm25::{Bm25, Bm25Scores, QueryTerms};
use super::fusion::fused_score;
use super::top_k::TopK;
use super::vector_index::{allows, checked_model_id};
use super::vectors::{BLOCK, Precision, Query, Vectors, invalid, unit};
use super::words::BuildTermHasher;
use crate::error::{Error, ErrorKind, Result};

/// The document of a removed row.
const REMOVED: u32 = u32::MAX;

/// Removed rows that are not worth a compaction.
const FEW: usize = 1024;

/// Documents cut into passages, each with its words and, as soon as it is encoded, its vector.
///
/// A document is a number that the caller chooses, below 2³² − 1; it is found by its best passage. Scores
/// depend on the documents that are there, not on the order in which they came and went.
#[derive(Clone, Debug)]
pub struct HybridIndex {
    model_id: Option<String>,
    vectors: Vectors,
    words: Bm25,
    /// The document of each row, or [`REMOVED`].
    documents: Vec<u32>,
    /// Where each row's passage lies in its document's text, in the caller's units.
    places: Vec<(u32, u32)>,
    /// First row and number of rows of each document.
    rows_of: HashMap<u32, (u32, u32), BuildTermHasher>,
    live: usize,
    encoded: usize,
}

/// What to look for.
#[derive(Clone, Copy, Debug)]
pub struct HybridQuery<'a> {
    /// The query's embedding, if it is to be searched by meaning.
    pub vector: Option<&'a [f32]>,
    /// The query's words, if it is to be searched by them.
    pub text: Option<&'a str>,
    /// How many documents at most.
    pub top_k: usize,
    /// The least score of a hit.
    pub min_score: f32,
    /// The weight of meaning, 0 to 1; see [`fused_score`].
    pub semantic: f32,
    /// By document: 0 leaves it out, as does a mask that ends before it.
    pub mask: Option<&'a [u8]>,
}

/// A document that was found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HybridHit {
    /// The caller's number.
    pub document: u32,
    /// Which of its passages is the best, counted from 0.
    pub passage: usize,
    /// Where that passage begins and ends, as [`HybridIndex::add`] was told.
    pub place: (u32, u32),
    /// What hits are ranked by.
    pub score: f32,
    /// Cosine similarity of the passage; none while it has no vector or without a query vector.
    pub cosine: Option<f32>,
    /// BM25 of the document divided by its bound; none for a query without words.
    pub lexical: Option<f32>,
}

impl HybridIndex {
    /// An empty index for vectors of `dimension` values made by the model `model_id`.
    ///
    /// # Errors
    /// [`ErrorKind::InputInvalid`] for a dimension of 0 or above [`MAX_DIMENSION`](super::MAX_DIMENSION), or a
    /// model id that is not 16 hex digits.
    pub fn new(dimension: usize, precision: Precision, model_id: Option<&str>) -> Result<Self> {
        Ok(HybridIndex {
            model_id: model_id.map(checked_model_id).transpose()?,
            vectors: Vectors::new(dimension, precision)?,
            words: Bm25::new(),
            documents: Vec::new(),
            places: Vec::new(),
            rows_of: HashMap::default(),
            live: 0,
            encoded: 0,
        })
    }

    /// The number of documents.
    pub fn len(&self) -> usize {
        self.rows_of.len()
    }

    /// Whether there are no documents.
    pub fn is_empty(&self) -> bool {
        self.rows_of.is_empty()
    }

    /// The number of passages.
    pub fn passages(&self) -> usize {
        self.live
    }

    /// The number of passages with a vector.
    pub fn encoded(&self) -> usize {
        self.encoded
    }

    /// Values of one vector.
    pub fn dimension(&self) -> usize {
        self.vectors.dimension()
    }

    /// How vectors are kept.
    pub fn precision(&self) -> Precision {
        self.vectors.precision()
    }

    /// The id of the model that made the vectors, if it was said.
    pub fn model_id(&self) -> Option<&str> {
        self.model_id.as_deref()
    }

    /// Bytes held, approximately.
    pub fn byte_len(&self) -> usize {
        let rows = 4 * self.documents.capacity() + 8 * self.places.capacity();
        self.vectors.byte_len() + self.words.byte_len() + rows + 16 * self.rows_of.capacity()
    }

    /// Whether `document` is there.
    pub fn has(&self, document: u32) -> bool {
        self.rows_of.contains_key(&document)
    }

    /// The number of passages of `document`; 0 if it is not there.
    pub fn passages_of(&self, document: u32) -> usize {
        self.rows_of.get(&document).map_or(0, |&(_, count)| count as usize)
    }

    /// Adds a document by its passages: each one's words, and its place as the caller counts. Its words can be
    /// found at once, its meaning after [`set_vectors`](Self::set_vectors).
    ///
    /// # Errors
    /// [`ErrorKind::InputInvalid`] if the document is there already, or if its number is 2³² − 1.
    pub fn add<'a>(
        &mut self,
        document: u32,
        passages: impl IntoIterator<Item = (&'a str, (u32, u32))>,
    ) -> Result<()> {
        if document == REMOVED {
            return Err(invalid(format!("{document} is no number of a document; count from 0")));
        }
        if self.has(document) {
            return Err(invalid(format!("document {document} is there already; remove it first")));
        }
        let first = self.documents.len();
        for (text, place) in passages {
            self.words.add(text, self.documents.len() > first);
            self.vectors.push_absent();
            self.documents.push(document);
            self.places.push(place);
        }
        let count = self.documents.len() - first;
        self.live += count;
        self.rows_of.insert(document, (first as u32, count as u32));
        Ok(())
    }

    /// Gives passages of `document` their vectors, from passage `first_passage` on: a multiple of `dimension`
    /// values, row-major. All or none are taken.
    ///
    /// # Errors
    /// [`ErrorKind::InputInvalid`] if there is no such document or passage, or for values that are not whole
    /// vectors, not finite or all zeros; the message names the vector.
    pub fn set_vectors(
        &mut self,
        document: u32,
        first_passage: usize,
        vectors: &[f32],
    ) -> Result<()> {
        let dimension = self.dimension();
        if !vectors.len().is_multiple_of(dimension) {
            return Err(invalid(format!(
                "{} values are no whole vectors; the index holds vectors of {dimension}",
                vectors.len()
            )));
        }
        let count = vectors.len() / dimension;
        let rows = self.rows(document)?;
        let start = rows.start.saturating_add(first_passage);
        if start.saturating_add(count) > rows.end {
            return Err(invalid(format!(
                "{count} vectors from passage {first_passage} on; document {document} has {} passages",
                rows.len()
            )));
        }
        let named = |i: usize| move || format!("vector {i}");
        let units: Vec<_> = vectors
            .chunks_exact(dimension)
            .enumerate()
            .map(|(i, vector)| unit(vector, dimension, named(i)))
            .collect::<Result<_>>()?;
        for (row, unit) in (start..).zip(&units) {
            self.encoded += usize::from(!self.vectors.has(row));
            self.vectors.set(row, unit);
        }
        Ok(())
    }

    fn rows(&self, document: u32) -> Result<Range<usize>> {
        let &(first, count) = self
            .rows_of
            .get(&document)
            .ok_or_else(|| invalid(format!("there is no document {document} in the index")))?;
        Ok(first as usize..(first + count) as usize)
    }

    /// Removes a document; whether it was there.
    pub fn remove(&mut self, document: u32) -> bool {
        let Ok(rows) = self.rows(document) else { return false };
        self.rows_of.remove(&document);
        self.live -= rows.len();
        for row in rows {
            self.encoded -= usize::from(self.vectors.has(row));
            self.vectors.clear(row);
            self.words.remove(row);
            self.documents[row] = REMOVED;
        }
        let dead = self.documents.len() - self.live;
        if dead > FEW && dead * 4 > self.documents.len() {
            self.compact();
        }
        true
    }

    /// Removes all documents.
    pub fn clear(&mut self) {
        self.vectors.pop(self.vectors.len());
        self.words = Bm25::new();
        self.documents.clear();
        self.places.clear();
        self.rows_of.clear();
        (self.live, self.encoded) = (0, 0);
    }

    fn compact(&mut self) {
        let documents = &self.documents;
        self.vectors.retain(|row| documents[row] != REMOVED);
        self.words.compact();
        let mut row = 0;
        self.places.retain(|_| {
            row += 1;
            documents[row - 1] != REMOVED
        });
        self.documents.retain(|&document| document != REMOVED);
        for (row, document) in self.documents.iter().enumerate().rev() {
            // Backwards, so that the first row has the last word.
            self.rows_of.entry(*document).and_modify(|(first, _)| *first = row as u32);
        }
    }

    /// The documents that answer the query best, best first; equal scores in order of insertion.
    ///
    /// A document's score is its best passage's: [`fused_score`] of the passage's cosine and the document's
    /// words; among equal ones the passage with more of the words. A passage without a vector has the score
    /// of the words, and is left out where those say nothing or count for nothing (`semantic` 1).
    ///
    /// # Errors
    /// [`ErrorKind::InputInvalid`] if the query's vector has another dimension, values that are not finite, or
    /// is all zeros, or if `semantic` is outside of 0 to 1.
    pub fn search(&self, query: HybridQuery<'_>) -> Result<Vec<HybridHit>> {
        let semantic = query.semantic;
        if !(0.0..=1.0).contains(&semantic) {
            return Err(invalid(format!("semantic is {semantic}; expected 0 to 1")));
        }
        let vector = query
            .vector
            .map(|vector| unit(vector, self.dimension(), || "the query's vector".into()))
            .transpose()?
            .map(|unit| self.vectors.query(&unit));
        let terms = query.text.map(QueryTerms::new).filter(|terms| !terms.is_empty());
        if query.top_k == 0 || self.live == 0 || (vector.is_none() && terms.is_none()) {
            return Ok(Vec::new());
        }
        let words = terms.map(|terms| self.words.score(&terms));
        let halves = Halves { semantic, words };

        let mut best = TopK::new(query.top_k.min(self.len()), query.min_score);
        let mut cosines = [f32::NAN; BLOCK];
        // First row and best passage so far (row, score, words) of the document at hand; its rows are
        // neighbours.
        let (mut document, mut start) = (REMOVED, 0);
        let mut leader: Option<(u32, f32, f32)> = None;
        for block in 0..self.vectors.blocks() {
            if let Some(vector) = &vector {
                self.vectors.score_block(block, vector, &mut cosines);
            }
            let first = block * BLOCK;
            let rows = self.documents[first..].iter().take(BLOCK);
            for (i, (&owner, &cosine)) in rows.zip(&cosines).enumerate() {
                let row = first + i;
                if owner != document {
                    if let Some((row, score, _)) = leader.take() {
                        best.push(row, score);
                    }
                    (document, start) = (owner, row);
                }
                if owner == REMOVED || !allows(query.mask, owner as usize) {
                    continue;
                }
                let Some(score) = halves.score(cosine, start) else { continue };
                let words = halves.of_passage(row);
                let leads = |&(_, leading, by_words): &(u32, f32, f32)| {
                    score > leading || (score == leading && words > by_words)
                };
                if leader.as_ref().is_none_or(leads) {
                    leader = Some((row as u32, score, words));
                }
            }
        }
        if let Some((row, score, _)) = leader {
            best.push(row, score);
        }
        let found = best.into_sorted().into_iter();
        Ok(found.map(|(row, score)| self.hit(row, score, vector.as_ref(), &halves)).collect())
    }

    fn hit(&self, row: u32, score: f32, vector: Option<&Query>, halves: &Halves) -> HybridHit {
        let at = row as usize;
        let document = self.documents[at];
        let first = self.rows_of[&document].0;
        HybridHit {
            document,
            passage: (row - first) as usize,
            place: self.places[at],
            score,
            cosine: vector
                .map(|vector| self.vectors.score(at, vector))
                .filter(|cosine| !cosine.is_nan()),
            lexical: halves.lexical(first as usize),
        }
    }

    /// Where the passages of `document` lie in its text.
    pub(crate) fn places_of(&self, document: u32) -> Result<&[(u32, u32)]> {
        Ok(&self.places[self.rows(document)?])
    }

    /// Takes the vector of one passage, which is there and has none, as it is kept; otherwise says why not.
    pub(crate) fn import_vector(
        &mut self,
        document: u32,
        passage: usize,
        bytes: &[u8],
    ) -> std::result::Result<(), String> {
        if let Some(fault) = self.vectors.fault(bytes) {
            return Err(fault);
        }
        let row = self.rows_of[&document].0 as usize + passage;
        self.vectors.import(row, bytes);
        self.encoded += usize::from(self.vectors.has(row));
        Ok(())
    }

    /// Bytes of one passage in [`export_vectors`](Self::export_vectors).
    pub fn exported_bytes(&self) -> usize {
        self.vectors.exported_bytes()
    }

    /// The vectors of all passages of `documents`, in that order, as they are kept: for
    /// [`Precision::Int8`] and [`Precision::Binary`] a scale (f32) and the codes, for
    /// [`Precision::Float32`] the values, little-endian. An absent vector has the scale NaN and zeros, or
    /// is all NaN.
    ///
    /// # Errors
    /// [`ErrorKind::InputInvalid`] if one of the documents is not there.
    pub fn export_vectors(&self, documents: &[u32]) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        for &document in documents {
            for row in self.rows(document)? {
                self.vectors.export(row, &mut bytes);
            }
        }
        Ok(bytes)
    }

    /// Gives the passages of `documents`, which are there, what
    /// [`export_vectors`](Self::export_vectors) wrote. All or none are taken.
    ///
    /// # Errors
    /// [`ErrorKind::InputInvalid`] if one of the documents is not there, [`ErrorKind::IndexInvalid`] if
    /// `bytes` are not of that many passages or hold what cannot have been written.
    pub fn import_vectors(&mut self, documents: &[u32], bytes: &[u8]) -> Result<()> {
        let size = self.exported_bytes();
        let mut rows = Vec::new();
        for &document in documents {
            rows.extend(self.rows(document)?);
        }
        if bytes.len() != rows.len() * size {
            return Err(Error::new(
                ErrorKind::IndexInvalid,
                format!(
                    "{} bytes of vectors for {} passages; expected {}: build the index again",
                    bytes.len(),
                    rows.len(),
                    rows.len() * size
                ),
            ));
        }
        for (i, bytes) in bytes.chunks_exact(size).enumerate() {
            if let Some(fault) = self.vectors.fault(bytes) {
                return Err(Error::new(
                    ErrorKind::IndexInvalid,
                    format!("stored vector {i} is damaged: {fault}; build the index again"),
                ));
            }
        }
        for (row, bytes) in rows.into_iter().zip(bytes.chunks_exact(size)) {
            self.encoded -= usize::from(self.vectors.has(row));
            self.vectors.import(row, bytes);
            self.encoded += usize::from(self.vectors.has(row));
        }
        Ok(())
    }
}

/// The halves of a score. Words count by document, meaning by passage: with the words of a passage alone
/// rankings are worse (`docs/PERFORMANCE.md`).
struct Halves {
    semantic: f32,
    words: Option<Bm25Scores>,
}

impl Halves {
    /// BM25 of the document that begins at row `first`, divided by its bound.
    #[inline]
    fn lexical(&self, first: usize) -> Option<f32> {
        self.words.as_ref().map(|words| words.documents[first] / words.bound)
    }

    /// What tells passages apart that mean the same.
    #[inline]
    fn of_passage(&self, row: usize) -> f32 {
        self.words.as_ref().map_or(0.0, |words| words.rows[row])
    }

    #[inline]
    fn score(&self, cosine: f32, first: usize) -> Option<f32> {
        let lexical = self.lexical(first);
        if cosine.is_nan() {
            return lexical.filter(|&lexical| lexical > 0.0 && self.semantic < 1.0);
        }
        fused_score(self.semantic, Some(cosine), lexical)
    }
}
