// The demo page in Chromium, as a stranger uses it.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

import { PKG, WWW } from './built.js';
import { visits } from './visit.js';

const manifest = JSON.parse(await readFile(new URL('model/manifest.json', PKG), 'utf8'));
const modelPath = `/pkg/model/${manifest.file}`;
const visit = visits();
const { withPage, open } = visit;

const read = (page) =>
  page.evaluate(() => [...document.querySelector('#matrix').tBodies[0].rows].map((row) =>
    [...row.querySelectorAll('td')].map((cell) => cell.textContent.replace('−', '-'))));

test('the matrix of the first sentences: values, labels, legend, facts', () =>
  withPage({}, async (page) => {
    await open(page);
    const values = (await read(page)).map((row) => row.map(Number));
    assert.equal(values.length, 4);
    for (const [i, row] of values.entries()) {
      assert.equal(row.length, 4);
      assert.ok(row.every((value) => value >= -1 && value <= 1));
      assert.equal(row.indexOf(Math.max(...row)), i, `the pair is the closest in row ${i}: ${row}`);
    }
    const labels = await page.evaluate(() => ({
      rows: [...document.querySelectorAll('#matrix th[scope=row]')].map((cell) => cell.innerText.replace(/\s+/g, ' ')),
      columns: [...document.querySelectorAll('#matrix th[scope=col]')].map((cell) => cell.innerText.replace(/\s+/g, ' ')),
      caption: document.querySelector('#matrix caption').textContent,
      best: [...document.querySelectorAll('#matrix td.best')].map((cell) => cell.cellIndex),
      busy: document.querySelector('#matrix').getAttribute('aria-busy'),
      ramp: getComputedStyle(document.querySelector('#ramp')).backgroundImage,
    }));
    assert.equal(labels.rows[0], 'A1 다만, 도로와 인접해서 거리의 소음이 들려요.');
    assert.equal(labels.columns[1], 'B2 가족 모임 일정은 바꾸지 말도록 하십시오.');
    assert.ok(labels.caption.length > 10);
    assert.deepEqual(labels.best, [1, 2, 3, 4]);
    assert.equal(labels.busy, 'false');
    assert.match(labels.ramp, /linear-gradient/);
    assert.equal(await page.textContent('#fact-model'), manifest.modelId);
    assert.equal(await page.textContent('#fact-size'), `${(manifest.bytes / 1e6).toFixed(1)} MB`);
    assert.equal(await page.textContent('#fact-build'), 'relaxed SIMD');
    assert.match(await page.textContent('#fact-speed'), /^[\d.]+ ms$/);
    assert.equal(await page.textContent('#fact-source'), '네트워크');
    assert.match(await page.textContent('#panel-compare .credit'), /KLUE-STS.*CC BY-SA 4\.0/s);
    assert.equal(await page.isVisible('#facts'), false, "the developer's facts are folded away");
    assert.equal(await page.isVisible('#loading'), false);
  }));

test('the progress bar shows the bytes, and the second visit comes from the cache', () =>
  withPage({}, async (page) => {
    const model = await readFile(new URL(`model/${manifest.file}`, PKG));
    let release;
    const held = new Promise((resolve) => { release = resolve; });
    visit.site.intercept = (path, response) => {
      if (path !== modelPath) return false;
      response.writeHead(200, { 'content-length': model.length });
      response.write(model.subarray(0, model.length / 2));
      held.then(() => response.end(model.subarray(model.length / 2)));
      return true;
    };
    await page.goto(visit.site.origin);
    await page.waitForFunction(() => document.querySelector('#progress').value >= 0.45);
    const total = (manifest.bytes / 1e6).toFixed(1);
    const half = (manifest.bytes / 2e6).toFixed(1);
    await page.waitForFunction((text) => document.querySelector('#bytes').textContent === text, `${half} / ${total} MB`);
    release();
    await page.waitForSelector('#loading', { state: 'hidden' });
    await page.evaluate(async () => {
      while ((await (await caches.open('munjang-models')).keys()).length !== 1) await new Promise((r) => setTimeout(r, 20));
    });
    await open(page);
    assert.equal(await page.textContent('#fact-source'), '캐시');
  }));

