// How a model file comes in: manifest, cache, network or disk; every byte counted, the first ones looked
// at. This runs where the caller is, so that the file is on its way before the worker has started; the
// worker takes its pieces as they come, and checks the whole (runtime.js).
import { cacheAvailable, deleteCached, noteUse, readCached } from './cache.js';
import { isNode, nodeModule } from './environment.js';
import { MunjangError, aborted, throwIfAborted } from './errors.js';

/** Nothing that munjang runs is near this; a server that announces more is wrong or hostile. */
const MAX_MODEL_BYTES = 2 ** 30;

/**
 * @typedef {object} ModelSource
 * @property {string} url absolute address of a model file, or of a manifest (`….json`)
 * @property {number} [bytes] size of the file, where known
 * @property {string} [sha256] its SHA-256 in lower-case hex, where known
 * @property {{ bytes: number, sha256: string[] }} [pieces] the SHA-256 of each so many bytes of it, the last
 *   piece being shorter; these can be checked while the rest is on its way
 */

/**
 * Follows a manifest to its model file.
 * @param {ModelSource} source
 * @param {AbortSignal} [signal]
 * @returns {Promise<ModelSource>}
 */
async function resolveSource(source, signal) {
  if (source.bytes !== undefined || !new URL(source.url).pathname.endsWith('.json')) return source;
  const { chunks, url } = await openUrl(source.url, 'model manifest', signal);
  const decoder = new TextDecoder();
  let text = '';
  await drain(chunks, signal, () => `the manifest at ${source.url}`, (chunk) => {
    text += decoder.decode(chunk, { stream: true });
    return text.length <= 1e6;
  });
  let manifest;
  try {
    manifest = JSON.parse(text);
  } catch (cause) {
    throw new MunjangError('not_a_model', `What came from ${source.url} is not a model manifest: it is ${
      looksLikeHtml(text) ? 'an HTML page' : 'not JSON'}. Check the address.`, { cause });
  }
  const { file, bytes, sha256 } = manifest ?? {};
  if (typeof file !== 'string' || !Number.isSafeInteger(bytes) || bytes < 1
    || typeof sha256 !== 'string' || !/^[0-9a-f]{64}$/.test(sha256)) {
    throw new MunjangError('not_a_model', `The manifest at ${source.url} is not a model's: expected `
      + '{ file, bytes, sha256 (64 lower-case hex digits) }.');
  }
  return { url: beside(url, file), bytes, sha256 };
}

/**
 * The address of a file that a manifest names: one beside it, wherever it came from. A path or an address would let
 * a manifest choose a server, or a file of this machine.
 * @param {string} url of the manifest, after redirects
 * @param {string} name as it is on the disk, not encoded
 */
function beside(url, name) {
  try {
    if (!/^(?!\.{1,2}$)[^/\\\0]+$/.test(name)) throw new Error('it is a path');
    return new URL(encodeURIComponent(name), url).href;
  } catch (cause) {
    throw new MunjangError('not_a_model', `The manifest at ${url} names the file ${JSON.stringify(name.slice(0, 200))}; expected the `
      + 'name of a file beside it, without any path.', { cause });
  }
}

/**
 * Whether a model lies in the browser's cache, so that loading it needs no network beyond its manifest.
 * @param {ModelSource} given
 * @returns {Promise<boolean>}
 */
export async function isKept(given) {
  const { sha256 } = await resolveSource(given);
  return sha256 !== undefined && await readCached(sha256) !== undefined;
}

/**
 * A model file that has begun to come.
 * @typedef {object} OpenModel
 * @property {ModelSource} source
 * @property {any} chunks a stream's reader, or something iterable
 * @property {number | null} length bytes of the file, where known
 * @property {boolean} [ends] whether no more than `length` can come, as the answer's own header says
 * @property {'network' | 'cache' | 'file'} place
 * @property {boolean} keep whether the cache lacks it and can have it
 */

