//! Indexes as files: what an app or a site keeps of its documents and vectors.
//!
//! A file is: `MUNJINDX`; the format version and the length of the header (u32 each); the header, JSON; the
//! sections whose lengths it names; and the XXH64 of all bytes before, which
//! finds damage, not malice. Numbers are little-endian. The
//! header says the kind of the index, the model whose vectors it holds, their dimension and precision,
//! and how many there are. The same content gives the same bytes. Nothing is believed before the
//! checksum, every value is checked after it, and nothing is allocated by the file's word beyond its own size.
//!
//! | kind | sections |
//! | --- | --- |
//! | `vectors` | ids (JSON); vectors; with `rescore` the same in 8 bits |
//! | `documents` | documents (JSON: `[{ "text": …, … }]`); for each its number of passages and for each passage start and end in UTF-16 units (u32); vectors of the passages |
//!
//! A vector is its scale (f32) and its codes, or its floats; an absent one is NaN and zeros.

mod build;
mod documents;
mod file;
mod vectors;

pub use build::index_texts;
pub use documents::StoredDocuments;
pub use file::Source;
