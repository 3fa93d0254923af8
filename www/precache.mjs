// Writes precache.js, the list of what a version of the site consists of, for the service worker (sw.js). Called by
// build.sh once all files are there; serve.mjs makes it anew for each request.
import { createHash } from 'node:crypto';
import { readFile, readdir, stat, writeFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';

const WWW = new URL('./', import.meta.url);
const PKG = new URL('../pkg/', import.meta.url);
/** What a browser asks for only if a page needs it is not kept in advance if it is larger than this. */
const LARGE = 1_000_000;
/** Not of the site: what makes it, what is written last, what is kept elsewhere or asked for by other models only. */
const NOT_SITE = /(^|\/)(sw\.js|precache\.js|CARD\.md)$|\.mjs$|\.munjang$|_general_|(^|\/)node_modules\//;
const PKG_SITE = /^([\w-]+\.js|internal\/[\w-]+\.js|wasm\/[\w.-]+\.(js|wasm)|model\/[\w.-]+)$/;

async function filesOf(folder) {
  const names = await readdir(folder, { recursive: true });
  const files = [];
  for (const name of names.map((path) => path.replaceAll('\\', '/')).sort()) {
    if (!NOT_SITE.test(name) && !name.split('/').some((part) => part.startsWith('.')) && (await stat(new URL(name, folder))).isFile()) files.push(name);
  }
  return files;
}

/** The text of precache.js. `live`: the files may change at any time, as they do during development. */
export async function precache(live = false) {
  const files = {};
  for (const [folder, base, isSite] of [[WWW, '', () => true], [PKG, '../pkg/', (name) => PKG_SITE.test(name)]]) {
    for (const name of (await filesOf(folder)).filter(isSite)) {
      const content = await readFile(new URL(name, folder));
      const sha256 = createHash('sha256').update(content).digest('hex');
      files[encodeURI(base + name)] = content.length > LARGE ? { sha256, later: true } : { sha256 };
    }
  }
  const version = createHash('sha256').update(JSON.stringify(files)).digest('hex').slice(0, 16);
  return `// Written by precache.mjs.\nself.PRECACHE = ${JSON.stringify({ version, live, files }, null, 1)};\n`;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await writeFile(new URL('precache.js', WWW), await precache());
