// One runtime and the requests that it has not answered yet.
import { writeCached } from './cache.js';
import { MunjangError } from './errors.js';
import { createHost } from './host.js';
import { VERSION, fromMessage, otherVersion } from './protocol.js';

/** How long a runtime that is being closed has to hand back what it was about to keep. */
const CLOSE_MS = 80;
/** A worker that browsers end leaves no word; it is asked for a sign of life this often while something is due. */
const PULSE_MS = 1000;
/** Unanswered signs after which it counts as ended, beside the time that its batches are expected to take. */
const PULSES = 3;
/** The same while it loads: checking a large model on a slow machine takes its time. */
const LOADING_PULSES = 20;

export class Lane {
  /** Batches under way and the milliseconds they are expected to take; kept by whoever hands them out. */
  load = { short: { batches: 0, ms: 0 }, long: { batches: 0, ms: 0 } };
  #host;
  #pending = new Map();
  #nextId = 1;
  /** Why it was closed. */
  #closed;
  #answered = false;
  #onLost;
  /** The model's copy for the cache is still to be written. */
  #keeping = false;
  #keeper;
  #pulse;
  #silence = 0;

  /**
   * @param {false | import('./host.js').WorkerOptions} worker
   * @param {(error: MunjangError) => void} onLost called once if the runtime dies by itself
   */
  static async open(worker, onLost) {
    const lane = new Lane();
    lane.#onLost = onLost;
    try {
      lane.#host = await createHost(worker, (message) => lane.#receive(message), (cause) => lane.#lose(cause));
    } catch (cause) {
      throw cause instanceof MunjangError ? cause : workerFailed(cause);
    }
    return lane;
  }

  /**
   * @param {{ op: string }} request
   * @param {object} [options]
   * @param {Transferable[]} [options.transfer]
   * @param {() => void} [options.onNeeds] the answer needs the general code first
   * @returns {Promise<any>}
   */
  call(request, { transfer, onNeeds } = {}) {
    const id = this.#nextId++;
    return new Promise((resolve, reject) => {
      if (this.#closed) {
        reject(this.#closed);
        return;
      }
      if (request.op === 'load') this.#keeping = request.keep;
      this.#pending.set(id, { op: request.op, resolve, reject, onNeeds });
      this.#post({ ...request, id }, transfer);
    });
  }

  /**
   * A call that can be given up while it waits in the runtime.
   * @param {{ op: string, texts: string[], short: boolean }} request
   * @returns {{ answer: Promise<{ result?: any, ms: number }>, drop: () => void }} `drop` ends the wait with no
   *   result; an answer that is already on its way is passed over
   */
  batch(request) {
    const id = this.#nextId++;
    let drop = () => {};
    const answer = new Promise((resolve, reject) => {
      if (this.#closed) {
        reject(this.#closed);
        return;
      }
      this.#pending.set(id, { op: request.op, resolve: (result, ms) => resolve({ result, ms }), reject });
      this.#post({ ...request, id });
      drop = () => {
        if (!this.#pending.delete(id)) return;
        if (!this.#closed) this.#post({ op: 'drop', batch: id });
        resolve({ ms: 0 });
      };
    });
    return { answer, drop };
  }

  /**
   * The next bytes of the file that was announced by a call of `load`.
   * @param {Uint8Array} chunk given away
   */
  give(chunk) {
    if (this.#closed) return;
    // What is a part of something larger is copied, so that only this part is given away.
    const own = chunk.byteLength === chunk.buffer.byteLength ? chunk : chunk.slice();
    this.#post({ op: 'take', chunk: own }, [own.buffer]);
  }

  /** @param {boolean} busy */
  setBusy(busy) {
    this.#host.setBusy(busy);
  }

  /**
   * Ends the runtime; what is pending is rejected with `error`. A good model that was about to be kept in the
   * cache is kept from here: the runtime may be in the middle of anything, and is gone within 100 ms.
   * @param {unknown} error
   * @param {boolean} [keep] whether what it holds may be kept
   */
  close(error, keep = false) {
    if (this.#closed) return;
    this.#closed = error ?? new MunjangError('disposed', 'The runtime was closed.');
    clearInterval(this.#pulse);
    for (const { reject } of this.#pending.values()) reject(this.#closed);
    this.#pending.clear();
    if (!this.#host) return;
    if (!keep || !this.#keeping) {
      this.#host.terminate();
      return;
    }
    const id = this.#nextId++;
    const timer = setTimeout(() => this.#host.terminate(), CLOSE_MS);
    this.#keeper = { id, timer };
    this.#post({ id, op: 'release' });
  }

  #post(message, transfer) {
    this.#host.post({ ...message, version: VERSION }, transfer);
    this.#watch();
  }

  #receive({ id, result, ms, error, fatal, needs, kept, version }) {
    this.#silence = 0;
    if (this.#closed) {
      if (this.#keeper && id === this.#keeper.id) {
        clearTimeout(this.#keeper.timer);
        this.#host.terminate();
        if (result) void writeCached(result.sha256, new Response(result.bytes, { headers: { 'content-type': 'application/octet-stream' } }));
      }
      return;
    }
    if (version !== VERSION) {
      this.#fail(otherVersion('page', version));
      return;
    }
    this.#answered = true;
    if (fatal) {
      if (this.#pending.get(id)?.op === 'load') this.#fail(fileAtFault(error.message));
      else this.#lose(error.message);
      return;
    }
    if (kept) this.#keeping = false;
    const pending = this.#pending.get(id);
    if (!pending) return;
    if (needs) {
      pending.onNeeds?.();
      return;
    }
    this.#pending.delete(id);
    if (error) pending.reject(fromMessage(error));
    else pending.resolve(result, ms);
  }

  /** While answers are due, asks for signs of life. Counted, not timed: neither a laptop's sleep nor a busy page counts. */
  #watch() {
    if (!this.#host.silentDeath || this.#pulse !== undefined || this.#pending.size === 0) return;
    this.#silence = 0;
    this.#pulse = setInterval(() => {
      if (this.#pending.size === 0) {
        clearInterval(this.#pulse);
        this.#pulse = undefined;
        return;
      }
      const loading = [...this.#pending.values()].some(({ op }) => op === 'load');
      const patience = loading ? LOADING_PULSES : PULSES + (5 * (this.load.short.ms + this.load.long.ms)) / PULSE_MS;
      if (this.#silence++ > patience) this.#lose('its worker does not answer; something has ended it');
      else this.#host.post({ op: 'pulse', version: VERSION });
    }, PULSE_MS);
  }

  #lose(cause) {
    this.#fail(this.#answered
      ? new MunjangError('crashed', `The encoder crashed: ${cause?.message ?? cause}. The next call starts a fresh one; `
        + 'please report the text that did it.', { cause })
      : workerFailed(cause));
  }

  #fail(error) {
    if (this.#closed) return;
    this.close(error);
    this.#onLost(error);
  }
}

/** No text has been read yet: what trapped is the file. */
const fileAtFault = (cause) => new MunjangError('crashed', `The model file made the encoder crash while it was loaded: ${cause}. `
  + 'The file, most likely its tokenizer, is at fault, not a text: make it again with `munjang convert`, and please report the file.', { cause });

const workerFailed = (cause) => new MunjangError('worker_failed', `The worker could not be started: ${cause?.message ?? cause}. `
  + 'Serve worker.js beside index.js, or give its address as workerUrl, or make it yourself with createWorker; a page with a '
  + "Content-Security-Policy needs worker-src 'self' (and blob: for a package on another origin). Without any worker: { worker: false }.", { cause });
