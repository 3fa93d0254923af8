// What callers may pass: checked once, here, so that a wrong option is a MunjangError that names it.
import { MunjangError } from './errors.js';

/** Only its first few hundred words count, and a copy of it must fit into the instance's memory. */
const MAX_TEXT_LENGTH = 2 ** 24;

const isObject = (value) => (typeof value === 'object' && value !== null) || typeof value === 'function';

/** How a value is called in a message. */
export function kindOf(value) {
  if (value === null) return 'null';
  if (value === undefined) return 'undefined';
  if (typeof value === 'number' || typeof value === 'boolean') return String(value);
  if (typeof value === 'string') return JSON.stringify(value.slice(0, 80));
  return typeof value === 'object' ? `an object (${tagOf(value)})` : `a ${typeof value}`;
}

function tagOf(value) {
  try {
    return String(value.constructor?.name || 'no class');
  } catch {
    return 'no class';
  }
}

const wrong = (name, value, expected) =>
  new MunjangError('input_invalid', `${name} is ${kindOf(value)}; expected ${expected}.`);

/** Options as an object; `undefined` counts as none. */
function checkObject(options, name) {
  if (options === undefined) return {};
  if (!isObject(options)) throw wrong(name, options, 'an object of options');
  return options;
}

/** By what it can do, not by its class: it may be of another realm, or a polyfill. `null` counts as left out, as in fetch. */
function checkSignal(signal) {
  if (signal === undefined || signal === null) return undefined;
  if (isObject(signal) && typeof signal.aborted === 'boolean' && typeof signal.addEventListener === 'function') return signal;
  throw wrong('signal', signal, 'an AbortSignal');
}

function checkFunction(value, name) {
  if (value === undefined || value === null) return undefined;
  if (typeof value === 'function') return value;
  throw wrong(name, value, 'a function');
}

function checkBoolean(value, name, otherwise) {
  if (value === undefined) return otherwise;
  if (typeof value === 'boolean') return value;
  throw wrong(name, value, 'true or false');
}

/** A string or a URL, of whatever realm, as a string. */
function checkAddress(value, name) {
  if (value === undefined || typeof value === 'string') return value;
  if (isObject(value) && typeof value.href === 'string') return value.href;
  throw wrong(name, value, 'a string or a URL');
}

/** The options of a call. */
export function checkCallOptions(given) {
  const { signal, onProgress } = checkObject(given, 'options');
  return { signal: checkSignal(signal), onProgress: checkFunction(onProgress, 'onProgress') };
}

/** The options of `encode`. */
export function checkEncodeOptions(given) {
  const options = checkObject(given, 'options');
  return { ...checkCallOptions(options), flat: checkBoolean(options.flat, 'flat', false) };
}

/** The address of a model, from the options of `isCached`. */
export function checkModelUrl(given) {
  return checkAddress(checkObject(given, 'options').modelUrl, 'modelUrl');
}

/** The options of `loadEncoder`, with their defaults. */
export function checkLoadOptions(given) {
  const options = checkObject(given, 'options');
  const { workers, build } = options;
  const checked = {
    ...checkCallOptions(options),
    modelUrl: checkAddress(options.modelUrl, 'modelUrl'),
    wasmUrl: checkAddress(options.wasmUrl, 'wasmUrl'),
    workerUrl: checkAddress(options.workerUrl, 'workerUrl'),
    createWorker: checkFunction(options.createWorker, 'createWorker'),
    worker: checkBoolean(options.worker, 'worker', true),
    cache: checkBoolean(options.cache, 'cache', true),
    workers,
    build,
  };
  if (workers !== undefined && !(Number.isInteger(workers) && workers >= 1 && workers <= 64)) {
    throw wrong('workers', workers, 'a whole number from 1 to 64');
  }
  if (build !== undefined && build !== 'simd128' && build !== 'relaxed') {
    throw wrong('build', build, "'simd128' or 'relaxed'");
  }
  if (!checked.worker && workers > 1) {
    throw new MunjangError('input_invalid', `workers is ${workers}, but worker is false; leave one of the two out.`);
  }
  if (!checked.worker && (checked.workerUrl !== undefined || checked.createWorker)) {
    throw new MunjangError('input_invalid', 'worker is false, but a worker was described; leave one of the two out.');
  }
  return checked;
}

/** So many characters the core reads of a text at most. */
const MOST_CHARS = 2 ** 19;

