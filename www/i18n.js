// The page's words in both languages.

export const STRINGS = {
  ko: {
    pageTitle: '문장 munjang: 페이지 안에서 견주는 문장의 뜻',
    skip: '유사도 행렬로 건너뛰기',
    language: '언어',
    title: '문장의 뜻을 페이지 안에서 견줍니다',
    lead: '작은 트랜스포머가 한국어 문장을 벡터로 바꾸고, 두 벡터의 코사인으로 뜻이 얼마나 가까운지 보여 줍니다. 서버도 업로드도 없습니다. 고쳐 쓰면 행렬이 따라옵니다.',
    statusLabel: '모델',
    loading: '모델을 불러오는 중',
    factModel: '모델', factSize: '크기', factBuild: '빌드', factSpeed: '문장당', factSource: '가져온 곳',
    network: '네트워크', cache: '캐시', file: '파일',
    bytesOf: (loaded, total) => (total ? `${loaded} / ${total} MB` : `${loaded} MB`),
    size: (mb) => `${mb} MB`,
    speed: (ms) => `${ms} ms`,
    matrixTitle: '코사인 유사도',
    caption: '행은 A, 열은 B 문장이고, 칸은 두 문장의 코사인 유사도입니다.',
    legendLow: '무관함', legendHigh: '같은 뜻', legendBest: '행에서 가장 가까움',
    hint: '칸을 고르면 두 문장이 나옵니다. 키보드로는 Tab으로 들어와 화살표로 옮깁니다.',
    editorTitle: '문장',
    rows: '행 A', columns: '열 B',
    addRow: '행에 문장 추가', addColumn: '열에 문장 추가',
    sentence: (name) => `문장 ${name}`,
    remove: (name) => `문장 ${name} 지우기`,
    placeholder: '한국어 문장을 써 보세요',
    reset: '처음 문장으로',
    empty: '(빈 문장)',
    truncated: (tokens, max) => `토큰이 ${tokens}개 이상이라 앞의 ${max}개까지만 읽었습니다.`,
    pair: (a, b, value) => `${a} × ${b}: ${value}`,
    updated: '행렬을 새로 계산했습니다.',
    removed: (name) => `문장 ${name}을(를) 지웠습니다.`,
    ready: '준비되었습니다.',
    retry: '다시 시도',
    failedLoad: '모델을 불러오지 못했습니다',
    failedEncode: '문장을 계산하지 못했습니다',
    advice: {
      network: '인터넷 연결을 확인하고 다시 시도해 주세요.',
      model_not_found: '모델 파일이 서버에 없습니다. 페이지를 ./build.sh demo로 띄웠는지 확인해 주세요.',
      not_a_model: '모델 대신 다른 것이 왔습니다. 페이지를 ./build.sh demo로 띄웠는지 확인해 주세요.',
      download_truncated: '내려받기가 도중에 끊겼습니다. 다시 시도해 주세요.',
      checksum_mismatch: '받은 파일이 손상되었습니다. 다시 시도해 주세요.',
      unsupported_browser: '이 브라우저에는 WebAssembly SIMD가 없습니다. 최신 Chrome, Firefox, Safari(16.4 이상)에서 열어 주세요.',
      out_of_memory: '메모리가 모자랍니다. 다른 탭을 닫고 다시 시도해 주세요.',
      crashed: '인코더가 멈췄습니다. 다시 시도하면 새로 시작합니다.',
      other: '다시 시도해 주세요. 그래도 안 되면 아래 내용을 알려 주세요.',
    },
    credit: '처음 문장들은 <a href="https://klue-benchmark.com/tasks/67/overview/description">KLUE-STS</a> 개발 세트의 네 쌍입니다 (KLUE 팀, <a href="https://creativecommons.org/licenses/by-sa/4.0/deed.ko">CC BY-SA 4.0</a>).',
    private: '쓴 문장은 이 페이지를 떠나지 않습니다.',
    benchLink: '이 기기에서 속도 재기',
    benchTitle: '이 기기에서 속도 재기',
    benchLead: '브라우저에서 문장을 벡터로 바꾸는 데 걸리는 시간을 잽니다. 한 스레드에서 여러 번 재어 가운데 값을 보여 주고, 결과는 복사할 수 있습니다. 30초쯤 걸립니다.',
    benchStart: '시작', benchCopy: '결과 복사', benchIdle: '', benchDone: '끝났습니다.', benchCopied: '복사했습니다.',
    benchRunning: (what) => `재는 중: ${what}`, benchFailed: (why) => `실패했습니다: ${why}`,
    benchBulk: '시작 시간과 여러 워커', benchWork: '작업',
    benchW1: '16토큰 문장 하나', benchW2: '8–40토큰 문장 256개', benchW3: '256토큰 글 하나', benchText: '문장 256개, 토큰화 포함',
    benchStart2: '시작 (ms)', benchFirst: '첫 벡터까지', benchWorkers: '워커', benchRate: '초당 문장',
  },
  en: {
    pageTitle: 'munjang: what Korean sentences mean, compared in the page',
    skip: 'Skip to the similarity matrix',
    language: 'Language',
    title: 'What Korean sentences mean, compared inside the page',
    lead: 'A small transformer turns each sentence into a vector; the cosine of two vectors says how close their meanings are. No server, no upload. Edit a sentence and the matrix follows.',
    statusLabel: 'Model',
    loading: 'Loading the model',
    factModel: 'Model', factSize: 'Size', factBuild: 'Build', factSpeed: 'Per sentence', factSource: 'From',
    network: 'network', cache: 'cache', file: 'file',
    bytesOf: (loaded, total) => (total ? `${loaded} of ${total} MB` : `${loaded} MB`),
    size: (mb) => `${mb} MB`,
    speed: (ms) => `${ms} ms`,
    matrixTitle: 'Cosine similarity',
    caption: 'Rows are the sentences A, columns the sentences B; each cell is the cosine similarity of the two.',
    legendLow: 'unrelated', legendHigh: 'same meaning', legendBest: 'closest in its row',
    hint: 'Choose a cell to read its two sentences. With the keyboard: Tab into the matrix, then the arrow keys.',
    editorTitle: 'Sentences',
    rows: 'Rows A', columns: 'Columns B',
    addRow: 'Add a sentence to the rows', addColumn: 'Add a sentence to the columns',
    sentence: (name) => `Sentence ${name}`,
    remove: (name) => `Remove sentence ${name}`,
    placeholder: 'Write a Korean sentence',
    reset: 'Back to the first sentences',
    empty: '(empty)',
    truncated: (tokens, max) => `It has ${tokens} tokens or more; only the first ${max} were read.`,
    pair: (a, b, value) => `${a} × ${b}: ${value}`,
    updated: 'The matrix is up to date.',
    removed: (name) => `Sentence ${name} removed.`,
    ready: 'Ready.',
    retry: 'Try again',
    failedLoad: 'The model could not be loaded',
    failedEncode: 'The sentences could not be encoded',
    advice: {
      network: 'Check the connection and try again.',
      model_not_found: 'The model file is not on the server. Was the page started with ./build.sh demo?',
      not_a_model: 'Something else came instead of the model. Was the page started with ./build.sh demo?',
      download_truncated: 'The download broke off. Try again.',
      checksum_mismatch: 'The file that came is damaged. Try again.',
      unsupported_browser: 'This browser has no WebAssembly SIMD. Use a current Chrome, Firefox or Safari (16.4 or newer).',
      out_of_memory: 'There is not enough memory. Close other tabs and try again.',
      crashed: 'The encoder stopped. Trying again starts a fresh one.',
      other: 'Try again. If it stays so, please report the lines below.',
    },
    credit: 'The first sentences are four pairs of the <a href="https://klue-benchmark.com/tasks/67/overview/description">KLUE-STS</a> development set (KLUE team, <a href="https://creativecommons.org/licenses/by-sa/4.0/">CC BY-SA 4.0</a>).',
    private: 'What you write does not leave this page.',
    benchLink: 'Measure the speed on this machine',
    benchTitle: 'The speed on this machine',
    benchLead: 'Measures how long this browser takes to turn sentences into vectors: one thread, the median of several rounds, and a result to copy. It takes about 30 seconds.',
    benchStart: 'Start', benchCopy: 'Copy the result', benchIdle: '', benchDone: 'Done.', benchCopied: 'Copied.',
    benchRunning: (what) => `Measuring: ${what}`, benchFailed: (why) => `It failed: ${why}`,
    benchBulk: 'start and several workers', benchWork: 'Workload',
    benchW1: 'one sentence of 16 tokens', benchW2: '256 sentences of 8 to 40 tokens', benchW3: 'one passage of 256 tokens', benchText: '256 sentences with tokenization',
    benchStart2: 'Start (ms)', benchFirst: 'to the first vector', benchWorkers: 'Workers', benchRate: 'Sentences per second',
  },
};

