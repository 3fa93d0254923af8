// One WebAssembly instance with one model in it. Runs in a worker, or beside the caller.
import { unavailable } from './code.js';
import { throwIfAborted } from './errors.js';
import { loadModel } from './loader.js';
// Both are imported at once: they are small, and a dynamic import in a worker needs settings in
// some bundlers. Of the WebAssembly itself only the build in use is fetched.
import * as relaxed from './wasm/munjang_relaxed.js';
import * as simd128 from './wasm/munjang_simd.js';

const GLUE = { relaxed, simd128 };

/** The first sentences go before the copy for the next visit: writing it takes as long as loading it. */
const KEEP_AFTER_MS = 250;

export class Runtime {
  #encoder;
  #memory;
  #keepCopy;
  #keepTimer;
  #keeping;

  /**
   * @param {object} request
   * @param {'simd128' | 'relaxed'} request.build
   * @param {import('./loader.js').ModelSource} request.source
   * @param {boolean} request.cache
   * @param {boolean} [request.share] return the bytes, for other workers to start without fetching
   * @param {ArrayBuffer} [request.bytes] what a first worker shared
   * @param {Promise<WebAssembly.Module>} code from `compileCode`; the model is asked for meanwhile
   * @param {AbortSignal} [signal]
   * @param {(progress: { loaded: number, total: number | null }) => void} [onProgress]
   */
  async load({ build, source, cache, share = false, bytes }, code, signal, onProgress = () => {}) {
    throwIfAborted(signal);
    const glue = GLUE[build];
    const started = performance.now();
    let compiled;
    let instantiated;
    const wasm = (async () => {
      const module = await code;
      compiled = performance.now();
      const { memory } = await instantiate(glue, module);
      instantiated = performance.now();
      this.#memory = memory;
      return { glue, memory };
    })();
    // If the model fails first, this failure must not count as unhandled.
    wasm.catch(() => {});
    let loaded;
    if (bytes) {
      await wasm;
      const buffer = new glue.ModelBuffer(bytes.byteLength);
      buffer.push(new Uint8Array(bytes));
      loaded = {
        encoder: buffer.finish(),
        source: 'network',
        timings: { fetch: 0, verify: 0, model: performance.now() - instantiated },
      };
    } else {
      loaded = await loadModel(wasm, source, { cache, share, signal, onProgress });
    }
    this.#encoder = loaded.encoder;
    if (loaded.keepCopy) {
      this.#keepCopy = loaded.keepCopy;
      this.#keepTimer = setTimeout(() => void this.settled(), KEEP_AFTER_MS);
    }
    return {
      ...this.#encoder.info(),
      build,
      source: loaded.source,
      keeping: loaded.keepCopy !== undefined,
      timings: { code: compiled - started, instantiate: instantiated - compiled, ...loaded.timings },
      ...(share ? { shared: loaded.shared } : {}),
    };
  }

  /** Resolves when the model's way into the cache has ended; begins it if it has not begun. */
  async settled() {
    clearTimeout(this.#keepTimer);
    const keepCopy = this.#keepCopy;
    this.#keepCopy = undefined;
    if (keepCopy) this.#keeping = keepCopy();
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
    clearTimeout(this.#keepTimer);
    this.#keepCopy = undefined;
    this.#encoder?.free();
    this.#encoder = undefined;
  }
}

async function instantiate(glue, module) {
  try {
    return await glue.default({ module_or_path: module });
  } catch (cause) {
    throw unavailable('its module', cause);
  }
}
