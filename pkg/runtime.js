// One WebAssembly instance with one model in it. Runs in a worker, or beside the caller.
import { writeCached } from './cache.js';
import { now, subtleCrypto } from './environment.js';
import { MunjangError } from './errors.js';
import createGlue from './wasm/munjang.js';

/** The first sentences go before the copy for the next visit: writing it takes as long as loading it. */
const KEEP_AFTER_MS = 250;
/** UTF-16 units of a text that are counted at once. */
const COUNT_UNITS = 2 ** 20;

export class Runtime {
  #encoder;
  #memory;
  /** Where the file that is coming in takes its chunks from. */
  #feed;
  #onKept;
  #keepTimer;
  /** The model as it goes into the cache, until it is there. */
  #unkept;

  /** @param {() => void} [onKept] called when the model is in the cache */
  constructor(onKept = () => {}) {
    this.#onKept = onKept;
  }

  /**
   * Takes in a model file, whose bytes come by `take`; a later call supersedes an earlier one.
   * @param {object} file
   * @param {string} file.url for messages
   * @param {number} file.bytes
   * @param {string} [file.sha256] what the bytes must hash to, where that is known
   * @param {{ bytes: number, sha256: string[] }} [file.pieces] the same for pieces of it, to be checked as they come
   * @param {boolean} file.keep whether to write it to the cache, a little later
   * @param {boolean} [file.share] return the bytes, for other workers to start without fetching
   * @param {Promise<WebAssembly.Module>} code from `compileCode`; chunks may come before
   * @param {() => Promise<WebAssembly.Module>} getGeneral gives the general code, if the model needs it
   */
  async load({ url, bytes, sha256, pieces, keep, share = false }, code, getGeneral) {
    this.#feed?.end();
    const feed = (this.#feed = createFeed());
    const started = now();
    const module = await code;
    const compiled = now();
    let core = await instantiate(module);
    const instantiated = now();
    const buffer = new core.glue.ModelBuffer(bytes);
    const check = createCheck(sha256, pieces, bytes, buffer);
    while (buffer.received < bytes) {
      const chunk = await feed.next();
      if (chunk === undefined) {
        buffer.free();
        throw new MunjangError('aborted', 'The file was given up for another one.');
      }
      buffer.push(chunk);
      check?.advance(view(core.memory, buffer.offset, buffer.received));
    }
    const received = now();

    // The bytes stay where they are when `finish` makes them the encoder's.
    let { offset } = buffer;
    const shared = share ? view(core.memory, offset, bytes).slice().buffer : undefined;
    let encoder;
    let failure;
    try {
      encoder = buffer.finish();
    } catch (error) {
      failure = error;
    }
    const ready = now();
    const damaged = check !== undefined && !(await check.isGood());
    const verified = now();
    if (failure?.code === 'tokenizer_unsupported' && !damaged) {
      // The file moves on to an instance that can read it, and this one is given up.
      failure = undefined;
      const general = await instantiate(await getGeneral());
      ({ encoder, offset } = move(view(core.memory, buffer.offset, bytes), general.glue));
      buffer.free();
      core = general;
    } else if (failure === undefined || typeof failure.code === 'string') {
      // After a trap (which carries no code) the instance must not be touched again.
      buffer.free();
    }
    if (damaged) {
      // A trap in a damaged file would have left `failure` behind; the damage is the better news.
      encoder?.free();
      throw new MunjangError('checksum_mismatch', `The model from ${url} is damaged or not the one that `
        + 'the manifest names: its SHA-256 differs. Load it again; if it stays so, the files on the server do not belong together.');
    }
    if (failure) throw failure;
    const finished = now();
    this.#encoder = encoder;
    this.#memory = core.memory;
    if (keep) {
      this.#unkept = { sha256, offset, bytes };
      this.#keepTimer = setTimeout(() => void this.#keep(), KEEP_AFTER_MS);
    }
    return {
      ...encoder.info(),
      shared,
      timings: {
        code: compiled - started,
        instantiate: instantiated - compiled,
        fetch: received - instantiated,
        verify: verified - ready,
        model: ready - received + (finished - verified),
      },
    };
  }

  /** @param {Uint8Array} chunk the next bytes of the file that is coming in */
  take(chunk) {
    this.#feed?.give(chunk);
  }

  async #keep() {
    const { sha256, offset, bytes } = this.#unkept;
    // Of the memory as it is then: it may have grown. A response has its own copy.
    await writeCached(sha256, new Response(view(this.#memory, offset, bytes), { headers: { 'content-type': 'application/octet-stream' } }));
    this.#unkept = undefined;
    this.#onKept();
  }

  /** Gives what was to be kept in the cache and is not yet, for whoever outlives this. */
  release() {
    clearTimeout(this.#keepTimer);
    if (!this.#unkept) return undefined;
    const { sha256, offset, bytes } = this.#unkept;
    return { sha256, bytes: view(this.#memory, offset, bytes).slice().buffer };
  }

  /** @param {string[]} texts */
  encode(texts) {
    return this.#encoder.encodeBatch(texts);
  }

  /** @param {string[]} texts */
  count(texts) {
    return Uint32Array.from(texts, (text) => this.#count(text));
  }

  /** In pieces, cut at blanks: a copy of all of a huge text would stay in the instance's memory. */
  #count(text) {
    let count = 0;
    let from = 0;
    while (text.length - from > COUNT_UNITS) {
      let to = text.lastIndexOf(' ', from + COUNT_UNITS);
      if (to <= from) {
        to = from + COUNT_UNITS;
        // Not between the halves of a character.
        if (text.codePointAt(to - 1) > 0xffff) to -= 1;
      }
      count += this.#encoder.countTokens(text.slice(from, to)) - this.#encoder.countTokens('');
      from = to;
    }
    return count + this.#encoder.countTokens(from === 0 ? text : text.slice(from));
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
    this.#feed?.end();
    this.#encoder?.free();
    this.#encoder = undefined;
  }
}

/** Chunks that come by `give` and go by `next`, which gives undefined after `end`. */
function createFeed() {
  const chunks = [];
  let ended = false;
  let wake = () => {};
  return {
    give(chunk) {
      chunks.push(chunk);
      wake();
    },
    end() {
      ended = true;
      wake();
    },
    async next() {
      while (chunks.length === 0 && !ended) await new Promise((resolve) => { wake = resolve; });
      return ended ? undefined : chunks.shift();
    },
  };
}

/** A fresh instance: its exports' JavaScript face and its memory. */
async function instantiate(module) {
  const glue = createGlue();
  try {
    const { memory } = await glue({ module_or_path: module });
    return { glue, memory };
  } catch (cause) {
    throw new MunjangError('wasm_unavailable', `The encoder's code cannot be started: ${cause?.message ?? cause}. `
      + 'Serve the files of the package as they are, all of one version.', { cause });
  }
}

const view = (memory, offset, length) => new Uint8Array(memory.buffer, offset, length);

/** Makes the encoder of a file that lies in the memory of another instance. */
function move(bytes, glue) {
  const buffer = new glue.ModelBuffer(bytes.byteLength);
  buffer.push(bytes);
  const { offset } = buffer;
  const encoder = buffer.finish();
  buffer.free();
  return { encoder, offset };
}

/**
 * Compares what comes in with its SHA-256: piece by piece where those are known, otherwise as a whole at the
 * end. The digests run in another thread, on copies, while this one goes on.
 */
function createCheck(sha256, pieces, total, buffer) {
  if (sha256 === undefined) return undefined;
  // Only secure contexts have crypto.subtle; a page on plain http does not.
  const subtle = subtleCrypto();
  const wanted = subtle && pieces ? pieces : { bytes: total, sha256: [sha256] };
  const compared = [];
  const isSame = async (bytes, expected) => (subtle ? hex(await subtle.digest('SHA-256', bytes)) : buffer.sha256()) === expected;
  return {
    /** @param {Uint8Array} received all of it so far */
    advance(received) {
      for (;;) {
        const from = compared.length * wanted.bytes;
        const to = Math.min(from + wanted.bytes, total);
        if (from >= total || to > received.length) return;
        compared.push(isSame(received.subarray(from, to), wanted.sha256[compared.length]));
      }
    },
    isGood: async () => (await Promise.all(compared)).every(Boolean),
  };
}

const hex = (digest) => Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, '0')).join('');
