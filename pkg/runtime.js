// One WebAssembly instance with one model in it. Runs in a worker, or beside the caller.
import { MunjangError, throwIfAborted } from './errors.js';
import { loadModel } from './loader.js';
import { isNode, nodeModule } from './platform.js';
// Both are imported at once: they are small, and a dynamic import in a worker needs settings in
// some bundlers. The WebAssembly itself is fetched only for the build in use.
import * as relaxed from './wasm/munjang_relaxed.js';
import * as simd128 from './wasm/munjang_simd.js';

const BUILDS = {
  relaxed: { glue: relaxed, url: () => new URL('./wasm/munjang_relaxed.wasm', import.meta.url) },
  simd128: { glue: simd128, url: () => new URL('./wasm/munjang_simd.wasm', import.meta.url) },
};

export class Runtime {
  #encoder;
  #memory;
  #keeping;

  /**
   * @param {object} request
   * @param {'simd128' | 'relaxed'} request.build
   * @param {import('./loader.js').ModelSource} request.source
   * @param {boolean} request.cache
   * @param {boolean} [request.share] return what other workers need to start without fetching
   * @param {{ module: WebAssembly.Module, bytes: ArrayBuffer }} [request.from] what a first worker shared
   * @param {AbortSignal} [signal]
   * @param {(progress: { loaded: number, total: number | null }) => void} [onProgress]
   */
  async load({ build, source, cache, share = false, from }, signal, onProgress = () => {}) {
    throwIfAborted(signal);
    const { glue, url } = BUILDS[build];
    const started = performance.now();
    let compiled;
    let instantiated;
    const wasm = (async () => {
      const module = from?.module ?? (await compile(url()));
      compiled = performance.now();
      const { memory } = await instantiate(glue, module);
      instantiated = performance.now();
      this.#memory = memory;
      return { glue, memory, module };
    })();
    // If the model fails first, this failure must not count as unhandled.
    wasm.catch(() => {});
    let loaded;
    if (from) {
      await wasm;
      const buffer = new glue.ModelBuffer(from.bytes.byteLength);
      buffer.push(new Uint8Array(from.bytes));
      loaded = {
        encoder: buffer.finish(),
        source: 'network',
        timings: { fetch: 0, verify: 0, model: performance.now() - instantiated },
      };
    } else {
      loaded = await loadModel(wasm, source, { cache, share, signal, onProgress });
    }
    this.#encoder = loaded.encoder;
    this.#keeping = loaded.keeping;
    return {
      ...this.#encoder.info(),
      build,
      source: loaded.source,
      keeping: loaded.keeping !== undefined,
      timings: { compile: compiled - started, instantiate: instantiated - compiled, ...loaded.timings },
      ...(share ? { shared: { module: (await wasm).module, bytes: loaded.shared } } : {}),
    };
  }

  /** Resolves when the model's way into the cache has ended. */
  async settled() {
    await this.#keeping;
  }

  /** @param {string[]} texts */
  encode(texts) {
    return this.#encoder.encodeBatch(texts);
  }

  /** @param {string[]} texts */
  count(texts) {
    return Uint32Array.from(texts, (text) => this.#encoder.countTokens(text));
  }

  /** @param {Uint32Array[]} batch */
  encodeIds(batch) {
    const lengths = Uint32Array.from(batch, (ids) => ids.length);
    const flat = new Uint32Array(lengths.reduce((sum, length) => sum + length, 0));
    let at = 0;
    for (const ids of batch) {
      flat.set(ids, at);
      at += ids.length;
    }
    return this.#encoder.encodeIds(flat, lengths);
  }

  /** Bytes of WebAssembly memory; it never shrinks, so this is also the peak. */
  memory() {
    return this.#memory.buffer.byteLength;
  }

  free() {
    this.#encoder?.free();
    this.#encoder = undefined;
  }
}

/** @param {URL} url */
async function compile(url) {
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

async function instantiate(glue, module) {
  try {
    return await glue.default({ module_or_path: module });
  } catch (cause) {
    throw unavailable('its module', cause);
  }
}

const unavailable = (where, cause) => new MunjangError('wasm_unavailable',
  `The encoder's code could not be loaded from ${where}: ${cause?.message ?? cause}. Serve the package's wasm/ folder `
    + "beside its JavaScript, and allow 'wasm-unsafe-eval' if the page has a Content-Security-Policy.", { cause });
