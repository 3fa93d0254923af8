// How soon a page has its first embedding from the package as it ships, default model and all:
//
//   node benches/web/start.mjs [--profiles 12] [--package FOLDER]
//
// after `./build.sh package`. Every profile is new: the first page finds nothing cached, the second, in the
// same profile, what the first left. Milliseconds from the start of the page's navigation; the tab is left
// alone for half a second before, since a new tab starts processes of its own. With --package a second
// copy of the package is measured too, by turns.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { chromium } from 'playwright-core';
import { serve } from './server.mjs';

const HERE = dirname(fileURLToPath(import.meta.url));
const { values: args } = parseArgs({
  options: { profiles: { type: 'string', default: '12' }, package: { type: 'string' } },
});
const folders = { '/pkg/': resolve(HERE, '../../pkg') };
if (args.package) folders['/other/'] = resolve(args.package);
const server = await serve({ ...folders, '/bench/': HERE });
const pause = (ms) => new Promise((done) => setTimeout(done, ms));

async function visit(context, prefix) {
  const page = await context.newPage();
  await pause(500);
  await page.goto(`${server.origin}/bench/start.html#${prefix}`);
  await page.waitForFunction('globalThis.first');
  const { ms, error } = await page.evaluate(() => first);
  if (error) throw new Error(error);
  // The cache's copy is written after the first answer.
  await pause(1500);
  await page.close();
  return ms;
}

const times = Object.fromEntries(Object.keys(folders).map((prefix) => [prefix, { cold: [], cached: [] }]));
for (let profile = 0; profile < Number(args.profiles); profile++) {
  for (const prefix of profile % 2 ? Object.keys(folders).reverse() : Object.keys(folders)) {
    const folder = mkdtempSync(join(tmpdir(), 'munjang-start-'));
    const context = await chromium.launchPersistentContext(folder, {
      executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
      args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
        '--disable-component-update', '--disable-sync'],
    });
    for (const kind of ['cold', 'cached']) times[prefix][kind].push(await visit(context, prefix));
    await context.close();
    rmSync(folder, { recursive: true, force: true });
  }
}
await server.close();

const quantile = (values, q) => [...values].sort((a, b) => a - b)[Math.round(q * (values.length - 1))];
for (const [prefix, kinds] of Object.entries(times)) {
  for (const [kind, values] of Object.entries(kinds)) {
    const [low, middle, high] = [0.1, 0.5, 0.9].map((q) => quantile(values, q).toFixed(0));
    console.log(`${prefix} ${kind}: ${middle} ms (${low} to ${high}, the middle 8 of 10)`);
  }
}
