//! `pytorch_model.bin`: the pickles that `torch.save` writes, read as data.
//!
//! A pickle is a program for a stack machine that can name any function and call it. This machine knows
//! the instructions that a state dict needs and calls nothing: a call becomes a value that says what
//! would be called ([`Object::Call`]), and only tensors and dicts are made of those. Values are numbered, not
//! copied or nested, and what is read is bounded by the file, so a hostile file costs some times its size and
//! no more. The readers at hand (candle's) allocate by the file's word, copy what is named twice and do not
//! know the older form.
//!
//! Two forms: a zip archive with `data.pkl` and one entry for each storage (since torch 1.6), and five
//! pickles followed by the storages (before; KoBERT's files among them).

mod machine;

use std::collections::HashMap;
use std::io::{Cursor, Read};

use crate::error::{Error, Result};
use machine::{Machine, Object};

/// Largest `data.pkl`.
const MAX_PICKLE_BYTES: u64 = 64 << 20;
/// The first pickle of the old form: protocol 2, a number by which torch knows its files.
const OLD_MAGIC: &[u8] = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.";
/// The second: the version of the old form.
const OLD_VERSION: &[u8] = b"\x80\x02M\xe9\x03.";

/// How the numbers of a storage are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Numbers {
    F32,
    F64,
    F16,
    Bf16,
}

impl Numbers {
    fn of_storage(class: &str) -> Option<Self> {
        match class {
            "FloatStorage" => Some(Numbers::F32),
            "DoubleStorage" => Some(Numbers::F64),
            "HalfStorage" => Some(Numbers::F16),
            "BFloat16Storage" => Some(Numbers::Bf16),
            _ => None,
        }
    }

    fn bytes(self) -> usize {
        match self {
            Numbers::F64 => 8,
            Numbers::F32 => 4,
            Numbers::F16 | Numbers::Bf16 => 2,
        }
    }

    fn value(self, bytes: &[u8]) -> f32 {
        match *bytes {
            [a, b] if self == Numbers::F16 => half::f16::from_le_bytes([a, b]).to_f32(),
            [a, b] => half::bf16::from_le_bytes([a, b]).to_f32(),
            [a, b, c, d] => f32::from_le_bytes([a, b, c, d]),
            _ => f64::from_le_bytes(bytes.try_into().unwrap_or_default()) as f32,
        }
    }
}

/// A tensor of the file: a view of a storage.
#[derive(Clone, Debug)]
pub(super) struct Tensor {
    pub(super) shape: Vec<usize>,
    strides: Vec<usize>,
    /// First number in the storage.
    offset: usize,
    /// `None` for a storage of other numbers than floats, such as `position_ids`.
    numbers: Option<Numbers>,
    class: String,
    storage: String,
}

/// A file written by `torch.save`, in memory.
pub(super) struct PickleFile {
    tensors: HashMap<String, Tensor>,
    storages: HashMap<String, Vec<u8>>,
}

impl PickleFile {
    /// Reads the state dict in `bytes`.
    ///
    /// # Errors
    /// `CheckpointInvalid` if they are not a whole file of `torch.save`, `CheckpointUnsupported` if it
    /// holds something else than a dict of tensors.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self> {
        if bytes.starts_with(b"PK\x03\x04") {
            return read_zip(bytes);
        }
        if let Some(rest) = bytes.strip_prefix(OLD_MAGIC) {
            return read_old(rest);
        }
        Err(Error::checkpoint_invalid(
            "it is no file of torch.save (a Git LFS pointer, or a page in its place?); download it again",
        ))
    }

    /// The names of all tensors.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    pub(super) fn tensor(&self, name: &str) -> Option<&Tensor> {
        self.tensors.get(name)
    }

    /// The values of a tensor, row-major.
    ///
    /// # Errors
    /// A word if its storage is missing, too short, or holds no floats.
    pub(super) fn floats(&self, tensor: &Tensor) -> std::result::Result<Vec<f32>, String> {
        let Some(numbers) = tensor.numbers else {
            return Err(format!(
                "is of a {}; expected FloatStorage, HalfStorage, BFloat16Storage or DoubleStorage",
                tensor.class
            ));
        };
        let storage = self
            .storages
            .get(&tensor.storage)
            .ok_or_else(|| format!("is in storage {:?}, which is missing", tensor.storage))?;
        let count = tensor.shape.iter().try_fold(1usize, |count, &size| count.checked_mul(size));
        // The last number's place; also what bounds the allocation.
        let last = tensor
            .shape
            .iter()
            .zip(&tensor.strides)
            .try_fold(tensor.offset, |last, (&size, &stride)| {
                last.checked_add(size.saturating_sub(1).checked_mul(stride)?)
            });
        let available = storage.len() / numbers.bytes();
        let (Some(count), Some(last)) = (count, last) else {
            return Err(format!("has shape {:?}, beyond all memory", tensor.shape));
        };
        if count == 0 {
            return Ok(Vec::new());
        }
        if last >= available || count > available {
            return Err(format!(
                "ends at number {last} of a storage of {available}: the file is damaged or cut off"
            ));
        }
        let mut values = Vec::with_capacity(count);
        let mut index = vec![0usize; tensor.shape.len()];
        for _ in 0..count {
            let at: usize = index.iter().zip(&tensor.strides).map(|(&i, &stride)| i * stride).sum();
            let at = (tensor.offset + at) * numbers.bytes();
            values.push(numbers.value(&storage[at..at + numbers.bytes()]));
            for (i, &size) in index.iter_mut().zip(&tensor.shape).rev() {
                *i += 1;
                if *i < size {
                    break;
                }
                *i = 0;
            }
        }
        Ok(values)
    }
}

