// What callers may give to a SemanticIndex.
import { MunjangError } from './errors.js';
import { kindOf } from './options.js';

const MAX_TEXT_LENGTH = 2 ** 24;
const MAX_NAME_LENGTH = 200;
export const PRECISIONS = ['int8', 'float32', 'binary'];
const MODEL_ID = /^[0-9a-f]{16}$/;
/** Fewer characters than this do not hold a sentence; the encoder reads no more than this. */
const [LEAST_CHARS, MOST_CHARS] = [20, 10_000];

const invalid = (message, details) => new MunjangError('input_invalid', message, details);

export function checkName(name) {
  if (typeof name === 'string' && name.length > 0 && name.length <= MAX_NAME_LENGTH) return name;
  throw invalid(`The index's name is ${kindOf(name)}; expected a string of 1 to ${MAX_NAME_LENGTH} characters.`);
}

/** @param {any} encoder from `loadEncoder`, or anything like it */
export function checkEncoder(encoder) {
  const { modelId, hiddenSize } = encoder?.info ?? {};
  if (typeof encoder?.encode === 'function' && MODEL_ID.test(modelId) && Number.isInteger(hiddenSize) && hiddenSize > 0) return encoder;
  throw invalid('encoder is missing or no encoder: pass what loadEncoder() gives, as { encoder: await loadEncoder() }.');
}

/** @returns {{ persist: boolean, maxChars?: number, precision?: string, rebuild: boolean }} */
export function checkOpenOptions({ persist = false, passages, precision, rebuild = false }) {
  for (const [name, value] of Object.entries({ persist, rebuild })) {
    if (typeof value !== 'boolean') throw invalid(`${name} is ${kindOf(value)}; expected true or false.`);
  }
  const maxChars = passages?.maxChars;
  if (maxChars !== undefined && !(Number.isInteger(maxChars) && maxChars >= LEAST_CHARS && maxChars <= MOST_CHARS)) {
    throw invalid(`passages.maxChars is ${kindOf(maxChars)}; expected a whole number from ${LEAST_CHARS} to ${MOST_CHARS}.`);
  }
  if (precision !== undefined && !PRECISIONS.includes(precision)) {
    throw invalid(`precision is ${kindOf(precision)}; expected 'int8', 'float32' or 'binary'.`);
  }
  return { persist, maxChars, precision, rebuild };
}

/**
 * The documents of a call as they are now, the last one of each id; later changes to the caller's do no harm.
 * @param {unknown} input
 * @returns {{ id: string | number, text: string, json: string | undefined }[]}
 */
export function checkDocuments(input) {
  if (!Array.isArray(input)) throw invalid(`Expected an array of { id, text, data }, not ${kindOf(input)}.`);
  const items = new Map();
  for (let index = 0; index < input.length; index++) {
    const item = input[index];
    if (typeof item !== 'object' || item === null) {
      throw invalid(`documents[${index}] is ${kindOf(item)}; expected { id, text, data }.`, { index });
    }
    const id = checkId(item.id, `documents[${index}].id`, index);
    const { text, data } = item;
    if (typeof text !== 'string') {
      throw invalid(`documents[${index}].text is ${kindOf(text)}; expected a string.`, { index });
    }
    if (text.length > MAX_TEXT_LENGTH) {
      throw invalid(`documents[${index}].text has ${text.length} characters; at most ${MAX_TEXT_LENGTH} are taken. Split it.`, { index });
    }
    // The order is that of the last ones.
    items.delete(id);
    items.set(id, { id, text, json: asJson(data, index) });
  }
  return [...items.values()];
}

/** @param {unknown} input one id or several */
export function checkIds(input) {
  if (!Array.isArray(input)) return [checkId(input, 'id')];
  return [...new Set(Array.from(input, (id, index) => checkId(id, `ids[${index}]`, index)))];
}

export function checkId(id, name, index) {
  // -0 is 0, as for a Map.
  if (typeof id === 'number' && Number.isFinite(id)) return id + 0;
  if (typeof id === 'string') return id;
  throw invalid(`${name} is ${kindOf(id)}; expected a string or a finite number.`, index === undefined ? {} : { index });
}

/** @param {unknown} bytes a file's */
export function checkBytes(bytes) {
  // Of whatever realm.
  const tag = Object.prototype.toString.call(bytes);
  if (tag === '[object Uint8Array]') return bytes;
  if (tag === '[object ArrayBuffer]') return new Uint8Array(bytes);
  throw invalid(`The index is ${kindOf(bytes)}; expected a Uint8Array or an ArrayBuffer, as from toBytes().`);
}

/**
 * The documents of a file as JSON. One that `munjang` wrote may lack ids, and has its data beside the text.
 * @param {string} json
 * @returns {{ id: string | number, text: string, data: unknown }[]}
 */
export function documentsOf(json) {
  const seen = new Set();
  return JSON.parse(json).map(({ id: given, text, data: own, ...rest }, number) => {
    const id = given ?? number;
    if ((typeof id !== 'string' && typeof id !== 'number') || seen.has(id)) {
      throw new MunjangError('index_invalid', `Document ${number} of the index has ${seen.has(id) ? 'the id of another one' : 'no id'}: ${
        kindOf(id)}. Make the file again.`);
    }
    seen.add(id);
    return { id, text, data: own === undefined && Object.keys(rest).length > 0 ? rest : own };
  });
}

function asJson(data, index) {
  if (data === undefined) return undefined;
  try {
    const json = JSON.stringify(data);
    if (json !== undefined) return json;
  } catch (cause) {
    throw invalid(`documents[${index}].data cannot be kept as JSON: ${cause?.message ?? cause}`, { cause, index });
  }
  throw invalid(`documents[${index}].data is ${kindOf(data)}; expected what JSON can hold.`, { index });
}

/** @returns {{ topK: number, minScore?: number, semantic: number, filter?: Function }} */
export function checkSearch(query, { topK = 10, minScore, filter, semantic = 0.4 }) {
  if (typeof query !== 'string') throw invalid(`The query is ${kindOf(query)}; expected a string.`);
  if (query.length > MAX_TEXT_LENGTH) {
    throw invalid(`The query has ${query.length} characters; at most ${MAX_TEXT_LENGTH} are taken.`);
  }
  if (!(topK === Infinity || (Number.isInteger(topK) && topK >= 0))) {
    throw invalid(`topK is ${kindOf(topK)}; expected a whole number of at least 0.`);
  }
  if (minScore !== undefined && (typeof minScore !== 'number' || Number.isNaN(minScore))) {
    throw invalid(`minScore is ${kindOf(minScore)}; expected a number.`);
  }
  if (!(typeof semantic === 'number' && semantic >= 0 && semantic <= 1)) {
    throw invalid(`semantic is ${kindOf(semantic)}; expected a number from 0 (words alone) to 1 (meaning alone).`);
  }
  if (filter !== undefined && typeof filter !== 'function') {
    throw invalid(`filter is ${kindOf(filter)}; expected a function of { id, text, data }.`);
  }
  return { topK, minScore, semantic, filter: filter && guarded(filter) };
}

/** A filter whose failure says whose it is. */
const guarded = (filter) => (view) => {
  let wanted;
  try {
    wanted = filter(view);
  } catch (cause) {
    throw invalid(`The filter failed on the document ${kindOf(view.id)}: ${cause?.message ?? cause}`, { cause });
  }
  if (typeof wanted?.then !== 'function') return wanted;
  throw invalid('The filter gave a promise, which would let everything through; it must answer at once.');
};
