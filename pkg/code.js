// The encoder's code: fetched and compiled where the caller is, while its worker is still starting,
// and handed to every worker as a compiled module.
import { MunjangError } from './errors.js';
import { isNode, nodeModule } from './platform.js';

const URLS = {
  relaxed: () => new URL('./wasm/munjang_relaxed.wasm', import.meta.url),
  simd128: () => new URL('./wasm/munjang_simd.wasm', import.meta.url),
};

/**
 * @param {'simd128' | 'relaxed'} build
 * @returns {Promise<WebAssembly.Module>}
 */
export async function compileCode(build) {
  const url = URLS[build]();
  if (isNode && url.protocol === 'file:') {
    const { readFile } = await nodeModule('node:fs/promises');
    try {
      return await WebAssembly.compile(await readFile(url));
    } catch (cause) {
      throw unavailable(url, cause);
    }
  }
  let response;
  try {
    response = await fetch(url);
  } catch (cause) {
    throw new MunjangError('network', `The encoder's code at ${url} could not be reached: ${cause?.message ?? cause}. `
      + 'Check the connection.', { cause });
  }
  if (!response.ok) {
    throw unavailable(url, new Error(`the server answered ${response.status}`));
  }
  try {
    // Streaming insists on the right type; servers that do not know .wasm get the slower way.
    return /^application\/wasm\b/i.test(response.headers.get('content-type') ?? '')
      ? await WebAssembly.compileStreaming(response)
      : await WebAssembly.compile(await response.arrayBuffer());
  } catch (cause) {
    throw unavailable(url, cause);
  }
}

/**
 * @param {string | URL} where
 * @param {any} cause
 */
export const unavailable = (where, cause) => new MunjangError('wasm_unavailable',
  `The encoder's code could not be loaded from ${where}: ${cause?.message ?? cause}. Serve the package's wasm/ folder `
    + "beside its JavaScript, and allow 'wasm-unsafe-eval' if the page has a Content-Security-Policy.", { cause });
