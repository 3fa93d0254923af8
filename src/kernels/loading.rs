//! What loading asks of every weight, as fast as it goes here; `pack` has the definitions.

#[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
use super::pack;

/// [`pack::channel_sums`].
pub(super) fn channel_sums(weights: &[i8], rows: usize, cols: usize) -> Option<Vec<i32>> {
    #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
    return super::wasm32::loading::channel_sums(weights, rows, cols);
    #[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
    pack::channel_sums(weights, rows, cols)
}

/// [`pack::exact_groups`] if the products of this machine's best table add in 16 bits; nothing otherwise.
pub(super) fn exact_groups(weights: &[i8], rows: usize, cols: usize) -> Vec<u8> {
    #[cfg(all(target_arch = "wasm32", target_feature = "relaxed-simd"))]
    if super::wasm32::dot::is_composed() {
        return super::wasm32::loading::exact_groups(weights, rows, cols);
    }
    let _ = (weights, rows, cols);
    Vec::new()
}
