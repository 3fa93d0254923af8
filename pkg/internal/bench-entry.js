// For measuring the encoder from outside on any converted checkpoint, token ids in. Not part of
// the package's public face. Runs on the calling thread, so that its CPU time can be read there.
import { compileCode } from '../code.js';
import { chooseBuild } from '../features.js';
import { resolveUrl } from '../platform.js';
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
  const source = { url: await resolveUrl(modelUrl) };
  const build = chooseBuild(opts.build);
  const info = await runtime.load({ build, source, cache: false }, compileCode(build));
  return {
    encodeIds: (batch) => runtime.encodeIds(batch),
    encodeTexts: (texts) => runtime.encode(texts).embeddings,
    countTokens: (texts) => runtime.count(texts),
    info,
    memoryBytes: () => runtime.memory(),
    dispose: () => runtime.free(),
  };
}
