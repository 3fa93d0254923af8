// An encoder for tests of the index: texts that share bigrams lie near each other. What it was asked is in `texts`;
// `gate`, if set, is waited for before each answer.
const hash = (text, seed) => {
  let h = 2166136261 ^ seed;
  for (let i = 0; i < text.length; i++) h = Math.imul(h ^ text.charCodeAt(i), 16777619);
  h = Math.imul(h ^ (h >>> 15), 2246822507);
  return (h ^ (h >>> 13)) >>> 0;
};

/** A turn of the event loop; timers are slow in a tab that nobody looks at. */
const turn = () => new Promise((resolve) => {
  const { port1, port2 } = new MessageChannel();
  port1.onmessage = () => {
    port1.close();
    resolve();
  };
  port2.postMessage(0);
});

export function fakeEncoder({ modelId = '0123456789abcdef', hiddenSize = 32 } = {}) {
  const embed = (text) => {
    const vector = new Float32Array(hiddenSize).fill(0.01);
    for (let i = 0; i + 1 < text.length; i++) {
      const gram = text.slice(i, i + 2);
      for (let k = 0; k < 4; k++) vector[hash(gram, k) % hiddenSize] += (hash(gram, k + 9) % 2) * 2 - 1;
    }
    const norm = Math.hypot(...vector);
    return vector.map((x) => x / norm);
  };
  const encoder = {
    info: { modelId, hiddenSize },
    texts: [],
    gate: undefined,
    async encode(input, { signal } = {}) {
      const stop = () => Object.assign(new Error('The call was aborted by its signal.'), { code: 'aborted', name: 'AbortError' });
      if (signal?.aborted) throw stop();
      const list = typeof input === 'string' ? [input] : [...input];
      if (encoder.gate && typeof input !== 'string') {
        await Promise.race([encoder.gate, new Promise((_, reject) => signal?.addEventListener('abort', () => reject(stop())))]);
      } else {
        await turn();
      }
      if (signal?.aborted) throw stop();
      encoder.texts.push(...list);
      const vectors = list.map(embed);
      return typeof input === 'string' ? vectors[0] : vectors;
    },
  };
  return encoder;
}

/** A gate and its key. */
export function gate() {
  let open;
  const closed = new Promise((resolve) => {
    open = resolve;
  });
  return [closed, open];
}

export const notes = (n, from = 0) =>
  Array.from({ length: n }, (_, i) => ({ id: from + i, text: `${from + i}번째 메모에는 ${hash(String(from + i), 1) % 1000}호 창고 이야기가 있다.`, data: { n: from + i } }));

export const codeOf = (promise) => promise.then(() => 'no error', (error) => error.code ?? error.stack);
