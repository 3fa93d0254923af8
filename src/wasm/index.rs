//! Indexes and passages as exports. Places in texts are in UTF-16 units, as JavaScript counts.

use js_sys::{Float32Array, Object, Reflect, Uint8Array, Uint32Array};
use wasm_bindgen::prelude::*;

use super::error::to_js;
use crate::error::{Error, ErrorKind};
use crate::index::Source;
use crate::search::{self, HybridQuery, Precision, from_utf16, to_utf16};

/// The passages of `text`: `[start, end, start, end, …]`, at most `max_chars` characters each, in order,
/// without white space around them. None for a blank text.
///
/// Throws `input_invalid` if `max_chars` is not a whole number of at least 10.
#[wasm_bindgen(js_name = cutPassages)]
pub fn cut_passages(text: &str, max_chars: f64) -> Result<Vec<u32>, JsValue> {
    let max_chars = whole("maxChars", max_chars)?;
    let passages = search::cut_passages(text, max_chars).map_err(to_js)?;
    Ok(to_utf16(text, &passages))
}

/// Where words of `query` are found again in `text`: `[start, end, start, end, …]`, in order.
#[wasm_bindgen]
pub fn marks(text: &str, query: &str) -> Vec<u32> {
    to_utf16(text, &search::marks(text, query))
}

/// [`search::HybridIndex`].
#[wasm_bindgen]
pub struct HybridIndex {
    inner: search::HybridIndex,
}

#[wasm_bindgen]
impl HybridIndex {
    /// An empty index. `precision` is `int8`, `float32` or `binary`.
    ///
    /// Throws `input_invalid` for a dimension that is not a whole number from 1 to 4096, another precision, or a
    /// model id that is not 16 hex digits.
    #[wasm_bindgen(constructor)]
    pub fn new(
        dimension: f64,
        precision: &str,
        model_id: Option<String>,
    ) -> Result<HybridIndex, JsValue> {
        let dimension = whole("dimension", dimension)?;
        let precision = Precision::from_name(precision).map_err(to_js)?;
        search::HybridIndex::new(dimension, precision, model_id.as_deref())
            .map(|inner| HybridIndex { inner })
            .map_err(to_js)
    }

    /// Adds a document of which `ranges` (as from [`cut_passages`]) are the passages. Its words can be found at
    /// once.
    ///
    /// Throws `input_invalid` if the document is there already, or for ranges that do not lie in the text.
    #[wasm_bindgen(js_name = addDocument)]
    pub fn add_document(
        &mut self,
        document: u32,
        text: &str,
        ranges: &[u32],
    ) -> Result<(), JsValue> {
        let (pairs, rest) = ranges.as_chunks::<2>();
        let bytes = from_utf16(text, ranges).filter(|_| rest.is_empty());
        let passages: Option<Vec<_>> = bytes.and_then(|bytes| {
            let (bytes, _) = bytes.as_chunks::<2>();
            let texts = bytes.iter().map(|&[start, end]| text.get(start..end));
            texts.zip(pairs).map(|(text, &[start, end])| Some((text?, (start, end)))).collect()
        });
        let passages = passages.ok_or_else(|| {
            to_js(Error::new(
                ErrorKind::InputInvalid,
                "the passages' ranges do not lie in the text; expected start, end, start, end, … \
                 in UTF-16 units",
            ))
        })?;
        self.inner.add(document, passages).map_err(to_js)
    }

    /// Gives passages of `document`, from `first_passage` on, their vectors: a multiple of `dimension` values.
    ///
    /// Throws `input_invalid`, and changes nothing, if there is no such document or passage, or for a vector that
    /// is of another size, not finite or all zeros.
    #[wasm_bindgen(js_name = setVectors)]
    pub fn set_vectors(
        &mut self,
        document: u32,
        first_passage: u32,
        vectors: &[f32],
    ) -> Result<(), JsValue> {
        self.inner.set_vectors(document, first_passage as usize, vectors).map_err(to_js)
    }

    /// Removes a document; whether it was there.
    #[wasm_bindgen(js_name = removeDocument)]
    pub fn remove_document(&mut self, document: u32) -> bool {
        self.inner.remove(document)
    }

    /// Removes all documents.
    pub fn clear(&mut self) {
        self.inner.clear();
    }

    /// Whether a document is there.
    pub fn has(&self, document: u32) -> bool {
        self.inner.has(document)
    }