/**
 * What the core will read of a text, and one character more, so that it knows that there was more: a copy of all of
 * a huge text in memory that never shrinks would cost more than the model.
 */
export function readable(text) {
  if (text.length <= MOST_CHARS) return text;
  let end = 0;
  for (let chars = 0; chars <= MOST_CHARS && end < text.length; chars++) end += text.codePointAt(end) > 0xffff ? 2 : 1;
  return text.slice(0, end);
}

/** An iterator over texts that come one by one, now or later. */
export function iteratorOf(source) {
  // A string is one text, not its characters.
  const make = isObject(source) ? (source[Symbol.asyncIterator] ?? source[Symbol.iterator]) : undefined;
  if (typeof make === 'function') return make.call(source);
  throw wrong('texts', source, 'something to iterate over (an array, a generator, a stream)');
}

/** The texts of a call as an array of its own, so that later changes to the caller's do no harm. */
export function textsOf(input) {
  if (typeof input === 'string') return [checkText(input)];
  if (!Array.isArray(input)) {
    throw new MunjangError('input_invalid', `Expected a string or an array of strings, not ${kindOf(input)}.`);
  }
  const texts = input.slice();
  for (let index = 0; index < texts.length; index++) {
    if (typeof texts[index] === 'string') checkText(texts[index], index);
    else throw wrongElement(texts, index, 'a string');
  }
  return texts;
}

/** The text number `index` of a stream. */
export function checkStreamed(text, index) {
  if (typeof text === 'string') return checkText(text, index);
  throw new MunjangError('input_invalid', `texts[${index}] is ${kindOf(text)}; expected a string.`, { index });
}

const wrongElement = (list, index, expected) => new MunjangError('input_invalid', `texts[${index}] is ${
  index in list ? kindOf(list[index]) : 'a hole'}; expected ${expected}.`, { index });

function checkText(text, index) {
  if (text.length <= MAX_TEXT_LENGTH) return text;
  throw new MunjangError('input_invalid', `${index === undefined ? 'The text' : `texts[${index}]`} has ${
    text.length} characters; at most ${MAX_TEXT_LENGTH} are taken. Split it.`, { index });
}

/** Whether a value is a vector: of floats of whatever realm, or an array of numbers (as JSON brings them back). */
export const isVector = (value) => (ArrayBuffer.isView(value) ? FLOATS.has(Object.prototype.toString.call(value))
  : Array.isArray(value) && typeof value[0] === 'number');
const FLOATS = new Set(['[object Float32Array]', '[object Float64Array]']);

/**
 * An embedding of 32-bit floats of what `isVector` takes.
 * @param {ArrayLike<number>} vector
 * @param {number} length that it must have
 * @param {string} name for messages
 * @param {number} [index]
 * @returns {Float32Array}
 */
export function checkVector(vector, length, name, index) {
  const fail = (what) => {
    throw new MunjangError('input_invalid', `${name} is ${what}; expected an embedding of ${length} values.`, { index });
  };
  if (!isVector(vector)) fail(kindOf(vector));
  if (vector.length !== length) fail(`an embedding of ${vector.length} values`);
  if (Array.isArray(vector)) {
    const odd = vector.findIndex((value) => typeof value !== 'number');
    if (odd >= 0) fail(`an array in which value ${odd} is ${kindOf(vector[odd])}`);
  }
  return vector instanceof Float32Array ? vector : Float32Array.from(vector);
}

/**
 * One side of a similarity matrix: texts to encode and embeddings as they are, in any mixture.
 * @returns {{ length: number, texts: string[], places: number[], vectors: Float32Array[] }} `places[i]` is where
 *   the embedding of `texts[i]` belongs among the vectors
 */
export function sideOf(input, name, hiddenSize) {
  const list = typeof input === 'string' || isVector(input) ? [input] : input;
  if (!Array.isArray(list)) {
    throw new MunjangError('input_invalid', `${name} is ${kindOf(input)}; expected texts or embeddings.`);
  }
  const side = { length: list.length, texts: [], places: [], vectors: new Array(list.length) };
  for (let index = 0; index < list.length; index++) {
    const item = list[index];
    if (typeof item === 'string') {
      side.places.push(index);
      side.texts.push(checkText(item, index));
    } else if (isVector(item)) {
      side.vectors[index] = checkVector(item, hiddenSize, `${name}[${index}]`, index);
    } else {
      throw wrongElement(list, index, `a text or an embedding, in ${name}`);
    }
  }
  return side;
}
