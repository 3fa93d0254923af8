/// <reference lib="esnext.disposable" />

/** Bytes of the model file that have arrived. `total` is constant; `null` where nobody knows it. */
export interface LoadProgress {
  /** Never falls; equals `total` in the last event, which is sent once the bytes are verified. */
  readonly loaded: number;
  readonly total: number | null;
}

/** Texts that are done. */
export interface CallProgress {
  readonly done: number;
  readonly total: number;
}

export interface LoadOptions {
  /**
   * A model file (`….munjang`) or a manifest (`….json`: `{ file, bytes, sha256 }`). Relative to the
   * page, or to the working directory in Node, where plain paths are allowed. Without it the model
   * beside the package's code is loaded. Only files whose SHA-256 is known are cached and verified.
   */
  modelUrl?: string | URL;
  /**
   * The folder of the package's `.wasm` files, where a bundler has moved the code away from them (`munjang/wasm/` in
   * the package).
   */
  wasmUrl?: string | URL;
  /** The package's `worker.js`, unbundled, for the same case. It may be on another origin. */
  workerUrl?: string | URL;
  /**
   * Makes the worker: a module worker that runs the package's `worker.js`, once for each of `workers` and again after
   * a crash. For places that make workers in their own way.
   */
  createWorker?: () => Worker | Promise<Worker>;
  /** Aborts the loading; the promise is then rejected with code `aborted`. */
  signal?: AbortSignal;
  onProgress?: (progress: LoadProgress) => void;
  /** Default `true`: run in a Web Worker (a worker thread in Node). `false`: beside the caller. */
  worker?: boolean;
  /** How many workers share long arrays, each with an instance of its own. Default 1. */
  workers?: number;
  /** Default `true`: keep the verified file in the browser's Cache API. */
  cache?: boolean;
  /** Insist on one of the two SIMD builds. By default the faster one that the engine runs. */
  build?: 'simd128' | 'relaxed';
}

export interface EncoderInfo {
  /** 16 hex digits: a hash of the model's content. Embeddings of different models do not compare. */
  readonly modelId: string;
  readonly formatVersion: number;
  /** Size of the model file. */
  readonly bytes: number;
  /** Where the file came from this time. */
  readonly source: 'network' | 'cache' | 'file';
  /** The WebAssembly file in use. */
  readonly build: 'simd128' | 'relaxed';
  /** Name of the SIMD kernels in it: `simd128`, `relaxed` or `relaxed-dot`. */
  readonly kernel: string;
  /** Whether it runs in workers, and in how many. */
  readonly worker: boolean;
  readonly workers: number;
  /** Length of an embedding. */
  readonly hiddenSize: number;
  /** Texts of more tokens than this are truncated. */
  readonly maxTokens: number;
  readonly numHiddenLayers: number;
  readonly vocabSize: number;
  /** Put before every text by the encoder; part of `countTokens`. */
  readonly prefix: string;
  /** Where the start went, in milliseconds. */
  readonly timings: LoadTimings;
}

export interface LoadTimings {
  /** Making the worker, without the loading of its script. */
  readonly worker: number;
  /** Waiting for the code to be fetched and compiled, which begins before the worker starts. */
  readonly code: number;
  readonly instantiate: number;
  /** From the code's readiness to the model's last byte. */
  readonly fetch: number;
  /** Checking the SHA-256, as far as it did not overlap with the rest. */
  readonly verify: number;
  /** Reading the tokenizer and the weights. */
  readonly model: number;
  /** All of it, with the worker's script and the messages. */
  readonly total: number;
}

export interface CallOptions {
  /** Aborts the call; the promise is then rejected with code `aborted`. */
  signal?: AbortSignal;
  /** Called after each batch, that is about every 30 ms. */
  onProgress?: (progress: CallProgress) => void;
}

/** `info.hiddenSize` values of length 1, in a buffer of their own. */
export type Embedding = Float32Array<ArrayBuffer>;

/** What `similarity` takes for an embedding: floats of any realm, or an array of numbers as JSON brings it back. */
export type EmbeddingLike = Float32Array | Float64Array | readonly number[];

export interface EncodeReport {
  /** As from `encode`. */
  embeddings: Embedding[];
  /** Tokens of each text before truncation, prefix and special tokens included. */
  tokenCounts: number[];
  /** Whether tokens were cut off (`tokenCounts[i] > info.maxTokens`). */
  truncated: boolean[];
}

