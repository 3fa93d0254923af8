// Loading: progress, sources, and each way in which a model can fail to arrive.
import assert from 'node:assert/strict';
import { readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { Worker } from 'node:worker_threads';

import { fakeModel, fakePackage, sha256 } from './package.js';
import { pieces, serve } from './server.js';

const model = fakeModel();
let pkg;
let munjang;
before(async () => {
  pkg = await fakePackage(model);
  munjang = await pkg.import();
});
after(() => pkg.remove());

/** Loads, collects the progress, and gives the encoder or the error. */
async function attempt(options) {
  const events = [];
  try {
    const encoder = await munjang.loadEncoder({ ...options, onProgress: (event) => events.push(event) });
    const { info } = encoder;
    encoder.dispose();
    return { info, events };
  } catch (error) {
    return { error, events };
  }
}

/** Node has no Cache API; this one behaves like it as far as the package can see. */
function fakeCaches() {
  const stores = new Map();
  const open = async (name) => {
    if (!stores.has(name)) stores.set(name, new Map());
    const store = stores.get(name);
    return {
      match: async (key) => (store.has(key) ? new Response(store.get(key).slice()) : undefined),
      put: async (key, response) => void store.set(key, new Uint8Array(await response.arrayBuffer())),
      delete: async (key) => store.delete(key),
      keys: async () => [...store.keys()].map((url) => ({ url })),
    };
  };
  const models = new Map();
  stores.set('munjang-models', models);
  return {
    models,
    open,
    delete: async (name) => {
      const had = (stores.get(name)?.size ?? 0) > 0;
      stores.get(name)?.clear();
      return had;
    },
  };
}

function checkEvents(events, total) {
  assert.ok(events.length >= 2);
  assert.ok(events.every((event) => event.total === total), 'the total is constant');
  for (let i = 1; i < events.length; i++) assert.ok(events[i].loaded >= events[i - 1].loaded, 'loaded never falls');
  assert.deepEqual(events.at(-1), { loaded: total, total });
}

for (const worker of [true, false]) {
  describe(worker ? 'in a worker thread' : 'beside the caller', () => {
    test('loads the model beside the code', async () => {
      const { info, events, error } = await attempt({ worker });
      assert.ifError(error);
      assert.equal(info.source, 'file');
      assert.equal(info.bytes, model.length);
      assert.equal(info.hiddenSize, 8);
      assert.equal(info.maxTokens, 16);
      assert.equal(info.worker, worker);
      for (const name of ['worker', 'code', 'instantiate', 'fetch', 'verify', 'model', 'total']) {
        assert.equal(typeof info.timings[name], 'number', name);
      }
      checkEvents(events, model.length);
    });

    test('follows a manifest over http, with progress by bytes', async () => {
      const server = await serve({
        '/m/manifest.json': (_request, response) => response.end(JSON.stringify(pkg.manifest)),
        '/m/fake.munjang': pieces(model),
      });
      const { info, events, error } = await attempt({ worker, modelUrl: `${server.origin}/m/manifest.json` });
      await server.close();
      assert.ifError(error);
      assert.equal(info.source, 'network');
      checkEvents(events, model.length);
      assert.ok(events.length > 3, 'several events');
    });

    test('loads a bare file, with and without a content length', async () => {
      const server = await serve({
        '/known': pieces(model),
        '/unknown': (_request, response) => {
          response.writeHead(200, { 'transfer-encoding': 'chunked' });
          response.write(model.subarray(0, 1000));
          response.end(model.subarray(1000));
        },
      });
      const known = await attempt({ worker, modelUrl: `${server.origin}/known` });
      const unknown = await attempt({ worker, modelUrl: new URL(`${server.origin}/unknown`) });
      await server.close();
      assert.ifError(known.error);
      assert.ok(known.events.every((event) => event.total === model.length));
      assert.ifError(unknown.error);
      assert.deepEqual(unknown.events.at(-1), { loaded: model.length, total: model.length });
    });

    const failures = {
      'a 404': ['model_not_found', { '/model': (_q, r) => r.writeHead(404).end() }],
      'a 500': ['http_error', { '/model': (_q, r) => r.writeHead(500).end() }],
      'an HTML page': ['not_a_model', { '/model': (_q, r) => r.setHeader('content-type', 'text/html').end('<!doctype html><p>hello') }],
      'an HTML page called a model': ['not_a_model',
        { '/model': (_q, r) => r.setHeader('content-type', 'application/octet-stream').end('<!doctype html><p>hello') }],
      'something else': ['not_a_model', { '/model': (_q, r) => r.end('{"hello":"there, this is not a model"}') }],
      'nothing at all': ['download_truncated', { '/model': (_q, r) => r.end() }],
      'a download cut in half': ['download_truncated', { '/model': (_q, r) => {
        r.writeHead(200, { 'content-length': model.length });
        r.write(model.subarray(0, model.length / 2), () => setTimeout(() => r.destroy(), 20));
      } }],
      'an announcement of 3 GB': ['not_a_model', { '/model': (_q, r) => {
        r.writeHead(200, { 'content-length': 3e9 });
        r.write(model.subarray(0, 1000));
      } }],
      'more than memory holds': ['out_of_memory', { '/model': (_q, r) => {
        r.writeHead(200, { 'content-length': 1e8 });
        r.write(model.subarray(0, 1000));
      } }],
      'a model of another version': ['weights_version', { '/model': pieces(fakeModel({ mark: 'old' })) }],
      'a core that traps': ['crashed', { '/model': pieces(fakeModel({ mark: 'trap' })) }],
    };
    for (const [what, [code, routes]] of Object.entries(failures)) {
      test(`${what} is ${code}`, async () => {
        const server = await serve(routes);
        const { error } = await attempt({ worker, modelUrl: `${server.origin}/model` });
        await server.close();
        assert.ok(error instanceof munjang.MunjangError, String(error));
        assert.equal(error.code, code, error.message);
        assert.ok(error.message.length > 30, error.message);
        // No text was read: the file is to blame.
        if (code === 'crashed') assert.match(error.message, /^The model file made .*not a text/);
      });
    }

    test('a file shorter than its manifest is download_truncated, a longer or damaged one checksum_mismatch', async () => {
      const damaged = model.slice();
      damaged[200_000] ^= 1;
      const server = await serve({
        '/manifest.json': (_request, response) => response.end(JSON.stringify(pkg.manifest)),
        '/fake.munjang': (request, response) => routes[kind](request, response),
      });
      const routes = {
        short: pieces(model.subarray(0, 200_000)),
        long: pieces(Buffer.concat([model, model.subarray(0, 1000)])),
        damaged: pieces(damaged),
        // Damage that also makes the core trap must not hide behind the trap.
        trap: pieces(fakeModel({ mark: 'trap' })),
      };
      let kind;
      const codes = {};
      for (kind of Object.keys(routes)) {
        const { error, events } = await attempt({ worker, modelUrl: `${server.origin}/manifest.json` });
        codes[kind] = error?.code;
        assert.ok(!events.some(({ loaded, total }) => loaded === total), `${kind}: no event says that it is complete`);
      }
      await server.close();
      assert.deepEqual(codes, { short: 'download_truncated', long: 'checksum_mismatch', damaged: 'checksum_mismatch', trap: 'checksum_mismatch' });
    });

    test('manifests that are none', async () => {
      const server = await serve({
        '/html.json': (_q, r) => r.end('<!doctype html>'),
        '/empty.json': (_q, r) => r.end('{}'),
        '/sha.json': (_q, r) => r.end(JSON.stringify({ ...pkg.manifest, sha256: 'abc' })),
      });
      for (const [path, code] of [['/html.json', 'not_a_model'], ['/empty.json', 'not_a_model'], ['/sha.json', 'not_a_model'], ['/none.json', 'model_not_found']]) {
        const { error } = await attempt({ worker, modelUrl: `${server.origin}${path}` });
        assert.equal(error?.code, code, path);
      }
      await server.close();
    });

    test('no network', async () => {
      const server = await serve({});
      await server.close();
      const { error } = await attempt({ worker, modelUrl: `${server.origin}/model` });
      assert.equal(error?.code, 'network');
    });

    test('a path that does not exist', async () => {
      const { error } = await attempt({ worker, modelUrl: './no such model.munjang' });
      assert.equal(error?.code, 'model_not_found');
    });

    test('abort before, while waiting and in the middle', async () => {
      assert.equal((await attempt({ worker, signal: AbortSignal.abort() })).error?.code, 'aborted');
      for (const send of [false, true]) {
        const controller = new AbortController();
        const server = await serve({ '/model': (_request, response) => {
          response.writeHead(200, { 'content-length': model.length });
          if (send) response.write(model.subarray(0, 1000));
          else response.flushHeaders();
          setTimeout(() => controller.abort(new Error('enough')), 100);
        } });
        const { error } = await attempt({ worker, modelUrl: `${server.origin}/model`, signal: controller.signal });
        await server.close();
        assert.equal(error?.code, 'aborted');
        assert.equal(error.name, 'AbortError');
        assert.equal(error.cause.message, 'enough');
      }
    });
  });
}

test('options that make no sense', async () => {
  for (const options of [{ workers: 0 }, { workers: 1.5 }, { worker: false, workers: 2 }, { build: 'avx' }, { modelUrl: 7 }, { modelUrl: 'http://' }]) {
    assert.equal((await attempt(options)).error?.code, 'input_invalid', JSON.stringify(options));
  }
});

test('an error thrown by onProgress rejects the loading', async () => {
  const thrown = new Error('from the caller');
  await assert.rejects(munjang.loadEncoder({ onProgress: () => { throw thrown; } }), (error) => error === thrown);
});

test('an engine without SIMD, and one without relaxed SIMD', async () => {
  const { validate } = WebAssembly;
  try {
    WebAssembly.validate = () => false;
    assert.equal((await attempt({})).error?.code, 'unsupported_browser');
    // The relaxed probe is the longer one.
    WebAssembly.validate = (bytes) => bytes.length < 33 && validate(bytes);
    const { info } = await attempt({ worker: false });
    assert.equal(info.build, 'simd128');
    assert.equal(info.kernel, 'simd128');
    assert.equal((await attempt({ build: 'relaxed' })).error?.code, 'unsupported_browser');
  } finally {
    WebAssembly.validate = validate;
  }
});

test('without crypto.subtle the core computes the digest', async () => {
  const { crypto } = globalThis;
  Object.defineProperty(globalThis, 'crypto', { value: {}, configurable: true });
  try {
    const { error } = await attempt({ worker: false });
    // The fake core says so by failing.
    assert.match(error?.message ?? '', /no digest/);
  } finally {
    Object.defineProperty(globalThis, 'crypto', { value: crypto, configurable: true });
  }
});

describe("a model whose tokenizer needs the general code", () => {
  const odd = fakeModel({ mark: 'odd' });
  let other;
  before(async () => {
    other = await fakePackage(odd);
  });
  after(() => other.remove());

  for (const options of [{ worker: true }, { worker: false }, { workers: 3 }]) {
    test(`gets it without being fetched again, ${JSON.stringify(options)}`, async () => {
      const server = await serve({ '/manifest.json': (_q, r) => r.end(JSON.stringify(other.manifest)), '/fake.munjang': pieces(odd) });
      const { loadEncoder } = await other.import();
      const events = [];
      const encoder = await loadEncoder({
        ...options, modelUrl: `${server.origin}/manifest.json`, onProgress: (event) => events.push(event) });
      checkEvents(events, odd.length);
      assert.equal(server.requests.filter((path) => path === '/fake.munjang').length, 1);
      assert.equal((await encoder.encode(Array(200).fill('가'))).length, 200);
      assert.equal(encoder.info.bytes, odd.length);
      // A restart begins with the general code: the other is not asked for any more.
      const slim = ['simd', 'relaxed'].map((name) => join(other.root, `wasm/munjang_${name}.wasm`));
      const code = await Promise.all(slim.map((path) => readFile(path)));
      await Promise.all(slim.map((path) => rm(path)));
      await assert.rejects(encoder.encode('#trap'), { code: 'crashed' });
      assert.equal((await encoder.encode('다시')).length, 8);
      await Promise.all(slim.map((path, n) => writeFile(path, code[n])));
      encoder.dispose();
      await server.close();
    });
  }

  test('is wasm_unavailable where that is missing, and checksum_mismatch if it is damaged', async () => {
    const broken = await fakePackage(odd);
    try {
      const { loadEncoder } = await broken.import();
      for (const name of ['simd', 'relaxed']) await rm(join(broken.root, `wasm/munjang_general_${name}.wasm`));
      for (const worker of [true, false]) await assert.rejects(loadEncoder({ worker }), { code: 'wasm_unavailable' });
      const damaged = odd.slice();
      damaged[1000] ^= 1;
      await writeFile(join(broken.root, 'model/fake.munjang'), damaged);
      for (const worker of [true, false]) await assert.rejects(loadEncoder({ worker }), { code: 'checksum_mismatch' });
    } finally {
      await broken.remove();
    }
  });

  test('is kept in the cache, and read from there', async () => {
    globalThis.caches = fakeCaches();
    const store = globalThis.caches.models;
    try {
      const { loadEncoder } = await other.import();
      const first = await loadEncoder({ worker: false });
      first.dispose();
      while (store.size === 0) await new Promise((resolve) => setTimeout(resolve, 20));
      assert.equal(sha256([...store.values()][0]), sha256(odd));
      const second = await loadEncoder({ worker: false });
      assert.equal(second.info.source, 'cache');
      second.dispose();
    } finally {
      delete globalThis.caches;
    }
  });
});

test('missing code is wasm_unavailable', async () => {
  const broken = await fakePackage(model);
  try {
    for (const name of ['simd', 'relaxed']) await writeFile(join(broken.root, `wasm/munjang_${name}.wasm`), '<!doctype html>');
    const { loadEncoder } = await broken.import();
    await assert.rejects(loadEncoder(), { code: 'wasm_unavailable' });
    await assert.rejects(loadEncoder({ worker: false }), { code: 'wasm_unavailable' });
  } finally {
    await broken.remove();
  }
});

test('a worker script that does not start is worker_failed', async () => {
  const broken = await fakePackage(model);
  try {
    await writeFile(join(broken.root, 'worker.js'), 'import "./not-there.js";');
    const { loadEncoder } = await broken.import();
    await assert.rejects(loadEncoder(), { code: 'worker_failed' });
  } finally {
    await broken.remove();
  }
});

test('a manifest names a file beside itself and nothing else', async () => {
  let file;
  const server = await serve({
    '/m/manifest.json': (_request, response) => response.end(JSON.stringify({ ...pkg.manifest, file })),
    '/old/manifest.json': (_request, response) => response.writeHead(302, { location: '/m/manifest.json' }).end(),
    '/fake.munjang': pieces(model),
    '/m/sub/fake.munjang': pieces(model),
  });
  const outside = pkg.url('model/fake.munjang');
  try {
    for (file of ['../fake.munjang', '/fake.munjang', 'sub/fake.munjang', '..\\fake.munjang', '..', '.', '', `${server.origin}/fake.munjang`,
      `//${server.origin.slice(7)}/fake.munjang`, outside, 'a\0b', '\ud800']) {
      const { error } = await attempt({ modelUrl: `${server.origin}/m/manifest.json` });
      assert.ok(error instanceof munjang.MunjangError, `${file} was followed`);
      assert.equal(error.code, 'not_a_model', file);
    }
    assert.deepEqual(server.requests.filter((path) => path.endsWith('.munjang')), []);
    // A name is a name, whatever its letters mean in an address.
    for (file of ['모델 #1.munjang', 'a?b=c.munjang', '100%.munjang', '%2e%2e%2ffake.munjang', 'http:x.munjang', 'c:d']) {
      server.routes[`/m/${encodeURIComponent(file)}`] = pieces(model);
      for (const folder of ['m', 'old']) {
        const { error, info } = await attempt({ modelUrl: `${server.origin}/${folder}/manifest.json` });
        assert.ifError(error);
        assert.equal(info.source, 'network');
      }
      // On the disk as well.
      const path = join(pkg.root, 'model', file);
      await writeFile(path, model);
      await writeFile(join(pkg.root, 'model/other.json'), JSON.stringify({ ...pkg.manifest, file }));
      const { error } = await attempt({ modelUrl: pkg.url('model/other.json') });
      assert.ifError(error);
      await rm(path);
    }
  } finally {
    await server.close();
  }
});

test('page and worker of two versions refuse each other, and say so', async () => {
  const mixed = await fakePackage(model);
  try {
    const { loadEncoder } = await mixed.import();
    // An old worker under a new page: what it answers has another version, or none.
    for (const version of ['"0.0.9"', 'undefined']) {
      await writeFile(join(mixed.root, 'worker.js'), `import { parentPort } from 'node:worker_threads';
        parentPort.on('message', ({ id }) => parentPort.postMessage({ id, version: ${version} }));`);
      const error = await loadEncoder().then(() => assert.fail('it loaded'), (e) => e);
      assert.equal(error.code, 'worker_failed');
      assert.match(error.message, /0\.0\.9|older/);
      assert.match(error.message, /one version/);
    }
    // A new worker under an old page.
    const { createService } = await import(mixed.url('service.js'));
    const answers = [];
    const serve = createService((message) => answers.push(message));
    await serve({ id: 1, op: 'code', version: '0.0.9' });
    await serve({ id: 2, op: 'memory' });
    assert.deepEqual(answers.map(({ id, error }) => [id, error.code]), [[1, 'worker_failed'], [2, 'worker_failed']]);
    assert.match(answers[0].error.message, /0\.0\.9/);
  } finally {
    await mixed.remove();
  }
});

/** A worker thread with the face of a browser's worker, which dies without a word. */
function silentWorker(url, made) {
  const thread = new Worker(new URL(url), { execArgv: [] });
  const face = {
    postMessage: (message, transfer) => thread.postMessage(message, transfer),
    terminate: () => thread.terminate(),
  };
  thread.on('message', (data) => face.onmessage({ data }));
  made.push(thread);
  return face;
}

test('a worker that is ended from outside: what is pending ends as crashed, the next call works', async () => {
  const made = [];
  const encoder = await munjang.loadEncoder({ createWorker: () => silentWorker(pkg.url('worker.js'), made) });
  assert.equal((await encoder.encode('가')).length, 8);
  const call = encoder.encode(Array(10_000).fill('#slow'));
  const started = performance.now();
  setTimeout(() => made[0].terminate(), 50);
  await assert.rejects(call, { code: 'crashed' });
  assert.ok(performance.now() - started < 20_000);
  assert.equal((await encoder.encode('나')).length, 8);
  assert.equal(made.length, 2);
  encoder.dispose();
});

test('a worker that is slow is not taken for one that was ended', async () => {
  const made = [];
  const encoder = await munjang.loadEncoder({ createWorker: () => silentWorker(pkg.url('worker.js'), made) });
  await encoder.encode(Array(100).fill('#slow'));
  assert.equal(made.length, 1);
  encoder.dispose();
});

test('workerUrl, and what createWorker may not give', async () => {
  const encoder = await munjang.loadEncoder({ workerUrl: pkg.url('worker.js'), wasmUrl: pkg.url('wasm') });
  assert.equal(encoder.info.worker, true);
  encoder.dispose();
  for (const createWorker of [() => undefined, () => ({}), async () => 7, () => { throw new Error('no'); }]) {
    await assert.rejects(munjang.loadEncoder({ createWorker }), { name: 'MunjangError', code: 'worker_failed' });
  }
  await assert.rejects(munjang.loadEncoder({ workerUrl: pkg.url('not-there.js') }), { code: 'worker_failed' });
  await assert.rejects(munjang.loadEncoder({ wasmUrl: pkg.url('not-there/') }), { code: 'wasm_unavailable' });
});

describe('with a cache', () => {
  let store;
  before(() => {
    globalThis.caches = fakeCaches();
    store = globalThis.caches.models;
  });
  after(() => delete globalThis.caches);

  async function withServer(body, run) {
    const server = await serve({
      '/manifest.json': (_request, response) => response.end(JSON.stringify(pkg.manifest)),
      '/fake.munjang': (request, response) => pieces(body())(request, response),
    });
    try {
      return await run((options) => attempt({ worker: false, modelUrl: `${server.origin}/manifest.json`, ...options }), server);
    } finally {
      await server.close();
    }
  }
  // The copy waits for the first sentences to go before it.
  const settled = () => new Promise((resolve) => setTimeout(resolve, 350));

  test('the second load comes from the cache, a bad entry is deleted and fetched once more', async () => {
    await withServer(() => model, async (load, server) => {
      assert.equal((await load()).info.source, 'network');
      await settled();
      assert.equal(store.size, 1);
      assert.equal(await munjang.isCached({ modelUrl: `${server.origin}/manifest.json` }), true);
      assert.equal(await munjang.isCached({ modelUrl: `${server.origin}/fake.munjang` }), false, 'a bare file has no known hash');
      const [key] = store.keys();
      assert.ok(key.endsWith(sha256(model)));
      const cached = await load();
      assert.equal(cached.info.source, 'cache');
      checkEvents(cached.events, model.length);
      assert.equal(server.requests.filter((path) => path === '/fake.munjang').length, 1);

      const damages = [
        () => { store.get(key)[150_000] ^= 4; },
        () => store.set(key, store.get(key).slice(0, 1000)),
        () => store.set(key, new TextEncoder().encode('<!doctype html>'.repeat(100))),
        () => store.set(key, new Uint8Array(0)),
      ];
      for (const [n, damage] of damages.entries()) {
        damage();
        const again = await load();
        assert.ifError(again.error);
        assert.equal(again.info.source, 'network', `damage ${n}`);
        checkEvents(again.events, model.length);
        await settled();
        assert.equal(sha256(store.get(key)), sha256(model), 'repaired');
      }
      assert.equal((await load()).info.source, 'cache');
      assert.equal((await load({ cache: false })).info.source, 'network');
      assert.equal(await munjang.clearModelCache(), true);
      assert.equal(await munjang.clearModelCache(), false);
      assert.equal(await munjang.isCached(), false);
      await assert.rejects(munjang.isCached({ modelUrl: 7 }), { code: 'input_invalid' });
    });
  });

  test('dispose right after loading does not lose the copy', async () => {
    store.clear();
    const { caches } = globalThis;
    const { open } = caches;
    // A slow disk.
    caches.open = async (name) => {
      const cache = await open(name);
      return { ...cache, put: async (key, response) => { await new Promise((r) => setTimeout(r, 100)); await cache.put(key, response); } };
    };
    try {
      await withServer(() => model, async (load) => {
        assert.equal((await load()).info.source, 'network');
        await new Promise((resolve) => setTimeout(resolve, 300));
        assert.equal(store.size, 1);
      });
    } finally {
      caches.open = open;
      store.clear();
    }
  });

  test('a model that nobody has loaded for a month is dropped, whatever else is kept', async () => {
    const days = (n) => new Response(String(Math.floor(Date.now() / 864e5) - n));
    const [models, uses] = await Promise.all([caches.open('munjang-models'), caches.open('munjang-models-used')]);
    const key = (name) => `https://munjang.invalid/sha256/${name}`;
    for (const [name, age] of [['old', 31], ['young', 29], ['unknown']]) {
      await models.put(key(name), new Response(name));
      if (age) await uses.put(key(name), days(age));
    }
    await withServer(() => model, async (load) => {
      await load();
      await settled();
    });
    const kept = [...store.keys()].map((url) => url.split('/').at(-1)).sort();
    assert.deepEqual(kept, [sha256(model), 'unknown', 'young'].sort());
    assert.ok(await uses.match(key('unknown')), 'its month has begun');
    assert.equal(await munjang.clearModelCache(), true);
    assert.equal(await uses.match(key('young')), undefined);
  });

  test('a damaged download is never cached and fetched only once', async () => {
    const damaged = model.slice();
    damaged[1000] ^= 1;
    await withServer(() => damaged, async (load, server) => {
      assert.equal((await load()).error?.code, 'checksum_mismatch');
      await settled();
      assert.equal(store.size, 0);
      assert.equal(server.requests.filter((path) => path === '/fake.munjang').length, 1);
    });
  });

  test('a cache that fails does no harm', async () => {
    const { caches } = globalThis;
    globalThis.caches = { open: async () => { throw new Error('SecurityError'); } };
    try {
      await withServer(() => model, async (load) => assert.equal((await load()).info.source, 'network'));
    } finally {
      globalThis.caches = caches;
    }
  });
});
