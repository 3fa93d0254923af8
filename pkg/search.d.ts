/// <reference lib="esnext.disposable" />
import type { SentenceEncoder } from './index.js';

export { MunjangError } from './index.js';
export type { MunjangErrorCode } from './index.js';
export * from './vector_index.js';

/** What names a document: a string or a finite number; `1` and `'1'` are two. */
export type DocumentId = string | number;

/** What a search needs of an encoder: the one of `loadEncoder`, or one of your own. */
export interface SearchEncoder {
  /** `modelId`: 16 hex digits, another one for every model. `hiddenSize`: values of an embedding. */
  readonly info: { readonly modelId: string; readonly hiddenSize: number };
  encode(text: string, options?: { signal?: AbortSignal }): Promise<Float32Array>;
  encode(texts: readonly string[], options?: { signal?: AbortSignal }): Promise<Float32Array[]>;
}

/** A document to be added. */
export interface SearchDocument<Data = unknown> {
  id: DocumentId;
  text: string;
  /** What JSON can hold, for filters and hits; it is copied. */
  data?: Data;
}

/** A document as the index has it; it cannot be changed, only added anew. */
export interface StoredDocument<Data = unknown> {
  readonly id: DocumentId;
  readonly text: string;
  readonly data: Data;
}

export interface OpenOptions {
  /** From `loadEncoder`, or a promise of it. It stays yours: `close` does not dispose it. */
  encoder: SentenceEncoder | SearchEncoder | Promise<SentenceEncoder | SearchEncoder>;
  /**
   * Default `false`: in memory only. `true`: in this browser's IndexedDB, under the index's name. Where the browser keeps
   * nothing, and in Node, the index works all the same, and `info` says `persistent: false` and why.
   */
  persist?: boolean;
  /** Long texts are cut at the ends of sentences into passages of at most `maxChars` characters; default 150, from 20 to 10,000. */
  passages?: { maxChars?: number };
  /** How vectors are kept; default `'int8'`. See `VectorIndexOptions`. */
  precision?: 'int8' | 'float32' | 'binary';
  /**
   * What to do with a stored index that was made by another model, with another `maxChars` or `precision`, or that is
   * damaged. Default `false`: refuse it with `index_invalid`. `true`: encode its texts again, all at once or not at all;
   * what lay in damaged segments is gone. Without a need nothing is done.
   */
  rebuild?: boolean;
  /** Aborts a rebuild. */
  signal?: AbortSignal;
  /** Documents that a rebuild has encoded. */
  onProgress?: (progress: { readonly done: number; readonly total: number }) => void;
}

export interface AddProgress {
  /** Documents that are acknowledged: stored, where the index is persistent. They stay, whatever happens to the call. */
  readonly done: number;
  /** Documents that can be found by meaning. */
  readonly encoded: number;
  /** Documents of the call, of those with equal ids the last one. */
  readonly total: number;
}

export interface AddOptions {
  /** Aborts the call; what is acknowledged stays, the rest is as if it had not been called. */
  signal?: AbortSignal;
  onProgress?: (progress: AddProgress) => void;
}

export interface SearchOptions<Data = unknown> {
  /** How many hits at most; default 10. `Infinity` is allowed. */
  topK?: number;
  /** The least score of a hit. */
  minScore?: number;
  /** Whether a document may be found. Asked once for each, so it must be quick. */
  filter?: (document: StoredDocument<Data>) => unknown;
  /** From 0 (words alone; the encoder is not asked) to 1 (meaning alone); default 0.4. */
  semantic?: number;
  signal?: AbortSignal;
}

export interface SearchHit<Data = unknown> extends StoredDocument<Data> {
  /** `semantic · cosine + (1 − semantic) · lexical` of the document's best passage. */
  readonly score: number;
  /** Similarity of meaning; `null` while the passage is being encoded, or with `semantic: 0`. */
  readonly cosine: number | null;
  /** From 0 to 1, how much of the query's words is there (BM25, as a part of what is possible); `null` if it has none. */
  readonly lexical: number | null;
  /** The best passage: `text.slice(start, end)`. */
  readonly passage: { readonly start: number; readonly end: number; readonly text: string };
}

export interface IndexInfo {
  /** `undefined` for one that came from bytes. */
  readonly name: string | undefined;
  readonly modelId: string;
  readonly dimension: number;
  readonly precision: 'int8' | 'float32' | 'binary';
  readonly maxChars: number;
  /** Whether what is added is stored. */
  readonly persistent: boolean;
  /** Why it is not, although that was asked for. */
  readonly reason: string | undefined;
  /** As `size`. */
  readonly documents: number;
  /** Documents that are being added. */
  readonly pending: number;
  /** Passages in memory, those of documents that are being added included; and those of them that have vectors. */
  readonly passages: number;
  readonly encoded: number;
  /** WebAssembly memory that the index takes, about. */
  readonly bytes: number;
}

/**
 * Documents searched by words and by meaning, on the visitor's machine.
 *
 * Calls that change it take effect in the order in which they were made. Searches run at any time, beside them.
 */
export class SemanticIndex<Data = unknown> {
  private constructor();
  /** Opens an index: with `persist` the stored one of that name, otherwise an empty one. */
  static open<Data = unknown>(name: string, options: OpenOptions): Promise<SemanticIndex<Data>>;
  /**
   * An index in memory from what `toBytes` or `munjang` made; nothing is encoded. Throws `index_invalid` for a file that is
   * damaged, of another version or of another model.
   */
  static fromBytes<Data = unknown>(
    bytes: Uint8Array | ArrayBuffer, options: { encoder: OpenOptions['encoder'] },
  ): Promise<SemanticIndex<Data>>;
  /** Deletes a stored index. Tabs that have it open keep what is in their memory, and get `storage_lost` when they write. */
  static delete(name: string): Promise<void>;
  /** Documents that are acknowledged. */
  readonly size: number;
  readonly info: IndexInfo;
  has(id: DocumentId): boolean;
  get(id: DocumentId): StoredDocument<Data> | undefined;
  /**
   * Adds documents; one whose id is there is updated. Their words are found at once, their meaning when they are encoded, in
   * the background. A text that is there already under its id is not encoded again. Resolves when everything is stored.
   */
  add(documents: readonly SearchDocument<Data>[], options?: AddOptions): Promise<void>;
  /** The best documents, best first. `[]` for a blank query. */
  search(query: string, options?: SearchOptions<Data>): Promise<SearchHit<Data>[]>;
  /** Where words of the query are found again in a text, in order: what to mark. */
  marks(text: string, query: string): { start: number; end: number }[];
  /** Removes what is there of one id or several; resolves to how many that were, when that is stored. */
  remove(ids: DocumentId | readonly DocumentId[]): Promise<number>;
  /** Removes everything. */
  clear(): Promise<void>;
  /** The index as a file, for `fromBytes`: the same bytes for the same content. */
  toBytes(): Promise<Uint8Array<ArrayBuffer>>;
  /** Ends it; calls of `add` under way are rejected with `disposed`, what is acknowledged stays. */
  close(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}
