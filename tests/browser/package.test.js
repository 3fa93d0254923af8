// The built package, with the shipped model, in Chromium: as a page uses it, and as networks,
// caches and old browsers treat it.
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { pathToFileURL } from 'node:url';

import { loadEncoder } from '../../pkg/index.js';
import { BLANK, PKG, VARIED } from './built.js';
import { launch } from './chromium.js';
import { convert, encodeLines, ensureNative } from './native.js';
import { openSite } from './site.js';

const manifest = JSON.parse(await readFile(new URL('model/manifest.json', PKG), 'utf8'));
const modelPath = `/pkg/model/${manifest.file}`;
const INSECURE = 'munjang.test';

let site;
let browser;
before(async () => {
  site = await openSite({ '/': BLANK, '/pkg/': PKG });
  browser = await launch({ args: [`--host-resolver-rules=MAP ${INSECURE} 127.0.0.1`] });
});
after(async () => {
  await browser.close();
  await site.close();
});

/** A page of a fresh profile, with nothing cached. */
async function withPage(run, { origin = site.origin, init } = {}) {
  const context = await browser.newContext();
  const errors = [];
  try {
    const page = await context.newPage();
    page.on('pageerror', (error) => errors.push(error.message));
    if (init) await page.addInitScript(init);
    await page.goto(`${origin}/`);
    const result = await run(page);
    assert.deepEqual(errors, [], 'no uncaught errors in the page');
    return result;
  } finally {
    site.intercept = undefined;
    await context.close();
  }
}

/** Loads an encoder in the page as `window.encoder`; gives its info and events, or the error. */
const load = (page, options = {}) =>
  page.evaluate(async (options) => {
    const { loadEncoder, MunjangError } = await import(options.from ?? '/pkg/index.js');
    const events = [];
    try {
      window.encoder = await loadEncoder({ ...options, onProgress: (event) => events.push(event) });
      return { info: window.encoder.info, events };
    } catch (error) {
      return { code: error.code, name: error.name, message: error.message, ours: error instanceof MunjangError, events };
    }
  }, options);

const waitForCache = (page) => page.evaluate(async () => {
  while ((await (await caches.open('munjang-models')).keys()).length !== 1) await new Promise((r) => setTimeout(r, 20));
});

const hash = (floats) => createHash('sha256').update(Buffer.from(new Float32Array(floats).buffer)).digest('hex');

