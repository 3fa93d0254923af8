/// <reference lib="esnext.disposable" />

/** What names a vector: a string or a finite number; `1` and `'1'` are two. */
export type VectorId = string | number;

export type VectorPrecision = 'int8' | 'float32' | 'binary';

export interface VectorIndexOptions {
  /** Values of a vector, 1 to 4096: `encoder.info.hiddenSize`. */
  dimension: number;
  /**
   * How vectors are kept. `'int8'` (default): `dimension` + 4 bytes each. `'float32'`: 4 × `dimension` bytes, scores
   * with the bits of `encoder.similarity`. `'binary'`: a sign for each value, `dimension` / 8 + 4 bytes; scores are
   * estimates.
   */
  precision?: VectorPrecision;
  /** For `'binary'`: keep int8 too, and compare the best 200 with it. Default `false`. */
  rescore?: boolean;
  /** `encoder.info.modelId`: stamped on files, so that vectors of two models are never compared. */
  modelId?: string;
}

export interface VectorSearchOptions {
  /** How many hits at most; default 10. `Infinity` is allowed. */
  topK?: number;
  /** The least score of a hit. */
  minScore?: number;
  /** Whether a vector may be found. Asked once for each; must answer at once and leave the index as it is. */
  filter?: (id: VectorId) => boolean;
}

export interface VectorHit {
  readonly id: VectorId;
  /** Cosine similarity to the query. */
  readonly score: number;
}

export interface VectorIndexInfo {
  readonly dimension: number;
  readonly precision: VectorPrecision;
  readonly rescore: boolean;
  readonly modelId: string | undefined;
  readonly size: number;
  /** WebAssembly memory that the vectors take. */
  readonly byteLength: number;
}

/**
 * Vectors by id, searched exhaustively: the hits are exactly the best, with the same scores on every machine. All calls
 * run beside the caller and are done when they return; one that throws has changed nothing. Vectors need not have
 * length 1.
 */
export class VectorIndex {
  private constructor();
  static create(options: VectorIndexOptions): Promise<VectorIndex>;
  /**
   * Reads what `toBytes` gave. With `modelId` only vectors of that model are taken. Throws `index_invalid` for a file
   * that is damaged, no index, of another version or of another model.
   */
  static fromBytes(bytes: Uint8Array | ArrayBuffer, options?: { modelId?: string }): Promise<VectorIndex>;
  readonly size: number;
  readonly info: VectorIndexInfo;
  has(id: VectorId): boolean;
  /** Throws `input_invalid` if the id is there already. */
  add(id: VectorId, vector: Float32Array): void;
  /** All or none. `vectors` lie one after the other, or each in an array of its own. */
  addMany(ids: readonly VectorId[], vectors: Float32Array | readonly Float32Array[]): void;
  /** Replaces a vector; it keeps its place among equal scores. */
  update(id: VectorId, vector: Float32Array): void;
  /** Removes what is there of one id or several; returns how many that were. */
  remove(ids: VectorId | readonly VectorId[]): number;
  clear(): void;
  /** The most similar vectors, best first; equal scores in order of insertion. */
  search(query: Float32Array, options?: VectorSearchOptions): VectorHit[];
  /** The index as a file: the same bytes for the same content. */
  toBytes(): Uint8Array<ArrayBuffer>;
  /** Frees the memory. */
  dispose(): void;
  [Symbol.dispose](): void;
}

/**
 * Joins rankings by ranks alone: `Σ 1 / (k + rank)` over the rankings that have an id, best first; equal scores in order of
 * first appearance. For engines whose scores do not compare; `k` is 60 by default, as in the paper.
 */
export function reciprocalRankFusion<Id>(rankings: readonly (readonly Id[])[], k?: number): { id: Id; score: number }[];
