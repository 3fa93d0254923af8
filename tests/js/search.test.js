// SemanticIndex in memory: adding, updating, removing, searching, input of all kinds, calls that overlap.
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { describe, test } from 'node:test';

import { MunjangError, SemanticIndex } from '../../pkg/search.js';
import { codeOf, fakeEncoder, gate, notes } from './fake_encoder.js';

const TEXTS = [
  { id: 'rain', text: '내일은 전국에 비가 내리겠습니다. 우산을 챙기세요.', data: { year: 2024 } },
  { id: 'tax', text: '연말정산 서류는 1월 말까지 제출해야 합니다.', data: { year: 2019 } },
  { id: 7, text: '고양이가 창가에서 낮잠을 잔다.', data: { year: 2022 } },
];

async function open(options = {}) {
  const encoder = fakeEncoder();
  const index = await SemanticIndex.open('test', { encoder, ...options });
  return { encoder, index };
}

const ids = (hits) => hits.map(({ id }) => id);

describe('adding and searching', () => {
  test('hits say what, where and how near', async () => {
    const { index } = await open();
    await index.add(TEXTS);
    assert.equal(index.size, 3);
    const [hit, ...rest] = await index.search('우산을 챙기세요');
    assert.equal(hit.id, 'rain');
    assert.equal(hit.text, TEXTS[0].text);
    assert.deepEqual(hit.data, { year: 2024 });
    assert.equal(hit.text.slice(hit.passage.start, hit.passage.end), hit.passage.text);
    assert.ok(hit.lexical > 0 && hit.cosine > 0 && hit.score > rest[0].score);
    assert.ok(Math.abs(hit.score - (0.4 * hit.cosine + 0.6 * hit.lexical)) < 1e-5);
    await index.close();
  });

  test('topK, minScore, filter, semantic', async () => {
    const { index, encoder } = await open();
    await index.add(TEXTS);
    assert.deepEqual(await index.search('비가', { topK: 0 }), []);
    assert.equal((await index.search('비가', { topK: 1 })).length, 1);
    assert.equal((await index.search('비가', { topK: 1e9 })).length, 3);
    assert.equal((await index.search('비가', { topK: Infinity })).length, 3);
    assert.deepEqual(await index.search('비가', { minScore: 2 }), []);
    const seen = [];
    const filtered = await index.search('비가', { filter: (d) => seen.push(d) && d.data.year > 2020 });
    assert.deepEqual(ids(filtered).sort(), [7, 'rain']);
    assert.deepEqual(Object.keys(seen[0]), ['id', 'text', 'data']);
    encoder.texts.length = 0;
    assert.deepEqual(ids(await index.search('고양이가', { semantic: 0 })), [7]);
    assert.deepEqual(encoder.texts, [], 'words alone need no encoder');
    assert.equal((await index.search('고양이가', { semantic: 1 })).length, 3);
    await index.close();
  });

  test('no documents, an empty query, blank texts', async () => {
    const { index, encoder } = await open();
    assert.deepEqual(await index.search('아무것도'), []);
    await index.add([]);
    await index.add([{ id: 'blank', text: '  \n ' }, { id: 'empty', text: '' }]);
    assert.equal(index.size, 2);
    assert.deepEqual(await index.search('무엇'), []);
    await index.add(TEXTS);
    encoder.texts.length = 0;
    for (const query of ['', '  \n']) assert.deepEqual(await index.search(query), []);
    assert.deepEqual(encoder.texts, []);
    await index.close();
  });

  test('the same id again updates; an unchanged text is not encoded again; new data alone cost nothing', async () => {
    const { index, encoder } = await open();
    await index.add(TEXTS);
    encoder.texts.length = 0;
    await index.add(TEXTS);
    await index.add([{ ...TEXTS[0], data: { year: 1999 } }, { id: 'tax', text: TEXTS[1].text }]);
    assert.deepEqual(encoder.texts, []);
    assert.deepEqual(index.get('rain').data, { year: 1999 });
    assert.equal(index.get('tax').data, undefined);
    await index.add([{ id: 'rain', text: '태풍이 올라옵니다.' }]);
    assert.deepEqual(encoder.texts, ['태풍이 올라옵니다.']);
    assert.equal(index.size, 3);
    assert.equal(index.info.passages, 3);
    assert.equal((await index.search('태풍이', { topK: 1 }))[0].id, 'rain');
    assert.ok(!(await index.search('우산을 챙기세요')).some(({ lexical }) => lexical > 0.5), 'the old text is gone');
    await index.close();
  });

  test('of one id twice in a call the last counts; 1 and "1" are two', async () => {
    const { index } = await open();
    await index.add([{ id: 1, text: '하나' }, { id: '1', text: '다른 하나' }, { id: 1, text: '나중 하나' }]);
    assert.equal(index.size, 2);
    assert.equal(index.get(1).text, '나중 하나');
    assert.ok(index.has('1') && !index.has(2));
    await index.close();
  });

  test('remove, clear', async () => {
    const { index } = await open();
    await index.add(TEXTS);
    assert.equal(await index.remove(['rain', 'rain', 'nobody']), 1);
    assert.equal(await index.remove(7), 1);
    assert.deepEqual(ids(await index.search('비가 고양이가')), ['tax']);
    await index.clear();
    assert.equal(index.size, 0);
    assert.deepEqual(await index.search('비가'), []);
    await index.add(TEXTS);
    assert.equal(index.size, 3);
    await index.close();
  });

  test('what a caller does to its objects afterwards does no harm', async () => {
    const { index } = await open();
    const documents = [{ id: 'a', text: '처음 글', data: { tags: ['x'] } }];
    const adding = index.add(documents);
    documents[0].text = '나중 글';
    documents[0].data.tags.push('y');
    documents.push({ id: 'b', text: '둘' });
    await adding;
    assert.deepEqual(index.get('a'), { id: 'a', text: '처음 글', data: { tags: ['x'] } });
    assert.throws(() => index.get('a').data.tags.push('z'), TypeError);
    await index.close();
  });

  test('ten thousand equal texts: encoded a few times, all found', async () => {
    const { index, encoder } = await open();
    await index.add(Array.from({ length: 10_000 }, (_, id) => ({ id, text: '같은 글' })));
    assert.ok(encoder.texts.length <= 10, `${encoder.texts.length}`);
    const hits = await index.search('같은 글', { topK: 10_000 });
    assert.deepEqual(ids(hits), Array.from({ length: 10_000 }, (_, id) => id), 'equal scores in order of insertion');
    await index.close();
  });

  test('a text of a million characters is cut into passages, the hit says which', async () => {
    const { index, encoder } = await open();
    const text = `${'가나다라 마바사아. '.repeat(100_000).slice(0, 1_000_000)} 바늘이 여기 있다.`;
    await index.add([{ id: 'long', text }]);
    assert.ok(encoder.texts.every((passage) => passage.length <= 150));
    const [hit] = await index.search('바늘이 여기');
    assert.ok(hit.passage.start > 999_000 && hit.passage.text.includes('바늘'));
    await index.close();
  });

  test('another passage length, another precision', async () => {
    const { index, encoder } = await open({ passages: { maxChars: 40 }, precision: 'float32' });
    await index.add([{ id: 1, text: '짧은 문장이 있다. '.repeat(20) }]);
    assert.ok(encoder.texts.every((text) => text.length <= 40));
    assert.equal(index.info.maxChars, 40);
    assert.equal(index.info.precision, 'float32');
    await index.close();
  });
});