/// The form since torch 1.6.
fn read_zip(bytes: &[u8]) -> Result<PickleFile> {
    let bad = |source: zip::result::ZipError| {
        Error::checkpoint_invalid(format!("it is no whole zip archive; download it again"))
            .with_source(source)
    };
    let mut archive = zip::ZipArchive::new(Cursor::new(bytes)).map_err(bad)?;
    let names: Vec<String> = archive
        .file_names()
        .map(|name| name.map(|name| name.into_owned()))
        .collect::<std::result::Result<_, _>>()
        .map_err(bad)?;
    let pickle = names.iter().find(|name| name.ends_with("/data.pkl")).ok_or_else(|| {
        Error::checkpoint_unsupported(
            "it is a zip archive without data.pkl; expected what torch.save writes",
        )
    })?;
    let root = pickle.strip_suffix("data.pkl").unwrap_or_default().to_owned();
    // Nothing is compressed in what torch writes, so entries together are no larger than the file; a
    // forged size, or many entries over the same bytes, ends here.
    let mut left = bytes.len() as u64;
    let mut read = |archive: &mut zip::ZipArchive<Cursor<&[u8]>>, name: &str, most: u64| {
        let entry = archive.by_name(name).map_err(bad)?;
        if entry.compression() != zip::CompressionMethod::Stored || entry.size() > left.min(most) {
            return Err(Error::checkpoint_invalid(format!(
                "its entry {name:?} is packed or larger than the file"
            )));
        }
        left -= entry.size();
        let mut content = Vec::with_capacity(entry.size() as usize);
        let size = entry.size();
        entry.take(size).read_to_end(&mut content).map_err(|source| {
            Error::checkpoint_invalid(format!("its entry {name:?} is damaged")).with_source(source)
        })?;
        Ok(content)
    };
    let order = format!("{root}byteorder");
    if names.contains(&order) && read(&mut archive, &order, 16)? != b"little" {
        return Err(Error::checkpoint_unsupported("its numbers are big-endian"));
    }
    let program = read(&mut archive, pickle, MAX_PICKLE_BYTES)?;
    let tensors = Machine::run(&mut program.as_slice())?.state_dict()?;
    let mut storages = HashMap::new();
    for tensor in tensors.values().filter(|tensor| tensor.numbers.is_some()) {
        if !storages.contains_key(&tensor.storage) {
            let name = format!("{root}data/{}", tensor.storage);
            let content = read(&mut archive, &name, u64::MAX)?;
            storages.insert(tensor.storage.clone(), content);
        }
    }
    Ok(PickleFile { tensors, storages })
}

/// The form before torch 1.6, after its first pickle: version, system, state dict, names of the
/// storages, then each storage as its length and its numbers.
fn read_old(bytes: &[u8]) -> Result<PickleFile> {
    let mut rest = bytes.strip_prefix(OLD_VERSION).ok_or_else(|| {
        Error::checkpoint_unsupported("it is of another version of torch.save's old form than 1001")
    })?;
    let system = Machine::run(&mut rest)?;
    let little = system.get("little_endian").map(|id| system.value(id));
    if matches!(little, Some(Object::Bool(false))) {
        return Err(Error::checkpoint_unsupported("its numbers are big-endian"));
    }
    let tensors = Machine::run(&mut rest)?.state_dict()?;
    let list = Machine::run(&mut rest)?;
    let Object::List(keys) = list.result() else {
        return Err(Error::checkpoint_invalid("it does not list its storages"));
    };
    let mut kinds: HashMap<&str, (Option<Numbers>, &str)> = HashMap::new();
    for tensor in tensors.values() {
        kinds.insert(&tensor.storage, (tensor.numbers, &tensor.class));
    }
    let mut storages = HashMap::new();
    for &key in keys {
        let key =
            list.text(key).ok_or_else(|| Error::checkpoint_invalid("a storage has no name"))?;
        let (numbers, class) = kinds.get(key).copied().ok_or_else(|| {
            Error::checkpoint_invalid(format!("no tensor tells of what numbers storage {key:?} is"))
        })?;
        let size = match (numbers, class) {
            (Some(numbers), _) => numbers.bytes(),
            (None, "LongStorage") => 8,
            (None, "IntStorage") => 4,
            (None, "ShortStorage") => 2,
            (None, "BoolStorage" | "ByteStorage" | "CharStorage") => 1,
            (None, other) => {
                return Err(Error::checkpoint_unsupported(format!("storage {key:?} is a {other}")));
            }
        };
        let cut =
            || Error::checkpoint_invalid(format!("it ends in storage {key:?}; download it again"));
        let (length, after) = rest.split_first_chunk::<8>().ok_or_else(cut)?;
        let length = usize::try_from(u64::from_le_bytes(*length)).map_err(|_| cut())?;
        let length = length.checked_mul(size).ok_or_else(cut)?;
        let (content, after) = after.split_at_checked(length).ok_or_else(cut)?;
        storages.insert(key.to_string(), content.to_vec());
        rest = after;
    }
    Ok(PickleFile { tensors, storages })
}
