// SemanticIndex on IndexedDB (a stand-in for Node; browser/search.test.js has the real ones): what is stored when,
// reloads, several tabs, other models, damage, failures of the storage.
import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, test } from 'node:test';

import { IDBFactory, IDBKeyRange, IDBObjectStore } from 'fake-indexeddb';

import { SemanticIndex } from '../../pkg/search.js';
import { readSegment, writeSegment, xxh32 } from '../../pkg/segment.js';
import { codeOf, fakeEncoder, gate, notes } from './fake_encoder.js';

const OTHER_MODEL = 'fedcba9876543210';

let opened;
beforeEach(() => {
  globalThis.indexedDB = new IDBFactory();
  globalThis.IDBKeyRange = IDBKeyRange;
  opened = [];
});
afterEach(async () => {
  for (const index of opened) await index.close();
  delete globalThis.indexedDB;
});

/** As a tab of its own would: with its own encoder. */
async function tab(options = {}, name = 'notes') {
  const encoder = options.encoder ?? fakeEncoder();
  const index = await SemanticIndex.open(name, { persist: true, ...options, encoder });
  opened.push(index);
  return { index, encoder };
}

/** Looks into a store of the database, past the package. */
const rows = (store, name = 'notes') => new Promise((resolve, reject) => {
  const asked = indexedDB.open(`munjang-search/${name}`);
  asked.onerror = () => reject(asked.error);
  asked.onsuccess = () => {
    const source = asked.result.transaction(store).objectStore(store);
    const [keys, values] = [source.getAllKeys(), source.getAll()];
    values.onsuccess = () => {
      asked.result.close();
      resolve(keys.result.map((key, i) => [key, values.result[i]]));
    };
  };
});

