// The built package; these tests need the real one.
import { existsSync } from 'node:fs';

export const PKG = new URL('../../pkg/', import.meta.url);
export const WWW = new URL('../../www/', import.meta.url);
export const BLANK = new URL('./blank/', import.meta.url);

for (const path of ['wasm/munjang.js', 'wasm/munjang_simd.wasm', 'wasm/munjang_relaxed.wasm', 'wasm/munjang_general_simd.wasm',
  'wasm/munjang_general_relaxed.wasm', 'model/model.js']) {
  if (!existsSync(new URL(path, PKG))) throw new Error(`pkg/${path} is missing; run ./build.sh pkg first`);
}

/** Sentences of all kinds, for comparing bits. */
export const VARIED = [
  '비가 옵니다.', '밖에 비가 내려요.', '', '   ', '안녕 hello 123 😀 한자 漢字', 'Plain English.', '각'.normalize('NFD'), '가\u0000나',
  'ㅋㅋㅋㅋ ㅠㅠ', '\ud800 홀로', '긴 글이다. '.repeat(300), '가'.repeat(2000), '🧑‍🚀'.repeat(50), '\t\n줄\r\n바꿈', 'https://example.com/경로?q=값',
  '다만, 도로와 인접해서 거리의 소음이 들려요.', '하지만, 길과 가깝기 때문에 거리의 소음을 들을 수 있습니다.',
];
