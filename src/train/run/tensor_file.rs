//! Files of tensors (safetensors), each written whole or not at all.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use safetensors::tensor::{Dtype, SafeTensors, View};

use crate::error::{Error, ErrorKind, Result};
use crate::files::{read, write_atomically};

pub(super) struct Raw<'a> {
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<usize>,
    pub(super) bytes: Cow<'a, [u8]>,
}

impl View for &Raw<'_> {
    fn dtype(&self) -> Dtype {
        self.dtype
    }
    fn shape(&self) -> &[usize] {
        &self.shape
    }
    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.bytes)
    }
    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

pub(super) fn serialize(
    raws: &BTreeMap<String, Raw<'_>>,
    metadata: HashMap<String, String>,
) -> Result<Vec<u8>> {
    safetensors::serialize(raws.iter().map(|(name, raw)| (name.as_str(), raw)), Some(metadata))
        .map_err(|source| {
            Error::new(ErrorKind::WeightsMalformed, format!("cannot serialize tensors: {source}"))
        })
}

pub(super) fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()
}

pub(super) fn damaged(path: &Path, what: impl std::fmt::Display) -> Error {
    Error::new(
        ErrorKind::WeightsMalformed,
        format!("{} is damaged ({what}); delete it to begin its stage anew", path.display()),
    )
}

/// Tensors by name, and texts beside them.
pub struct TensorFile {
    /// By name, on the CPU.
    pub tensors: HashMap<String, Tensor>,
    /// What else there is to know.
    pub notes: HashMap<String, String>,
}

impl TensorFile {
    /// Writes it atomically.
    ///
    /// # Errors
    /// `io` (a full disk, say); an older file stays.
    pub fn write(&self, path: &Path) -> Result<()> {
        let mut raws = BTreeMap::new();
        for (name, tensor) in &self.tensors {
            let flat = tensor.to_device(&Device::Cpu)?.flatten_all()?;
            let (dtype, bytes): (Dtype, Vec<u8>) = match tensor.dtype() {
                DType::I64 => (Dtype::I64, bytemuck::cast_slice(&flat.to_vec1::<i64>()?).to_vec()),
                _ => (
                    Dtype::F32,
                    bytemuck::cast_slice(&flat.to_dtype(DType::F32)?.to_vec1::<f32>()?).to_vec(),
                ),
            };
            let shape = tensor.dims().to_vec();
            raws.insert(name.clone(), Raw { dtype, shape, bytes: Cow::Owned(bytes) });
        }
        write_atomically(path, &serialize(&raws, self.notes.clone())?)
    }

    /// Reads it back.
    ///
    /// # Errors
    /// `io`; `weights_malformed` if it is damaged.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = read(path)?;
        let (_, metadata) =
            SafeTensors::read_metadata(&bytes).map_err(|source| damaged(path, source))?;
        let file = SafeTensors::deserialize(&bytes).map_err(|source| damaged(path, source))?;
        let mut tensors = HashMap::new();
        for (name, view) in file.iter() {
            let shape = view.shape();
            let tensor = match view.dtype() {
                Dtype::F32 => Tensor::from_vec(floats(view.data()), shape, &Device::Cpu)?,
                Dtype::I64 => Tensor::from_vec(
                    view.data().as_chunks().0.iter().map(|&b| i64::from_le_bytes(b)).collect(),
                    shape,
                    &Device::Cpu,
                )?,
                other => return Err(damaged(path, format!("{name} has type {other:?}"))),
            };
            tensors.insert(name.to_owned(), tensor);
        }
        let notes = metadata.metadata().clone().unwrap_or_default();
        Ok(TensorFile { tensors, notes })
    }
}
