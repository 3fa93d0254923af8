// A copy of the package with the fake core in it.
import { createHash } from 'node:crypto';
import { copyFile, cp, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

const pkg = new URL('../../pkg/', import.meta.url);
const glue = new URL('../fake/glue.js', import.meta.url);

/** Something that begins like a model file. */
export function fakeModel({ size = 300_000, mark = 'model' } = {}) {
  const bytes = new Uint8Array(size);
  for (let i = 0; i < size; i++) bytes[i] = (i * 31) & 255;
  const header = JSON.stringify({ __metadata__: { format: mark } });
  new DataView(bytes.buffer).setBigUint64(0, BigInt(header.length), true);
  bytes.set(new TextEncoder().encode(header), 8);
  return bytes;
}

/** An empty module with a custom section named `fake`. */
function fakeCode(says) {
  const section = new TextEncoder().encode(`\x04fake${says}`);
  return Uint8Array.of(0, 97, 115, 109, 1, 0, 0, 0, 0, section.length, ...section);
}

export const sha256 = (bytes) => createHash('sha256').update(bytes).digest('hex');

export async function fakePackage(model = fakeModel()) {
  const root = await mkdtemp(join(tmpdir(), 'munjang-test-'));
  await cp(pkg, root, { recursive: true, filter: (path) => !/\/(wasm|model|node_modules)(\/|$)/.test(path) });
  await mkdir(join(root, 'wasm'));
  await mkdir(join(root, 'model'));
  await copyFile(glue, join(root, 'wasm/munjang.js'));
  for (const [name, says] of [
    ['simd', 'simd128'], ['relaxed', 'relaxed'], ['general_simd', 'simd128 general'], ['general_relaxed', 'relaxed general'],
  ]) {
    await writeFile(join(root, `wasm/munjang_${name}.wasm`), fakeCode(says));
  }
  const pieces = [];
  for (let at = 0; at < model.length; at += 100_000) pieces.push(sha256(model.subarray(at, at + 100_000)));
  const manifest = { file: 'fake.munjang', bytes: model.length, sha256: sha256(model), modelId: '0123456789abcdef', formatVersion: 1 };
  await writeFile(join(root, 'model/fake.munjang'), model);
  await writeFile(join(root, 'model/manifest.json'), JSON.stringify(manifest));
  await writeFile(join(root, 'model/model.js'), `export const defaultModel = () => ({
    url: new URL('./fake.munjang', import.meta.url).href, bytes: ${model.length}, sha256: '${manifest.sha256}',
    pieces: { bytes: 100_000, sha256: ${JSON.stringify(pieces)} } });`);
  return {
    root,
    manifest,
    url: (path) => pathToFileURL(join(root, path)).href,
    import: () => import(pathToFileURL(join(root, 'index.js')).href),
    remove: () => rm(root, { recursive: true, force: true }),
  };
}