describe('loading', () => {
  test('with progress from the network, then from the cache, then again after damage to it', () =>
    withPage(async (page) => {
      const first = await load(page);
      assert.equal(first.code, undefined, first.message);
      assert.equal(first.info.source, 'network');
      assert.equal(first.info.modelId, manifest.modelId);
      assert.equal(first.info.bytes, manifest.bytes);
      assert.ok(first.events.length > 2);
      assert.ok(!site.requests.some((path) => path.includes('general')), 'the shipped model needs no general code');
      const check = (events) => {
        assert.ok(events.every(({ total }) => total === manifest.bytes));
        assert.ok(events.every(({ loaded }, i) => i === 0 || loaded >= events[i - 1].loaded));
        assert.equal(events.at(-1).loaded, manifest.bytes);
      };
      check(first.events);
      await waitForCache(page);

      site.requests.length = 0;
      await page.reload();
      const second = await load(page);
      assert.equal(second.info.source, 'cache');
      check(second.events);
      assert.ok(!site.requests.includes(modelPath), 'not fetched again');

      await page.evaluate(async () => {
        const cache = await caches.open('munjang-models');
        const [key] = await cache.keys();
        const bytes = new Uint8Array(await (await cache.match(key)).arrayBuffer());
        bytes[bytes.length >> 1] ^= 1;
        await cache.put(key, new Response(bytes));
      });
      const third = await load(page);
      assert.equal(third.info.source, 'network');
      check(third.events);
      assert.equal(site.requests.filter((path) => path === modelPath).length, 1);
      await waitForCache(page);
      assert.equal((await load(page)).info.source, 'cache', 'repaired');
    }));

  test('dispose right after loading does not lose the copy', () =>
    withPage(async (page) => {
      await load(page);
      await page.evaluate(() => encoder.dispose());
      await waitForCache(page);
      assert.equal((await load(page)).info.source, 'cache');
    }));

  const failures = {
    '404': ['model_not_found', (response) => response.writeHead(404).end()],
    'an HTML page': ['not_a_model', (response) => response.setHeader('content-type', 'text/html').end('<!doctype html><title>app</title>')],
    'a download cut in half': ['download_truncated', (response, model) => {
      response.writeHead(200, { 'content-length': model.length });
      response.write(model.subarray(0, model.length / 2), () => setTimeout(() => response.destroy(), 50));
    }],
    'half a file, complete by its own word': ['download_truncated', (response, model) => response.end(model.subarray(0, model.length / 2))],
    'a damaged file': ['checksum_mismatch', (response, model) => {
      const damaged = Buffer.from(model);
      damaged[damaged.length - 5] ^= 1;
      response.end(damaged);
    }],
    'no network': ['network', (response) => response.destroy()],
  };
  for (const [what, [code, answer]] of Object.entries(failures)) {
    for (const worker of [true, false]) {
      test(`${what} is ${code} ${worker ? 'in a worker' : 'beside the page'}`, () =>
        withPage(async (page) => {
          const model = await readFile(new URL(`model/${manifest.file}`, PKG));
          site.intercept = (path, response) => path === modelPath && (answer(response, model), true);
          const failed = await load(page, { worker });
          assert.equal(failed.code, code, failed.message);
          assert.ok(failed.ours);
          assert.equal(await page.evaluate(async () => (await (await caches.open('munjang-models')).keys()).length), 0, 'nothing is cached');
          site.intercept = undefined;
          const again = await load(page, { worker });
          assert.equal(again.info?.source, 'network', again.message);
        }));
    }
  }

  test('abort during the download', () =>
    withPage(async (page) => {
      site.intercept = (path, response) => {
        if (path !== modelPath) return false;
        response.writeHead(200, { 'content-length': manifest.bytes });
        response.flushHeaders();
        return true;
      };
      const error = await page.evaluate(async () => {
        const { loadEncoder } = await import('/pkg/index.js');
        return loadEncoder({ signal: AbortSignal.timeout(300) }).catch(({ code, name }) => ({ code, name }));
      });
      assert.deepEqual(error, { code: 'aborted', name: 'AbortError' });
    }));

  test('code that is missing, a worker that is missing', () =>
    withPage(async (page) => {
      site.intercept = (path, response) => path.endsWith('.wasm') && (response.writeHead(404).end(), true);
      assert.equal((await load(page)).code, 'wasm_unavailable');
      site.intercept = (path, response) => path.endsWith('/worker.js') && (response.writeHead(404).end(), true);
      assert.equal((await load(page)).code, 'worker_failed');
    }));

  test('a server that does not know the type of .wasm', () =>
    withPage(async (page) => {
      const code = await readFile(new URL('wasm/munjang_relaxed.wasm', PKG));
      site.intercept = (path, response) =>
        path.endsWith('.wasm') && (response.writeHead(200, { 'content-type': 'application/octet-stream' }).end(code), true);
      assert.equal((await load(page)).info?.build, 'relaxed');
    }));

  test('a browser without SIMD, and one without relaxed SIMD', async () => {
    await withPage(async (page) => assert.equal((await load(page)).code, 'unsupported_browser'), {
      init: () => { WebAssembly.validate = () => false; } });
    await withPage(async (page) => assert.equal((await load(page)).info?.build, 'simd128'), {
      init: () => {
        const { validate } = WebAssembly;
        WebAssembly.validate = (bytes) => bytes.length < 33 && validate(bytes);
      },
    });
  });

  test('plain http, without crypto.subtle and caches', () =>
    withPage(async (page) => {
      assert.equal(await page.evaluate(() => isSecureContext), false);
      assert.equal((await load(page)).info?.source, 'network');
      const model = await readFile(new URL(`model/${manifest.file}`, PKG));
      model[model.length - 5] ^= 1;
      site.intercept = (path, response) => path === modelPath && (response.end(model), true);
      assert.equal((await load(page)).code, 'checksum_mismatch');
    }, { origin: site.origin.replace('127.0.0.1', INSECURE) }));

  test('a package on another origin', async () => {
    const cdn = await openSite({ '/pkg/': PKG });
    cdn.intercept = (_path, response) => void response.setHeader('access-control-allow-origin', '*');
    const forbid = site.allow(cdn.origin);
    await withPage(async (page) => {
      const loaded = await load(page, { from: `${cdn.origin}/pkg/index.js` });
      assert.equal(loaded.info?.worker, true, loaded.message);
      assert.equal((await page.evaluate(() => encoder.encode('안녕'))) !== undefined, true);
    });
    forbid();
    await cdn.close();
  });

  test('several workers fetch the model once', () =>
    withPage(async (page) => {
      site.requests.length = 0;
      const { info } = await load(page, { workers: 3, cache: false });
      assert.equal(info.workers, 3);
      assert.equal(site.requests.filter((path) => path === modelPath).length, 1);
      assert.equal(site.requests.filter((path) => path.endsWith('.wasm')).length, 1);
    }));
});

