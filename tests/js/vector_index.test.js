// VectorIndex on the built core, the one dot product, and rankings joined with another engine's.
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { describe, test } from 'node:test';

import MiniSearch from 'minisearch';
import { MunjangError, VectorIndex, reciprocalRankFusion } from '../../pkg/search.js';
import { dot } from '../../pkg/dot.js';

const DIMENSION = 24;

/** The numbers of tests/common: variety, not randomness. */
function numbers(seed) {
  let state = BigInt(seed);
  return () => {
    state = (state * 6364136223846793005n + 1442695040888963407n) & 0xffffffffffffffffn;
    return Number(state >> 33n) / 2 ** 31 * 2 - 1;
  };
}

function vectors(count, seed = 3) {
  const next = numbers(seed);
  return Array.from({ length: count }, () => Float32Array.from({ length: DIMENSION }, next));
}

const create = (options) => VectorIndex.create({ dimension: DIMENSION, ...options });
const codeOf = (call) => {
  try {
    call();
  } catch (error) {
    assert.ok(error instanceof MunjangError, error.stack);
    return error;
  }
  return assert.fail('it did not throw');
};

describe('VectorIndex', () => {
  for (const options of [{}, { precision: 'float32' }, { precision: 'binary' }, { precision: 'binary', rescore: true }]) {
    test(`adds, updates, removes and finds: ${JSON.stringify(options)}`, async () => {
      const index = await create(options);
      const rows = vectors(50);
      index.addMany(rows.map((_, i) => `n${i}`), rows);
      index.add(7, rows[3]);
      assert.deepEqual(index.search(rows[3], { topK: 2 }).map(({ id }) => id), ['n3', 7], 'equal scores by insertion');
      assert.equal(index.size, 51);
      index.update('n3', rows[9]);
      assert.equal(index.search(rows[3], { topK: 1 })[0].id, 7);
      assert.equal(index.remove(['n3', 'n9', 'nobody']), 2);
      assert.ok(!index.has('n9') && index.has(7) && !index.has('7'));
      assert.equal(index.search(rows[9], { topK: Infinity }).length, 49);
      assert.deepEqual(index.search(rows[9], { topK: 0 }), []);
      const found = index.search(rows[1], { filter: (id) => id === 'n8' || id === 7, topK: 5 });
      assert.deepEqual(found.map(({ id }) => id).sort(), [7, 'n8']);
      const { score } = index.search(rows[1])[4];
      assert.equal(index.search(rows[1], { minScore: score, topK: 51 }).length, 5);
      const again = await VectorIndex.fromBytes(index.toBytes());
      assert.deepEqual(again.search(rows[1]), index.search(rows[1]));
      assert.deepEqual(again.toBytes(), index.toBytes());
      assert.deepEqual({ ...again.info, byteLength: 0 }, { ...index.info, byteLength: 0 });
      index.clear();
      assert.deepEqual(index.search(rows[1]), []);
    });
  }

  test('space of removed vectors is given back, and ids stay right', async () => {
    const index = await create();
    const rows = vectors(3000);
    index.addMany(rows.map((_, i) => i), rows);
    index.remove(Array.from({ length: 2000 }, (_, i) => i + (i >= 1000 ? 500 : 0)));
    for (const id of [1000, 1499, 2500, 2999]) assert.equal(index.search(rows[id], { topK: 1 })[0].id, id);
    index.add(5, rows[5]);
    assert.equal(index.search(rows[5], { topK: 1 })[0].id, 5);
    assert.equal(index.size, 1001);
  });

  test('float32 scores have the bits of the one dot product', async () => {
    const index = await create({ precision: 'float32' });
    const rows = vectors(40).map((row) => {
      const length = Math.sqrt(dot(row, row));
      return row.map((value) => value / length);
    });
    index.addMany(rows.map((_, i) => i), rows);
    for (const { id, score } of index.search(rows[0], { topK: 40 })) assert.equal(score, dot(rows[0], rows[id]));
  });

  test('bad input is told and changes nothing', async () => {
    const index = await create({ modelId: '0123456789abcdef' });
    const [a, b] = vectors(2);
    index.add('a', a);
    const bad = b.slice();
    bad[5] = NaN;
    for (const [call, expected, at] of [
      [() => index.add('a', b), /has already/, 0],
      [() => index.addMany(['x', 'x'], [a, b]), /comes twice/, 1],
      [() => index.addMany(['x', 'y'], [a, bad]), /vectors\[1\] holds NaN/, 1],
      [() => index.addMany(['x'], [a, b]), /1 ids, but 2 vectors/],
      [() => index.addMany(['x'], new Float32Array(5)), /expected 1 × 24/],
      [() => index.add('x', a.subarray(1)), /23 values/, 0],
      [() => index.add('x', new Float32Array(DIMENSION)), /no direction/, 0],
      [() => index.add('x', [...a]), /object \(Array\)/, 0],
      [() => index.add(NaN, a), /ids\[0\] is NaN/, 0],
      [() => index.update('b', b), /no id "b"/],
      [() => index.update('a', bad), /NaN/],
      [() => index.search(bad), /NaN/],
      [() => index.search(a, null), /options is null/],
      [() => index.search(a, { topK: -1 }), /topK is -1/],
      [() => index.search(a, { topK: 1.5 }), /topK/],
      [() => index.search(a, { minScore: '0' }), /minScore/],
      [() => index.search(a, { filter: 'a' }), /filter/],
      [() => index.search(a, { filter: () => { throw new TypeError('mine'); } }), /mine/],
      [() => index.search(a, { filter: async () => true }), /promise/],
    ]) {
      const error = codeOf(call);
      assert.equal(error.code, 'input_invalid');
      assert.match(error.message, expected);
      assert.equal(error.index, at, error.message);
    }
    assert.deepEqual(index.search(b, { topK: 9 }).map(({ id }) => id), ['a']);
    for (const [options, expected] of [
      [undefined, /options is undefined/], [{}, /dimension is undefined/], [{ dimension: 0 }, /1 to 4096/], [{ dimension: 1.5 }, /whole/],
      [{ dimension: 8, precision: 'int4' }, /int4/], [{ dimension: 8, rescore: true }, /rescore/], [{ dimension: 8, modelId: 'x' }, /16 hex/],
    ]) {
      await assert.rejects(VectorIndex.create(options), (error) => error.code === 'input_invalid' && expected.test(error.message));
    }
    const file = index.toBytes();
    await assert.rejects(VectorIndex.fromBytes(file, { modelId: 'fedcba9876543210' }), { code: 'index_invalid' });
    await assert.rejects(VectorIndex.fromBytes(file.slice(0, -1)), { code: 'index_invalid' });
    await assert.rejects(VectorIndex.fromBytes('file'), { code: 'input_invalid' });
    assert.throws(() => new VectorIndex(), { code: 'input_invalid' });
    index.dispose();
    assert.equal(codeOf(() => index.size).code, 'disposed');
  });
});

