//! Weights in main memory, changed where they are.

use std::sync::Mutex;

use candle_core::{CpuStorage, InplaceOp1, Layout, Tensor};

use crate::error::Result;

/// Values that one thread takes at a time.
pub(super) const BLOCK: usize = 1 << 14;

/// Calls `change` with the values of `tensor`, which is contiguous and of f32.
pub(super) fn change_in_place(tensor: &Tensor, change: impl FnMut(&mut [f32])) -> Result<()> {
    Ok(tensor.inplace_op1(&InPlace(Mutex::new(change)))?)
}

struct InPlace<F>(Mutex<F>);

impl<F: FnMut(&mut [f32])> InplaceOp1 for InPlace<F> {
    fn name(&self) -> &'static str {
        "adamw"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        let CpuStorage::F32(values) = storage else {
            candle_core::bail!("a parameter is not f32");
        };
        let Some((start, end)) = layout.contiguous_offsets() else {
            candle_core::bail!("a parameter is not contiguous");
        };
        let mut change = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        change(&mut values[start..end]);
        Ok(())
    }
}
