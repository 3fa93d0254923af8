// Measures munjang against its peers in one run: `./build.sh bench` (which makes what this needs).
//
//   node benches/web/run.mjs DATA [--rounds 7] [--only w1,w2] [--skip transformers.js]
//                                 [--module NAME=FILE.js] [--out FOLDER]
//
// DATA is the folder that make_models.py wrote, with model.munjang in it. Each contestant has a
// browser of its own and runs on its page's main thread. In every round all contestants run one
// after the other, in turning order; a ratio is taken within a round, and the median of the rounds
// is what is printed. CPU time is that of the busiest thread of the page's process (Linux), so that
// other work on the machine does not count. Nothing is timed before it agrees with the reference.
import { readFileSync, writeFileSync, existsSync, mkdirSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { cpus } from 'node:os';
import { basename, dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { brotliCompressSync } from 'node:zlib';
import { chromium } from 'playwright-core';
import { cpuByThread } from './cpu.mjs';
import { serve } from './server.mjs';
import { timeNative } from './native.mjs';
import { MACS, assemble } from './peak.mjs';
import { plot } from './plot.mjs';

const HERE = dirname(fileURLToPath(import.meta.url));
const ROOT = resolve(HERE, '../..');
const { values: args, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    rounds: { type: 'string', default: '7' },
    only: { type: 'string' },
    skip: { type: 'string', default: '' },
    module: { type: 'string', multiple: true, default: [] },
    out: { type: 'string' },
  },
});
const DATA = resolve(positionals[0] ?? join(ROOT, '.tools/bench'));
const OUT = resolve(args.out ?? DATA);
const ROUNDS = Number(args.rounds);
const COLD_ROUNDS = Math.min(ROUNDS, 5);
/** A measurement of less wall time than this would be all clock. */
const ENOUGH_MS = 200;
/** Cosine with the f32 reference below which a contestant does something else. */
const AGREES = 0.99;
const PEER = 'onnxruntime-web int8';

const workloads = JSON.parse(readFileSync(join(DATA, 'workloads.json'), 'utf8'));
const config = JSON.parse(readFileSync(join(DATA, 'checkpoint/config.json'), 'utf8'));
const hidden = config.hidden_size;
const text = workloads.w2.texts[0];
const ids = workloads.w2.ids[0];

const CONTESTANTS = [
  { name: 'munjang relaxed', module: '/bench/contestants/munjang.js', model: '/data/model.munjang', options: { build: 'relaxed' } },
  { name: 'munjang simd128', module: '/bench/contestants/munjang.js', model: '/data/model.munjang', options: { build: 'simd128' } },
  { name: PEER, module: '/bench/contestants/onnxruntime-web.js', model: '/data/hub/model', options: {} },
  { name: 'transformers.js q8', module: '/bench/contestants/transformers-js.js', model: '/data/hub/model', options: {} },
  ...args.module.map((given) => {
    const [name, file] = given.split('=');
    return { name, module: `/extra/${name}/${basename(file)}`, folder: dirname(resolve(file)), model: '/data/model.munjang', options: {} };
  }),
].filter(({ name }) => !args.skip.split(',').includes(name));

const median = (values) => {
  const sorted = [...values].sort((a, b) => a - b);
  return (sorted[(sorted.length - 1) >> 1] + sorted[sorted.length >> 1]) / 2;
};

/** Multiplications of all linear layers and of attention for the workload. */
function gmac(batch) {
  const layer = 4 * hidden * hidden + 2 * hidden * config.intermediate_size;
  return batch.reduce((sum, { length }) => sum + length * (layer + 2 * length * hidden), 0) * config.num_hidden_layers / 1e9;
}

const server = await serve({
  '/pkg/': join(ROOT, 'pkg'),
  '/modules/': join(HERE, 'node_modules'),
  '/bench/': HERE,
  '/data/': DATA,
  ...Object.fromEntries(CONTESTANTS.filter(({ folder }) => folder).map(({ name, folder }) => [`/extra/${name}/`, folder])),
});
const CHROMIUM = [process.env.CHROMIUM, '/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome']
  .find((path) => path && existsSync(path));