    /// The number of passages of a document; 0 if it is not there.
    #[wasm_bindgen(js_name = passagesOf)]
    pub fn passages_of(&self, document: u32) -> usize {
        self.inner.passages_of(document)
    }

    /// The number of documents.
    #[wasm_bindgen(getter)]
    pub fn documents(&self) -> usize {
        self.inner.len()
    }

    /// The number of passages.
    #[wasm_bindgen(getter)]
    pub fn passages(&self) -> usize {
        self.inner.passages()
    }

    /// The number of passages with a vector.
    #[wasm_bindgen(getter)]
    pub fn encoded(&self) -> usize {
        self.inner.encoded()
    }

    /// Values of one vector.
    #[wasm_bindgen(getter)]
    pub fn dimension(&self) -> usize {
        self.inner.dimension()
    }

    /// How vectors are kept.
    #[wasm_bindgen(getter)]
    pub fn precision(&self) -> String {
        self.inner.precision().name().to_owned()
    }

    /// The id of the model that made the vectors, if it was said.
    #[wasm_bindgen(getter, js_name = modelId)]
    pub fn model_id(&self) -> Option<String> {
        self.inner.model_id().map(str::to_owned)
    }

    /// Bytes held, approximately.
    #[wasm_bindgen(getter, js_name = byteLength)]
    pub fn byte_length(&self) -> usize {
        self.inner.byte_len()
    }

    /// The documents that answer a query best, best first: `{ documents, passages, starts, ends }` as
    /// `Uint32Array`, `{ scores, cosines, lexicals }` as `Float32Array`, NaN where a half is absent.
    ///
    /// Throws `input_invalid` for a vector of another size, not finite or all zeros, a `semantic` outside of 0
    /// to 1, or a `top_k` that is not a whole number.
    pub fn search(
        &self,
        query: Option<Float32Array>,
        text: Option<String>,
        top_k: f64,
        min_score: Option<f32>,
        semantic: f32,
        mask: Option<Vec<u8>>,
    ) -> Result<Object, JsValue> {
        let vector = query.map(|query| query.to_vec());
        let hits = self
            .inner
            .search(HybridQuery {
                vector: vector.as_deref(),
                text: text.as_deref(),
                top_k: whole("topK", top_k)?,
                min_score: min_score.unwrap_or(f32::NEG_INFINITY),
                semantic,
                mask: mask.as_deref(),
            })
            .map_err(to_js)?;
        let result = Object::new();
        let set =
            |name: &str, values: JsValue| Reflect::set(&result, &name.into(), &values).map(drop);
        let integers = |of: &dyn Fn(&search::HybridHit) -> u32| {
            JsValue::from(Uint32Array::from(hits.iter().map(of).collect::<Vec<_>>().as_slice()))
        };
        let numbers = |of: &dyn Fn(&search::HybridHit) -> f32| {
            JsValue::from(Float32Array::from(hits.iter().map(of).collect::<Vec<_>>().as_slice()))
        };
        set("documents", integers(&|hit| hit.document))?;
        set("passages", integers(&|hit| hit.passage as u32))?;
        set("starts", integers(&|hit| hit.place.0))?;
        set("ends", integers(&|hit| hit.place.1))?;
        set("scores", numbers(&|hit| hit.score))?;
        set("cosines", numbers(&|hit| hit.cosine.unwrap_or(f32::NAN)))?;
        set("lexicals", numbers(&|hit| hit.lexical.unwrap_or(f32::NAN)))?;
        Ok(result)
    }

    /// The vectors of all passages of `documents`, in that order, in the precision in which they are kept.
    ///
    /// Throws `input_invalid` if one of the documents is not there.
    #[wasm_bindgen(js_name = exportVectors)]
    pub fn export_vectors(&self, documents: &[u32]) -> Result<Vec<u8>, JsValue> {
        self.inner.export_vectors(documents).map_err(to_js)
    }

    /// Gives the passages of `documents` what [`export_vectors`](Self::export_vectors) wrote.
    ///
    /// Throws `index_invalid`, and changes nothing, if the bytes are not of that many passages or hold what cannot
    /// have been written; `input_invalid` if one of the documents is not there.
    #[wasm_bindgen(js_name = importVectors)]
    pub fn import_vectors(&mut self, documents: &[u32], bytes: &[u8]) -> Result<(), JsValue> {
        self.inner.import_vectors(documents, bytes).map_err(to_js)
    }
}

