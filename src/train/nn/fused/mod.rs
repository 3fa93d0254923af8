//! The encoder on the CPU: fused operations on packed rows, and a tape for the backward pass.

mod backward;
mod forward;
mod weights;

pub(super) use backward::{OutputGradients, backward};
pub(super) use forward::forward;
