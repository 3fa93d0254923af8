// Runs one contestant on this page's main thread, as the driver (run.mjs) asks.

// Every WebAssembly memory that the contestant makes, for its size: exported or imported ones.
const memories = new Set();
const keep = (result, imports) => {
  const instance = result.instance ?? result;
  for (const value of [...Object.values(instance.exports), ...Object.values(imports ?? {}).flatMap(Object.values)]) {
    if (value instanceof WebAssembly.Memory) memories.add(value);
  }
  return result;
};
for (const name of ['instantiate', 'instantiateStreaming']) {
  const original = WebAssembly[name];
  WebAssembly[name] = async (source, imports, ...rest) => keep(await original(source, imports, ...rest), imports);
}

let encoder;
let loads;

const run = (name) => (name.endsWith('text') ? encoder.encodeTexts(loads[name].texts) : encoder.encodeIds(loads[name].ids));

globalThis.bench = {
  /** Gives the names of the workloads that this contestant can run. */
  async load(module, modelUrl, options) {
    const workloads = await (await fetch('/data/workloads.json')).json();
    loads = {};
    for (const [name, { ids, texts }] of Object.entries(workloads)) {
      loads[name] = { ids: ids.map((row) => Uint32Array.from(row)) };
      if (texts) loads[`${name} text`] = { texts };
    }
    encoder = await (await import(module)).init(modelUrl, options);
    return Object.keys(loads).filter((name) => (name.endsWith('text') ? encoder.encodeTexts : encoder.encodeIds));
  },

  /** Cosine of each embedding with the f32 reference: mean and lowest. */
  async check(name) {
    globalThis.reference ??= (await (await fetch('/data/reference.json')).json()).embeddings;
    const rows = globalThis.reference[name.replace(' text', '')];
    const out = await run(name);
    const hidden = rows[0].length;
    if (out.length !== rows.length * hidden) throw new Error(`${name}: ${out.length} values, expected ${rows.length * hidden}`);
    const cosines = rows.map((row, r) => {
      let [dot, a, b] = [0, 0, 0];
      for (let i = 0; i < hidden; i++) {
        const x = out[r * hidden + i];
        dot += x * row[i];
        a += x * x;
        b += row[i] * row[i];
      }
      return dot / Math.sqrt(a * b);
    });
    return { mean: cosines.reduce((a, b) => a + b) / cosines.length, lowest: Math.min(...cosines) };
  },

  /** Milliseconds of `repeat` runs. */
  async time(name, repeat) {
    const started = performance.now();
    for (let i = 0; i < repeat; i++) await run(name);
    return performance.now() - started;
  },

  /** Runs the bare inner loop of `bytes` n times; gives milliseconds. */
  async peak(bytes, n) {
    const { instance } = await WebAssembly.instantiate(new Uint8Array(bytes));
    // So that the engine's better compiler is done with it.
    instance.exports.run(n >> 2);
    await new Promise((later) => setTimeout(later, 100));
    const started = performance.now();
    instance.exports.run(n);
    return performance.now() - started;
  },

  setBatch: (size) => encoder.setBatch?.(size),
  padded: () => Boolean(encoder.setBatch),
  memory: () => [...memories].reduce((sum, { buffer }) => sum + buffer.byteLength, 0),

  /** From the start of the navigation to the first embedding. */
  async coldStart(module, modelUrl, options) {
    const timings = await (await import(module)).coldStart(modelUrl, options);
    return { ms: performance.now(), timings };
  },
};

// A cold start begins by itself: waiting for the driver's word would count as loading.
if (location.hash) {
  globalThis.cold = globalThis.bench.coldStart(...JSON.parse(decodeURIComponent(location.hash.slice(1))));
  globalThis.cold.catch(() => {});
}