#[wasm_bindgen]
impl HybridIndex {
    /// The index as a file. `documents` are all documents in the order in which they shall be numbered, `json` the
    /// same as `[{ "text": …, … }]`, `max_chars` what their passages were cut to.
    ///
    /// Throws `input_invalid` if one of the documents is not there.
    #[wasm_bindgen(js_name = toBytes)]
    pub fn to_bytes(
        &self,
        documents: &[u32],
        json: &str,
        max_chars: u32,
    ) -> Result<Uint8Array, JsValue> {
        let pieces = js_sys::Array::new();
        let mut write = |piece: &[u8]| {
            pieces.push(&Uint8Array::from(piece));
        };
        let total =
            self.inner.write(documents, json, max_chars as usize, &mut write).map_err(to_js)?;
        let file = Uint8Array::new_with_length(total as u32);
        let mut at = 0;
        for piece in pieces.iter().map(Uint8Array::from) {
            file.set(&piece, at);
            at += piece.length();
        }
        Ok(file)
    }

    /// Reads what [`to_bytes`](Self::to_bytes) wrote: `{ index, json, maxChars }`. The documents are numbered from
    /// 0 in the order of `json`. With `model_id` only vectors of that model are taken.
    ///
    /// Throws `index_invalid` if the file is damaged, of another kind or version, or belongs to another model.
    #[wasm_bindgen(js_name = fromBytes)]
    pub fn from_bytes(bytes: &Uint8Array, model_id: Option<String>) -> Result<Object, JsValue> {
        let stored =
            search::HybridIndex::from_source(&Bytes(bytes), model_id.as_deref()).map_err(to_js)?;
        let result = Object::new();
        Reflect::set(&result, &"index".into(), &HybridIndex { inner: stored.index }.into())?;
        Reflect::set(&result, &"json".into(), &stored.json.into())?;
        Reflect::set(&result, &"maxChars".into(), &(stored.max_chars as u32).into())?;
        Ok(result)
    }
}

/// [`search::VectorIndex`], whose rows `pkg/vector_index.js` gives ids.
#[wasm_bindgen(js_name = VectorRows)]
pub struct VectorRows {
    inner: search::VectorIndex,
    /// Of a file that was read.
    ids: String,
}

#[wasm_bindgen(js_class = VectorRows)]
impl VectorRows {
    /// An empty index. `precision` is `int8`, `float32` or `binary`; `rescore` is for the last.
    ///
    /// Throws `input_invalid` for what [`search::VectorIndex::new`] refuses.
    #[wasm_bindgen(constructor)]
    pub fn new(
        dimension: f64,
        precision: &str,
        rescore: bool,
        model_id: Option<String>,
    ) -> Result<VectorRows, JsValue> {
        let dimension = whole("dimension", dimension)?;
        let precision = Precision::from_name(precision).map_err(to_js)?;
        search::VectorIndex::new(dimension, precision, rescore, model_id.as_deref())
            .map(|inner| VectorRows { inner, ids: String::new() })
            .map_err(to_js)
    }

    /// Appends vectors, all or none; returns the first one's row.
    ///
    /// Throws `input_invalid` for vectors of another size, not finite or all zeros.
    pub fn add(&mut self, vectors: &[f32]) -> Result<usize, JsValue> {
        self.inner.add(vectors).map_err(to_js)
    }

    /// Replaces the vector of a row.
    ///
    /// Throws `input_invalid` as [`add`](Self::add), or if there is no such row.
    pub fn update(&mut self, row: u32, vector: &[f32]) -> Result<(), JsValue> {
        self.inner.update(row as usize, vector).map_err(to_js)
    }

    /// Removes a row; whether it was there. Other rows keep their numbers.
    pub fn remove(&mut self, row: u32) -> bool {
        self.inner.remove(row as usize)
    }

    /// Removes all rows.
    pub fn clear(&mut self) {
        self.inner.clear();
    }

    /// Gives back the space of removed rows: those that stay move up, in their order.
    pub fn compact(&mut self) {
        self.inner.compact();
    }

    /// Rows, removed ones included.
    #[wasm_bindgen(getter)]
    pub fn rows(&self) -> usize {
        self.inner.rows()
    }

