// What the page shows, as far as it needs no browser.
import assert from 'node:assert/strict';
import { access, readFile } from 'node:fs/promises';
import { test } from 'node:test';

import { contrast, heat, lowEnd } from '../../www/color.js';
import { EXAMPLES, humanScore } from '../../www/examples.js';
import { STRINGS } from '../../www/i18n.js';
import { closest, format, indexOfLargest } from '../../www/matrix.js';
import { toCsv } from '../../www/matrix_export.js';
import { fromFragment, toFragment } from '../../www/share.js';

const www = (name) => readFile(new URL(`../../www/${name}`, import.meta.url), 'utf8');

test('text on the heat map has a contrast of at least 4.5 at every value, in both themes', () => {
  for (const theme of ['light', 'dark']) {
    let before;
    for (let value = -0.2; value <= 1.2; value += 0.001) {
      const { background, text } = heat(value, theme);
      assert.match(background, /^#[0-9a-f]{6}$/);
      assert.ok(contrast(background, text) >= 4.5, `${theme} at ${value}: ${contrast(background, text)}`);
      // The ramp only ever goes one way, so that two values can be told apart by lightness.
      const lightness = contrast(background, '#000000');
      if (before !== undefined) {
        assert.ok(theme === 'light' ? lightness <= before + 0.01 : lightness >= before - 0.01, `${theme} at ${value}`);
      }
      before = lightness;
    }
  }
});

test("the page's own colours have a contrast of at least 4.5", async () => {
  const css = await www('style.css');
  const blocks = [...css.matchAll(/:root {([^}]*)}/g)].map(([, body]) =>
    Object.fromEntries([...body.matchAll(/--([\w-]+): (#[0-9a-f]{6});/g)].map(([, name, value]) => [name, value])));
  assert.equal(blocks.length, 2);
  for (const colors of blocks) {
    for (const [text, ground] of [['ink', 'paper'], ['ink', 'card'], ['soft', 'paper'], ['soft', 'card'], ['accent', 'paper'],
      ['accent', 'card'], ['on-accent', 'accent'], ['warn', 'card'], ['warn', 'warn-card'], ['ink', 'warn-card'], ['soft', 'warn-card']]) {
      assert.ok(contrast(colors[text], colors[ground]) >= 4.5, `${text} on ${ground}: ${contrast(colors[text], colors[ground])}`);
    }
  }
});

test('where the colours begin', () => {
  assert.equal(lowEnd([0.89, -0.1, 0.3]), 0);
  assert.equal(lowEnd([0.98, 0.78]), 0.7);
  assert.equal(lowEnd([0.99, 0.95]), 0.9);
  assert.equal(lowEnd([1, 1]), 0.9);
});

test('values', () => {
  assert.equal(format(0.894), '0.89');
  assert.equal(format(-0.113), '−0.11');
  assert.equal(format(-0.001), '0.00');
  assert.equal(format(1), '1.00');
  assert.equal(indexOfLargest([0.1, 0.5, null, 0.4]), 1);
  assert.equal(indexOfLargest([null, -0.5]), 1);
  assert.equal(indexOfLargest([null, null]), -1);
});

test('the closest sentence: near enough, and not the sentence itself', () => {
  assert.equal(closest('가', ['나', '다'], [0.1, 0.5]), 1);
  assert.equal(closest('가', ['나', '다'], [0.1, 0.29]), -1);
  assert.equal(closest('가', ['가 ', '다'], [1, 0.4]), 1);
  assert.equal(closest('가', ['가', '나'], [1, null]), -1);
});

test('the matrix as CSV', () => {
  const csv = toCsv({ rows: ['가, "나"', '=1+1'], columns: ['다', '라\n마'], values: [[0.5, null], [-0.12345, 1]] });
  assert.equal(csv, '\ufeff,다,"라\n마"\r\n"가, ""나""",0.5000,\r\n\'=1+1,-0.1235,1.0000\r\n');
});

test('a link carries the sentences in its fragment', async () => {
  const groups = { rows: ['비가 온다.', '<b>"&'], columns: ['눈이 온다. 😀', ''] };
  const fragment = await toFragment(groups);
  assert.match(fragment, /^compare=[\w-]+$/);
  assert.deepEqual(await fromFragment(`#${fragment}`, 30), groups);
  assert.equal(await fromFragment(`#${fragment}`, 1), undefined, 'more than the page shows');
  for (const bad of ['', '#', '#compare=', '#compare=!!', '#compare=AAAA', `#${fragment.slice(0, -3)}`, `#compare=${'A'.repeat(200_000)}`]) {
    assert.equal(await fromFragment(bad, 30), undefined, bad.slice(0, 30));
  }
  for (const other of [[[], ['가']], [['가'], [1]], { rows: ['가'] }, [['가']], null]) {
    const packed = new Uint8Array(await new Response(new Blob([JSON.stringify(other)]).stream().pipeThrough(new CompressionStream('deflate-raw'))).arrayBuffer());
    assert.equal(await fromFragment(`#compare=${Buffer.from(packed).toString('base64url')}`, 30), undefined, JSON.stringify(other));
  }
});

test('both languages say the same things', async () => {
  const kinds = (strings) => Object.fromEntries(Object.entries(strings).map(([name, value]) =>
    [name, typeof value === 'object' ? Object.keys(value).sort() : typeof value === 'function' ? value.length : 'words']));
  assert.deepEqual(kinds(STRINGS.ko), kinds(STRINGS.en));
  for (const page of ['index.html', 'bench.html']) {
    for (const [, name] of (await www(page)).matchAll(/data-i18n(?:-links|-label|-placeholder)?="(\w+)"/g)) {
      assert.equal(typeof STRINGS.ko[name], 'string', `${name} in ${page}`);
    }
  }
});

test('what the pages ask for in advance is there', async () => {
  for (const page of ['index.html', 'bench.html']) {
    for (const [, path] of (await www(page)).matchAll(/rel="modulepreload" href="([^"]+)"/g)) {
      // Made by the build.
      if (/^\.\.\/pkg\/(model|wasm)\//.test(path)) continue;
      await access(new URL(`../../www/${path}`, import.meta.url));
    }
  }
});

test('the first sentences are those of the issue, credited', async () => {
  const [{ rows, columns }] = EXAMPLES;
  assert.equal(rows[0], '다만, 도로와 인접해서 거리의 소음이 들려요.');
  assert.equal(columns[3], '아울러 지자체, 지역관광협회 등과 함께 수시로 관광지 현장을 점검할 계획이다.');
  assert.equal(humanScore(rows[0], ` ${columns[0]}`), 3.7);
  assert.equal(humanScore(rows[0], columns[1]), undefined);
  for (const { credit } of Object.values(STRINGS)) {
    assert.match(credit, /KLUE-STS/);
    assert.match(credit, /CC BY-SA 4\.0/);
  }
});
