// The matrix as a table: heat map, labels, best match of each row, arrow keys.
import { heat } from './color.js';

/** A cosine with two decimals; never "-0.00". */
export const format = (value) => value.toFixed(2).replace(/^-(0\.00)$/, '$1').replace('-', '−');

/**
 * Index of the largest value, or -1 if there is none.
 * @param {(number | null)[]} values
 */
export function indexOfLargest(values) {
  let best = -1;
  values.forEach((value, i) => {
    if (value !== null && (best < 0 || value > values[best])) best = i;
  });
  return best;
}

/** Below this nothing is called the closest: such sentences have little to do with each other. */
export const CLOSE = 0.3;

/**
 * Where a row's closest sentence is, or -1. The sentence itself does not count.
 * @param {string} text
 * @param {string[]} others
 * @param {(number | null)[]} values
 */
export function closest(text, others, values) {
  const best = indexOfLargest(values.map((value, i) => (others[i].trim() === text.trim() ? null : value)));
  return best >= 0 && values[best] >= CLOSE ? best : -1;
}

export class MatrixView {
  #table;
  #onSelect;
  #at = { row: 0, column: 0 };
  #size = '';
  /** The cosine at which the colours begin; they end at 1. */
  low = 0;

  /**
   * @param {HTMLTableElement} table
   * @param {(row: number, column: number) => void} onSelect
   */
  constructor(table, onSelect) {
    this.#table = table;
    this.#onSelect = onSelect;
    table.addEventListener('keydown', (event) => this.#move(event));
    table.addEventListener('focusin', (event) => this.#choose(event.target.closest('td')));
    table.addEventListener('click', (event) => event.target.closest('td')?.focus());
  }

  /** Chooses a cell without moving the focus. */
  select(row, column) {
    this.#at = { row, column };
    this.#mark();
  }

  /** The chosen cell. */
  get selected() {
    return this.#at;
  }

  /**
   * @param {{ name: string, text: string }[]} rows
   * @param {{ name: string, text: string }[]} columns
   * @param {(number | null)[][]} values `null` where there is nothing to show
   * @param {{ caption: string, empty: string }} words
   */
  render(rows, columns, values, words) {
    const size = `${rows.length}×${columns.length}`;
    if (size !== this.#size) this.#build(rows.length, columns.length);
    this.#size = size;
    this.#at = {
      row: Math.max(0, Math.min(this.#at.row, rows.length - 1)),
      column: Math.max(0, Math.min(this.#at.column, columns.length - 1)),
    };
    this.#table.caption.textContent = words.caption;
    const [head, ...body] = this.#table.rows;
    columns.forEach((label, c) => fillLabel(head.cells[c + 1], label, words));
    rows.forEach((label, r) => {
      fillLabel(body[r].cells[0], label, words);
      const best = columns.length > 1 ? closest(label.text, columns.map(({ text }) => text), values[r]) : -1;
      columns.forEach((_, c) => this.#fill(body[r].cells[c + 1], values[r][c], c === best));
    });
    this.#mark();
  }

  #build(rowCount, columnCount) {
    // Cells are only made anew when the size changes, so that the focus stays while one types.
    const focused = this.#table.contains(document.activeElement);
    const cells = (make, count) => Array.from({ length: count }, make);
    const corner = document.createElement('td');
    corner.className = 'corner';
    const head = document.createElement('tr');
    head.append(corner, ...cells(() => label('col'), columnCount));
    const body = cells(() => {
      const row = document.createElement('tr');
      row.append(label('row'), ...cells(() => Object.assign(document.createElement('td'), { tabIndex: -1 }), columnCount));
      return row;
    }, rowCount);
    const thead = document.createElement('thead');
    thead.append(head);
    const tbody = document.createElement('tbody');
    tbody.append(...body);
    const caption = document.createElement('caption');
    caption.className = 'visually-hidden';
    this.#table.style.setProperty('--columns', columnCount);
    this.#table.replaceChildren(caption, thead, tbody);
    if (focused) queueMicrotask(() => this.#cell()?.focus());
  }

  #fill(cell, value, best) {
    cell.classList.toggle('best', best);
    cell.classList.toggle('blank', value === null);
    cell.textContent = value === null ? '–' : format(value);
    for (const theme of ['light', 'dark']) {
      const { background, text } = heat(value === null ? 0 : (value - this.low) / (1 - this.low), theme);
      cell.style.setProperty(`--${theme}`, background);
      cell.style.setProperty(`--${theme}-text`, text);
    }
  }

  #cell() {
    return this.#table.tBodies[0]?.rows[this.#at.row]?.cells[this.#at.column + 1];
  }

  /** One cell takes part in the tab order; the arrow keys move it. */
  #mark() {
    for (const cell of this.#table.querySelectorAll('tbody td')) {
      cell.tabIndex = -1;
      cell.removeAttribute('aria-selected');
    }
    const cell = this.#cell();
    if (!cell) return;
    cell.tabIndex = 0;
    cell.setAttribute('aria-selected', 'true');
  }

  #choose(cell) {
    if (!cell || cell.classList.contains('corner')) return;
    this.#at = { row: cell.parentElement.sectionRowIndex, column: cell.cellIndex - 1 };
    this.#mark();
    this.#onSelect(this.#at.row, this.#at.column);
  }

  #move(event) {
    const rows = this.#table.tBodies[0]?.rows.length ?? 0;
    const columns = (this.#table.tHead?.rows[0].cells.length ?? 1) - 1;
    const { row, column } = this.#at;
    const to = {
      ArrowUp: [row - 1, column], ArrowDown: [row + 1, column],
      ArrowLeft: [row, column - 1], ArrowRight: [row, column + 1],
      Home: [event.ctrlKey ? 0 : row, 0], End: [event.ctrlKey ? rows - 1 : row, columns - 1],
    }[event.key];
    if (!to || event.altKey || event.metaKey) return;
    event.preventDefault();
    this.#at = {
      row: Math.max(0, Math.min(to[0], rows - 1)),
      column: Math.max(0, Math.min(to[1], columns - 1)),
    };
    this.#cell()?.focus();
  }
}

function label(scope) {
  const cell = document.createElement('th');
  cell.scope = scope;
  const name = Object.assign(document.createElement('span'), { className: 'chip' });
  const text = Object.assign(document.createElement('span'), { className: 'sentence', lang: 'ko' });
  cell.append(name, ' ', text);
  return cell;
}

function fillLabel(cell, { name, text }, words) {
  const [chip, sentence] = cell.children;
  chip.textContent = name;
  sentence.textContent = text.trim() || words.empty;
  cell.title = text;
}
