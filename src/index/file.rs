//! The container of all index files.

use std::collections::HashMap;

use serde_json::Value;
use xxhash_rust::xxh64::Xxh64;

use crate::error::{Error, ErrorKind, Result};
use crate::search::Precision;

const MAGIC: &[u8; 8] = b"MUNJINDX";
/// The version that is written, and the only one that is read.
const VERSION: u32 = 1;
/// Bytes before the header.
const START: usize = 16;
const DIGEST: usize = 8;
/// A header has a few hundred bytes.
const MAX_HEADER: usize = 4096;
/// Bytes that are read or hashed at a time.
const CHUNK: usize = 1 << 16;

/// Bytes that can be read at any place: a slice, or an array of JavaScript.
pub trait Source {
    /// How many there are.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills `out` from place `at` on; the caller stays within [`len`](Self::len).
    fn read(&self, at: usize, out: &mut [u8]);
}

impl Source for &[u8] {
    fn len(&self) -> usize {
        <[u8]>::len(self)
    }

    fn read(&self, at: usize, out: &mut [u8]) {
        out.copy_from_slice(&self[at..][..out.len()]);
    }
}

/// What a file says of itself.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Header {
    pub kind: String,
    pub model_id: Option<String>,
    pub dimension: usize,
    pub precision: String,
    pub rescore: bool,
    pub vectors: usize,
    /// Characters of a passage at most.
    pub max_chars: usize,
    /// Bytes of each section.
    pub sections: Vec<usize>,
}

impl Header {
    /// Names and numbers only, so that there is nothing to escape.
    fn to_json(&self) -> Vec<u8> {
        let Header { kind, model_id, dimension, precision, rescore, vectors, max_chars, sections } =
            self;
        let model_id = model_id.as_ref().map_or("null".into(), |id| format!("\"{id}\""));
        format!(
            "{{\"kind\":\"{kind}\",\"modelId\":{model_id},\"dimension\":{dimension},\
             \"precision\":\"{precision}\",\"rescore\":{rescore},\"vectors\":{vectors},\
             \"maxChars\":{max_chars},\"sections\":{sections:?}}}"
        )
        .into_bytes()
    }

    fn from_json(json: &[u8]) -> Option<Self> {
        let fields: HashMap<String, Value> = serde_json::from_slice(json).ok()?;
        let text = |name: &str| fields.get(name)?.as_str().map(str::to_owned);
        let number = |value: &Value| usize::try_from(value.as_u64()?).ok();
        let named = |name: &str| number(fields.get(name)?);
        let model_id = fields.get("modelId")?;
        let header = Header {
            kind: text("kind")?,
            model_id: if model_id.is_null() { None } else { Some(model_id.as_str()?.to_owned()) },
            dimension: named("dimension")?,
            precision: text("precision")?,
            rescore: fields.get("rescore")?.as_bool()?,
            vectors: named("vectors")?,
            max_chars: named("maxChars")?,
            sections: fields
                .get("sections")?
                .as_array()?
                .iter()
                .map(number)
                .collect::<Option<_>>()?,
        };
        (fields.len() == 8).then_some(header)
    }
}

/// Writes a file piece by piece.
pub(super) struct Writer<'a> {
    sink: &'a mut dyn FnMut(&[u8]),
    digest: Xxh64,
}

impl<'a> Writer<'a> {
    /// Begins a file; its sections follow by [`put`](Self::put), as long as the header says.
    pub fn new(header: &Header, sink: &'a mut dyn FnMut(&[u8])) -> Self {
        let header = header.to_json();
        let mut writer = Writer { sink, digest: Xxh64::new(0) };
        writer.put(MAGIC);
        writer.put(&VERSION.to_le_bytes());
        writer.put(&(header.len() as u32).to_le_bytes());
        writer.put(&header);
        writer
    }

    pub fn put(&mut self, bytes: &[u8]) {
        self.digest.update(bytes);
        (self.sink)(bytes);
    }

    pub fn finish(self) {
        (self.sink)(&self.digest.digest().to_le_bytes());
    }
}

/// The bytes of a file with that header.
pub(super) fn file_bytes(header: &Header) -> usize {
    let json = header.to_json();
    START + json.len() + header.sections.iter().sum::<usize>() + DIGEST
}

/// A file whose checksum is right and whose header makes sense.
pub(super) struct Reader<'a> {
    source: &'a dyn Source,
    pub header: Header,
    pub precision: Precision,
    /// Where each section begins.
    starts: Vec<usize>,
}

