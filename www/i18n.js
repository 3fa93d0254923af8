// The page's words in both languages.

export const STRINGS = {
  ko: {
    pageTitle: '문장 munjang: 한국어 문장을 뜻으로 견주고 찾기',
    skip: '내용으로 건너뛰기',
    language: '언어',
    title: '한국어 문장을 뜻으로 견주고 찾습니다',
    lead: '낱말이 달라도 뜻이 가까우면 알아봅니다. 모두 이 페이지 안에서 계산하고, 쓴 글은 이 기기를 떠나지 않습니다.',
    tabsLabel: '할 일', tabCompare: '문장 견주기', tabSearch: '뜻으로 찾기',
    details: '자세히', forDevelopers: '개발자라면',
    statusLabel: '모델',
    loading: '모델을 불러오는 중',
    factModel: '모델', factSize: '크기', factBuild: '빌드', factSpeed: '문장당', factSource: '가져온 곳',
    network: '네트워크', cache: '캐시', file: '파일',
    bytesOf: (loaded, total) => (total ? `${loaded} / ${total} MB` : `${loaded} MB`),
    size: (mb) => `${mb} MB`,
    speed: (ms) => `${ms} ms`,
    pairTitle: '두 문장을 고쳐 보세요',
    says: ['서로 다른 뜻', '조금 관련 있음', '가까운 뜻', '비슷한 뜻', '거의 같은 뜻'],
    human: (score) => `사람은 5점에 ${score}점`,
    examplesLabel: '예문',
    exampleHuman: '사람이 매긴 네 쌍', exampleParaphrase: '바꿔 말하기', exampleNegation: '부정', exampleSameWord: '같은 낱말, 다른 뜻',
    exampleHumanHint: '사람들이 0에서 5까지 점수를 매긴 쌍들입니다. 순서가 같은지 보세요.',
    exampleParaphraseHint: '같은 낱말이 거의 없어도 뜻이 같으면 숫자가 높습니다.',
    exampleNegationHint: '한계도 있습니다. “않는다”가 붙어도 이야깃거리가 같아 숫자가 높게 나옵니다.',
    exampleSameWordHint: '내리는 눈과 보는 눈, 어두운 밤과 먹는 밤. 글자가 아니라 문맥으로 짝을 찾는지 보세요.',
    share: '링크 복사', savePng: 'PNG', saveCsv: 'CSV', copyCsv: '표 복사',
    shared: '링크를 복사했습니다. 문장은 링크 안에만 있습니다.', copied: '복사했습니다.', copyFailed: '복사하지 못했습니다. 주소창의 주소를 복사해 주세요.',
    saveFailed: '저장하지 못했습니다.',
    editorHint: '.txt나 .csv 파일을 끌어다 놓으면 그 문장들로 채웁니다.',
    filled: (name, count) => `${name}의 문장 ${count}개로 채웠습니다.`, filledPartly: (name, count) => `${name}의 앞 ${count}개 문장으로 채웠습니다.`,
    snippetLead: '여러분의 페이지에도 넣을 수 있습니다.', copySnippet: '코드 복사',
    matrixTitle: '모두 견주기',
    caption: '행은 A, 열은 B 문장이고, 칸은 두 문장의 코사인 유사도입니다.',
    legendLow: '무관함', legendHigh: '같은 뜻', legendBest: '행에서 가장 가까움',
    hint: '숫자는 코사인 유사도입니다. 칸을 고르면 그 쌍이 위에 나옵니다. 키보드로는 화살표로 옮깁니다.',
    editorTitle: '문장 더 넣기',
    rows: '행 A', columns: '열 B',
    addRow: '행에 문장 추가', addColumn: '열에 문장 추가',
    sentence: (name) => `문장 ${name}`,
    remove: (name) => `문장 ${name} 지우기`,
    placeholder: '한국어 문장을 써 보세요',
    reset: '처음 문장으로',
    empty: '(빈 문장)',
    truncated: (tokens, max) => `토큰이 ${tokens}개 이상이라 앞의 ${max}개까지만 읽었습니다.`,
    updated: '행렬을 새로 계산했습니다.',
    removed: (name) => `문장 ${name}을(를) 지웠습니다.`,
    ready: '준비되었습니다.',
    retry: '다시 시도',
    failedSearch: '찾기를 시작하지 못했습니다',
    failedLoad: '모델을 불러오지 못했습니다',
    failedEncode: '문장을 계산하지 못했습니다',
    advice: {
      network: '인터넷 연결을 확인하고 다시 시도해 주세요.',
      model_not_found: '모델 파일이 이 사이트에 없습니다. 잠시 뒤에 다시 시도해 주세요.',
      not_a_model: '모델 대신 다른 것이 왔습니다. 와이파이 로그인 화면이 떠 있지 않은지 확인하고 다시 시도해 주세요.',
      download_truncated: '내려받기가 도중에 끊겼습니다. 다시 시도해 주세요.',
      checksum_mismatch: '받은 파일이 손상되었습니다. 다시 시도해 주세요.',
      unsupported_browser: '이 브라우저에는 WebAssembly SIMD가 없습니다. 최신 Chrome, Firefox, Safari(16.4 이상)에서 열어 주세요.',
      out_of_memory: '메모리가 모자랍니다. 다른 탭을 닫고 다시 시도해 주세요.',
      crashed: '인코더가 멈췄습니다. 다시 시도하면 새로 시작합니다.',
      other: '다시 시도해 주세요. 그래도 안 되면 아래 내용을 알려 주세요.',
    },
    credit: '처음 문장들은 [KLUE-STS](https://klue-benchmark.com/tasks/67/overview/description) 개발 세트의 네 쌍입니다 (KLUE 팀, [CC BY-SA 4.0](https://creativecommons.org/licenses/by-sa/4.0/deed.ko)).',
    searchLead: '20,817문장에서 뜻이 가까운 글을 찾습니다. 백과사전, 뉴스, 서평, 동화가 들어 있습니다.',
    queryLabel: '찾을 말', queryPlaceholder: '궁금한 것을 문장으로 써 보세요',
    scopeLabel: '찾을 곳', scopeCorpus: '준비된 글', scopeOwn: '내 글',
    balance: '무엇을 더 볼까요', balanceValue: (percent) => `뜻 ${percent}%, 낱말 ${100 - percent}%`,
    byMeaning: '뜻', byWords: '낱말',
    examplesTitle: '이런 말로 찾아 보세요',
    examples: [['숫자로 하는 퍼즐'], ['못생겼다고 놀림받던 새'], ['컴퓨터에게 일을 시키는 법'], ['공룡은 왜 사라졌을까?'], ['지진이 나면 어떻게 해야 하나요?'], ['게으름을 피우다 다리가 가늘어진 거미']],
    hitsLabel: '찾은 글', around: '앞뒤 글 보기',
    corpusLoading: '글 모음을 받는 중', corpusPreparing: '글 모음을 여는 중',
    waitingModel: '모델을 불러오는 대로 찾습니다.', waitingCorpus: '글 모음이 열리는 대로 찾습니다.',
    searching: '찾는 중',
    found: (count, ms) => `가까운 글 ${count}개 · ${ms} ms`,
    foundNone: '가까운 글이 없습니다. 다른 말로 써 보세요.',
    foundPartly: (count, ms, done, total) => `가까운 글 ${count}개 · ${ms} ms · 아직 ${total}개 가운데 ${done}개만 뜻으로 찾습니다`,
    ownEmpty: '글을 붙여 넣거나 파일을 끌어다 놓으면 여기에서 찾을 수 있습니다.',
    ownAdd: '내 글 넣기', ownSummary: (count) => `내 글 ${count}개 · 더 넣기, 지우기`,
    ownNote: '글은 이 브라우저에만 저장되고 어디로도 보내지 않습니다.',
    ownNoteUnsaved: '글은 이 페이지 안에만 있습니다. 이 브라우저가 저장을 허락하지 않아 탭을 닫으면 사라집니다.',
    pasteLabel: '붙여 넣을 글', pastePlaceholder: '여기에 글을 붙여 넣으세요',
    pasteAdd: '넣기', chooseFiles: '파일 고르기', dropHint: '.txt .md .csv .jsonl 파일을 끌어다 놓아도 됩니다.',
    pastedName: (text) => `붙여 넣은 글: ${text}`,
    adding: (name) => `${name} 읽는 중`, addingCount: (done, total) => `${done} / ${total}`, stop: '멈추기',
    added: (name, count) => `${name}에서 글 ${count}개를 넣었습니다.`, addedStopped: '멈췄습니다. 넣다 만 글은 뺐습니다.',
    leftOut: (name, count) => `${name}: 글이 너무 많아 뒤의 ${count}개는 뺐습니다.`,
    sourceCount: (count) => `${count}개`, removeSource: (name) => `${name} 지우기`, removedSource: (name) => `${name}을(를) 지웠습니다.`,
    sources: { wiki: '위키백과', news: '위키뉴스', books: '국회도서관 서평', unesco: '유네스코', andersen: '안데르센 동화', bang: '방정환 동화', duru: '어린이책' },
    corpusCredit: '글 모음: 한국어 위키백과 문단 ([KoBEST](https://huggingface.co/datasets/skt/kobest_v1), [CC BY-SA 4.0](https://creativecommons.org/licenses/by-sa/4.0/deed.ko)), [위키뉴스](https://ko.wikinews.org/) ([CC BY 2.5](https://creativecommons.org/licenses/by/2.5/deed.ko)), [국회도서관](https://www.nanet.go.kr/) 금주의 서평 (CC BY), [유네스코](https://www.unesco.or.kr/) 보고서 ([CC BY-SA 3.0 IGO](https://creativecommons.org/licenses/by-sa/3.0/igo/deed.ko)), 두루책방 어린이책 ([CC BY 4.0](https://creativecommons.org/licenses/by/4.0/deed.ko)), 김선희 옮김 안데르센 동화 (기증 저작물), 방정환 동화 (저작권 만료). 고른 방법과 출처는 [카드](corpus/CARD.md)에 있습니다.',
    searchTrouble: '지금은 찾을 수 없습니다',
    trouble: {
      corpusOffline: '인터넷에 연결되어 있지 않고, 글 모음을 아직 받은 적이 없습니다. 연결되면 저절로 다시 시도합니다. 내 글은 지금도 찾을 수 있습니다.',
      corpusNetwork: '글 모음을 받지 못했습니다. 연결을 확인하고 다시 시도해 주세요.',
      corpusMissing: '글 모음이 이 사이트에 없습니다. 내 글을 넣어 찾을 수는 있습니다.',
      corpusDamaged: '받은 글 모음이 손상되었습니다. 다시 시도해 주세요.',
      index_invalid: '글 모음이 지금 모델과 맞지 않습니다. 페이지를 새로 고쳐 주세요.',
      out_of_memory: '메모리가 모자랍니다. 다른 탭을 닫고 다시 시도해 주세요.',
      quota_exceeded: '이 브라우저의 저장 공간이 모자라 글을 넣지 못했습니다. 내 글을 지우거나 저장 공간을 비워 주세요.',
      crashed: '인코더가 멈췄습니다. 다시 시도하면 새로 시작합니다.',
      other: '무언가 잘못되었습니다. 다시 시도해 주세요.',
    },
    fileTrouble: {
      fileKind: '이런 파일은 읽지 못합니다. 글자만 있는 파일(.txt .md .csv .jsonl)이나 붙여 넣기로 해 주세요.',
      fileLarge: '파일이 너무 큽니다. 20 MB까지 읽습니다.',
      fileEmpty: '읽을 글이 없습니다.',
      fileBinary: '글자 파일이 아니거나 알 수 없는 인코딩입니다. UTF-8로 저장해 주세요.',
      fileJson: 'JSON이 아닌 줄이 있습니다.',
      fileUnreadable: '파일을 열지 못했습니다. 폴더가 아닌 파일을 골라 주세요.',
    },
    fileLine: (line) => `(${line}째 줄)`,
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
    pageTitle: 'munjang: Korean sentences compared and found by meaning',
    skip: 'Skip to the content',
    language: 'Language',
    title: 'Korean sentences, compared and found by meaning',
    lead: 'Other words, same meaning: it notices. Everything is computed inside this page, and what you write stays on this device.',
    tabsLabel: 'What to do', tabCompare: 'Compare', tabSearch: 'Search',
    details: 'Details', forDevelopers: 'For developers',
    statusLabel: 'Model',
    loading: 'Loading the model',
    factModel: 'Model', factSize: 'Size', factBuild: 'Build', factSpeed: 'Per sentence', factSource: 'From',
    network: 'network', cache: 'cache', file: 'file',
    bytesOf: (loaded, total) => (total ? `${loaded} of ${total} MB` : `${loaded} MB`),
    size: (mb) => `${mb} MB`,
    speed: (ms) => `${ms} ms`,
    pairTitle: 'Change one of the two sentences',
    says: ['different meanings', 'loosely related', 'close in meaning', 'similar meaning', 'nearly the same meaning'],
    human: (score) => `people gave it ${score} of 5`,
    examplesLabel: 'Examples',
    exampleHuman: 'four pairs rated by people', exampleParaphrase: 'other words', exampleNegation: 'negation', exampleSameWord: 'one word, other meanings',
    exampleHumanHint: 'People rated these pairs from 0 to 5. See whether the order is the same.',
    exampleParaphraseHint: 'Hardly a word in common, and yet the numbers are high: the meaning is the same.',
    exampleNegationHint: 'It has limits: with a “not” the subject stays the same, and so the numbers stay high.',
    exampleSameWordHint: '“눈” is snow and eye, “밤” night and chestnut. See whether the context finds the partner.',
    share: 'Copy link', savePng: 'PNG', saveCsv: 'CSV', copyCsv: 'Copy table',
    shared: 'Link copied. The sentences are in the link alone.', copied: 'Copied.', copyFailed: 'It could not be copied. Copy the address of this page instead.',
    saveFailed: 'It could not be saved.',
    editorHint: 'Drop a .txt or .csv file to fill these with its sentences.',
    filled: (name, count) => `Filled with ${count} sentences of ${name}.`, filledPartly: (name, count) => `Filled with the first ${count} sentences of ${name}.`,
    snippetLead: 'It works in your own page, too.', copySnippet: 'Copy the code',
    matrixTitle: 'All pairs',
    caption: 'Rows are the sentences A, columns the sentences B; each cell is the cosine similarity of the two.',
    legendLow: 'unrelated', legendHigh: 'same meaning', legendBest: 'closest in its row',
    hint: 'The numbers are cosine similarities. Choose a cell to have its pair above; with the keyboard, use the arrow keys.',
    editorTitle: 'More sentences',
    rows: 'Rows A', columns: 'Columns B',
    addRow: 'Add a sentence to the rows', addColumn: 'Add a sentence to the columns',
    sentence: (name) => `Sentence ${name}`,
    remove: (name) => `Remove sentence ${name}`,
    placeholder: 'Write a Korean sentence',
    reset: 'Back to the first sentences',
    empty: '(empty)',
    truncated: (tokens, max) => `It has ${tokens} tokens or more; only the first ${max} were read.`,
    updated: 'The matrix is up to date.',
    removed: (name) => `Sentence ${name} removed.`,
    ready: 'Ready.',
    retry: 'Try again',
    failedSearch: 'The search could not be started',
    failedLoad: 'The model could not be loaded',
    failedEncode: 'The sentences could not be encoded',
    advice: {
      network: 'Check the connection and try again.',
      model_not_found: 'This site does not have the model right now. Try again in a while.',
      not_a_model: 'Something else came instead of the model. Is there a Wi-Fi login page in between? Try again.',
      download_truncated: 'The download broke off. Try again.',
      checksum_mismatch: 'The file that came is damaged. Try again.',
      unsupported_browser: 'This browser has no WebAssembly SIMD. Use a current Chrome, Firefox or Safari (16.4 or newer).',
      out_of_memory: 'There is not enough memory. Close other tabs and try again.',
      crashed: 'The encoder stopped. Trying again starts a fresh one.',
      other: 'Try again. If it stays so, please report the lines below.',
    },
    credit: 'The first sentences are four pairs of the [KLUE-STS](https://klue-benchmark.com/tasks/67/overview/description) development set (KLUE team, [CC BY-SA 4.0](https://creativecommons.org/licenses/by-sa/4.0/)).',
    searchLead: 'Finds what is close in meaning among 20,817 Korean sentences: encyclopedia, news, book reviews, fairy tales.',
    queryLabel: 'What to look for', queryPlaceholder: 'Ask in a Korean sentence',
    scopeLabel: 'Where to look', scopeCorpus: 'Texts here', scopeOwn: 'My texts',
    balance: 'What counts more', balanceValue: (percent) => `meaning ${percent} %, words ${100 - percent} %`,
    byMeaning: 'meaning', byWords: 'words',
    examplesTitle: 'Try one of these',
    examples: [['숫자로 하는 퍼즐', 'a puzzle with numbers'], ['못생겼다고 놀림받던 새', 'a bird that was teased for being ugly'], ['컴퓨터에게 일을 시키는 법', 'how to make a computer do things'], ['공룡은 왜 사라졌을까?', 'why did the dinosaurs disappear?'], ['지진이 나면 어떻게 해야 하나요?', 'what to do in an earthquake'], ['게으름을 피우다 다리가 가늘어진 거미', 'a spider whose laziness made its legs thin']],
    hitsLabel: 'Results', around: 'Show the text around it',
    corpusLoading: 'Fetching the texts', corpusPreparing: 'Opening the texts',
    waitingModel: 'Searching as soon as the model is there.', waitingCorpus: 'Searching as soon as the texts are there.',
    searching: 'Searching',
    found: (count, ms) => `${count} close texts · ${ms} ms`,
    foundNone: 'Nothing close. Try other words.',
    foundPartly: (count, ms, done, total) => `${count} close texts · ${ms} ms · by meaning so far in ${done} of ${total}`,
    ownEmpty: 'Paste a text or drop a file, and search it here.',
    ownAdd: 'Add my texts', ownSummary: (count) => `${count} texts of mine · add, remove`,
    ownNote: 'Your texts are kept in this browser only and sent nowhere.',
    ownNoteUnsaved: 'Your texts are in this page only. This browser does not allow keeping them: they go when the tab closes.',
    pasteLabel: 'Text to paste', pastePlaceholder: 'Paste a text here',
    pasteAdd: 'Add', chooseFiles: 'Choose files', dropHint: 'Or drop .txt .md .csv .jsonl files here.',
    pastedName: (text) => `Pasted: ${text}`,
    adding: (name) => `Reading ${name}`, addingCount: (done, total) => `${done} of ${total}`, stop: 'Stop',
    added: (name, count) => `Added ${count} texts of ${name}.`, addedStopped: 'Stopped. What was half added is taken out.',
    leftOut: (name, count) => `${name}: too many texts; the last ${count} were left out.`,
    sourceCount: (count) => `${count} texts`, removeSource: (name) => `Remove ${name}`, removedSource: (name) => `${name} removed.`,
    sources: { wiki: 'Wikipedia', news: 'Wikinews', books: 'Book review', unesco: 'UNESCO', andersen: 'Andersen', bang: 'Bang Jeong-hwan', duru: "Children's book" },
    corpusCredit: 'The texts: Korean Wikipedia paragraphs ([KoBEST](https://huggingface.co/datasets/skt/kobest_v1), [CC BY-SA 4.0](https://creativecommons.org/licenses/by-sa/4.0/)), [Wikinews](https://ko.wikinews.org/) ([CC BY 2.5](https://creativecommons.org/licenses/by/2.5/)), weekly reviews of the [National Assembly Library](https://www.nanet.go.kr/) (CC BY), [UNESCO](https://www.unesco.or.kr/) reports ([CC BY-SA 3.0 IGO](https://creativecommons.org/licenses/by-sa/3.0/igo/)), children\'s books of Duru ([CC BY 4.0](https://creativecommons.org/licenses/by/4.0/)), Andersen translated by Kim Seon-hui (donated work), Bang Jeong-hwan (copyright expired). How they were chosen, and every source: the [card](corpus/CARD.md).',
    searchTrouble: 'The search does not work right now',
    trouble: {
      corpusOffline: 'There is no connection, and the texts were never fetched before. It tries again by itself once you are online. Your own texts can be searched now.',
      corpusNetwork: 'The texts could not be fetched. Check the connection and try again.',
      corpusMissing: 'This site does not have the texts. You can still add your own.',
      corpusDamaged: 'The texts that came are damaged. Try again.',
      index_invalid: 'The texts do not fit this model. Reload the page.',
      out_of_memory: 'There is not enough memory. Close other tabs and try again.',
      quota_exceeded: 'This browser has no room left for your texts. Remove some of them or free storage.',
      crashed: 'The encoder stopped. Trying again starts a fresh one.',
      other: 'Something went wrong. Try again.',
    },
    fileTrouble: {
      fileKind: 'Files of this kind cannot be read. Use plain text (.txt .md .csv .jsonl), or paste it.',
      fileLarge: 'The file is too large; 20 MB is the most.',
      fileEmpty: 'There is no text to read in it.',
      fileBinary: 'It is not a text file, or its encoding is unknown. Save it as UTF-8.',
      fileJson: 'A line is not JSON.',
      fileUnreadable: 'The file could not be opened. Choose a file, not a folder.',
    },
    fileLine: (line) => `(line ${line})`,
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
  // Own names only: "constructor" is in every object.
  const asked = new URLSearchParams(location.search).get('lang');
  if (Object.hasOwn(STRINGS, asked)) return asked;
  try {
    const kept = localStorage.getItem(KEY);
    if (Object.hasOwn(STRINGS, kept)) return kept;
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
  for (const element of root.querySelectorAll('[data-i18n-links]')) element.replaceChildren(...linked(strings[element.dataset.i18nLinks]));
  for (const element of root.querySelectorAll('[data-i18n-placeholder]')) element.placeholder = strings[element.dataset.i18nPlaceholder];
  for (const element of root.querySelectorAll('[data-i18n-label]')) {
    element.setAttribute('aria-label', strings[element.dataset.i18nLabel]);
  }
  for (const button of root.querySelectorAll('[data-lang]')) {
    button.setAttribute('aria-pressed', String(button.dataset.lang === language));
  }
}

/** Text in which `[words](address)` stands for a link, as nodes. */
function linked(text) {
  return text.split(/(\[[^\]]+\]\([^)\s]+\))/).map((part) => {
    const [, words, address] = part.match(/^\[([^\]]+)\]\(([^)\s]+)\)$/) ?? [];
    return words ? Object.assign(document.createElement('a'), { href: address, textContent: words }) : part;
  });
}