test('the matrix follows as one types; sentences come and go', () =>
  withPage({}, async (page) => {
    await open(page);
    const before = await read(page);
    const first = page.locator('fieldset[data-group=rows] textarea').first();
    await first.fill('가족 모임 일정은 바꾸지 말도록 하십시오.');
    await page.waitForFunction(() => document.querySelector('#matrix td.best').cellIndex === 2);
    const after = await read(page);
    assert.equal(after[0][1], '1.00', 'the same sentence');
    assert.deepEqual(after.slice(1), before.slice(1), 'other rows stay');
    assert.match(await page.locator('#matrix th[scope=row]').first().innerText(), /가족 모임/);

    // Fast typing: what is shown at the end belongs to the last text.
    await first.fill('');
    await first.pressSequentially('방안에 필요한 시설이 모두 있어서 매우 편리합니다.', { delay: 5 });
    await page.waitForFunction(() => {
      const [a, , c] = document.querySelector('#matrix').tBodies[0].rows;
      return [...a.cells].slice(1).every((cell, i) => cell.textContent === c.cells[i + 1].textContent);
    });

    await page.click('fieldset[data-group=columns] .add');
    assert.equal(await page.evaluate(() => document.activeElement.closest('fieldset').dataset.group), 'columns');
    assert.deepEqual((await read(page)).map((row) => row[4]), ['–', '–', '–', '–'], 'nothing to show for an empty sentence');
    await page.keyboard.type('방안에 필요한 시설이 모두 있어서 매우 편리합니다.');
    await page.waitForFunction(() => document.querySelector('#matrix').tBodies[0].rows[2].cells[5].textContent === '1.00');

    await page.click('fieldset[data-group=rows] li:nth-child(2) .remove');
    assert.equal((await read(page)).length, 3);
    assert.equal(await page.evaluate(() => document.activeElement.tagName), 'TEXTAREA');
    for (let n = 0; n < 2; n++) await page.click('fieldset[data-group=rows] li:nth-child(1) .remove');
    assert.equal(await page.isDisabled('fieldset[data-group=rows] .remove'), true, 'the last one stays');
    assert.equal((await read(page)).length, 1);

    await page.click('#reset');
    await page.waitForFunction(() => document.querySelector('#matrix').tBodies[0].rows.length === 4);
    assert.deepEqual(await read(page), before);
  }));

test('a truncated sentence says so', () =>
  withPage({}, async (page) => {
    await open(page);
    await page.locator('fieldset[data-group=rows] textarea').first().fill('아주 긴 문장입니다. '.repeat(400));
    await page.waitForFunction(() => /512/.test(document.querySelector('#note-rows-0').textContent));
    await page.click('[data-lang=en]');
    assert.match(await page.textContent('#note-rows-0'), /only the first 512 were read/);
  }));

