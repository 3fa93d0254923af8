//! An exact index: all embeddings side by side, every one compared with the query.

use std::collections::HashMap;

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use super::{dot, top_k};
use crate::error::{Error, ErrorKind, Result};

/// Marks the file and its version.
const FORMAT: &str = "munjang-flat-index";
const FORMAT_VERSION: &str = "1";
const TENSOR: &str = "embeddings";

/// Embeddings of one model in 32-bit floats, searched exhaustively.
///
/// The index carries the id of the model that made its embeddings: vectors of different models
/// don't compare, so reading it for another model is an error.
#[derive(Clone, Debug, PartialEq)]
pub struct FlatIndex {
    model_id: String,
    hidden_size: usize,
    embeddings: Vec<f32>,
}

/// One search result.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hit {
    /// The row, in the order of [`FlatIndex::add`].
    pub row: usize,
    /// Its cosine similarity to the query.
    pub score: f32,
}

impl FlatIndex {
    /// An empty index for embeddings of `hidden_size` values made by the model `model_id`.
    ///
    /// # Errors
    /// [`ErrorKind::InputInvalid`] if `hidden_size` is 0.
    pub fn new(model_id: impl Into<String>, hidden_size: usize) -> Result<Self> {
        if hidden_size == 0 {
            return Err(Error::new(
                ErrorKind::InputInvalid,
                "hidden_size of an index is 0; expected the model's",
            ));
        }
        Ok(FlatIndex { model_id: model_id.into(), hidden_size, embeddings: Vec::new() })
    }

    /// Appends rows: a multiple of `hidden_size` values, row-major, as an encoder returns them.
    ///
    /// # Errors
    /// [`ErrorKind::InputInvalid`] if the values are not whole rows.
    pub fn add(&mut self, embeddings: &[f32]) -> Result<()> {
        if !embeddings.len().is_multiple_of(self.hidden_size) {
            return Err(Error::new(
                ErrorKind::InputInvalid,
                format!(
                    "{} values are no whole rows; the index holds rows of {}",
                    embeddings.len(),
                    self.hidden_size
                ),
            ));
        }
        self.embeddings.extend_from_slice(embeddings);
        Ok(())
    }

    /// The number of rows.
    pub fn len(&self) -> usize {
        self.embeddings.len() / self.hidden_size
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.embeddings.is_empty()
    }

    /// The id of the model that made the embeddings.
    pub fn model_id(&self) -> &str {
        &self.model_id
    }

    /// Values of one row.
    pub fn hidden_size(&self) -> usize {
        self.hidden_size
    }

    /// The `k` rows most similar to `query`, best first; equal scores in order of row.
    ///
    /// # Errors
    /// [`ErrorKind::InputInvalid`] if `query` has another length than the rows.
    pub fn search(&self, query: &[f32], k: usize) -> Result<Vec<Hit>> {
        if query.len() != self.hidden_size {
            return Err(Error::new(
                ErrorKind::InputInvalid,
                format!(
                    "the query has {} values; the index holds rows of {}",
                    query.len(),
                    self.hidden_size
                ),
            ));
        }
        let scores: Vec<f32> =
            self.embeddings.chunks_exact(self.hidden_size).map(|row| dot(row, query)).collect();
        Ok(top_k(&scores, k).into_iter().map(|(row, score)| Hit { row, score }).collect())
    }

