// Where a runtime lives: a Web Worker, a worker thread of Node, or beside the caller. All three
// take requests by `post` and give answers and failures to the two callbacks.
import { defer, isNode, nodeModule } from './platform.js';

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
export function createHost(worker, onMessage, onFailure) {
  if (!worker) return inlineHost(onMessage);
  return isNode ? nodeHost(onMessage, onFailure) : browserHost(onMessage, onFailure);
}

/** Whether this environment has workers at all. */
export const workersAvailable = () => isNode || typeof Worker === 'function';

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
  return {
    // Each request is its own task, so that the page can paint and abort between batches.
    post: (message) => defer(() => void serve(message)),
    terminate: () => {
      ended = true;
      void serve({ id: -1, op: 'free' });
    },
    setBusy: () => {},
  };
}