test('by keyboard', () =>
  withPage({}, async (page) => {
    await open(page);
    await page.focus('[data-lang=en]');
    await page.keyboard.press('Tab');
    assert.equal(await page.evaluate(() => document.activeElement.id), 'tab-compare');
    await page.keyboard.press('ArrowRight');
    assert.equal(await page.evaluate(() => document.activeElement.id), 'tab-search');
    assert.equal(await page.isVisible('#panel-compare'), true, 'the arrow alone opens nothing');
    await page.keyboard.press('ArrowRight');
    const stops = [];
    for (let n = 0; n < 7; n++) {
      await page.keyboard.press('Tab');
      stops.push(await page.evaluate(() => document.activeElement.id || document.activeElement.className));
    }
    assert.deepEqual(stops.slice(0, 6), ['pair-a', 'pair-b', 'set', 'set', 'set', 'set']);
    const at = () => page.evaluate(() => {
      const cell = document.activeElement;
      return cell.tagName === 'TD' ? [cell.parentElement.sectionRowIndex, cell.cellIndex - 1] : cell.tagName;
    });
    assert.deepEqual(await at(), [0, 0], 'one stop for the whole matrix');
    await page.keyboard.press('ArrowDown');
    await page.keyboard.press('ArrowRight');
    await page.keyboard.press('ArrowRight');
    assert.deepEqual(await at(), [1, 2]);
    assert.match(await page.inputValue('#pair-a'), /캐나다/);
    assert.match(await page.inputValue('#pair-b'), /주차장/);
    assert.equal(await page.getAttribute('#pair-b', 'aria-label'), '문장 B3');
    await page.keyboard.press('End');
    await page.keyboard.press('ArrowRight');
    assert.deepEqual(await at(), [1, 3]);
    await page.keyboard.press('Control+Home');
    assert.deepEqual(await at(), [0, 0]);
    assert.equal(await page.locator('#matrix [tabindex="0"]').count(), 1);
    await page.keyboard.press('Tab');
    assert.equal(await at(), 'BUTTON');
    const outline = await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle);
    assert.notEqual(outline, 'none', 'the focus is visible');
  }));

test('two languages, remembered', () =>
  withPage({ locale: 'en-US' }, async (page) => {
    await open(page);
    assert.equal(await page.getAttribute('html', 'lang'), 'en');
    assert.match(await page.textContent('h1'), /Korean sentences/);
    assert.equal(await page.textContent('[data-i18n=pairTitle]'), 'Change one of the two sentences');
    await page.click('[data-lang=ko]');
    assert.equal(await page.getAttribute('html', 'lang'), 'ko');
    assert.match(await page.textContent('h1'), /한국어 문장/);
    await open(page);
    assert.equal(await page.getAttribute('html', 'lang'), 'ko');
    await open(page, '/?lang=en');
    assert.equal(await page.getAttribute('html', 'lang'), 'en');
  }));

test('a language in the address that is none', () =>
  withPage({ locale: 'en-US' }, async (page) => {
    for (const name of ['constructor', '__proto__', 'toString', '']) {
      await open(page, `/?lang=${name}`);
      assert.match(await page.textContent('h1'), /Korean sentences/, name);
    }
  }));

for (const colorScheme of ['light', 'dark']) {
  test(`on a phone, ${colorScheme}`, () =>
    withPage({ viewport: { width: 360, height: 740 }, isMobile: true, hasTouch: true, colorScheme }, async (page) => {
      await open(page);
      const seen = await page.evaluate(() => ({
        overflow: document.documentElement.scrollWidth - document.documentElement.clientWidth,
        cells: [...document.querySelectorAll('#matrix tbody td')].map((cell) => {
          const { width, height, right } = cell.getBoundingClientRect();
          return { width, height, right, background: getComputedStyle(cell).backgroundColor };
        }),
        paper: getComputedStyle(document.body).backgroundColor,
      }));
      assert.equal(seen.overflow, 0, 'no sideways scrolling of the page');
      assert.ok(seen.cells.every(({ width, height, right }) => width >= 44 && height >= 44 && right <= 360), 'cells can be read and touched');
      assert.ok(new Set(seen.cells.map(({ background }) => background)).size > 3, 'a heat map');
      const [red] = seen.paper.match(/\d+/g).map(Number);
      assert.ok(colorScheme === 'dark' ? red < 60 : red > 200);
      await page.locator('#matrix tbody td').nth(5).tap();
      assert.match(await page.inputValue('#pair-a'), /캐나다/);
      // Typing and its result are seen together: the number stands between the two sentences.
      await page.locator('#pair-a').scrollIntoViewIfNeeded();
      const pair = await page.evaluate(() => [...document.querySelectorAll('#pair-a, #verdict, #pair-b')].map((e) => {
        const { top, bottom } = e.getBoundingClientRect();
        return [top, bottom];
      }));
      assert.ok(pair[0][1] <= pair[1][0] && pair[1][1] <= pair[2][0] && pair[2][1] - pair[0][0] < 340, `one above the other: ${pair}`);
    }));
}

