// How a model file comes in: manifest, cache, network or disk; every byte counted and checked.
import { cacheAvailable, deleteCached, readCached, writeCached } from './cache.js';
import { MunjangError, aborted, throwIfAborted } from './errors.js';
import { isNode, nodeModule } from './platform.js';

/** Nothing that munjang runs is near this; a server that announces more is wrong or hostile. */
const MAX_MODEL_BYTES = 2 ** 30;

/**
 * @typedef {object} ModelSource
 * @property {string} url absolute address of a model file, or of a manifest (`….json`)
 * @property {number} [bytes] size of the file, where known
 * @property {string} [sha256] its SHA-256 in lower-case hex, where known
 */

/**
 * Follows a manifest to its model file.
 * @param {ModelSource} source
 * @param {AbortSignal} [signal]
 * @returns {Promise<ModelSource>}
 */
async function resolveSource(source, signal) {
  if (source.bytes !== undefined || !new URL(source.url).pathname.endsWith('.json')) return source;
  const { chunks } = await openUrl(source.url, 'model manifest', signal);
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
  return { url: new URL(file, source.url).href, bytes, sha256 };
}

/**
 * Brings a model file into the instance's memory, checks it and makes the encoder.
 *
 * @param {Promise<{ glue: any, memory: WebAssembly.Memory }>} wasm the module made by wasm-bindgen and
 *   its memory; may still be on its way, the model is asked for meanwhile
 * @param {ModelSource} given
 * @param {object} options
 * @param {boolean} options.cache whether to read and write the browser's cache
 * @param {boolean} [options.share] whether to return a copy of the bytes for other workers
 * @param {AbortSignal} [options.signal]
 * @param {(progress: { loaded: number, total: number | null }) => void} options.onProgress
 * @returns {Promise<{ encoder: any, source: 'network' | 'cache' | 'file', shared?: ArrayBuffer,
 *   keepCopy?: () => Promise<void>, which writes the file to the cache as long as the encoder lives,
 *   timings: { fetch: number, verify: number, model: number } }>}
 */
export async function loadModel(wasm, given, { cache, share, signal, onProgress }) {
  const source = await resolveSource(given, signal);
  const keep = cache && source.sha256 !== undefined && cacheAvailable();
  const total = source.bytes ?? null;
  if (total !== null) onProgress({ loaded: 0, total });
  if (keep) {
    const response = await readCached(source.sha256);
    if (response?.body) {
      try {
        // Bytes from the cache are reported once they are known to be good: if they are not,
        // the count of the download that follows must not start below them.
        const loaded = await receive(wasm, source, {
          chunks: response.body, length: total, share, keep: false, signal, onProgress: () => {} });
        onProgress({ loaded: total, total });
        return { ...loaded, source: 'cache' };
      } catch (error) {
        if (!['checksum_mismatch', 'download_truncated', 'not_a_model'].includes(error?.code)) throw error;
        await deleteCached(source.sha256);
      }
    }
  }
  const { chunks, length, place } = await openUrl(source.url, 'model', signal);
  try {
    const loaded = await receive(wasm, source, { chunks, length: total ?? length, share, keep, signal, onProgress });
    return { ...loaded, source: place };
  } catch (error) {
    // A download that nobody reads any more must not go on.
    void chunks.cancel?.().catch(() => {});
    throw error;
  }
}

