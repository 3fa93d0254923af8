// Measures the vector index against its peers in one Chromium, one thread: `./build.sh bench search`.
//
//   node benches/web/search.mjs --vectors FILE.npy [--rows 10000,100000] [--queries 200] [--peers-rows 20000]
//                               [--many 1000000] [--skip hnswlib-wasm] [--out FILE.json]
//
// FILE.npy holds unit vectors of real sentences, a row each (`munjang encode --output`); the last `queries` rows are
// the queries. Every contestant answers the same queries for the best 10; recall is the share of the exact best 10,
// which an own loop over doubles gives. In every round all contestants answer in turn; printed are the best round and
// the median, in milliseconds a query. Graphs are slow to build, so they get at most `--peers-rows` rows, with all
// others beside them there. `--many` repeats the rows up to a number, for time only.
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { chromium } from 'playwright-core';
import { serve } from './server.mjs';

const HERE = dirname(fileURLToPath(import.meta.url));
const { values: args } = parseArgs({
  options: {
    vectors: { type: 'string' },
    package: { type: 'string', default: join(HERE, '../../pkg') },
    modules: { type: 'string', default: join(HERE, 'node_modules') },
    rows: { type: 'string', default: '10000,100000' },
    queries: { type: 'string', default: '200' },
    'peers-rows': { type: 'string', default: '20000' },
    many: { type: 'string', default: '0' },
    rounds: { type: 'string', default: '7' },
    skip: { type: 'string', default: '' },
    out: { type: 'string' },
  },
});
if (!args.vectors) throw new Error('give --vectors FILE.npy');
const start = readFileSync(args.vectors).subarray(0, 1024);
const [, total, dimension] = /'shape': \((\d+), (\d+)\)/.exec(start.toString('latin1')).map(Number);
const offset = 10 + start.readUInt16LE(8);

const server = await serve({
  '/p/': resolve(args.package), '/modules/': resolve(args.modules), '/bench/': HERE, '/data/': dirname(resolve(args.vectors)),
});
const browser = await chromium.launch({
  executablePath: [process.env.CHROMIUM, '/usr/bin/chromium', '/usr/bin/google-chrome'].find((path) => path && existsSync(path)),
  args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--js-flags=--expose-gc'],
});
const queries = Number(args.queries);
const sizes = args.rows.split(',').map(Number).filter((rows) => rows <= total - queries);
const peersRows = Math.min(Number(args['peers-rows']), total - queries);
const plans = [
  ...sizes.map((rows) => ({ rows, peers: false })),
  ...(peersRows > 0 ? [{ rows: peersRows, peers: true }] : []),
  ...(Number(args.many) > 0 ? [{ rows: Number(args.many), peers: false, onlyTime: true }] : []),
];
const results = [];
for (const plan of plans) {
  const page = await browser.newPage();
  page.on('console', (message) => console.error(message.text()));
  await page.goto(`${server.origin}/bench/search.html`);
  const result = await page.evaluate((options) => globalThis.measure(options), {
    ...plan, url: `/data/${args.vectors.split('/').pop()}`, offset, total, dimension, queries, rounds: Number(args.rounds),
    skip: args.skip.split(','),
  });
  await page.close();
  results.push({ ...plan, ...result });
  show(results.at(-1));
}
if (args.out) writeFileSync(args.out, JSON.stringify({ browser: browser.version(), dimension, queries, results }, undefined, 1));
await browser.close();
await server.close();

function show({ rows, contestants, onlyTime }) {
  console.log(`\n${rows} vectors × ${dimension}${onlyTime ? ' (rows repeated: time only)' : ''}`);
  const loop = contestants.find(({ name }) => name === 'Float32Array loop');
  console.log(['', 'best ms', 'median ms', '× the loop', 'recall@10', 'build µs/row', 'bytes/row'].join('\t'));
  for (const { name, best, median, recall, build, bytes, failed } of contestants) {
    if (failed) console.log(`${name}\t${failed}`);
    else {
      console.log([name, best.toFixed(2), median.toFixed(2), loop ? (loop.median / median).toFixed(1) : '',
        onlyTime ? '' : (100 * recall).toFixed(2), build.toFixed(1), bytes ? bytes.toFixed(0) : ''].join('\t'));
    }
  }
}
