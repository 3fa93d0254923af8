// What search.mjs runs in the page: contestants over the same vectors and queries.

const K = 10;

const CONTESTANTS = [
  { name: 'munjang int8', make: (rows) => ours(rows, { precision: 'int8' }) },
  { name: 'munjang float32', make: (rows) => ours(rows, { precision: 'float32' }) },
  { name: 'munjang binary', make: (rows) => ours(rows, { precision: 'binary' }) },
  { name: 'munjang binary, 200 rescored', make: (rows) => ours(rows, { precision: 'binary', rescore: true }) },
  { name: 'Float32Array loop', make: loop },
  { name: 'hnswlib-wasm', make: hnswlib, isPeer: true },
  { name: 'edgevec', make: edgevec, isPeer: true },
];

/** A search gives the places of the best `K` rows, best first. */
async function ours({ vectors, count, dimension }, options) {
  const { VectorIndex } = await import('/p/vector_index.js');
  const { searchCore } = await import('/p/search_core.js');
  const { memory } = await searchCore();
  const index = await VectorIndex.create({ dimension, ...options });
  const before = memory.buffer.byteLength;
  const started = performance.now();
  for (let from = 0; from < count; from += 4096) {
    const to = Math.min(from + 4096, count);
    index.addMany(Array.from({ length: to - from }, (_, i) => from + i), vectors(from, to));
  }
  return {
    build: performance.now() - started,
    bytes: memory.buffer.byteLength - before,
    search: (query) => index.search(query, { topK: K }).map(({ id }) => id),
    free: () => index.dispose(),
  };
}

async function loop({ vectors, count, dimension }) {
  const started = performance.now();
  const all = new Float32Array(count * dimension);
  for (let from = 0; from < count; from += 4096) all.set(vectors(from, Math.min(from + 4096, count)), from * dimension);
  return {
    build: performance.now() - started,
    bytes: all.byteLength,
    search: (query) => {
      const best = [];
      let least = -Infinity;
      for (let row = 0, at = 0; row < count; row++) {
        let [a, b, c, d] = [0, 0, 0, 0];
        for (let i = 0; i < dimension; i += 4, at += 4) {
          a += all[at] * query[i];
          b += all[at + 1] * query[i + 1];
          c += all[at + 2] * query[i + 2];
          d += all[at + 3] * query[i + 3];
        }
        const score = a + b + c + d;
        if (score > least) {
          best.push({ row, score });
          best.sort((x, y) => y.score - x.score);
          if (best.length > K) best.pop();
          if (best.length === K) least = best[K - 1].score;
        }
      }
      return best.map(({ row }) => row);
    },
    free: () => {},
  };
}

async function hnswlib({ vectors, count, dimension }) {
  const { loadHnswlib } = await import('/modules/hnswlib-wasm/dist/hnswlib.js');
  const lib = await loadHnswlib();
  const started = performance.now();
  // Its documented parameters.
  const index = new lib.HierarchicalNSW('ip', dimension, '');
  index.initIndex(count, 16, 200, 100);
  for (let row = 0; row < count; row++) index.addPoint(vectors(row, row + 1).slice(), row, false);
  index.setEfSearch(64);
  return {
    build: performance.now() - started,
    search: (query) => index.searchKnn(query, K, undefined).neighbors,
    free: () => {},
  };
}

async function edgevec({ vectors, count, dimension }) {
  const lib = await import('/modules/edgevec/edgevec.js');
  await lib.default();
  const config = new lib.EdgeVecConfig(dimension);
  // Of unit vectors the same ranking; with 'cosine' version 0.9.0 gives the least similar first.
  config.metric = 'l2';
  const started = performance.now();
  const index = new lib.EdgeVec(config);
  const places = new Map();
  for (let row = 0; row < count; row++) places.set(index.insert(vectors(row, row + 1).slice()), row);
  return {
    build: performance.now() - started,
    search: (query) => index.search(query, K).map(({ id }) => places.get(id)),
    free: () => index.free(),
  };
}

/** The exact best rows, in doubles. */
function exact({ vectors, count, dimension }, query) {
  const scores = new Float64Array(count);
  for (let from = 0; from < count; from += 4096) {
    const part = vectors(from, Math.min(from + 4096, count));
    for (let row = 0; row * dimension < part.length; row++) {
      let sum = 0;
      for (let i = 0; i < dimension; i++) sum += part[row * dimension + i] * query[i];
      scores[from + row] = sum;
    }
  }
  return Array.from(scores.keys()).sort((a, b) => scores[b] - scores[a] || a - b).slice(0, K);
}

globalThis.measure = async ({ url, offset, total, dimension, rows, queries, rounds, peers, onlyTime, skip }) => {
  const file = await (await fetch(url)).arrayBuffer();
  const all = new Float32Array(file, offset, total * dimension);
  const real = total - queries;
  const asked = Array.from({ length: queries }, (_, i) => all.slice((real + i) * dimension, (real + i + 1) * dimension));
  const vectors = (from, to) => {
    if (to <= real) return all.subarray(from * dimension, to * dimension);
    const part = new Float32Array((to - from) * dimension);
    for (let row = from; row < to; row++) part.set(all.subarray((row % real) * dimension, (row % real + 1) * dimension), (row - from) * dimension);
    return part;
  };
  const data = { vectors, count: rows, dimension };
  const contestants = [];
  for (const { name, make, isPeer } of CONTESTANTS) {
    if (skip.includes(name) || (isPeer && !peers) || (onlyTime && name !== 'munjang int8' && name !== 'munjang binary')) continue;
    console.log(`building: ${name}, ${rows}`);
    try {
      contestants.push({ name, times: [], ...await make(data) });
    } catch (error) {
      contestants.push({ name, failed: String(error?.message ?? error) });
    }
  }
  const running = contestants.filter(({ failed }) => !failed);
  if (!onlyTime) {
    for (const one of running) one.recall = 0;
    for (const query of asked.slice(0, Math.min(queries, 100))) {
      const best = new Set(exact(data, query));
      for (const one of running) one.recall += one.search(query).filter((row) => best.has(row)).length / K;
    }
    for (const one of running) one.recall /= Math.min(queries, 100);
  }
  for (let round = 0; round < rounds; round++) {
    for (const one of running) {
      const some = asked.slice(0, rows > 50_000 ? 20 : queries);
      for (const query of some) {
        const started = performance.now();
        one.search(query);
        one.times.push(performance.now() - started);
      }
      await new Promise((resolve) => { setTimeout(resolve, 5); });
    }
  }
  return {
    contestants: contestants.map(({ name, times = [], build, bytes, recall, failed, free }) => {
      free?.();
      const sorted = times.toSorted((a, b) => a - b);
      return { name, failed, recall, build: 1000 * build / rows, bytes: bytes && bytes / rows, best: sorted[0],
        median: sorted[sorted.length >> 1] };
    }),
  };
};
