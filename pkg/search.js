/**
 * Search by meaning and by words, offline: documents in, hits out.
 *
 * @example
 * import { loadEncoder } from 'munjang';
 * import { SemanticIndex } from 'munjang/search';
 * const index = await SemanticIndex.open('notes', { encoder: await loadEncoder(), persist: true });
 * await index.add([{ id: 'a1', text: '내일 비가 온다고 합니다.' }]);
 * const [{ id, score }] = await index.search('비 오는 날씨인가요?');
 *
 * @module
 */
export { MunjangError } from './errors.js';
export { reciprocalRankFusion } from './fusion.js';
export { SemanticIndex } from './semantic_index.js';
export { VectorIndex } from './vector_index.js';
