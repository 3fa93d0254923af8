// Keeps memory and disk equal: the documents of an index and the store that they lie in, with other tabs that
// change the store meanwhile. Without a store it keeps memory only.
import { MunjangError } from './errors.js';
import { weightOf } from './documents.js';
import { SEGMENT, groupsOf, readSegment, writeSegment, xxh32 } from './segment.js';
import { Tabs } from './tabs.js';

/** Segments that are written anew to be merged hold no more bytes than this, together. */
const MERGED_BYTES = 2 ** 20;

export class Mirror {
  #name;
  /** @type {import('./documents.js').Documents} */
  #documents;
  /** @type {import('./store.js').Store | undefined} */
  #store;
  /** @type {Tabs | undefined} */
  #tabs;
  #modelId;
  /** The stored generation that memory equals. */
  #generation = 0;
  /** Ends when all steps so far have: one after another. */
  #steps = Promise.resolve();
  #heard = false;
  #closed = false;

  /**
   * @param {string} name of the index
   * @param {string} modelId
   * @param {import('./documents.js').Documents} documents
   * @param {import('./store.js').Store} [store]
   */
  constructor(name, modelId, documents, store) {
    this.#name = name;
    this.#modelId = modelId;
    this.#documents = documents;
    this.#store = store;
  }

  /** From now on what other tabs store is taken in. */
  listen() {
    this.#tabs ??= new Tabs(this.#name, () => this.#hear());
  }

  silence() {
    this.#tabs?.close();
    this.#tabs = undefined;
  }

  get generation() {
    return this.#generation;
  }

  /** Whether what is added now is stored. */
  get isStored() {
    return this.#store !== undefined && !this.#store.isLost;
  }

  /**
   * Runs a step after all others.
   * @template T
   * @param {() => Promise<T>} task
   * @returns {Promise<T>}
   */
  step(task) {
    const step = this.#steps.then(task);
    this.#steps = step.catch(() => {});
    return step;
  }

