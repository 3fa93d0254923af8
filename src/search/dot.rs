//! Similarity of embeddings. Embeddings have length 1, so the dot product is the cosine.

/// Partial sums of a dot product. They are added up in a fixed tree, so that the result has the
/// same bits whatever SIMD width the compiler finds for the loop.
const LANES: usize = 16;

/// The dot product of two vectors of one length: of embeddings their cosine similarity.
///
/// # Panics
/// If the lengths differ.
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len(), "vectors of different lengths");
    let (a_blocks, a_rest) = a.as_chunks::<LANES>();
    let (b_blocks, b_rest) = b.as_chunks::<LANES>();
    let mut sums = [0.0f32; LANES];
    for (a, b) in a_blocks.iter().zip(b_blocks) {
        for lane in 0..LANES {
            sums[lane] += a[lane] * b[lane];
        }
    }
    for (lane, (a, b)) in a_rest.iter().zip(b_rest).enumerate() {
        sums[lane] += a * b;
    }
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            sums[lane] += sums[lane + width];
        }
        width /= 2;
    }
    sums[0]
}

/// All similarities between the rows of `a` and the rows of `b` (row-major, `hidden_size` values a
/// row), as `rows of a × rows of b` values.
///
/// # Panics
/// If `hidden_size` is 0 or does not divide both lengths.
pub fn similarity_matrix(a: &[f32], b: &[f32], hidden_size: usize) -> Vec<f32> {
    assert!(hidden_size > 0 && a.len().is_multiple_of(hidden_size));
    assert!(b.len().is_multiple_of(hidden_size));
    a.chunks_exact(hidden_size)
        .flat_map(|row| b.chunks_exact(hidden_size).map(move |column| dot(row, column)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dot_product_of_every_length() {
        for len in 0..70 {
            let a: Vec<f32> = (0..len).map(|i| i as f32 - 7.0).collect();
            let b: Vec<f32> = (0..len).map(|i| (i * i % 11) as f32).collect();
            let expected: f32 = a.iter().zip(&b).map(|(a, b)| a * b).sum();
            assert_eq!(dot(&a, &b), expected, "length {len}");
        }
    }

    #[test]
    fn matrix_has_rows_of_the_first() {
        let a = [1.0, 0.0, 0.0, 1.0, 0.6, 0.8];
        let b = [1.0, 0.0, 0.0, -1.0];
        assert_eq!(similarity_matrix(&a, &b, 2), [1.0, 0.0, 0.0, -1.0, 0.6, -0.8]);
        assert!(similarity_matrix(&[], &b, 2).is_empty());
    }
}
