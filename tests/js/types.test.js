// The hand-written types against a strict user, and against the code they describe.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { readFile, readdir } from 'node:fs/promises';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

import { fakePackage } from './package.js';

const run = promisify(execFile);
const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const declarations = () => readFile(new URL('../../pkg/index.d.ts', import.meta.url), 'utf8');

test('strict TypeScript accepts what is documented and refuses the rest', async () => {
  await run(here('../node_modules/.bin/tsc'), ['-p', here('types/tsconfig.json')]).catch(({ stdout, stderr }) =>
    assert.fail(stdout + stderr));
});

test('every export and every method is declared, and nothing else', async () => {
  const types = await declarations();
  const pkg = await fakePackage();
  try {
    const module = await pkg.import();
    const declared = [...types.matchAll(/^export (?:class|function) (\w+)/gm)].map(([, name]) => name);
    assert.deepEqual(Object.keys(module).sort(), declared.sort());
    const body = types.slice(types.indexOf('class SentenceEncoder'), types.indexOf('export type MunjangErrorCode'));
    const methods = Object.getOwnPropertyNames(module.SentenceEncoder.prototype).filter((name) => name !== 'constructor');
    for (const name of methods) assert.match(body, new RegExp(`^  (readonly )?${name}[(:]`, 'm'), name);
    const encoder = await module.loadEncoder();
    const interfaceOf = (name) => [...types.match(new RegExp(`interface ${name} {([^}]*)}`))[1]
      .matchAll(/readonly (\w+)/g)].map(([, field]) => field).sort();
    assert.deepEqual(Object.keys(encoder.info).sort(), interfaceOf('EncoderInfo'));
    assert.deepEqual(Object.keys(encoder.info.timings).sort(), interfaceOf('LoadTimings'));
    encoder.dispose();
  } finally {
    await pkg.remove();
  }
});

test('every error code in the code is declared and explained in the README', async () => {
  const types = await declarations();
  const readme = await readFile(new URL('../../pkg/README.md', import.meta.url), 'utf8');
  const declared = [...types.slice(types.indexOf('MunjangErrorCode')).matchAll(/^ {2}\| '(\w+)'/gm)].map(([, code]) => code);
  const used = new Set();
  const pkg = new URL('../../pkg/', import.meta.url);
  for (const name of (await readdir(pkg)).filter((name) => name.endsWith('.js'))) {
    const source = await readFile(new URL(name, pkg), 'utf8');
    for (const [, code] of source.matchAll(/new MunjangError\(\s*'(\w+)'/g)) used.add(code);
  }
  assert.ok(used.size > 10);
  for (const code of used) assert.ok(declared.includes(code), `${code} is not declared`);
  for (const code of declared) assert.match(readme, new RegExp(`^\\| \`${code}\` \\|`, 'm'), `${code} is not in the README`);
});