const until = async (what, ms = 3000) => {
  const end = Date.now() + ms;
  while (!await what()) {
    assert.ok(Date.now() < end, `not in ${ms} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
};

const hitsOf = (index, query) => index.search(query, { topK: 20 });

describe('what is stored', () => {
  test('a reload costs no encoding and gives the same hits', async () => {
    const { index } = await tab();
    assert.equal(index.info.persistent, true);
    assert.equal(index.info.reason, undefined);
    const all = notes(2500);
    await index.add(all);
    await index.add([{ id: 'long', text: '여러 문장이 있다. '.repeat(60), data: { nested: { list: [1, null, 'ㄱ'] } } }, { id: 'bad', text: '홀로 \ud800 남은', data: null }]);
    await index.add([{ ...all[3], text: '고쳐 쓴 메모' }]);
    await index.remove([5, 6]);
    const before = [await hitsOf(index, '창고 이야기'), await hitsOf(index, '고쳐 쓴'), await hitsOf(index, '여러 문장')];
    await index.close();
    const { index: again, encoder } = await tab();
    assert.deepEqual(encoder.texts, []);
    assert.equal(again.size, 2500);
    assert.deepEqual([await hitsOf(again, '창고 이야기'), await hitsOf(again, '고쳐 쓴'), await hitsOf(again, '여러 문장')], before);
    assert.deepEqual(again.get('bad'), { id: 'bad', text: '홀로 \ud800 남은', data: null });
    assert.equal(again.has(5), false);
    encoder.texts.length = 0;
    await again.add(all.slice(10, 2000));
    assert.deepEqual(encoder.texts, [], 'known texts are not encoded');
  });

  test('add resolves when its transaction has ended; each segment is one, with the generation in it', async () => {
    const { index } = await tab();
    const seen = [];
    await index.add(notes(3000), { onProgress: ({ done, encoded }) => done === encoded && seen.push(done) });
    const segments = await rows('segments');
    assert.deepEqual(seen, [1024, 2048, 3000]);
    assert.equal(segments.length, 3);
    assert.equal((await rows('meta'))[0][1].generation, 3);
    let stored = 0;
    for (const [, bytes] of segments) stored += readSegment(bytes).documents.length;
    assert.equal(stored, 3000);
    await index.add([{ id: 'one', text: '하나 더' }]);
    assert.ok((await rows('segments')).some(([, bytes]) => readSegment(bytes).documents.some(({ id }) => id === 'one')));
  });

  test('one by one does not make a segment each', async () => {
    const { index } = await tab();
    for (const note of notes(100)) await index.add([note]);
    const segments = await rows('segments');
    assert.ok(segments.length <= 8, `${segments.length}`);
    await index.close();
    const { index: again } = await tab();
    assert.equal(again.size, 100);
    assert.deepEqual((await again.search('창고', { topK: 100, semantic: 0 })).length, 100);
  });

  test('when a quarter is dead all is written anew', async () => {
    const { index } = await tab();
    await index.add(notes(4000));
    await index.remove(notes(900).map(({ id }) => id));
    assert.equal((await rows('changes')).length, 1);
    assert.equal((await rows('segments')).length, 4);
    await index.remove(notes(200, 900).map(({ id }) => id));
    await until(async () => (await rows('changes')).length === 0);
    const documents = (await rows('segments')).flatMap(([, bytes]) => readSegment(bytes).documents);
    assert.deepEqual(documents.map(({ id }) => id), notes(2900, 1100).map(({ id }) => id));
    const before = await hitsOf(index, '창고 이야기');
    await index.close();
    const { index: again } = await tab();
    assert.deepEqual(await hitsOf(again, '창고 이야기'), before);
  });

  test('clear empties the store, too', async () => {
    const { index } = await tab();
    await index.add(notes(50));
    await index.clear();
    assert.deepEqual(await rows('segments'), []);
    await index.add(notes(3));
    await index.close();
    assert.equal((await tab()).index.size, 3);
  });

  test('an aborted add has stored what it acknowledged', async () => {
    const { index } = await tab();
    const controller = new AbortController();
    let done;
    assert.equal(await codeOf(index.add(notes(5000), {
      signal: controller.signal, onProgress: (event) => { done = event.done; if (done >= 2000 && event.encoded > done) controller.abort(); },
    })), 'aborted');
    assert.equal(index.size, 2048);
    await index.close();
    assert.equal((await tab()).index.size, 2048);
  });

  test('close waits for what is being written', async () => {
    const { index } = await tab();
    const calls = [...notes(20).map((note) => codeOf(index.add([note]))), codeOf(index.remove([1]))];
    await new Promise((resolve) => setTimeout(resolve, 15));
    await index.close();
    const acknowledged = (await Promise.all(calls)).slice(0, 20).filter((code) => code === 'no error').length;
    const { index: again } = await tab();
    assert.ok(again.size >= acknowledged - 1, `${again.size} of ${acknowledged}`);
  });

  test('two names are two indexes; delete deletes one', async () => {
    const { index: a } = await tab({}, 'a');
    const { index: b } = await tab({}, 'b');
    await a.add(notes(2));
    await b.add(notes(3));
    await a.close();
    await SemanticIndex.delete('a');
    await SemanticIndex.delete('never was');
    assert.equal((await tab({}, 'a')).index.size, 0);
    assert.equal(b.size, 3);
  });
});

describe('several tabs', () => {
  test('each takes in what the others store, without encoding', async () => {
    const [a, b] = [await tab(), await tab()];
    await a.index.add(notes(1200));
    await until(() => b.index.size === 1200);
    assert.deepEqual(b.encoder.texts, []);
    await b.index.add([{ id: 3, text: '다른 탭에서 고친 메모' }]);
    await b.index.remove([4]);
    await until(() => a.index.get(3).text.startsWith('다른') && !a.index.has(4));
    await a.index.add([{ ...notes(1)[0], data: 'new data' }]);
    await until(() => b.index.get(0).data === 'new data');
    assert.deepEqual(await hitsOf(a.index, '다른 탭에서'), await hitsOf(b.index, '다른 탭에서'));
    await a.index.remove(notes(600).map(({ id }) => id));
    await until(() => b.index.size === 600);
    await until(async () => (await rows('changes')).length === 0);
    await a.index.add([{ id: 'after', text: '모두 새로 쓴 다음' }]);
    await until(() => b.index.has('after'));
    assert.equal(b.index.size, 601);
    await a.index.clear();
    await until(() => b.index.size === 0);
  });

  test('without a word from the others, too: the generation tells', async () => {
    const { BroadcastChannel } = globalThis;
    delete globalThis.BroadcastChannel;
    try {
      const [a, b] = [await tab(), await tab()];
      await a.index.add(notes(10));
      await b.index.add(notes(10, 10));
      await a.index.add([{ id: 'a', text: '가' }]);
      await b.index.remove([0, 'a']);
      assert.equal(await a.index.remove([0]), 0);
      for (const { index } of [a, b]) await index.add([{ id: 'z', text: '끝' }]);
      for (const { index } of [a, b]) assert.deepEqual([index.size, index.has('a'), index.has(0)], [20, false, false]);
      assert.deepEqual(a.encoder.texts.filter((text) => text === '끝').length + b.encoder.texts.filter((text) => text === '끝').length, 1);
    } finally {
      globalThis.BroadcastChannel = BroadcastChannel;
    }
  });

  test('both writing at once lose nothing and end up equal', async () => {
    const [a, b] = [await tab(), await tab()];
    await Promise.all([
      ...notes(60).map((note) => a.index.add([note])), ...notes(60, 60).map((note) => b.index.add([note])),
      a.index.add(notes(2000, 1000)), b.index.add(notes(2000, 2000)),
    ]);
    await Promise.all([a.index.remove(notes(30).map(({ id }) => id)), b.index.remove(notes(30, 15).map(({ id }) => id))]);
    const expected = 120 + 3000 - 45;
    await until(() => a.index.size === expected && b.index.size === expected);
    const { index: c, encoder } = await tab();
    assert.equal(c.size, expected);
    assert.deepEqual(encoder.texts, []);
    // Which order equal scores have depends on which tab saw what first.
    const sorted = async (index) => (await index.search('창고 이야기', { topK: 5000 })).map(({ id, score }) => `${id} ${score}`).sort();
    assert.deepEqual(await sorted(a.index), await sorted(c));
    assert.deepEqual(await sorted(b.index), await sorted(c));
  });

  test('the last writer of an id wins, everywhere', async () => {
    const [a, b] = [await tab(), await tab()];
    const [closed, key] = gate();
    a.encoder.gate = closed;
    const slow = a.index.add([{ id: 1, text: '느린 탭' }]);
    await b.index.add([{ id: 1, text: '빠른 탭' }]);
    await until(() => a.index.get(1)?.text === '빠른 탭');
    assert.deepEqual((await a.index.search('빠른 탭', { semantic: 0 })).map(({ text }) => text), ['빠른 탭'], 'not twice');
    key();
    await slow;
    await until(() => b.index.get(1).text === '느린 탭');
    assert.equal(a.index.get(1).text, '느린 탭');
  });

  test('with locks two tabs that add the same encode it once', async () => {
    const held = new Map();
    const locks = {
      async request(name, { signal }, task) {
        const before = held.get(name) ?? Promise.resolve();
        const mine = before.then(() => (signal.aborted ? Promise.reject(new DOMException('', 'AbortError')) : task()));
        held.set(name, mine.catch(() => {}));
        return mine;
      },
    };
    const before = Object.getOwnPropertyDescriptor(globalThis.navigator ?? {}, 'locks');
    const navigator = Object.getOwnPropertyDescriptor(globalThis, 'navigator');
    Object.defineProperty(globalThis, 'navigator', { value: { locks }, configurable: true });
    try {
      const [a, b] = [await tab(), await tab()];
      await Promise.all([a.index.add(notes(4000)), b.index.add(notes(4000))]);
      assert.equal(a.encoder.texts.length + b.encoder.texts.length, 4000);
      assert.deepEqual([a.index.size, b.index.size], [4000, 4000]);
      assert.ok(held.size >= 4);
    } finally {
      if (navigator) Object.defineProperty(globalThis, 'navigator', navigator);
      else delete globalThis.navigator;
      if (before) Object.defineProperty(globalThis.navigator, 'locks', before);
    }
  });
});

describe('another model, another shape, damage', () => {
  test('is refused with index_invalid, and built again with rebuild', async () => {
    const { index } = await tab();
    await index.add(notes(1500));
    await index.add([{ id: 7, text: '고친 일곱' }]);
    await index.remove([8]);
    await index.close();
    const other = () => fakeEncoder({ modelId: OTHER_MODEL, hiddenSize: 24 });
    const error = await SemanticIndex.open('notes', { persist: true, encoder: other() }).catch((e) => e);
    assert.equal(error.code, 'index_invalid');
    assert.match(error.message, /modelId 0123456789abcdef instead of fedcba9876543210.*rebuild: true/s);
    assert.equal(await codeOf(SemanticIndex.open('notes', { persist: true, encoder: fakeEncoder(), passages: { maxChars: 99 } })), 'index_invalid');
    assert.equal(await codeOf(SemanticIndex.open('notes', { persist: true, encoder: fakeEncoder(), precision: 'float32' })), 'index_invalid');
    assert.equal((await tab()).index.size, 1499, 'nothing was harmed');

    const events = [];
    const rebuilt = await tab({ encoder: other(), rebuild: true, onProgress: (event) => events.push(event) });
    assert.equal(rebuilt.index.size, 1499);
    assert.equal(rebuilt.encoder.texts.length, 1499);
    assert.deepEqual(events.at(-1), { done: 1499, total: 1499 });
    assert.equal(rebuilt.index.info.modelId, OTHER_MODEL);
    assert.deepEqual(rebuilt.index.get(9).data, { n: 9 });
    assert.equal((await rebuilt.index.search('고친 일곱'))[0].id, 7);
    await rebuilt.index.close();
    const again = await tab({ encoder: other(), rebuild: true });
    assert.deepEqual(again.encoder.texts, [], 'nothing to build again');
    assert.equal(again.index.size, 1499);
    assert.equal(await codeOf(SemanticIndex.open('notes', { persist: true, encoder: fakeEncoder() })), 'index_invalid');
  });

  test('a tab that has the old one open may search on, and cannot write', async () => {
    const old = await tab();
    await old.index.add(notes(10));
    await tab({ encoder: fakeEncoder({ modelId: OTHER_MODEL }), rebuild: true });
    assert.equal(await codeOf(old.index.add([{ id: 'x', text: '글' }])), 'index_invalid');
    assert.equal(old.index.size, 10);
    assert.equal((await hitsOf(old.index, '창고')).length, 10);
  });

  test('an aborted rebuild changes nothing', async () => {
    const { index } = await tab();
    await index.add(notes(2000));
    await index.close();
    const controller = new AbortController();
    assert.equal(await codeOf(SemanticIndex.open('notes', {
      persist: true, rebuild: true, encoder: fakeEncoder({ modelId: OTHER_MODEL }), signal: controller.signal, onProgress: () => controller.abort(),
    })), 'aborted');
    assert.equal((await tab()).index.size, 2000);
  });

  test('a damaged segment is found, and rebuild keeps the others', async () => {
    const { index } = await tab();
    await index.add(notes(3000));
    await index.close();
    const [[number, bytes]] = await rows('segments');
    new Uint8Array(bytes)[5000] ^= 1;
    await new Promise((resolve) => {
      indexedDB.open('munjang-search/notes').onsuccess = ({ target: { result } }) => {
        const transaction = result.transaction('segments', 'readwrite');
        transaction.objectStore('segments').put(bytes, number);
        transaction.oncomplete = () => { result.close(); resolve(); };
      };
    });
    const error = await SemanticIndex.open('notes', { persist: true, encoder: fakeEncoder() }).catch((e) => e);
    assert.equal(error.code, 'index_invalid');
    assert.match(error.message, /damaged in 1 of its segments/);
    const { index: again } = await tab({ rebuild: true });
    assert.equal(again.size, 3000 - 1024);
  });

  test('a format of the future', async () => {
    const { index } = await tab();
    await index.close();
    await new Promise((resolve) => {
      indexedDB.open('munjang-search/notes').onsuccess = ({ target: { result } }) => {
        const store = result.transaction('meta', 'readwrite').objectStore('meta');
        store.get('index').onsuccess = ({ target: { result: meta } }) => {
          store.put({ ...meta, format: 99 }, 'index').onsuccess = () => { result.close(); resolve(); };
        };
      };
    });
    assert.equal(await codeOf(SemanticIndex.open('notes', { persist: true, encoder: fakeEncoder() })), 'index_invalid');
    assert.equal(await codeOf(SemanticIndex.open('notes', { persist: true, rebuild: true, encoder: fakeEncoder() })), 'index_invalid');
    await SemanticIndex.delete('notes');
    await new Promise((resolve) => { indexedDB.open('munjang-search/notes', 9).onsuccess = ({ target }) => { target.result.close(); resolve(); }; });
    assert.equal(await codeOf(SemanticIndex.open('notes', { persist: true, encoder: fakeEncoder() })), 'index_invalid');
  });
});

describe('the storage fails', () => {
  /** Lets the n-th writing of a segment from now on fail with an error of this name. */
  function failPut(t, name, nth = 1) {
    const { put } = IDBObjectStore.prototype;
    let count = 0;
    t.mock.method(IDBObjectStore.prototype, 'put', function (...args) {
      if (this.name === 'segments' && ++count >= nth) throw new DOMException('the disk is full', name);
      return put.apply(this, args);
    });
  }

  test('no room: quota_exceeded, memory and disk as before, and the next call works', async (t) => {
    const { index } = await tab();
    await index.add(notes(10));
    const before = await hitsOf(index, '창고');
    failPut(t, 'QuotaExceededError');
    assert.equal(await codeOf(index.add([{ id: 'x', text: '넘치는 글' }, { id: 3, text: '고친 셋' }])), 'quota_exceeded');
    assert.equal(await codeOf(index.add([{ ...notes(1)[0], data: 'other' }])), 'quota_exceeded');
    assert.deepEqual(await hitsOf(index, '창고'), before);
    assert.deepEqual([index.size, index.info.pending, index.get(0).data.n], [10, 0, 0]);
    assert.deepEqual(await index.search('넘치는', { semantic: 0 }), []);
    t.mock.restoreAll();
    await index.add([{ id: 'x', text: '이제 맞는 글' }]);
    await index.close();
    const { index: again } = await tab();
    assert.deepEqual([again.size, again.get(3).text], [11, notes(4)[3].text]);
  });

  test('in the middle of a long add: what was acknowledged stays', async (t) => {
    const { index } = await tab();
    failPut(t, 'UnknownError', 3);
    let done;
    assert.equal(await codeOf(index.add(notes(4000), { onProgress: (event) => { done = event.done; } })), 'storage_failed');
    assert.deepEqual([done, index.size], [2048, 2048]);
    t.mock.restoreAll();
    await index.close();
    const { index: again, encoder } = await tab();
    assert.equal(again.size, 2048);
    await again.add(notes(4000));
    assert.equal(encoder.texts.length, 4000 - 2048);
  });

  test('too much is refused before it is encoded', async () => {
    const { index, encoder } = await tab();
    const navigator = Object.getOwnPropertyDescriptor(globalThis, 'navigator');
    Object.defineProperty(globalThis, 'navigator', { value: { storage: { estimate: async () => ({ quota: 100_000, usage: 50_000 }) } }, configurable: true });
    try {
      assert.equal(await codeOf(index.add(notes(2000))), 'quota_exceeded');
      assert.deepEqual(encoder.texts, []);
      await index.add(notes(10));
      assert.equal(index.size, 10);
    } finally {
      if (navigator) Object.defineProperty(globalThis, 'navigator', navigator);
      else delete globalThis.navigator;
    }
  });

  test('compaction that fails costs nothing', async (t) => {
    const { index } = await tab();
    await index.add(notes(100));
    failPut(t, 'QuotaExceededError');
    assert.equal(await index.remove(notes(50).map(({ id }) => id)), 50);
    await new Promise((resolve) => setTimeout(resolve, 50));
    t.mock.restoreAll();
    assert.equal(index.size, 50);
    await index.close();
    assert.equal((await tab()).index.size, 50);
  });

  test('deleted while open: storage_lost, what is in memory can be searched, a new open starts anew', async () => {
    const { index } = await tab();
    await index.add(notes(10));
    await SemanticIndex.delete('notes');
    for (const call of [() => index.add([{ id: 'x', text: '글' }]), () => index.remove([1]), () => index.clear()]) {
      assert.equal(await codeOf(call()), 'storage_lost');
    }
    assert.deepEqual([index.size, index.info.persistent, index.info.pending], [10, false, 0]);
    assert.match(index.info.reason, /deleted/);
    assert.equal((await hitsOf(index, '창고')).length, 10);
    const { index: fresh } = await tab();
    assert.equal(fresh.size, 0);
    await fresh.add(notes(1));
    assert.equal(await codeOf(index.add([{ id: 'y', text: '글' }])), 'storage_lost', 'a new one of that name is not this one');
  });

  test('a browser that keeps nothing: persistent is false, with the reason', async () => {
    for (const name of ['SecurityError', 'InvalidStateError']) {
      globalThis.indexedDB = { open: () => { throw new DOMException('not here', name); } };
      const { index } = await tab();
      assert.equal(index.info.persistent, false);
      assert.match(index.info.reason, /not here/);
      await index.add(notes(3));
      assert.equal((await hitsOf(index, '창고')).length, 3);
    }
    globalThis.indexedDB = { open: () => { const asked = { error: new DOMException('broken', 'UnknownError') }; setTimeout(() => asked.onerror()); return asked; } };
    assert.equal(await codeOf(SemanticIndex.open('notes', { persist: true, encoder: fakeEncoder() })), 'storage_failed');
  });
});

describe('segments', () => {
  test('xxh32 is the published one', () => {
    const of = (text) => xxh32(new TextEncoder().encode(text));
    assert.equal(of(''), 0x02cc5d05);
    assert.equal(of('abc'), 0x32d153ff);
    assert.equal(of('Nobody inspects the spammish repetition'), 0xe2293b2f);
  });

  test('what is written is read; any flipped bit and any cut is found', () => {
    const documents = [{ id: 'ㄱ', text: '글 \ud800', ranges: Uint32Array.of(0, 1), data: { a: [1] } }, { id: 2, text: '', ranges: new Uint32Array(), data: undefined }];
    const buffer = writeSegment(documents, Uint8Array.of(1, 2, 3));
    assert.deepEqual(readSegment(buffer), { documents, vectors: Uint8Array.of(1, 2, 3) });
    for (let bit = 0; bit < buffer.byteLength * 8; bit++) {
      const copy = new Uint8Array(buffer.slice(0));
      copy[bit >> 3] ^= 1 << (bit & 7);
      assert.equal(readSegment(copy.buffer), undefined, `bit ${bit}`);
    }
    for (let length = 0; length < buffer.byteLength; length++) assert.equal(readSegment(buffer.slice(0, length)), undefined);
    for (const other of [undefined, null, 'text', {}, new Uint8Array(buffer)]) assert.equal(readSegment(other), undefined);
  });
});
