// What a user of the search writes, in strict TypeScript. Each line under "@ts-expect-error" must not compile.
import { loadEncoder } from 'munjang';
import { MunjangError, SemanticIndex, VectorIndex } from 'munjang/search';
import type { AddProgress, IndexInfo, OpenOptions, SearchDocument, SearchEncoder, SearchHit, SearchOptions, StoredDocument } from 'munjang/search';

interface Note {
  url: string;
  year: number;
}

async function use(): Promise<void> {
  const encoder = await loadEncoder();
  const options: OpenOptions = { encoder, persist: true, passages: { maxChars: 200 }, precision: 'int8', rebuild: true };
  await using index: SemanticIndex<Note> = await SemanticIndex.open<Note>('notes', options);
  const notes: SearchDocument<Note>[] = [{ id: 'a1', text: '비가 옵니다.', data: { url: '/a1', year: 2024 } }, { id: 2, text: '글' }];
  await index.add(notes, {
    signal: new AbortController().signal,
    onProgress: ({ done, encoded, total }: AddProgress) => console.log(done / total, encoded),
  });
  const how: SearchOptions<Note> = { topK: 5, minScore: 0.3, semantic: 0.5, filter: ({ data }) => data.year > 2020 };
  const hits: SearchHit<Note>[] = await index.search('우산', how);
  for (const { id, score, cosine, lexical, text, data, passage } of hits) {
    const name: string | number = id;
    const meaning: number | null = cosine;
    console.log(name, score, meaning, lexical, text.slice(passage.start, passage.end) === passage.text, data.url);
  }
  const one: StoredDocument<Note> | undefined = index.get('a1');
  const there: boolean = index.has(2);
  const ranges: { start: number; end: number }[] = index.marks('비가 옵니다.', '비가');
  const removed: number = await index.remove(['a1', 2]);
  const info: IndexInfo = index.info;
  const bytes: Uint8Array = await index.toBytes();
  const copy = await SemanticIndex.fromBytes<Note>(bytes, { encoder: loadEncoder() });
  await index.clear();
  await copy.close();
  await SemanticIndex.delete('notes');
  const own: SearchEncoder = {
    info: { modelId: '0123456789abcdef', hiddenSize: 3 },
    encode: (async (input: string | readonly string[]) => (typeof input === 'string' ? new Float32Array(3) : input.map(() => new Float32Array(3)))) as SearchEncoder['encode'],
  };
  await SemanticIndex.open('own', { encoder: own });
  console.log(one?.text, there, ranges, removed, info.persistent ? info.name : info.reason, index.size, VectorIndex, MunjangError);

  // @ts-expect-error an encoder is needed
  await SemanticIndex.open('notes', { persist: true });
  // @ts-expect-error documents come in arrays
  await index.add(notes[0]);
  // @ts-expect-error with a text
  await index.add([{ id: 1 }]);
  // @ts-expect-error with data of the index's kind
  await index.add([{ id: 1, text: '글', data: { url: 7 } }]);
  // @ts-expect-error read-only
  if (one) one.text = '다른 글';
  // @ts-expect-error no such option
  await index.search('우산', { limit: 5 });
  // @ts-expect-error made by open only
  new SemanticIndex();
}

void use;