const note = (line) => console.error(`  ${line}`);

async function open(contestant) {
  const browser = await chromium.launch({
    executablePath: CHROMIUM,
    args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
      '--disable-component-update', '--disable-sync', '--js-flags=--no-flush-bytecode'],
  });
  const processes = await browser.newBrowserCDPSession();
  const page = await browser.newPage();
  const fetched = new Set();
  page.on('response', (response) => fetched.add(new URL(response.url()).pathname));
  await page.goto(`${server.origin}/bench/page.html`);
  await page.waitForFunction('globalThis.bench');
  const options = { ...contestant.options, hidden };
  contestant.runs = await page.evaluate(([...given]) => bench.load(...given), [contestant.module, contestant.model, options]);
  contestant.code = [...fetched].filter((path) => !path.startsWith('/data/') && !/\/page\.(html|js)$/.test(path));
  Object.assign(contestant, { browser, page, times: {}, agreement: {} });
  contestant.renderers = async () => (await processes.send('SystemInfo.getProcessInfo')).processInfo
    .filter(({ type }) => type === 'renderer').map(({ id }) => id);
}

/** CPU and wall milliseconds of one run of the workload. */
async function time(contestant, name, repeat) {
  const pids = await contestant.renderers();
  const before = cpuByThread(pids);
  const wall = (await contestant.page.evaluate(([...given]) => bench.time(...given), [name, repeat])) / repeat;
  const after = cpuByThread(pids);
  const busiest = Math.max(...[...after].map(([thread, ms]) => ms - (before.get(thread) ?? 0)), 0);
  return { wall, cpu: after.size ? busiest / repeat : wall };
}

/** GMAC/s of the bare inner loop of each build: the fastest of some tries. */
async function measurePeaks(contestant) {
  const wasmAs = join(ROOT, '.tools/node_modules/.bin/wasm-as');
  if (!existsSync(wasmAs)) return {};
  const peaks = {};
  const runs = 400_000;
  for (const [build, bytes] of Object.entries(assemble(wasmAs))) {
    const times = [];
    for (let i = 0; i < 5; i++) {
      const pids = await contestant.renderers();
      const before = cpuByThread(pids);
      const wall = await contestant.page.evaluate(([...given]) => bench.peak(...given), [bytes, runs]);
      const after = cpuByThread(pids);
      const busiest = Math.max(...[...after].map(([thread, ms]) => ms - (before.get(thread) ?? 0)), 0);
      // The busiest thread also did the quarter that warms up.
      times.push(after.size ? busiest / 1.25 : wall);
    }
    peaks[build] = MACS * runs / Math.min(...times) / 1e6;
  }
  note(`inner loops alone: ${Object.entries(peaks).map(([build, peak]) => `${build} ${peak.toFixed(1)} GMAC/s`).join(', ')}`);
  return peaks;
}

/** A padding engine's speed depends on how many sentences it gets at once; it gets its best. */
async function chooseBatch(contestant) {
  const name = contestant.runs.find((run) => run.startsWith('w2'));
  const tried = [];
  for (const size of [4, 8, 16, 32, 64]) {
    await contestant.page.evaluate((n) => bench.setBatch(n), size);
    await time(contestant, name, 1);
    tried.push({ size, cpu: Math.min((await time(contestant, name, 1)).cpu, (await time(contestant, name, 1)).cpu) });
  }
  const { size } = tried.reduce((a, b) => (b.cpu < a.cpu ? b : a));
  contestant.batch = size;
  await contestant.page.evaluate((n) => bench.setBatch(n), size);
  note(`${contestant.name}: batches of ${size} (${tried.map((t) => `${t.size}: ${t.cpu.toFixed(0)} ms`).join(', ')})`);
}

