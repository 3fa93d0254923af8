// SemanticIndex on the IndexedDB of real browsers: reloads, two tabs at once, no room, deleted databases, frames that
// may keep nothing; with the shipped model, too.
import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';

import { PKG } from './built.js';
import { launch } from './chromium.js';
import { KINDS, listen, startBrowser } from './killable.js';
import { openSite } from './site.js';

let site;
let pages;
before(async () => {
  site = await openSite({ '/': new URL('search/', import.meta.url), '/pkg/': PKG, '/js/': new URL('../js/', import.meta.url) });
  // One page has a frame; all else is as strict as can be.
  site.headers['content-security-policy'] += "; frame-src 'self'";
  pages = listen(site);
  const { intercept } = site;
  // Tabs that ask wait for each other.
  const waiting = new Map();
  site.intercept = (path, response, request) => {
    // A frame without an origin is another one than the site.
    response.setHeader('access-control-allow-origin', '*');
    if (path !== '/together') return intercept(path, response, request);
    const at = new URL(request.url, site.origin).searchParams.get('at') ?? 'begin';
    const group = [...waiting.get(at) ?? [], response];
    waiting.set(at, group);
    if (group.length === 2) {
      for (const each of group) each.writeHead(204).end();
      waiting.delete(at);
    }
    return true;
  };
});
after(() => site.close());

const address = (run) => `${site.origin}/tab.html?run=${run}&tab=1`;

/** The results of several runs, one after another in a browser of its own; `profile` keeps what they store. */
async function run(kind, profile, names, options) {
  const browser = await startBrowser(kind, profile, [address(names.join('+'))], options);
  try {
    const results = [];
    for (const name of names) {
      const seen = await pages.next((report) => report.failed || report.run === name, 120_000);
      assert.equal(seen.failed, undefined);
      results.push(seen.result);
    }
    return results;
  } finally {
    pages.reports.length = 0;
    await browser.kill();
  }
}

for (const kind of KINDS) {
  test(`${kind}: a new start, two tabs, deleting, another model, closing`, { timeout: 600_000 }, async (t) => {
    const profile = await mkdtemp(join(tmpdir(), 'munjang-search-'));
    try {
      const [stored] = await run(kind, profile, ['store']);
      // Two of `both`: the other tab is opened by the first one.
      const [again, deleted, rebuilt, closed, a, b] = await run(kind, profile, ['reload', 'deleted', 'rebuild', 'closing', 'both', 'both']);

      await t.test('a new start costs no encoding and gives the same hits', () => {
        assert.deepEqual([stored.persistent, stored.size, stored.hits[0].length], [true, 2499, 20]);
        assert.deepEqual(again.hits, stored.hits);
        assert.deepEqual([again.size, again.encoded, again.surrogate, again.data], [2499, 0, true, { deep: [1, { two: null }] }]);
      });
      await t.test('two tabs that write at once lose nothing, encode the same texts once, and end up equal', () => {
        for (const { size, fresh, same, again } of [a, b]) assert.deepEqual([size, fresh, same, again], [3077, 3077, true, 0]);
        // The common ones, 40 of each, and 20 that they contend for.
        assert.ok(a.encoded + b.encoded <= 3000 + 80 + 40, `${a.encoded} + ${b.encoded}`);
      });
      await t.test('deleted while open: storage_lost', () => assert.deepEqual(deleted,
        { codes: ['storage_lost', 'storage_lost', 'storage_lost'], size: 10, hits: 10, persistent: false, fresh: 0 }));
      await t.test('another model is refused, and built again', () => assert.deepEqual(rebuilt,
        { refused: 'index_invalid', size: 1200, encoded: 1200, modelId: 'fedcba9876543210' }));
      await t.test('close during an add', () => assert.deepEqual(closed, { adding: 'disposed', later: 'disposed', again: 10 }));
    } finally {
      await rm(profile, { recursive: true, force: true });
    }
  });
}

function checkFull(seen) {
  assert.equal(seen.code, 'quota_exceeded');
  assert.equal(seen.size, seen.before, 'as before the call');
  assert.deepEqual([seen.again, seen.encoded, seen.pending], [seen.before, 0, 0]);
  assert.ok(seen.before >= 60 && seen.hits === 20, JSON.stringify(seen));
}

test('firefox: no room', { skip: !KINDS.includes('firefox') }, async () => {
  const profile = await mkdtemp(join(tmpdir(), 'munjang-full-'));
  try {
    // In kB, for all sites; one gets a fifth, but 10 MB at least.
    const [seen] = await run('firefox', profile, ['fill'], { prefs: { 'dom.quotaManager.temporaryStorage.fixedLimit': 20_000 } });
    checkFull(seen);
  } finally {
    await rm(profile, { recursive: true, force: true });
  }
});