const KEY = 'munjang-language';

/** The language asked for in the address, chosen earlier, or that of the browser. */
export function firstLanguage() {
  const asked = new URLSearchParams(location.search).get('lang');
  if (asked in STRINGS) return asked;
  try {
    const kept = localStorage.getItem(KEY);
    if (kept in STRINGS) return kept;
  } catch {
    // Storage may be forbidden.
  }
  return navigator.languages?.some((name) => name.startsWith('ko')) ? 'ko' : 'en';
}

export function keepLanguage(language) {
  try {
    localStorage.setItem(KEY, language);
  } catch {
    // Then it is asked of the browser again next time.
  }
}

/** Puts the words into everything that names one. */
export function applyLanguage(language, root = document) {
  const strings = STRINGS[language];
  document.documentElement.lang = language;
  for (const element of root.querySelectorAll('[data-i18n]')) element.textContent = strings[element.dataset.i18n];
  for (const element of root.querySelectorAll('[data-i18n-html]')) element.innerHTML = strings[element.dataset.i18nHtml];
  for (const element of root.querySelectorAll('[data-i18n-label]')) {
    element.setAttribute('aria-label', strings[element.dataset.i18nLabel]);
  }
  for (const button of root.querySelectorAll('[data-lang]')) {
    button.setAttribute('aria-pressed', String(button.dataset.lang === language));
  }
}