export class SentenceEncoder {
  private constructor();
  readonly info: EncoderInfo;
  /** All embeddings in one array, row by row: `texts.length × info.hiddenSize` values. */
  encode(textOrTexts: string | readonly string[], options: CallOptions & { flat: true }): Promise<Embedding>;
  /** The sentence embedding: `info.hiddenSize` values of length 1, in a buffer of its own. */
  encode(text: string, options?: CallOptions): Promise<Embedding>;
  /** One embedding per text, in input order; `[]` for `[]`. Any number of texts. */
  encode(texts: readonly string[], options?: CallOptions): Promise<Embedding[]>;
  encode(textOrTexts: string | readonly string[], options?: CallOptions): Promise<Embedding | Embedding[]>;
  /**
   * The embeddings of texts that come one by one, in their order: `for await (const embedding of …)`. A few hundred
   * texts are read ahead, so memory stays flat over a stream of any length; leaving the loop ends the reading.
   */
  encodeStream(texts: Iterable<string> | AsyncIterable<string>, options?: { signal?: AbortSignal }): AsyncGenerator<Embedding, void, undefined>;
  /** Like `encode`, always with arrays, and with what truncation did. */
  encodeWithReport(texts: string | readonly string[], options?: CallOptions): Promise<EncodeReport>;
  /**
   * Cosine similarities, `matrix[i][j]` of `a[i]` and `b[j]`; of `a` with itself without `b`.
   * Takes texts, embeddings, or both in one array. Scores have the bits of the Rust crate's `search::dot`.
   */
  similarity(
    a: string | EmbeddingLike | readonly (string | EmbeddingLike)[],
    b?: string | EmbeddingLike | readonly (string | EmbeddingLike)[],
    options?: CallOptions,
  ): Promise<Float32Array<ArrayBuffer>[]>;
  /** Tokens before truncation, prefix and special tokens included. */
  countTokens(text: string, options?: CallOptions): Promise<number>;
  countTokens(texts: readonly string[], options?: CallOptions): Promise<number[]>;
  countTokens(textOrTexts: string | readonly string[], options?: CallOptions): Promise<number | number[]>;
  /** WebAssembly memory of all instances; it never shrinks. */
  memoryUsage(): Promise<{ wasmBytes: number }>;
  /** Ends the workers (within 100 ms, whatever they do) and frees the memory; what is pending is rejected with code `disposed`. */
  dispose(): void;
  [Symbol.dispose](): void;
}

/** The stable codes of `MunjangError`; README.md says what to do about each. */
export type MunjangErrorCode =
  | 'aborted'
  | 'checksum_mismatch'
  | 'config_invalid'
  | 'crashed'
  | 'disposed'
  | 'download_truncated'
  | 'http_error'
  | 'index_invalid'
  | 'input_invalid'
  | 'io'
  | 'model_not_found'
  | 'network'
  | 'non_finite'
  | 'not_a_model'
  | 'out_of_memory'
  | 'quota_exceeded'
  | 'storage_failed'
  | 'storage_lost'
  | 'tokenizer_invalid'
  | 'tokenizer_unsupported'
  | 'unsupported_browser'
  | 'wasm_unavailable'
  | 'weights_malformed'
  | 'weights_mismatch'
  | 'weights_truncated'
  | 'weights_version'
  | 'worker_failed';

export class MunjangError extends Error {
  constructor(code: MunjangErrorCode, message: string, details?: { cause?: unknown; index?: number });
  /** `'AbortError'` for code `aborted`, else `'MunjangError'`. */
  readonly name: string;
  readonly code: MunjangErrorCode;
  /** For `input_invalid`: the index of the input that was at fault. */
  readonly index?: number;
}

export function loadEncoder(options?: LoadOptions): Promise<SentenceEncoder>;

/**
 * Cosine similarity of two vectors of one length: of embeddings their dot product, with the bits that
 * `SentenceEncoder.similarity` gives. `NaN` if a vector is all zeros.
 */
export function cosineSimilarity(a: EmbeddingLike, b: EmbeddingLike): number;

/** Whether the model (by default the package's own) is in the browser's cache, so that loading needs no download of it. */
export function isCached(options?: { modelUrl?: string | URL }): Promise<boolean>;

/** Deletes every model file kept for this origin; resolves to whether there were any. */
export function clearModelCache(): Promise<boolean>;
