// A search's hits as a list: the passage with its matched words marked, where it is from, and the
// two parts of its score as bars.
import { SOURCES } from './corpus.js';

/** An element with properties and children. */
export function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

/**
 * `text` as nodes, its ranges in <mark>.
 * @param {string} text
 * @param {{ start: number, end: number }[]} ranges in order, in UTF-16 units
 */
export function marked(text, ranges) {
  const nodes = [];
  let at = 0;
  for (const { start, end } of ranges) {
    nodes.push(text.slice(at, start), make('mark', { textContent: text.slice(start, end) }));
    at = end;
  }
  nodes.push(text.slice(at));
  return nodes.filter((node) => node !== '');
}

/**
 * @param {object} hit as SemanticIndex gives it
 * @param {(text: string) => { start: number, end: number }[]} marksOf ranges of the query's words in a text
 * @param {object} words the page's words
 * @returns {HTMLLIElement}
 */
export function hitItem(hit, marksOf, words) {
  const { text, passage } = hit;
  const item = make('li', { className: 'hit' });
  item.append(
    make('p', { className: 'passage', lang: 'ko' }, ...marked(passage.text, marksOf(passage.text))),
    scores(hit, words),
    make('p', { className: 'origin' }, ...origin(hit.data, words)),
  );
  if (passage.text.length < text.trim().length) {
    item.append(make('details', { className: 'around' },
      make('summary', { textContent: words.around }),
      make('p', { lang: 'ko' }, text.slice(0, passage.start),
        make('strong', { textContent: text.slice(passage.start, passage.end) }), text.slice(passage.end))));
  }
  return item;
}

function origin(data, words) {
  const { source, title, name } = data ?? {};
  if (source === 'own') return [make('span', { className: 'source', textContent: name }), ...(title ? [' ', title] : [])];
  const nodes = [make('span', { className: 'source', textContent: words.sources[source] ?? source })];
  if (title) {
    const address = SOURCES[source]?.address?.(title);
    nodes.push(' ', address ? make('a', { href: address, rel: 'noreferrer', lang: 'ko', textContent: title })
      : make('cite', { lang: 'ko', textContent: title }));
  }
  return nodes;
}

/** Meaning and words, each with its number; what a passage lacks (a vector, words) has none. */
function scores({ cosine, lexical }, words) {
  const list = make('dl', { className: 'scores' });
  for (const [kind, value] of [['meaning', cosine], ['words', lexical]]) {
    const known = Number.isFinite(value);
    const bar = make('span', { className: `meter ${kind}` }, make('span'));
    bar.ariaHidden = 'true';
    bar.firstChild.style.setProperty('--value', known ? Math.min(Math.max(value, 0), 1).toFixed(3) : '0');
    list.append(make('div', {},
      make('dt', { textContent: words[kind === 'meaning' ? 'byMeaning' : 'byWords'] }),
      make('dd', {}, bar, make('span', { className: 'number', textContent: known ? Math.max(value, 0).toFixed(2) : '–' }))));
  }
  return list;
}
