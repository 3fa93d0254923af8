//! What one step of the optimizer does to a weight.

use crate::train::nn::ops::vector::simd;

/// The numbers of one step.
#[derive(Clone, Copy)]
pub(in crate::train) struct Update {
    /// Gradients are multiplied by this.
    pub(in crate::train) grad_scale: f32,
    pub(in crate::train) beta1: f32,
    pub(in crate::train) beta2: f32,
    /// `learning rate / (1 − β₁ᵗ)`.
    pub(in crate::train) step_size: f32,
    /// `1 / √(1 − β₂ᵗ)`.
    pub(in crate::train) second_scale: f32,
    pub(in crate::train) eps: f32,
    /// Weights are multiplied by this first.
    pub(in crate::train) shrink: f32,
}

impl Update {
    #[inline(always)]
    pub(super) fn apply(
        &self,
        weights: &mut [f32],
        first: &mut [f32],
        second: &mut [f32],
        gradient: &[f32],
    ) {
        simd(
            #[inline(always)]
            || {
                let moments = first.iter_mut().zip(second);
                for ((w, (m, v)), &g) in weights.iter_mut().zip(moments).zip(gradient) {
                    let g = g * self.grad_scale;
                    *m = self.beta1 * *m + (1.0 - self.beta1) * g;
                    *v = self.beta2 * *v + (1.0 - self.beta2) * g * g;
                    let denominator = v.sqrt() * self.second_scale + self.eps;
                    *w = *w * self.shrink - self.step_size * *m / denominator;
                }
            },
        );
    }
}