/**
 * Asks for a model file; its manifest and the cache are looked at first.
 * @param {ModelSource} given
 * @param {boolean} cache whether to read and write the browser's cache
 * @param {AbortSignal} [signal]
 * @returns {Promise<OpenModel>}
 */
export async function openModel(given, cache, signal) {
  const source = await resolveSource(given, signal);
  const keep = cache && source.sha256 !== undefined && cacheAvailable();
  const kept = keep ? await readCached(source.sha256) : undefined;
  if (kept?.body) {
    return { source, chunks: kept.body.getReader(), length: source.bytes, place: 'cache', keep: false };
  }
  return openNetwork(source, keep, signal);
}

async function openNetwork(source, keep, signal) {
  const { chunks, length, place } = await openUrl(source.url, 'model', signal, keep);
  const expected = source.bytes ?? length;
  return { source, chunks, length: expected, ends: length !== null && length === expected, place, keep };
}

/**
 * Hands a model file to a runtime, piece by piece, with progress. What was bad in the cache is deleted
 * and fetched once more.
 *
 * @template T
 * @param {OpenModel} model
 * @param {object} runtime
 * @param {(file: { url: string, bytes: number, sha256?: string, pieces?: object, keep: boolean }) => Promise<T>} runtime.load
 *   begins a file, and resolves when all of it is there and has been found good; a later call supersedes an
 *   earlier one
 * @param {(chunk: Uint8Array) => void} runtime.take takes the file's next bytes, for good
 * @param {AbortSignal} [signal]
 * @param {(progress: { loaded: number, total: number | null }) => void} [onProgress]
 * @returns {Promise<T & { source: 'network' | 'cache' | 'file' }>}
 */
export async function sendModel(model, runtime, signal, onProgress = () => {}) {
  const { sha256 } = model.source;
  // Its own entry may be on its way yet; the others' are looked at.
  if (model.keep || model.place === 'cache') void noteUse(sha256);
  const total = model.source.bytes ?? null;
  if (total !== null) onProgress({ loaded: 0, total });
  if (model.place === 'cache') {
    try {
      // Bytes from the cache are reported once they are known to be good: if they are not, the count
      // of the download that follows must not start below them.
      const loaded = await send(model, runtime, signal, () => {});
      onProgress({ loaded: total, total });
      return loaded;
    } catch (error) {
      if (!['checksum_mismatch', 'download_truncated', 'not_a_model'].includes(error?.code)) throw error;
      await deleteCached(model.source.sha256);
      model = await openNetwork(model.source, true, signal);
    }
  }
  return send(model, runtime, signal, onProgress);
}

