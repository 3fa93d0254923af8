// What both sides need, the caller's and the worker's: errors, what differs between browsers and Node, and the
// cache.

/**
 * The package's one error type. `code` is stable within a major version; README.md lists all codes
 * with what to do. Codes of the core (`weights_malformed`, …) pass through unchanged.
 */
export class MunjangError extends Error {
  /**
   * @param {string} code
   * @param {string} message
   * @param {{ cause?: unknown, index?: number }} [details] `index`: the input that was at fault.
   */
  constructor(code, message, details = {}) {
    super(message, 'cause' in details ? { cause: details.cause } : undefined);
    // Code written for fetch tests for the name "AbortError"; keep that working.
    this.name = code === 'aborted' ? 'AbortError' : 'MunjangError';
    this.code = code;
    if (details.index !== undefined) this.index = details.index;
  }
}

/** @param {unknown} reason what the caller gave to `abort()` */
export const aborted = (reason) =>
  new MunjangError('aborted', 'The call was aborted by its signal.', { cause: reason });

/** @param {AbortSignal | undefined} signal */
export function throwIfAborted(signal) {
  if (signal?.aborted) throw aborted(signal.reason);
}

/** What an error looks like in a message between threads. */
export const toMessage = (error) => ({
  code: typeof error?.code === 'string' ? error.code : 'crashed',
  message: String(error?.message ?? error),
  index: error?.index,
});

/** @param {{ code: string, message: string, index?: number }} message */
export const fromMessage = ({ code, message, index }) =>
  new MunjangError(code, message, index === undefined ? {} : { index });

// Node's own modules are imported by a name that bundlers cannot see, so that a browser bundle neither
// contains nor looks for them.

/** Whether this is Node (and not a page that merely defines `process`). */
export const isNode =
  typeof process === 'object' && typeof process?.versions?.node === 'string' && process.type !== 'renderer';

/** @param {string} name such as `node:fs/promises` */
export const nodeModule = (name) => import(/* @vite-ignore */ /* webpackIgnore: true */ name);

/** Runs `task` in a later turn of the event loop, with no minimum delay. */
export const defer = isNode
  ? (task) => void setImmediate(task)
  : (task) => {
      const { port1, port2 } = new MessageChannel();
      port1.onmessage = () => {
        port1.close();
        task();
      };
      port2.postMessage(0);
    };

/**
 * An absolute URL for what the caller wrote: relative to the page, or to the working directory in
 * Node, where plain paths are welcome too.
 * @param {string | URL} url
 * @returns {Promise<string>}
 */
export async function resolveUrl(url) {
  if (url instanceof URL) return url.href;
  if (!isNode) return new URL(url, globalThis.document?.baseURI ?? globalThis.location?.href).href;
  if (/^[a-z][a-z0-9+.-]+:/i.test(url)) return new URL(url).href;
  const { pathToFileURL } = await nodeModule('node:url');
  return pathToFileURL(url).href;
}

// Verified model files, kept in the browser's Cache API under their SHA-256. Everything here may
// fail without harm (private windows, full disks, plain http): the model is then fetched again.

const CACHE_NAME = 'munjang-models';
// A name that no network request can hit; the Cache API only takes http(s) addresses.
const keyOf = (sha256) => `https://munjang.invalid/sha256/${sha256}`;

async function openCache() {
  try {
    return await globalThis.caches?.open(CACHE_NAME);
  } catch {
    return undefined;
  }
}

/**
 * @param {string} sha256
 * @returns {Promise<Response | undefined>}
 */
export async function readCached(sha256) {
  try {
    return await (await openCache())?.match(keyOf(sha256));
  } catch {
    return undefined;
  }
}

/**
 * Keeps a file whose SHA-256 has been checked.
 * @param {string} sha256
 * @param {Response} response
 */
export async function writeCached(sha256, response) {
  try {
    await (await openCache())?.put(keyOf(sha256), response);
  } catch {
    // Quota, or no storage at all.
  }
}

/** @param {string} sha256 */
export async function deleteCached(sha256) {
  try {
    await (await openCache())?.delete(keyOf(sha256));
  } catch {
    // It will be found bad again, and fetched again.
  }
}

/** Whether keeping a copy is possible at all. */
export const cacheAvailable = () => typeof globalThis.caches?.open === 'function';

/**
 * Deletes every model file that this package has kept for the page's origin.
 * @returns {Promise<boolean>} whether there were any
 */
export async function clearModelCache() {
  try {
    return (await globalThis.caches?.delete(CACHE_NAME)) ?? false;
  } catch {
    return false;
  }
}