impl<'a> Reader<'a> {
    /// Checks all that can be checked without knowing the kind's sections. Without `model_id` vectors of any
    /// model are taken.
    pub fn new(source: &'a dyn Source, kind: &str, model_id: Option<&str>) -> Result<Self> {
        let total = source.len();
        if total < START + DIGEST {
            return Err(foreign(format!("it has {total} bytes")));
        }
        let mut start = [0; START];
        source.read(0, &mut start);
        let word = |at: usize| {
            u32::from_le_bytes([start[at], start[at + 1], start[at + 2], start[at + 3]])
        };
        if !start.starts_with(MAGIC) {
            return Err(foreign(format!("it begins with {:02x?}", &start[..8])));
        }
        if word(8) != VERSION {
            return Err(damaged(format!(
                "the index has format version {}; this build reads {VERSION}: build the index again, or use \
                 the version of munjang that wrote it",
                word(8)
            )));
        }
        check_digest(source)?;
        let length = word(12) as usize;
        if length > MAX_HEADER || START + length + DIGEST > total {
            return Err(malformed(format!("a header of {length} bytes")));
        }
        let mut json = vec![0; length];
        source.read(START, &mut json);
        let header = Header::from_json(&json).ok_or_else(|| malformed("its header".into()))?;
        let mut end = START + length;
        let mut starts = Vec::new();
        for &section in &header.sections {
            starts.push(end);
            end = end.saturating_add(section);
        }
        if end != total - DIGEST {
            return Err(malformed(format!(
                "sections of {:?} bytes in a file of {total}",
                header.sections
            )));
        }
        if header.kind != kind {
            let kind: String = header.kind.chars().take(40).collect();
            return Err(damaged(match kind.as_str() {
                "documents" => "the file holds documents with their vectors; read it with \
                    SemanticIndex.fromBytes, natively with HybridIndex::from_source"
                    .into(),
                "vectors" => "the file holds vectors only; read it with VectorIndex.fromBytes, natively with \
                    VectorIndex::from_source"
                    .into(),
                _ => format!("the file holds {kind:?}, which this build does not know"),
            }));
        }
        if let Some(id) = header.model_id.as_deref() {
            crate::search::checked_model_id(id).map_err(|_| malformed("its model id".into()))?;
        }
        if let Some(wanted) = model_id
            && header.model_id.as_deref() != Some(wanted)
        {
            return Err(damaged(format!(
                "the index holds vectors of the model {}, the model in use is {wanted}: build the index again \
                 with it, or load the model that made it",
                header.model_id.as_deref().unwrap_or("(none was named)")
            )));
        }
        let precision = Precision::from_name(&header.precision)
            .map_err(|_| malformed(format!("precision {:.40?}", header.precision)))?;
        Ok(Reader { source, header, precision, starts })
    }

    /// Where a section begins and how many bytes it has; `None` if there is none of that number.
    fn section(&self, number: usize) -> Result<(usize, usize)> {
        let start = self.starts.get(number);
        let start = start.ok_or_else(|| malformed(format!("no section {number}")))?;
        Ok((*start, self.header.sections[number]))
    }

    /// A whole section.
    pub fn read(&self, number: usize) -> Result<Vec<u8>> {
        let (start, length) = self.section(number)?;
        let mut bytes = vec![0; length];
        self.source.read(start, &mut bytes);
        Ok(bytes)
    }

    /// A section as UTF-8.
    pub fn read_text(&self, number: usize) -> Result<String> {
        String::from_utf8(self.read(number)?)
            .map_err(|_| malformed("text that is not UTF-8".into()))
    }

    /// Hands over a section of `count` rows of `size` bytes, some rows at a time.
    pub fn read_rows(
        &self,
        number: usize,
        (count, size): (usize, usize),
        mut found: impl FnMut(usize, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let (start, length) = self.section(number)?;
        if count.checked_mul(size) != Some(length) {
            return Err(malformed(format!("{length} bytes for {count} rows of {size}")));
        }
        let mut buffer = vec![0; (CHUNK / size).max(1) * size];
        let mut row = 0;
        while row < count {
            let rows = (buffer.len() / size).min(count - row);
            self.source.read(start + row * size, &mut buffer[..rows * size]);
            for bytes in buffer[..rows * size].chunks_exact(size) {
                found(row, bytes)?;
                row += 1;
            }
        }
        Ok(())
    }
}

fn check_digest(source: &dyn Source) -> Result<()> {
    let end = source.len() - DIGEST;
    let mut digest = Xxh64::new(0);
    let mut buffer = vec![0; CHUNK.min(end)];
    let mut at = 0;
    while at < end {
        let length = buffer.len().min(end - at);
        source.read(at, &mut buffer[..length]);
        digest.update(&buffer[..length]);
        at += length;
    }
    let mut stored = [0; DIGEST];
    source.read(end, &mut stored);
    if digest.digest().to_le_bytes() != stored {
        return Err(damaged(
            "the index is damaged or incomplete: its checksum differs; copy it again, or \
             build the index again"
                .into(),
        ));
    }
    Ok(())
}

fn foreign(what: String) -> Error {
    damaged(format!("not an index file of munjang: {what}; build the index again"))
}

pub(super) fn malformed(what: String) -> Error {
    damaged(format!("the index file contradicts itself ({what}): build the index again"))
}

fn damaged(message: String) -> Error {
    Error::new(ErrorKind::IndexInvalid, message)
}
