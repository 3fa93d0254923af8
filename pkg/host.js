// Where a runtime lives: in a Web Worker, in a worker thread of Node, or beside the caller. All hosts take requests
// by `post` and give answers and failures to the two callbacks.
import { defer, isNode, nodeModule, ownOrigin, workerClass } from './environment.js';
import { MunjangError } from './errors.js';
// Not imported when needed: service workers forbid that.
import { createService } from './service.js';
import { VERSION } from './protocol.js';

/**
 * @typedef {object} Host
 * @property {(message: object, transfer?: Transferable[]) => void} post
 * @property {() => void} terminate
 * @property {(busy: boolean) => void} setBusy Node only: an idle worker does not keep the process alive
 * @property {boolean} silentDeath whether it may be ended from outside without a word
 */

/**
 * @typedef {object} WorkerOptions
 * @property {string} [url] of the package's worker.js, where it does not lie beside the code
 * @property {() => Worker | Promise<Worker>} [create] makes the worker
 */

/**
 * @param {false | WorkerOptions} worker
 * @param {(message: any) => void} onMessage
 * @param {(cause: unknown) => void} onFailure the runtime is gone
 * @returns {Promise<Host>}
 */
export async function createHost(worker, onMessage, onFailure) {
  if (!worker) return inlineHost(onMessage);
  if (worker.create) return webHost(await worker.create(), onMessage, onFailure);
  if (isNode) return nodeHost(worker.url, onMessage, onFailure);
  return webHost(spawn(worker.url), onMessage, onFailure);
}

/** Whether this environment has workers at all. */
export const workersAvailable = () => isNode || workerClass() !== undefined;

function webHost(worker, onMessage, onFailure) {
  if (typeof worker?.postMessage !== 'function' || typeof worker.terminate !== 'function') {
    throw new MunjangError('worker_failed', 'createWorker gave something else than a Worker.');
  }
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
    silentDeath: true,
  };
}

/**
 * The address of worker.js, and what it is: bundlers find and rewrite exactly the expression below, and nothing
 * else in a bundle tells where they put the file. So it is run with a stand-in for the class, for this moment.
 */
function bundledWorker() {
  const { Worker: real } = globalThis;
  const had = 'Worker' in globalThis;
  let found;
  // An arrow function could not be called with `new`.
  globalThis.Worker = function (url, options) {
    found = { url: String(url), options };
  };
  try {
    new Worker(new URL('./worker.js', import.meta.url), { type: 'module' });
  } finally {
    if (had) globalThis.Worker = real;
    else delete globalThis.Worker;
  }
  return found;
}

function spawn(given) {
  const Class = workerClass();
  const { url, options } = given === undefined ? bundledWorker() : { url: given, options: { type: 'module' } };
  const address = new URL(url, globalThis.location?.href);
  if (!/^https?:$/.test(address.protocol) || address.origin === ownOrigin()) {
    return new Class(url, { ...options, name: 'munjang' });
  }
  // A script from another origin (a CDN) may not be a worker, but a worker may load it. Asked of the origin, not
  // of an exception: Firefox throws none.
  const load = options?.type === 'module' ? `import ${JSON.stringify(address.href)};` : `importScripts(${JSON.stringify(address.href)});`;
  const blob = URL.createObjectURL(new Blob([load], { type: 'text/javascript' }));
  return new Class(blob, { ...options, name: 'munjang' });
}

async function nodeHost(given, onMessage, onFailure) {
  const { Worker: Thread } = await nodeModule('node:worker_threads');
  const thread = new Thread(new URL(given ?? bundledWorker().url), {
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
    silentDeath: false,
  };
}

function inlineHost(onMessage) {
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
      void serve({ id: -1, op: 'free', version: VERSION });
    },
    setBusy: () => {},
    silentDeath: false,
  };
}
