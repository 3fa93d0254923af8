// Where an index lies on the visitor's disk: an IndexedDB database of its own with three stores.
//
//   meta      'index' → { format, uuid, modelId, dimension, precision, maxChars, generation, nextSegment }
//   segments  number → bytes (segment.js). Numbers only rise; of two documents with one id the one in the higher
//             segment counts.
//   changes   generation → [[id, before], …]: the document `id` in a segment below `before` was removed.
//
// Every transaction that writes compares the generation with the one that its writer knows and raises it, so
// whoever missed something writes nothing. What is stored is stored when the transaction has ended, and as a whole.
import { MunjangError } from './errors.js';

export const FORMAT = 1;
const META = 'index';
const STORES = ['meta', 'segments', 'changes'];

/** @param {string} name of an index */
const databaseName = (name) => `munjang-search/${name}`;

/**
 * @typedef {object} Meta
 * @property {number} format
 * @property {string} uuid of this index, so that one that was deleted and made again is not mistaken for it
 * @property {string} modelId
 * @property {number} dimension
 * @property {'int8' | 'float32' | 'binary'} precision
 * @property {number} maxChars
 * @property {number} generation
 * @property {number} nextSegment
 */

export class Store {
  #name;
  /** @type {IDBDatabase | undefined} */
  #database;
  #closed = false;
  /** The index that this is about, once it is known. */
  #uuid;
  /** Whether somebody deleted it. */
  isLost = false;

  constructor(name) {
    this.#name = name;
  }

  /**
   * @param {string} name
   * @returns {Promise<{ store?: Store, reason?: string }>} a reason where nothing can be kept at all
   */
  static async open(name) {
    const store = new Store(name);
    try {
      // Reading the property itself is an error in some frames.
      if (!globalThis.indexedDB) return { reason: 'there is no IndexedDB here' };
      await store.#connect();
      return { store };
    } catch (error) {
      // So do browsers say that this page may keep nothing: blocked cookies, some private windows, sandboxed frames.
      const { name: kind, message } = error?.cause ?? error;
      if (kind === 'SecurityError' || kind === 'InvalidStateError') {
        return { reason: `the browser keeps nothing for this page (${message || kind})` };
      }
      throw error;
    }
  }

  /**
   * Deletes a stored index; tabs that have it open keep what is in their memory.
   * @param {string} name
   */
  static async delete(name) {
    if (!globalThis.indexedDB) return;
    await new Promise((resolve, reject) => {
      const asked = indexedDB.deleteDatabase(databaseName(name));
      asked.onsuccess = () => resolve();
      asked.onerror = () => reject(failure('delete the stored index', asked.error));
    });
  }

