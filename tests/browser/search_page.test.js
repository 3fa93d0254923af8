// The page's search tab in Chromium, as a visitor uses it.
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { test } from 'node:test';
import { gunzipSync } from 'node:zlib';

import { PKG, WWW } from './built.js';
import { INDEX, drop, smallTargets, violations, visits } from './visit.js';
import { CORPUS, SOURCES } from '../../www/corpus.js';

const CORPUS_PATH = '/corpus/texts.index.gz';
const axe = await readFile(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const visit = visits({ index: true });
const { withPage } = visit;

async function open(page, hash = '#search', search = '') {
  await page.goto(`${visit.site.origin}/${search}${hash}`);
  await page.waitForSelector('#hits[aria-busy=false]', { state: 'attached' });
}

const hits = (page) => page.evaluate(() => [...document.querySelectorAll('#hits .hit')].map((hit) => ({
  passage: hit.querySelector('.passage').textContent,
  marks: [...hit.querySelectorAll('.passage mark')].map((mark) => mark.textContent),
  origin: hit.querySelector('.origin').textContent,
  numbers: [...hit.querySelectorAll('.number')].map((number) => number.textContent),
  bars: [...hit.querySelectorAll('.meter')].map((bar) => bar.firstChild.getBoundingClientRect().width / bar.getBoundingClientRect().width),
})));

async function ask(page, text) {
  await page.fill('#query', text);
  await page.waitForFunction((asked) => location.hash === `#search=${encodeURIComponent(asked)}` && document.querySelector('#hits .hit'), text);
}

test('the texts are what the page and the card say', async () => {
  const documents = gunzipSync(await readFile(new URL('corpus/texts.jsonl.gz', WWW))).toString().trimEnd().split('\n').map((line) => JSON.parse(line));
  assert.equal(documents.length, CORPUS.documents);
  const sentences = documents.flatMap(({ text }) => text.split(/(?<=[.?!])["”’)]*\s+/)).filter(Boolean).length;
  assert.equal(sentences, CORPUS.sentences);
  assert.ok(sentences >= 20_000);
  assert.equal(new Set(documents.map(({ id }) => id)).size, documents.length);
  const card = await readFile(new URL('corpus/CARD.md', WWW), 'utf8');
  for (const source of Object.keys(SOURCES)) {
    const own = documents.filter(({ data }) => data.source === source);
    assert.ok(own.length > 0, source);
    assert.match(card, new RegExp(`\\| \`${source}\` \\|.*\\| ${own.length.toLocaleString('en')}\\b`), `${source} in the card`);
  }
  assert.ok((await readFile(INDEX)).length <= 5_000_000, 'at most 5 MB');
});

test('the texts come when the tab is opened, not before', () =>
  withPage({}, async (page) => {
    visit.site.requests.length = 0;
    await visit.open(page);
    assert.equal(visit.site.requests.filter((path) => path === CORPUS_PATH).length, 0);
    await page.click('#tab-search');
    await page.waitForSelector('#examples .example');
    await page.waitForSelector('#hits[aria-busy=false]', { state: 'attached' });
    assert.equal(visit.site.requests.filter((path) => path === CORPUS_PATH).length, 1);
    assert.match(await page.textContent('#corpus-credit'), /KoBEST.*CC BY-SA 4\.0.*위키뉴스.*CC BY 2\.5/s);
    await page.click('#tab-compare');
    assert.equal(await page.isVisible('#matrix'), true);
    await page.click('#tab-search');
    assert.equal(visit.site.requests.filter((path) => path === CORPUS_PATH).length, 1, 'once');
  }));

test('by meaning, and by words: hits, marks, part-scores', () =>
  withPage({}, async (page) => {
    await open(page);
    await ask(page, '못생겼다고 놀림받던 새');
    let list = await hits(page);
    assert.equal(list.length, 10);
    assert.ok(list.slice(0, 3).some(({ origin }) => origin.includes('미운 아기 오리')), JSON.stringify(list.slice(0, 3)));
    for (const { passage, numbers, bars, marks } of list) {
      assert.ok(passage.length > 0 && passage.length <= 150, passage);
      numbers.forEach((number, i) => assert.ok(Math.abs(Number(number) - bars[i]) < 0.02, `${number} and a bar of ${bars[i]}`));
      assert.equal(marks.length > 0, Number(numbers[1]) > 0, 'marked where words match');
    }
    assert.match(await page.textContent('#search-status'), /^가까운 글 10개 · [\d.]+ ms$/);
    // Words only: what is found has them.
    await page.fill('#balance', '0');
    await ask(page, '앙부일구');
    list = await hits(page);
    assert.match(list[0].passage, /앙부일구/);
    assert.ok(list[0].marks.includes('앙부일구'));
    // The text around a passage, on demand.
    const around = page.locator('.around').first();
    await around.locator('summary').click();
    assert.ok((await around.locator('p').textContent()).includes(await around.locator('strong').textContent()));
  }));

test('an example is one click; the address can be sent to a friend', () =>
  withPage({}, async (page, context) => {
    await open(page);
    await page.click('.example >> nth=1');
    await page.waitForSelector('#hits .hit');
    const address = page.url();
    assert.match(address, /#search=%/);
    assert.equal(await page.isVisible('#examples'), false);
    const first = (await hits(page)).map(({ passage }) => passage);
    const friend = await context.newPage();
    await friend.goto(address);
    await friend.waitForSelector('#hits .hit');
    assert.deepEqual((await hits(friend)).map(({ passage }) => passage), first);
    await friend.fill('#query', '');
    await friend.waitForSelector('#examples .example');
    assert.equal((await hits(friend)).length, 0);
  }));

test('an input method: nothing between compositionstart and compositionend, the composed text at once', () =>
  withPage({}, async (page, context) => {
    await open(page);
    const client = await context.newCDPSession(page);
    const compose = (text) => client.send('Input.imeSetComposition', { text, selectionStart: text.length, selectionEnd: text.length });
    await page.evaluate(() => {
      window.shown = [];
      new MutationObserver(() => window.shown.push(document.querySelector('#query').value)).observe(document.querySelector('#hits'), { childList: true });
      window.composed = [];
      for (const type of ['compositionstart', 'compositionend']) document.querySelector('#query').addEventListener(type, () => window.composed.push(type));
    });
    await page.focus('#query');
    for (const part of ['ㅂ', '버', '번', '번ㄱ', '번개']) {
      await compose(part);
      await page.waitForTimeout(150);
    }
    assert.deepEqual(await page.evaluate(() => [window.composed, window.shown]), [['compositionstart'], []]);
    assert.equal(await page.inputValue('#query'), '번개', 'the field is left alone');
    await client.send('Input.insertText', { text: '번개' });
    await page.waitForSelector('#hits .hit');
    assert.deepEqual(await page.evaluate(() => window.composed), ['compositionstart', 'compositionend']);
    assert.equal(await page.inputValue('#query'), '번개');
    assert.ok((await hits(page)).some(({ passage }) => passage.includes('번개')));
    // A second composition after text that is there.
    const before = await page.evaluate(() => window.shown.length);
    await compose('ㄹ');
    await page.waitForTimeout(250);
    assert.equal(await page.evaluate(() => window.shown.length), before);
    await client.send('Input.insertText', { text: '를' });
    await page.waitForFunction((count) => window.shown.length > count, before);
    assert.equal(new URL(page.url()).hash, `#search=${encodeURIComponent('번개를')}`);
  }));

test('fast typing: what is shown belongs to the last text', () =>
  withPage({}, async (page) => {
    await open(page);
    await page.locator('#query').pressSequentially('세종대왕은 책을 좋아했다', { delay: 15 });
    await page.waitForFunction(() => decodeURIComponent(location.hash) === '#search=세종대왕은 책을 좋아했다');
    await page.waitForFunction(() => [...document.querySelectorAll('.origin')].slice(0, 3).some((p) => p.textContent.includes('세종대왕')));
    await page.keyboard.press('Enter');
    assert.equal(await page.isVisible('#hits'), true, 'Enter sends no form');
  }));

test("the visitor's own texts: pasted, chosen, dropped, kept, removed", () =>
  withPage({}, async (page) => {
    await open(page);
    await page.check('input[value=own]', { force: true });
    assert.equal(await page.isVisible('#paste'), true, 'nothing there yet: the place to put texts is open');
    assert.equal(await page.isVisible('#corpus-credit'), false);
    await page.fill('#paste', '내일은 비가 온다고 합니다.\n냉장고에 우유가 없어요.\n회의는 세 시에 시작합니다.');
    await page.click('#paste-add');
    await page.waitForFunction(() => document.querySelector('#own-summary').textContent.includes('3'));
    assert.equal(await page.inputValue('#paste'), '');
    await page.fill('#query', '내일 날씨가 어때요?');
    await page.waitForSelector('#hits .hit');
    assert.match((await hits(page))[0].passage, /비가 온다/);
    assert.ok((await hits(page)).every(({ origin }) => origin.startsWith('붙여 넣은 글')), 'no other texts');
    assert.equal(new URL(page.url()).hash, '#search', 'what one asks of own texts is not in the address');

    await page.click('#own-summary');
    await page.setInputFiles('#files', [
      { name: '메모.md', mimeType: 'text/markdown', buffer: Buffer.from('# 장보기\n- 두부와 콩나물을 산다\n- 우유도 산다\n') },
      { name: '표.csv', mimeType: 'text/csv', buffer: Buffer.from('날짜,내용\n1월 1일,해돋이를 보러 동해에 갔다\n') },
    ]);
    await page.waitForFunction(() => document.querySelectorAll('#sources li').length === 3);
    await drop(page, '#panel-search', [{ name: '일기.txt', content: '강아지와 공원을 걸었다.' }, { name: '줄.jsonl', content: '{"text":"도서관에서 책을 빌렸다","title":"화요일"}\n' }]);
    await page.waitForFunction(() => document.querySelectorAll('#sources li').length === 5);
    await page.fill('#query', '책을 대출함');
    await page.waitForFunction(() => document.querySelector('#hits .origin')?.textContent.includes('화요일'));

    // A reload keeps them, and costs no encoding.
    await page.reload();
    await page.click('#tab-search');
    await page.check('input[value=own]', { force: true });
    await page.waitForFunction(() => document.querySelectorAll('#sources li').length === 5);
    await page.fill('#query', '강아지와 산책');
    await page.waitForFunction(() => document.querySelector('#hits .passage')?.textContent.includes('강아지'));

    await page.click('#own-summary');
    for (let left = 4; left >= 0; left--) {
      await page.click('#sources .remove >> nth=0');
      await page.waitForFunction((count) => document.querySelectorAll('#sources li').length === count, left);
    }
    assert.equal(await page.evaluate(() => document.activeElement.id), 'paste', 'the focus is somewhere');
    await page.waitForFunction(() => document.querySelectorAll('#hits .hit').length === 0);
  }));

test('texts that are dropped before the model is there go in when it is', () =>
  withPage({}, async (page) => {
    let release;
    const held = new Promise((resolve) => { release = resolve; });
    visit.site.intercept = (path, response) => {
      if (!path.endsWith('.munjang')) return false;
      held.then(() => readFile(new URL(path.slice(1), new URL('../', PKG)))).then((bytes) => response.writeHead(200, { 'content-length': bytes.length }).end(bytes));
      return true;
    };
    await page.goto(`${visit.site.origin}/#search`);
    await page.waitForSelector('#examples .example');
    await drop(page, '#panel-search', [{ name: '일기.txt', content: '강아지와 공원을 걸었다.' }]);
    await page.waitForSelector('#adding', { state: 'visible' });
    release();
    await page.waitForFunction(() => document.querySelectorAll('#sources li').length === 1);
    await page.waitForSelector('#adding', { state: 'hidden' });
  }));

test('files that cannot be read: each says why, the others go in', () =>
  withPage({}, async (page) => {
    await open(page);
    await drop(page, '#panel-search', [{ name: '보고서.pdf', content: '%PDF' }, { name: '좋은.txt', content: '읽을 수 있는 글입니다.' },
      { name: '빈.txt', content: '  ' }, { name: '줄.jsonl', content: '"하나"\n{둘' }]);
    await page.waitForFunction(() => document.querySelectorAll('#own-trouble p').length === 3);
    const said = await page.textContent('#own-trouble');
    assert.match(said, /보고서\.pdf: .*\.txt.*빈\.txt: 읽을 글이 없습니다.*줄\.jsonl: .*2째 줄/s);
    assert.equal(await page.getAttribute('#own-trouble', 'role'), 'alert');
    assert.equal(await page.locator('#sources li').count(), 1);
    await page.click('#paste-add');
    await page.waitForFunction(() => document.querySelectorAll('#own-trouble p').length === 1);
  }));

test('a long file can be searched while it is read, and stopped', () =>
  withPage({}, async (page) => {
    await open(page);
    const lines = Array.from({ length: 3000 }, (_, i) => `${i}번째 줄은 서울에서 부산까지 걸어간 이야기의 한 대목입니다. 오늘은 비가 와서 쉬었습니다.`);
    await drop(page, '#panel-search', [{ name: '긴.txt', content: `고래는 바다에 산다.\n${lines.join('\n')}` }]);
    await page.waitForSelector('#adding', { state: 'visible' });
    await page.fill('#query', '고래');
    await page.waitForFunction(() => document.querySelector('#hits .passage')?.textContent.includes('고래'));
    assert.equal(await page.isVisible('#adding'), true, 'still at it');
    await page.click('#adding-stop');
    await page.waitForSelector('#adding', { state: 'hidden' });
    assert.match(await page.textContent('#own-trouble'), /멈췄습니다/);
    assert.equal(await page.locator('#sources li').count(), 0);
    await page.waitForFunction(() => document.querySelectorAll('#hits .hit').length === 0);
  }));

test('while the texts are on their way: a bar; what was typed meanwhile is answered then', () =>
  withPage({}, async (page) => {
    const bytes = await readFile(INDEX);
    let release;
    const held = new Promise((resolve) => { release = resolve; });
    visit.site.intercept = (path, response) => {
      if (path !== CORPUS_PATH) return false;
      response.writeHead(200, { 'content-length': bytes.length });
      response.write(bytes.subarray(0, bytes.length / 2));
      held.then(() => response.end(bytes.subarray(bytes.length / 2)));
      return true;
    };
    await page.goto(`${visit.site.origin}/#search`);
    await page.waitForFunction(() => document.querySelector('#corpus-progress').value >= 0.45);
    assert.match(await page.textContent('#corpus-bytes'), /^\d\.\d \/ \d\.\d MB$/);
    await page.fill('#query', '번개와 천둥');
    await page.waitForFunction(() => document.querySelector('#search-status').textContent.length > 5);
    release();
    await page.waitForSelector('#hits .hit');
  }));

for (const [name, respond, says] of [
  ['missing', (response) => response.writeHead(404).end(), /이 사이트에 없습니다/],
  ['out of order', (response) => response.writeHead(503).end(), /받지 못했습니다/],
  ['cut off', (response) => (response.writeHead(200, { 'content-length': 100_000 }), response.write('x'), response.destroy()), /받지 못했습니다/],
  ['damaged', (response) => response.writeHead(200).end(Buffer.concat([Buffer.from([0x1f, 0x8b, 8, 0]), Buffer.alloc(200, 7)])), /손상/],
  ['of another model', (response) => response.writeHead(200).end(Buffer.alloc(4000, 1)), /새로 고쳐|다시 시도/],
]) {
  test(`texts that are ${name}: what to do, own texts, another try`, () =>
    withPage({}, async (page) => {
      visit.site.intercept = (path, response) => path === CORPUS_PATH && (respond(response), true);
      await page.goto(`${visit.site.origin}/#search`);
      await page.waitForSelector('#search-trouble', { state: 'visible' });
      assert.match(await page.textContent('#search-trouble'), says);
      assert.doesNotMatch(await page.textContent('#search-trouble'), /build|HTTP|gzip|Error|undefined/);
      assert.equal(await page.isVisible('#corpus-loading'), false);
      await page.check('input[value=own]', { force: true });
      await page.waitForSelector('#search-trouble', { state: 'hidden' });
      await page.check('input[value=corpus]', { force: true });
      visit.site.intercept = undefined;
      await page.fill('#query', '번개');
      if (await page.isVisible('#search-retry')) await page.click('#search-retry');
      await page.waitForSelector('#hits .hit');
      assert.equal(await page.isVisible('#search-trouble'), false);
    }));
}

test('offline before the texts ever came: it is said, and goes on by itself', () =>
  withPage({}, async (page) => {
    await visit.open(page);
    visit.site.intercept = (path, response) => path === CORPUS_PATH && (response.destroy(), true);
    await page.evaluate(() => Object.defineProperty(navigator, 'onLine', { value: false, configurable: true }));
    await page.click('#tab-search');
    await page.waitForSelector('#search-trouble', { state: 'visible' });
    assert.match(await page.textContent('#search-trouble'), /연결되어 있지 않고.*내 글은/s);
    visit.site.intercept = undefined;
    await page.evaluate(() => dispatchEvent(new Event('online')));
    await page.waitForSelector('#search-trouble', { state: 'hidden' });
    await page.fill('#query', '번개');
    await page.waitForSelector('#hits .hit');
  }));

test('without a network after the tab was opened once', () =>
  withPage({}, async (page, context) => {
    await open(page);
    await page.evaluate(() => navigator.serviceWorker.ready);
    await page.evaluate(async () => {
      while ((await (await caches.open('munjang-models')).keys()).length !== 1) await new Promise((r) => setTimeout(r, 20));
    });
    await open(page, '#search', '?2');
    await context.setOffline(true);
    visit.site.intercept = (_path, response) => (response.destroy(), true);
    await open(page, '#search', '?3');
    await ask(page, '번개와 천둥');
    assert.ok((await hits(page)).length > 0);
  }));

test('in English', () =>
  withPage({ locale: 'en-US' }, async (page) => {
    await open(page);
    assert.equal(await page.textContent('#tab-search'), 'Search');
    assert.match(await page.textContent('.example'), /puzzle/);
    await ask(page, '번개');
    assert.match(await page.textContent('#search-status'), /close texts/);
    await page.click('[data-lang=ko]');
    assert.match(await page.textContent('#search-status'), /가까운 글/);
    assert.equal((await hits(page)).length > 0, true, 'the hits stay');
  }));

test('for keyboard and screen reader', () =>
  withPage({}, async (page) => {
    await visit.open(page);
    await page.focus('#tab-compare');
    await page.keyboard.press('ArrowRight');
    await page.keyboard.press('Enter');
    await page.waitForSelector('#query:focus');
    assert.equal(await page.getAttribute('#tab-search', 'aria-selected'), 'true');
    assert.equal(await page.getAttribute('#panel-search', 'aria-labelledby'), 'tab-search');
    await page.keyboard.type('번개');
    await page.waitForSelector('#hits .hit');
    await page.waitForFunction(() => /가까운 글/.test(document.querySelector('#announce').textContent));
    const stops = [];
    for (let n = 0; n < 4; n++) {
      await page.keyboard.press('Tab');
      stops.push(await page.evaluate(() => document.activeElement.id || document.activeElement.value || document.activeElement.tagName));
    }
    assert.deepEqual(stops.slice(0, 2), ['corpus', 'balance']);
    assert.ok(['SUMMARY', 'A'].includes(stops[2]), stops[2]);
    await page.focus('#balance');
    await page.keyboard.press('End');
    assert.equal(await page.getAttribute('#balance', 'aria-valuetext'), '뜻 100%, 낱말 0%');
  }));

for (const colorScheme of ['light', 'dark']) {
  for (const width of [360, 1200]) {
    test(`axe, targets and width: ${colorScheme}, ${width} pixels`, () =>
      withPage({ viewport: { width, height: 740 }, colorScheme, reducedMotion: 'reduce' }, async (page) => {
        await open(page);
        const look = async (what) => {
          assert.deepEqual(await violations(page, axe), [], what);
          assert.deepEqual(await smallTargets(page), [], what);
          assert.equal(await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth), 0, what);
        };
        await look('examples');
        await ask(page, '하늘에서 번쩍이는 빛');
        await look('hits');
        const top = await page.evaluate(() => document.querySelector('#hits .hit').getBoundingClientRect().top);
        assert.ok(top < (width === 360 ? 370 : 500), `the first hit is in sight while one types: ${top}`);
        await page.check('input[value=own]', { force: true });
        await page.waitForSelector('#paste');
        await page.fill('#paste', '비가 온다.');
        await page.click('#paste-add');
        await page.waitForFunction(() => document.querySelector('#own-summary').textContent.includes('1'));
        await page.click('#own-summary');
        await look('own texts');
      }));
  }
}