/** Takes in one stream of bytes; see `loadModel`. */
async function receive(wasm, source, { chunks, length, share, keep, signal, onProgress }) {
  const { glue, memory } = await wasm;
  const started = performance.now();
  let loaded = 0;
  const each = (take) => drain(chunks, signal, () =>
    `the model at ${source.url} after ${loaded} of ${length ?? 'an unknown number of'} bytes`, take);
  let buffer;
  if (length === null) {
    // No total, so nothing can be reserved: collect first.
    const collected = [];
    await each((chunk) => {
      collected.push(chunk);
      loaded += chunk.byteLength;
      checkSize(loaded, source.url);
      onProgress({ loaded, total: null });
    });
    if (loaded === 0) throw truncated(source.url, 0, null);
    buffer = new glue.ModelBuffer(loaded);
    for (const chunk of collected) buffer.push(chunk);
    checkHead(view(memory, buffer), source.url);
    onProgress({ loaded, total: loaded });
  } else {
    checkSize(length, source.url);
    if (length === 0) throw truncated(source.url, 0, 0);
    buffer = new glue.ModelBuffer(length);
    try {
      let checked = false;
      await each((chunk) => {
        if (loaded + chunk.byteLength > length) {
          throw new MunjangError('checksum_mismatch', `More bytes came from ${source.url} than the ${length} `
            + 'that were announced. Serve the file as it is, without transforming it; give a manifest if it is compressed.');
        }
        buffer.push(chunk);
        loaded += chunk.byteLength;
        if (!checked && loaded >= HEAD) {
          checkHead(view(memory, buffer), source.url);
          checked = true;
        }
        // The event that says "all of it" is sent once the bytes are known to be right.
        if (loaded < length) onProgress({ loaded, total: length });
      });
      if (!checked) checkHead(view(memory, buffer).subarray(0, loaded), source.url);
      if (loaded < length) throw truncated(source.url, loaded, length);
    } catch (error) {
      buffer.free();
      throw error;
    }
  }
  const received = performance.now();

  // The digest runs in another thread, on a copy, while the tokenizer and the tensors are being
  // checked here. The bytes stay where they are when `finish` makes them the encoder's.
  const bytes = view(memory, buffer);
  const [offset, size] = [bytes.byteOffset, bytes.byteLength];
  const digest = source.sha256 === undefined ? undefined : digestOf(buffer, bytes);
  const shared = share ? bytes.slice().buffer : undefined;
  const hashed = performance.now();
  let encoder;
  let failure;
  try {
    encoder = buffer.finish();
  } catch (error) {
    failure = error;
  }
  const ready = performance.now();
  if (digest !== undefined && (await digest) !== source.sha256) {
    // A trap in a damaged file would have left `failure` behind; the damage is the better news.
    encoder?.free();
    throw new MunjangError('checksum_mismatch', `The model from ${source.url} is damaged or not the one that `
      + 'the manifest names: its SHA-256 differs. Load it again; if it stays so, the files on the server do not belong together.');
  }
  if (failure) throw failure;
  throwIfAborted(signal);
  const verified = performance.now();
  // Of the memory as it is then: it may have grown.
  const keepCopy = keep
    ? () => writeCached(source.sha256, new Response(new Uint8Array(memory.buffer, offset, size),
      { headers: { 'content-type': 'application/octet-stream' } }))
    : undefined;
  if (length !== null) onProgress({ loaded, total: length });
  return {
    encoder,
    shared,
    keepCopy,
    timings: { fetch: received - started, model: ready - hashed, verify: hashed - received + (verified - ready) },
  };
}

const view = (memory, buffer) => new Uint8Array(memory.buffer, buffer.offset, buffer.total);

async function digestOf(buffer, bytes) {
  // Only secure contexts have crypto.subtle; a page on plain http does not.
  if (!globalThis.crypto?.subtle) return buffer.sha256();
  const digest = await crypto.subtle.digest('SHA-256', bytes);
  return Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, '0')).join('');
}

function checkSize(bytes, url) {
  if (bytes > MAX_MODEL_BYTES) {
    throw new MunjangError('not_a_model', `The file at ${url} has ${bytes} bytes or more; a model has at most ${
      MAX_MODEL_BYTES}. Check the address.`);
  }
}

const truncated = (url, loaded, total) => new MunjangError('download_truncated',
  `The download of ${url} ended after ${loaded} of ${total ?? 'an unknown number of'} bytes. Load it again.`);

const HEAD = 9;
const looksLikeHtml = (text) => /^\s*<(!doctype|!--|html|head|body|\?xml)/i.test(text);

/** A model file begins with the length of its JSON header (eight bytes, little-endian) and `{`. */
function checkHead(bytes, url) {
  if (bytes.length >= HEAD && bytes[4] === 0 && bytes[5] === 0 && bytes[6] === 0 && bytes[7] === 0
    && bytes[8] === 0x7b) return;
  const start = new TextDecoder().decode(bytes.slice(0, 64));
  throw new MunjangError('not_a_model', looksLikeHtml(start)
    ? `An HTML page came from ${url} instead of a model. The server answers unknown addresses with a page: check the address.`
    : `What came from ${url} is not a model file. Check the address.`);
}

/**
 * Hands every chunk of a stream to `take` until it returns false, with failures named and the signal
 * obeyed. A plain loop: a file comes in hundreds of chunks, and generators around generators cost more
 * than the chunks.
 */
async function drain(chunks, signal, what, take) {
  // Not every browser can iterate a ReadableStream.
  const reader = chunks.getReader?.();
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
 * @returns {Promise<{ chunks: any, length: number | null, place: 'network' | 'file' }>}
 */
async function openUrl(url, what, signal) {
  throwIfAborted(signal);
  if (isNode && url.startsWith('file:')) return openFile(url, what);
  let response;
  try {
    response = await fetch(url, { signal });
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
  // With a content encoding the header counts the compressed bytes.
  const header = response.headers.get('content-encoding') ? null : response.headers.get('content-length');
  const length = header === null || !/^\d+$/.test(header) ? null : Number(header);
  return { chunks: response.body, length, place: 'network' };
}

async function openFile(url, what) {
  const [{ open, stat }, { fileURLToPath }] = await Promise.all([nodeModule('node:fs/promises'), nodeModule('node:url')]);
  const path = fileURLToPath(url);
  try {
    const { size } = await stat(path);
    return { chunks: readFile(open, path, what), length: size, place: 'file' };
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