  /**
   * What is stored, or the given description if that is nothing yet.
   * @param {Omit<Meta, 'uuid' | 'generation' | 'nextSegment' | 'format'>} fresh
   * @returns {Promise<Meta>}
   */
  async begin(fresh) {
    return this.#transact('readwrite', 'open the stored index', async ({ meta }) => {
      let found = await done(meta.get(META));
      if (!found) {
        found = { ...fresh, format: FORMAT, uuid: newUuid(), generation: 0, nextSegment: 1 };
        meta.put(found, META);
      }
      this.#uuid = found.uuid;
      return found;
    });
  }

  /** @returns {Promise<number>} the generation that is stored now */
  generation() {
    return this.#transact('readonly', 'read the stored index', async ({ meta }) =>
      this.#mine(await done(meta.get(META))).generation);
  }

  /**
   * Reads what is new, from one moment: every segment that `known` lacks goes to `take`, in order.
   * @param {Set<number>} known
   * @param {(number: number, bytes: ArrayBuffer) => void} take
   * @returns {Promise<{ meta: Meta, numbers: Set<number>, changes: [id: string | number, before: number][] }>}
   */
  read(known, take) {
    return this.#transact('readonly', 'read the stored index', async ({ meta, segments, changes }) => {
      const found = this.#mine(await done(meta.get(META)));
      const numbers = await done(segments.getAllKeys());
      const wanted = numbers.filter((number) => !known.has(number));
      // The next one is on its way while this one is taken in.
      let next = wanted.length > 0 ? done(segments.get(wanted[0])) : undefined;
      for (let i = 0; i < wanted.length; i++) {
        const bytes = await next;
        next = i + 1 < wanted.length ? done(segments.get(wanted[i + 1])) : undefined;
        take(wanted[i], bytes);
      }
      return { meta: found, numbers: new Set(numbers), changes: (await done(changes.getAll())).flat() };
    });
  }

  /**
   * One step of the index, as a whole or not at all.
   * @param {number} generation what the writer knows
   * @param {object} step
   * @param {Iterable<ArrayBuffer>} [step.segments] to be added, made while they are written
   * @param {number[]} [step.drop] numbers of segments to delete
   * @param {(string | number)[]} [step.removed] ids whose documents in all segments so far are to be gone
   * @param {boolean} [step.all] delete every segment and change that there is, first
   * @param {Partial<Meta>} [step.meta] what else changes, at a rebuild
   * @returns {Promise<{ generation: number, numbers: number[] } | undefined>} the numbers of the new segments; undefined
   *   if the stored generation is another
   */
  write(generation, step) {
    return this.#transact('readwrite', 'write to the stored index', async ({ meta, segments, changes }) => {
      const found = this.#mine(await done(meta.get(META)));
      if (found.generation !== generation) return undefined;
      const next = { ...found, ...step.meta, generation: generation + 1 };
      if (step.all) {
        segments.clear();
        changes.clear();
      }
      for (const number of step.drop ?? []) segments.delete(number);
      if (step.removed?.length > 0) {
        changes.put(step.removed.map((id) => [id, next.nextSegment]), next.generation);
      }
      const numbers = [];
      for (const bytes of step.segments ?? []) {
        const number = next.nextSegment++;
        numbers.push(number);
        // Waited for, so that no more than one lies in memory.
        await done(segments.put(bytes, number));
      }
      await done(meta.put(next, META));
      return { generation: next.generation, numbers };
    });
  }

  close() {
    this.#closed = true;
    this.#database?.close();
    this.#database = undefined;
  }

  /** @param {Meta | undefined} found */
  #mine(found) {
    if (found && (this.#uuid === undefined || found.uuid === this.#uuid)) return found;
    throw this.#lose();
  }

  #lose() {
    this.isLost = true;
    return lost();
  }

  async #connect() {
    const again = this.#uuid !== undefined;
    const database = await new Promise((resolve, reject) => {
      let missing = false;
      const asked = indexedDB.open(databaseName(this.#name), 1);
      asked.onupgradeneeded = () => {
        // A database that was there and is not any more was deleted by somebody, who shall not find it again.
        missing = again;
        if (missing) asked.transaction.abort();
        else for (const store of STORES) asked.result.createObjectStore(store);
      };
      asked.onsuccess = () => resolve(asked.result);
      asked.onerror = () => {
        if (missing) reject(this.#lose());
        else if (asked.error?.name === 'VersionError') reject(newer(this.#name));
        else reject(failure('open the stored index', asked.error));
      };
    });
    if (this.#closed) {
      database.close();
      throw closed();
    }
    const forget = () => {
      if (this.#database === database) this.#database = undefined;
    };
    // The browser closed it (cleared site data, a failing disk), or somebody deletes it and must not be held up.
    database.onclose = forget;
    database.onversionchange = () => {
      database.close();
      forget();
    };
    this.#database = database;
  }

  /**
   * @template T
   * @param {'readonly' | 'readwrite'} mode
   * @param {string} what for messages
   * @param {(stores: Record<'meta' | 'segments' | 'changes', IDBObjectStore>) => Promise<T>} run waits for requests only
   * @returns {Promise<T>} when the transaction has ended, and on the disk
   */
  async #transact(mode, what, run) {
    if (this.#closed) throw closed();
    if (this.isLost) throw lost();
    let transaction;
    for (let tries = 2; ; tries--) {
      if (!this.#database) await this.#connect();
      try {
        transaction = this.#database.transaction(STORES, mode, { durability: 'strict' });
        break;
      } catch (error) {
        // The connection was closed without a word: one more try, with a new one.
        this.#database = undefined;
        if (tries === 1) throw failure(what, error);
      }
    }
    const ended = new Promise((resolve) => {
      transaction.oncomplete = () => resolve({ complete: true });
      transaction.onabort = () => resolve({ complete: false, error: transaction.error });
    });
    let thrown;
    const stores = Object.fromEntries(STORES.map((store) => [store, transaction.objectStore(store)]));
    const result = await run(stores).catch((error) => {
      thrown = error;
      try {
        transaction.abort();
      } catch {
        // It has ended by itself.
      }
    });
    const { complete, error } = await ended;
    if (thrown instanceof MunjangError) throw thrown;
    if (thrown || !complete) throw failure(what, error ?? thrown);
    return result;
  }
}

/**
 * @template T
 * @param {IDBRequest<T>} request
 * @returns {Promise<T>}
 */
const done = (request) => new Promise((resolve, reject) => {
  request.onsuccess = () => resolve(request.result);
  request.onerror = () => reject(request.error);
});

/** Not crypto.randomUUID: pages on plain http lack it. */
const newUuid = () => Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, '0')).join('');

const closed = () => new MunjangError('disposed', 'This index was closed; open it again.');

const lost = () => new MunjangError('storage_lost', 'The stored index was deleted while it was open. What is in memory '
  + 'can still be searched and copied (toBytes); open the index again to store anew.');

const newer = (name) => new MunjangError('index_invalid',
  `The stored index "${name}" was written by a newer version of munjang. Use that version, or SemanticIndex.delete("${name}").`);

/** @param {DOMException | null | undefined} cause */
function failure(what, cause) {
  if (cause?.name === 'QuotaExceededError') {
    return new MunjangError('quota_exceeded', `The browser has no room left to ${what} (${cause.message || 'quota exceeded'}). `
      + 'Remove something or free disk space, then call again; what was stored before is unharmed.', { cause });
  }
  return new MunjangError('storage_failed', `The browser could not ${what}: ${cause?.message || cause?.name || 'the transaction was aborted'}. `
    + 'Call again; what was stored before is unharmed.', { cause: cause ?? undefined });
}

/**
 * Refuses at once what cannot fit, before hours go into making it.
 * @param {number} bytes at least
 */
export async function checkRoom(bytes) {
  const { quota, usage } = await globalThis.navigator?.storage?.estimate?.().catch(() => ({})) ?? {};
  if (quota === undefined || usage === undefined || usage + bytes <= quota) return;
  throw new MunjangError('quota_exceeded', `${bytes} bytes or more are to be stored, and the browser grants this page ${
    Math.max(0, quota - usage)} more. Add fewer documents, remove some or free disk space; nothing was changed.`);
}
