import { loadEncoder } from '../pkg/index.js';
import { gradient, lowEnd } from './color.js';
import { STRINGS, applyLanguage, firstLanguage, keepLanguage } from './i18n.js';
import { MatrixView, format } from './matrix.js';

// Four pairs of the KLUE-STS development set, CC BY-SA 4.0 (credited in the footer).
const FIRST = {
  rows: [
    '다만, 도로와 인접해서 거리의 소음이 들려요.',
    '형이 다시 캐나다 들어가야 하니 가족모임 일정은 바꾸지 마세요.',
    '방안에 필요한 시설이 모두 있어서 매우 편리합니다.',
    '관광자원화 검토를 모범적으로 적용한 지자체에는 홍보·컨설팅, 관광상품 개발 지원 등을 제공할 계획이다.',
  ],
  columns: [
    '하지만, 길과 가깝기 때문에 거리의 소음을 들을 수 있습니다.',
    '가족 모임 일정은 바꾸지 말도록 하십시오.',
    '특히, 숙소 근처에 안전한 실내 주차장이 있어서 편리합니다.',
    '아울러 지자체, 지역관광협회 등과 함께 수시로 관광지 현장을 점검할 계획이다.',
  ],
};
const LETTER = { rows: 'A', columns: 'B' };
const TYPING_PAUSE_MS = 120;
const KEPT_RESULTS = 500;

const $ = (id) => document.getElementById(id);
const groups = { rows: [...FIRST.rows], columns: [...FIRST.columns] };
/** Embeddings of texts seen so far, so that one edit encodes one sentence. */
const known = new Map();
let language = firstLanguage();
let encoder;
let failure;
let perSentence;
let bytes;
let pending;
let timer;

const words = () => STRINGS[language];
const view = new MatrixView($('matrix'), showPair);

// ---------------------------------------------------------------- loading

async function load() {
  failure = undefined;
  bytes = undefined;
  showStatus();
  try {
    encoder = await loadEncoder({
      onProgress: (progress) => {
        bytes = progress;
        showProgress();
      },
    });
    await calibrate();
    await update();
    if (failure) return;
    announce(words().ready);
    await measure();
  } catch (error) {
    fail(error, 'failedLoad');
  }
  showStatus();
}

/** Fits the colours to the model; see `lowEnd`. */
async function calibrate() {
  const matrix = await encoder.similarity(FIRST.rows, FIRST.columns);
  view.low = lowEnd(matrix.flatMap((row) => [...row]));
  document.querySelectorAll('.ticks i').forEach((tick, i) => {
    tick.textContent = String(Number((view.low + (1 - view.low) * (i / 2)).toFixed(2)));
  });
}

/** Milliseconds per sentence on the sentences that are there: the median of some warm rounds. */
async function measure() {
  const texts = [...groups.rows, ...groups.columns].filter((text) => text.trim());
  if (texts.length === 0) return;
  const rounds = [];
  for (let n = 0; n < 7; n++) {
    const started = performance.now();
    await encoder.encode(texts);
    rounds.push((performance.now() - started) / texts.length);
  }
  perSentence = rounds.sort((a, b) => a - b)[3];
}

function fail(error, title) {
  if (error?.name === 'AbortError') return;
  failure = { title, code: error?.code ?? 'unknown', message: error?.message ?? String(error) };
  showStatus();
}

function showProgress() {
  const mb = (n) => (n / 1e6).toFixed(1);
  const { loaded = 0, total = null } = bytes ?? {};
  $('bytes').textContent = bytes ? words().bytesOf(mb(loaded), total === null ? null : mb(total)) : '';
  if (total === null) $('progress').removeAttribute('value');
  else $('progress').value = loaded / total;
}

function showStatus() {
  $('loading').hidden = Boolean(encoder || failure);
  $('failure').hidden = !failure;
  $('facts').hidden = !encoder || Boolean(failure);
  showProgress();
  if (failure) {
    $('failure-title').textContent = words()[failure.title];
    $('failure-advice').textContent = words().advice[failure.code] ?? words().advice.other;
    $('failure-code').textContent = failure.code;
    $('failure-message').textContent = failure.message;
  }
  if (encoder) {
    const { info } = encoder;
    $('fact-model').textContent = info.modelId;
    $('fact-size').textContent = words().size((info.bytes / 1e6).toFixed(1));
    $('fact-build').textContent = info.build === 'relaxed' ? 'relaxed SIMD' : 'SIMD 128';
    $('fact-source').textContent = words()[info.source];
    $('fact-speed').textContent = perSentence === undefined ? '–'
      : words().speed(perSentence < 10 ? perSentence.toFixed(1) : perSentence.toFixed(0));
  }
}

// ---------------------------------------------------------------- the matrix

function changed() {
  clearTimeout(timer);
  timer = setTimeout(update, TYPING_PAUSE_MS);
}

/** Encodes what is new and shows the matrix; a newer call makes an older one's result void. */
async function update() {
  clearTimeout(timer);
  pending?.abort();
  if (!encoder) {
    show();
    return;
  }
  const controller = (pending = new AbortController());
  const texts = [...new Set([...groups.rows, ...groups.columns])].filter((text) => text.trim() && !known.has(text));
  $('matrix').setAttribute('aria-busy', 'true');
  try {
    const report = await encoder.encodeWithReport(texts, { signal: controller.signal });
    if (controller.signal.aborted) return;
    texts.forEach((text, i) => known.set(text, {
      embedding: report.embeddings[i],
      tokens: report.tokenCounts[i],
      truncated: report.truncated[i],
    }));
    if (failure?.title === 'failedEncode') failure = undefined;
    show();
    forget();
    showStatus();
  } catch (error) {
    fail(error, 'failedEncode');
  }
}

