// What an index holds in memory: its documents, and the core that searches them. Nothing here waits.
//
// A document is a *draft* while it is being added, and *kept* once what holds it has acknowledged it (its
// transaction has ended, or there is none). A draft can be found unless an older version of it is kept; then it is
// hidden until it takes that one's place.
import { coded } from './search_core.js';

/**
 * @typedef {object} Document
 * @property {{ id: string | number, text: string, data: unknown }} view what callers see of it; frozen
 * @property {number} number its number in the core
 * @property {number} passages how many it has
 * @property {Uint32Array | undefined} ranges start and end of each, in UTF-16 units; unknown of what came from a file
 * @property {number} encoded how many of its passages have their vectors, from the first on
 * @property {number | undefined} segment where it is stored
 * @property {number} sequence of the call that brings it
 */

/** How much of a segment one document is; a blank text is something to keep, too. */
export const weightOf = ({ passages }) => Math.max(1, passages);

/** Whether all of it can be found by meaning. */
export const isEncoded = ({ encoded, passages }) => encoded === passages;

export class Documents {
  /** The core's HybridIndex. */
  core;
  /** @type {Map<string | number, Document>} those that count, the last one of each id, in the order they were kept */
  kept = new Map();
  /** @type {Map<string | number, Document>} the last one of each id */
  #drafts = new Map();
  /** @type {(Document | undefined)[]} by their number */
  #byNumber = [];
  /** Numbers that can be given again. */
  #free = [];
  /** Numbers of what must not be found. */
  #hidden = new Set();
  /** @type {Map<number, { documents: Document[], weight: number, living: number, bytes: number }>} with their dead */
  segments = new Map();

  /** @param {object} core */
  constructor(core) {
    this.core = core;
  }

  /** How many drafts there are. */
  get drafts() {
    return this.#drafts.size;
  }

  /**
   * A new document, whose words are found from now on.
   * @param {Document['view']} view
   * @param {Uint32Array} ranges
   * @param {number} [sequence] of the call that brings it
   * @returns {Document}
   */
  draft(view, ranges, sequence = 0) {
    const document = this.#make(view, ranges);
    document.sequence = sequence;
    const older = this.#drafts.get(view.id);
    if (older) this.#hidden.add(older.number);
    if (this.kept.has(view.id)) this.#hidden.add(document.number);
    this.#drafts.set(view.id, document);
    return document;
  }

  /**
   * Takes in documents of a stored segment, with their vectors.
   * @param {number} segment
   * @param {{ documents: import('./segment.js').StoredDocument[], vectors: Uint8Array }} stored
   * @param {number} bytes that it takes
   */
  takeIn(segment, { documents: stored, vectors }, bytes) {
    const passages = stored.reduce((sum, { ranges }) => sum + ranges.length / 2, 0);
    const row = passages === 0 ? 0 : vectors.length / passages;
    const documents = [];
    const made = [];
    const parts = [];
    let at = 0;
    try {
      for (const { id, text, ranges, data } of stored) {
        const end = at + row * (ranges.length / 2);
        const kept = this.kept.get(id);
        if (kept?.view.text === text && sameRanges(kept.ranges, ranges)) {
          // It was moved, or only its data are new.
          if (JSON.stringify(kept.view.data) !== JSON.stringify(data)) kept.view = viewOf(id, text, data);
          documents.push(kept);
        } else {
          const document = this.#make(viewOf(id, text, data), ranges);
          documents.push(document);
          made.push(document);
          parts.push(vectors.subarray(at, end));
        }
        at = end;
      }
      if (made.length > 0) {
        const numbers = Uint32Array.from(made, ({ number }) => number);
        const rows = made.length === stored.length ? vectors : joined(parts);
        coded(() => this.core.importVectors(numbers, rows));
      }
    } catch (error) {
      for (const document of made) this.#forget(document);
      throw error;
    }
    for (const document of made) document.encoded = document.passages;
    this.place(segment, documents, bytes);
  }

  /**
   * Begins with what the core has read from a file: documents 0 and up, in this order.
   * @param {Document['view'][]} views of different ids
   */
  adopt(views) {
    for (const [number, view] of views.entries()) {
      const passages = this.core.passagesOf(number);
      const document = { view, number, passages, ranges: undefined, encoded: passages, segment: undefined, sequence: 0 };
      this.#byNumber[number] = document;
      this.kept.set(view.id, document);
    }
  }

