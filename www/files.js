// Texts out of the visitor's files: .txt, .md, .csv, .tsv and .jsonl, in UTF-8, UTF-16 or EUC-KR
// (as Korean spreadsheets still save). Nothing here touches the page.

/** Files are read whole into memory. */
export const MAX_FILE_BYTES = 20_000_000;

const TEXT_NAMES = ['text', 'body', 'content', 'sentence', '내용', '본문', '문장', '글', '텍스트', '메모'];
const READERS = new Map([
  ['txt', readPlain], ['text', readPlain], ['md', readMarkdown], ['markdown', readMarkdown],
  ['csv', readTable], ['tsv', readTable], ['jsonl', readJsonLines], ['ndjson', readJsonLines],
]);
const TITLE_NAMES = ['title', 'name', 'subject', '제목', '이름'];

/** What a visitor can do something about; `code` names the words that say it. */
export class FileError extends Error {
  constructor(code, line) {
    super(code);
    this.name = 'FileError';
    this.code = code;
    this.line = line;
  }
}

/**
 * @param {string} name with its ending
 * @param {Uint8Array} bytes
 * @returns {{ text: string, title?: string }[]} never empty
 */
export function readTexts(name, bytes) {
  const read = READERS.get(name.toLowerCase().split('.').pop());
  if (!read) throw new FileError('fileKind');
  if (bytes.length > MAX_FILE_BYTES) throw new FileError('fileLarge');
  const texts = read(decode(bytes).replace(/\r\n?/g, '\n')).filter(({ text }) => /[\p{L}\p{N}]/u.test(text));
  if (texts.length === 0) throw new FileError('fileEmpty');
  return texts;
}

/** @param {Uint8Array} bytes */
export function decode(bytes) {
  const marks = { 'utf-16le': [0xff, 0xfe], 'utf-16be': [0xfe, 0xff] };
  for (const [encoding, mark] of Object.entries(marks)) {
    if (mark.every((byte, i) => bytes[i] === byte)) return new TextDecoder(encoding).decode(bytes);
  }
  // No text has it, and pictures, PDF and office files do.
  if (bytes.subarray(0, 8192).includes(0)) throw new FileError('fileBinary');
  for (const encoding of ['utf-8', 'euc-kr']) {
    try {
      return new TextDecoder(encoding, { fatal: true }).decode(bytes);
    } catch {
      // The next one.
    }
  }
  throw new FileError('fileBinary');
}

/**
 * Paragraphs are set apart by empty lines. The lines of one are joined, as they are mere line
 * breaks, unless most of them end like sentences: then each is a text of its own.
 */
export function readPlain(content) {
  return content.split(/\n\s*\n/).flatMap((paragraph) => {
    const lines = paragraph.split('\n').map((line) => line.trim()).filter(Boolean);
    const ended = lines.filter((line) => /[.?!…。]["'”’)\]]*$|[다요죠까]$/u.test(line)).length;
    return ended * 2 > lines.length ? lines : [lines.join(' ')];
  }).map((text) => ({ text }));
}

function readMarkdown(content) {
  const texts = [];
  let title;
  let lines = [];
  const end = () => {
    if (lines.length > 0) texts.push({ text: lines.join(' '), ...(title && { title }) });
    lines = [];
  };
  const body = content.replace(/^---\n[\s\S]*?\n---\n/, '').replace(/^(```|~~~)[\s\S]*?^\1.*$/gm, '').replace(/<!--[\s\S]*?-->/g, '');
  for (const line of body.split('\n')) {
    const heading = line.match(/^#{1,6}\s+(.*?)#*$/);
    if (heading || !line.trim() || /^\s*([-*+]|\d+[.)])\s/.test(line) || /^\s*\|/.test(line)) end();
    if (heading) title = withoutMarks(heading[1]);
    else if (!/^[\s|:=-]*$/.test(line)) lines.push(withoutMarks(line));
  }
  end();
  return texts;
}

function withoutMarks(line) {
  return line
    .replace(/!\[([^\]]*)\]\([^)]*\)/g, '$1')
    .replace(/\[([^\]]*)\]\([^)]*\)/g, '$1')
    .replace(/<\/?[a-z][^>]*>/gi, '')
    .replace(/^\s*(>\s*)*([-*+]\s+(\[[ x]\]\s+)?|\d+[.)]\s+)?/, '')
    .replace(/(\*\*|__|~~|`)/g, '')
    .replace(/(^|\s)[*_](\S.*?)[*_](?=\s|$)/g, '$1$2')
    .replace(/\s*\|\s*/g, ' ')
    .trim();
}

function readTable(content) {
  const first = content.slice(0, content.indexOf('\n') + 1 || undefined);
  const delimiter = ['\t', ';', ','].sort((a, b) => first.split(b).length - first.split(a).length)[0];
  const rows = parseCsv(content, delimiter).filter((row) => row.some((cell) => cell.trim()));
  if (rows.length === 0) return [];
  const names = rows[0].map((cell) => cell.trim().toLowerCase());
  const named = (wanted) => names.findIndex((name) => wanted.includes(name));
  const title = named(TITLE_NAMES);
  let column = named(TEXT_NAMES);
  const headed = column >= 0 || title >= 0 || (rows.length > 1 && names.every((name) => name && name.length < 20 && !/\d/.test(name)));
  const body = headed ? rows.slice(1) : rows;
  if (column < 0) {
    // The column with the longest texts.
    const lengths = names.map((_, i) => (i === title && names.length > 1 ? -1 : body.reduce((sum, row) => sum + (row[i]?.length ?? 0), 0)));
    column = lengths.indexOf(Math.max(...lengths));
  }
  return body.map((row) => ({
    text: (row[column] ?? '').replace(/\s+/g, ' ').trim(),
    ...(title >= 0 && title !== column && row[title]?.trim() && { title: row[title].trim() }),
  }));
}

/** Rows of cells (RFC 4180); a quote that is never closed ends with the file. */
export function parseCsv(content, delimiter = ',') {
  const rows = [];
  let row = [];
  let cell = '';
  let quoted = false;
  const endCell = () => {
    row.push(cell);
    cell = '';
  };
  for (let i = 0; i < content.length; i++) {
    const c = content[i];
    if (quoted) {
      if (c !== '"') cell += c;
      else if (content[i + 1] === '"') cell += content[++i];
      else quoted = false;
    } else if (c === '"' && cell === '') quoted = true;
    else if (c === delimiter) endCell();
    else if (c === '\n') {
      endCell();
      rows.push(row);
      row = [];
    } else cell += c;
  }
  if (cell !== '' || row.length > 0) {
    endCell();
    rows.push(row);
  }
  return rows;
}

function readJsonLines(content) {
  return content.split('\n').flatMap((line, i) => {
    if (!line.trim()) return [];
    let value;
    try {
      value = JSON.parse(line);
    } catch {
      throw new FileError('fileJson', i + 1);
    }
    if (typeof value === 'string') return [{ text: value }];
    const strings = Object.entries(value ?? {}).filter(([, v]) => typeof v === 'string');
    const named = (wanted) => strings.find(([key]) => wanted.includes(key.toLowerCase()))?.[1];
    const text = named(TEXT_NAMES) ?? strings.map(([, v]) => v).sort((a, b) => b.length - a.length)[0];
    const title = named(TITLE_NAMES);
    return text === undefined ? [] : [{ text, ...(title && title !== text && { title }) }];
  });
}
