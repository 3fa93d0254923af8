/**
 * munjang: Korean sentence embeddings inside the page.
 *
 * @example
 * import { loadEncoder } from 'munjang';
 * const encoder = await loadEncoder();
 * const [[score]] = await encoder.similarity('비가 옵니다.', '밖에 비가 내려요.');
 *
 * @module
 */
import { chooseBuild } from './code.js';
import { clearModelCache } from './cache.js';
import { resolveUrl } from './environment.js';
import { MunjangError, throwIfAborted } from './errors.js';
import { SentenceEncoder } from './encoder.js';
import { workersAvailable } from './lane.js';
import { defaultModel } from './model/model.js';
// Named here too, so that it is asked for at once with the others.
import './loader.js';

export { MunjangError, SentenceEncoder, clearModelCache };

/**
 * Loads a model and readies it for use; index.d.ts describes the options.
 * @param {import('./index.js').LoadOptions} [options]
 * @returns {Promise<SentenceEncoder>}
 */
export async function loadEncoder(options = {}) {
  const { modelUrl, signal, onProgress, worker = true, workers, cache = true, build } = options;
  throwIfAborted(signal);
  if (workers !== undefined && !(Number.isInteger(workers) && workers >= 1 && workers <= 64)) {
    throw new MunjangError('input_invalid', `workers is ${String(workers)}; expected a whole number from 1 to 64.`);
  }
  if (!worker && workers > 1) {
    throw new MunjangError('input_invalid', `workers is ${workers}, but worker is false; leave one of the two out.`);
  }
  const inWorker = Boolean(worker) && workersAvailable();
  const request = {
    build: chooseBuild(build),
    source: modelUrl === undefined ? defaultModel() : { url: await resolve(modelUrl) },
    cache: Boolean(cache),
    worker: inWorker,
    workers: inWorker ? (workers ?? 1) : 1,
  };
  return SentenceEncoder.load(request, signal, onProgress);
}

async function resolve(modelUrl) {
  try {
    if (typeof modelUrl === 'string' || modelUrl instanceof URL) return await resolveUrl(modelUrl);
  } catch (cause) {
    throw new MunjangError('input_invalid', `modelUrl is not an address: ${String(modelUrl)}.`, { cause });
  }
  throw new MunjangError('input_invalid', `modelUrl is a ${typeof modelUrl}; expected a string or a URL.`);
}