describe('input that is wrong', () => {
  test('each is input_invalid, says what, and changes nothing', async () => {
    const { index, encoder } = await open();
    await index.add(TEXTS);
    const cyclic = {};
    cyclic.self = cyclic;
    const hole = [TEXTS[0], TEXTS[1]];
    delete hole[0];
    const good = { id: 'x', text: '글' };
    for (const [documents, index_] of [
      [undefined], [null], [good], ['글'], [[good, '글'], 1], [[good, null], 1], [hole, 0], [[{ text: '글' }], 0], [[{ id: NaN, text: '글' }], 0],
      [[{ id: {}, text: '글' }], 0], [[good, { id: 'y' }], 1], [[{ id: 'y', text: 7 }], 0], [[good, { ...good, data: cyclic }], 1],
      [[{ ...good, data: 7n }], 0], [[{ ...good, data: () => {} }], 0], [[{ ...good, text: 'a'.repeat(2 ** 24 + 1) }], 0],
    ]) {
      const error = await index.add(documents).then(() => assert.fail(`took ${documents}`), (e) => e);
      assert.ok(error instanceof MunjangError, error.stack);
      assert.equal(error.code, 'input_invalid');
      assert.equal(error.index, index_, error.message);
    }
    for (const [query, options] of [
      [7], [undefined], ['글', { topK: -1 }], ['글', { topK: 1.5 }], ['글', { topK: NaN }], ['글', { topK: '3' }], ['글', { minScore: NaN }],
      ['글', { minScore: '1' }], ['글', { semantic: 1.1 }], ['글', { semantic: NaN }], ['글', { filter: {} }], ['글', null], ['글', 7], ['글', { signal: 7 }],
    ]) assert.equal(await codeOf(index.search(query, options)), 'input_invalid', JSON.stringify([query, options]));
    assert.equal(await codeOf(index.add([good], { onProgress: 7 })), 'input_invalid');
    for (const ids of [undefined, null, {}, [undefined], [NaN]]) assert.equal(await codeOf(index.remove(ids)), 'input_invalid');
    for (const options of [
      {}, { encoder: {} }, { encoder: 7 }, { encoder, persist: 1 }, { encoder, passages: { maxChars: 5 } }, { encoder, precision: 'int4' },
      { encoder, rebuild: 'yes' }, null, 7, { encoder, signal: {} },
    ]) assert.equal(await codeOf(SemanticIndex.open('x', options)), 'input_invalid', JSON.stringify(options));
    for (const name of ['', undefined, 7, 'x'.repeat(201)]) assert.equal(await codeOf(SemanticIndex.open(name, { encoder })), 'input_invalid');
    assert.throws(() => new SemanticIndex(), { code: 'input_invalid' });
    assert.equal(index.size, 3);
    assert.equal(index.info.pending, 0);
    await index.close();
  });

  test('a filter that throws is input_invalid with its cause', async () => {
    const { index } = await open();
    await index.add(TEXTS);
    const cause = new RangeError('my own');
    const error = await index.search('비가', { filter: () => { throw cause; } }).catch((e) => e);
    assert.equal(error.code, 'input_invalid');
    assert.equal(error.cause, cause);
    assert.equal(await codeOf(index.search('비가', { filter: async () => false })), 'input_invalid');
    assert.equal((await index.search('비가')).length, 3, 'and the next search works');
    await index.close();
  });

  test('an encoder that fails, or gives something else', async () => {
    const { index, encoder } = await open();
    await index.add(TEXTS);
    const { encode } = encoder;
    encoder.encode = async () => { throw new MunjangError('crashed', 'The encoder crashed.'); };
    assert.equal(await codeOf(index.add([{ id: 'new', text: '새 글' }])), 'crashed');
    assert.equal(await codeOf(index.search('비가')), 'crashed');
    assert.equal(index.has('new'), false);
    for (const wrong of [[new Float32Array(3)], [], [new Float32Array(32).fill(NaN)], [new Float32Array(32)]]) {
      encoder.encode = async () => wrong;
      assert.equal(await codeOf(index.add([{ id: 'new', text: '새 글' }])), 'input_invalid');
    }
    encoder.encode = encode;
    assert.deepEqual(await index.search('새 글', { semantic: 0 }), []);
    assert.equal(index.size, 3);
    assert.equal(index.info.pending, 0);
    await index.close();
  });
});

