// What the place offers that the code runs in: a page, a worker, a service worker, an extension, a sandboxed frame,
// Node, a test's stand-in for a page. Globals that are missing in some place, or throw when read there, are asked
// for here and nowhere else.

/** What `read` gives; undefined where it is missing or refuses (frames without an origin throw). */
function ask(read) {
  try {
    return read() ?? undefined;
  } catch {
    return undefined;
  }
}

/** Whether this is Node (and not a page that merely defines `process`); Bun and Deno count. */
export const isNode = ask(() => typeof process.versions.node === 'string' && process.type !== 'renderer') ?? false;

// Node's own modules are imported by a name that bundlers cannot see, so that a browser bundle neither
// contains nor looks for them.

/** @param {string} name such as `node:fs/promises` */
export const nodeModule = (name) => import(/* @vite-ignore */ /* webpackIgnore: true */ name);

/** @returns {CacheStorage | undefined} */
export const cacheStorage = () => ask(() => globalThis.caches);

/** Only secure contexts have it. @returns {SubtleCrypto | undefined} */
export const subtleCrypto = () => ask(() => globalThis.crypto.subtle);

/** Only secure contexts have it. @returns {LockManager | undefined} */
export const lockManager = () => ask(() => globalThis.navigator.locks);

/** @returns {typeof Worker | undefined} */
export const workerClass = () => {
  const found = ask(() => globalThis.Worker);
  return typeof found === 'function' ? found : undefined;
};

/** @returns {typeof WebAssembly | undefined} */
export const webAssembly = () => ask(() => globalThis.WebAssembly);

const clock = ask(() => (typeof performance.now === 'function' ? performance : undefined)) ?? Date;

/** Milliseconds, of which only differences mean something. */
export const now = () => clock.now();

/** The origin that this code runs in; undefined where there is none (Node, sandboxed frames). */
export const ownOrigin = () => ask(() => (globalThis.origin === 'null' ? undefined : globalThis.origin));

/** What a relative address is relative to; undefined in Node. */
const baseUrl = () => ask(() => globalThis.document.baseURI) ?? ask(() => globalThis.location.href);

/** Runs `task` in a later turn of the event loop, with no minimum delay where that can be had. */
export const defer = deferrer();

function deferrer() {
  const immediate = ask(() => globalThis.setImmediate);
  if (isNode && typeof immediate === 'function') return (task) => void immediate(task);
  const Channel = ask(() => globalThis.MessageChannel);
  // Node's own would keep the process alive.
  if (isNode || typeof Channel !== 'function') return (task) => void setTimeout(task, 0);
  let port;
  const tasks = [];
  return (task) => {
    if (!port) {
      const channel = new Channel();
      channel.port1.onmessage = () => tasks.shift()?.();
      port = channel.port2;
    }
    tasks.push(task);
    port.postMessage(0);
  };
}

/**
 * An absolute URL for what the caller wrote: relative to the page, or to the working directory in
 * Node, where plain paths are welcome too.
 * @param {string | URL} url
 * @returns {Promise<string>}
 */
export async function resolveUrl(url) {
  if (typeof url !== 'string') return url.href;
  if (!isNode) return new URL(url, baseUrl()).href;
  if (/^[a-z][a-z0-9+.-]+:/i.test(url)) return new URL(url).href;
  const { pathToFileURL } = await nodeModule('node:url');
  return pathToFileURL(url).href;
}
