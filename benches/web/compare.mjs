// Compares builds of the package with each other, in one page, by turns: what a change of the code is
// worth is far less than how much a shared machine's speed differs from minute to minute.
//
//   node benches/web/compare.mjs DATA before=FOLDER after=FOLDER … [--rounds 15] [--load w2]
//                                [--build relaxed] [--cosine 0.999]
//
// DATA is what `./build.sh bench` made; a FOLDER is a copy of pkg/ with its wasm files. All must give
// the same bits; with --cosine, for builds that are defined otherwise, vectors of at least this cosine.
// Printed: median and least milliseconds, and the median of the ratios, within a round, to the first.
import { existsSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { chromium } from 'playwright-core';
import { serve } from './server.mjs';

const { values: args, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    rounds: { type: 'string', default: '15' },
    load: { type: 'string', default: 'w2' },
    build: { type: 'string', default: 'relaxed' },
    cosine: { type: 'string' },
  },
});
const [data, ...pairs] = positionals;
const folders = Object.fromEntries(pairs.map((pair) => pair.split('=')));
const names = Object.keys(folders);
if (!data || names.length < 2 || !Object.values(folders).every((folder) => folder && existsSync(resolve(folder, 'index.js')))) {
  console.error('usage: node benches/web/compare.mjs DATA NAME=FOLDER NAME=FOLDER … (each a copy of pkg/)');
  process.exit(2);
}

const server = await serve({
  ...Object.fromEntries(names.map((name) => [`/builds/${name}/`, resolve(folders[name])])),
  '/bench/': dirname(fileURLToPath(import.meta.url)),
  '/data/': resolve(data),
});
const browser = await chromium.launch({
  executablePath: [process.env.CHROMIUM, '/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome']
    .find((path) => path && existsSync(path)),
  args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
    '--js-flags=--no-flush-bytecode'],
});
const page = await browser.newPage();
await page.goto(`${server.origin}/bench/page.html`);
const { found: times, least } = await page.evaluate(async ({ names, rounds, load, build, cosine }) => {
  const workloads = await (await fetch('/data/workloads.json')).json();
  const ids = workloads[load].ids.map((row) => Uint32Array.from(row));
  const encoders = {};
  for (const name of names) {
    const { init } = await import(`/builds/${name}/internal/bench-entry.js`);
    encoders[name] = await init(`${location.origin}/data/model.munjang`, { build });
  }
  const tokens = ids.reduce((sum, row) => sum + row.length, 0);
  const repeats = Math.max(1, Math.round(4000 / tokens));
  const found = Object.fromEntries(names.map((name) => [name, []]));
  let first;
  let least = 1;
  // The first two rounds are for the engine's compiler.
  for (let round = -2; round < rounds; round++) {
    for (const name of names) {
      const begin = performance.now();
      let out;
      for (let i = 0; i < repeats; i++) out = await encoders[name].encodeIds(ids);
      const took = (performance.now() - begin) / repeats;
      first ??= Float32Array.from(out);
      const hidden = first.length / ids.length;
      for (let row = 0; row < first.length; row += hidden) {
        let dot = 0;
        let same = true;
        for (let i = row; i < row + hidden; i++) {
          dot += first[i] * out[i];
          same &&= Object.is(first[i], out[i]);
        }
        least = same ? least : Math.min(least, dot);
        if (!same && !(dot >= cosine)) throw new Error(`${name} gives another vector than ${names[0]}: cosine ${dot}`);
      }
      if (round >= 0) found[name].push(took);
    }
  }
  return { found, least };
}, { names, rounds: Number(args.rounds), load: args.load, build: args.build, cosine: Number(args.cosine ?? Infinity) });

const median = (values) => values.toSorted((a, b) => a - b)[values.length >> 1];
for (const name of names) {
  const ratios = times[name].map((took, round) => took / times[names[0]][round]);
  console.log(`${args.load} ${args.build} ${name.padEnd(12)} median ${median(times[name]).toFixed(2)} ms, `
    + `least ${Math.min(...times[name]).toFixed(2)}, ratio ${median(ratios).toFixed(3)}`);
}
if (args.cosine) console.log(`least cosine to ${names[0]}: ${least}`);
await browser.close();
server.close?.();
