// The site without a network, and from one version to the next (www/sw.js), on copies of www/ and pkg/.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { appendFile, cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, beforeEach, test } from 'node:test';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { promisify } from 'node:util';

import { PKG, WWW } from './built.js';
import { launch } from './chromium.js';
import { openSite } from './site.js';

const run = promisify(execFile);
let folder;
let site;
let browser;
const at = (path) => join(folder, path);
const publish = () => run(process.execPath, [at('www/precache.mjs')]);

before(async () => {
  browser = await launch();
});
beforeEach(async () => {
  await site?.close();
  if (folder) await rm(folder, { recursive: true });
  folder = await mkdtemp(join(tmpdir(), 'munjang-site-'));
  for (const [from, to] of [[WWW, 'www'], [PKG, 'pkg']]) await cp(fileURLToPath(from), at(to), { recursive: true });
  await publish();
  const folders = Object.fromEntries(['www', 'pkg'].map((name) => [`/${name}/`, pathToFileURL(`${at(name)}/`)]));
  site = await openSite(folders);
  Object.assign(site.headers, { 'cache-control': 'no-cache', 'service-worker-allowed': '/' });
});
after(async () => {
  await browser.close();
  await site?.close();
  if (folder) await rm(folder, { recursive: true });
});

async function withPage(runIn) {
  const context = await browser.newContext({ locale: 'ko-KR' });
  try {
    await runIn(await context.newPage(), context);
  } finally {
    site.intercept = undefined;
    await context.close();
  }
}

/** Registrations are made one after another: once this one is, so is the page's own. */
const ready = (page) => page.evaluate(async () => {
  await navigator.serviceWorker.register('sw.js', { scope: '../', updateViaCache: 'none' });
  await navigator.serviceWorker.ready;
});
const modelKept = (page) => page.evaluate(async () => {
  while ((await (await caches.open('munjang-models')).keys()).length !== 1) await new Promise((r) => setTimeout(r, 20));
});
const keptFiles = (page) => page.evaluate(async () => {
  const names = (await caches.keys()).filter((name) => name.startsWith('munjang-page'));
  return Promise.all(names.map(async (name) => (await (await caches.open(name)).keys()).map(({ url }) => new URL(url).pathname)));
});
/** Waits until the page's encoder has answered. */
const works = (page) => page.waitForFunction(async () => {
  const { loadEncoder } = await import('/pkg/index.js');
  const encoder = await loadEncoder();
  globalThis.source = encoder.info.source;
  return (await encoder.encode('비가 옵니다.')).length === encoder.info.hiddenSize;
});

test('one visit is enough for all pages without a network', () =>
  withPage(async (page, context) => {
    await page.goto(`${site.origin}/www/`);
    await ready(page);
    await modelKept(page);
    await context.setOffline(true);
    site.intercept = (_path, response) => (response.destroy(), true);
    for (const path of ['/www/', '/www/index.html', '/www/?lang=en', '/www/bench.html?rounds=1', '/']) {
      await page.goto(site.origin + path);
      assert.ok(await page.waitForFunction(() => document.title.includes('munjang')), path);
    }
    await works(page);
    assert.equal(await page.evaluate(() => globalThis.source), 'cache');
  }));

test('what is kept is the site and nothing else', () =>
  withPage(async (page) => {
    await page.goto(`${site.origin}/www/`);
    await ready(page);
    await page.reload();
    site.intercept = (path, response) => path.startsWith('/api/') && (response.end('{"secret":1}'), true);
    for (const path of ['/api/me?token=1', '/www/index.html?token=1', '/pkg/index.js?x', '/pkg/package.json', '/www/sw.js']) {
      await page.evaluate((url) => fetch(url).then((response) => response.text()), path);
    }
    const [files, ...others] = await keptFiles(page);
    assert.deepEqual(others, []);
    assert.deepEqual(files.filter((path) => !/^\/(www|pkg)\/[\w./-]+\.(js|css|html|svg|png|wasm|json|webmanifest|gz)$/.test(path)), []);
    assert.ok(files.includes('/www/bench.html') && files.includes('/pkg/worker.js') && files.includes('/pkg/wasm/munjang_simd.wasm'));
    assert.ok(!files.includes('/pkg/package.json') && !files.includes('/www/sw.js'));
  }));

