import { codeOf, compileCode } from './code.js';
import { now } from './environment.js';
import { MunjangError, aborted, throwIfAborted } from './errors.js';
import { Lane } from './lane.js';
import { openModel, sendModel } from './loader.js';
import { checkCallOptions, checkEncodeOptions, checkStreamed, iteratorOf, readable, sideOf, textsOf } from './options.js';
import { Scheduler } from './schedule.js';
import { similarityMatrix } from './similarity.js';

const MAKE = Symbol('make');
/** Texts of a stream that are read before they are encoded together, and how many such windows are under way. */
const STREAM_TEXTS = 256;
const STREAM_WINDOWS = 2;

/**
 * A loaded sentence encoder; made by `loadEncoder`. index.d.ts describes each method.
 */
export class SentenceEncoder {
  #request;
  #workers;
  #info;
  /** The compiled code that fits the model; a restart uses it again. */
  #code;
  /** @type {Lane[]} */
  #lanes = [];
  #calls = new Scheduler(() => this.#lanes, () => this.#reopen());
  /** Set while lanes are being opened. */
  #opening;
  #disposed = false;

  constructor(key, request) {
    if (key !== MAKE) throw new MunjangError('input_invalid', 'Use loadEncoder() to make a SentenceEncoder.');
    this.#request = request;
    this.#workers = request.workers;
  }

  /**
   * @param {object} request see `loadEncoder`
   * @param {AbortSignal} [signal]
   * @param {(progress: { loaded: number, total: number | null }) => void} [onProgress]
   */
  static async load(request, signal, onProgress) {
    const encoder = new SentenceEncoder(MAKE, request);
    await encoder.#open(signal, onProgress);
    return encoder;
  }

  get info() {
    return this.#info;
  }

  async encode(input, options) {
    const { flat, ...call } = checkEncodeOptions(options);
    const texts = textsOf(input).map(readable);
    if (flat) {
      const { hiddenSize } = this.#info;
      const matrix = new Float32Array(texts.length * hiddenSize);
      await this.#run('encode', texts, call, (at, batch) => matrix.set(batch.embeddings, at * hiddenSize));
      return matrix;
    }
    const embeddings = new Array(texts.length);
    await this.#run('encode', texts, call, (at, batch, count) => split(batch.embeddings, count, embeddings, at));
    return typeof input === 'string' ? embeddings[0] : embeddings;
  }

  async *encodeStream(source, options) {
    const { signal } = checkCallOptions(options);
    const iterator = iteratorOf(source);
    const given = new AbortController();
    const onAbort = () => given.abort(signal.reason);
    signal?.addEventListener('abort', onAbort, { once: true });
    /** Windows that are being encoded, in order: one is waited for while the next one is on its way. */
    const windows = [];
    let index = 0;
    let ended = false;
    const readWindow = async () => {
      const texts = [];
      while (texts.length < STREAM_TEXTS && !ended) {
        const { done, value } = await iterator.next();
        ended = done === true;
        if (ended) break;
        texts.push(checkStreamed(value, index++));
      }
      if (texts.length === 0) return;
      const encoding = this.encode(texts, { signal: given.signal });
      // Whoever leaves early does not wait for it.
      encoding.catch(() => {});
      windows.push(encoding);
    };
    try {
      throwIfAborted(signal);
      while (!ended || windows.length > 0) {
        while (!ended && windows.length < STREAM_WINDOWS) await readWindow();
        if (windows.length > 0) yield* await windows.shift();
      }
    } finally {
      signal?.removeEventListener('abort', onAbort);
      given.abort();
      if (!ended) await iterator.return?.();
    }
  }

