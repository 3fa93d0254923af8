// The packed package through bundlers, as their users call them, and what comes out in a browser.
import assert from 'node:assert/strict';
import { cp, readFile, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { pathToFileURL } from 'node:url';

import { openSite } from '../browser/site.js';
import { HTML, assertWorks, bin, installed, run, runPage, useIn, visit } from './apps.js';

let packed;
before(async () => {
  packed = await installed();
});
after(() => packed.remove());

/** No bundle may tell where its developer's files lie. */
async function assertNoPaths(folder) {
  for (const name of await readdir(folder, { recursive: true })) {
    if (!/\.m?js$/.test(name)) continue;
    const text = await readFile(join(folder, name), 'utf8');
    assert.ok(!text.includes(packed.folder), `${name} holds a path of this machine`);
    assert.doesNotMatch(text, /file:\/\/\/\w/, name);
  }
}

/** Opens a bundle whose assets lie on another origin, which `build` is told. */
async function onTwoOrigins(build) {
  const cdn = await openSite({});
  const folder = await build(cdn.origin);
  const site = await openSite({ '/': pathToFileURL(`${folder}/`) });
  // Both serve the same files, the other origin with leave to read them.
  cdn.intercept = (path, response) => {
    void fetch(site.origin + path).then(async (answer) => {
      response.writeHead(answer.status, { 'content-type': answer.headers.get('content-type'), 'access-control-allow-origin': '*' });
      response.end(Buffer.from(await answer.arrayBuffer()));
    });
    return true;
  };
  site.headers = { 'content-security-policy': `script-src 'self' ${cdn.origin} 'wasm-unsafe-eval'; connect-src ${cdn.origin}; worker-src blob: ${cdn.origin}` };
  try {
    return await visit(`${site.origin}/`);
  } finally {
    await Promise.all([cdn.close(), site.close()]);
  }
}

test('Vite: build, and a build whose assets lie on another origin', async () => {
  const app = await packed.app('vite', { 'index.html': HTML('./main.js'), 'main.js': useIn('munjang') });
  await run(bin('vite'), ['build', '--logLevel', 'warn', app]);
  const assets = await readdir(join(app, 'dist/assets'));
  assert.equal(assets.filter((name) => name.endsWith('.munjang')).length, 1, 'the model came along, once');
  assert.equal(assets.filter((name) => name.endsWith('.wasm')).length, 4, 'so did the code');
  await assertNoPaths(join(app, 'dist'));
  const seen = await runPage(join(app, 'dist'));
  assertWorks(seen);
  assert.equal(seen.worker, true);

  const apart = await onTwoOrigins(async (origin) => {
    await run(bin('vite'), ['build', '--logLevel', 'warn', '--base', `${origin}/`, '--outDir', join(app, 'cdn'), app]);
    return join(app, 'cdn');
  });
  assertWorks(apart);
  assert.equal(apart.worker, true);
});

test('webpack: build, and assets on another origin', async () => {
  const config = `export default { mode: 'production', entry: './main.js', performance: false, output: { publicPath: process.env.PUBLIC_PATH ?? 'auto' } };`;
  const app = await packed.app('webpack', { 'main.js': useIn('munjang'), 'webpack.config.js': config, 'dist/index.html': HTML('main.js', 'defer') });
  await run(bin('webpack'), [], { cwd: app });
  await assertNoPaths(join(app, 'dist'));
  const names = await readdir(join(app, 'dist'));
  assert.ok(!names.includes('munjang.js'), 'the worker has a name that changes with it');
  const seen = await runPage(join(app, 'dist'));
  assertWorks(seen);
  assert.equal(seen.worker, true);

  const apart = await onTwoOrigins(async (origin) => {
    await run(bin('webpack'), ['--output-path', 'cdn'], { cwd: app, env: { ...process.env, PUBLIC_PATH: `${origin}/` } });
    await cp(join(app, 'dist/index.html'), join(app, 'cdn/index.html'));
    return join(app, 'cdn');
  });
  assertWorks(apart);
  assert.equal(apart.worker, true);
});

/** The one line for bundlers that do not follow `new URL(…, import.meta.url)`: README.md, "Use with". */
const BESIDE = "{ wasmUrl: 'munjang/wasm/', workerUrl: 'munjang/worker.js', modelUrl: 'munjang/model/manifest.json' }";
const copyBeside = (app, to) => cp(join(app, 'node_modules/munjang'), join(to, 'munjang'), { recursive: true });

test('esbuild: ES modules, IIFE and CommonJS', async () => {
  const app = await packed.app('esbuild', { 'main.js': useIn('munjang', BESIDE), 'bare.js': useIn('munjang'), 'dist/index.html': HTML('main.js'),
    'iife/index.html': HTML('main.js', 'defer') });
  await run(bin('esbuild'), ['main.js', '--bundle', '--format=esm', '--outdir=dist'], { cwd: app });
  await copyBeside(app, join(app, 'dist'));
  await assertNoPaths(join(app, 'dist'));
  assertWorks(await runPage(join(app, 'dist')));
  await run(bin('esbuild'), ['main.js', '--bundle', '--format=iife', '--outdir=iife', '--log-level=error'], { cwd: app });
  await copyBeside(app, join(app, 'iife'));
  assertWorks(await runPage(join(app, 'iife')));

  // Without that line, an error that names it.
  for (const [format, attributes] of [['esm', 'type="module"'], ['iife', 'defer']]) {
    const bare = await packed.app(`esbuild-${format}`, { 'main.js': useIn('munjang'), 'dist/index.html': HTML('main.js', attributes) });
    await run(bin('esbuild'), ['main.js', '--bundle', `--format=${format}`, '--outdir=dist', '--log-level=error'], { cwd: bare });
    const seen = await runPage(join(bare, 'dist'));
    assert.equal(seen.name, 'MunjangError', JSON.stringify(seen));
    assert.match(seen.message, /wasmUrl/);
  }
  const node = await packed.app('esbuild-node', { 'main.js': `import { loadEncoder } from 'munjang';
    loadEncoder().then(() => console.log('{}'), ({ name, code, message }) => console.log(JSON.stringify({ name, code, message })));` });
  await run(bin('esbuild'), ['main.js', '--bundle', '--platform=node', '--format=cjs', '--outfile=out.cjs', '--log-level=error'], { cwd: node });
  const { stdout } = await run(process.execPath, ['out.cjs'], { cwd: node });
  assert.equal(JSON.parse(stdout).name, 'MunjangError', stdout);
  assert.match(JSON.parse(stdout).message, /external/);
});

test('Rollup', async () => {
  const config = `import resolve from '@rollup/plugin-node-resolve';
    export default { input: 'main.js', output: { dir: 'dist' }, plugins: [resolve()] };`;
  const app = await packed.app('rollup', { 'main.js': useIn('munjang', BESIDE), 'rollup.config.js': config, 'dist/index.html': HTML('main.js') },
    ['@rollup/plugin-node-resolve']);
  await run(bin('rollup'), ['-c', '--silent'], { cwd: app });
  await copyBeside(app, join(app, 'dist'));
  await assertNoPaths(join(app, 'dist'));
  assertWorks(await runPage(join(app, 'dist')));
});

test('CommonJS in Node', async () => {
  const app = await packed.app('require', { 'main.cjs': `import('munjang').then(async ({ loadEncoder }) => {
      const encoder = await loadEncoder();
      console.log((await encoder.encode('비')).length === encoder.info.hiddenSize);
      encoder.dispose();
    });` });
  assert.equal((await run(process.execPath, ['main.cjs'], { cwd: app })).stdout.trim(), 'true');
});

test('publint finds nothing', async () => {
  const { publint } = await import('publint');
  const { messages } = await publint({ pkgDir: join(packed.folder, 'node_modules/munjang'), level: 'suggestion' });
  // The repository's address is not known to the package.
  assert.deepEqual(messages.filter(({ code }) => code !== 'USE_REPOSITORY'), []);
});
