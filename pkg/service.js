// Answers requests, in a worker or beside the caller. A request is { id, op, … }; an answer is
// { id, result } or { id, error } or, on the way to it, { id, progress }.
import { toMessage } from './errors.js';
import { Runtime } from './runtime.js';

/**
 * @param {(message: object, transfer?: Transferable[]) => void} post
 * @returns {(request: { id: number, op: string }) => Promise<void>}
 */
export function createService(post) {
  const runtime = new Runtime();
  const loading = new AbortController();
  // Comes in a message of its own: the model's download need not wait for it.
  let resolveCode;
  const code = new Promise((resolve) => {
    resolveCode = resolve;
  });

  const answer = async (request) => {
    switch (request.op) {
      case 'load': {
        const { id } = request;
        const result = await runtime.load(request, code, loading.signal, (progress) => post({ id, progress }));
        return [result, result.shared ? [result.shared] : []];
      }
      case 'code':
        resolveCode(request.module);
        return [undefined];
      case 'encode': {
        const result = runtime.encode(request.texts);
        return [result, [result.embeddings.buffer, result.tokenCounts.buffer, result.truncated.buffer]];
      }
      case 'count':
        return [runtime.count(request.texts)];
      case 'memory':
        return [runtime.memory()];
      case 'settle':
        return [await runtime.settled()];
      case 'free':
        loading.abort();
        runtime.free();
        return [undefined];
    }
    throw new Error(`no such request: ${request.op}`);
  };

  return async (request) => {
    const { id } = request;
    try {
      const [result, transfer] = await answer(request);
      post({ id, result }, transfer);
    } catch (error) {
      // What carries a code was found and reported by the code in charge. Anything else is a trap,
      // an exhausted stack or memory: the instance's state is unknown, so it must not go on.
      const fatal = typeof error?.code !== 'string';
      post({ id, error: toMessage(error), fatal });
    }
  };
}