  /**
   * Makes documents the kept ones of their ids.
   * @param {number | undefined} segment where they are stored now
   * @param {Document[]} documents
   * @param {number} [bytes] that the segment takes
   */
  place(segment, documents, bytes = 0) {
    for (const document of documents) {
      const { id } = document.view;
      const before = this.kept.get(id);
      if (before === document) {
        this.#leave(document);
      } else {
        if (before) this.drop(before);
        this.kept.set(id, document);
      }
      document.segment = segment;
      if (this.#drafts.get(id) === document) this.#drafts.delete(id);
      this.#hidden.delete(document.number);
      const newer = this.#drafts.get(id);
      if (newer) this.#hidden.add(newer.number);
    }
    if (segment !== undefined) {
      const weight = documents.reduce((sum, each) => sum + weightOf(each), 0);
      this.segments.set(segment, { documents, weight, living: weight, bytes });
    }
  }

  /**
   * Takes out a kept document or a draft.
   * @param {Document} document
   */
  drop(document) {
    const { id } = document.view;
    if (this.kept.get(id) === document) {
      this.kept.delete(id);
      this.#leave(document);
      const draft = this.#drafts.get(id);
      if (draft) this.#hidden.delete(draft.number);
    }
    if (this.#drafts.get(id) === document) this.#drafts.delete(id);
    this.#forget(document);
  }

  /**
   * Hides a draft that is not wanted any more; it still has to be dropped.
   * @param {Document} document
   */
  retract(document) {
    const { id } = document.view;
    if (this.#byNumber[document.number] !== document || this.kept.get(id) === document) return;
    this.#hidden.add(document.number);
    if (this.#drafts.get(id) === document) this.#drafts.delete(id);
  }

  /**
   * Retracts drafts of calls that were made before another one took effect.
   * @param {number} sequence of that one
   * @param {(string | number)[]} [ids] of what it changed; all without them
   */
  retractBefore(sequence, ids = [...this.#drafts.keys()]) {
    for (const id of ids) {
      const draft = this.#drafts.get(id);
      if (draft?.sequence < sequence) this.retract(draft);
    }
  }

  /** @param {number} number of a stored segment */
  living(number) {
    return this.segments.get(number).documents.filter((document) =>
      document.segment === number && this.kept.get(document.view.id) === document);
  }

  /** Whether a quarter of what is stored is dead. */
  get isSparse() {
    let [weight, living] = [0, 0];
    for (const segment of this.segments.values()) {
      weight += segment.weight;
      living += segment.living;
    }
    return weight - living >= weight / 4 && weight > living;
  }

  /**
   * Bytes of the vectors of some documents, as `takeIn` reads them.
   * @param {Document[]} documents
   * @returns {Uint8Array}
   */
  vectorsOf(documents) {
    return coded(() => this.core.exportVectors(Uint32Array.from(documents, ({ number }) => number)));
  }

  /**
   * @param {Document} document
   * @param {Float32Array} vectors of its next passages
   */
  encode(document, vectors) {
    coded(() => this.core.setVectors(document.number, document.encoded, vectors));
    document.encoded += vectors.length / this.core.dimension;
  }

  /**
   * @param {Float32Array | undefined} vector
   * @param {string} text
   * @param {{ topK: number, minScore?: number, semantic: number, filter?: (view: Document['view']) => unknown }} options
   */
  search(vector, text, { topK, minScore, semantic, filter }) {
    let mask;
    if (filter || this.#hidden.size > 0) {
      mask = new Uint8Array(this.#byNumber.length);
      for (const document of this.#byNumber) {
        if (document && !this.#hidden.has(document.number) && (!filter || filter(document.view))) mask[document.number] = 1;
      }
    }
    const found = coded(() => this.core.search(vector, text, topK, minScore, semantic, mask));
    return Array.from(found.documents, (number, i) => {
      const { id, text, data } = this.#byNumber[number].view;
      const [start, end] = [found.starts[i], found.ends[i]];
      return {
        id, score: found.scores[i], cosine: orNull(found.cosines[i]), lexical: orNull(found.lexicals[i]), text, data,
        passage: { start, end, text: text.slice(start, end) },
      };
    });
  }

  /** A kept document is not in its segment any more. */
  #leave(document) {
    const segment = this.segments.get(document.segment);
    if (segment) segment.living -= weightOf(document);
  }

  #make(view, ranges) {
    const number = this.#free.pop() ?? this.#byNumber.length;
    try {
      coded(() => this.core.addDocument(number, view.text, ranges));
    } catch (error) {
      if (number < this.#byNumber.length) this.#free.push(number);
      throw error;
    }
    const document = { view, number, passages: ranges.length / 2, ranges, encoded: 0, segment: undefined, sequence: 0 };
    this.#byNumber[number] = document;
    return document;
  }

  #forget(document) {
    if (this.#byNumber[document.number] !== document) return;
    coded(() => this.core.removeDocument(document.number));
    this.#byNumber[document.number] = undefined;
    this.#hidden.delete(document.number);
    this.#free.push(document.number);
  }
}

/**
 * What callers see of a document. `data` is given away to it.
 * @returns {Document['view']}
 */
export const viewOf = (id, text, data) => Object.freeze({ id, text, data: frozen(data) });

/** Callers get the data itself, for filters that see a hundred thousand of them; so it must not change. */
function frozen(value) {
  if (typeof value === 'object' && value !== null) {
    for (const part of Object.values(value)) frozen(part);
    Object.freeze(value);
  }
  return value;
}

const orNull = (value) => (Number.isNaN(value) ? null : value);

const sameRanges = (a, b) => a.length === b.length && a.every((value, i) => value === b[i]);

function joined(parts) {
  const all = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}
