// The encoder's code: which of its WebAssembly files this engine can run; fetched and compiled where
// the caller is, while its worker is still starting, and handed to every worker as a compiled module.
import { isNode, nodeModule, webAssembly } from './environment.js';
import { MunjangError } from './errors.js';

const URLS = {
  relaxed: () => new URL('./wasm/munjang_relaxed.wasm', import.meta.url),
  simd128: () => new URL('./wasm/munjang_simd.wasm', import.meta.url),
};
/** The same with every kind of tokenizer, five times the size. */
const GENERAL_URLS = {
  relaxed: () => new URL('./wasm/munjang_general_relaxed.wasm', import.meta.url),
  simd128: () => new URL('./wasm/munjang_general_simd.wasm', import.meta.url),
};

// An engine without relaxed SIMD rejects a module that merely contains such an instruction, so a tiny
// module is asked about first.
// (module (func (result v128) i32.const 0 i8x16.splat i8x16.popcnt))
const SIMD128 = [0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0,
  253, 15, 253, 98, 11];
// (module (func (result v128) i32.const 1 i8x16.splat i32.const 2 i8x16.splat
//   i16x8.relaxed_dot_i8x16_i7x16_s))
const RELAXED = [0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 15, 1, 13, 0, 65, 1,
  253, 15, 65, 2, 253, 15, 253, 146, 2, 11];

/**
 * @param {'simd128' | 'relaxed'} [wanted] a certain build, for tests and measurements
 * @returns {'simd128' | 'relaxed'}
 */
export function chooseBuild(wanted) {
  const runs = (bytes) => webAssembly()?.validate(new Uint8Array(bytes)) ?? false;
  if (!runs(SIMD128)) {
    throw new MunjangError('unsupported_browser',
      'This browser has no WebAssembly SIMD. Use Chrome or Edge 91, Firefox 89, Safari 16.4, Node 20, or newer.');
  }
  const relaxed = runs(RELAXED);
  if (wanted === 'relaxed' && !relaxed) {
    throw new MunjangError('unsupported_browser',
      "This browser has no relaxed WebAssembly SIMD; leave `build` out, or ask for 'simd128'.");
  }
  return wanted ?? (relaxed ? 'relaxed' : 'simd128');
}

/**
 * The compiled code of each encoder, for indexes beside it: they need not fetch and compile it again.
 * @type {WeakMap<object, Promise<WebAssembly.Module>>}
 */
export const codeOf = new WeakMap();

/**
 * @param {'simd128' | 'relaxed'} build
 * @param {boolean} [general]
 * @param {string} [folder] address of the folder that holds the files, where they do not lie beside the code
 * @returns {Promise<WebAssembly.Module>}
 */
export async function compileCode(build, general = false, folder = undefined) {
  const url = addressOf(build, general, folder);
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

function addressOf(build, general, folder) {
  if (folder !== undefined) {
    const name = `munjang${general ? '_general' : ''}_${build === 'relaxed' ? 'relaxed' : 'simd'}.wasm`;
    return new URL(name, folder.endsWith('/') ? folder : `${folder}/`);
  }
  try {
    return (general ? GENERAL_URLS : URLS)[build]();
  } catch (cause) {
    throw new MunjangError('wasm_unavailable', NO_ADDRESS, { cause });
  }
}

/** Bundles of other formats than ES modules do not know where they lie. */
const NO_ADDRESS = "The encoder's code has no address: this bundle lost import.meta.url. Bundle as ES modules (format 'esm'), or copy the "
  + 'package beside the bundle and give { wasmUrl, workerUrl, modelUrl }.';

/**
 * @param {string | URL} where
 * @param {any} cause
 */
const unavailable = (where, cause) => new MunjangError('wasm_unavailable',
  `The encoder's code could not be loaded from ${where}: ${cause?.message ?? cause}. ${
    // What browsers say about a policy that forbids compiling.
    /Content Security Policy|unsafe-eval|CSP/i.test(String(cause?.message)) || cause?.name === 'EvalError'
      ? "The page's Content-Security-Policy must allow 'wasm-unsafe-eval' in script-src."
      : "Serve the package's wasm/ folder beside its JavaScript, or give its address as wasmUrl (bundlers that do not follow new URL(…), as "
        + "esbuild and Rollup, leave it behind); a page with a Content-Security-Policy must allow 'wasm-unsafe-eval'."}`, { cause });
