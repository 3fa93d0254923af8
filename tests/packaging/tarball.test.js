// The package as users get it: packed, installed in an empty folder, used from Node, from a page
// without tools and from TypeScript.
import assert from 'node:assert/strict';
import { cp, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, test } from 'node:test';

import { PKG } from '../browser/built.js';
import { HTML, assertWorks, bin, installed, run, runPage, useIn } from './apps.js';

const manifest = JSON.parse(await readFile(new URL('model/manifest.json', PKG), 'utf8'));

let packed;
let folder;
let files;
before(async () => {
  packed = await installed();
  ({ folder, files } = packed);
});
after(() => packed.remove());

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
  assert.deepEqual(Object.keys(scripts), ['prepack'], 'nothing runs at installation');
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

test('from a page without any tools', async () => {
  await writeFile(join(folder, 'index.html'), HTML('./use-in-page.js'));
  await writeFile(join(folder, 'use-in-page.js'), useIn('./node_modules/munjang/index.js'));
  const seen = await runPage(folder);
  assertWorks(seen);
  assert.equal(seen.source, 'network');
  assert.equal(seen.worker, true);
});
