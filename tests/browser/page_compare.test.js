// What the page's first tab offers beside the matrix: examples, links, files, exports.
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { test } from 'node:test';

import { drop, smallTargets, violations, visits } from './visit.js';

const axe = await readFile(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const visit = visits();
const { withPage, open } = visit;

const cells = (page) => page.evaluate(() => [...document.querySelector('#matrix').tBodies[0].rows].map((row) =>
  [...row.querySelectorAll('td')].map((cell) => cell.textContent.replace('−', '-'))));

test('the pair: its number, what it says, what people gave; it follows as one types', () =>
  withPage({}, async (page) => {
    await open(page);
    const pair = () => page.evaluate(() => ['pair-value', 'pair-says', 'pair-human'].map((id) => document.getElementById(id).textContent));
    const [value, says, human] = await pair();
    assert.equal(value, (await cells(page))[0][0]);
    assert.ok(Number(value) > 0.68 && says === '비슷한 뜻', `${value} ${says}`);
    assert.equal(human, '사람은 5점에 3.7점');
    await page.fill('#pair-b', '고양이가 소파에서 잔다.');
    await page.waitForFunction(() => document.querySelector('#pair-says').textContent === '서로 다른 뜻');
    assert.equal((await pair())[2], '');
    assert.equal(await page.inputValue('fieldset[data-group=columns] textarea >> nth=0'), '고양이가 소파에서 잔다.', 'one sentence, two places');
    assert.equal((await cells(page))[0][0], (await pair())[0].replace('−', '-'));
    assert.equal(await page.locator('#matrix tr:nth-child(1) td.best').count(), 0, 'nothing is close to A1 any more');
    await page.locator('fieldset[data-group=columns] textarea').first().fill('다만, 도로와 인접해서 거리의 소음이 들려요.');
    await page.waitForFunction(() => document.querySelector('#pair-value').textContent === '1.00');
    assert.equal(await page.inputValue('#pair-b'), '다만, 도로와 인접해서 거리의 소음이 들려요.');
    assert.match(await page.textContent('fieldset[data-group=columns] li:nth-child(1) .strip'), /^A1 1\.00A2/);
    await page.fill('#pair-b', '');
    await page.waitForFunction(() => document.querySelector('#pair-value').textContent === '–');
  }));

test('examples that tell', () =>
  withPage({}, async (page) => {
    await open(page);
    const diagonal = async () => (await cells(page)).map((row, i) => Number(row[i]));
    const choose = async (name, rows) => {
      await page.click(`.set:has-text("${name}")`);
      await page.waitForFunction((count) => {
        const { rows: list } = document.querySelector('#matrix').tBodies[0];
        return list.length === count && [...list].every((row) => [...row.querySelectorAll('td')].every((cell) => cell.textContent !== '–'));
      }, rows);
      assert.equal(await page.getAttribute(`.set:has-text("${name}")`, 'aria-pressed'), 'true');
      assert.ok((await page.textContent('#set-hint')).length > 10);
    };
    await choose('바꿔 말하기', 4);
    for (const [i, row] of (await cells(page)).entries()) assert.equal(row.map(Number).indexOf(Math.max(...row.map(Number))), i, `${row}`);
    await choose('부정', 2);
    assert.ok((await diagonal()).every((value) => value > 0.4), 'the limit that the hint speaks of');
    await choose('같은 낱말, 다른 뜻', 4);
    for (const [i, row] of (await cells(page)).entries()) assert.equal(row.map(Number).indexOf(Math.max(...row.map(Number))), i, `${row}`);
    await choose('사람이 매긴 네 쌍', 4);
    await page.fill('#pair-a', '다른 문장');
    await page.waitForFunction(() => document.querySelector('#set-hint').textContent === '');
    assert.equal(await page.locator('.set[aria-pressed=true]').count(), 0);
  }));

test('a link, a table and a picture of it', () =>
  withPage({ permissions: ['clipboard-read', 'clipboard-write'], acceptDownloads: true }, async (page, context) => {
    await open(page);
    await page.fill('#pair-a', '바다가 보고 싶다.');
    await page.waitForFunction(() => document.querySelector('#pair-human').textContent === '');
    await page.click('#share');
    await page.waitForFunction(() => /복사했습니다/.test(document.querySelector('#tools-status').textContent));
    const address = await page.evaluate(() => navigator.clipboard.readText());
    assert.match(address, /#compare=[\w-]+$/);
    visit.site.requests.length = 0;
    const friend = await context.newPage();
    await friend.goto(address);
    await friend.waitForFunction(() => document.querySelector('#pair-a').value === '바다가 보고 싶다.' && /\d/.test(document.querySelector('#pair-value').textContent));
    assert.ok(visit.site.requests.every((path) => !path.includes('compare=')), 'the sentences are never sent');
    await friend.close();

    const [csv] = await Promise.all([page.waitForEvent('download'), page.click('#save-csv')]);
    assert.equal(csv.suggestedFilename(), 'munjang.csv');
    const table = await readFile(await csv.path(), 'utf8');
    assert.match(table, /^\ufeff,"하지만, 길과/);
    assert.match(table, /\r\n바다가 보고 싶다\.,-?0\.\d{4},/);
    const [png] = await Promise.all([page.waitForEvent('download'), page.click('#save-png')]);
    const picture = await readFile(await png.path());
    assert.equal(picture.subarray(1, 4).toString(), 'PNG');
    assert.ok(picture.readUInt32BE(16) > 1000);
    await page.click('#copy-csv');
    await page.waitForFunction(() => document.querySelector('#tools-status').textContent === '복사했습니다.');
    assert.match(await page.evaluate(() => navigator.clipboard.readText()), /^\t하지만, 길과.*\n바다가 보고 싶다\.\t-?0\./);
    await page.click('#developer summary');
    await page.click('#copy-snippet');
    assert.match(await page.evaluate(() => navigator.clipboard.readText()), /npm i munjang[\s\S]*loadEncoder/);
  }));

test('a damaged link shows the first sentences', () =>
  withPage({}, async (page) => {
    await open(page, '/#compare=AAAA');
    assert.equal((await cells(page)).length, 4);
  }));

test('sentences out of a dropped file', () =>
  withPage({}, async (page) => {
    await open(page);
    await drop(page, '#panel-compare', [{ name: '목록.txt', content: '눈이 온다.\n비가 내린다.\n밥을 먹었다.' }]);
    await page.waitForFunction(() => document.querySelector('#matrix').tBodies[0].rows.length === 3 && document.querySelector('#matrix td.best'));
    const list = await cells(page);
    list.forEach((row, i) => assert.equal(row[i], '1.00'));
    assert.equal(await page.locator('#matrix tr:nth-child(1) td.best').evaluateAll((all) => all.some((cell) => cell.textContent === '1.00')), false, 'itself is not the closest');
    await drop(page, '#panel-compare', [{ name: '쌍.csv', content: '눈이 온다.,함박눈이 내린다.\n밥을 먹었다.,"식사를 했다, 방금."' }]);
    await page.waitForFunction(() => document.querySelector('#pair-b').value === '함박눈이 내린다.');
    assert.equal((await cells(page)).length, 2);
    assert.match(await page.textContent('#tools-status'), /쌍\.csv의 문장 2개/);
    await drop(page, '#panel-compare', [{ name: '그림.png', content: 'x' }]);
    await page.waitForFunction(() => /그림\.png: /.test(document.querySelector('#tools-status').textContent));
    assert.equal((await cells(page)).length, 2, 'nothing is lost');
    await drop(page, '#panel-compare', [{ name: '많음.txt', content: Array.from({ length: 50 }, (_, i) => `${i}번째 문장입니다.`).join('\n') }]);
    await page.waitForFunction(() => document.querySelector('#matrix').tBodies[0].rows.length === 30);
    assert.match(await page.textContent('#tools-status'), /앞 30개/);
  }));

for (const colorScheme of ['light', 'dark']) {
  for (const width of [360, 1200]) {
    test(`axe, targets and width: ${colorScheme}, ${width} pixels`, () =>
      withPage({ viewport: { width, height: 740 }, colorScheme, reducedMotion: 'reduce' }, async (page) => {
        await open(page);
        await page.click('#developer summary');
        assert.deepEqual(await violations(page, axe), []);
        assert.deepEqual(await smallTargets(page), []);
        assert.equal(await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth), 0);
        assert.ok(await page.evaluate(() => document.querySelector('#pair-b').getBoundingClientRect().bottom) < 740, 'the one thing to do is on the first screen');
      }));
  }
}
