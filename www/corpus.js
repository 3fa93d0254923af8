// The collection of texts that the search tab brings along: one file, made by `munjang index` when
// the page is built, compressed. Its card is corpus/CARD.md.

/** Where the collection lies, and what is in it (tests/browser/search_page.test.js holds it to the file). */
export const CORPUS = {
  url: new URL('./corpus/texts.index.gz', import.meta.url).href,
  documents: 4529,
  sentences: 20817,
};

/** Sources by the name that each document's `data.source` has. */
export const SOURCES = {
  wiki: { licence: 'CC BY-SA 4.0' },
  news: { licence: 'CC BY 2.5', address: (title) => `https://ko.wikinews.org/wiki/${encodeURIComponent(title.replaceAll(' ', '_'))}` },
  books: { licence: 'CC BY' },
  unesco: { licence: 'CC BY-SA 3.0 IGO' },
  andersen: { licence: '' },
  bang: { licence: '' },
  duru: { licence: 'CC BY 4.0' },
};

/** Why the collection is not there; `code` names the words that say it. */
export class CorpusError extends Error {
  constructor(code, cause) {
    super(code, { cause });
    this.name = 'CorpusError';
    this.code = code;
  }
}

/**
 * The index file's bytes, unpacked.
 * @param {(loaded: number, total: number | null) => void} onProgress bytes as they travel
 * @returns {Promise<Uint8Array>}
 */
export async function fetchCorpus(onProgress) {
  let response;
  try {
    response = await fetch(CORPUS.url);
  } catch (error) {
    throw new CorpusError(navigator.onLine ? 'corpusNetwork' : 'corpusOffline', error);
  }
  if (!response.ok) throw new CorpusError(response.status >= 500 ? 'corpusNetwork' : 'corpusMissing');
  let bytes;
  try {
    bytes = await readAll(response, onProgress);
  } catch (error) {
    throw new CorpusError(navigator.onLine ? 'corpusNetwork' : 'corpusOffline', error);
  }
  // A host may already have unpacked it, by its own headers.
  if (bytes[0] !== 0x1f || bytes[1] !== 0x8b) return bytes;
  try {
    const unpacked = new Blob([bytes]).stream().pipeThrough(new DecompressionStream('gzip'));
    return new Uint8Array(await new Response(unpacked).arrayBuffer());
  } catch (error) {
    throw new CorpusError('corpusDamaged', error);
  }
}

async function readAll(response, onProgress) {
  const encoded = response.headers.get('content-encoding');
  const length = Number(response.headers.get('content-length'));
  const total = length > 0 && !encoded ? length : null;
  const chunks = [];
  let loaded = 0;
  const reader = response.body.getReader();
  onProgress(0, total);
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    chunks.push(part.value);
    loaded += part.value.length;
    onProgress(loaded, total);
  }
  if (total !== null && loaded !== total) throw new TypeError('the connection broke off');
  const bytes = new Uint8Array(loaded);
  let at = 0;
  for (const chunk of chunks) {
    bytes.set(chunk, at);
    at += chunk.length;
  }
  return bytes;
}