test('the dot product has the bits that Rust has', () => {
  // The same numbers and hash as in tests/search.rs.
  let state = 11n;
  const next = () => {
    state = (state * 6364136223846793005n + 1442695040888963407n) & 0xffffffffffffffffn;
    return Number(state >> 33n) / 2 ** 31 - 0.5;
  };
  const hash = createHash('sha256');
  for (const length of [0, 1, 7, 15, 16, 17, 33, 100, 384]) {
    const [a, b] = [Float32Array.from({ length }, next), Float32Array.from({ length }, next)];
    hash.update(new Uint8Array(Float32Array.of(dot(a, b)).buffer));
  }
  assert.equal(hash.digest('hex'), 'e80c0b357dd36a06e42f396c30db4619341279fff077ca8dd1c936a29de52073');
});

test("another engine's ranking is joined by ranks", () => {
  const texts = [{ id: 'rain', text: '내일 비가 온다' }, { id: 'snow', text: '내일 눈이 온다' }, { id: 'tax', text: '세금 신고' }];
  const mini = new MiniSearch({ fields: ['text'] });
  mini.addAll(texts);
  const words = mini.search('내일 눈이').map(({ id }) => id);
  assert.deepEqual(words, ['snow', 'rain']);
  const fused = reciprocalRankFusion([['rain', 'snow', 'tax'], words]);
  assert.deepEqual(fused.map(({ id }) => id), ['rain', 'snow', 'tax']);
  assert.equal(fused[0].score, 1 / 61 + 1 / 62);
  for (const call of [() => reciprocalRankFusion('ab'), () => reciprocalRankFusion([['a'], 'b']), () => reciprocalRankFusion([], NaN)]) {
    assert.equal(codeOf(call).code, 'input_invalid');
  }
});
