// Adds batches and says which were acknowledged. First it says what it found.
import { SemanticIndex } from '/pkg/search.js';
import { fakeEncoder } from '/js/fake_encoder.js';

const report = (body) => fetch('/report', { method: 'POST', body: JSON.stringify(body) });
const round = Number(new URLSearchParams(location.search).get('round'));
try {
  const encoder = fakeEncoder();
  const index = await SemanticIndex.open('killed', { encoder, persist: true });
  const found = {};
  for (const { data } of await index.search('묶음의 글', { topK: Infinity, semantic: 0 })) {
    found[data.batch] ??= [0, 0];
    found[data.batch][0]++;
    found[data.batch][1] = data.of;
  }
  await report({ round, found, counter: index.get('counter')?.data ?? 0, size: index.size, encoded: encoder.texts.length,
    passages: [index.info.passages, index.info.encoded], persistent: index.info.persistent });
  for (let batch = round * 1000; ; batch++) {
    // Small ones, which are merged with the last segments, large ones, and removals, which lead to compaction.
    const of = [1, 3, 40, 700][batch % 4];
    const documents = Array.from({ length: of }, (_, i) => ({ id: `${batch} ${i}`, text: `${batch}번째 묶음의 글 ${i}`, data: { batch, of } }));
    await index.add([...documents, { id: 'counter', text: '수', data: batch }]);
    await report({ acknowledged: batch });
    if (batch % 3 === 2) {
      await index.remove(documents.map(({ id }) => id));
      await report({ removed: batch });
    }
  }
} catch (error) {
  await report({ failed: `${error.code} ${error.stack}` });
}
