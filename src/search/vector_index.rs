//! An exact index: every vector is compared with the query.

use super::top_k::TopK;
use super::vectors::{BLOCK, Precision, Query, Vectors, invalid, unit};
use crate::error::Result;

/// How many of the best by signs are compared again by 8 bits a value.
const RESCORED: usize = 200;

/// Vectors of one model, searched exhaustively by cosine.
///
/// Rows are numbered in order of insertion. A removed row keeps its number until
/// [`compact`](Self::compact).
#[derive(Clone, Debug)]
pub struct VectorIndex {
    model_id: Option<String>,
    vectors: Vectors,
    /// With [`Precision::Binary`]: what the best by signs are compared with again.
    fine: Option<Vectors>,
    live: usize,
}

/// One search result.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct VectorHit {
    /// The row, in order of insertion.
    pub row: usize,
    /// Its cosine similarity to the query.
    pub score: f32,
}

/// What a search is asked for.
#[derive(Clone, Copy, Debug)]
pub struct SearchOptions<'a> {
    /// How many hits at most.
    pub top_k: usize,
    /// The least score of a hit.
    pub min_score: f32,
    /// By row: 0 leaves the row out, as does a mask that ends before it.
    pub mask: Option<&'a [u8]>,
}

impl Default for SearchOptions<'_> {
    fn default() -> Self {
        SearchOptions { top_k: 10, min_score: f32::NEG_INFINITY, mask: None }
    }
}

impl VectorIndex {
    /// An empty index for vectors of `dimension` values. `rescore` is for [`Precision::Binary`]: keep the
    /// vectors in 8 bits too, and compare the best 200 by signs (or four times as many as are asked for)
    /// with them.
    ///
    /// # Errors
    /// [`ErrorKind::InputInvalid`](crate::ErrorKind::InputInvalid) for a dimension of 0 or above
    /// [`MAX_DIMENSION`](super::MAX_DIMENSION), a model id that is not 16 hex digits, or `rescore` with
    /// another precision.
    pub fn new(
        dimension: usize,
        precision: Precision,
        rescore: bool,
        model_id: Option<&str>,
    ) -> Result<Self> {
        if rescore && precision != Precision::Binary {
            return Err(invalid(format!(
                "rescore is for precision \"binary\"; {:?} needs none",
                precision.name()
            )));
        }
        Ok(VectorIndex {
            model_id: model_id.map(checked_model_id).transpose()?,
            vectors: Vectors::new(dimension, precision)?,
            fine: rescore.then(|| Vectors::new(dimension, Precision::Int8)).transpose()?,
            live: 0,
        })
    }

    /// The number of vectors.
    pub fn len(&self) -> usize {
        self.live
    }

    /// Whether there are no vectors.
    pub fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// Rows, removed ones included.
    pub fn rows(&self) -> usize {
        self.vectors.len()
    }

    /// Values of one vector.
    pub fn dimension(&self) -> usize {
        self.vectors.dimension()
    }

    /// How vectors are kept.
    pub fn precision(&self) -> Precision {
        self.vectors.precision()
    }

    /// Whether the best by signs are compared again.
    pub fn rescores(&self) -> bool {
        self.fine.is_some()
    }

    /// The id of the model that made the vectors, if it was said.
    pub fn model_id(&self) -> Option<&str> {
        self.model_id.as_deref()
    }

    /// Bytes held.
    pub fn byte_len(&self) -> usize {
        self.vectors.byte_len() + self.fine.as_ref().map_or(0, Vectors::byte_len)
    }

    /// Appends vectors: a multiple of `dimension` values, row-major, as an encoder returns them. Returns
    /// the first one's row. All or none are taken.
    ///
    /// # Errors
    /// [`ErrorKind::InputInvalid`](crate::ErrorKind::InputInvalid) if the values are not whole rows, or if
    /// a row has values that are not finite or is all zeros; the message names it.
    pub fn add(&mut self, vectors: &[f32]) -> Result<usize> {
        let (first, dimension) = (self.rows(), self.dimension());
        if !vectors.len().is_multiple_of(dimension) {
            return Err(invalid(format!(
                "{} values are no whole rows; the index holds vectors of {dimension}",
                vectors.len()
            )));
        }
        for (i, vector) in vectors.chunks_exact(dimension).enumerate() {
            match unit(vector, dimension, || format!("vector {i}")) {
                Ok(unit) => self.push(&unit),
                Err(error) => {
                    self.live -= i;
                    self.vectors.pop(i);
                    if let Some(fine) = &mut self.fine {
                        fine.pop(i);
                    }
                    return Err(error);
                }
            }
        }
        Ok(first)
    }

    fn push(&mut self, unit: &[f32]) {
        for vectors in [Some(&mut self.vectors), self.fine.as_mut()].into_iter().flatten() {
            vectors.push_absent();
            vectors.set(vectors.len() - 1, unit);
        }
        self.live += 1;
    }

