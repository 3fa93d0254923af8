// What is measured; the same everywhere, so that results of different machines compare.

/** A small generator with a fixed start (mulberry32). */
function random(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

const next = random(1);

/** Lengths in tokens: one short sentence, 256 sentences of 8 to 40, one passage. */
export const WORKLOADS = {
  w1: [16],
  w2: Array.from({ length: 256 }, () => 8 + Math.floor(next() * 33)),
  w3: [256],
};

/** Random ids that any vocabulary of more than a few special tokens has. */
export function tokenIds(lengths, vocabSize) {
  const draw = random(2);
  return lengths.map((length) => Uint32Array.from({ length }, () => 5 + Math.floor(draw() * (vocabSize - 5))));
}

const PARTS = [
  ['어제', '오늘 아침', '지난주에', '내년 봄에는', '회의가 끝나고', '비가 그친 뒤'],
  ['동생이', '우리 가족은', '담당 부서가', '그 식당은', '새로 온 선생님이', '옆집 고양이가'],
  ['역 근처에서', '인터넷으로', '생각보다 조용히', '제주도에서', '두 시간 동안', '아무 말 없이'],
  ['맛있는 저녁을 먹었습니다.', '계획을 다시 세웠어요.', '긴 편지를 썼다.', '문제를 하나씩 풀어 나갔습니다.', '사진을 백 장 넘게 찍었대요.', '기다리고 있었다.'],
];

/** Made-up sentences of ordinary length. */
export function texts(count) {
  const draw = random(3);
  return Array.from({ length: count }, (_, i) =>
    `${PARTS.map((part) => part[Math.floor(draw() * part.length)]).join(' ')}${i % 3 === 0 ? ` ${i}번째 이야기입니다.` : ''}`);
}