  async encodeWithReport(input, options) {
    const texts = textsOf(input).map(readable);
    const embeddings = new Array(texts.length);
    const tokenCounts = new Array(texts.length);
    const truncated = new Array(texts.length);
    await this.#run('encode', texts, options, (at, batch, count) => {
      split(batch.embeddings, count, embeddings, at);
      for (let i = 0; i < count; i++) {
        tokenCounts[at + i] = batch.tokenCounts[i];
        truncated[at + i] = batch.truncated[i] === 1;
      }
    });
    return { embeddings, tokenCounts, truncated };
  }

  async similarity(a, b, options) {
    const { signal, onProgress } = checkCallOptions(options);
    const rows = sideOf(a, 'a', this.#info.hiddenSize);
    const columns = b === undefined ? rows : sideOf(b, 'b', this.#info.hiddenSize);
    const sides = columns === rows ? [rows] : [rows, columns];
    // One call for the texts of both sides: they share its signal and its progress.
    const embeddings = await this.encode(sides.flatMap(({ texts }) => texts), { signal, onProgress });
    let next = 0;
    for (const { places, vectors } of sides) for (const place of places) vectors[place] = embeddings[next++];
    return similarityMatrix(rows.vectors, columns.vectors, signal);
  }

  async countTokens(input, options) {
    const texts = textsOf(input);
    const counts = new Array(texts.length);
    await this.#run('count', texts, options, (at, batch, count) => {
      for (let i = 0; i < count; i++) counts[at + i] = batch[i];
    });
    return typeof input === 'string' ? counts[0] : counts;
  }

  async memoryUsage() {
    this.#throwIfDisposed();
    await this.#opening;
    for (const lane of this.#lanes) lane.setBusy(true);
    const wasmBytes = await Promise.all(this.#lanes.map((lane) => lane.call({ op: 'memory' })));
    for (const lane of this.#lanes) lane.setBusy(this.#calls.busy);
    return { wasmBytes: wasmBytes.reduce((sum, bytes) => sum + bytes, 0) };
  }

  dispose() {
    if (this.#disposed) return;
    this.#disposed = true;
    this.#end(disposed(), true);
  }

  [Symbol.dispose ?? Symbol.for('Symbol.dispose')]() {
    this.dispose();
  }

  /** Opens all lanes; at the end, `#lanes` and `#info` are set. */
  async #open(signal, onProgress) {
    throwIfAborted(signal);
    const started = now();
    const { worker, build, wasmUrl, source, cache } = this.#request;
    const lanes = [];
    let lost;
    let fail;
    const failed = new Promise((_, reject) => {
      fail = reject;
    });
    failed.catch(() => {});
    const closeAll = (error) => {
      lost ??= error;
      for (const lane of lanes) lane.close(error);
      fail(error);
    };
    const spawn = async () => {
      const lane = await Lane.open(worker, (error) => {
        closeAll(error);
        if (this.#lanes === lanes) this.#end(error);
      });
      // It may have been given up while the worker was being made.
      if (lost || this.#disposed) lane.close(lost);
      if (lost) throw lost;
      if (this.#disposed) throw disposed();
      lanes.push(lane);
      return lane;
    };
    let code = this.#code;
    const getCode = (general) => {
      code = this.#code = compileCode(build, general, wasmUrl);
      codeOf.set(this, code);
      // What could not be compiled is tried again by the next call.
      code.catch(() => {
        this.#code = undefined;
        codeOf.delete(this);
      });
    };
    const sendCode = (lane) => {
      code.then((module) => lane.call({ op: 'code', module })).catch(closeAll);
    };
    const open = async () => {
      // All at once. The model, longest on its way, first.
      const opening = openModel(source, cache, signal);
      const spawning = spawn();
      if (!code) getCode(false);
      // If the worker fails first, this failure must not count as unhandled, nor the download go on.
      opening.catch(() => {});
      failed.catch(() => opening.then(({ chunks }) => chunks.cancel?.()).catch(() => {}));
      const first = await spawning;
      const spawned = now();
      sendCode(first);
      const share = this.#workers > 1;
      const { shared, ...loaded } = await sendModel(await opening, {
        load: (file) => first.call({ op: 'load', ...file, share }, {
          onNeeds: () => {
            // Other workers and a restart then begin with it.
            getCode(true);
            sendCode(first);
          },
        }),
        take: (chunk) => first.give(chunk),
      }, signal, onProgress);
      for (let n = 1; n < this.#workers; n++) {
        // The last one takes the bytes, the others get copies.
        const bytes = n === this.#workers - 1 ? shared : shared.slice(0);
        const lane = await spawn();
        sendCode(lane);
        const loading = lane.call({ op: 'load', url: source.url, bytes: bytes.byteLength, keep: false });
        lane.give(new Uint8Array(bytes));
        await loading;
      }
      return { loaded, spawned };
    };
    const onAbort = () => closeAll(aborted(signal.reason));
    signal?.addEventListener('abort', onAbort, { once: true });
    try {
      const { loaded, spawned } = await Promise.race([failed, open()]);
      if (lost) throw lost;
      if (this.#disposed) throw disposed();
      for (const lane of lanes) lane.setBusy(false);
      this.#lanes = lanes;
      this.#calls.setLimit(loaded.config.max_position_embeddings);
      this.#info ??= describe(loaded, this.#request, { worker: spawned - started, total: now() - started });
    } catch (error) {
      closeAll(error);
      throw error;
    } finally {
      signal?.removeEventListener('abort', onAbort);
    }
  }

  async #run(op, texts, options, take) {
    this.#throwIfDisposed();
    await this.#calls.run(op, texts, checkCallOptions(options), take);
  }

  /** After a crash: fresh instances, from the cache where there is one. */
  #reopen() {
    this.#opening ??= this.#open().then(
      () => {
        this.#opening = undefined;
        for (const lane of this.#lanes) lane.setBusy(this.#calls.busy);
        this.#calls.pump();
      },
      (error) => {
        this.#opening = undefined;
        this.#end(error);
      },
    );
  }

  /** Ends all lanes and rejects all calls. */
  #end(error, keep = false) {
    const lanes = this.#lanes;
    this.#lanes = [];
    this.#calls.fail(error);
    for (const lane of lanes) lane.close(error, keep);
  }

  #throwIfDisposed() {
    if (this.#disposed) throw disposed();
  }
}

const disposed = () => new MunjangError('disposed', 'This encoder was disposed; load another with loadEncoder().');

/** Cuts a batch's rows into arrays with buffers of their own. */
function split(embeddings, count, into, at) {
  const hiddenSize = embeddings.length / count;
  for (let i = 0; i < count; i++) into[at + i] = embeddings.slice(i * hiddenSize, (i + 1) * hiddenSize);
}

function describe(loaded, { build, worker, workers }, timings) {
  const { config } = loaded;
  return Object.freeze({
    modelId: loaded.modelId,
    formatVersion: loaded.formatVersion,
    bytes: loaded.bytes,
    source: loaded.source,
    build,
    kernel: loaded.kernel,
    worker: Boolean(worker),
    workers,
    // A dense module after pooling gives another number of values than the layers have.
    hiddenSize: loaded.dimension ?? config.hidden_size,
    maxTokens: config.max_position_embeddings,
    numHiddenLayers: config.num_hidden_layers,
    vocabSize: config.vocab_size,
    prefix: config.prefix,
    timings: Object.freeze({ ...loaded.timings, ...timings }),
  });
}
