// The lists of sentences below the matrix: to edit, to add, to remove. Beside the one that is being
// edited stand its own numbers, since on a phone the matrix is out of sight.
import { heat } from './color.js';
import { format } from './matrix.js';

const LETTER = { rows: 'A', columns: 'B' };
const fieldset = (group) => document.querySelector(`fieldset[data-group="${group}"]`);
const list = (group) => fieldset(group).querySelector('ol');

export class SentenceLists {
  #hooks;
  #words;

  /**
   * @param {{ edited: (group: string, index: number, text: string) => void, added: (group: string) => void,
   *   removed: (group: string, index: number) => void, announce: (text: string) => void }} hooks
   */
  constructor(hooks) {
    this.#hooks = hooks;
    for (const group of Object.keys(LETTER)) {
      fieldset(group).querySelector('.add').addEventListener('click', () => {
        hooks.added(group);
        list(group).querySelector('li:last-child textarea').focus();
      });
    }
  }

  nameOf(group, index) {
    return `${LETTER[group]}${index + 1}`;
  }

  /** @param {Record<string, string[]>} groups */
  build(groups, words) {
    this.#words = words;
    for (const group of Object.keys(LETTER)) {
      list(group).replaceChildren(...groups[group].map((text, index) => this.#item(group, text, index, groups[group].length)));
    }
    this.fit();
  }

  /** A sentence that was changed elsewhere. */
  set(group, index, text) {
    const area = list(group).querySelectorAll('textarea')[index];
    area.value = text;
    this.grow(area);
  }

  fit() {
    for (const area of document.querySelectorAll('.editor textarea')) this.grow(area);
  }

  grow(area) {
    area.style.height = 'auto';
    area.style.height = `${area.scrollHeight + area.offsetHeight - area.clientHeight}px`;
  }

  /**
   * @param {Map<string, { tokens: number, truncated: boolean }>} known
   * @param {(number | null)[][]} values the matrix
   * @param {number} low where its colours begin
   */
  showResults(known, values, low, maxTokens, words) {
    for (const group of Object.keys(LETTER)) {
      const other = group === 'rows' ? 'columns' : 'rows';
      list(group).querySelectorAll('li').forEach((item, index) => {
        const result = known.get(item.querySelector('textarea').value);
        item.querySelector('.note').textContent = result?.truncated ? words.truncated(result.tokens, maxTokens) : '';
        const own = group === 'rows' ? values[index] : values.map((row) => row[index]);
        item.querySelector('.strip').replaceChildren(...(own ?? []).map((value, i) => {
          const cell = Object.assign(document.createElement('span'), {
            textContent: `${this.nameOf(other, i)} ${value === null ? '–' : format(value)}` });
          for (const theme of ['light', 'dark']) {
            const { background, text } = heat(value === null ? 0 : (value - low) / (1 - low), theme);
            cell.style.setProperty(`--${theme}`, background);
            cell.style.setProperty(`--${theme}-text`, text);
          }
          return cell;
        }));
      });
    }
  }

  #item(group, text, index, count) {
    const words = this.#words;
    const name = this.nameOf(group, index);
    const item = document.createElement('li');
    const chip = Object.assign(document.createElement('span'), { className: 'chip', textContent: name });
    chip.setAttribute('aria-hidden', 'true');
    const area = Object.assign(document.createElement('textarea'), {
      value: text, rows: 1, lang: 'ko', spellcheck: false, placeholder: words.placeholder });
    area.setAttribute('aria-label', words.sentence(name));
    area.setAttribute('aria-describedby', `note-${group}-${index}`);
    area.addEventListener('input', () => {
      this.#hooks.edited(group, index, area.value);
      this.grow(area);
    });
    const remove = Object.assign(document.createElement('button'), { type: 'button', className: 'remove', textContent: '×' });
    remove.setAttribute('aria-label', words.remove(name));
    remove.disabled = count === 1;
    remove.addEventListener('click', () => {
      this.#hooks.announce(words.removed(name));
      this.#hooks.removed(group, index);
      // The focus goes to the neighbour, not to the top of the page.
      list(group).querySelectorAll('textarea')[Math.min(index, count - 2)].focus();
    });
    const note = Object.assign(document.createElement('p'), { className: 'note', id: `note-${group}-${index}` });
    const strip = Object.assign(document.createElement('p'), { className: 'strip' });
    strip.setAttribute('aria-hidden', 'true');
    item.append(chip, area, remove, note, strip);
    return item;
  }
}