    /// The number of vectors.
    #[wasm_bindgen(getter)]
    pub fn length(&self) -> usize {
        self.inner.len()
    }

    /// Values of one vector.
    #[wasm_bindgen(getter)]
    pub fn dimension(&self) -> usize {
        self.inner.dimension()
    }

    /// How vectors are kept.
    #[wasm_bindgen(getter)]
    pub fn precision(&self) -> String {
        self.inner.precision().name().to_owned()
    }

    /// Whether the best by signs are compared again.
    #[wasm_bindgen(getter)]
    pub fn rescore(&self) -> bool {
        self.inner.rescores()
    }

    /// The id of the model that made the vectors, if it was said.
    #[wasm_bindgen(getter, js_name = modelId)]
    pub fn model_id(&self) -> Option<String> {
        self.inner.model_id().map(str::to_owned)
    }

    /// Bytes held.
    #[wasm_bindgen(getter, js_name = byteLength)]
    pub fn byte_length(&self) -> usize {
        self.inner.byte_len()
    }

    /// The most similar rows, best first, equal scores in order: `{ rows: Uint32Array, scores: Float32Array }`.
    ///
    /// Throws `input_invalid` for a query of another size, not finite or all zeros, or a `top_k` that is not a whole
    /// number.
    pub fn search(
        &self,
        query: &[f32],
        top_k: f64,
        min_score: Option<f32>,
        mask: Option<Vec<u8>>,
    ) -> Result<Object, JsValue> {
        let options = search::SearchOptions {
            top_k: whole("topK", top_k)?,
            min_score: min_score.unwrap_or(f32::NEG_INFINITY),
            mask: mask.as_deref(),
        };
        let hits = self.inner.search(query, options).map_err(to_js)?;
        let rows: Vec<u32> = hits.iter().map(|hit| hit.row as u32).collect();
        let scores: Vec<f32> = hits.iter().map(|hit| hit.score).collect();
        let result = Object::new();
        Reflect::set(&result, &"rows".into(), &Uint32Array::from(rows.as_slice()))?;
        Reflect::set(&result, &"scores".into(), &Float32Array::from(scores.as_slice()))?;
        Ok(result)
    }

    /// The index as a file, without removed rows; `ids` is JSON.
    #[wasm_bindgen(js_name = toBytes)]
    pub fn to_bytes(&self, ids: &str) -> Uint8Array {
        let file = Uint8Array::new_with_length(self.inner.file_bytes(ids) as u32);
        let mut at = 0;
        self.inner.write(ids, &mut |piece| {
            file.subarray(at, at + piece.len() as u32).copy_from(piece);
            at += piece.len() as u32;
        });
        file
    }

    /// Reads what [`to_bytes`](Self::to_bytes) wrote; with `model_id` only vectors of that model are taken.
    ///
    /// Throws `index_invalid` if the file is damaged, of another kind or version, or belongs to another model.
    #[wasm_bindgen(js_name = fromBytes)]
    pub fn from_bytes(bytes: &Uint8Array, model_id: Option<String>) -> Result<VectorRows, JsValue> {
        search::VectorIndex::from_source(&Bytes(bytes), model_id.as_deref())
            .map(|(inner, ids)| VectorRows { inner, ids })
            .map_err(to_js)
    }

    /// The ids of the file that was read, once.
    #[wasm_bindgen(js_name = takeIds)]
    pub fn take_ids(&mut self) -> String {
        std::mem::take(&mut self.ids)
    }
}

/// A file in JavaScript's memory, read piece by piece: WebAssembly memory never shrinks.
struct Bytes<'a>(&'a Uint8Array);

impl Source for Bytes<'_> {
    fn len(&self) -> usize {
        self.0.length() as usize
    }

    fn read(&self, at: usize, out: &mut [u8]) {
        self.0.subarray(at as u32, (at + out.len()) as u32).copy_to(out);
    }
}

/// A number that JavaScript gave where a whole one of at least 0 is wanted.
fn whole(name: &str, value: f64) -> Result<usize, JsValue> {
    if value >= 0.0 && (value.fract() == 0.0 || value.is_infinite()) {
        // What is beyond the address space is as good as its end.
        return Ok(value as usize);
    }
    Err(to_js(Error::new(
        ErrorKind::InputInvalid,
        format!("{name} is {value}; expected a whole number of at least 0"),
    )))
}