for (const contestant of CONTESTANTS) {
  await open(contestant);
  for (const name of contestant.runs) {
    const agreement = await contestant.page.evaluate((n) => bench.check(n), name);
    if (!(agreement.lowest >= AGREES)) {
      throw new Error(`${contestant.name} does not compute the same as the f32 reference: ${name}, lowest cosine ${agreement.lowest}`);
    }
    contestant.agreement[name] = agreement;
  }
  const worst = Object.values(contestant.agreement).reduce((a, b) => (b.lowest < a.lowest ? b : a));
  note(`${contestant.name}: agrees with f32, lowest cosine ${worst.lowest.toFixed(5)}`);
  if (await contestant.page.evaluate(() => bench.padded())) await chooseBatch(contestant);
}

const peaks = await measurePeaks(CONTESTANTS[0]);
const names = ['w1', 'w2', 'w3', 'w2 text'].filter((name) => !args.only || args.only.split(',').includes(name));
for (const name of names) {
  const running = CONTESTANTS.filter(({ runs }) => runs.includes(name));
  for (const contestant of running) {
    const { wall } = await time(contestant, name, 1);
    contestant.repeat = Math.max(1, Math.ceil(ENOUGH_MS / Math.max(wall, 0.05)));
    await time(contestant, name, Math.ceil(contestant.repeat / 2));
    contestant.times[name] = [];
  }
  for (let round = 0; round < ROUNDS; round++) {
    const turn = running.map((_, i) => running[(i + round) % running.length]);
    for (const contestant of round % 2 ? turn.reverse() : turn) {
      contestant.times[name].push(await time(contestant, name, contestant.repeat));
    }
  }
  note(`${name}: ${running.map((c) => `${c.name} ${median(c.times[name].map((t) => t.cpu)).toFixed(2)} ms`).join(', ')}`);
}
for (const contestant of CONTESTANTS) {
  contestant.memory = await contestant.page.evaluate(() => bench.memory());
  await contestant.page.close();
}

// A page that this browser has never seen, then the same page again.
for (let round = 0; round < COLD_ROUNDS; round++) {
  for (const contestant of round % 2 ? [...CONTESTANTS].reverse() : CONTESTANTS) {
    if (contestant.folder) continue;
    const context = await contestant.browser.newContext();
    for (const kind of ['cold', 'cached']) {
      const page = await context.newPage();
      const given = [contestant.module, contestant.model, { ...contestant.options, hidden, text, ids }];
      await page.goto(`${server.origin}/bench/page.html#${encodeURIComponent(JSON.stringify(given))}`);
      await page.waitForFunction('globalThis.cold');
      const result = await page.evaluate(() => cold);
      ((contestant.starts ??= {})[kind] ??= []).push(result);
      await page.close();
    }
    await context.close();
  }
}
for (const { browser } of CONTESTANTS) await browser.close();

/** Bytes of the contestant's code (JavaScript and WebAssembly) as a good server would send them. */
function codeSize(contestant) {
  return contestant.code.reduce((sum, path) => sum + brotliCompressSync(readFileSync(server.file(path))).length, 0);
}

const native = await timeNative({ root: ROOT, data: DATA, rounds: Math.min(ROUNDS, 5), note });
await server.close();

