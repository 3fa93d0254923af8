// What a document costs an index beside its encoding: `node benches/web/search_cost.mjs [--documents 50000]`.
//
// CPU time in Node, of one passage a document, made-up sentences and a made-up vector: cutting it, its words, its vector,
// its part of a segment written and read, and all of it taken in from a segment, as at a reload.
import { parseArgs } from 'node:util';

import { Documents } from '../../pkg/documents.js';
import { searchCore } from '../../pkg/search_core.js';
import { SEGMENT, readSegment, writeSegment } from '../../pkg/segment.js';

const { values: args } = parseArgs({ options: { documents: { type: 'string', default: '50000' }, dimension: { type: 'string', default: '384' } } });
const [count, dimension] = [Number(args.documents), Number(args.dimension)];
const WORDS = ('비가 오는 날에는 따뜻한 국물이 생각난다 시장 골목 끝 오래된 가게에서 친구를 만나 이야기를 나누었다 정부는 새로운 정책을 발표했고 '
  + '시민들은 기대를 보였다 경제 성장 전망 하향 조정 은행 금리 인상 가능성 축구 대표팀 경기 결과').split(' ');
let seed = 1;
const random = (n) => {
  seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
  return (seed >>> 9) % n;
};
const documents = Array.from({ length: count }, (_, id) => ({
  id, text: `${Array.from({ length: 8 + random(8) }, () => WORDS[random(WORDS.length)] + (random(3) ? '' : random(1000))).join(' ')}. ${id}`, data: { n: id },
}));
const vector = Float32Array.from({ length: dimension }, () => random(1000) / 1000 - 0.5);

const { glue } = await searchCore();
const rows = [];
function measure(name, run) {
  const before = process.cpuUsage();
  const result = run();
  const { user, system } = process.cpuUsage(before);
  rows.push([name, (user + system) / count]);
  return result;
}

const core = new glue.HybridIndex(dimension, 'int8', undefined);
const ranges = measure('cut into passages', () => documents.map(({ text }) => glue.cutPassages(text, 150)));
measure('words', () => documents.forEach(({ text }, i) => core.addDocument(i, text, ranges[i])));
measure('vector', () => documents.forEach((_, i) => core.setVectors(i, 0, vector)));
const segments = measure('written into a segment', () => {
  const list = [];
  for (let at = 0; at < count; at += SEGMENT) {
    const part = documents.slice(at, at + SEGMENT);
    list.push(writeSegment(part.map((document, i) => ({ ...document, ranges: ranges[at + i] })), core.exportVectors(Uint32Array.from(part, ({ id }) => id))));
  }
  return list;
});
const read = measure('read from a segment', () => segments.map(readSegment));
const loaded = new Documents(new glue.HybridIndex(dimension, 'int8', undefined));
measure('taken in', () => read.forEach((segment, i) => loaded.takeIn(i + 1, segment, segments[i].byteLength)));

console.log('| CPU time | µs a document |\n| --- | --: |');
for (const [name, cost] of rows) console.log(`| ${name} | ${cost.toFixed(1)} |`);
console.log(`\n${count} documents of ${(documents.reduce((sum, { text }) => sum + text.length, 0) / count).toFixed(0)} characters; ${
  (segments.reduce((sum, { byteLength }) => sum + byteLength, 0) / count).toFixed(0)} bytes each on the disk.`);