    /// The index as a safetensors file.
    ///
    /// # Errors
    /// [`ErrorKind::IndexInvalid`] if it is too large for the format.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let data: Vec<u8> = self.embeddings.iter().flat_map(|value| value.to_le_bytes()).collect();
        let metadata = HashMap::from([
            ("format".to_owned(), FORMAT.to_owned()),
            ("format_version".to_owned(), FORMAT_VERSION.to_owned()),
            ("model_id".to_owned(), self.model_id.clone()),
        ]);
        TensorView::new(Dtype::F32, vec![self.len(), self.hidden_size], &data)
            .and_then(|view| safetensors::serialize([(TENSOR, view)], Some(metadata)))
            .map_err(|source| damaged(format!("cannot write the index: {source}")))
    }

    /// Reads what [`to_bytes`](Self::to_bytes) wrote, for use with the model `model_id`.
    ///
    /// # Errors
    /// [`ErrorKind::IndexInvalid`] if the file is damaged or belongs to another model.
    pub fn from_bytes(bytes: &[u8], model_id: &str) -> Result<Self> {
        let not_one = |source| damaged(format!("not an index file: {source}"));
        let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(not_one)?;
        let stored = |key: &str| {
            metadata.metadata().as_ref().and_then(|map| map.get(key)).map_or("", String::as_str)
        };
        if (stored("format"), stored("format_version")) != (FORMAT, FORMAT_VERSION) {
            return Err(damaged(format!(
                "the file's format is {:?} version {:?}; expected {FORMAT:?} version {FORMAT_VERSION:?}",
                stored("format"),
                stored("format_version")
            )));
        }
        if stored("model_id") != model_id {
            return Err(damaged(format!(
                "the index was made by model {:?}, the model in use is {model_id:?}: \
                 build the index again",
                stored("model_id")
            )));
        }
        let tensors = SafeTensors::deserialize(bytes).map_err(not_one)?;
        let view = tensors.tensor(TENSOR).map_err(not_one)?;
        let &[_, hidden_size] = view.shape() else {
            return Err(damaged(format!("embeddings have shape {:?}; expected two", view.shape())));
        };
        if view.dtype() != Dtype::F32 || hidden_size == 0 {
            return Err(damaged(format!(
                "embeddings are {:?} {:?}; expected F32 rows of at least one value",
                view.dtype(),
                view.shape()
            )));
        }
        let embeddings: Vec<f32> =
            view.data().as_chunks().0.iter().map(|&value| f32::from_le_bytes(value)).collect();
        if let Some(at) = embeddings.iter().position(|value| !value.is_finite()) {
            return Err(damaged(format!(
                "row {} of the index holds {}; expected finite numbers",
                at / hidden_size,
                embeddings[at]
            )));
        }
        Ok(FlatIndex { model_id: model_id.to_owned(), hidden_size, embeddings })
    }
}

fn damaged(message: String) -> Error {
    Error::new(ErrorKind::IndexInvalid, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index() -> FlatIndex {
        let mut index = FlatIndex::new("0123456789abcdef", 2).unwrap();
        index.add(&[1.0, 0.0, 0.6, 0.8]).unwrap();
        index.add(&[0.0, 1.0]).unwrap();
        index
    }

    #[test]
    fn finds_the_most_similar() {
        let hits = index().search(&[0.0, 1.0], 2).unwrap();
        assert_eq!(hits, [Hit { row: 2, score: 1.0 }, Hit { row: 1, score: 0.8 }]);
        assert_eq!(index().search(&[0.0, 1.0], 9).unwrap().len(), 3);
    }

    #[test]
    fn refuses_other_widths() {
        assert_eq!(index().search(&[1.0], 1).unwrap_err().code(), "input_invalid");
        assert_eq!(index().add(&[1.0]).unwrap_err().code(), "input_invalid");
        assert_eq!(FlatIndex::new("id", 0).unwrap_err().code(), "input_invalid");
    }

    #[test]
    fn written_and_read_back() {
        let bytes = index().to_bytes().unwrap();
        assert_eq!(FlatIndex::from_bytes(&bytes, "0123456789abcdef").unwrap(), index());
        let empty = FlatIndex::new("id", 3).unwrap();
        assert_eq!(FlatIndex::from_bytes(&empty.to_bytes().unwrap(), "id").unwrap(), empty);
    }

    #[test]
    fn refuses_another_model_and_damage() {
        let bytes = index().to_bytes().unwrap();
        let error = FlatIndex::from_bytes(&bytes, "other").unwrap_err();
        assert_eq!(error.code(), "index_invalid");
        assert!(error.to_string().contains("0123456789abcdef"));
        for len in 0..bytes.len() {
            let error = FlatIndex::from_bytes(&bytes[..len], "0123456789abcdef").unwrap_err();
            assert_eq!(error.code(), "index_invalid");
        }
        let mut nan = bytes.clone();
        let at = nan.len() - 4;
        nan[at..].copy_from_slice(&f32::NAN.to_le_bytes());
        assert_eq!(
            FlatIndex::from_bytes(&nan, "0123456789abcdef").unwrap_err().code(),
            "index_invalid"
        );
    }
}