/** Hands over one stream of bytes; see `sendModel`. */
async function send({ source, chunks, length, ends, place, keep }, runtime, signal, onProgress) {
  const { url } = source;
  let loaded = 0;
  let over = false;
  /** The first bytes. */
  let head = new Uint8Array(0);
  const begin = (bytes) => {
    const loading = runtime.load({ url, bytes, sha256: source.sha256, pieces: source.pieces, keep });
    // If the stream fails first, this failure must not count as unhandled.
    loading.catch(() => {});
    return loading;
  };
  /** Takes note of a chunk: how much there is, and whether it is a model that begins here. */
  const note = (chunk) => {
    loaded += chunk.byteLength;
    if (head.length < HEAD) {
      head = joined([head, chunk.subarray(0, HEAD_SHOWN)]);
      if (head.length >= HEAD) checkHead(head, url);
    }
  };
  const each = (take) => drain(chunks, signal, () =>
    `the model at ${url} after ${loaded} of ${length ?? 'an unknown number of'} bytes`, (chunk) => !over && take(chunk));

  const all = async () => {
    if (length === null) {
      // No total, so no memory can be reserved: collect first.
      const collected = [];
      await each((chunk) => {
        note(chunk);
        checkSize(loaded, url);
        collected.push(chunk);
        onProgress({ loaded, total: null });
      });
      if (loaded === 0) throw truncated(url, 0, null);
      if (head.length < HEAD) checkHead(head, url);
      const loading = begin(loaded);
      for (const chunk of collected) runtime.take(chunk);
      onProgress({ loaded, total: loaded });
      return loading;
    }
    checkSize(length, url);
    if (length === 0) throw truncated(url, 0, 0);
    const loading = begin(length);
    const sending = each((chunk) => {
      if (loaded + chunk.byteLength > length) {
        throw new MunjangError('checksum_mismatch', `More bytes came from ${url} than the ${length} `
          + 'that were announced. Serve the file as it is, without transforming it; give a manifest if it is compressed.');
      }
      note(chunk);
      runtime.take(chunk);
      // The event that says "all of it" is sent once the bytes are known to be right.
      if (loaded < length) onProgress({ loaded, total: length });
    }).then(() => {
      if (head.length < HEAD) checkHead(head, url);
      if (loaded < length) throw truncated(url, loaded, length);
      return loading;
    });
    // The runtime may fail before the last byte; then the rest is not waited for. Nor is the stream's end, once
    // all bytes are there and good: browsers announce it when they have done with their own copy.
    sending.catch(() => {});
    return Promise.race([sending, loading.then((result) => (ends && loaded === length ? result : sending))]);
  };
  try {
    const result = await all();
    if (length !== null && place !== 'cache') onProgress({ loaded, total: length });
    return { ...result, source: place };
  } finally {
    // A download that nobody reads any more must not go on; one that has only its end to come may.
    if (!ends || loaded !== length) {
      over = true;
      void chunks.cancel?.().catch(() => {});
    }
  }
}

function checkSize(bytes, url) {
  if (bytes > MAX_MODEL_BYTES) {
    throw new MunjangError('not_a_model', `The file at ${url} has ${bytes} bytes or more; a model has at most ${
      MAX_MODEL_BYTES}. Check the address.`);
  }
}

const truncated = (url, loaded, total) => new MunjangError('download_truncated',
  `The download of ${url} ended after ${loaded} of ${total ?? 'an unknown number of'} bytes. Load it again.`);

/** Bytes that tell a model file. */
const HEAD = 9;
/** Bytes that are looked at if it is none. */
const HEAD_SHOWN = 64;
const looksLikeHtml = (text) => /^\s*<(!doctype|!--|html|head|body|\?xml)/i.test(text);

/** A model file begins with the length of its JSON header (eight bytes, little-endian) and `{`. */
function checkHead(bytes, url) {
  if (bytes.length >= HEAD && bytes[4] === 0 && bytes[5] === 0 && bytes[6] === 0 && bytes[7] === 0
    && bytes[8] === 0x7b) return;
  const start = new TextDecoder().decode(bytes.slice(0, HEAD_SHOWN));
  throw new MunjangError('not_a_model', looksLikeHtml(start)
    ? `An HTML page came from ${url} instead of a model. The server answers unknown addresses with a page: check the address.`
    : `What came from ${url} is not a model file. Check the address.`);
}