describe('models with other tokenizers', () => {
  let folder;
  let models;
  let forbid;
  before(async () => {
    await ensureNative();
    folder = await mkdtemp(join(tmpdir(), 'munjang-models-'));
    models = await openSite({ '/': pathToFileURL(`${folder}/`) });
    models.intercept = (_path, response) => void response.setHeader('access-control-allow-origin', '*');
    forbid = site.allow(models.origin);
  });
  after(async () => {
    forbid();
    await models.close();
    await rm(folder, { recursive: true, force: true });
  });

  // WordPiece, WordPiece in lower case, byte-level BPE, and a Unigram that ours does not run.
  for (const name of ['bert', 'distilbert', 'roberta', 'xlm-roberta']) {
    test(`${name}: the general code, the native bits, the file fetched once`, async () => {
      const file = join(folder, `${name}.munjang`);
      await convert(new URL(`../fixtures/small/${name}/`, import.meta.url), file);
      const bytes = await readFile(file);
      await writeFile(join(folder, `${name}.json`), JSON.stringify({
        file: `${name}.munjang`, bytes: bytes.length, sha256: createHash('sha256').update(bytes).digest('hex') }));
      // Lines: the command line reads no others.
      const texts = VARIED.filter((text) => !/[\n\r\ud800]/.test(text));
      const expected = hash(await encodeLines(file, texts));
      for (const options of [{ build: 'simd128' }, { build: 'relaxed' }, { worker: false }, { workers: 2 }]) {
        await withPage(async (page) => {
          site.requests.length = 0;
          models.requests.length = 0;
          const loaded = await load(page, { ...options, modelUrl: `${models.origin}/${name}.json` });
          assert.equal(loaded.code, undefined, loaded.message);
          assert.equal(loaded.events.at(-1).loaded, bytes.length);
          const floats = await page.evaluate(async (texts) => (await encoder.encode(texts)).flatMap((v) => [...v]), texts);
          assert.equal(hash(floats), expected, JSON.stringify(options));
          assert.equal(models.requests.filter((path) => path.endsWith('.munjang')).length, 1);
          assert.equal(site.requests.filter((path) => path.includes('munjang_general_')).length, 1);
          await waitForCache(page);
          await page.evaluate(() => encoder.dispose());
          assert.equal((await load(page, { ...options, modelUrl: `${models.origin}/${name}.json` })).info.source, 'cache');
        });
      }
    });
  }
});

