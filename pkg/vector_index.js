import { MunjangError } from './errors.js';
import { coded, searchCore } from './search_core.js';

/** Vectors that cross into WebAssembly at once: what is copied there is kept small. */
const ROWS_AT_ONCE = 512;
/** Removed rows that are not worth a compaction. */
const FEW = 1024;
const MAKE = Symbol('make');

/**
 * An exact index of vectors by cosine; made by `VectorIndex.create`. vector_index.d.ts describes each method.
 *
 * The core numbers its vectors, and a removed one keeps its number until the core compacts; ids are known here only.
 */
export class VectorIndex {
  #glue;
  #rows;
  /** The id of each of the core's rows, undefined if it was removed. @type {(string | number | undefined)[]} */
  #ids = [];
  /** @type {Map<string | number, number> | undefined} made when it is first asked for */
  #places;

  constructor(made, glue, rows, ids) {
    if (made !== MAKE) throw new MunjangError('input_invalid', 'Make an index with await VectorIndex.create({ dimension }).');
    this.#glue = glue;
    this.#rows = rows;
    this.#ids = ids;
  }

  static async create(options) {
    const { dimension, precision = 'int8', rescore = false, modelId } = objectOf(options, 'options');
    if (typeof dimension !== 'number') throw invalid(`dimension is ${shown(dimension)}; expected a whole number.`);
    if (typeof precision !== 'string') throw invalid(`precision is ${shown(precision)}; expected 'int8', 'float32' or 'binary'.`);
    if (typeof rescore !== 'boolean') throw invalid(`rescore is ${shown(rescore)}; expected true or false.`);
    checkModelId(modelId);
    const { glue } = await searchCore();
    return new VectorIndex(MAKE, glue, coded(() => new glue.VectorRows(dimension, precision, rescore, modelId)), []);
  }

  static async fromBytes(bytes, options = {}) {
    if (!(bytes instanceof Uint8Array || bytes instanceof ArrayBuffer)) {
      throw invalid(`The file is ${shown(bytes)}; expected a Uint8Array or an ArrayBuffer.`);
    }
    const { modelId } = objectOf(options, 'options');
    checkModelId(modelId);
    const { glue } = await searchCore();
    const rows = coded(() => glue.VectorRows.fromBytes(bytes instanceof Uint8Array ? bytes : new Uint8Array(bytes), modelId));
    try {
      return new VectorIndex(MAKE, glue, rows, readIds(rows.takeIds(), rows.length));
    } catch (error) {
      rows.free();
      throw error;
    }
  }

  get size() {
    return this.#core().length;
  }

  get info() {
    const { dimension, precision, rescore, modelId, length, byteLength } = this.#core();
    return Object.freeze({ dimension, precision, rescore, modelId, size: length, byteLength });
  }

  has(id) {
    this.#core();
    return this.#place().has(checkId(id, 'id'));
  }

  add(id, vector) {
    this.addMany([id], [vector]);
  }

  addMany(ids, vectors) {
    const core = this.#core();
    if (!Array.isArray(ids)) throw invalid(`ids is ${shown(ids)}; expected an array of strings or numbers.`);
    const { dimension } = core;
    const places = this.#place();
    const fresh = new Set();
    for (let index = 0; index < ids.length; index++) {
      const id = checkId(ids[index], `ids[${index}]`, index);
      if (places.has(id) || fresh.has(id)) {
        throw invalid(`ids[${index}] is ${shown(id)}, which ${places.has(id)
          ? 'the index has already; change it with update()' : 'comes twice'}.`, { index });
      }
      fresh.add(id);
    }
    const flat = vectors instanceof Float32Array;
    if (!flat && !Array.isArray(vectors)) {
      throw invalid(`vectors is ${shown(vectors)}; expected a Float32Array, or an array of them.`);
    }
    if (flat ? vectors.length !== ids.length * dimension : vectors.length !== ids.length) {
      throw invalid(`${ids.length} ids, but ${vectors.length} ${flat ? 'values' : 'vectors'}; expected ${
        flat ? `${ids.length} × ${dimension} values` : 'as many vectors'}.`);
    }
    if (!flat) vectors.forEach((vector, index) => checkVector(vector, `vectors[${index}]`, dimension, index));
    this.#append([...fresh], vectors, flat);
  }

