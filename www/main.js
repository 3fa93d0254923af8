import { loadEncoder } from '../pkg/index.js';
import { Compare } from './compare.js';
import { addTools } from './compare_tools.js';
import { STRINGS, applyLanguage, firstLanguage, keepLanguage } from './i18n.js';
import { keepForOffline } from './offline.js';
import { makeTabs } from './tabs.js';

const $ = (id) => document.getElementById(id);
let language = firstLanguage();
let encoder;
let failure;
let perSentence;
let bytes;
let search;

const words = () => STRINGS[language];
const announce = (text) => { $('announce').textContent = text; };
const compare = new Compare({
  announce,
  fail: (error) => fail(error, 'failedEncode'),
  done() {
    if (failure?.title === 'failedEncode') failure = undefined;
    showStatus();
  },
});

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
    search?.setEncoder(encoder);
    showStatus();
    await compare.start(encoder);
    if (failure) return;
    announce(words().ready);
    perSentence = await compare.measure();
  } catch (error) {
    fail(error, 'failedLoad');
  }
  showStatus();
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
  $('facts').hidden = !encoder;
  showProgress();
  if (failure) {
    $('failure-title').textContent = words()[failure.title];
    $('failure-advice').textContent = words().advice[failure.code] ?? words().advice.other;
    $('failure-code').textContent = failure.code;
    $('failure-message').textContent = failure.message;
  }
  if (!encoder) return;
  const { info } = encoder;
  $('fact-model').textContent = info.modelId;
  $('fact-size').textContent = words().size((info.bytes / 1e6).toFixed(1));
  $('fact-build').textContent = info.build === 'relaxed' ? 'relaxed SIMD' : 'SIMD 128';
  $('fact-source').textContent = words()[info.source];
  $('fact-speed').textContent = perSentence === undefined ? '–'
    : words().speed(perSentence < 10 ? perSentence.toFixed(1) : perSentence.toFixed(0));
}

$('retry').addEventListener('click', () => {
  if (!encoder) {
    load();
    return;
  }
  failure = undefined;
  showStatus();
  compare.update();
});

// ---------------------------------------------------------------- tabs

const tabs = makeTabs($('tabs'), async (panel) => {
  if (panel === 'panel-compare') {
    compare.fit();
    return;
  }
  try {
    if (!search) {
      // Its code and the index's come when somebody wants them.
      const { Search } = await import('./search.js');
      search ??= new Search(words(), announce);
      search.speak(words());
      if (encoder) search.setEncoder(encoder);
    }
    search.open();
  } catch (error) {
    fail(error, 'failedSearch');
  }
});

// ---------------------------------------------------------------- language

function speak(next) {
  language = next;
  applyLanguage(language);
  document.title = words().pageTitle;
  compare.speak(words());
  search?.speak(words());
  showStatus();
}

for (const button of document.querySelectorAll('[data-lang]')) {
  button.addEventListener('click', () => {
    keepLanguage(button.dataset.lang);
    speak(button.dataset.lang);
  });
}

speak(language);
// A link to #search, or #search=words, opens the other tab.
const [, wanted] = location.hash.match(/^#search(?:=(.*))?$/) ?? [];
if (location.hash.startsWith('#search')) {
  if (wanted) $('query').value = decodeWords(wanted);
  tabs.open('panel-search');
}
addTools(compare, words);
load();

function decodeWords(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return '';
  }
}

void keepForOffline();