test('what may not be stored is not', () =>
  withPage(async (page) => {
    site.headers['cache-control'] = 'private, no-store';
    await page.goto(`${site.origin}/www/`);
    await works(page);
    await page.waitForFunction(() => navigator.serviceWorker.getRegistration().then((found) => !found?.installing && !found?.active));
    assert.deepEqual((await keptFiles(page)).flat(), []);
  }));

test('a new version comes as a whole', () =>
  withPage(async (page) => {
    await page.goto(`${site.origin}/www/`);
    await ready(page);
    // Of two files, so that a mixture could be told.
    await appendFile(at('www/main.js'), '\nglobalThis.mainVersion = 2;\n');
    await appendFile(at('pkg/index.js'), '\nglobalThis.packageVersion = 2;\n');
    const versions = () => page.evaluate(async () => {
      await import('/pkg/index.js');
      return [globalThis.mainVersion, globalThis.packageVersion];
    });

    // Half a deployment: the files are new, the list is old, or one of them fails. The old version stays whole.
    await page.reload();
    assert.deepEqual(await versions(), [undefined, undefined]);
    await publish();
    site.intercept = (path, response) => path === '/pkg/index.js' && (response.writeHead(500).end(), true);
    await page.evaluate(async () => {
      const registration = await navigator.serviceWorker.getRegistration();
      await registration.update().catch(() => {});
    });
    await page.waitForFunction(() => navigator.serviceWorker.getRegistration().then(({ installing, waiting }) => !installing && !waiting));
    await page.reload();
    await ready(page);
    assert.deepEqual(await versions(), [undefined, undefined]);

    // All of it. It is there at once, or at the next visit.
    site.intercept = undefined;
    for (let visit = 0, seen = []; seen[0] !== 2; visit++) {
      assert.ok(visit < 40);
      // A page that makes way for the new version may go while it is asked.
      await page.goto(`${site.origin}/www/`).catch(() => {});
      seen = await versions().catch(() => []);
      assert.equal(seen[0], seen[1], 'files of two versions');
      await page.waitForTimeout(500);
    }
    assert.equal((await keptFiles(page)).length, 1, 'the old version is gone');
  }));

test('a version of which the browser lost a part is fetched anew', () =>
  withPage(async (page) => {
    await page.goto(`${site.origin}/www/`);
    await ready(page);
    await page.evaluate(async () => {
      const name = (await caches.keys()).find((key) => key.startsWith('munjang-page'));
      await (await caches.open(name)).delete('/www/main.js');
    });
    await page.reload();
    await works(page);
    // It begins anew, with files whose hashes are those of the list.
    await page.waitForFunction(async () => {
      const name = (await caches.keys()).find((key) => key.startsWith('munjang-page'));
      return name && (await (await caches.open(name)).match('/www/main.js')) !== undefined;
    });
  }));

test('the list names what the pages ask for', async () => {
  const list = JSON.parse((await readFile(at('www/precache.js'), 'utf8')).match(/self\.PRECACHE = (.*);/s)[1]);
  assert.equal(list.live, false);
  for (const page of ['index.html', 'bench.html']) {
    const html = await readFile(at(`www/${page}`), 'utf8');
    for (const [, path] of html.matchAll(/(?:href|src)="((?:\.\.\/pkg\/)?[\w./-]+\.(?:js|css|svg|png|webmanifest))"/g)) assert.ok(list.files[path], `${path} of ${page}`);
  }
  for (const path of ['index.html', 'bench.html', '../pkg/worker.js', '../pkg/model/model.js']) assert.ok(list.files[path], path);
  for (const path of Object.keys(list.files)) assert.ok(!/\.munjang$|\.mjs$|sw\.js$/.test(path), path);
  await writeFile(at('www/main.js'), '// changed');
  await publish();
  const next = JSON.parse((await readFile(at('www/precache.js'), 'utf8')).match(/self\.PRECACHE = (.*);/s)[1]);
  assert.notEqual(next.version, list.version);
});
