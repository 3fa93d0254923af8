// What a user writes, in strict TypeScript. Each line under "@ts-expect-error" must not compile.
import { MunjangError, SentenceEncoder, clearModelCache, cosineSimilarity, isCached, loadEncoder } from 'munjang';
import type { CallOptions, Embedding, EncodeReport, EncoderInfo, LoadOptions, MunjangErrorCode } from 'munjang';

const options: LoadOptions = {
  modelUrl: new URL('https://example.com/model.json'),
  signal: new AbortController().signal,
  onProgress: ({ loaded, total }) => console.log(total === null ? loaded : loaded / total),
  worker: true,
  workers: 2,
  cache: false,
  wasmUrl: '/munjang/wasm/',
  workerUrl: new URL('https://cdn.example.com/munjang/worker.js'),
  createWorker: () => new Worker('/munjang/worker.js', { type: 'module' }),
  build: 'simd128',
};

async function use(): Promise<void> {
  using encoder: SentenceEncoder = await loadEncoder(options);
  const one: Embedding = await encoder.encode('안녕');
  const many = await encoder.encode(['안녕', '잘 가'] as const);
  const call: CallOptions = { onProgress: ({ done, total }) => console.log(done / total) };
  const report: EncodeReport = await encoder.encodeWithReport('안녕', call);
  const flags: boolean[] = report.truncated;
  const matrix: Float32Array[] = await encoder.similarity(['가'], many);
  await encoder.similarity(one);
  await encoder.similarity(['가', one, [...one]], [new Float64Array(one), '나']);
  const flat: Float32Array<ArrayBuffer> = await encoder.encode(['가', '나'], { flat: true });
  for await (const each of encoder.encodeStream((function* () { yield '가'; })(), { signal: AbortSignal.timeout(1000) })) console.log(each.length);
  const kept: boolean = await isCached({ modelUrl: '/model/manifest.json' });
  const cosine: number = cosineSimilarity(one, [...one]);
  const either = '가' as string | string[];
  const oneOrMany: Float32Array | Float32Array[] = await encoder.encode(either);
  const countOrCounts: number | number[] = await encoder.countTokens(either);
  const buffer: ArrayBuffer = one.buffer;
  await encoder.similarity('가', '나', { signal: AbortSignal.timeout(1000) });
  const count: number = await encoder.countTokens('가');
  const counts: number[] = await encoder.countTokens(['가']);
  const { wasmBytes }: { wasmBytes: number } = await encoder.memoryUsage();
  const info: EncoderInfo = encoder.info;
  const ms: number = info.timings.total;
  const gone: boolean = await clearModelCache();
  encoder.dispose();
  console.log(flat, kept, cosine, oneOrMany, countOrCounts, buffer, flags, matrix, count, counts, wasmBytes, ms, gone, info.source === 'cache');

  // @ts-expect-error numbers are not texts
  await encoder.encode(7);
  // @ts-expect-error nor are arrays of them
  await encoder.encode([1, 2]);
  // @ts-expect-error one text gives one embedding
  const wrong: Float32Array[] = await encoder.encode('안녕');
  // @ts-expect-error read-only
  encoder.info.modelId = 'x';
  // @ts-expect-error made by loadEncoder only
  new SentenceEncoder();
  // @ts-expect-error no such build
  await loadEncoder({ build: 'avx2' });
  // @ts-expect-error no such option
  await loadEncoder({ threads: 2 });
  console.log(wrong);
}

use().catch((error: unknown) => {
  if (error instanceof MunjangError) {
    const code: MunjangErrorCode = error.code;
    const index: number | undefined = error.index;
    // @ts-expect-error no such code
    console.log(code, index, error.code === 'no_such_code');
  }
});
