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
import { clearModelCache } from './cache.js';
import { chooseBuild } from './code.js';
import { SentenceEncoder } from './encoder.js';
import { isNode, resolveUrl } from './environment.js';
import { MunjangError, throwIfAborted } from './errors.js';
import { workersAvailable } from './host.js';
import { isKept } from './loader.js';
import { defaultModel } from './model/model.js';
import { checkLoadOptions, checkModelUrl, kindOf } from './options.js';
import { cosineSimilarity } from './similarity.js';
// Named here too, so that they are asked for at once with the others.
import './runtime.js';
import './wasm/munjang.js';

export { MunjangError, SentenceEncoder, clearModelCache, cosineSimilarity };

/**
 * Loads a model and readies it for use; index.d.ts describes the options.
 * @param {import('./index.js').LoadOptions} [options]
 * @returns {Promise<SentenceEncoder>}
 */
export async function loadEncoder(options) {
  const { modelUrl, wasmUrl, workerUrl, createWorker, signal, onProgress, worker, workers, cache, build } = checkLoadOptions(options);
  throwIfAborted(signal);
  const described = workerUrl !== undefined || createWorker !== undefined;
  const inWorker = worker && (described || workersAvailable());
  const request = {
    build: chooseBuild(build),
    source: modelUrl === undefined ? shippedModel() : { url: await resolve(modelUrl, 'modelUrl') },
    wasmUrl: await resolve(wasmUrl, 'wasmUrl'),
    cache,
    worker: inWorker && { url: await resolve(workerUrl, 'workerUrl'), create: createWorker },
    workers: inWorker ? (workers ?? 1) : 1,
  };
  return SentenceEncoder.load(request, signal, onProgress);
}

/**
 * Whether the model is in the browser's cache.
 * @param {{ modelUrl?: string | URL }} [options]
 * @returns {Promise<boolean>}
 */
export async function isCached(options) {
  const modelUrl = checkModelUrl(options);
  return isKept(modelUrl === undefined ? shippedModel() : { url: await resolve(modelUrl, 'modelUrl') });
}

async function resolve(address, name) {
  if (address === undefined) return undefined;
  try {
    return await resolveUrl(address);
  } catch (cause) {
    throw new MunjangError('input_invalid', `${name} is not an address: ${kindOf(address)}.`, { cause });
  }
}

/** The model beside the code, if a bundler has left it findable. */
function shippedModel() {
  let model;
  try {
    model = defaultModel();
    // A server's bundle may have made it an address of the site: no file, and nothing to fetch.
    if (isNode) new URL(model.url);
    return model;
  } catch (cause) {
    throw new MunjangError('model_not_found', `The package's model has no address here${model ? ` (${model.url})` : ''}: a bundler has moved the `
      + "code away from it. Leave the package out of server bundles (Next: serverExternalPackages: ['munjang']; others: mark it external), bundle for "
      + "browsers as ES modules (format 'esm'), or give { wasmUrl, workerUrl, modelUrl }.", { cause });
  }
}
