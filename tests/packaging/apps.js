// The packed package in apps: packs it once, makes folders in which it is installed, and opens pages of them.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { cp, mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { promisify } from 'node:util';

import { PKG } from '../browser/built.js';
import { launch } from '../browser/chromium.js';
import { openSite } from '../browser/site.js';

export const run = promisify(execFile);
export const bin = (name) => fileURLToPath(new URL(`../node_modules/.bin/${name}`, import.meta.url));
const TOOLS = fileURLToPath(new URL('../node_modules/', import.meta.url));

/** Installs the tarball in an empty folder: `{ folder, files, app, remove }`. */
export async function installed() {
  const folder = await mkdtemp(join(tmpdir(), 'munjang-packed-'));
  // The code may have been built again since the model was staged.
  await run(process.execPath, ['prepare.mjs'], { cwd: PKG });
  const { stdout } = await run('npm', ['pack', '--json', '--pack-destination', folder], { cwd: PKG });
  const packed = Object.values(JSON.parse(stdout))[0];
  await writeFile(join(folder, 'package.json'), '{ "private": true, "type": "module" }');
  await run('npm', ['install', '--offline', '--no-audit', '--no-fund', join(folder, packed.filename)], { cwd: folder });
  return {
    folder,
    tarball: join(folder, packed.filename),
    files: packed.files.map(({ path }) => path),
    /** An app of its own: `files` by name; the package is linked as npm installs it, `tools` from the tests' own packages. */
    async app(name, contents, tools = []) {
      const root = join(folder, 'apps', name);
      for (const [path, text] of Object.entries({ 'package.json': '{ "private": true, "type": "module" }', ...contents })) {
        await mkdir(dirname(join(root, path)), { recursive: true });
        await writeFile(join(root, path), text);
      }
      await cp(join(folder, 'node_modules/munjang'), join(root, 'node_modules/munjang'), { recursive: true });
      for (const tool of tools) {
        await mkdir(dirname(join(root, 'node_modules', tool)), { recursive: true });
        await symlink(join(TOOLS, tool), join(root, 'node_modules', tool));
      }
      return root;
    },
    remove: () => rm(folder, { recursive: true, force: true }),
  };
}

/** What an app does: an embedding and a score, told by the page's title. */
export const useIn = (specifier, options = '{}') => `
  import { loadEncoder } from '${specifier}';
  async function main() {
    const encoder = await loadEncoder(${options});
    const [[score]] = await encoder.similarity('비가 옵니다.', ['밖에 비가 내려요.']);
    return { score, source: encoder.info.source, worker: encoder.info.worker };
  }
  main().catch(({ name, code, message }) => ({ name, code, message })).then((seen) => { document.title = JSON.stringify(seen); });`;

export const HTML = (script, attributes = 'type="module"') =>
  `<!doctype html><meta charset="utf-8"><script ${attributes} src="${script}"></script>`;

/** Opens a folder's index.html in a browser, and gives what its title says. */
export async function runPage(root) {
  const site = await openSite({ '/': pathToFileURL(`${root}/`) });
  try {
    return await visit(`${site.origin}/`);
  } finally {
    await site.close();
  }
}

export async function visit(address) {
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
    await page.goto(address);
    await page.waitForFunction(() => document.title.startsWith('{'), undefined, { timeout: 60_000 }).catch((error) => {
      assert.fail(`${error.message}\n${problems.join('\n')}`);
    });
    return { ...JSON.parse(await page.title()), problems };
  } finally {
    await browser.close();
  }
}

export function assertWorks(seen) {
  assert.deepEqual(seen.problems, []);
  assert.equal(seen.code, undefined, seen.message);
  assert.ok(seen.score > 0.3);
}
