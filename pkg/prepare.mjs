// Puts the shipped model beside the code: copies it from models/ and writes model/model.js, whose
// address is a literal that every bundler can see (one that came out of a manifest at run time
// would be invisible to them, and cost a request). Called by build.sh, and by npm before it packs; not part of the tarball.
import { copyFile, mkdir, readFile, readdir, rm, stat, writeFile } from 'node:fs/promises';
import { createHash } from 'node:crypto';

const models = new URL('../models/', import.meta.url);
const target = new URL('./model/', import.meta.url);

const manifest = JSON.parse(await readFile(new URL('manifest.json', models), 'utf8'));
const source = new URL(manifest.file, models);
const { size } = await stat(source);
const content = await readFile(source);
const sha256Of = (bytes) => createHash('sha256').update(bytes).digest('hex');
const sha256 = sha256Of(content);
if (size !== manifest.bytes || sha256 !== manifest.sha256) {
  throw new Error(`models/manifest.json does not describe models/${manifest.file}: it has ${size} bytes and SHA-256 ${sha256}`);
}

// Also by pieces: a browser can check those while the rest is still on its way.
const PIECE = 2 ** 20;
const pieces = [];
for (let at = 0; at < size; at += PIECE) pieces.push(sha256Of(content.subarray(at, at + PIECE)));

await mkdir(target, { recursive: true });
for (const name of await readdir(target)) await rm(new URL(name, target));
await copyFile(source, new URL(manifest.file, target));
await copyFile(new URL('manifest.json', models), new URL('manifest.json', target));
await writeFile(new URL('model.js', target), `// Written by prepare.mjs from models/manifest.json.
export const defaultModel = () => ({
  url: new URL(${JSON.stringify(`./${manifest.file}`)}, import.meta.url).href,
  bytes: ${manifest.bytes},
  sha256: ${JSON.stringify(manifest.sha256)},
  pieces: {
    bytes: ${PIECE},
    sha256: [${pieces.map((piece) => `\n      ${JSON.stringify(piece)},`).join('')}
    ],
  },
});
`);

// Called by npm before it packs, this refuses a package without its code.
for (const name of ['munjang.js', ...['simd', 'relaxed', 'general_simd', 'general_relaxed'].map((build) => `munjang_${build}.wasm`)]) {
  const { size } = await stat(new URL(`./wasm/${name}`, import.meta.url)).catch(() => ({ size: 0 }));
  if (size === 0) throw new Error(`wasm/${name} is missing or empty; run ./build.sh pkg first`);
}

// npm packs what lies in the package's own folder.
for (const name of ['LICENSE-MIT', 'LICENSE-APACHE']) {
  await copyFile(new URL(`../${name}`, import.meta.url), new URL(name, import.meta.url)).catch(() => {});
}
