// onnxruntime-web, one thread, on the dynamically quantized int8 model.
import * as ort from '/modules/onnxruntime-web/dist/ort.wasm.min.mjs';
import { byLength, pool } from './batches.js';

ort.env.wasm.numThreads = 1;
ort.env.wasm.wasmPaths = '/modules/onnxruntime-web/dist/';

export async function init(modelUrl, { hidden }) {
  const session = await ort.InferenceSession.create(`${modelUrl}/onnx/model_quantized.onnx`, {
    executionProviders: ['wasm'],
    graphOptimizationLevel: 'all',
  });
  let size = 32;
  return {
    /** Sentences of one padded batch; the driver tries some and keeps the fastest. */
    setBatch: (value) => { size = value; },
    async encodeIds(batch) {
      const out = new Float32Array(batch.length * hidden);
      for (const members of byLength(batch, size)) {
        const longest = batch[members[0]].length;
        const ids = new BigInt64Array(members.length * longest).fill(1n);
        const mask = new BigInt64Array(ids.length);
        members.forEach((member, row) => {
          batch[member].forEach((id, i) => { ids[row * longest + i] = BigInt(id); });
          mask.fill(1n, row * longest, row * longest + batch[member].length);
        });
        const dims = [members.length, longest];
        const { last_hidden_state: states } = await session.run({
          input_ids: new ort.Tensor('int64', ids, dims),
          attention_mask: new ort.Tensor('int64', mask, dims),
          token_type_ids: new ort.Tensor('int64', new BigInt64Array(ids.length), dims),
        });
        members.forEach((member, row) => {
          pool(states.data, row * longest, batch[member].length, hidden, out.subarray(member * hidden, (member + 1) * hidden));
        });
        states.dispose();
      }
      return out;
    },
  };
}

/** It has no tokenizer: the first sentence comes as ids. */
export async function coldStart(modelUrl, { ids, hidden }) {
  const encoder = await init(modelUrl, { hidden });
  await encoder.encodeIds([Uint32Array.from(ids)]);
}
