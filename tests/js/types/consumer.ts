// What a user writes, in strict TypeScript. Each line under "@ts-expect-error" must not compile.
import { MunjangError, SentenceEncoder, clearModelCache, loadEncoder } from 'munjang';
import type { CallOptions, EncodeReport, EncoderInfo, LoadOptions, MunjangErrorCode } from 'munjang';

const options: LoadOptions = {
  modelUrl: new URL('https://example.com/model.json'),
  signal: new AbortController().signal,
  onProgress: ({ loaded, total }) => console.log(total === null ? loaded : loaded / total),
  worker: true,
  workers: 2,
  cache: false,
  build: 'simd128',
};

async function use(): Promise<void> {
  using encoder: SentenceEncoder = await loadEncoder(options);
  const one: Float32Array = await encoder.encode('안녕');
  const many: Float32Array[] = await encoder.encode(['안녕', '잘 가'] as const);
  const call: CallOptions = { onProgress: ({ done, total }) => console.log(done / total) };
  const report: EncodeReport = await encoder.encodeWithReport('안녕', call);
  const flags: boolean[] = report.truncated;
  const matrix: Float32Array[] = await encoder.similarity(['가'], many);
  await encoder.similarity(one);
  await encoder.similarity('가', '나', { signal: AbortSignal.timeout(1000) });
  const count: number = await encoder.countTokens('가');
  const counts: number[] = await encoder.countTokens(['가']);
  const { wasmBytes }: { wasmBytes: number } = await encoder.memoryUsage();
  const info: EncoderInfo = encoder.info;
  const ms: number = info.timings.total;
  const gone: boolean = await clearModelCache();
  encoder.dispose();
  console.log(flags, matrix, count, counts, wasmBytes, ms, gone, info.source === 'cache');

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