function show() {
  const label = (group) => groups[group].map((text, i) => ({ name: nameOf(group, i), text }));
  const values = groups.rows.map((a) => groups.columns.map((b) => cosine(known.get(a), known.get(b))));
  view.render(label('rows'), label('columns'), values, words());
  $('matrix').setAttribute('aria-busy', String(!encoder));
  showNotes();
  showPair();
}

function cosine(a, b) {
  if (!a || !b) return null;
  let sum = 0;
  for (let i = 0; i < a.embedding.length; i++) sum += a.embedding[i] * b.embedding[i];
  return sum;
}

/** Lets go of texts that are no longer shown, oldest first. */
function forget() {
  const shown = new Set([...groups.rows, ...groups.columns]);
  for (const text of known.keys()) {
    if (known.size <= KEPT_RESULTS) return;
    if (!shown.has(text)) known.delete(text);
  }
}

function showPair() {
  const { row, column } = view.selected;
  const [a, b] = [groups.rows[row], groups.columns[column]];
  const value = cosine(known.get(a), known.get(b));
  const pair = $('pair');
  pair.replaceChildren();
  if (value === null) return;
  const sentence = (text) => Object.assign(document.createElement('q'), { lang: 'ko', textContent: text.trim() });
  pair.append(
    Object.assign(document.createElement('strong'), {
      textContent: words().pair(nameOf('rows', row), nameOf('columns', column), format(value)),
    }),
    sentence(a),
    sentence(b),
  );
}

// ---------------------------------------------------------------- the sentences

const nameOf = (group, index) => `${LETTER[group]}${index + 1}`;

function fieldset(group) {
  return document.querySelector(`fieldset[data-group="${group}"]`);
}

function buildEditor(group) {
  const list = fieldset(group).querySelector('ol');
  list.replaceChildren(...groups[group].map((text, index) => {
    const item = document.createElement('li');
    const chip = Object.assign(document.createElement('span'), { className: 'chip', textContent: nameOf(group, index) });
    chip.setAttribute('aria-hidden', 'true');
    const area = Object.assign(document.createElement('textarea'), {
      value: text, rows: 1, lang: 'ko', spellcheck: false, placeholder: words().placeholder });
    area.setAttribute('aria-label', words().sentence(nameOf(group, index)));
    area.setAttribute('aria-describedby', `note-${group}-${index}`);
    area.addEventListener('input', () => {
      groups[group][index] = area.value;
      grow(area);
      changed();
    });
    const remove = Object.assign(document.createElement('button'), { type: 'button', className: 'remove', textContent: '×' });
    remove.setAttribute('aria-label', words().remove(nameOf(group, index)));
    remove.disabled = groups[group].length === 1;
    remove.addEventListener('click', () => removeSentence(group, index));
    const note = Object.assign(document.createElement('p'), { className: 'note', id: `note-${group}-${index}` });
    item.append(chip, area, remove, note);
    return item;
  }));
  for (const area of list.querySelectorAll('textarea')) grow(area);
}

function grow(area) {
  area.style.height = 'auto';
  area.style.height = `${area.scrollHeight + area.offsetHeight - area.clientHeight}px`;
}

function showNotes() {
  for (const group of Object.keys(groups)) {
    groups[group].forEach((text, index) => {
      const result = known.get(text);
      const note = $(`note-${group}-${index}`);
      if (note) note.textContent = result?.truncated ? words().truncated(result.tokens, encoder.info.maxTokens) : '';
    });
  }
}

function addSentence(group) {
  groups[group].push('');
  buildEditor(group);
  fieldset(group).querySelector('li:last-child textarea').focus();
  update();
}

function removeSentence(group, index) {
  if (groups[group].length === 1) return;
  announce(words().removed(nameOf(group, index)));
  groups[group].splice(index, 1);
  buildEditor(group);
  // The focus goes to the neighbour, not to the top of the page.
  fieldset(group).querySelectorAll('textarea')[Math.min(index, groups[group].length - 1)].focus();
  update();
}

// ---------------------------------------------------------------- the rest

function announce(text) {
  $('announce').textContent = text;
}

function speak(next) {
  language = next;
  applyLanguage(language);
  document.title = words().pageTitle;
  buildEditor('rows');
  buildEditor('columns');
  show();
  showStatus();
}

for (const button of document.querySelectorAll('[data-lang]')) {
  button.addEventListener('click', () => {
    keepLanguage(button.dataset.lang);
    speak(button.dataset.lang);
  });
}
for (const group of Object.keys(groups)) {
  fieldset(group).querySelector('.add').addEventListener('click', () => addSentence(group));
}
$('reset').addEventListener('click', () => {
  for (const group of Object.keys(groups)) {
    groups[group] = [...FIRST[group]];
    buildEditor(group);
  }
  update();
});
$('retry').addEventListener('click', () => {
  if (!encoder) {
    load();
    return;
  }
  failure = undefined;
  showStatus();
  update();
});
addEventListener('resize', () => {
  for (const area of document.querySelectorAll('textarea')) grow(area);
});
for (const theme of ['light', 'dark']) $('ramp').style.setProperty(`--${theme}`, gradient(theme));

speak(language);
load();

// Offline use needs a scope that holds the page and the package beside it. Where the page lies
// below its origin's root, the server must allow that (Service-Worker-Allowed); without, no harm.
navigator.serviceWorker?.register('sw.js', { scope: '../' }).catch(() => {});
