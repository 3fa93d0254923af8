// One runtime and the requests that it has not answered yet.
import { MunjangError, fromMessage } from './errors.js';
import { createHost } from './hosts.js';

/** The id of the last request of all. */
const SETTLE = 0;

export class Lane {
  /** Batches under way; set by whoever hands them out. */
  inFlight = 0;
  #host;
  #pending = new Map();
  #nextId = 1;
  #closed = false;
  #answered = false;
  #onLost;

  /**
   * @param {boolean} worker
   * @param {(error: MunjangError) => void} onLost called once if the runtime dies by itself
   */
  static async open(worker, onLost) {
    const lane = new Lane();
    lane.#onLost = onLost;
    try {
      lane.#host = await createHost(worker, (message) => lane.#receive(message), (cause) => lane.#lose(cause));
    } catch (cause) {
      throw new MunjangError('worker_failed', workerFailed(cause), { cause });
    }
    return lane;
  }

  /**
   * @param {{ op: string }} request
   * @param {object} [options]
   * @param {Transferable[]} [options.transfer]
   * @param {(progress: any) => void} [options.onProgress]
   * @returns {Promise<any>}
   */
  call(request, { transfer, onProgress } = {}) {
    const id = this.#nextId++;
    return new Promise((resolve, reject) => {
      this.#pending.set(id, { resolve, reject, onProgress });
      this.#host.post({ ...request, id }, transfer);
    });
  }

  /** @param {boolean} busy */
  setBusy(busy) {
    this.#host.setBusy(busy);
  }

  /**
   * Ends the runtime; what is pending is rejected with `error`.
   * @param {unknown} error
   * @param {boolean} [settle] let it finish keeping the model in the cache
   */
  close(error, settle = false) {
    if (this.#closed) return;
    this.#closed = true;
    if (settle) this.#host.post({ id: SETTLE, op: 'settle' });
    else this.#host?.terminate();
    for (const { reject } of this.#pending.values()) reject(error);
    this.#pending.clear();
  }

  #receive({ id, result, error, fatal, progress }) {
    if (this.#closed) {
      if (id === SETTLE) this.#host.terminate();
      return;
    }
    this.#answered = true;
    if (fatal) {
      this.#lose(error.message);
      return;
    }
    const pending = this.#pending.get(id);
    if (!pending) return;
    if (progress) {
      try {
        pending.onProgress?.(progress);
      } catch (thrown) {
        // The caller's own callback failed; so does the caller's call.
        this.#pending.delete(id);
        pending.reject(thrown);
      }
      return;
    }
    this.#pending.delete(id);
    if (error) pending.reject(fromMessage(error));
    else pending.resolve(result);
  }

  #lose(cause) {
    if (this.#closed) return;
    const error = this.#answered
      ? new MunjangError('crashed', `The encoder crashed: ${cause?.message ?? cause}. The next call starts a fresh one; `
        + 'please report the text that did it.', { cause })
      : new MunjangError('worker_failed', workerFailed(cause), { cause });
    this.close(error);
    this.#onLost(error);
  }
}

const workerFailed = (cause) => `The worker could not be started: ${cause?.message ?? cause}. Serve worker.js beside `
  + 'index.js (bundlers must not inline it away), or pass { worker: false }.';
