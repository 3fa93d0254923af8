// A segment's bytes: about a thousand passages of an index as one record, checked by one checksum.
//
//   0  'MJS1'        4  xxh32 of everything after it
//   8  u32 bytes of JSON    12  u32 number of ranges' values    16  u32 bytes of vectors
//  20  JSON: [[id, text, passages, data?], …]    then, at multiples of 4, the ranges (u32: start and end of each
//      passage in UTF-16 units) and the vectors as the core exports them. Little-endian.

import { weightOf } from './documents.js';

/** Passages in a segment, about: a transaction's worth, and what is lost at most when the browser dies. */
export const SEGMENT = 1024;
/** What a segment holds of texts and data, about, if its documents are long. */
const SEGMENT_CHARS = 2 ** 20;
const MAGIC = 0x31534a4d;
const HEADER = 20;

/**
 * @typedef {object} StoredDocument
 * @property {string | number} id
 * @property {string} text
 * @property {Uint32Array} ranges start and end of each passage
 * @property {unknown} [data]
 */

/**
 * @param {StoredDocument[]} documents
 * @param {Uint8Array} vectors of all their passages
 * @returns {ArrayBuffer}
 */
export function writeSegment(documents, vectors) {
  const json = new TextEncoder().encode(JSON.stringify(documents.map(({ id, text, ranges, data }) =>
    (data === undefined ? [id, text, ranges.length / 2] : [id, text, ranges.length / 2, data]))));
  const values = documents.reduce((sum, { ranges }) => sum + ranges.length, 0);
  const rangesAt = aligned(HEADER + json.length);
  const vectorsAt = rangesAt + 4 * values;
  const bytes = new Uint8Array(vectorsAt + vectors.length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, MAGIC, true);
  view.setUint32(8, json.length, true);
  view.setUint32(12, values, true);
  view.setUint32(16, vectors.length, true);
  bytes.set(json, HEADER);
  let at = rangesAt;
  for (const { ranges } of documents) {
    for (const value of ranges) {
      view.setUint32(at, value, true);
      at += 4;
    }
  }
  bytes.set(vectors, vectorsAt);
  view.setUint32(4, xxh32(bytes.subarray(8)), true);
  return bytes.buffer;
}

/**
 * @param {ArrayBuffer} buffer
 * @returns {{ documents: StoredDocument[], vectors: Uint8Array } | undefined} undefined if it is damaged
 */
export function readSegment(buffer) {
  if (Object.prototype.toString.call(buffer) !== '[object ArrayBuffer]' || buffer.byteLength < HEADER) return undefined;
  const bytes = new Uint8Array(buffer);
  const view = new DataView(buffer);
  const [jsonLength, values, vectorsLength] = [8, 12, 16].map((at) => view.getUint32(at, true));
  const rangesAt = aligned(HEADER + jsonLength);
  const vectorsAt = rangesAt + 4 * values;
  if (view.getUint32(0, true) !== MAGIC || vectorsAt + vectorsLength !== bytes.length
    || view.getUint32(4, true) !== xxh32(bytes.subarray(8))) return undefined;
  let at = rangesAt;
  const documents = JSON.parse(new TextDecoder().decode(bytes.subarray(HEADER, HEADER + jsonLength)))
    .map(([id, text, passages, data]) => {
      const ranges = new Uint32Array(2 * passages);
      for (let i = 0; i < ranges.length; i++, at += 4) ranges[i] = view.getUint32(at, true);
      return { id, text, ranges, data };
    });
  return { documents, vectors: bytes.subarray(vectorsAt) };
}

const aligned = (offset) => (offset + 3) & ~3;

const [P1, P2, P3, P4, P5] = [0x9e3779b1, 0x85ebca77, 0xc2b2ae3d, 0x27d4eb2f, 0x165667b1];
const rotate = (x, by) => (x << by) | (x >>> (32 - by));

/**
 * XXH32 with seed 0 (Collet, xxHash's specification): finds what a disk did to some bytes, at memory's speed.
 * @param {Uint8Array} bytes
 * @returns {number} a u32
 */
export function xxh32(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const length = bytes.length;
  let at = 0;
  let hash = P5;
  if (length >= 16) {
    let [a, b, c, d] = [(P1 + P2) | 0, P2 | 0, 0, -P1 | 0];
    for (; at <= length - 16; at += 16) {
      a = Math.imul(rotate((a + Math.imul(view.getUint32(at, true), P2)) | 0, 13), P1);
      b = Math.imul(rotate((b + Math.imul(view.getUint32(at + 4, true), P2)) | 0, 13), P1);
      c = Math.imul(rotate((c + Math.imul(view.getUint32(at + 8, true), P2)) | 0, 13), P1);
      d = Math.imul(rotate((d + Math.imul(view.getUint32(at + 12, true), P2)) | 0, 13), P1);
    }
    hash = (rotate(a, 1) + rotate(b, 7) + rotate(c, 12) + rotate(d, 18)) | 0;
  }
  hash = (hash + length) | 0;
  for (; at <= length - 4; at += 4) {
    hash = Math.imul(rotate((hash + Math.imul(view.getUint32(at, true), P3)) | 0, 17), P4);
  }
  for (; at < length; at++) hash = Math.imul(rotate((hash + Math.imul(bytes[at], P5)) | 0, 11), P1);
  hash = Math.imul(hash ^ (hash >>> 15), P2);
  hash = Math.imul(hash ^ (hash >>> 13), P3);
  return (hash ^ (hash >>> 16)) >>> 0;
}

/** Cuts a call's documents into parts of about a segment each, in the same way in every tab. */
export function* batches(items, maxChars) {
  let batch = [];
  let [passages, chars] = [0, 0];
  for (const item of items) {
    batch.push(item);
    passages += Math.max(1, Math.ceil(item.text.length / maxChars));
    chars += item.text.length + (item.json?.length ?? 0);
    if (passages >= SEGMENT || chars >= SEGMENT_CHARS) {
      yield batch;
      batch = [];
      [passages, chars] = [0, 0];
    }
  }
  if (batch.length > 0) yield batch;
}

/** Documents in one group, or in groups of about a segment each. */
export function groupsOf(documents, cut) {
  const groups = [];
  let weight = Infinity;
  for (const document of documents) {
    if (groups.length === 0 || (cut && weight >= SEGMENT)) {
      groups.push([]);
      weight = 0;
    }
    groups.at(-1).push(document);
    weight += weightOf(document);
  }
  return groups;
}