describe('calls that overlap', () => {
  test('while texts are encoded they are found by words, old versions stay, and nothing comes twice', async () => {
    const { index, encoder } = await open();
    await index.add(TEXTS);
    const [closed, key] = gate();
    encoder.gate = closed;
    const adding = index.add([{ id: 'new', text: '펭귄이 걷는다.' }, { id: 'rain', text: '펭귄은 비를 좋아한다.' }]);
    await new Promise((resolve) => setTimeout(resolve, 20));
    const found = await index.search('펭귄이');
    assert.equal(found[0].id, 'new');
    assert.equal(found[0].cosine, null);
    assert.deepEqual(index.info.pending, 2);
    assert.equal(index.size, 3);
    const rain = (await index.search('비가 우산을')).filter(({ id }) => id === 'rain');
    assert.equal(rain.length, 1);
    assert.equal(rain[0].text, TEXTS[0].text);
    key();
    await adding;
    assert.equal(index.info.pending, 0);
    assert.equal(index.size, 4);
    assert.equal(index.get('rain').text, '펭귄은 비를 좋아한다.');
    assert.ok((await index.search('펭귄이'))[0].cosine > 0);
    await index.close();
  });

  test('progress: done never falls, ends at total; events while a segment is encoded', async () => {
    const { index } = await open();
    const events = [];
    await index.add(notes(3000), { onProgress: (event) => events.push(event) });
    assert.ok(events.length > 10);
    assert.ok(events.every((e, i) => e.total === 3000 && e.done <= e.encoded && (i === 0 || (e.done >= events[i - 1].done && e.encoded >= events[i - 1].encoded))));
    assert.deepEqual(events.at(-1), { done: 3000, encoded: 3000, total: 3000 });
    await index.close();
  });

  test('an aborted add keeps what was acknowledged, and only that', async () => {
    const { index } = await open();
    await index.add(TEXTS);
    const controller = new AbortController();
    let done = 0;
    const reason = new Error('enough');
    const error = await index.add(notes(5000, 100), {
      signal: controller.signal,
      onProgress: (event) => {
        done = event.done;
        if (done > 2000) controller.abort(reason);
      },
    }).catch((e) => e);
    assert.equal(error.code, 'aborted');
    assert.equal(error.name, 'AbortError');
    assert.equal(error.cause, reason);
    assert.equal(index.size, done + 3);
    assert.ok(index.has(100) && index.has(done + 99) && !index.has(done + 100));
    assert.deepEqual(await index.search('5099번째', { semantic: 0, topK: 1 }).then((hits) => hits.filter(({ id }) => id === 5099)), []);
    assert.equal(index.info.pending, 0);
    for (let i = 0; i < 200 && index.info.passages > done + 3; i++) await new Promise((resolve) => setTimeout(resolve, 20));
    assert.equal(index.info.passages, done + 3);
    assert.equal(await codeOf(index.add(TEXTS, { signal: AbortSignal.abort() })), 'aborted');
    assert.equal(await codeOf(index.search('비', { signal: AbortSignal.abort() })), 'aborted');
    await index.close();
  });

  test('calls take effect in the order in which they were made, however long each takes', async () => {
    const { index, encoder } = await open();
    const [closed, key] = gate();
    encoder.gate = closed;
    const first = index.add([{ id: 'a', text: '첫째 글' }, { id: 'b', text: '첫째 글 둘' }, { id: 'c', text: '셋' }]);
    await new Promise((resolve) => setTimeout(resolve, 5));
    encoder.gate = undefined;
    await index.add([{ id: 'a', text: '둘째 글' }]);
    assert.equal(await index.remove(['b']), 0);
    assert.deepEqual(ids(await index.search('글')), ['a']);
    key();
    await first;
    assert.equal(index.get('a').text, '둘째 글');
    assert.equal(index.has('b'), false);
    assert.equal(index.has('c'), true);
    assert.equal(index.info.passages, 2);
    encoder.gate = gate()[0];
    const late = codeOf(index.add([{ id: 'd', text: '넷' }]));
    await index.clear();
    encoder.gate = undefined;
    assert.equal(index.size, 0);
    assert.deepEqual(await index.search('넷', { semantic: 0 }), []);
    await index.close();
    assert.equal(await late, 'disposed');
  });

  test('close during an add: it ends with disposed, as do later calls; closing twice is nothing', async () => {
    const { index, encoder } = await open();
    await index.add(TEXTS);
    encoder.gate = gate()[0];
    const adding = codeOf(index.add([{ id: 'late', text: '늦은 글' }]));
    await new Promise((resolve) => setTimeout(resolve, 5));
    await index.close();
    await index.close();
    assert.equal(await adding, 'disposed');
    for (const call of [index.add(TEXTS), index.search('비'), index.remove(['rain']), index.clear()]) assert.equal(await codeOf(call), 'disposed');
    assert.equal(index.size, 3);
    assert.equal(index.info.passages, 0);
  });

  test('close during a search', async () => {
    const { index } = await open();
    await index.add(TEXTS);
    const searching = codeOf(index.search('비가'));
    await index.close();
    assert.equal(await searching, 'disposed');
  });

  test('many at once', async () => {
    const { index } = await open();
    const all = notes(400);
    await Promise.all([...all.map((note) => index.add([note])), ...all.map(({ text }) => index.search(text)), index.add(all)]);
    assert.equal(index.size, 400);
    for (const { id, text } of all.slice(0, 20)) assert.equal((await index.search(text, { topK: 1 }))[0].id, id);
    assert.equal(index.info.passages, 400);
    await index.close();
  });
});

