//! Buffers that are used again and again.

/// Makes `buffer` at least `len` long; what it holds does not matter.
pub(crate) fn grow<T: Clone + Default>(buffer: &mut Vec<T>, len: usize) {
    if buffer.len() < len {
        buffer.resize(len, T::default());
    }
}