const peer = CONTESTANTS.find(({ name }) => name === PEER);
const rows = CONTESTANTS.map((contestant) => {
  const loads = {};
  for (const [name, times] of Object.entries(contestant.times)) {
    const against = peer?.times[name];
    const cpu = median(times.map((t) => t.cpu));
    loads[name] = {
      cpu_ms: cpu,
      wall_ms: median(times.map((t) => t.wall)),
      gmac_per_s: gmac(workloads[name.replace(' text', '')].ids) / cpu * 1e3,
      ...(against ? { speed_to_peer: median(times.map((t, i) => against[i].cpu / t.cpu)) } : {}),
      ...(against ? { speed_to_peer_wall: median(times.map((t, i) => against[i].wall / t.wall)) } : {}),
      agreement: contestant.agreement[name],
    };
  }
  // What is not built with relaxed SIMD is held against the products that it can use.
  const peak = peaks[contestant.options.build ?? 'simd128'];
  const start = (kind) => contestant.starts?.[kind] && {
    ms: median(contestant.starts[kind].map(({ ms }) => ms)),
    timings: contestant.starts[kind].at(-1).timings,
  };
  return {
    name: contestant.name, batch: contestant.batch, workloads: loads,
    share_of_peak: loads.w2 && peak ? loads.w2.gmac_per_s / peak : undefined, cold_start: start('cold'), cached_start: start('cached'),
    code_brotli_bytes: codeSize(contestant), wasm_memory_bytes: contestant.memory,
  };
});

const versions = Object.fromEntries(await Promise.all(['onnxruntime-web', '@huggingface/transformers'].map(async (name) =>
  [name, JSON.parse(await readFile(join(HERE, 'node_modules', name, 'package.json'), 'utf8')).version])));
const report = {
  when: new Date().toISOString(),
  cpu: cpus()[0]?.model, cores: cpus().length, rounds: ROUNDS, versions, peak_gmac_per_s: peaks,
  shape: Object.fromEntries(['num_hidden_layers', 'hidden_size', 'intermediate_size', 'vocab_size'].map((key) => [key, config[key]])),
  workloads: Object.fromEntries(Object.entries(workloads).map(([name, { ids: batch }]) =>
    [name, { sentences: batch.length, tokens: batch.reduce((sum, row) => sum + row.length, 0), gmac: gmac(batch) }])),
  browser: rows, native,
};
mkdirSync(OUT, { recursive: true });
writeFileSync(join(OUT, 'results.json'), `${JSON.stringify(report, null, 2)}\n`);
writeFileSync(join(OUT, 'results.svg'), plot(report, PEER));

const head = ['', ...names.map((name) => `${name} ms`), ...names.filter((n) => n !== 'w2 text').map((name) => `${name} ×`),
  'w2 GMAC/s', '% of peak', 'cold ms', 'cached ms', 'code MB', 'memory MB'];
const figure = (value, digits) => (value === undefined || Number.isNaN(value) ? '–' : value.toFixed(digits));
const ms = (value) => figure(value, value < 10 ? 2 : value < 100 ? 1 : 0);
const lines = rows.map((row) => [
  row.name,
  ...names.map((name) => ms(row.workloads[name]?.cpu_ms)),
  ...names.filter((n) => n !== 'w2 text').map((name) => figure(row.workloads[name]?.speed_to_peer, 2)),
  figure(row.workloads.w2?.gmac_per_s, 1), figure(row.share_of_peak * 100, 0), ms(row.cold_start?.ms), ms(row.cached_start?.ms),
  figure(row.code_brotli_bytes / 1e6, 2), figure(row.wasm_memory_bytes / 1e6, 0),
]);
lines.push(...native.map((row) => [
  row.name,
  ...names.map((name) => ms(row.workloads[name]?.cpu_ms)),
  ...names.filter((n) => n !== 'w2 text').map((name) => figure(row.workloads[name]?.speed_to_peer, 2)),
  figure(row.workloads.w2 && gmac(workloads.w2.ids) / row.workloads.w2.cpu_ms * 1e3, 1), '–', '–', '–', '–', '–',
]));
const widths = head.map((_, i) => Math.max(...[head, ...lines].map((line) => line[i].length)));
for (const line of [head, ...lines]) {
  console.log(line.map((cell, i) => (i ? cell.padStart(widths[i]) : cell.padEnd(widths[i]))).join('  '));
}
console.log(`\nCPU time of the busiest thread, one thread; × is ${PEER}'s time over the row's, medians of ${ROUNDS} rounds`
  + ' (native rows: over native onnxruntime).');
console.log(`${join(OUT, 'results.json')}\n${join(OUT, 'results.svg')}`);