  /**
   * Stores what `plan` says, which is asked again when another tab has stored something in between; part of a step.
   * Memory is the caller's to change afterwards.
   * @param {() => { added?: Doc[], removed?: Doc[], changed?: Map<Doc, Doc>, all?: boolean } | undefined} plan what is to
   *   be stored and removed; `changed` has documents as they shall be stored in the place of others. undefined: nothing
   * @returns {Promise<() => void>} what makes memory follow: it places what was stored
   * @typedef {import('./documents.js').Document} Doc
   */
  async write(plan) {
    for (;;) {
      const wanted = plan();
      if (!this.#store) return () => this.#documents.place(undefined, wanted?.added ?? []);
      if (wanted) {
        const { step, place } = this.#stepOf(wanted);
        const written = await this.#store.write(this.#generation, step);
        if (written) {
          this.#announce(written.generation);
          return () => place(written.numbers);
        }
      } else if (await this.#store.generation() === this.#generation) {
        // It was not only memory that had nothing to do.
        return () => {};
      }
      await this.#read();
    }
  }

  /** Writes all segments anew once a quarter of them is dead, in a step of its own. */
  compactSoon() {
    const isDue = () => this.isStored && !this.#closed && this.#documents.isSparse;
    if (!isDue()) return;
    this.step(async () => {
      if (!isDue()) return;
      const follow = await this.write(() => ({ all: true, added: [...this.#documents.kept.values()] }));
      follow();
    }).catch(() => {
      // For want of room, say. Nothing is lost by it; it is tried again after the next change.
    });
  }

  /** Takes in what is stored, if that is not what memory has; part of a step. */
  async refresh() {
    if (this.#store && await this.#store.generation() !== this.#generation) await this.#read();
  }

  /**
   * Takes in what is stored.
   * @returns {Promise<number>} how many segments are damaged
   */
  async load() {
    const documents = this.#documents;
    let damaged = 0;
    const { meta, numbers, changes } = await this.#store.read(new Set(documents.segments.keys()), (number, bytes) => {
      const segment = readSegment(bytes);
      if (segment) documents.takeIn(number, segment, bytes.byteLength);
      else damaged++;
    });
    if (meta.modelId !== this.#modelId || meta.precision !== documents.core.precision) {
      throw invalidIndex(this.#name, `was built again by another tab, with model ${meta.modelId} in ${meta.precision}`);
    }
    for (const document of [...documents.kept.values()]) if (!numbers.has(document.segment)) documents.drop(document);
    for (const number of [...documents.segments.keys()]) if (!numbers.has(number)) documents.segments.delete(number);
    for (const [id, before] of changes) {
      const document = documents.kept.get(id);
      if (document && document.segment < before) documents.drop(document);
    }
    this.#generation = meta.generation;
    return damaged;
  }

  /**
   * Puts the documents in the place of everything that is stored.
   * @param {number} generation the one that they were made of
   * @param {object} meta what else changes
   * @param {Doc[]} added
   * @returns {Promise<boolean>} false if the stored generation is another
   */
  async replace(generation, meta, added) {
    const { step, place } = this.#stepOf({ all: true, added });
    const written = await this.#store.write(generation, { ...step, meta });
    if (!written) return false;
    this.#announce(written.generation);
    place(written.numbers);
    return true;
  }

  /**
   * Runs `task` when no other tab adds the same documents: they may be there then.
   * @template T
   * @param {{ id: string | number, text: string }[]} batch
   * @param {AbortSignal} signal ends the waiting
   * @param {() => Promise<T>} task
   * @returns {Promise<T>}
   */
  async inTurn(batch, signal, task) {
    if (!this.#tabs) return task();
    const key = xxh32(new TextEncoder().encode(JSON.stringify(batch.map(({ id, text }) => [id, text]))));
    return this.#tabs.inTurn(key.toString(16), signal, async () => {
      if (!signal.aborted) await this.step(() => this.refresh());
      return task();
    });
  }

  /** Ends when what is being written has been written. */
  async close() {
    this.#closed = true;
    this.silence();
    await this.#steps;
    this.#store?.close();
  }

  /** Something was stored by another tab. */
  #hear() {
    if (this.#heard || this.#closed) return;
    this.#heard = true;
    this.step(async () => {
      this.#heard = false;
      if (!this.#closed) await this.refresh();
    }).catch(() => {
      // The next call that writes will meet it, and say so.
    });
  }

  #announce(generation) {
    this.#generation = generation;
    this.#tabs?.tell(generation);
  }

  async #read() {
    const damaged = await this.load();
    if (damaged > 0) throw invalidIndex(this.#name, `is damaged in ${damaged} of its segments`);
  }

  /** A step for the store, and how memory follows it. */
  #stepOf({ added = [], removed = [], changed = new Map(), all = false }) {
    const documents = this.#documents;
    const fresh = [...changed.keys(), ...added];
    const drop = all || fresh.length === 0 ? [] : this.#mergeable(fresh);
    const gone = new Set([...fresh.map(({ view }) => view.id), ...removed.map(({ view }) => view.id)]);
    const older = drop.flatMap((number) => documents.living(number)).filter(({ view }) => !gone.has(view.id));
    const groups = groupsOf([...older, ...fresh], all);
    const sizes = [];
    return {
      step: {
        all, drop, removed: removed.map(({ view }) => view.id),
        segments: this.#bytesOf(groups.map((group) => group.map((document) => changed.get(document) ?? document)), sizes),
      },
      place: (numbers) => {
        if (all) documents.segments.clear();
        groups.forEach((group, i) => documents.place(numbers[i], group, sizes[i]));
        for (const number of drop) documents.segments.delete(number);
      },
    };
  }

  * #bytesOf(groups, sizes) {
    for (const group of groups) {
      const bytes = writeSegment(group.map(({ view: { id, text, data }, ranges }) => ({ id, text, ranges, data })),
        this.#documents.vectorsOf(group));
      sizes.push(bytes.byteLength);
      yield bytes;
    }
  }

  /** The last segments as far as they are small beside what is to be added, and all that are wholly dead. */
  #mergeable(fresh) {
    let weight = fresh.reduce((sum, document) => sum + weightOf(document), 0);
    let merged = 0;
    const numbers = [];
    let last = true;
    for (const number of [...this.#documents.segments.keys()].sort((a, b) => b - a)) {
      const { living, bytes } = this.#documents.segments.get(number);
      last &&= living <= weight && weight + living <= SEGMENT && merged + bytes <= MERGED_BYTES;
      if (last || living === 0) {
        numbers.push(number);
        weight += living;
        merged += living === 0 ? 0 : bytes;
      }
    }
    return numbers.reverse();
  }
}

export const invalidIndex = (name, what) => new MunjangError('index_invalid', `The stored index "${name}" ${what}. `
  + 'Open it with { rebuild: true } to encode the texts in it again, or delete it with SemanticIndex.delete().');

/**
 * What is stored, without its vectors: of each id the last document, in order.
 * @param {import('./store.js').Store} store
 */
export async function readTexts(store) {
  const found = new Map();
  const { meta, changes } = await store.read(new Set(), (number, bytes) => {
    for (const { id, text, data } of readSegment(bytes)?.documents ?? []) {
      found.delete(id);
      found.set(id, { id, text, data, number });
    }
  });
  for (const [id, before] of changes) if (found.get(id)?.number < before) found.delete(id);
  return { meta, texts: [...found.values()] };
}