  /** Appends checked ids with their vectors, or changes nothing. */
  #append(ids, vectors, flat) {
    const core = this.#core();
    const { dimension } = core;
    const first = core.rows;
    try {
      for (let from = 0; from < ids.length; from += ROWS_AT_ONCE) {
        const to = Math.min(from + ROWS_AT_ONCE, ids.length);
        let part;
        if (flat) {
          part = vectors.subarray(from * dimension, to * dimension);
        } else {
          part = new Float32Array((to - from) * dimension);
          for (let i = from; i < to; i++) part.set(vectors[i], (i - from) * dimension);
        }
        naming(from, () => core.add(part));
      }
    } catch (error) {
      for (let row = first; row < core.rows; row++) core.remove(row);
      while (this.#ids.length < core.rows) this.#ids.push(undefined);
      throw error;
    }
    const places = this.#place();
    for (const id of ids) {
      places.set(id, this.#ids.length);
      this.#ids.push(id);
    }
  }

  update(id, vector) {
    const core = this.#core();
    const row = this.#place().get(checkId(id, 'id'));
    if (row === undefined) throw invalid(`The index has no id ${shown(id)}; take it in with add().`);
    checkVector(vector, 'The vector', core.dimension);
    coded(() => core.update(row, vector));
  }

  remove(ids) {
    const core = this.#core();
    const places = this.#place();
    let removed = 0;
    const list = Array.isArray(ids) ? ids.map((id, index) => checkId(id, `ids[${index}]`, index)) : [checkId(ids, 'id')];
    for (const id of list) {
      const row = places.get(id);
      if (row === undefined) continue;
      core.remove(row);
      this.#ids[row] = undefined;
      places.delete(id);
      removed++;
    }
    const dead = this.#ids.length - core.length;
    if (dead > FEW && dead * 4 > this.#ids.length) {
      core.compact();
      this.#ids = this.#ids.filter((id) => id !== undefined);
      this.#places = undefined;
    }
    return removed;
  }

  clear() {
    this.#core().clear();
    this.#ids = [];
    this.#places = undefined;
  }

  search(query, options = {}) {
    const core = this.#core();
    const { topK = 10, minScore, filter } = objectOf(options, 'options');
    checkVector(query, 'The query', core.dimension);
    if (!(topK === Infinity || (Number.isInteger(topK) && topK >= 0))) {
      throw invalid(`topK is ${shown(topK)}; expected a whole number of at least 0.`);
    }
    if (minScore !== undefined && (typeof minScore !== 'number' || Number.isNaN(minScore))) {
      throw invalid(`minScore is ${shown(minScore)}; expected a number.`);
    }
    if (filter !== undefined && typeof filter !== 'function') {
      throw invalid(`filter is ${shown(filter)}; expected a function of an id.`);
    }
    const mask = filter && this.#mask(filter);
    const ids = this.#ids;
    // A filter may have changed the index.
    if (mask && mask.length !== ids.length) throw invalid('filter changed the index; let it only look.');
    const { rows, scores } = coded(() => core.search(query, topK, minScore, mask));
    return Array.from(rows, (row, i) => ({ id: ids[row], score: scores[i] }));
  }

  #mask(filter) {
    const ids = this.#ids;
    const mask = new Uint8Array(ids.length);
    for (let row = 0; row < mask.length; row++) {
      if (ids[row] === undefined) continue;
      let keep;
      try {
        keep = filter(ids[row]);
      } catch (cause) {
        throw new MunjangError('input_invalid', `filter threw for id ${shown(ids[row])}: ${cause?.message ?? cause}`, { cause });
      }
      if (typeof keep?.then === 'function') {
        throw invalid('filter gave a promise; it must answer at once with true or false.');
      }
      mask[row] = keep ? 1 : 0;
    }
    return mask;
  }

  toBytes() {
    const core = this.#core();
    return coded(() => core.toBytes(JSON.stringify(this.#ids.filter((id) => id !== undefined))));
  }

  dispose() {
    this.#rows?.free();
    this.#rows = undefined;
    this.#ids = [];
    this.#places = undefined;
  }

  #core() {
    if (this.#rows) return this.#rows;
    throw new MunjangError('disposed', 'This index was disposed; make another with VectorIndex.create().');
  }

  #place() {
    if (!this.#places) {
      this.#places = new Map();
      this.#ids.forEach((id, row) => {
        if (id !== undefined) this.#places.set(id, row);
      });
    }
    return this.#places;
  }
}

// Where the engine has it (esnext.disposable).
if (Symbol.dispose) VectorIndex.prototype[Symbol.dispose] = VectorIndex.prototype.dispose;

const invalid = (message, details) => new MunjangError('input_invalid', message, details);

/** Runs `call`; the vector that its error names is counted from `first`. */
function naming(first, call) {
  try {
    coded(call);
  } catch (error) {
    const index = /^vector (\d+)\b/.exec(error.message);
    if (error.code !== 'input_invalid' || !index) throw error;
    const at = first + Number(index[1]);
    throw new MunjangError(error.code, error.message.replace(index[0], `vectors[${at}]`), { cause: error, index: at });
  }
}

function readIds(json, count) {
  let ids;
  try {
    // A file that was written natively may have no ids: rows are numbered.
    ids = JSON.parse(json) ?? Array.from({ length: count }, (_, row) => row);
    if (!Array.isArray(ids) || ids.length !== count || new Set(ids).size !== count) throw new Error('not one id for each vector');
    ids.forEach((id, index) => checkId(id, `ids[${index}]`, index));
  } catch (cause) {
    throw new MunjangError('index_invalid', `The index file contradicts itself (its ids: ${cause?.message ?? cause}): build the `
      + 'index again.', { cause });
  }
  return ids;
}

function checkModelId(modelId) {
  if (modelId === undefined || typeof modelId === 'string') return;
  throw invalid(`modelId is ${shown(modelId)}; expected encoder.info.modelId.`);
}

function checkId(id, name, index) {
  // -0 is 0, as for a Map.
  if (typeof id === 'number' && Number.isFinite(id)) return id + 0;
  if (typeof id === 'string') return id;
  throw invalid(`${name} is ${shown(id)}; expected a string or a finite number.`, index === undefined ? {} : { index });
}

function checkVector(vector, name, dimension, index) {
  if (vector instanceof Float32Array && vector.length === dimension) return;
  throw invalid(`${name} is ${vector instanceof Float32Array ? `a vector of ${vector.length} values` : shown(vector)
  }; expected a Float32Array of ${dimension}.`, index === undefined ? {} : { index });
}

function objectOf(options, name) {
  if (typeof options === 'object' && options !== null) return options;
  throw invalid(`${name} is ${shown(options)}; expected an object.`);
}

function shown(value) {
  if (typeof value === 'string') return JSON.stringify(value.length > 60 ? `${value.slice(0, 60)}…` : value);
  if (typeof value === 'object' && value !== null) return `an object (${value.constructor?.name ?? 'no class'})`;
  return typeof value === 'function' ? 'a function' : String(value);
}
