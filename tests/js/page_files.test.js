// What the page reads out of a visitor's files.
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { FileError, MAX_FILE_BYTES, parseCsv, readTexts } from '../../www/files.js';

const utf8 = (text) => new TextEncoder().encode(text);
const read = (name, content) => readTexts(name, typeof content === 'string' ? utf8(content) : content);
const texts = (name, content) => read(name, content).map(({ text }) => text);
const refuses = (code, name, content, line) =>
  assert.throws(() => read(name, content), (error) => error instanceof FileError && error.code === code && error.line === line);

test('.txt: paragraphs, lines that are sentences, wrapped lines', () => {
  assert.deepEqual(texts('a.txt', '하나입니다.\n둘이에요.\n\n긴 문장이 줄을\n넘어 이어진다.\r\n\r\n끝'),
    ['하나입니다.', '둘이에요.', '긴 문장이 줄을 넘어 이어진다.', '끝']);
  assert.deepEqual(texts('A.TXT', '\ufeff한 줄'), ['한 줄']);
  assert.deepEqual(texts('a.txt', '---\n\n***\n\n글'), ['글'], 'lines without a letter are none');
});

test('.md: without its marks, each text under its heading', () => {
  assert.deepEqual(read('a.md', '---\ntitle: x\n---\n앞글\n# 제목 **굵게** #\n글 [링크](http://a.b/c) `코드`와 ![그림](x.png).\n이어서\n\n- 하나\n- [ ] 둘\n1. 셋\n\n```js\nlet a;\n```\n| 가 | 나 |\n|---|---|\n| 다 | 라 |\n> 따온 말\n'), [
    { text: '앞글' },
    { text: '글 링크 코드와 그림. 이어서', title: '제목 굵게' },
    { text: '하나', title: '제목 굵게' }, { text: '둘', title: '제목 굵게' }, { text: '셋', title: '제목 굵게' },
    { text: '가 나', title: '제목 굵게' }, { text: '다 라 따온 말', title: '제목 굵게' },
  ]);
});

test('.csv: the column that holds the texts', () => {
  assert.deepEqual(read('a.csv', '번호,제목,내용\r\n1,가,"쉼표, ""따옴표""\n줄"\r\n2,,다음\r\n'),
    [{ text: '쉼표, "따옴표" 줄', title: '가' }, { text: '다음' }]);
  assert.deepEqual(texts('a.csv', '오늘은 날씨가 좋다,3\n비가 온다,4'), ['오늘은 날씨가 좋다', '비가 온다'], 'no head');
  assert.deepEqual(texts('a.csv', 'id;의견\n1;아주 좋아요\n2;별로예요'), ['아주 좋아요', '별로예요']);
  assert.deepEqual(texts('a.tsv', '가\t나나나\n다\t라라라'), ['라라라']);
  assert.deepEqual(parseCsv('a,"b\n"'), [['a', 'b\n']]);
  assert.deepEqual(parseCsv('"never closed'), [['never closed']]);
  assert.deepEqual(parseCsv(''), []);
});

test('.jsonl: strings and objects', () => {
  assert.deepEqual(read('a.jsonl', '"말"\n{"id":"1","text":"글","title":"표"}\n\n{"q":"가","a":"나다라"}\n3\nnull\n'),
    [{ text: '말' }, { text: '글', title: '표' }, { text: '나다라' }]);
  refuses('fileJson', 'a.jsonl', '"말"\n{oops', 2);
});

test('encodings: UTF-8, UTF-16, EUC-KR', () => {
  assert.deepEqual(texts('a.txt', Uint8Array.from([0xb0, 0xa1, 0xb3, 0xaa])), ['가나']);
  assert.deepEqual(texts('a.txt', Uint8Array.from([0xff, 0xfe, 0x00, 0xac])), ['가']);
  assert.deepEqual(texts('a.txt', Uint8Array.from([0xfe, 0xff, 0xac, 0x00])), ['가']);
});

test('what cannot be read says why', () => {
  refuses('fileKind', 'a.pdf', '가');
  refuses('fileKind', 'a', '가');
  refuses('fileKind', 'constructor', '가');
  refuses('fileEmpty', 'a.txt', ' \n\n ');
  refuses('fileEmpty', 'a.csv', '');
  refuses('fileEmpty', 'a.jsonl', '3\n');
  refuses('fileBinary', 'a.txt', Uint8Array.from([0x50, 0x4b, 3, 4, 0, 0]));
  refuses('fileBinary', 'a.txt', Uint8Array.from([0x80, 0x81, 0xff]));
  refuses('fileLarge', 'a.txt', new Uint8Array(MAX_FILE_BYTES + 1));
});
