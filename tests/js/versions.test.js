// One version everywhere, and a package that cannot be published by half.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

import { VERSION } from '../../pkg/protocol.js';

const run = promisify(execFile);
const root = new URL('../../', import.meta.url);
const text = (path) => readFile(new URL(path, root), 'utf8');

test('crate, package and messages have one version, which the changelog knows', async () => {
  const { version } = JSON.parse(await text('pkg/package.json'));
  assert.equal(VERSION, version);
  assert.equal((await text('Cargo.toml')).match(/^version = "(.*)"$/m)[1], version);
  assert.ok((await text('CHANGELOG.md')).includes(`## [${version}]`));
});

test('a package without its code or its model is not packed', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'munjang-pack-'));
  try {
    for (const path of ['pkg', 'models']) {
      await cp(fileURLToPath(new URL(path, root)), join(folder, path), { recursive: true, filter: (name) => !/\/(wasm|model|node_modules)$/.test(name) });
    }
    const pack = () => run('npm', ['pack', '--dry-run', '--json'], { cwd: join(folder, 'pkg') });
    await assert.rejects(pack(), ({ stderr }) => /wasm\/munjang\S* is missing or empty/.test(stderr) && /build\.sh pkg/.test(stderr));
    await cp(fileURLToPath(new URL('tests/fake/glue.js', root)), join(folder, 'pkg/wasm/munjang.js'));
    for (const name of ['simd', 'relaxed', 'general_simd', 'general_relaxed']) await writeFile(join(folder, `pkg/wasm/munjang_${name}.wasm`), name === 'relaxed' ? '' : 'code');
    await assert.rejects(pack(), ({ stderr }) => /munjang_relaxed\.wasm is missing or empty/.test(stderr));
    await writeFile(join(folder, 'pkg/wasm/munjang_relaxed.wasm'), 'code');
    const [{ files }] = [Object.values(JSON.parse((await pack()).stdout))[0]];
    assert.ok(files.some(({ path }) => path.endsWith('.munjang')));
  } finally {
    await rm(folder, { recursive: true });
  }
});
