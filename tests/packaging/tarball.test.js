// The package as users get it: packed, installed in an empty folder, used from Node, from a page
// without tools, from TypeScript and through a bundler.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { cp, mkdir, mkdtemp, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { promisify } from 'node:util';

import { PKG } from '../browser/built.js';
import { launch } from '../browser/chromium.js';
import { openSite } from '../browser/site.js';

const run = promisify(execFile);
const bin = (name) => fileURLToPath(new URL(`../node_modules/.bin/${name}`, import.meta.url));
const manifest = JSON.parse(await readFile(new URL('model/manifest.json', PKG), 'utf8'));

let folder;
let files;
before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'munjang-packed-'));
  // The code may have been built again since the model was staged.
  await run(process.execPath, ['prepare.mjs'], { cwd: PKG });
  const { stdout } = await run('npm', ['pack', '--json', '--pack-destination', folder], { cwd: PKG });
  const packed = Object.values(JSON.parse(stdout))[0];
  files = packed.files.map(({ path }) => path);
  await writeFile(join(folder, 'package.json'), '{ "private": true, "type": "module" }');
  await run('npm', ['install', '--offline', '--no-audit', '--no-fund', join(folder, packed.filename)], { cwd: folder });
});
after(() => rm(folder, { recursive: true, force: true }));

