// How a runtime answers requests, in a worker or beside the caller.
import { defer, now } from './environment.js';
import { VERSION, otherVersion, toMessage } from './protocol.js';
import { Runtime } from './runtime.js';

/**
 * Answers requests. A request is { id, op, … }; an answer is { id, result } or { id, error } or, on the way
 * to it, { id, needs: 'general' }: send the general code. `take` (the file's next bytes) and `drop` (give up the
 * batch of that id) have no answer, `pulse` a message without an id. Every message carries the version.
 *
 * @param {(message: object, transfer?: Transferable[]) => void} send
 * @returns {(request: { id: number, op: string }) => Promise<void>}
 */
export function createService(send) {
  const post = (message, transfer) => send({ ...message, version: VERSION }, transfer);
  const runtime = new Runtime(() => post({ kept: true }));
  // Comes in a message of its own: the model need not wait for it.
  let resolveCode;
  const nextCode = () => new Promise((resolve) => {
    resolveCode = resolve;
  });
  let code = nextCode();

  const batches = createBatches((request) => {
    const { id, op, texts } = request;
    try {
      const started = now();
      const result = op === 'encode' ? runtime.encode(texts) : runtime.count(texts);
      const ms = now() - started;
      post({ id, result, ms }, op === 'encode'
        ? [result.embeddings.buffer, result.tokenCounts.buffer, result.truncated.buffer] : [result.buffer]);
    } catch (error) {
      postError(id, error);
    }
  });

  const postError = (id, error) => {
    // What carries a code was found and reported by the code in charge. Anything else is a trap,
    // an exhausted stack or memory: the instance's state is unknown, so it must not go on.
    const fatal = typeof error?.code !== 'string';
    post({ id, error: toMessage(error), fatal });
  };

  const answer = async (request) => {
    switch (request.op) {
      case 'code':
        resolveCode(request.module);
        return [undefined];
      case 'load': {
        const { id } = request;
        const result = await runtime.load(request, code, () => {
          code = nextCode();
          post({ id, needs: 'general' });
          return code;
        });
        return [result, result.shared ? [result.shared] : []];
      }
      case 'memory':
        return [runtime.memory()];
      case 'release': {
        const result = runtime.release();
        return [result, result ? [result.bytes] : []];
      }
      case 'free':
        runtime.free();
        return [undefined];
    }
    throw new Error(`no such request: ${request.op}`);
  };

  return async (request) => {
    const { id, op, version } = request;
    if (version !== VERSION) {
      post({ id, error: toMessage(otherVersion('worker', version)) });
      return;
    }
    switch (op) {
      case 'pulse':
        post({});
        return;
      case 'take':
        runtime.take(request.chunk);
        return;
      case 'encode':
      case 'count':
        batches.add(request);
        return;
      case 'drop':
        batches.drop(request.batch);
        return;
    }
    try {
      const [result, transfer] = await answer(request);
      post({ id, result }, transfer);
    } catch (error) {
      postError(id, error);
    }
  };
}

/** So many batches of short calls may overtake one of a long call that waits. */
const SHORT_RUN = 8;

/**
 * Batches that wait for their turn, those of short calls first. Each runs in a task of its own, so that messages
 * that came meanwhile (a short call, a drop) are heard before the next one.
 * @param {(request: object) => void} run
 */
function createBatches(run) {
  const short = [];
  const long = [];
  let inARow = 0;
  let awake = false;
  const step = () => {
    const fromShort = short.length > 0 && (long.length === 0 || inARow < SHORT_RUN);
    const request = (fromShort ? short : long).shift();
    if (request === undefined) {
      awake = false;
      return;
    }
    inARow = fromShort ? inARow + 1 : 0;
    run(request);
    defer(step);
  };
  return {
    add(request) {
      (request.short ? short : long).push(request);
      if (awake) return;
      awake = true;
      step();
    },
    drop(id) {
      for (const queue of [short, long]) {
        const at = queue.findIndex((request) => request.id === id);
        if (at >= 0) queue.splice(at, 1);
      }
    },
  };
}