/** @param {Uint8Array[]} parts */
function joined(parts) {
  const all = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

/**
 * Hands every chunk (of a stream's reader, or of something iterable) to `take` until it returns false,
 * with failures named and the signal obeyed. A plain loop: a file comes in hundreds of chunks, and
 * generators around generators cost more than the chunks.
 */
async function drain(chunks, signal, what, take) {
  const reader = chunks.read ? chunks : undefined;
  let ended = false;
  let thrown;
  const give = (chunk) => {
    throwIfAborted(signal);
    try {
      return take(chunk);
    } catch (error) {
      thrown = error;
      throw error;
    }
  };
  try {
    if (reader) {
      for (;;) {
        const { done, value } = await reader.read();
        ended = done;
        if (done || give(value) === false) break;
      }
    } else {
      for await (const chunk of chunks) if (give(chunk) === false) break;
    }
  } catch (cause) {
    if (signal?.aborted) throw aborted(signal.reason);
    if (cause === thrown || cause instanceof MunjangError) throw cause;
    throw new MunjangError('download_truncated', `The connection was lost while reading ${what()}. Load it again.`,
      { cause });
  } finally {
    // Leaving early must also stop the download.
    if (reader && !ended) void reader.cancel().catch(() => {});
  }
}

/**
 * Opens an address for reading.
 * @param {string} url
 * @param {string} what
 * @param {AbortSignal} [signal]
 * @param {boolean} [keep] it goes into a cache of our own: a second copy in the browser's would cost as much
 *   again on disk, and writing that one holds up the bytes
 * @returns {Promise<{ chunks: any, length: number | null, place: 'network' | 'file', url: string }>} `url` after redirects
 */
async function openUrl(url, what, signal, keep = false) {
  throwIfAborted(signal);
  if (isNode && url.startsWith('file:')) return openFile(url, what);
  let response;
  try {
    response = await fetch(url, { signal, cache: keep ? 'no-store' : 'default' });
  } catch (cause) {
    if (signal?.aborted) throw aborted(signal.reason);
    throw new MunjangError('network', `The ${what} at ${url} could not be reached: ${cause?.message ?? cause}. `
      + 'Check the connection, the address and, for another origin, its CORS headers.', { cause });
  }
  if (!response.ok || !response.body) {
    void response.body?.cancel().catch(() => {});
    const missing = response.status === 404 || response.status === 410;
    throw new MunjangError(missing ? 'model_not_found' : 'http_error',
      `The server answered ${response.status} for the ${what} at ${url}. ${
        missing ? 'Check the address.' : 'Try again later.'}`);
  }
  if (/^text\/html\b/i.test(response.headers.get('content-type') ?? '')) {
    void response.body.cancel().catch(() => {});
    throw new MunjangError('not_a_model', `An HTML page came from ${url} instead of the ${what}. `
      + 'The server answers unknown addresses with a page: check the address.');
  }
  // With a content encoding the header counts the compressed bytes; from another origin it cannot be seen whether
  // there is one.
  const opaque = response.type === 'cors' && response.headers.get('content-encoding') === null;
  const header = opaque || response.headers.get('content-encoding') ? null : response.headers.get('content-length');
  const length = header === null || !/^\d+$/.test(header) ? null : Number(header);
  // The reader at once, not the stream: Node cancels one that nobody has locked when its response is
  // collected as garbage.
  return { chunks: response.body.getReader(), length, place: 'network', url: response.url || url };
}

async function openFile(url, what) {
  const [{ open, stat }, { fileURLToPath }] = await Promise.all([nodeModule('node:fs/promises'), nodeModule('node:url')]);
  let path = url;
  try {
    path = fileURLToPath(url);
    const { size } = await stat(path);
    return { chunks: readFile(open, path, what), length: size, place: 'file', url };
  } catch (cause) {
    if (cause?.code === 'ENOENT') {
      throw new MunjangError('model_not_found', `There is no ${what} at ${path}. Check the path.`, { cause });
    }
    throw unreadable(what, path, cause);
  }
}

const unreadable = (what, path, cause) =>
  new MunjangError('io', `The ${what} at ${path} cannot be read: ${cause?.message ?? cause}.`, { cause });

/** Opens the file when its first bytes are asked for, so that nothing is left open otherwise. */
async function* readFile(open, path, what) {
  let file;
  try {
    file = await open(path);
    const chunk = new Uint8Array(1 << 20);
    for (;;) {
      const { bytesRead } = await file.read(chunk, 0, chunk.length);
      if (bytesRead === 0) return;
      yield chunk.slice(0, bytesRead);
    }
  } catch (cause) {
    throw unreadable(what, path, cause);
  } finally {
    await file?.close();
  }
}
