// The tab that searches: what is typed, in the collection that comes along or in the visitor's texts.
import { SemanticIndex } from '../pkg/search.js';
import { CorpusError, fetchCorpus } from './corpus.js';
import { hitItem, make } from './hits.js';
import { OwnPanel } from './own_panel.js';
import { onTyped } from './typing.js';

const TYPING_PAUSE_MS = 80;
const HITS = 10;
/** Below this cosine a text that shares no words with the question is left out, and what scores no more than it would. */
const LEAST_COSINE = 0.25;
const LEAST_SCORE = 0.05;
/** Readers of the screen are told when the typing has come to rest. */
const ANNOUNCE_AFTER_MS = 700;

const $ = (id) => document.getElementById(id);

export class Search {
  #words;
  #announce;
  #encoder;
  #scope = 'corpus';
  #text = $('query').value.trim();
  #semantic = Number($('balance').value);
  /** The collection: its index once there is one, what is under way, what went wrong. */
  #corpus = { index: undefined, opening: undefined, error: undefined };
  #own;
  #hits;
  #trouble;
  #turn = 0;
  #saying;
  #typed;

  constructor(words, announce) {
    this.#words = words;
    this.#announce = announce;
    this.#own = new OwnPanel({ words: () => this.#words, announce, changed: () => this.#ownChanged() });
    this.#typed = onTyped($('query'), (text) => this.#ask(text), TYPING_PAUSE_MS);
    $('search-form').addEventListener('submit', (event) => event.preventDefault());
    $('balance').addEventListener('input', () => {
      this.#semantic = Number($('balance').value);
      this.#showBalance();
      this.#run();
    });
    for (const radio of document.querySelectorAll('input[name=scope]')) {
      radio.addEventListener('change', () => this.#setScope(radio.value));
    }
    $('search-retry').addEventListener('click', () => this.#retry());
    addEventListener('online', () => {
      if (this.#corpus.error?.code === 'corpusOffline') this.#retry();
    });
    this.#own.takeDrops($('panel-search'), () => this.#setScope('own'));
  }

  /** The tab was opened. */
  open() {
    if (this.#scope === 'corpus') this.#openCorpus();
    this.#show();
    if (matchMedia('(hover: hover)').matches) $('query').focus();
  }

  setEncoder(encoder) {
    this.#encoder = encoder;
    this.#own.setEncoder(encoder);
    this.#openCorpus();
    this.#run();
  }

  speak(words) {
    this.#words = words;
    this.#own.speak();
    $('examples').querySelector('ul').replaceChildren(...words.examples.map(([query, gloss]) => {
      const button = make('button', { type: 'button', className: 'example' }, make('span', { lang: 'ko', textContent: query }));
      if (gloss) button.append(make('span', { className: 'gloss', textContent: gloss }));
      button.addEventListener('click', () => this.#typed.set(query));
      return make('li', {}, button);
    }));
    this.#showBalance();
    this.#show();
  }

  // -------------------------------------------------------------- the collection

  #openCorpus() {
    if ($('panel-search').hidden || this.#corpus.index) return;
    this.#corpus.bytes ??= fetchCorpus((loaded, total) => this.#showProgress(loaded, total));
    this.#corpus.error = undefined;
    // The bytes travel while the model does; the index needs both.
    this.#corpus.bytes.catch((error) => this.#corpusFailed(error));
    if (this.#encoder && !this.#corpus.opening) this.#corpus.opening = this.#openIndex();
    this.#show();
  }

  async #openIndex() {
    try {
      const bytes = await this.#corpus.bytes;
      $('corpus-progress').removeAttribute('value');
      $('corpus-bytes').textContent = this.#words.corpusPreparing;
      this.#corpus.index = await SemanticIndex.fromBytes(bytes, { encoder: this.#encoder });
      this.#corpus.bytes = undefined;
      this.#run();
    } catch (error) {
      this.#corpusFailed(error);
    }
    this.#show();
  }

  #corpusFailed(error) {
    this.#corpus = { error };
    this.#show();
  }

  #showProgress(loaded, total) {
    const mb = (n) => (n / 1e6).toFixed(1);
    $('corpus-bytes').textContent = this.#words.bytesOf(mb(loaded), total === null ? null : mb(total));
    if (total === null) $('corpus-progress').removeAttribute('value');
    else $('corpus-progress').value = loaded / total;
  }

  #retry() {
    this.#trouble = undefined;
    if (this.#scope === 'corpus' && !this.#corpus.index) this.#openCorpus();
    else this.#run();
  }

  // -------------------------------------------------------------- asking

  #setScope(scope) {
    if (scope !== this.#scope) {
      this.#scope = scope;
      document.querySelector(`input[name=scope][value=${scope}]`).checked = true;
      this.#hits = undefined;
      this.#trouble = undefined;
      if (scope === 'own') this.#own.open();
      else this.#openCorpus();
    }
    this.#run();
  }

  #ownChanged() {
    if (this.#scope === 'own') this.#run();
    else this.#show();
  }

  #ask(text) {
    this.#text = text.trim();
    // On a phone the keyboard takes half of the screen; the hits get the rest.
    if (this.#text && matchMedia('(max-width: 42rem)').matches) $('search-form').scrollIntoView();
    this.#run();
  }

  get #index() {
    return this.#scope === 'own' ? this.#own.index : this.#corpus.index;
  }

  /** Searches what is asked now; the answer to an older question is dropped. */
  async #run() {
    const turn = ++this.#turn;
    const index = this.#index;
    const text = this.#text;
    if (!$('panel-search').hidden && this.#scope === 'corpus') keepInAddress(text);
    if (!index || !text || index.size + index.info.pending === 0) {
      this.#hits = undefined;
      this.#show();
      return;
    }
    try {
      const started = performance.now();
      const semantic = this.#semantic;
      // Of the visitor's few texts the nearest are shown, near or not.
      const minScore = this.#scope === 'own' ? 0 : Math.max(LEAST_COSINE * semantic, LEAST_SCORE);
      const found = await index.search(text, { topK: 2 * HITS, minScore, semantic });
      if (turn !== this.#turn) return;
      const list = found.filter((hit) => !isRest(hit)).slice(0, HITS);
      this.#hits = { index, text, list, ms: performance.now() - started };
      this.#trouble = undefined;
    } catch (error) {
      if (turn !== this.#turn || error?.name === 'AbortError') return;
      this.#hits = undefined;
      this.#trouble = error;
    }
    this.#show();
  }

  // -------------------------------------------------------------- showing

  #showBalance() {
    const percent = Math.round(this.#semantic * 100);
    $('balance').setAttribute('aria-valuetext', this.#words.balanceValue(percent));
  }

  #show() {
    const { opening, error, bytes, index } = this.#corpus;
    const inCorpus = this.#scope === 'corpus';
    $('own').hidden = inCorpus;
    $('corpus-credit').hidden = !inCorpus;
    $('corpus-loading').hidden = !inCorpus || Boolean(index || error) || !(bytes || opening);
    this.#showTrouble((inCorpus ? error : this.#own.error) ?? this.#trouble);
    $('examples').hidden = !inCorpus || Boolean(this.#text) || Boolean(error);
    const list = this.#hits?.list ?? [];
    const marksOf = (text) => this.#hits.index.marks(text, this.#hits.text);
    $('hits').replaceChildren(...list.map((hit) => hitItem(hit, marksOf, this.#words)));
    $('hits').setAttribute('aria-busy', String(!this.#index && $('search-trouble').hidden));
    this.#showStatus();
  }

  #showTrouble(error) {
    $('search-trouble').hidden = !error;
    if (!error) return;
    $('search-trouble-title').textContent = this.#words.searchTrouble;
    $('search-trouble-advice').textContent = this.#words.trouble[error.code] ?? this.#words.trouble.other;
    if (!(error instanceof CorpusError)) console.error(error);
  }

  #showStatus() {
    const text = this.#statusText();
    $('search-status').textContent = text;
    clearTimeout(this.#saying);
    if (text && this.#hits) this.#saying = setTimeout(() => this.#announce(text), ANNOUNCE_AFTER_MS);
  }

  #statusText() {
    const words = this.#words;
    if (!$('search-trouble').hidden || !this.#text) return '';
    if (this.#hits) {
      const { list, ms } = this.#hits;
      if (list.length === 0) return words.foundNone;
      const time = ms < 10 ? ms.toFixed(1) : ms.toFixed(0);
      return words.found(list.length, time);
    }
    if (!this.#encoder) return words.waitingModel;
    if (this.#scope === 'own') return this.#own.index ? words.ownEmpty : '';
    return this.#corpus.index ? words.searching : words.waitingCorpus;
  }
}

/** Whether a passage is the last word or two of a long sentence, which mean nothing and so are close to everything. */
const isRest = ({ text, passage }) => passage.text.length < 12 && passage.text.length < text.trim().length;

/** The address can be sent to a friend; what stands behind its # never reaches a server. */
function keepInAddress(text) {
  try {
    history.replaceState(null, '', text ? `#search=${encodeURIComponent(text)}` : '#search');
  } catch {
    // Safari allows a hundred changes in half a minute; half a character cannot be written either.
  }
}
