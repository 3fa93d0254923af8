// Ours, through the entry that is kept for measuring; any module with the same `init` can be
// measured instead (`--module NAME=FILE`).
import { init as start } from '/pkg/internal/bench-entry.js';

export async function init(modelUrl, { build } = {}) {
  const encoder = await start(new URL(modelUrl, location.href).href, { build });
  return {
    encodeIds: (batch) => encoder.encodeIds(batch),
    encodeTexts: (texts) => encoder.encodeTexts(texts),
  };
}

/** As a user's page starts it: worker, tokenizer, cache. */
export async function coldStart(modelUrl, { build, text }) {
  const { loadEncoder } = await import('/pkg/index.js');
  const encoder = await loadEncoder({ modelUrl: new URL(modelUrl, location.href), build });
  await encoder.encode(text);
  return encoder.info.timings;
}
