// What the tabs of search.test.js do, in whatever browser.
import { SemanticIndex } from '/pkg/search.js';
import { codeOf, fakeEncoder, gate, notes } from '/js/fake_encoder.js';

const OTHER_MODEL = 'fedcba9876543210';

async function openIndex(name = 'notes', options = {}) {
  const encoder = options.encoder ?? fakeEncoder();
  return { encoder, index: await SemanticIndex.open(name, { persist: true, ...options, encoder }) };
}

const hitsOf = (index, query = '창고 이야기') => index.search(query, { topK: 20 });

const until = async (what) => {
  const end = performance.now() + 30_000;
  while (!await what()) {
    if (performance.now() > end) throw new Error(`not in time: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
};

export async function store() {
  const { index } = await openIndex();
  await index.add(notes(2500));
  await index.add([{ id: 'new', text: '홀로 \ud800 남은 새 글', data: { deep: [1, { two: null }] } }, { id: 3, text: '고친 셋' }]);
  await index.remove([4, 5]);
  const hits = [await hitsOf(index), await hitsOf(index, '고친 셋'), await hitsOf(index, '남은 새 글')];
  return { persistent: index.info.persistent, size: index.size, hits };
}

export async function reload() {
  const started = performance.now();
  const { index, encoder } = await openIndex();
  const took = performance.now() - started;
  const hits = [await hitsOf(index), await hitsOf(index, '고친 셋'), await hitsOf(index, '남은 새 글')];
  encoder.texts.length = 0;
  await index.add(notes(1000, 10));
  return {
    size: index.size, took, encoded: encoder.texts.length, hits,
    surrogate: index.get('new').text.charCodeAt(3) === 0xd800, data: index.get('new').data,
  };
}

/** Two of these run at once. */
export async function both(query) {
  const mine = Number(query.get('tab'));
  if (mine === 1) open('tab.html?run=both&tab=2', '_blank', 'noopener');
  const { index, encoder } = await openIndex('both');
  await fetch(`/together?tab=${mine}`);
  await Promise.all([
    index.add(notes(3000, 10_000)),
    ...notes(40, 100 * mine).map((note) => index.add([note])),
    ...notes(20, 500).map((note) => index.add([{ ...note, text: `${note.text} ${mine}` }])),
  ]);
  await fetch(`/together?tab=${mine}&at=removing`);
  await index.remove(notes(10, 100 * mine).map(({ id }) => id));
  await index.remove([10_000 + mine, 10_003]);
  const size = 3000 - 3 + 2 * 30 + 20;
  await until(() => index.size === size);
  await fetch(`/together?tab=${mine}&at=end`);
  const all = async (index) => (await index.search('창고 이야기 메모', { topK: Infinity })).map(({ id, text, score }) => `${id} ${text} ${score}`).sort().join('\n');
  const { index: fresh, encoder: none } = await openIndex('both');
  return { size: index.size, encoded: encoder.texts.length, again: none.texts.length, same: await all(index) === await all(fresh), fresh: fresh.size };
}

export async function deleted() {
  const { index } = await openIndex('gone');
  await index.add(notes(10));
  await new Promise((resolve, reject) => {
    const asked = indexedDB.deleteDatabase('munjang-search/gone');
    asked.onsuccess = resolve;
    asked.onblocked = () => reject(new Error('the open index holds it up'));
  });
  const codes = [await codeOf(index.add(notes(1, 50))), await codeOf(index.remove(1)), await codeOf(index.clear())];
  return { codes, size: index.size, hits: (await hitsOf(index)).length, persistent: index.info.persistent, fresh: (await openIndex('gone')).index.size };
}

/** Adds until there is no room. */
export async function fill() {
  const { index } = await openIndex('full');
  await index.add(notes(10));
  // Of chance, or it would be compressed to nothing.
  const data = () => String.fromCharCode(...Array.from({ length: 20_000 }, () => 0xac00 + Math.random() * 11_172));
  let from = 1000;
  let code = 'no error';
  let size;
  while (code === 'no error' && from < 6000) {
    size = index.size;
    code = await codeOf(index.add(notes(50, from).map((note) => ({ ...note, data: data() }))));
    from += 50;
  }
  const result = { code, before: size, size: index.size, pending: index.info.pending, hits: (await hitsOf(index)).length };
  await index.close();
  const { index: again, encoder } = await openIndex('full');
  return { ...result, again: again.size, encoded: encoder.texts.length };
}

export async function rebuild() {
  const { index } = await openIndex('model');
  await index.add(notes(1200));
  await index.close();
  const other = () => fakeEncoder({ modelId: OTHER_MODEL });
  const refused = await codeOf(openIndex('model', { encoder: other() }));
  const { index: rebuilt, encoder } = await openIndex('model', { encoder: other(), rebuild: true });
  return { refused, size: rebuilt.size, encoded: encoder.texts.length, modelId: rebuilt.info.modelId };
}

/** In a frame without an origin, as widgets and previews have it. */
export async function sandboxed() {
  const { index } = await openIndex();
  await index.add(notes(20));
  return { persistent: index.info.persistent, reason: index.info.reason, hits: (await hitsOf(index)).length };
}

export async function closing() {
  const { index, encoder } = await openIndex('closing');
  await index.add(notes(10));
  encoder.gate = gate()[0];
  const adding = codeOf(index.add(notes(10, 50)));
  await until(() => index.info.pending === 10);
  await index.close();
  return { adding: await adding, later: await codeOf(index.search('글')), again: (await openIndex('closing')).index.size };
}
