// How long a short call takes beside a long one: `node benches/web/latency.mjs [--package FOLDER …] [--seconds 6]
// [--rounds 3] [--chars 10,73,240,1200]`.
//
// One Chromium, the package in a worker, as a page has it. Printed are quantiles of a short call's milliseconds
// (0.5, 0.9, 0.99, the worst) when nothing else runs, during long calls of texts of several lengths, and just
// after such a call was aborted; how often a long call tells its progress; the longest time that the page's main
// thread was held; and texts per second. Several packages (a folder each, `pkg` by default) take turns, so that
// two versions compare.
import { existsSync } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { chromium } from 'playwright-core';
import { serve } from './server.mjs';

const HERE = dirname(fileURLToPath(import.meta.url));
const { values: args } = parseArgs({
  options: {
    package: { type: 'string', multiple: true, default: [join(HERE, '../../pkg')] },
    seconds: { type: 'string', default: '6' },
    rounds: { type: 'string', default: '3' },
    chars: { type: 'string', default: '10,73,240,1200' },
  },
});
const SECONDS = Number(args.seconds);
const packages = args.package.map((folder, i) => ({ folder: resolve(folder), path: `/p${i}/`, rows: {} }));
const server = await serve({ ...Object.fromEntries(packages.map(({ path, folder }) => [path, folder])), '/bench/': HERE });
const browser = await chromium.launch({
  executablePath: [process.env.CHROMIUM, '/usr/bin/chromium', '/usr/bin/google-chrome'].find((path) => path && existsSync(path)),
  args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--js-flags=--no-flush-bytecode'],
});

/** Runs in the page. */
async function measure({ path, chars, seconds, workers }) {
  const { loadEncoder } = await import(`${path}index.js`);
  const encoder = (globalThis.encoders ??= {})[`${path}${workers}`] ??= await loadEncoder({ workers });
  const sentence = '비가 오는 날에는 따뜻한 국물이 생각난다. ';
  const text = sentence.repeat(Math.ceil(chars / sentence.length)).slice(0, chars);
  const later = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
  const short = async () => {
    const started = performance.now();
    await encoder.encode('따뜻한 국물');
    return performance.now() - started;
  };
  for (let i = 0; i < 20; i++) await short();
  const idle = [];
  for (let i = 0; i < 50; i++) {
    await later(5);
    idle.push(await short());
  }
  // The main thread's gaps: it is asked for a turn all the time.
  let held = 0;
  let watching = true;
  const channel = new MessageChannel();
  let last = performance.now();
  channel.port1.onmessage = () => {
    const now = performance.now();
    held = Math.max(held, now - last);
    last = now;
    if (watching) setTimeout(() => channel.port2.postMessage(0), 1);
  };
  channel.port2.postMessage(0);

  const during = [];
  const after = [];
  const ticks = [];
  const until = performance.now() + seconds * 1000;
  while (performance.now() < until) {
    const abort = new AbortController();
    let tick = performance.now();
    const long = encoder.encode(Array(100_000).fill(text), {
      signal: abort.signal,
      onProgress: () => {
        const now = performance.now();
        ticks.push(now - tick);
        tick = now;
      },
    }).catch(() => {});
    for (let i = 0; i < 10; i++) {
      await later(20 + Math.random() * 60);
      during.push(await short());
    }
    abort.abort();
    after.push(await short());
    await long;
  }
  const count = Math.max(64, Math.round(30_000 / (chars + 8)));
  const texts = Array(count).fill(text);
  await encoder.encode(texts.slice(0, count >> 3));
  const started = performance.now();
  await encoder.encode(texts);
  const rate = (count * 1000) / (performance.now() - started);
  watching = false;
  return { idle, during, after, ticks, held: [held], rate: [rate] };
}

const page = await browser.newPage();
await page.goto(`${server.origin}/bench/page.html`);
const LENGTHS = args.chars.split(',').map(Number);
for (let round = 0; round < Number(args.rounds); round++) {
  for (const chars of LENGTHS) {
    const turn = packages.map((_, i) => packages[(i + round) % packages.length]);
    for (const { path, rows } of turn) {
      const row = (rows[chars] ??= {});
      const seen = await page.evaluate(measure, { path, chars, seconds: SECONDS / Number(args.rounds), workers: 1 });
      for (const [name, values] of Object.entries(seen)) (row[name] ??= []).push(...values);
    }
  }
}
await browser.close();
await server.close();

const at = (values, q) => [...values].sort((a, b) => a - b)[Math.min(values.length - 1, Math.floor(values.length * q))];
const quantiles = (values) => [0.5, 0.9, 0.99, 1].map((q) => at(values, q).toFixed(values.length && at(values, 0.5) < 10 ? 1 : 0)).join(' / ');
console.log('| package | long texts of | idle | during | after abort | progress every | main thread held | texts/s |\n| --- | --: | --- | --- | --- | --- | --: | --: |');
for (const chars of LENGTHS) {
  for (const { folder, rows } of packages) {
    const row = rows[chars];
    console.log(`| ${basename(dirname(folder))}/${basename(folder)} | ${chars} | ${['idle', 'during', 'after', 'ticks'].map((name) => quantiles(row[name])).join(' | ')} | ${
      Math.max(...row.held).toFixed(0)} | ${at(row.rate, 0.5).toFixed(1)} |`);
  }
}
