// How long a search takes beside a long `add`: `node benches/web/search_latency.mjs [--package FOLDER] [--seconds 20]`.
//
// One Chromium, the shipped model in a worker, an index of `--documents` (2,000) passages in IndexedDB, as a page has
// it. Printed are quantiles of a search's milliseconds (0.5, 0.9, 0.99, the worst) when nothing else runs, by words alone,
// while a long call of `add` encodes and stores, and, to compare, of encoding a query while the encoder encodes as much
// without an index; the longest time that the page's main thread was held; and what opening the stored index takes.
import { existsSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { chromium } from 'playwright-core';
import { serve } from './server.mjs';

const HERE = dirname(fileURLToPath(import.meta.url));
const { values: args } = parseArgs({
  options: {
    package: { type: 'string', default: join(HERE, '../../pkg') },
    seconds: { type: 'string', default: '20' },
    documents: { type: 'string', default: '2000' },
  },
});
const server = await serve({ '/p/': resolve(args.package), '/bench/': HERE });
const browser = await chromium.launch({
  executablePath: [process.env.CHROMIUM, '/usr/bin/chromium', '/usr/bin/google-chrome'].find((path) => path && existsSync(path)),
  args: ['--no-sandbox', '--disable-gpu', '--disable-quic'],
});

/** Runs in the page. */
async function measure({ seconds, documents }) {
  const { loadEncoder } = await import('/p/index.js');
  const { SemanticIndex } = await import('/p/search.js');
  const encoder = await loadEncoder();
  const words = '비가 오는 날에는 따뜻한 국물이 생각난다 시장 골목 끝 오래된 가게에서 친구를 만나 이야기를 나누었다 정부는 새로운 정책을 발표했고 시민들은 기대를 보였다'.split(' ');
  let seed = 1;
  const random = (n) => {
    seed = (Math.imul(seed, 1103515245) + 12345) >>> 0;
    return (seed >>> 8) % n;
  };
  const note = (id) => ({ id, text: `${Array.from({ length: 8 + random(8) }, () => words[random(words.length)]).join(' ')}. ${id}` });
  const later = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
  let index = await SemanticIndex.open('bench', { encoder, persist: true });
  const building = performance.now();
  await index.add(Array.from({ length: documents }, (_, id) => note(id)));
  const build = performance.now() - building;
  await index.close();
  const opening = performance.now();
  index = await SemanticIndex.open('bench', { encoder, persist: true });
  const open = performance.now() - opening;

  const queries = ['따뜻한 국물', '새 정책 발표', '친구와 나눈 이야기', '오래된 시장 가게'];
  const search = async (options) => {
    const started = performance.now();
    await index.search(queries[random(queries.length)], options);
    return performance.now() - started;
  };
  for (let i = 0; i < 20; i++) await search();
  const idle = [];
  const wordsOnly = [];
  for (let i = 0; i < 100; i++) {
    await later(5);
    idle.push(await search());
    wordsOnly.push(await search({ semantic: 0 }));
  }
  const more = Array.from({ length: 50_000 }, (_, i) => note(1e6 + i));
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
  const abort = new AbortController();
  const long = index.add(more, { signal: abort.signal }).catch(() => {});
  const during = [];
  const until = performance.now() + seconds * 1000;
  while (performance.now() < until) {
    await later(20 + random(60));
    during.push(await search());
  }
  watching = false;
  abort.abort();
  await long;
  const again = new AbortController();
  const encoding = encoder.encode(more.map(({ text }) => text), { signal: again.signal }).catch(() => {});
  const control = [];
  const end = performance.now() + seconds * 1000;
  while (performance.now() < end) {
    await later(20 + random(60));
    const started = performance.now();
    await encoder.encode(queries[random(queries.length)]);
    control.push(performance.now() - started);
  }
  again.abort();
  await encoding;
  const size = index.size;
  await index.close();
  await SemanticIndex.delete('bench');
  return { idle, wordsOnly, during, control, held, build, open, size };
}

const page = await browser.newPage();
await page.goto(`${server.origin}/bench/page.html`);
const seen = await page.evaluate(measure, { seconds: Number(args.seconds), documents: Number(args.documents) });
await browser.close();
await server.close();

const at = (values, q) => [...values].sort((a, b) => a - b)[Math.min(values.length - 1, Math.floor(values.length * q))];
const quantiles = (values) => [0.5, 0.9, 0.99, 1].map((q) => at(values, q).toFixed(1)).join(' / ');
console.log(`| a search, in ms | 0.5 / 0.9 / 0.99 / worst |\n| --- | --- |
| nothing else runs | ${quantiles(seen.idle)} |
| the same by words alone | ${quantiles(seen.wordsOnly)} |
| during a long add | ${quantiles(seen.during)} |
| a query's encoding alone, during a long encode | ${quantiles(seen.control)} |

Main thread held ${seen.held.toFixed(0)} ms at most; ${args.documents} documents added in ${(seen.build / 1000).toFixed(1)} s, opened again in ${
  seen.open.toFixed(0)} ms; ${seen.size} documents at the end, ${seen.during.length} searches during the add.`);
