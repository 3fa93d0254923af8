//! A byte buffer aligned for every type that a model file holds, and slices of it that several own.

use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, Range};
use std::sync::Arc;

/// Bytes whose first one lies on a 64-byte boundary, so that the tensors of a model file can be
/// read in place.
pub struct AlignedBytes {
    blocks: Vec<Block>,
    len: usize,
}

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
struct Block([u8; 64]);

impl AlignedBytes {
    /// `len` zero bytes.
    pub fn zeroed(len: usize) -> Self {
        AlignedBytes { blocks: vec![Block([0; 64]); len.div_ceil(64)], len }
    }

    /// `len` zero bytes, or `None` where the memory cannot be had.
    pub fn try_zeroed(len: usize) -> Option<Self> {
        let mut blocks = Vec::new();
        blocks.try_reserve_exact(len.div_ceil(64)).ok()?;
        blocks.resize(len.div_ceil(64), Block([0; 64]));
        Some(AlignedBytes { blocks, len })
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.blocks)[..self.len]
    }

    /// The bytes, to be filled.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut bytemuck::cast_slice_mut(&mut self.blocks)[..self.len]
    }
}

impl From<&[u8]> for AlignedBytes {
    fn from(bytes: &[u8]) -> Self {
        let mut aligned = AlignedBytes::zeroed(bytes.len());
        aligned.as_mut_slice().copy_from_slice(bytes);
        aligned
    }
}

impl From<Vec<u8>> for AlignedBytes {
    fn from(bytes: Vec<u8>) -> Self {
        AlignedBytes::from(bytes.as_slice())
    }
}

impl fmt::Debug for AlignedBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AlignedBytes({} bytes)", self.len)
    }
}

/// Values of one type in shared bytes, which nobody can change any more.
pub struct SharedSlice<T> {
    bytes: Arc<AlignedBytes>,
    range: Range<usize>,
    values: PhantomData<T>,
}

impl<T: bytemuck::AnyBitPattern> SharedSlice<T> {
    /// The values in `range` of `bytes`; `None` if it is not there, not aligned or not a whole number of
    /// them.
    pub fn new(bytes: &Arc<AlignedBytes>, range: Range<usize>) -> Option<Self> {
        bytemuck::try_cast_slice::<u8, T>(bytes.as_slice().get(range.clone())?).ok()?;
        Some(SharedSlice { bytes: Arc::clone(bytes), range, values: PhantomData })
    }
}

impl<T: bytemuck::AnyBitPattern> Deref for SharedSlice<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        bytemuck::cast_slice(&self.bytes.as_slice()[self.range.clone()])
    }
}

impl<T: bytemuck::NoUninit + bytemuck::AnyBitPattern> From<&[T]> for SharedSlice<T> {
    fn from(values: &[T]) -> Self {
        let bytes: &[u8] = bytemuck::cast_slice(values);
        let range = 0..bytes.len();
        SharedSlice { bytes: Arc::new(bytes.into()), range, values: PhantomData }
    }
}

impl<T> fmt::Debug for SharedSlice<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SharedSlice(bytes {:?})", self.range)
    }
}