test('in Node nothing can be stored: it says so, and works', async () => {
  const { index } = await open({ persist: true });
  assert.equal(index.info.persistent, false);
  assert.match(index.info.reason, /no IndexedDB/);
  await index.add(TEXTS);
  assert.equal(index.size, 3);
  await index.close();
  const { index: plain } = await open();
  assert.equal(plain.info.reason, undefined);
  await plain.close();
});

describe('as a file', () => {
  test('bytes give the same index, without encoding; the same content gives the same bytes', async () => {
    const { index, encoder } = await open();
    await index.add([...TEXTS, ...notes(500, 100), { id: 'long', text: '여러 문장이 있다. 또 있다. '.repeat(40) }, { id: 'blank', text: ' ' }]);
    await index.remove(101);
    await index.add([{ id: 'tax', text: '고친 글' }]);
    const bytes = await index.toBytes();
    encoder.texts.length = 0;
    const copy = await SemanticIndex.fromBytes(bytes, { encoder: Promise.resolve(encoder) });
    assert.deepEqual(encoder.texts, []);
    assert.equal(copy.size, index.size);
    for (const query of ['창고 이야기', '고친 글', '여러 문장이']) assert.deepEqual(await copy.search(query), await index.search(query));
    assert.deepEqual(copy.get('rain'), index.get('rain'));
    assert.deepEqual(Buffer.from(await copy.toBytes()).compare(Buffer.from(bytes)), 0);
    await copy.add([{ id: 'more', text: '덧붙인 글' }, { id: 'rain', text: '비는 그쳤다' }]);
    await copy.remove(100);
    assert.deepEqual([copy.size, copy.get('rain').text], [index.size, '비는 그쳤다']);
    assert.equal((await copy.search('덧붙인 글'))[0].id, 'more');
    assert.deepEqual([copy.info.persistent, copy.info.name, copy.info.maxChars], [false, undefined, 150]);
    await copy.close();
    await index.close();
  });

  test('only what is acknowledged is in it', async () => {
    const { index, encoder } = await open();
    await index.add(TEXTS);
    const bytes = await index.toBytes();
    encoder.gate = gate()[0];
    const adding = codeOf(index.add([{ id: 'late', text: '늦은 글' }, { id: 'rain', text: '고친 비' }]));
    await new Promise((resolve) => setTimeout(resolve, 5));
    assert.equal(Buffer.from(await index.toBytes()).compare(Buffer.from(bytes)), 0);
    await index.close();
    assert.equal(await adding, 'disposed');
    assert.equal(await codeOf(index.toBytes()), 'disposed');
  });

  test('lone surrogates become U+FFFD', async () => {
    const { index, encoder } = await open();
    await index.add([{ id: 'a', text: '홀로 \ud800 남은 글 😀 \\ud800', data: { '\udfff': '\n\ud83d' } }]);
    const copy = await SemanticIndex.fromBytes(await index.toBytes(), { encoder });
    assert.deepEqual(copy.get('a'), { id: 'a', text: '홀로 \ufffd 남은 글 😀 \\ud800', data: { '\ufffd': '\n\ufffd' } });
    assert.deepEqual((await copy.search('남은 글')).map(({ score }) => score), (await index.search('남은 글')).map(({ score }) => score));
    await copy.close();
    await index.close();
  });

  test('an empty one, another precision, another model, damage, something else', async () => {
    const { index, encoder } = await open({ precision: 'float32', passages: { maxChars: 60 } });
    const copy = await SemanticIndex.fromBytes((await index.toBytes()).buffer, { encoder });
    assert.deepEqual([copy.size, copy.info.precision, copy.info.maxChars], [0, 'float32', 60]);
    await copy.close();
    await index.add(TEXTS);
    const bytes = await index.toBytes();
    assert.equal(await codeOf(SemanticIndex.fromBytes(bytes, { encoder: fakeEncoder({ modelId: 'fedcba9876543210' }) })), 'index_invalid');
    assert.equal(await codeOf(SemanticIndex.fromBytes(bytes, { encoder: fakeEncoder({ hiddenSize: 24 }) })), 'index_invalid');
    for (let at = 0; at < bytes.length; at += 7) {
      const damaged = bytes.slice();
      damaged[at] ^= 4;
      assert.equal(await codeOf(SemanticIndex.fromBytes(damaged, { encoder })), 'index_invalid', `byte ${at}`);
    }
    for (const length of [0, 1, 50, bytes.length - 1]) assert.equal(await codeOf(SemanticIndex.fromBytes(bytes.slice(0, length), { encoder })), 'index_invalid');
    for (const wrong of [undefined, 'text', [1], {}]) assert.equal(await codeOf(SemanticIndex.fromBytes(wrong, { encoder })), 'input_invalid');
    assert.equal(await codeOf(SemanticIndex.fromBytes(bytes)), 'input_invalid');
    await index.close();
  });
});

test('marks', async () => {
  const { index } = await open();
  const text = '내일은 전국에 비가 내리겠습니다.';
  assert.deepEqual(index.marks(text, '전국에 비가').map(({ start, end }) => text.slice(start, end)), ['전국에', '비가']);
  assert.deepEqual(index.marks('', '비가'), []);
  assert.throws(() => index.marks(text), { code: 'input_invalid' });
  await index.close();
});

test('what is declared is what there is', async () => {
  const types = await readFile(new URL('../../pkg/search.d.ts', import.meta.url), 'utf8');
  const { index } = await open();
  const body = types.slice(types.indexOf('export class SemanticIndex'));
  for (const name of Object.getOwnPropertyNames(SemanticIndex.prototype).filter((name) => name !== 'constructor')) {
    assert.match(body, new RegExp(`^  (readonly )?${name}[(:]`, 'm'), name);
  }
  for (const name of ['open', 'fromBytes', 'delete']) assert.match(body, new RegExp(`^  static ${name}[(<]`, 'm'));
  const declared = [...types.match(/interface IndexInfo {([^}]*)}/)[1].matchAll(/readonly (\w+)/g)].map(([, field]) => field);
  assert.deepEqual(Object.keys(index.info).sort(), declared.sort());
  await index.close();
});
