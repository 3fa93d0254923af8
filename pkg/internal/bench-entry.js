// For measuring the encoder from outside on any converted checkpoint, token ids in. Not part of
// the package's public face. Runs on the calling thread, so that its CPU time can be read there.
import { chooseBuild, compileCode } from '../code.js';
import { resolveUrl } from '../environment.js';
import { openModel, sendModel } from '../loader.js';
import { Runtime } from '../runtime.js';

/**
 * @param {string | URL} modelUrl a model file; no manifest is needed
 * @param {{ build?: 'simd128' | 'relaxed' }} [opts]
 * @returns {Promise<{
 *   encodeIds(batch: Uint32Array[]): Float32Array,
 *   encodeTexts(texts: string[]): Float32Array,
 *   countTokens(texts: string[]): Uint32Array,
 *   info: object,
 *   memoryBytes(): number,
 *   dispose(): void,
 * }>} `encodeIds` and `encodeTexts` give n × hidden_size values, row by row
 */
export async function init(modelUrl, opts = {}) {
  const runtime = new Runtime();
  const build = chooseBuild(opts.build);
  const code = compileCode(build);
  const model = await openModel({ url: await resolveUrl(modelUrl) }, false);
  const loaded = await sendModel(model, {
    load: (file) => runtime.load(file, code, () => compileCode(build, true)),
    take: (chunk) => runtime.take(chunk),
  });
  return {
    encodeIds: (batch) => runtime.encodeIds(batch),
    encodeTexts: (texts) => runtime.encode(texts).embeddings,
    countTokens: (texts) => runtime.count(texts),
    info: { ...loaded, build },
    memoryBytes: () => runtime.memory(),
    dispose: () => runtime.free(),
  };
}
