//! A hybrid index of texts, encoded natively.

use crate::error::Result;
use crate::model::Encoder;
use crate::search::{HybridIndex, Precision, cut_passages, to_utf16};

/// Passages given to the encoder at once.
const BATCH: usize = 512;

/// Indexes `texts` as documents 0, 1, …: cut into passages of at most `max_chars` characters, placed in UTF-16
/// units, all encoded. `progress` is told how many of how many passages are done.
///
/// # Errors
/// [`ErrorKind::InputInvalid`](crate::ErrorKind::InputInvalid) if `max_chars` is less than 10; what the encoder
/// says of a text.
pub fn index_texts<T: AsRef<str>>(
    encoder: &Encoder,
    texts: &[T],
    (precision, max_chars): (Precision, usize),
    mut progress: impl FnMut(usize, usize),
) -> Result<HybridIndex> {
    let info = encoder.info();
    let mut index = HybridIndex::new(encoder.dimension(), precision, Some(&info.model_id))?;
    let mut passages: Vec<(u32, usize, &str)> = Vec::new();
    for (document, text) in texts.iter().enumerate() {
        let (document, text) = (document as u32, text.as_ref());
        let ranges = cut_passages(text, max_chars)?;
        let places = to_utf16(text, &ranges);
        let places = places.as_chunks::<2>().0.iter().map(|&[start, end]| (start, end));
        index.add(document, ranges.iter().map(|range| &text[range.clone()]).zip(places))?;
        let numbered = ranges.into_iter().enumerate();
        passages.extend(numbered.map(|(number, range)| (document, number, &text[range])));
    }
    let mut done = 0;
    for batch in passages.chunks(BATCH) {
        let texts: Vec<&str> = batch.iter().map(|&(_, _, text)| text).collect();
        let embeddings = encoder.encode_batch(&texts)?.embeddings;
        for (&(document, number, _), vector) in
            batch.iter().zip(embeddings.chunks_exact(index.dimension()))
        {
            index.set_vectors(document, number, vector)?;
        }
        done += batch.len();
        progress(done, passages.len());
    }
    Ok(index)
}
