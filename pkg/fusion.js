import { MunjangError } from './errors.js';

/**
 * Joins rankings whose scores do not compare, by ranks alone (Cormack, Clarke and Büttcher, 2009).
 * @template Id
 * @param {readonly (readonly Id[])[]} rankings ids, best first
 * @param {number} [k]
 * @returns {{ id: Id, score: number }[]} best first; equal scores in order of first appearance
 */
export function reciprocalRankFusion(rankings, k = 60) {
  if (!Array.isArray(rankings) || !rankings.every(Array.isArray)) {
    throw new MunjangError('input_invalid', 'Expected an array of rankings, each an array of ids, best first.');
  }
  if (!(typeof k === 'number' && k >= 0 && k < Infinity)) {
    throw new MunjangError('input_invalid', `k is ${String(k)}; expected a number of at least 0.`);
  }
  const scores = new Map();
  for (const ranking of rankings) {
    ranking.forEach((id, at) => scores.set(id, (scores.get(id) ?? 0) + 1 / (k + 1 + at)));
  }
  return Array.from(scores, ([id, score]) => ({ id, score })).sort((a, b) => b.score - a.score);
}
