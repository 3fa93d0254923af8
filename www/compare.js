// The tab that compares sentences: one pair to edit, the matrix of all, and sentences to add.
import { gradient, heat, lowEnd } from './color.js';
import { SentenceLists } from './editor.js';
import { EXAMPLES, humanScore } from './examples.js';
import { FileError } from './files.js';
import { MatrixView, format } from './matrix.js';
import { dot } from '../pkg/dot.js';

const TYPING_PAUSE_MS = 120;
const KEPT_RESULTS = 500;
/** More rows or columns than this are no table to look at. */
export const MOST = 30;
/** Cosines from which `words.says` has its next step; by eye: the published pairs with 2.5 and 3.7 of 5 have 0.63 and 0.78. */
const SAYS = [0.25, 0.45, 0.6, 0.8];

const $ = (id) => document.getElementById(id);
const PAIR = { rows: $('pair-a'), columns: $('pair-b') };

export class Compare {
  #groups;
  #example = EXAMPLES[0];
  /** Embeddings of texts seen so far, so that one edit encodes one sentence. */
  #known = new Map();
  #encoder;
  #words;
  #hooks;
  #pending;
  #timer;
  #view = new MatrixView($('matrix'), () => this.#showPair());
  #lists;

  /**
   * @param {{ fail: (error: unknown) => void, done: () => void, announce: (text: string) => void }} hooks
   *   what is told of an encoding that failed, of one that went well, and to who listens
   */
  constructor(hooks) {
    this.#hooks = hooks;
    this.#take(this.#example);
    this.#lists = new SentenceLists({
      edited: (group, index, text) => this.#edit(group, index, text),
      added: (group) => this.#groups[group].push('') && this.#rebuilt(),
      removed: (group, index) => this.#groups[group].splice(index, 1) && this.#rebuilt(),
      announce: hooks.announce,
    });
    for (const [group, area] of Object.entries(PAIR)) {
      area.addEventListener('input', () => {
        const { row, column } = this.#view.selected;
        const index = group === 'rows' ? row : column;
        this.#edit(group, index, area.value);
        this.#lists.set(group, index, area.value);
      });
    }
    $('reset').addEventListener('click', () => this.fill(this.#example));
    addEventListener('resize', () => this.fit());
    for (const theme of ['light', 'dark']) $('ramp').style.setProperty(`--${theme}`, gradient(theme));
  }

  /** Shows everything in another language. */
  speak(words) {
    this.#words = words;
    $('sets').replaceChildren(...EXAMPLES.map((example) => {
      const button = Object.assign(document.createElement('button'), { type: 'button', className: 'set', textContent: words[example.name] });
      button.addEventListener('click', () => {
        this.#example = example;
        this.fill(example);
      });
      return button;
    }));
    this.#lists.build(this.#groups, words);
    this.#show();
  }

  /** Gives every textarea the height of its text; it has none while its tab is closed. */
  fit() {
    for (const area of Object.values(PAIR)) this.#lists.grow(area);
    this.#lists.fit();
  }

  /** Takes the encoder, fits the colours to its model (see `lowEnd`) and fills the matrix. */
  async start(encoder) {
    const [{ rows, columns }] = EXAMPLES;
    const matrix = await encoder.similarity(rows, columns);
    this.#view.low = lowEnd(matrix.flatMap((row) => [...row]));
    document.querySelectorAll('.ticks i').forEach((tick, i) => {
      tick.textContent = String(Number((this.#view.low + (1 - this.#view.low) * (i / 2)).toFixed(2)));
    });
    this.#encoder = encoder;
    await this.update();
  }

  /** Milliseconds per sentence on the sentences that are there: the median of some warm rounds. */
  async measure() {
    const texts = [...this.#groups.rows, ...this.#groups.columns].filter((text) => text.trim());
    if (texts.length === 0) return undefined;
    const rounds = [];
    for (let n = 0; n < 7; n++) {
      const started = performance.now();
      await this.#encoder.encode(texts);
      rounds.push((performance.now() - started) / texts.length);
    }
    return rounds.sort((a, b) => a - b)[3];
  }

  /** What is shown, for export. */
  get matrix() {
    const { rows, columns } = this.#groups;
    return { rows: [...rows], columns: [...columns], values: this.#values(), low: this.#view.low };
  }

  /** Other sentences take the place of all that are there. */
  fill(groups) {
    this.#take(groups);
    this.#view.select(0, 0);
    this.#lists.build(this.#groups, this.#words);
    return this.update();
  }

  /**
   * Fills it from a file: two columns of a table are compared with each other, a list with itself.
   * @param {{ first: string, second?: string }[]} lines
   * @returns {number} how many of them were taken
   */
  fillFrom(lines) {
    const taken = lines.slice(0, MOST);
    if (taken.length === 0) throw new FileError('fileEmpty');
    const rows = taken.map(({ first }) => first);
    const columns = taken.map(({ second }) => second).filter(Boolean);
    this.fill({ rows, columns: columns.length > 0 ? columns : [...rows] });
    return taken.length;
  }

  /** Encodes what is new and shows the matrix; a newer call makes an older one's result void. */
  async update() {
    clearTimeout(this.#timer);
    this.#pending?.abort();
    this.#show();
    if (!this.#encoder) return;
    const controller = (this.#pending = new AbortController());
    const all = [...this.#groups.rows, ...this.#groups.columns];
    const texts = [...new Set(all)].filter((text) => text.trim() && !this.#known.has(text));
    $('matrix').setAttribute('aria-busy', 'true');
    try {
      const report = await this.#encoder.encodeWithReport(texts, { signal: controller.signal });
      if (controller.signal.aborted) return;
      texts.forEach((text, i) => this.#known.set(text, {
        embedding: report.embeddings[i],
        tokens: report.tokenCounts[i],
        truncated: report.truncated[i],
      }));
      this.#show();
      this.#forget();
      this.#hooks.done();
    } catch (error) {
      this.#hooks.fail(error);
    }
  }

  #take({ rows, columns }) {
    this.#groups = { rows: [...rows], columns: [...columns] };
  }

  #edit(group, index, text) {
    this.#groups[group][index] = text;
    const { row, column } = this.#view.selected;
    if (PAIR[group].value !== text && index === (group === 'rows' ? row : column)) PAIR[group].value = text;
    this.#lists.grow(PAIR[group]);
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.update(), TYPING_PAUSE_MS);
  }

  #rebuilt() {
    this.#lists.build(this.#groups, this.#words);
    this.update();
  }

  #values() {
    return this.#groups.rows.map((a) => this.#groups.columns.map((b) => this.#cosine(a, b)));
  }

  #cosine(textA, textB) {
    const [a, b] = [this.#known.get(textA), this.#known.get(textB)];
    if (!a || !b) return null;
    return dot(a.embedding, b.embedding);
  }

  /** Lets go of texts that are no longer shown, oldest first. */
  #forget() {
    const shown = new Set([...this.#groups.rows, ...this.#groups.columns]);
    for (const text of this.#known.keys()) {
      if (this.#known.size <= KEPT_RESULTS) return;
      if (!shown.has(text)) this.#known.delete(text);
    }
  }

  // -------------------------------------------------------------- showing

  #show() {
    const values = this.#values();
    const label = (group) => this.#groups[group].map((text, i) => ({ name: this.#lists.nameOf(group, i), text }));
    this.#view.render(label('rows'), label('columns'), values, this.#words);
    $('matrix').setAttribute('aria-busy', String(!this.#encoder));
    this.#lists.showResults(this.#known, values, this.#view.low, this.#encoder?.info.maxTokens, this.#words);
    this.#showPair();
    const example = EXAMPLES.find(({ rows, columns }) =>
      String(rows) === String(this.#groups.rows) && String(columns) === String(this.#groups.columns));
    [...$('sets').children].forEach((button, i) => button.setAttribute('aria-pressed', String(EXAMPLES[i] === example)));
    $('set-hint').textContent = example ? this.#words[`${example.name}Hint`] : '';
  }

  #showPair() {
    const { row, column } = this.#view.selected;
    for (const [group, index] of [['rows', row], ['columns', column]]) {
      const area = PAIR[group];
      const name = this.#lists.nameOf(group, index);
      if (area.value !== this.#groups[group][index]) area.value = this.#groups[group][index];
      area.setAttribute('aria-label', this.#words.sentence(name));
      area.parentElement.querySelector('.chip').textContent = name;
      this.#lists.grow(area);
    }
    const [a, b] = [this.#groups.rows[row], this.#groups.columns[column]];
    const value = this.#cosine(a, b);
    // While the changed sentence is on its way the last number stays, so that nothing flickers.
    if (value === null && a.trim() && b.trim() && this.#encoder) return;
    $('pair-value').textContent = value === null ? '–' : format(value);
    $('pair-says').textContent = value === null ? '' : this.#words.says[SAYS.filter((step) => value >= step).length];
    const human = humanScore(a, b);
    $('pair-human').textContent = human === undefined ? '' : this.#words.human(human);
    for (const theme of ['light', 'dark']) {
      const { background, text } = heat(value === null ? 0 : (value - this.#view.low) / (1 - this.#view.low), theme);
      $('pair-value').style.setProperty(`--${theme}`, background);
      $('pair-value').style.setProperty(`--${theme}-text`, text);
    }
  }
}
