import { codeOf } from './code.js';
import { Documents, isEncoded, viewOf } from './documents.js';
import { defer } from './environment.js';
import { MunjangError, aborted, throwIfAborted } from './errors.js';
import { Mirror, invalidIndex, readTexts } from './mirror.js';
import { checkCallOptions } from './options.js';
import { coded, searchCore } from './search_core.js';
import {
  checkBytes, checkDocuments, checkEncoder, checkId, checkIds, checkName, checkOpenOptions, checkSearch, documentsOf,
} from './search_input.js';
import { SEGMENT, batches } from './segment.js';
import { FORMAT, Store, checkRoom } from './store.js';

/** Passages that go to the encoder at once; they can be found by meaning when they come back. */
const STEP = 128;
/** So long the page may be kept from other things. */
const SLICE_MS = 8;
const DEFAULT_MAX_CHARS = 150;
const MAKE = Symbol('make');

/**
 * Documents searched by words and by meaning; made by `SemanticIndex.open`. search.d.ts describes each method.
 *
 * Calls that change it take effect in the order in which they were made: `#settled` has, for each id, the last call
 * that did, and an earlier one that comes later (its texts took longer to encode) leaves that document alone.
 */
export class SemanticIndex {
  #name;
  #encoder;
  #glue;
  #config;
  /** @type {Documents} */
  #documents;
  /** @type {Mirror} */
  #mirror;
  /** Why nothing is stored, if that was asked for. */
  #reason;
  /** Calls under way that can be stopped. */
  #calls = new Set();
  #sequence = 0;
  #settled = new Map();
  /** The last call that changed every id. */
  #cleared = 0;
  #closed = false;

  constructor(key, name, encoder, glue) {
    if (key !== MAKE) throw new MunjangError('input_invalid', 'Use SemanticIndex.open() to make a SemanticIndex.');
    this.#name = name;
    this.#encoder = encoder;
    this.#glue = glue;
  }

  static async open(name, options = {}) {
    checkName(name);
    const { signal, onProgress } = checkCallOptions(options);
    const { persist, maxChars, precision, rebuild } = checkOpenOptions(options);
    throwIfAborted(signal);
    const encoder = checkEncoder(await options.encoder);
    const { glue } = await searchCore(codeOf.get(encoder));
    throwIfAborted(signal);
    const index = new SemanticIndex(MAKE, name, encoder, glue);
    const { modelId, hiddenSize: dimension } = encoder.info;
    const wanted = { modelId, dimension, precision, maxChars };
    const { store, reason } = persist ? await Store.open(name) : {};
    index.#reason = reason;
    try {
      if (store) await index.#load(store, wanted, rebuild, signal, onProgress);
      else index.#setUp(withDefaults(wanted));
      return index;
    } catch (error) {
      store?.close();
      await index.close();
      throw error;
    }
  }

  static async fromBytes(bytes, options = {}) {
    checkCallOptions(options);
    const encoder = checkEncoder(await options.encoder);
    const { glue } = await searchCore(codeOf.get(encoder));
    const { index: core, json, maxChars } = coded(() => glue.HybridIndex.fromBytes(checkBytes(bytes), encoder.info.modelId));
    try {
      const { modelId, hiddenSize: dimension } = encoder.info;
      if (core.dimension !== dimension) {
        throw new MunjangError('index_invalid', `The index has vectors of ${core.dimension} values, the encoder gives ${dimension}. Make it again.`);
      }
      const index = new SemanticIndex(MAKE, undefined, encoder, glue);
      const views = documentsOf(json).map(({ id, text, data }) => viewOf(id, text, data));
      index.#take(core, { modelId, dimension, precision: core.precision, maxChars });
      index.#documents.adopt(views);
      return index;
    } catch (error) {
      core.free();
      throw error;
    }
  }

  static async delete(name) {
    await Store.delete(checkName(name));
  }

  get size() {
    return this.#documents.kept.size;
  }

