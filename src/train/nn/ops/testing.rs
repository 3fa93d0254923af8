//! What the tests of several operations share.

use super::dropout;

/// Reproducible numbers of about unit size.
pub(in crate::train) fn noise(n: usize, seed: u32) -> Vec<f32> {
    (0..n as u32).map(|i| (dropout::hash(i, seed) as f32 / u32::MAX as f32 - 0.5) * 3.0).collect()
}

/// Checks `gradient` against central differences of `f` at `x`.
pub(in crate::train) fn check_gradient(
    what: &str,
    x: &[f32],
    gradient: &[f32],
    tolerance: f64,
    f: impl Fn(&[f32]) -> f64,
) {
    let size = gradient.iter().fold(0.0f32, |max, g| max.max(g.abs())) as f64;
    assert!(size > 0.0, "{what}: the gradient is zero everywhere");
    let step = 1e-2f32;
    for i in 0..x.len() {
        let mut moved = x.to_vec();
        moved[i] = x[i] + step;
        let above = f(&moved);
        let up = moved[i];
        moved[i] = x[i] - step;
        let below = f(&moved);
        let expected = (above - below) / (up - moved[i]) as f64;
        let error = (gradient[i] as f64 - expected).abs();
        assert!(
            error <= tolerance * size,
            "{what}[{i}]: {} against {expected} by differences",
            gradient[i]
        );
    }
}
