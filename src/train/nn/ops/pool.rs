//! Buffers that outlive a step: fresh memory costs page faults and zeroing at every step.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex};

/// Released buffers by size class.
#[derive(Default)]
pub struct Pool {
    classes: Mutex<Vec<Vec<Vec<f32>>>>,
}

/// A slice of a buffer that goes back to its pool when dropped.
pub struct Buffer {
    data: Vec<f32>,
    len: usize,
    pool: Arc<Pool>,
}

/// Size class and capacity for `len` values: four classes per power of two.
fn class_of(len: usize) -> (usize, usize) {
    let len = len.max(64);
    let power = (len - 1).ilog2();
    let quarter = 1usize << (power - 2);
    let quarters = len.div_ceil(quarter);
    ((power as usize) * 4 + quarters - 5, quarters * quarter)
}

impl Pool {
    /// A buffer of `len` values with arbitrary content.
    pub fn take(self: &Arc<Self>, len: usize) -> Buffer {
        let (class, capacity) = class_of(len);
        let reused = {
            let mut classes = self.classes.lock().expect("no thread panics while it holds this");
            classes.get_mut(class).and_then(Vec::pop)
        };
        let mut data = reused.unwrap_or_else(|| vec![0.0; capacity]);
        if cfg!(test) {
            // Whoever reads before writing shall notice.
            data.fill(f32::NAN);
        }
        Buffer { data, len, pool: self.clone() }
    }

    /// A buffer of `len` zeros.
    pub fn zeros(self: &Arc<Self>, len: usize) -> Buffer {
        let mut buffer = self.take(len);
        buffer.fill(0.0);
        buffer
    }

    /// A buffer that holds a copy of `source`.
    pub fn copy(self: &Arc<Self>, source: &[f32]) -> Buffer {
        let mut buffer = self.take(source.len());
        buffer.copy_from_slice(source);
        buffer
    }
}

impl Buffer {
    /// Where it came from.
    pub fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let data = std::mem::take(&mut self.data);
        let (class, _) = class_of(self.len);
        if let Ok(mut classes) = self.pool.classes.lock() {
            if classes.len() <= class {
                classes.resize_with(class + 1, Vec::new);
            }
            classes[class].push(data);
        }
    }
}

impl Deref for Buffer {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.data[..self.len]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.data[..self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_hold_what_they_promise() {
        let mut last = (0, 0);
        for len in 1..5000 {
            let (class, capacity) = class_of(len);
            assert!(capacity >= len && capacity <= (len * 5 / 4 + 1).max(64), "{len} {capacity}");
            assert!(class >= last.0 && capacity >= last.1);
            assert!((class == last.0) == (capacity == last.1));
            last = (class, capacity);
        }
    }

    #[test]
    fn buffers_come_back() {
        let pool = Arc::new(Pool::default());
        let first = pool.take(1000);
        let address = first.as_ptr();
        drop(first);
        assert_eq!(pool.take(990).as_ptr(), address);
    }
}