describe('chromium, by its own tools', { skip: !KINDS.includes('chromium') }, () => {
  let browser;
  before(async () => {
    browser = await launch();
  });
  after(() => browser.close());

  async function withPage(work) {
    const context = await browser.newContext();
    try {
      const page = await context.newPage();
      await work(page, await context.newCDPSession(page));
    } finally {
      pages.reports.length = 0;
      await context.close();
    }
  }
  const report = async (name) => {
    const seen = await pages.next((report) => report.failed || report.run === name);
    assert.equal(seen.failed, undefined);
    return seen.result;
  };

  test('no room', () => withPage(async (page, tools) => {
    await tools.send('Storage.overrideQuotaForOrigin', { origin: site.origin, quotaSize: 5_000_000 });
    await page.goto(address('fill'));
    checkFull(await report('fill'));
  }));

  test('a frame that may keep nothing', () => withPage(async (page) => {
    await page.goto(`${site.origin}/frame.html`);
    const seen = await report('sandboxed');
    assert.equal(seen.persistent, false);
    assert.match(seen.reason, /keeps nothing|no IndexedDB/);
    assert.equal(seen.hits, 20);
  }));

  test('site data cleared by the visitor', () => withPage(async (page, tools) => {
    await page.goto(`${site.origin}/blank.html`);
    const size = await page.evaluate(async () => {
      const { SemanticIndex } = await import('/pkg/search.js');
      const { fakeEncoder, notes, codeOf } = await import('/js/fake_encoder.js');
      Object.assign(window, { notes, codeOf, index: await SemanticIndex.open('notes', { encoder: fakeEncoder(), persist: true }) });
      await index.add(notes(100));
      return index.size;
    });
    assert.equal(size, 100);
    await tools.send('Storage.clearDataForOrigin', { origin: site.origin, storageTypes: 'indexeddb' });
    const seen = await page.evaluate(async () => [await codeOf(index.add(notes(1, 500))), index.size, (await index.search('창고')).length]);
    assert.deepEqual(seen, ['storage_lost', 100, 10]);
  }));

  test('with the shipped model: found by meaning, while it adds, and after a reload; the code is fetched once', () => withPage(async (page) => {
    const documents = [
      { id: 'rain', text: '내일은 전국에 비가 내리겠습니다.' }, { id: 'tax', text: '연말정산 서류는 1월 말까지 내야 합니다.' },
      { id: 'cat', text: '고양이가 창가에서 낮잠을 잔다.' },
    ];
    const open = () => page.evaluate(async () => {
      const [{ loadEncoder }, { SemanticIndex }] = await Promise.all([import('/pkg/index.js'), import('/pkg/search.js')]);
      window.index = await SemanticIndex.open('real', { encoder: loadEncoder(), persist: true });
      return index.info;
    });
    await page.goto(`${site.origin}/blank.html`);
    site.requests.length = 0;
    await open();
    assert.equal(site.requests.filter((path) => path.endsWith('.wasm')).length, 1);
    const seen = await page.evaluate(async (documents) => {
      await index.add(documents);
      const hits = await index.search('내일 비 와요?');
      // Half a minute's work, of which a part is waited for.
      const abort = new AbortController();
      const more = Array.from({ length: 20_000 }, (_, id) => ({ id, text: `${id}번째로 적어 두는 조금 긴 메모의 내용이다.` }));
      const adding = index.add(more, { signal: abort.signal }).catch(({ code }) => code);
      const times = [];
      for (let i = 0; i < 20; i++) {
        await new Promise((resolve) => setTimeout(resolve, 50));
        const started = performance.now();
        const [{ id }] = await index.search('내일 비 와요?', { topK: 1 });
        times.push([performance.now() - started, id]);
      }
      const byWords = await index.search('12345번째로', { topK: 1, semantic: 0 });
      abort.abort();
      return { hits, times, code: await adding, byWords: byWords[0]?.id };
    }, documents);
    assert.equal(seen.hits[0].id, 'rain');
    assert.ok(seen.hits[0].cosine > seen.hits[1].cosine);
    assert.deepEqual([seen.code, seen.byWords], ['aborted', 12_345]);
    assert.ok(seen.times.every(([, id]) => id === 'rain'));
    // A bound for any machine, not the figure (benches/web/search_latency.mjs): the add itself would take far longer.
    assert.ok(Math.max(...seen.times.map(([ms]) => ms)) < 3000, JSON.stringify(seen.times));
    await page.reload();
    const info = await open();
    assert.equal(info.passages, info.encoded);
    assert.deepEqual((await page.evaluate(() => index.search('내일 비 와요?', { topK: 1 })))[0], seen.hits[0]);
  }));

  test('a private window', async () => {
    // Playwright's contexts are private ones; what they keep is gone with them.
    for (let i = 0; i < 2; i++) {
      await withPage(async (page) => {
        await page.goto(address('store'));
        const { persistent, size } = await report('store');
        assert.deepEqual([persistent, size], [true, 2499]);
      });
    }
  });
});
