//! A hybrid index with its documents as a file.

use serde::Deserialize;

use super::file::{Header, Reader, Source, Writer, file_bytes, malformed};
use crate::error::Result;
use crate::search::{HybridIndex, from_utf16};

const KIND: &str = "documents";

/// What is read of a document; the rest is its owner's.
#[derive(Deserialize)]
struct Document {
    text: String,
}

/// A hybrid index out of a file. Its documents are numbered from 0 in the order of the file.
pub struct StoredDocuments {
    /// The index, words included.
    pub index: HybridIndex,
    /// The documents as they were written: JSON, `[{ "text": …, … }]`.
    pub json: String,
    /// Characters of a passage at most.
    pub max_chars: usize,
}

impl HybridIndex {
    /// Writes the index as a file, piece by piece. `documents` are all documents in the order in which they
    /// shall be numbered, `json` the same as `[{ "text": …, … }]`, and `max_chars` what their passages were cut
    /// to. Passages' places must be in UTF-16 units.
    ///
    /// # Errors
    /// [`ErrorKind::InputInvalid`](crate::ErrorKind::InputInvalid) if one of the documents is not there.
    pub fn write(
        &self,
        documents: &[u32],
        json: &str,
        max_chars: usize,
        sink: &mut dyn FnMut(&[u8]),
    ) -> Result<usize> {
        let mut places = Vec::new();
        let mut vectors = 0;
        for &document in documents {
            let of = self.places_of(document)?;
            vectors += of.len();
            places.extend((of.len() as u32).to_le_bytes());
            for &(start, end) in of {
                places.extend(start.to_le_bytes());
                places.extend(end.to_le_bytes());
            }
        }
        let header = Header {
            kind: KIND.to_owned(),
            model_id: self.model_id().map(str::to_owned),
            dimension: self.dimension(),
            precision: self.precision().name().to_owned(),
            rescore: false,
            vectors,
            max_chars,
            sections: vec![json.len(), places.len(), vectors * self.exported_bytes()],
        };
        let mut writer = Writer::new(&header, sink);
        writer.put(json.as_bytes());
        writer.put(&places);
        for some in documents.chunks(64) {
            writer.put(&self.export_vectors(some)?);
        }
        writer.finish();
        Ok(file_bytes(&header))
    }

    /// Reads what [`write`](Self::write) wrote. Words are indexed anew; nothing is encoded. With `model_id` only
    /// vectors of that model are taken.
    ///
    /// # Errors
    /// [`ErrorKind::IndexInvalid`](crate::ErrorKind::IndexInvalid) if the file is damaged, of another kind or version, or belongs to another
    /// model; the message says what to do.
    pub fn from_source(source: &dyn Source, model_id: Option<&str>) -> Result<StoredDocuments> {
        let reader = Reader::new(source, KIND, model_id)?;
        let header = &reader.header;
        let mut index =
            HybridIndex::new(header.dimension, reader.precision, header.model_id.as_deref())
                .map_err(|error| malformed(error.to_string()))?;
        if header.sections.len() != 3 || header.rescore {
            return Err(malformed(format!("{} sections", header.sections.len())));
        }
        let json = reader.read_text(0)?;
        let documents: Vec<Document> = serde_json::from_str(&json)
            .map_err(|source| malformed("its documents".into()).with_source(source))?;
        let places = reader.read(1)?;
        let (words, rest) = places.as_chunks::<4>();
        let mut words = words.iter().map(|&word| u32::from_le_bytes(word));
        let lost = || malformed("passages that do not lie in their texts".into());
        let mut rows = Vec::new();
        for (number, document) in documents.iter().enumerate() {
            let count = words.next().ok_or_else(lost)? as usize;
            let ends: Vec<u32> = words.by_ref().take(count.saturating_mul(2)).collect();
            let bytes = from_utf16(&document.text, &ends)
                .filter(|bytes| bytes.len() == count * 2)
                .ok_or_else(lost)?;
            let mut passages = Vec::with_capacity(count);
            for (&[start, end], &place) in
                bytes.as_chunks::<2>().0.iter().zip(ends.as_chunks::<2>().0)
            {
                passages
                    .push((document.text.get(start..end).ok_or_else(lost)?, (place[0], place[1])));
            }
            index.add(number as u32, passages).map_err(|error| malformed(error.to_string()))?;
            rows.extend((0..count).map(|passage| (number as u32, passage)));
        }
        if words.next().is_some() || !rest.is_empty() || rows.len() != header.vectors {
            return Err(lost());
        }
        reader.read_rows(2, (header.vectors, index.exported_bytes()), |row, bytes| {
            let (document, passage) = rows[row];
            index
                .import_vector(document, passage, bytes)
                .map_err(|fault| malformed(format!("vector {row}: {fault}")))
        })?;
        Ok(StoredDocuments { index, json, max_chars: header.max_chars })
    }
}
