// The part of the search tab where the visitor's own texts come in and go out.
import { FileError } from './files.js';
import { make } from './hits.js';
import { LIST, OwnTexts, fileTexts, pastedTexts } from './own.js';

const $ = (id) => document.getElementById(id);

export class OwnPanel {
  #texts = new OwnTexts();
  #hooks;
  #loaded;
  #encoder = new Promise((resolve) => {
    this.#loaded = resolve;
  });
  #opening;
  #stopper;
  #notes = [];
  /** Why the index could not be opened. */
  error;

  /**
   * @param {{ words: () => object, announce: (text: string) => void, changed: () => void }} hooks
   */
  constructor(hooks) {
    this.#hooks = hooks;
    $('paste-add').addEventListener('click', () => this.#addPasted());
    $('files').addEventListener('change', async () => {
      const files = [...$('files').files];
      // So that the same file can be chosen again.
      $('files').value = '';
      await this.addFiles(files);
    });
    addEventListener('storage', ({ key }) => {
      if (key !== LIST) return;
      this.#texts.refresh();
      this.#show();
      this.#hooks.changed();
    });
    $('adding-stop').addEventListener('click', () => this.#stopper?.abort());
  }

  get index() {
    return this.#texts.index;
  }

  setEncoder(encoder) {
    this.#loaded(encoder);
  }

  /** Somebody looks at them: opens what is kept, as soon as the model is there. */
  open() {
    if (this.index) return undefined;
    $('own').open = this.#texts.count === 0;
    this.#show();
    this.#opening ??= this.#open().finally(() => {
      this.#opening = undefined;
    });
    return this.#opening;
  }

  async #open() {
    this.error = undefined;
    try {
      await this.#texts.open(await this.#encoder);
      $('own').open = this.#texts.count === 0;
    } catch (error) {
      this.error = error;
    }
    this.#show();
    this.#hooks.changed();
  }

  speak() {
    this.#show();
  }

  /**
   * Files dropped anywhere on `area`; dropped beside it they must not replace the page.
   * @param {HTMLElement} area
   * @param {() => void} before called before they are read
   */
  takeDrops(area, before) {
    const hasFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes('Files');
    addEventListener('dragover', (event) => {
      if (hasFiles(event)) event.preventDefault();
    });
    addEventListener('drop', (event) => {
      if (!hasFiles(event)) return;
      event.preventDefault();
      document.documentElement.classList.remove('dropping');
      if (area.hidden) return;
      before();
      this.addFiles([...event.dataTransfer.files]);
    });
    let depth = 0;
    addEventListener('dragenter', (event) => {
      if (!hasFiles(event)) return;
      depth++;
      document.documentElement.classList.toggle('dropping', !area.hidden);
    });
    addEventListener('dragleave', () => {
      if (--depth <= 0) {
        depth = 0;
        document.documentElement.classList.remove('dropping');
      }
    });
  }

  async #addPasted() {
    const content = $('paste').value;
    const first = content.trim().slice(0, 20);
    const done = await this.#addAll([{ name: this.#hooks.words().pastedName(first), read: async () => pastedTexts(content) }]);
    if (done) $('paste').value = '';
  }

  /** @param {File[]} files */
  addFiles(files) {
    return this.#addAll(files.map((file) => ({ name: file.name, read: () => fileTexts(file) })));
  }

  /** Adds one source after the other; one that cannot be read does not keep the others out. */
  async #addAll(sources) {
    const words = () => this.#hooks.words();
    this.#notes = [];
    this.#stopper?.abort();
    const stopper = (this.#stopper = new AbortController());
    this.#showAdding(sources[0].name, 0, 0);
    await this.open();
    let fine = Boolean(this.index);
    for (const { name, read } of sources) {
      if (!this.index || stopper.signal.aborted) break;
      try {
        const texts = await read();
        this.#showAdding(name, 0, texts.length);
        const left = await this.#texts.add(name, texts, {
          signal: stopper.signal,
          onProgress: ({ done, total }) => {
            this.#showAdding(name, done, total);
            this.#hooks.changed();
          },
        });
        if (left > 0) this.#notes.push(words().leftOut(name, left));
        this.#hooks.announce(words().added(name, texts.length - left));
      } catch (error) {
        fine = false;
        this.#notes.push(this.#wordsFor(name, error));
      }
    }
    $('adding').hidden = true;
    if (fine) $('own').open = false;
    this.#show();
    this.#hooks.changed();
    return fine;
  }

  #wordsFor(name, error) {
    const words = this.#hooks.words();
    if (error?.name === 'AbortError') return words.addedStopped;
    if (!(error instanceof FileError)) {
      console.error(error);
      return `${name}: ${words.trouble[error?.code] ?? words.trouble.other}`;
    }
    return [`${name}:`, words.fileTrouble[error.code], ...(error.line ? [words.fileLine(error.line)] : [])].join(' ');
  }

  async #remove(key) {
    const { sources } = this.#texts;
    const at = sources.findIndex((source) => source.key === key);
    const { name } = sources[at];
    await this.#texts.remove(key);
    this.#hooks.announce(this.#hooks.words().removedSource(name));
    this.#show();
    // The focus goes to the neighbour, or to where texts come in.
    ($('sources').querySelectorAll('button')[Math.min(at, this.#texts.sources.length - 1)] ?? $('paste')).focus();
    this.#hooks.changed();
  }

  #showAdding(name, done, total) {
    $('adding').hidden = false;
    $('adding-label').textContent = this.#hooks.words().adding(name);
    $('adding-count').textContent = total > 0 ? this.#hooks.words().addingCount(done, total) : '';
    if (total > 0) $('adding-progress').value = done / total;
    else $('adding-progress').removeAttribute('value');
  }

  #show() {
    const words = this.#hooks.words();
    const { count, sources, persistent } = this.#texts;
    $('own-summary').textContent = count === 0 ? words.ownAdd : words.ownSummary(count);
    $('own-note').textContent = persistent ? words.ownNote : words.ownNoteUnsaved;
    $('own-trouble').hidden = this.#notes.length === 0;
    $('own-trouble').replaceChildren(...this.#notes.map((note) => make('p', { textContent: note })));
    if (this.#notes.length > 0) $('own').open = true;
    $('sources').replaceChildren(...sources.map(({ key, name, count: texts }) => {
      const button = make('button', { type: 'button', className: 'remove', textContent: '×', ariaLabel: words.removeSource(name) });
      button.addEventListener('click', () => this.#remove(key));
      return make('li', {}, make('span', { className: 'source-name', textContent: name }),
        make('span', { className: 'source-count', textContent: words.sourceCount(texts) }), button);
    }));
  }
}