  get info() {
    const { core, drafts } = this.#documents;
    const persistent = this.#mirror.isStored;
    return Object.freeze({
      name: this.#name,
      ...this.#config,
      persistent,
      reason: persistent ? undefined : this.#reason ?? (this.#mirror.generation > 0 ? 'the stored index was deleted' : undefined),
      documents: this.size,
      pending: drafts,
      ...(this.#closed ? { passages: 0, encoded: 0, bytes: 0 } : { passages: core.passages, encoded: core.encoded, bytes: core.byteLength }),
    });
  }

  has(id) {
    return this.#documents.kept.has(checkId(id, 'id'));
  }

  get(id) {
    return this.#documents.kept.get(checkId(id, 'id'))?.view;
  }

  async add(documents, options) {
    this.#throwIfClosed();
    const { signal, onProgress } = checkCallOptions(options);
    const items = checkDocuments(documents);
    throwIfAborted(signal);
    const call = this.#begin(signal);
    const total = items.length;
    let done = 0;
    try {
      if (this.#mirror.isStored) await checkRoom(leastBytes(items, this.#config));
      // The words of all of them first: that takes a hundredth of the time.
      await inSlices(items, (item) => {
        this.#check(call);
        this.#draft(item, call);
      });
      for (const batch of batches(items, this.#config.maxChars)) {
        this.#check(call);
        await this.#mirror.inTurn(batch, call.signal, () =>
          this.#addBatch(batch, call, (encoded) => onProgress?.({ done, encoded: done + encoded, total })));
        for (const item of batch) this.#release(item);
        done += batch.length;
        onProgress?.({ done, encoded: done, total });
      }
    } catch (error) {
      // The encoder says that it was aborted; the call says by whom.
      throw call.why ?? error;
    } finally {
      // What is not wanted any more is not found from now on; taking it out takes its time.
      for (const { draft } of items) if (draft) this.#documents.retract(draft);
      inSlices(items, (item) => this.#release(item)).catch(() => {});
      call.end();
    }
  }

  async search(query, options = {}) {
    this.#throwIfClosed();
    const { signal } = checkCallOptions(options);
    const checked = checkSearch(query, options);
    throwIfAborted(signal);
    const { kept, drafts } = this.#documents;
    if (checked.topK === 0 || query.trim() === '' || (kept.size === 0 && drafts === 0)) return [];
    const vector = checked.semantic > 0 ? await this.#encoder.encode(query, { signal }) : undefined;
    this.#throwIfClosed();
    const topK = Math.min(checked.topK, this.#documents.core.documents);
    return this.#documents.search(vector, query, { ...checked, topK });
  }

  marks(text, query) {
    if (typeof text !== 'string' || typeof query !== 'string') {
      throw new MunjangError('input_invalid', 'marks() takes two strings: a text and a query.');
    }
    const flat = coded(() => this.#glue.marks(text, query));
    return Array.from({ length: flat.length / 2 }, (_, i) => ({ start: flat[2 * i], end: flat[2 * i + 1] }));
  }

  async remove(ids) {
    this.#throwIfClosed();
    const list = checkIds(ids);
    const sequence = ++this.#sequence;
    return this.#mirror.step(async () => {
      const documents = this.#documents;
      let removed;
      await this.#mirror.write(() => {
        removed = list.map((id) => documents.kept.get(id)).filter(Boolean);
        return removed.length > 0 ? { removed } : undefined;
      });
      for (const document of removed) documents.drop(document);
      documents.retractBefore(sequence, list);
      for (const id of list) this.#settle(id, sequence);
      this.#mirror.compactSoon();
      return removed.length;
    });
  }

  async clear() {
    this.#throwIfClosed();
    const sequence = ++this.#sequence;
    await this.#mirror.step(async () => {
      const documents = this.#documents;
      const follow = await this.#mirror.write(() => ({ all: true }));
      follow();
      for (const document of [...documents.kept.values()]) documents.drop(document);
      documents.retractBefore(sequence);
      this.#cleared = sequence;
    });
  }