test('the tarball holds what is needed and nothing else', async () => {
  for (const path of ['index.js', 'index.d.ts', 'search.js', 'search.d.ts', 'vector_index.d.ts', 'worker.js', 'README.md', 'package.json', 'internal/bench-entry.js', 'model/manifest.json',
    'model/model.js', `model/${manifest.file}`, 'wasm/munjang.js', 'wasm/munjang_simd.wasm', 'wasm/munjang_relaxed.wasm',
    'wasm/munjang_general_simd.wasm', 'wasm/munjang_general_relaxed.wasm']) {
    assert.ok(files.includes(path), `${path} is missing`);
  }
  const known = /^(README\.md|LICENSE-(MIT|APACHE)|package\.json|[a-z]+(_[a-z]+)*(\.d\.ts|\.js)|internal\/[a-z-]+\.js|model\/(manifest\.json|model\.js|[\w.-]+\.munjang)|wasm\/munjang(\.js|_(general_)?(simd|relaxed)\.wasm))$/;
  assert.deepEqual(files.filter((path) => !known.test(path)), []);
  const { dependencies, scripts } = JSON.parse(await readFile(join(folder, 'node_modules/munjang/package.json'), 'utf8'));
  assert.equal(dependencies, undefined);
  assert.equal(scripts, undefined, 'nothing runs at installation');
  // Every import inside the package leads to a file inside the package.
  for (const path of files.filter((path) => path.endsWith('.js'))) {
    const source = await readFile(join(folder, 'node_modules/munjang', path), 'utf8');
    // So does every address that a bundler would follow.
    for (const [, target] of source.matchAll(/new URL\(['"`]([^'"`]+)['"`], import\.meta\.url\)/g)) {
      const resolved = new URL(target, `file:///${path}`).pathname.slice(1);
      assert.ok(files.includes(resolved), `${path} names ${target}`);
    }
    for (const [, target] of source.matchAll(/(?:from|import)\s*\(?['"](\.[^'"]+)['"]/g)) {
      const resolved = new URL(target, `file:///${path}`).pathname.slice(1);
      assert.ok(files.includes(resolved), `${path} imports ${target}`);
    }
  }
});

test('from Node', async () => {
  await writeFile(join(folder, 'use.js'), `
    import { loadEncoder, MunjangError } from 'munjang';
    const encoder = await loadEncoder();
    const [[near, far]] = await encoder.similarity('비가 옵니다.', ['밖에 비가 내려요.', '가족 모임 일정은 바꾸지 마세요.']);
    const error = await encoder.encode(7).catch((error) => error);
    console.log(JSON.stringify({ id: encoder.info.modelId, source: encoder.info.source, near, far, ours: error instanceof MunjangError }));`);
  const { stdout } = await run(process.execPath, ['use.js'], { cwd: folder });
  const seen = JSON.parse(stdout);
  assert.equal(seen.id, manifest.modelId);
  assert.equal(seen.source, 'file');
  assert.ok(seen.near > seen.far);
  assert.equal(seen.ours, true);
});

test('search, from Node', async () => {
  await writeFile(join(folder, 'find.js'), `
    import { loadEncoder } from 'munjang';
    import { MunjangError, SemanticIndex, VectorIndex } from 'munjang/search';
    const encoder = await loadEncoder();
    const index = await SemanticIndex.open('notes', { encoder, persist: true });
    await index.add([{ id: 'rain', text: '내일은 전국에 비가 내리겠습니다.' }, { id: 'tax', text: '연말정산 서류는 1월 말까지 내야 합니다.' }]);
    const hits = await index.search('내일 비 와요?');
    const copy = await SemanticIndex.fromBytes(await index.toBytes(), { encoder });
    const again = await copy.search('내일 비 와요?');
    const error = await index.add(7).catch((error) => error);
    console.log(JSON.stringify({ hits, again, persistent: index.info.persistent, ours: error instanceof MunjangError, vectors: typeof VectorIndex.create }));
    await index.close();`);
  const { stdout } = await run(process.execPath, ['find.js'], { cwd: folder });
  const { hits, again, ...rest } = JSON.parse(stdout);
  assert.deepEqual(hits.map(({ id }) => id), ['rain', 'tax']);
  assert.deepEqual(again, hits);
  assert.deepEqual(rest, { persistent: false, ours: true, vectors: 'function' });
});

test('from TypeScript, as Node and as bundlers resolve it', async () => {
  const consumers = ['consumer.ts', 'search_consumer.ts'];
  for (const name of consumers) await cp(new URL(`../js/types/${name}`, import.meta.url), join(folder, name));
  for (const [module, moduleResolution] of [['nodenext', 'nodenext'], ['esnext', 'bundler']]) {
    await run(bin('tsc'), ['--noEmit', '--strict', '--target', 'es2022', '--lib', 'es2022,dom', '--types', '', '--module', module,
      '--moduleResolution', moduleResolution, '--ignoreConfig', ...consumers], { cwd: folder }).catch(({ stdout, stderr }) => assert.fail(stdout + stderr));
  }
});

const PAGE_SCRIPT = (specifier) => `
  import { loadEncoder } from '${specifier}';
  const encoder = await loadEncoder();
  const [[score]] = await encoder.similarity('비가 옵니다.', '밖에 비가 내려요.');
  document.title = JSON.stringify({ score, source: encoder.info.source, worker: encoder.info.worker });`;

async function runPage(root) {
  const site = await openSite({ '/': root });
  const browser = await launch();
  try {
    const page = await browser.newPage();
    const problems = [];
    page.on('pageerror', (error) => problems.push(error.message));
    page.on('requestfailed', (request) => {
      // Chromium sometimes reports a worker's request so after its last byte was read.
      const why = request.failure()?.errorText;
      if (why !== 'net::ERR_ABORTED') problems.push(`${why}: ${request.url()}`);
    });
    await page.goto(site.origin);
    await page.waitForFunction(() => document.title.startsWith('{'), undefined, { timeout: 30_000 }).catch((error) => {
      assert.fail(`${error.message}\n${problems.join('\n')}`);
    });
    assert.deepEqual(problems, []);
    return JSON.parse(await page.title());
  } finally {
    await browser.close();
    await site.close();
  }
}

test('from a page without any tools', async () => {
  await writeFile(join(folder, 'index.html'), `<!doctype html><meta charset="utf-8"><script type="module">${
    PAGE_SCRIPT('./node_modules/munjang/index.js')}</script>`);
  const seen = await runPage(pathToFileURL(`${folder}/`));
  assert.ok(seen.score > 0.3);
  assert.equal(seen.source, 'network');
  assert.equal(seen.worker, true);
});

test('through a bundler', async () => {
  const app = join(folder, 'app');
  await mkdir(app);
  await writeFile(join(app, 'index.html'), '<!doctype html><meta charset="utf-8"><script type="module" src="./main.js"></script>');
  await writeFile(join(app, 'main.js'), PAGE_SCRIPT('munjang'));
  await run(bin('vite'), ['build', '--logLevel', 'warn', '--outDir', 'dist', app], { cwd: folder });
  const dist = join(app, 'dist');
  const assets = await readdir(join(dist, 'assets'));
  assert.equal(assets.filter((name) => name.endsWith('.munjang')).length, 1, 'the model came along, once');
  assert.equal(assets.filter((name) => name.endsWith('.wasm')).length, 4, 'so did the code');
  const seen = await runPage(pathToFileURL(`${dist}/`));
  assert.ok(seen.score > 0.3);
  assert.equal(seen.worker, true);
});
