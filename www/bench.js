import { loadEncoder } from '../pkg/index.js';
import { STRINGS, applyLanguage, firstLanguage, keepLanguage } from './i18n.js';
import { keepForOffline } from './offline.js';
import { texts } from './workloads.js';

const $ = (id) => document.getElementById(id);
// `bench.html?rounds=1` is for a quick look.
const ROUNDS = Math.max(1, Number.parseInt(new URLSearchParams(location.search).get('rounds'), 10) || 7);
const BULK = 1024;
let language = firstLanguage();
let report;
let state = { name: 'benchIdle' };

const words = () => STRINGS[language];

async function run() {
  $('start').disabled = true;
  $('copy').disabled = true;
  report = { when: new Date().toISOString(), userAgent: navigator.userAgent, cores: navigator.hardwareConcurrency, rounds: ROUNDS, builds: {} };
  try {
    for (const build of ['relaxed', 'simd128']) {
      say('benchRunning', build);
      report.builds[build] = await measureBuild(build);
      show();
    }
    say('benchRunning', words().benchBulk);
    await measureStart();
    await measureBulk();
    say('benchDone');
    $('copy').disabled = false;
  } catch (error) {
    say('benchFailed', error.message);
  }
  show();
  $('start').disabled = false;
}

function measureBuild(build) {
  return new Promise((resolve, reject) => {
    const worker = new Worker(new URL('./bench-worker.js', import.meta.url), { type: 'module' });
    worker.onerror = (event) => reject(new Error(event.message || 'the worker did not start'));
    worker.onmessage = ({ data }) => {
      report.builds[build] = data;
      show();
      if (!data.done && !data.error) return;
      worker.terminate();
      resolve(data);
    };
    worker.postMessage({ build, rounds: ROUNDS });
  });
}

async function fillCache() {
  for (let n = 0; n < 20; n++) {
    const encoder = await loadEncoder();
    const { source } = encoder.info;
    encoder.dispose();
    if (source === 'cache') return;
    // It is written in the background.
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

/** From the call to the first embedding: as a new visitor would wait, and with everything cached. */
async function measureStart() {
  for (const [name, cache] of [['network', false], ['cache', true]]) {
    if (cache) await fillCache();
    const started = performance.now();
    const encoder = await loadEncoder({ cache });
    await encoder.encode('첫 문장');
    report.start = { ...report.start, [name]: { ms: performance.now() - started, source: encoder.info.source, ...encoder.info.timings } };
    encoder.dispose();
  }
}

async function measureBulk() {
  const sentences = texts(BULK);
  report.bulk = {};
  for (const workers of [1, Math.min(Math.max(navigator.hardwareConcurrency ?? 2, 2), 4)]) {
    const encoder = await loadEncoder({ workers });
    await encoder.encode(sentences.slice(0, 128));
    const started = performance.now();
    await encoder.encode(sentences);
    report.bulk[workers] = (BULK / (performance.now() - started)) * 1000;
    encoder.dispose();
    show();
  }
}

function say(name, detail) {
  state = { name, detail };
  $('state').textContent = typeof words()[name] === 'function' ? words()[name](detail) : words()[name];
}

const ms = (value) => (value === undefined ? '–' : value < 10 ? value.toFixed(2) : value.toFixed(0));

function show() {
  if (!report) return;
  const builds = Object.entries(report.builds);
  const rows = [['w1', words().benchW1], ['w2', words().benchW2], ['w3', words().benchW3], ['w2 text', words().benchText]].map(
    ([name, what]) => [`${name}: ${what}`, ...builds.map(([, { results, error }]) => (error ? '–' : ms(results?.[name]?.median)))]);
  const tables = [table([words().benchWork, ...builds.map(([build]) => `${build} (ms)`)], rows)];
  if (report.start) {
    const parts = ['worker', 'code', 'instantiate', 'fetch', 'verify', 'model'];
    tables.push(table([words().benchStart2, ...parts, words().benchFirst],
      Object.entries(report.start).map(([name, timings]) => [words()[name], ...parts.map((part) => ms(timings[part])), ms(timings.ms)])));
  }
  if (report.bulk) {
    tables.push(table([words().benchWorkers, words().benchRate],
      Object.entries(report.bulk).map(([workers, rate]) => [workers, rate.toFixed(0)])));
  }
  $('out').replaceChildren(...tables);
}

function table(head, rows) {
  const element = document.createElement('table');
  element.className = 'results';
  const line = (cells, tag) => {
    const row = document.createElement('tr');
    row.append(...cells.map((text, i) => {
      const cell = document.createElement(i === 0 ? 'th' : tag);
      cell.scope = tag === 'th' ? 'col' : i === 0 ? 'row' : '';
      cell.textContent = text;
      return cell;
    }));
    return row;
  };
  element.createTHead().append(line(head, 'th'));
  element.createTBody().append(...rows.map((row) => line(row, 'td')));
  return element;
}

function speak(next) {
  language = next;
  applyLanguage(language);
  document.title = `munjang: ${words().benchTitle}`;
  say(state.name, state.detail);
  show();
}

for (const button of document.querySelectorAll('[data-lang]')) {
  button.addEventListener('click', () => {
    keepLanguage(button.dataset.lang);
    speak(button.dataset.lang);
  });
}
$('start').addEventListener('click', run);
$('copy').addEventListener('click', async () => {
  await navigator.clipboard.writeText(JSON.stringify(report, null, 2));
  say('benchCopied');
});
speak(language);
void keepForOffline();
