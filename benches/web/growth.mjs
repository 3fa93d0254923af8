// How the encoder's time grows with tokens, sentences and hidden size, measured in Chromium:
//
//   node benches/web/growth.mjs OUT.svg MODEL.munjang [HIDDEN=MODEL.munjang …]
//
// The further models differ from the first in their hidden size. Prints a table, writes the plot.
import { existsSync, writeFileSync } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { chromium } from 'playwright-core';
import { serve } from './server.mjs';

const ROOT = resolve(dirname(fileURLToPath(import.meta.url)), '../..');
const [out, first, ...others] = process.argv.slice(2);
const models = [first, ...others.map((given) => given.slice(given.indexOf('=') + 1))].map((file) => resolve(file));
const CHROMIUM = [process.env.CHROMIUM, '/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome']
  .find((path) => path && existsSync(path));

const server = await serve({
  '/pkg/': join(ROOT, 'pkg'),
  '/bench/': dirname(fileURLToPath(import.meta.url)),
  ...Object.fromEntries(models.map((file, n) => [`/model${n}/`, dirname(file)])),
});
const browser = await chromium.launch({
  executablePath: CHROMIUM,
  args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
    '--disable-component-update', '--disable-sync'],
});

/** Milliseconds of each batch of sentences (numbers of tokens): medians of at least seven runs. */
async function measure(n, batches) {
  const page = await browser.newPage();
  await page.goto(`${server.origin}/bench/page.html`);
  const times = await page.evaluate(async ([url, list]) => {
    const { init } = await import('/pkg/internal/bench-entry.js');
    const encoder = await init(new URL(url, location.href).href);
    const ids = (tokens) => Uint32Array.from({ length: tokens }, (_, t) => 5 + (t * 7919) % 900);
    const work = list.map((lengths) => lengths.map(ids));
    const median = (batch) => {
      const runs = [];
      for (let run = 0; run < 9; run++) {
        let repeats = 0;
        const started = performance.now();
        do encoder.encodeIds(batch); while (++repeats < 200 && performance.now() - started < 30);
        runs.push((performance.now() - started) / repeats);
      }
      return runs.sort((a, b) => a - b)[4];
    };
    // Everything once, so that all of it is compiled for speed.
    const until = performance.now() + 2000;
    while (performance.now() < until) encoder.encodeIds(work[0]);
    return work.map(median);
  }, [`/model${n}/${basename(models[n])}`, batches]);
  await page.close();
  return times;
}

const TOKENS = [4, 8, 16, 32, 64, 128, 256, 512];
const SENTENCES = [1, 2, 4, 8, 16, 32, 64, 128, 256];
const series = [];
const add = (name, unit, points) => {
  series.push({ name, unit, points });
  console.log(`${name}: ${points.map(([x, y]) => `${x} ${unit} ${y.toFixed(2)} ms`).join(', ')}`);
};
const all = await measure(0, [...TOKENS.map((n) => [n]), ...SENTENCES.map((n) => Array(n).fill(16))]);
add('one sentence', 'tokens', TOKENS.map((n, i) => [n, all[i]]));
add('sentences of 16 tokens', 'sentences', SENTENCES.map((n, i) => [n, all[TOKENS.length + i]]));
if (others.length > 0) {
  const points = [];
  for (const [n, given] of others.entries()) points.push([Number.parseInt(given, 10), (await measure(n + 1, [Array(64).fill(16)]))[0]]);
  add('64 sentences of 16 tokens', 'hidden', points);
}
await browser.close();
await server.close();

const PANEL = 250;
const [LEFT, TOP, HEIGHT] = [46, 34, 190];
const parts = series.map(({ name, unit, points }, n) => {
  const [low, high] = [Math.log2(points[0][0]), Math.log2(points.at(-1)[0])];
  const [bottom, top] = [Math.floor(Math.log10(Math.min(...points.map(([, y]) => y)))), Math.ceil(Math.log10(Math.max(...points.map(([, y]) => y))))];
  const x = (value) => n * PANEL + LEFT + ((Math.log2(value) - low) / (high - low)) * (PANEL - LEFT - 20);
  const y = (value) => TOP + HEIGHT - ((Math.log10(value) - bottom) / (top - bottom)) * HEIGHT;
  const lines = [`<text x="${n * PANEL + LEFT}" y="18" class="title">${name}</text>`];
  for (let power = bottom; power <= top; power++) {
    const at = y(10 ** power).toFixed(1);
    lines.push(`<line x1="${n * PANEL + LEFT}" x2="${(n + 1) * PANEL - 20}" y1="${at}" y2="${at}" class="grid"/>`,
      `<text x="${n * PANEL + LEFT - 6}" y="${Number(at) + 4}" text-anchor="end">${10 ** power}</text>`);
  }
  for (const [i, [value]] of points.entries()) {
    if (points.length > 6 && i % 2) continue;
    lines.push(`<text x="${x(value).toFixed(1)}" y="${TOP + HEIGHT + 18}" text-anchor="middle">${value}</text>`);
  }
  lines.push(`<text x="${n * PANEL + (LEFT + PANEL - 20) / 2}" y="${TOP + HEIGHT + 36}" text-anchor="middle">${unit} (ms up)</text>`,
    `<polyline points="${points.map(([a, b]) => `${x(a).toFixed(1)},${y(b).toFixed(1)}`).join(' ')}" class="line"/>`,
    ...points.map(([a, b]) => `<circle cx="${x(a).toFixed(1)}" cy="${y(b).toFixed(1)}" r="3" class="dot"/>`));
  return lines.join('\n');
});
writeFileSync(out, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${series.length * PANEL} 280" width="${series.length * PANEL}" height="280" role="img" aria-label="Time of the encoder over tokens, sentences and hidden size">
<style>
text { font: 12px system-ui, sans-serif; fill: #1f2328; }
.title { font-weight: 600; }
.grid { stroke: #d1d9e0; }
.line { fill: none; stroke: #0969da; stroke-width: 2; }
.dot { fill: #0969da; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; }
  .grid { stroke: #3d444d; }
  .line { stroke: #4493f8; }
  .dot { fill: #4493f8; }
}
</style>
${parts.join('\n')}
</svg>
`);
