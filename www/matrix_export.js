// The matrix as a table for spreadsheets and as a picture.
import { heat } from './color.js';
import { format } from './matrix.js';

/** CSV with a byte order mark, without which spreadsheets read Korean as EUC-KR. */
export function toCsv({ rows, columns, values }) {
  const cell = (text) => {
    // What a spreadsheet would run as a formula is kept a text.
    const safe = /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
    return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  };
  const lines = [['', ...columns].map(cell), ...rows.map((row, r) => [cell(row), ...values[r].map((v) => (v === null ? '' : v.toFixed(4)))])];
  return `\ufeff${lines.map((line) => line.join(',')).join('\r\n')}\r\n`;
}

const HEAD = 300;
const CELL = { width: 150, height: 84 };
const TOP = 130;
const MARGIN = 32;

/**
 * @param {{ rows: string[], columns: string[], values: (number | null)[][], low: number, theme: 'light' | 'dark' }} matrix
 * @returns {Promise<Blob>} a PNG
 */
export function toPng({ rows, columns, values, low, theme }) {
  const canvas = document.createElement('canvas');
  const scale = 2;
  const width = MARGIN * 2 + HEAD + columns.length * CELL.width;
  const height = MARGIN * 2 + TOP + rows.length * CELL.height + 24;
  canvas.width = width * scale;
  canvas.height = height * scale;
  const context = canvas.getContext('2d');
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(`--${name}`).trim();
  const font = (size, weight = 400) => `${weight} ${size}px ${colour('sans')}`;
  context.scale(scale, scale);
  context.fillStyle = colour('paper');
  context.fillRect(0, 0, width, height);
  context.textBaseline = 'middle';
  const label = (text, x, y, room, most) => {
    context.font = font(15);
    context.fillStyle = colour('ink');
    const lines = wrap(context, text, room, most);
    lines.forEach((line, i) => context.fillText(line, x, y + (i - (lines.length - 1) / 2) * 20));
  };
  columns.forEach((text, c) => label(text, MARGIN + HEAD + c * CELL.width + 8, MARGIN + TOP / 2, CELL.width - 16, 5));
  rows.forEach((text, r) => {
    const y = MARGIN + TOP + r * CELL.height;
    label(text, MARGIN, y + CELL.height / 2, HEAD - 20, 3);
    values[r].forEach((value, c) => {
      const { background, text: ink } = heat(value === null ? 0 : (value - low) / (1 - low), theme);
      context.fillStyle = background;
      context.beginPath();
      context.roundRect(MARGIN + HEAD + c * CELL.width + 2, y + 2, CELL.width - 4, CELL.height - 4, 8);
      context.fill();
      context.fillStyle = ink;
      context.font = font(20, 600);
      context.textAlign = 'center';
      context.fillText(value === null ? '–' : format(value), MARGIN + HEAD + (c + 0.5) * CELL.width, y + CELL.height / 2);
      context.textAlign = 'left';
    });
  });
  context.font = font(13);
  context.fillStyle = colour('soft');
  context.fillText('문장 munjang', MARGIN, height - MARGIN + 4);
  return new Promise((resolve, reject) => {
    canvas.toBlob((blob) => (blob ? resolve(blob) : reject(new Error('the picture could not be made'))), 'image/png');
  });
}

/** `text` in lines of at most `room` pixels; what is more than `most` of them ends in an ellipsis. */
function wrap(context, text, room, most) {
  const lines = [''];
  for (const character of text.trim()) {
    const line = lines.at(-1) + character;
    if (context.measureText(line).width <= room) lines[lines.length - 1] = line;
    else if (lines.length === most) {
      lines[most - 1] = `${lines[most - 1].slice(0, -1)}…`;
      break;
    } else lines.push(character.trim());
  }
  return lines;
}

/** Gives the visitor a file. */
export function download(name, blob) {
  const link = document.createElement('a');
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  // Not at once: the browser reads it after the click.
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
