// Cosine similarity of embeddings, with the bits that the core's `search::dot` gives.
import { dot } from './dot.js';
import { defer, now } from './environment.js';
import { MunjangError, throwIfAborted } from './errors.js';
import { checkVector, isVector, kindOf } from './options.js';

/** How far a squared length may be from 1 for the vector to count as an embedding. */
const UNIT = 1e-4;

/**
 * Cosine similarity of two vectors of one length.
 * @param {ArrayLike<number>} a
 * @param {ArrayLike<number>} b
 * @returns {number} NaN if one of them is all zeros
 */
export function cosineSimilarity(a, b) {
  if (!isVector(a)) throw new MunjangError('input_invalid', `a is ${kindOf(a)}; expected a vector of numbers.`);
  const left = checkVector(a, a.length, 'a');
  const right = checkVector(b, a.length, 'b');
  const product = dot(left, right);
  const lengths = [dot(left, left), dot(right, right)];
  return lengths.every((squared) => Math.abs(squared - 1) < UNIT) ? product : product / Math.sqrt(lengths[0] * lengths[1]);
}

/** The page gets its turn after so many milliseconds. */
const SLICE_MS = 10;

/**
 * @param {Float32Array[]} rows
 * @param {Float32Array[]} columns
 * @param {AbortSignal} [signal]
 * @returns {Promise<Float32Array[]>} `matrix[i][j]` of `rows[i]` and `columns[j]`
 */
export async function similarityMatrix(rows, columns, signal) {
  const matrix = rows.map(() => new Float32Array(columns.length));
  let started = now();
  // The clock costs as much as some products, so it is asked now and then.
  let untold = 0;
  for (let i = 0; i < rows.length; i++) {
    for (let j = 0; j < columns.length; j++) {
      matrix[i][j] = dot(rows[i], columns[j]);
      if (++untold < 64) continue;
      untold = 0;
      if (now() - started < SLICE_MS) continue;
      await new Promise(defer);
      throwIfAborted(signal);
      started = now();
    }
  }
  return matrix;
}
