// The visitor's own texts: pasted or out of files, indexed in the page and kept in this browser.
import { SemanticIndex } from '../pkg/search.js';
import { FileError, readPlain, readTexts } from './files.js';

const NAME = 'munjang-own-texts';
export const LIST = 'munjang-own-sources';
/** More than this many texts of one source are left out, and it is said. */
export const MAX_TEXTS = 20_000;

export class OwnTexts {
  /** What was added, newest last. @type {{ key: string, name: string, count: number }[]} */
  sources = [];
  index;
  #opening;

  /** Opens what earlier visits left. */
  open(encoder) {
    this.#opening ??= this.#open(encoder).catch((error) => {
      this.#opening = undefined;
      throw error;
    });
    return this.#opening;
  }

  async #open(encoder) {
    // Texts of an older model are kept, and encoded anew.
    this.index = await SemanticIndex.open(NAME, { encoder, persist: true, rebuild: true });
    this.sources = this.#keptList();
    return this.index;
  }

  /** Another tab of this page has added or removed some. */
  refresh() {
    if (this.index) this.sources = this.#keptList();
  }

  get count() {
    return this.sources.reduce((sum, { count }) => sum + count, 0);
  }

  /** Whether the texts outlive the page. */
  get persistent() {
    return this.index?.info.persistent !== false;
  }

  /**
   * @param {string} name
   * @param {{ text: string, title?: string }[]} texts
   * @param {{ signal: AbortSignal, onProgress: (progress: { done: number, total: number }) => void }} options
   * @returns {Promise<number>} how many were left out
   */
  async add(name, texts, options) {
    const taken = texts.slice(0, MAX_TEXTS);
    const key = `${Date.now().toString(36)}${Math.random().toString(36).slice(2, 6)}`;
    const source = { key, name, count: taken.length };
    // Listed first: whatever an interruption leaves in the index can then be removed.
    this.sources.push(source);
    this.#keepList();
    try {
      await this.index.add(taken.map(({ text, title }, n) => ({
        id: `${key}/${n}`, text, data: { source: 'own', name, ...(title && { title }) },
      })), options);
    } catch (error) {
      await this.remove(key).catch(() => {});
      throw error;
    }
    return texts.length - taken.length;
  }

  async remove(key) {
    const source = this.sources.find((one) => one.key === key);
    if (!source) return;
    await this.index.remove(Array.from({ length: source.count }, (_, n) => `${key}/${n}`));
    this.sources = this.sources.filter((one) => one !== source);
    this.#keepList();
  }

  async clear() {
    await this.index.clear();
    this.sources = [];
    this.#keepList();
  }

  #keptList() {
    try {
      const list = JSON.parse(localStorage.getItem(LIST) ?? '[]');
      return list.filter(({ key, name, count }) => typeof name === 'string' && count > 0 && this.index.has(`${key}/0`));
    } catch {
      return [];
    }
  }

  #keepList() {
    try {
      localStorage.setItem(LIST, JSON.stringify(this.sources));
    } catch {
      // Storage may be forbidden or full; the list then ends with the page.
    }
  }
}

/** Texts of a pasted piece: like a .txt file. */
export function pastedTexts(content) {
  const texts = readPlain(content.replace(/\r\n?/g, '\n')).filter(({ text }) => /[\p{L}\p{N}]/u.test(text));
  if (texts.length === 0) throw new FileError('fileEmpty');
  return texts;
}

/** @param {File} file */
export async function fileTexts(file) {
  let bytes;
  try {
    bytes = new Uint8Array(await file.arrayBuffer());
  } catch {
    // A folder, or a file that went away.
    throw new FileError('fileUnreadable');
  }
  return readTexts(file.name, bytes);
}
