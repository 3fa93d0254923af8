// The package in places of all kinds: another origin, a service worker, a sandboxed frame; and what disposing does.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { BLANK, PKG } from './built.js';
import { launch } from './chromium.js';
import { openSite } from './site.js';

let site;
let cdn;
let browser;
before(async () => {
  site = await openSite({ '/': BLANK, '/munjang/': PKG });
  cdn = await openSite({ '/munjang/': PKG });
  cdn.headers = { 'cache-control': 'no-store', 'access-control-allow-origin': '*' };
  browser = await launch();
});
after(async () => {
  await browser.close();
  await site.close();
  await cdn.close();
});

async function withPage(run) {
  const context = await browser.newContext();
  try {
    const page = await context.newPage();
    await page.goto(site.origin);
    await run(page);
  } finally {
    site.intercept = undefined;
    context.close();
  }
}

const norm = `async (loadEncoder, options) => {
  const encoder = await loadEncoder(options);
  const vector = await encoder.encode('비가 옵니다.');
  encoder.dispose();
  return [Math.hypot(...vector).toFixed(4), encoder.info.worker];
}`;

test('the package on another origin, in a worker', () =>
  withPage(async (page) => {
    const { headers } = site;
    // Such a page allows the other origin, and workers that load from it.
    site.headers = { ...headers, 'content-security-policy': `default-src 'none'; script-src 'self' ${cdn.origin} 'wasm-unsafe-eval'; connect-src 'self' ${
      cdn.origin}; worker-src blob: ${cdn.origin}` };
    await page.goto(`${site.origin}/`);
    const seen = await page.evaluate(`import('${cdn.origin}/munjang/index.js').then(({ loadEncoder }) => (${norm})(loadEncoder))`);
    assert.deepEqual(seen, ['1.0000', true]);
    const own = await page.evaluate(`import('${cdn.origin}/munjang/index.js').then(({ loadEncoder }) => (${norm})(loadEncoder, { workerUrl: '${
      cdn.origin}/munjang/worker.js' }))`);
    assert.deepEqual(own, ['1.0000', true]);
    // And what it is told where the policy forbids it.
    site.headers = { ...headers, 'content-security-policy': `script-src 'self' ${cdn.origin} 'wasm-unsafe-eval'; connect-src ${cdn.origin}; worker-src 'self'` };
    await page.goto(`${site.origin}/`);
    const error = await page.evaluate(`import('${cdn.origin}/munjang/index.js').then(({ loadEncoder }) => loadEncoder()).catch(({ code, message }) => ({ code, message }))`);
    assert.equal(error.code, 'worker_failed');
    assert.match(error.message, /worker-src/);
    site.headers = headers;
  }));

test('a service worker', () =>
  withPage(async (page) => {
    site.intercept = (path, response) => path === '/service-worker.js' && (response.writeHead(200, { 'content-type': 'text/javascript' }).end(`
      import { loadEncoder } from './munjang/index.js';
      self.addEventListener('message', async ({ source, data }) => {
        try {
          source.postMessage(await (${norm})(loadEncoder, data));
        } catch ({ code, message }) {
          source.postMessage({ code, message });
        }
      });`), true);
    for (const options of [{}, { worker: false }]) {
      const seen = await page.evaluate(async (given) => {
        await navigator.serviceWorker.register('/service-worker.js', { type: 'module' });
        const { active } = await navigator.serviceWorker.ready;
        const answer = new Promise((resolve) => navigator.serviceWorker.addEventListener('message', ({ data }) => resolve(data), { once: true }));
        active.postMessage(given);
        return answer;
      }, options);
      assert.deepEqual(seen, ['1.0000', false]);
    }
  }));

test('a sandboxed frame, where storage and workers refuse', () =>
  withPage(async (page) => {
    const { headers } = site;
    site.headers = { ...headers, 'access-control-allow-origin': '*', 'content-security-policy': 'sandbox allow-scripts' };
    await page.goto(`${site.origin}/`);
    for (const options of [{ worker: false }, {}]) {
      const seen = await page.evaluate(`import('/munjang/index.js').then(({ loadEncoder }) => (${norm})(loadEncoder, ${JSON.stringify(options)}))
        .catch(({ code, name, message }) => ({ code, name, message }))`);
      if (Array.isArray(seen)) assert.equal(seen[0], '1.0000');
      else assert.equal(seen.name, 'MunjangError', JSON.stringify(seen));
      if (options.worker === false) assert.deepEqual(seen, ['1.0000', false]);
    }
    site.headers = headers;
  }));

test('globals that are missing, or throw when they are read', () =>
  withPage(async (page) => {
    for (const name of ['caches', 'Worker', 'crypto', 'performance', 'MessageChannel', 'localStorage', 'navigator']) {
      for (const get of ['undefined', '(() => { throw new DOMException("no", "SecurityError"); })()']) {
        await page.goto(site.origin);
        const seen = await page.evaluate(`Object.defineProperty(globalThis, '${name}', { configurable: true, get: () => ${get} });
          import('/munjang/index.js').then(({ loadEncoder }) => (${norm})(loadEncoder, { worker: false })).catch(({ code, name, message }) => ({ code, name, message }))`);
        assert.deepEqual(seen, ['1.0000', false], `${name}: ${get}`);
      }
    }
  }));

test('dispose ends a worker at once, whatever it does, long after the model was kept', () =>
  withPage(async (page) => {
    await page.evaluate(async () => {
      const { loadEncoder } = await import('/munjang/index.js');
      globalThis.encoder = await loadEncoder();
      while ((await (await caches.open('munjang-models')).keys()).length !== 1) await new Promise((r) => setTimeout(r, 20));
    });
    assert.equal(page.workers().length, 1);
    const [worker] = page.workers();
    const closed = new Promise((resolve) => worker.once('close', resolve));
    const started = Date.now();
    await page.evaluate(async () => {
      // Many seconds of work that no message interrupts.
      globalThis.count = encoder.countTokens(Array(8).fill('가나다라마바사 '.repeat(2 ** 20))).catch(({ code }) => code);
      await new Promise((resolve) => setTimeout(resolve, 300));
      encoder.dispose();
    });
    assert.equal(await page.evaluate(() => globalThis.count), 'disposed');
    await closed;
    assert.ok(Date.now() - started < 5000, 'the work would have taken much longer');
  }));
