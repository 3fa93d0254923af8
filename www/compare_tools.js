// What can be done with the matrix: a link to it, a picture, a table, and sentences out of a file.
import { MOST } from './compare.js';
import { decode, FileError, MAX_FILE_BYTES, parseCsv, readTexts } from './files.js';
import { download, toCsv, toPng } from './matrix_export.js';
import { fromFragment, toFragment } from './share.js';

const $ = (id) => document.getElementById(id);

/**
 * @param {import('./compare.js').Compare} compare
 * @param {() => object} words
 */
export async function addTools(compare, words) {
  const say = (text) => { $('tools-status').textContent = text; };
  const tell = async (work, failed) => {
    try {
      say(await work());
    } catch (error) {
      console.error(error);
      say(words()[failed]);
    }
  };
  const csv = () => toCsv(compare.matrix);
  const theme = () => (matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light');
  const save = (make, name) => tell(async () => {
    download(name, await make());
    return '';
  }, 'saveFailed');
  $('tools-status').setAttribute('role', 'status');
  $('share').addEventListener('click', () => tell(async () => {
    const { rows, columns } = compare.matrix;
    history.replaceState(null, '', `#${await toFragment({ rows, columns })}`);
    await navigator.clipboard.writeText(location.href);
    return words().shared;
  }, 'copyFailed'));
  $('copy-csv').addEventListener('click', () => tell(async () => {
    // Tabs are what spreadsheets take from the clipboard.
    await navigator.clipboard.writeText(parseCsv(csv().slice(1).replaceAll('\r\n', '\n')).map((row) => row.join('\t')).join('\n'));
    return words().copied;
  }, 'copyFailed'));
  $('save-csv').addEventListener('click', () => save(() => new Blob([csv()], { type: 'text/csv;charset=utf-8' }), 'munjang.csv'));
  $('save-png').addEventListener('click', () => save(() => toPng({ ...compare.matrix, theme: theme() }), 'munjang.png'));
  $('copy-snippet').addEventListener('click', async () => {
    await navigator.clipboard.writeText($('snippet').textContent).catch(() => getSelection().selectAllChildren($('snippet')));
  });
  addEventListener('drop', async (event) => {
    const [file] = event.dataTransfer?.files ?? [];
    if (!file || $('panel-compare').hidden) return;
    event.preventDefault();
    try {
      const lines = linesOf(file.name, new Uint8Array(await file.arrayBuffer()));
      const count = compare.fillFrom(lines);
      say(lines.length > MOST ? words().filledPartly(file.name, count) : words().filled(file.name, count));
    } catch (error) {
      say(`${file.name}: ${words().fileTrouble[error instanceof FileError ? error.code : 'fileUnreadable']}`);
    }
  });
  addEventListener('dragover', (event) => {
    if ([...(event.dataTransfer?.types ?? [])].includes('Files')) event.preventDefault();
  });
  const shared = await fromFragment(location.hash, MOST);
  if (shared) await compare.fill(shared);
}

/** A table's first two columns, or any other file's texts. */
function linesOf(name, bytes) {
  if (bytes.length > MAX_FILE_BYTES) throw new FileError('fileLarge');
  if (!/\.(csv|tsv)$/i.test(name)) return readTexts(name, bytes).map(({ text }) => ({ first: text }));
  const content = decode(bytes).replace(/^\ufeff/, '').replace(/\r\n?/g, '\n');
  return parseCsv(content, /\.tsv$/i.test(name) ? '\t' : ',')
    .map(([first = '', second = '']) => ({ first: first.trim(), second: second.trim() }))
    .filter(({ first }) => /[\p{L}\p{N}]/u.test(first));
}