test('a model that is not there: what to do, and another try', () =>
  withPage({}, async (page) => {
    visit.site.intercept = (path, response) => path === modelPath && (response.writeHead(404).end(), true);
    await page.goto(visit.site.origin);
    await page.waitForSelector('#failure:not([hidden])');
    assert.match(await page.textContent('#failure-advice'), /모델/);
    assert.doesNotMatch(await page.textContent('#failure-advice'), /build|server|HTTP/i, 'a failure speaks to visitors');
    assert.equal(await page.isVisible('#failure-code'), false);
    await page.click('#failure summary');
    assert.equal(await page.textContent('#failure-code'), 'model_not_found');
    assert.equal(await page.getAttribute('#failure', 'role'), 'alert');
    visit.site.intercept = undefined;
    await page.click('#retry');
    await page.waitForFunction(() => /\d/.test(document.querySelector('#fact-speed').textContent));
    assert.equal(await page.isVisible('#failure'), false);
    assert.equal((await read(page)).length, 4);
  }));

test('without a network after the first visit', () =>
  withPage({}, async (page, context) => {
    await open(page);
    await page.evaluate(() => navigator.serviceWorker.ready);
    await page.evaluate(async () => {
      while ((await (await caches.open('munjang-models')).keys()).length !== 1) await new Promise((r) => setTimeout(r, 20));
    });
    // The second visit goes through the service worker, which keeps the files; the third has no network.
    await open(page);
    await context.setOffline(true);
    visit.site.intercept = (_path, response) => (response.destroy(), true);
    await open(page);
    assert.equal(await page.textContent('#fact-source'), '캐시');
    assert.equal((await read(page)).length, 4);
  }));

test('as ./build.sh demo serves it', async () => {
  const server = spawn(process.execPath, [fileURLToPath(new URL('serve.mjs', WWW))], { env: { ...process.env, PORT: '0' } });
  const context = await visit.browser.newContext();
  try {
    const [line] = await once(server.stdout, 'data');
    const [address] = String(line).match(/http:\/\/\S+/);
    const page = await context.newPage();
    await page.goto(address);
    await page.waitForFunction(() => /\d/.test(document.querySelector('#fact-speed').textContent));
    assert.equal((await read(page)).length, 4);
    const scope = await page.evaluate(async () => (await navigator.serviceWorker.ready).scope);
    assert.equal(new URL(scope).pathname, '/', 'the service worker may keep the package too');
    await page.click('#developer summary');
    await page.click('footer a[href="bench.html"]');
    await page.waitForSelector('#start');
  } finally {
    await context.close();
    server.kill();
  }
});

test('the page to measure on gives a result to copy', () =>
  withPage({ locale: 'en-US', permissions: ['clipboard-read', 'clipboard-write'] }, async (page) => {
    await page.goto(`${visit.site.origin}/bench.html?rounds=1`);
    await page.click('#start');
    await page.waitForSelector('#copy:not([disabled])', { timeout: 240_000 });
    assert.equal(await page.locator('.results').count(), 3);
    await page.click('#copy');
    const report = JSON.parse(await page.evaluate(() => navigator.clipboard.readText()));
    for (const build of ['relaxed', 'simd128']) {
      assert.equal(report.builds[build].error, undefined);
      for (const name of ['w1', 'w2', 'w3', 'w2 text']) assert.ok(report.builds[build].results[name].median > 0, `${build} ${name}`);
    }
    assert.equal(report.rounds, 1);
    assert.equal(report.start.cache.source, 'cache');
    assert.ok(Object.keys(report.bulk).length >= 1);
  }));
