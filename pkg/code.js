// The encoder's code: which of its WebAssembly files this engine can run; fetched and compiled where
// the caller is, while its worker is still starting, and handed to every worker as a compiled module.
import { isNode, nodeModule } from './environment.js';
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
  if (wanted !== undefined && wanted !== 'simd128' && wanted !== 'relaxed') {
    throw new MunjangError('input_invalid', `build is ${String(wanted)}; expected 'simd128' or 'relaxed'.`);
  }
  const runs = (bytes) => WebAssembly.validate(new Uint8Array(bytes));
  if (typeof WebAssembly !== 'object' || !runs(SIMD128)) {
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
 * @param {'simd128' | 'relaxed'} build
 * @param {boolean} [general]
 * @returns {Promise<WebAssembly.Module>}
 */
export async function compileCode(build, general = false) {
  const url = (general ? GENERAL_URLS : URLS)[build]();
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
const unavailable = (where, cause) => new MunjangError('wasm_unavailable',
  `The encoder's code could not be loaded from ${where}: ${cause?.message ?? cause}. Serve the package's wasm/ folder `
    + "beside its JavaScript, and allow 'wasm-unsafe-eval' if the page has a Content-Security-Policy.", { cause });
