// The heat map's colours: straight lines in OKLab, one per theme, with a text colour that always
// reaches a contrast of 4.5 : 1 (tests/js/page.test.js holds it to that).

export const RAMPS = {
  light: { stops: ['#f1f0ea', '#bfdcd2', '#5fa99d', '#0e6b63', '#083c3b'], dark: '#000000', light: '#ffffff' },
  dark: { stops: ['#1d2427', '#1f4245', '#237773', '#4bb6a8', '#b4f1e2'], dark: '#000000', light: '#ffffff' },
};

/**
 * Where the colours begin. A good encoder puts unrelated sentences near 0; one that was not trained
 * to use the whole range puts them all near 1, and then only the upper part says anything. Decided
 * once per model, on sentences that are known to differ, so that a colour keeps its meaning.
 * @param {number[]} values cosines of such sentences
 */
export function lowEnd(values) {
  const least = Math.min(...values);
  return least < 0.5 ? 0 : Math.min(Math.floor(least * 10) / 10, 0.9);
}

/**
 * @param {number} value from 0 to 1; below 0 counts as 0, above 1 as 1
 * @param {'light' | 'dark'} theme
 * @returns {{ background: string, text: string }} as #rrggbb
 */
export function heat(value, theme) {
  const { stops, dark, light } = RAMPS[theme];
  const at = Math.min(Math.max(value, 0), 1) * (stops.length - 1);
  const from = Math.min(Math.floor(at), stops.length - 2);
  const a = toOklab(stops[from]);
  const b = toOklab(stops[from + 1]);
  const background = fromOklab(a.map((x, i) => x + (b[i] - x) * (at - from)));
  return { background, text: contrast(background, dark) >= contrast(background, light) ? dark : light };
}

/** A CSS gradient of the ramp, for the legend. */
export const gradient = (theme) =>
  `linear-gradient(to right, ${Array.from({ length: 21 }, (_, i) => heat(i / 20, theme).background).join(', ')})`;

/** The contrast ratio of two colours as WCAG defines it, 1 to 21. */
export function contrast(a, b) {
  const [low, high] = [luminance(a), luminance(b)].sort((x, y) => x - y);
  return (high + 0.05) / (low + 0.05);
}

const channels = (hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16) / 255);
const toLinear = (c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
const fromLinear = (c) => (c <= 0.0031308 ? c * 12.92 : 1.055 * c ** (1 / 2.4) - 0.055);

function luminance(hex) {
  const [r, g, b] = channels(hex).map(toLinear);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

function toOklab(hex) {
  const [r, g, b] = channels(hex).map(toLinear);
  const l = Math.cbrt(0.4122214708 * r + 0.5363325363 * g + 0.0514459929 * b);
  const m = Math.cbrt(0.2119034982 * r + 0.6806995451 * g + 0.1073969566 * b);
  const s = Math.cbrt(0.0883024619 * r + 0.2817188376 * g + 0.6299787005 * b);
  return [
    0.2104542553 * l + 0.793617785 * m - 0.0040720468 * s,
    1.9779984951 * l - 2.428592205 * m + 0.4505937099 * s,
    0.0259040371 * l + 0.7827717662 * m - 0.808675766 * s,
  ];
}

function fromOklab([lightness, a, b]) {
  const l = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3;
  const m = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3;
  const s = (lightness - 0.0894841775 * a - 1.291485548 * b) ** 3;
  const rgb = [
    4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s,
    -1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s,
    -0.0041960863 * l - 0.7034186147 * m + 1.707614701 * s,
  ];
  return `#${rgb.map((c) => Math.round(255 * Math.min(Math.max(fromLinear(c), 0), 1)).toString(16).padStart(2, '0')).join('')}`;
}