describe('encoding', () => {
  test('the same bits in both builds, in Node and in Chromium, alone and in a batch', async () => {
    const hashes = {};
    for (const build of ['simd128', 'relaxed']) {
      const encoder = await loadEncoder({ build, worker: false }).catch((error) => {
        // Node has had relaxed SIMD since version 22.
        if (error.code === 'unsupported_browser' && build === 'relaxed') return undefined;
        throw error;
      });
      if (encoder) {
        hashes[`node ${build}`] = hash((await encoder.encode(VARIED)).flatMap((v) => [...v]));
        const alone = [];
        for (const text of VARIED) alone.push(...(await encoder.encode(text)));
        hashes[`node ${build} alone`] = hash(alone);
        encoder.dispose();
      }
      await withPage(async (page) => {
        await load(page, { build });
        const floats = await page.evaluate(async (texts) => (await encoder.encode(texts)).flatMap((v) => [...v]), VARIED);
        assert.ok(floats.every(Number.isFinite));
        hashes[`chromium ${build}`] = hash(floats);
      });
    }
    assert.ok(Object.keys(hashes).length >= 4);
    assert.equal(new Set(Object.values(hashes)).size, 1, JSON.stringify(hashes, null, 2));
  });

  test('input of all kinds', () =>
    withPage(async (page) => {
      await load(page);
      const seen = await page.evaluate(async () => {
        const same = async (a, b) => {
          const [x, y] = await encoder.encode([a, b]);
          return x.every((value, i) => Object.is(value, y[i]));
        };
        const length = (v) => Math.hypot(...v);
        const million = '가나다라 마바사 '.repeat(111_112).slice(0, 1_000_000);
        const report = await encoder.encodeWithReport([million, '짧다', '']);
        const errorOf = (input) => encoder.encode(input).then(() => 'no error', ({ code, index }) => `${code} ${index}`);
        const hole = ['a', 'b'];
        delete hole[0];
        return {
          lengths: (await encoder.encode(['', '  \n', '\0', 'a\0b', '\ud800', '😀'])).map(length),
          surrogate: await same('홀로 \ud800 남은', '홀로 \ufffd 남은'),
          nul: await same('가\0나', '가나'),
          nfd: await same('각별한 한글'.normalize('NFD'), '각별한 한글'),
          sameAsOther: await same('하나', '둘'),
          truncated: report.truncated,
          counts: report.tokenCounts,
          countOfMillion: await encoder.countTokens(million),
          million: length(report.embeddings[0]),
          errors: [await errorOf(7), await errorOf(null), await errorOf(['a', undefined]), await errorOf(hole)],
          none: await encoder.encode([]),
        };
      });
      for (const length of [...seen.lengths, seen.million]) assert.ok(Math.abs(length - 1) < 1e-5, `length ${length}`);
      assert.equal(seen.surrogate, true);
      assert.equal(seen.nfd, true);
      assert.equal(seen.sameAsOther, false, 'the comparison itself can fail');
      assert.deepEqual(seen.truncated, [true, false, false]);
      assert.ok(seen.counts[0] > 512 && seen.countOfMillion > 100_000, `${seen.counts} ${seen.countOfMillion}`);
      assert.deepEqual(seen.errors, ['input_invalid undefined', 'input_invalid undefined', 'input_invalid 1', 'input_invalid 0']);
      assert.deepEqual(seen.none, []);
    }));

  test('100,000 texts at once: progress, flat memory, abort; the page stays responsive', () =>
    withPage(async (page) => {
      await load(page);
      const seen = await page.evaluate(async () => {
        const texts = Array.from({ length: 100_000 }, (_, i) => `${i}번째 문장`);
        // The tokenizer's cache of words fills first; after that nothing grows.
        await encoder.encode(texts.slice(0, 1500));
        const before = await encoder.memoryUsage();
        const controller = new AbortController();
        const events = [];
        let ticks = 0;
        const timer = setInterval(() => ticks++, 5);
        const error = await encoder.encode(texts, {
          signal: controller.signal,
          onProgress: (event) => {
            events.push(event);
            if (event.done >= 3500) controller.abort();
          },
        }).catch((error) => error);
        clearInterval(timer);
        const after = await encoder.memoryUsage();
        return { code: error.code, events: events.length, total: events[0].total, ticks, before, after, next: (await encoder.encode('다음')).length };
      });
      assert.equal(seen.code, 'aborted');
      assert.equal(seen.total, 100_000);
      assert.ok(seen.events > 50);
      assert.ok(seen.ticks > 10, 'timers went on');
      assert.deepEqual(seen.after, seen.before);
      assert.ok(seen.next > 0);
    }));

  test('several workers give the same, in order', () =>
    withPage(async (page) => {
      await load(page, { workers: 2 });
      const same = await page.evaluate(async () => {
        const texts = Array.from({ length: 300 }, (_, i) => '문장 '.repeat(1 + (i % 40)) + i);
        const two = await encoder.encode(texts);
        const { loadEncoder } = await import('/pkg/index.js');
        const single = await loadEncoder();
        const one = await single.encode(texts);
        return two.every((v, i) => v.every((x, j) => Object.is(x, one[i][j])));
      });
      assert.equal(same, true);
    }));

  test('calls at once, dispose during a call', () =>
    withPage(async (page) => {
      await load(page);
      const codes = await page.evaluate(async () => {
        const both = await Promise.all([encoder.encode(['가', '나']), encoder.encode('다'), encoder.countTokens('라')]);
        const call = encoder.encode(Array(500).fill('가'));
        encoder.dispose();
        return [both[0].length, both[1].length > 2, both[2] > 0,
          await call.catch(({ code }) => code), await encoder.encode('가').catch(({ code }) => code)];
      });
      assert.deepEqual(codes, [2, true, true, 'disposed', 'disposed']);
    }));

  for (const worker of [true, false]) {
    test(`after a trap in the real core the next call starts a fresh instance, from the cache, ${worker ? 'in a worker' : 'beside the page'}`, () =>
      withPage(async (page) => {
        // A core that traps on one text: everything else is what ships.
        const glue = await readFile(new URL('wasm/munjang.js', PKG), 'utf8');
        site.intercept = (path, response) => path.endsWith('/munjang.js') && (response.writeHead(200, { 'content-type': 'text/javascript' })
          .end(`${glue.replace('export default', 'const createGlue =')}
            export default () => {
              const glue = createGlue();
              const { encodeBatch } = glue.Encoder.prototype;
              glue.Encoder.prototype.encodeBatch = function (texts) {
                if (texts.includes('#trap')) throw new WebAssembly.RuntimeError('unreachable');
                return encodeBatch.call(this, texts);
              };
              return glue;
            };`), true);
        await load(page, { build: 'relaxed', worker });
        await waitForCache(page);
        site.requests.length = 0;
        const seen = await page.evaluate(async () => {
          const before = await encoder.encode('하나');
          const calls = await Promise.allSettled([encoder.encode('#trap'), encoder.encode(Array(200).fill('둘'))]);
          const after = await encoder.encode('하나');
          return { codes: calls.map(({ reason }) => reason?.code), same: before.every((x, i) => Object.is(x, after[i])) };
        });
        assert.deepEqual(seen, { codes: ['crashed', 'crashed'], same: true });
        assert.ok(!site.requests.includes(modelPath), 'the model came from the cache');
      }));
  }
});
