/** Partial sums, joined in a fixed tree: the order of the encoder's own sums. */
const LANES = 16;

/**
 * The dot product of two vectors of one length, of embeddings their cosine. The bits are those of the Rust crate's
 * `search::dot`: 32-bit operations in one order. A product of two 32-bit floats is exact in a double, and rounding
 * a double sum of two of them once more gives the 32-bit sum.
 * @param {Float32Array} a
 * @param {Float32Array} b
 * @returns {number}
 */
export function dot(a, b) {
  const sums = new Float32Array(LANES);
  const { length } = a;
  for (let i = 0; i < length; i++) sums[i % LANES] += Math.fround(a[i] * b[i]);
  for (let width = LANES / 2; width >= 1; width /= 2) {
    for (let lane = 0; lane < width; lane++) sums[lane] += sums[lane + width];
  }
  return sums[0];
}
