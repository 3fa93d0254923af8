//! Tensors in main memory as slices.

use std::ops::Deref;

use candle_core::{CpuStorage, Storage, StorageRef, Tensor};

use crate::error::{Error, ErrorKind, Result};

/// The values of a contiguous CPU tensor of `f32`, borrowed.
pub(in crate::train) struct HostSlice<'a> {
    storage: StorageRef<'a>,
    start: usize,
    len: usize,
}

impl<'a> HostSlice<'a> {
    pub(in crate::train) fn new(tensor: &'a Tensor) -> Result<Self> {
        let (storage, layout) = tensor.storage_and_layout();
        let (start, len) = (layout.start_offset(), layout.shape().elem_count());
        match (&*storage, layout.is_contiguous()) {
            (Storage::Cpu(CpuStorage::F32(_)), true) => Ok(HostSlice { storage, start, len }),
            _ => Err(Error::new(
                ErrorKind::InputInvalid,
                "expected a contiguous f32 tensor in main memory",
            )),
        }
    }
}

impl Deref for HostSlice<'_> {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        match &*self.storage {
            Storage::Cpu(CpuStorage::F32(values)) => &values[self.start..self.start + self.len],
            _ => &[],
        }
    }
}
