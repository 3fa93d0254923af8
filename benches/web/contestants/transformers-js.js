// transformers.js: the same int8 model with its tokenizer and pooling; text in.
import { env, pipeline } from '/modules/@huggingface/transformers/dist/transformers.web.min.js';
import { byLength } from './batches.js';

env.allowRemoteModels = false;
env.allowLocalModels = true;
env.backends.onnx.wasm.numThreads = 1;
env.backends.onnx.wasm.wasmPaths = '/modules/@huggingface/transformers/node_modules/onnxruntime-web/dist/';

export async function init(modelUrl, { hidden }) {
  const folder = modelUrl.lastIndexOf('/');
  env.localModelPath = modelUrl.slice(0, folder + 1);
  const extract = await pipeline('feature-extraction', modelUrl.slice(folder + 1), { dtype: 'q8', device: 'wasm' });
  let size = 32;
  return {
    setBatch: (value) => { size = value; },
    async encodeTexts(texts) {
      const out = new Float32Array(texts.length * hidden);
      for (const members of byLength(texts, size)) {
        const rows = await extract(members.map((i) => texts[i]), { pooling: 'mean', normalize: true });
        members.forEach((member, row) => out.set(rows.data.subarray(row * hidden, (row + 1) * hidden), member * hidden));
      }
      return out;
    },
  };
}

export async function coldStart(modelUrl, { text, hidden }) {
  const encoder = await init(modelUrl, { hidden });
  await encoder.encodeTexts([text]);
}
