// Measures one build on this thread: token ids in, embeddings out, then the same with text.
import { init } from '../pkg/internal/bench-entry.js';
import { defaultModel } from '../pkg/model/model.js';
import { WORKLOADS, texts, tokenIds } from './workloads.js';

const ROUNDS = 7;

self.onmessage = async ({ data: { build } }) => {
  try {
    const encoder = await init(defaultModel().url, { build });
    const { vocab_size, max_position_embeddings } = encoder.info.config;
    const results = {};
    for (const [name, lengths] of Object.entries(WORKLOADS)) {
      const batch = tokenIds(lengths.map((n) => Math.min(n, max_position_embeddings)), vocab_size);
      results[name] = measure(() => encoder.encodeIds(batch));
      self.postMessage({ build, results });
    }
    const sentences = texts(256);
    results['w2 text'] = measure(() => encoder.encodeTexts(sentences));
    self.postMessage({
      build, results, done: true, timings: encoder.info.timings, modelId: encoder.info.modelId, kernel: encoder.info.kernel,
      memoryMb: encoder.memoryBytes() / 1e6,
    });
  } catch (error) {
    self.postMessage({ build, error: `${error.code ?? ''} ${error.message}` });
  }
};

/** Milliseconds per run: median, fastest and slowest of several rounds, each long enough to time. */
function measure(run) {
  run();
  let repeat = 1;
  for (;;) {
    const once = time(run, repeat);
    if (once >= 20 || repeat >= 256) break;
    repeat *= 2;
  }
  const rounds = Array.from({ length: ROUNDS }, () => time(run, repeat) / repeat).sort((a, b) => a - b);
  return { median: rounds[ROUNDS >> 1], min: rounds[0], max: rounds[ROUNDS - 1] };
}

function time(run, repeat) {
  const started = performance.now();
  for (let i = 0; i < repeat; i++) run();
  return performance.now() - started;
}