  async toBytes() {
    this.#throwIfClosed();
    const { core, kept } = this.#documents;
    const documents = [...kept.values()];
    return coded(() => core.toBytes(Uint32Array.from(documents, ({ number }) => number),
      wellFormed(JSON.stringify(documents.map(({ view }) => view))), this.#config.maxChars));
  }

  async close() {
    if (this.#closed) return;
    this.#closed = true;
    for (const call of [...this.#calls]) call.stop(closed());
    await this.#mirror?.close();
    this.#documents?.core.free();
  }

  [Symbol.asyncDispose ?? Symbol.for('Symbol.asyncDispose')]() {
    return this.close();
  }

  // ── Opening ─────────────────────────────────────────────────────────────────────────────────────

  /** Begins with nothing in memory. */
  #setUp(config, store) {
    const { dimension, precision, modelId } = config;
    this.#take(coded(() => new this.#glue.HybridIndex(dimension, precision, modelId)), config, store);
  }

  #take(core, { modelId, dimension, precision, maxChars }, store) {
    this.#config = { modelId, dimension, precision, maxChars };
    this.#documents?.core.free();
    this.#documents = new Documents(core);
    this.#mirror?.silence();
    this.#mirror = new Mirror(this.#name, modelId, this.#documents, store);
  }

  /** Makes memory what is stored. */
  async #load(store, wanted, rebuild, signal, onProgress) {
    const meta = await store.begin(withDefaults(wanted));
    if (meta.format !== FORMAT) throw invalidIndex(this.#name, `has format ${meta.format}, which this version does not read`);
    const differs = ['modelId', 'dimension', 'precision', 'maxChars']
      .filter((key) => wanted[key] !== undefined && wanted[key] !== meta[key])
      .map((key) => `${key} ${meta[key]} instead of ${wanted[key]}`);
    let damaged = 0;
    if (differs.length === 0) {
      this.#setUp(meta, store);
      this.#mirror.listen();
      damaged = await this.#mirror.step(() => this.#mirror.load());
      if (damaged === 0) return;
    }
    if (!rebuild) {
      throw invalidIndex(this.#name, damaged > 0 ? `is damaged in ${damaged} of its segments` : `was made with ${differs.join(', ')}`);
    }
    const call = this.#begin(signal);
    const config = withDefaults({ ...meta, ...defined(wanted) });
    try {
      // Again if another tab was quicker with something: what it stored is to be encoded too.
      while (!await this.#rebuild(store, config, call, onProgress));
    } catch (error) {
      throw call.why ?? error;
    } finally {
      call.end();
    }
  }

  /** Encodes the stored texts again and puts them in the place of what is stored, all at once. */
  async #rebuild(store, config, call, onProgress) {
    const { meta, texts } = await readTexts(store);
    this.#setUp(config, store);
    const drafts = [];
    await inSlices(texts, ({ id, text, data }) => {
      this.#check(call);
      drafts.push(this.#documents.draft(viewOf(id, text, data), this.#cut(text)));
    });
    for (let done = 0; done < drafts.length; done += SEGMENT) {
      await this.#encode(drafts.slice(done, done + SEGMENT), call, (count) => onProgress?.({ done: done + count, total: drafts.length }));
    }
    this.#check(call);
    this.#mirror.listen();
    return this.#mirror.step(() => this.#mirror.replace(meta.generation, config, drafts));
  }

  // ── Adding ──────────────────────────────────────────────────────────────────────────────────────

  /** A call that can be stopped, by its signal or by `close`. */
  #begin(signal) {
    const controller = new AbortController();
    const call = {
      sequence: ++this.#sequence,
      signal: controller.signal,
      why: undefined,
      stop: (why) => {
        call.why ??= why;
        controller.abort();
      },
      end: () => {
        signal?.removeEventListener('abort', onAbort);
        this.#calls.delete(call);
        if (this.#calls.size === 0) this.#settled.clear();
      },
    };
    const onAbort = () => call.stop(aborted(signal.reason));
    signal?.addEventListener('abort', onAbort, { once: true });
    this.#calls.add(call);
    return call;
  }

  #check(call) {
    if (call.why) throw call.why;
  }

  /** What is left to do for an item: `'text'`, `'data'` or nothing. */
  #need({ id, text, json }, { sequence }) {
    if (this.#cleared > sequence || this.#settled.get(id) > sequence) return undefined;
    const kept = this.#documents.kept.get(id);
    if (kept?.view.text !== text) return 'text';
    return JSON.stringify(kept.view.data) === json ? undefined : 'data';
  }

  #settle(id, sequence) {
    // Only calls under way can come later.
    if (this.#calls.size > 0) this.#settled.set(id, sequence);
  }

  #cut(text) {
    return coded(() => this.#glue.cutPassages(text, this.#config.maxChars));
  }

  /** Makes an item's draft, if it needs one. */
  #draft(item, call) {
    if (item.draft || this.#need(item, call) !== 'text') return;
    item.draft = this.#documents.draft(viewOf(item.id, item.text, parsed(item.json)), this.#cut(item.text), call.sequence);
  }

  /** Takes an item's draft back, unless it has been kept. */
  #release(item) {
    if (item.draft && !this.#closed && this.#documents.kept.get(item.id) !== item.draft) this.#documents.drop(item.draft);
    item.draft = undefined;
  }

  async #addBatch(batch, call, onEncoded) {
    do {
      this.#check(call);
      const drafts = [];
      for (const item of batch) {
        this.#draft(item, call);
        // Another call or tab may have brought it while this one waited.
        if (item.draft && this.#need(item, call) === 'text') drafts.push(item.draft);
      }
      const ready = batch.length - drafts.length;
      await this.#encode(drafts, call, (count) => onEncoded(ready + count));
      // And again, if the need has changed meanwhile.
    } while (!await this.#mirror.step(() => this.#keep(batch, call)));
  }

  /** Encodes the passages of drafts that lack their vectors. */
  async #encode(drafts, call, onEncoded) {
    const passages = [];
    for (const draft of drafts) {
      for (let i = draft.encoded; i < draft.passages; i++) passages.push([draft, i]);
    }
    // Equal passages are encoded once.
    const vectors = new Map();
    const textOf = ([{ view, ranges }, i]) => view.text.slice(ranges[2 * i], ranges[2 * i + 1]);
    for (let at = 0; at < passages.length;) {
      const part = [];
      const texts = new Set();
      for (; at < passages.length && texts.size < STEP; at++) {
        const text = textOf(passages[at]);
        part.push([passages[at], text]);
        if (!vectors.has(text)) texts.add(text);
      }
      const list = [...texts];
      const encoded = list.length > 0 ? await this.#encoder.encode(list, { signal: call.signal }) : [];
      this.#check(call);
      list.forEach((text, i) => vectors.set(text, encoded[i]));
      for (let i = 0; i < part.length;) {
        const [[draft]] = part[i];
        const rows = [];
        for (; i < part.length && part[i][0][0] === draft; i++) rows.push(vectors.get(part[i][1]));
        this.#documents.encode(draft, flat(rows, this.#config.dimension));
      }
      onEncoded(drafts.filter(isEncoded).length);
    }
  }

  /**
   * Stores a batch and makes it count; a step of its own.
   * @returns {Promise<boolean>} false if something of it has to be encoded first
   */
  async #keep(batch, call) {
    this.#check(call);
    let complete;
    let changed;
    const follow = await this.#mirror.write(() => {
      complete = true;
      changed = new Map();
      const added = [];
      for (const item of batch) {
        const need = this.#need(item, call);
        if (need === 'text') {
          if (item.draft && isEncoded(item.draft)) added.push(item.draft);
          else complete = false;
        } else if (need === 'data') {
          const document = this.#documents.kept.get(item.id);
          changed.set(document, { ...document, view: viewOf(item.id, item.text, parsed(item.json)) });
        }
      }
      return complete && (added.length > 0 || changed.size > 0) ? { added, changed } : undefined;
    });
    if (!complete) return false;
    for (const [document, { view }] of changed) document.view = view;
    follow();
    for (const { id } of batch) if (!(this.#settled.get(id) > call.sequence)) this.#settle(id, call.sequence);
    this.#mirror.compactSoon();
    return true;
  }

  #throwIfClosed() {
    if (this.#closed) throw closed();
  }
}

const closed = () => new MunjangError('disposed', 'This index was closed; open it again with SemanticIndex.open().');

const withDefaults = ({ modelId, dimension, precision = 'int8', maxChars = DEFAULT_MAX_CHARS }) =>
  ({ modelId, dimension, precision, maxChars });

const defined = (object) => Object.fromEntries(Object.entries(object).filter(([, value]) => value !== undefined));

const parsed = (json) => (json === undefined ? undefined : JSON.parse(json));

/** JSON whose lone surrogates, which UTF-8 does not have, are U+FFFD. */
const wellFormed = (json) => json.replace(/\\(?:ud[89a-f][0-9a-f]{2}|.)/g, (escape) => (escape.length > 2 ? '\\ufffd' : escape));

/** Calls `each` for all of a list, with breaks for everything else. */
async function inSlices(list, each) {
  let until = performance.now() + SLICE_MS;
  for (const item of list) {
    each(item);
    if (performance.now() > until) {
      await new Promise(defer);
      until = performance.now() + SLICE_MS;
    }
  }
}

/** What documents take on the disk, at least. */
function leastBytes(items, { dimension, precision, maxChars }) {
  const row = { int8: dimension, float32: 4 * dimension, binary: dimension / 8 }[precision];
  return items.reduce((sum, { text }) => sum + text.length + row * Math.ceil(text.trim().length / maxChars), 0);
}

function flat(rows, dimension) {
  const all = new Float32Array(rows.length * dimension);
  rows.forEach((row, i) => {
    if (row?.length !== dimension) {
      throw new MunjangError('input_invalid', `The encoder gave ${row?.length ?? 'no'} values for a text; its info.hiddenSize is ${dimension}.`);
    }
    all.set(row, i * dimension);
  });
  return all;
}
