//! A vector index as a file.

use super::file::{Header, Reader, Source, Writer, file_bytes, malformed};
use crate::error::Result;
use crate::search::VectorIndex;

const KIND: &str = "vectors";

impl VectorIndex {
    fn header(&self, ids: &str) -> Header {
        let [coarse, fine] = self.stored_bytes();
        let mut sections = vec![ids.len(), self.len() * coarse];
        if self.rescores() {
            sections.push(self.len() * fine);
        }
        Header {
            kind: KIND.to_owned(),
            model_id: self.model_id().map(str::to_owned),
            dimension: self.dimension(),
            precision: self.precision().name().to_owned(),
            rescore: self.rescores(),
            vectors: self.len(),
            max_chars: 0,
            sections,
        }
    }

    /// The size of the file that [`write`](Self::write) writes.
    pub fn file_bytes(&self, ids: &str) -> usize {
        file_bytes(&self.header(ids))
    }

    /// Writes the index as a file, piece by piece, without its removed rows. `ids` is the caller's: JSON with an
    /// id for each row, or `null`.
    pub fn write(&self, ids: &str, sink: &mut dyn FnMut(&[u8])) {
        let mut writer = Writer::new(&self.header(ids), sink);
        writer.put(ids.as_bytes());
        for fine in [false, true] {
            if fine && !self.rescores() {
                break;
            }
            let mut bytes = Vec::new();
            for row in (0..self.rows()).filter(|&row| self.has(row)) {
                self.export(row, fine, &mut bytes);
                if bytes.len() >= 1 << 16 {
                    writer.put(&bytes);
                    bytes.clear();
                }
            }
            writer.put(&bytes);
        }
        writer.finish();
    }

    /// The index as a file; see [`write`](Self::write).
    pub fn to_bytes(&self, ids: &str) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.file_bytes(ids));
        self.write(ids, &mut |piece| bytes.extend_from_slice(piece));
        bytes
    }

    /// Reads what [`write`](Self::write) wrote: the index and its ids. With `model_id` only vectors of that
    /// model are taken.
    ///
    /// # Errors
    /// [`ErrorKind::IndexInvalid`](crate::ErrorKind::IndexInvalid) if the file is damaged, of another kind or
    /// version, or belongs to another model; the message says what to do.
    pub fn from_source(source: &dyn Source, model_id: Option<&str>) -> Result<(Self, String)> {
        let reader = Reader::new(source, KIND, model_id)?;
        let header = &reader.header;
        let mut index = VectorIndex::new(
            header.dimension,
            reader.precision,
            header.rescore,
            header.model_id.as_deref(),
        )
        .map_err(|error| malformed(error.to_string()))?;
        if header.sections.len() != 2 + usize::from(header.rescore) {
            return Err(malformed(format!("{} sections", header.sections.len())));
        }
        let ids = reader.read_text(0)?;
        let [coarse, fine] = index.stored_bytes();
        reader.read_rows(1, (header.vectors, coarse), |row, bytes| {
            index
                .import(row, false, bytes)
                .map_err(|fault| malformed(format!("vector {row}: {fault}")))
        })?;
        if header.rescore {
            reader.read_rows(2, (header.vectors, fine), |row, bytes| {
                index
                    .import(row, true, bytes)
                    .map_err(|fault| malformed(format!("vector {row}: {fault}")))
            })?;
        }
        Ok((index, ids))
    }

    /// [`from_source`](Self::from_source) of bytes.
    ///
    /// # Errors
    /// As [`from_source`](Self::from_source).
    pub fn from_bytes(bytes: &[u8], model_id: Option<&str>) -> Result<(Self, String)> {
        Self::from_source(&bytes, model_id)
    }
}
