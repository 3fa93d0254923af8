// One runtime and the requests that it has not answered yet. It lives in a Web Worker, in a worker thread
// of Node, or beside the caller.
import { defer, isNode, nodeModule, workerClass } from './environment.js';
import { MunjangError } from './errors.js';
import { fromMessage } from './protocol.js';

/** The id of the last request of all. */
const SETTLE = 0;

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
      this.#pending.set(id, { resolve, reject, onNeeds });
      this.#host.post({ ...request, id }, transfer);
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
      this.#pending.set(id, { resolve: (result, ms) => resolve({ result, ms }), reject });
      this.#host.post({ ...request, id });
      drop = () => {
        if (!this.#pending.delete(id)) return;
        if (!this.#closed) this.#host.post({ op: 'drop', batch: id });
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
    this.#host.post({ op: 'take', chunk: own }, [own.buffer]);
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
    this.#closed = error ?? new MunjangError('disposed', 'The runtime was closed.');
    if (settle) this.#host.post({ id: SETTLE, op: 'settle' });
    else this.#host?.terminate();
    for (const { reject } of this.#pending.values()) reject(error);
    this.#pending.clear();
  }

  #receive({ id, result, ms, error, fatal, needs }) {
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
    if (needs) {
      pending.onNeeds?.();
      return;
    }
    this.#pending.delete(id);
    if (error) pending.reject(fromMessage(error));
    else pending.resolve(result, ms);
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

// All hosts take requests by `post` and give answers and failures to the two callbacks.

/**
 * @typedef {object} Host
 * @property {(message: object, transfer?: Transferable[]) => void} post
 * @property {() => void} terminate
 * @property {(busy: boolean) => void} setBusy Node only: an idle worker does not keep the process alive
 */

/**
 * @param {boolean} worker
 * @param {(message: any) => void} onMessage
 * @param {(cause: unknown) => void} onFailure the runtime is gone
 * @returns {Promise<Host>}
 */
function createHost(worker, onMessage, onFailure) {
  if (!worker) return inlineHost(onMessage);
  return isNode ? nodeHost(onMessage, onFailure) : browserHost(onMessage, onFailure);
}

/** Whether this environment has workers at all. */
export const workersAvailable = () => isNode || workerClass() !== undefined;

/** An address beside this file that bundlers shall not follow: they know the worker from `spawn`. */
function unbundled(path) {
  const here = import.meta.url;
  return new URL(path, here);
}

async function browserHost(onMessage, onFailure) {
  const worker = spawn();
  worker.onmessage = (event) => onMessage(event.data);
  worker.onerror = (event) => {
    event.preventDefault?.();
    onFailure(event.message || 'the worker script could not be loaded');
  };
  worker.onmessageerror = () => onFailure('a message could not be read');
  return {
    post: (message, transfer = []) => worker.postMessage(message, transfer),
    terminate: () => worker.terminate(),
    setBusy: () => {},
  };
}

function spawn() {
  try {
    return new Worker(new URL('./worker.js', import.meta.url), { type: 'module', name: 'munjang' });
  } catch (error) {
    // A script from another origin (a CDN) may not be a worker, but a worker may import it.
    if (error?.name !== 'SecurityError') throw error;
    const script = `import ${JSON.stringify(unbundled('./worker.js').href)};`;
    const blob = URL.createObjectURL(new Blob([script], { type: 'text/javascript' }));
    return new Worker(blob, { type: 'module', name: 'munjang' });
  }
}

async function nodeHost(onMessage, onFailure) {
  const { Worker: Thread } = await nodeModule('node:worker_threads');
  const thread = new Thread(unbundled('./worker.js'), {
    // Options such as --input-type are about the main program, and would break the worker.
    execArgv: [],
  });
  let ended = false;
  thread.on('message', onMessage);
  thread.on('messageerror', onFailure);
  thread.on('error', onFailure);
  thread.on('exit', (code) => {
    if (!ended) onFailure(`the worker thread ended with code ${code}`);
  });
  return {
    post: (message, transfer) => thread.postMessage(message, transfer),
    terminate: () => {
      ended = true;
      void thread.terminate();
    },
    setBusy: (busy) => (busy ? thread.ref() : thread.unref()),
  };
}

async function inlineHost(onMessage) {
  const { createService } = await import('./service.js');
  let ended = false;
  const serve = createService((message) => {
    if (!ended) onMessage(message);
  });
  const queue = [];
  return {
    // Each request is its own task, so that the page can paint and abort between batches. Tasks may not
    // keep their order, requests must.
    post: (message) => {
      queue.push(message);
      defer(() => void serve(queue.shift()));
    },
    terminate: () => {
      ended = true;
      void serve({ id: -1, op: 'free' });
    },
    setBusy: () => {},
  };
}
