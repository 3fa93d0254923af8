// Measures one build on this thread: token ids in, embeddings out, then the same with text.
import { init } from '../pkg/internal/bench-entry.js';
import { defaultModel } from '../pkg/model/model.js';
import { WORKLOADS, texts, tokenIds } from './workloads.js';

self.onmessage = async ({ data: { build, rounds } }) => {
  try {
    const encoder = await init(defaultModel().url, { build });
    const { vocab_size, max_position_embeddings } = encoder.info.config;
    const results = {};
    for (const [name, lengths] of Object.entries(WORKLOADS)) {
      const batch = tokenIds(lengths.map((n) => Math.min(n, max_position_embeddings)), vocab_size);
      results[name] = measure(() => encoder.encodeIds(batch), rounds);
      self.postMessage({ build, results });
    }
    const sentences = texts(256);
    results['w2 text'] = measure(() => encoder.encodeTexts(sentences), rounds);
    self.postMessage({
      build, results, done: true, timings: encoder.info.timings, modelId: encoder.info.modelId, kernel: encoder.info.kernel,
      memoryMb: encoder.memoryBytes() / 1e6,
    });
  } catch (error) {
    self.postMessage({ build, error: `${error.code ?? ''} ${error.message}` });
  }
};

/** Milliseconds per run: median, fastest and slowest of several rounds, each long enough to time. */
function measure(run, rounds) {
  run();
  let repeat = 1;
  for (;;) {
    const once = time(run, repeat);
    if (once >= 20 || repeat >= 256) break;
    repeat *= 2;
  }
  const times = Array.from({ length: rounds }, () => time(run, repeat) / repeat).sort((a, b) => a - b);
  return { median: times[rounds >> 1], min: times[0], max: times[rounds - 1] };
}

function time(run, repeat) {
  const started = performance.now();
  for (let i = 0; i < repeat; i++) run();
  return performance.now() - started;
}