    /// Replaces the vector of `row`.
    ///
    /// # Errors
    /// [`ErrorKind::InputInvalid`](crate::ErrorKind::InputInvalid) as [`add`](Self::add), or if there is no
    /// such row.
    pub fn update(&mut self, row: usize, vector: &[f32]) -> Result<()> {
        if !self.has(row) {
            return Err(invalid(format!("there is no row {row} in the index")));
        }
        let unit = unit(vector, self.dimension(), || "the vector".into())?;
        self.vectors.set(row, &unit);
        if let Some(fine) = &mut self.fine {
            fine.set(row, &unit);
        }
        Ok(())
    }

    /// Whether `row` is there.
    pub fn has(&self, row: usize) -> bool {
        row < self.rows() && self.vectors.has(row)
    }

    /// Removes `row`; whether it was there.
    pub fn remove(&mut self, row: usize) -> bool {
        if !self.has(row) {
            return false;
        }
        self.vectors.clear(row);
        if let Some(fine) = &mut self.fine {
            fine.clear(row);
        }
        self.live -= 1;
        true
    }

    /// Removes all rows.
    pub fn clear(&mut self) {
        let rows = self.rows();
        self.vectors.pop(rows);
        if let Some(fine) = &mut self.fine {
            fine.pop(rows);
        }
        self.live = 0;
    }

    /// Gives back the space of removed rows: those that stay move up, in their order.
    pub fn compact(&mut self) {
        let keep: Vec<bool> = (0..self.rows()).map(|row| self.vectors.has(row)).collect();
        self.vectors.retain(|row| keep[row]);
        if let Some(fine) = &mut self.fine {
            fine.retain(|row| keep[row]);
        }
    }

    /// The vectors most similar to `query`, best first; equal scores in order of row.
    ///
    /// # Errors
    /// [`ErrorKind::InputInvalid`](crate::ErrorKind::InputInvalid) if `query` has another dimension, values
    /// that are not finite, or is all zeros.
    pub fn search(&self, query: &[f32], options: SearchOptions<'_>) -> Result<Vec<VectorHit>> {
        let unit = unit(query, self.dimension(), || "the query".into())?;
        let (top_k, min_score) = (options.top_k.min(self.live), options.min_score);
        let found = match &self.fine {
            None => self.scan(&self.vectors.query(&unit), top_k, min_score, options.mask),
            Some(fine) => {
                let rescored = RESCORED.max(top_k.saturating_mul(4));
                let query = self.vectors.query(&unit);
                let found = self.scan(&query, rescored, f32::NEG_INFINITY, options.mask);
                let query = fine.query(&unit);
                let mut best = TopK::new(top_k, min_score);
                for (row, _) in found {
                    best.push(row, fine.score(row as usize, &query));
                }
                best.into_sorted()
            }
        };
        Ok(found.into_iter().map(|(row, score)| VectorHit { row: row as usize, score }).collect())
    }

    /// Bytes of a stored vector, and of the same in 8 bits.
    pub(crate) fn stored_bytes(&self) -> [usize; 2] {
        [self.vectors.exported_bytes(), self.fine.as_ref().map_or(0, Vectors::exported_bytes)]
    }

    /// Appends a vector as it is kept, or with `fine` the same in 8 bits.
    pub(crate) fn export(&self, row: usize, fine: bool, out: &mut Vec<u8>) {
        let vectors = if fine { self.fine.as_ref() } else { Some(&self.vectors) };
        if let Some(vectors) = vectors {
            vectors.export(row, out);
        }
    }

    /// Takes what [`export`](Self::export) gave, for each row its vector first; otherwise says why not.
    pub(crate) fn import(
        &mut self,
        row: usize,
        fine: bool,
        bytes: &[u8],
    ) -> std::result::Result<(), String> {
        let vectors = if fine { self.fine.as_mut() } else { Some(&mut self.vectors) };
        let Some(vectors) = vectors else { return Err("it is not expected".into()) };
        if let Some(fault) = vectors.fault(bytes) {
            return Err(fault);
        }
        if row >= vectors.len() {
            vectors.push_absent();
        }
        vectors.import(row, bytes);
        if !vectors.has(row) {
            return Err("it is absent".into());
        }
        self.live += usize::from(!fine);
        Ok(())
    }

    fn scan(
        &self,
        query: &Query,
        k: usize,
        min_score: f32,
        mask: Option<&[u8]>,
    ) -> Vec<(u32, f32)> {
        let mut best = TopK::new(k, min_score);
        let mut scores = [0.0; BLOCK];
        for block in 0..self.vectors.blocks() {
            let scores = self.vectors.score_block(block, query, &mut scores);
            let first = block * BLOCK;
            for (i, &score) in scores.iter().enumerate() {
                if score >= best.threshold() && allows(mask, first + i) {
                    best.push((first + i) as u32, score);
                }
            }
        }
        best.into_sorted()
    }
}

/// Whether `mask` leaves number `at` in.
pub(super) fn allows(mask: Option<&[u8]>, at: usize) -> bool {
    mask.is_none_or(|mask| mask.get(at).is_some_and(|&allowed| allowed != 0))
}

/// A model id is 16 lower-case hex digits.
pub(crate) fn checked_model_id(id: &str) -> Result<String> {
    let hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    if id.len() == 16 && id.bytes().all(hex) {
        return Ok(id.to_owned());
    }
    let shown: String = id.chars().take(40).collect();
    Err(invalid(format!(
        "the model id is {shown:?}; expected the 16 hex digits that an encoder gives"
    )))
}
