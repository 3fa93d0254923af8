// What differs between browsers and Node. Node's own modules are imported by a name that bundlers
// cannot see, so that a browser bundle neither contains nor looks for them.

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
