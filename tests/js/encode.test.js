// Calls: input of all kinds, order, queues, progress, abort, crash, dispose.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { inspect, promisify } from 'node:util';
import { runInNewContext } from 'node:vm';

import { fakePackage } from './package.js';

let pkg;
let munjang;
before(async () => {
  pkg = await fakePackage();
  munjang = await pkg.import();
});
after(() => pkg.remove());

const many = (n) => Array.from({ length: n }, (_, i) => `문장 ${i}`);

for (const options of [{ worker: true }, { worker: false }, { workers: 3 }]) {
  describe(JSON.stringify(options), () => {
    let encoder;
    before(async () => {
      encoder = await munjang.loadEncoder(options);
    });
    after(() => encoder.dispose());

    test('one text, many, none', async () => {
      const one = await encoder.encode('안녕');
      assert.ok(one instanceof Float32Array);
      assert.equal(one.length, encoder.info.hiddenSize);
      assert.deepEqual(await encoder.encode([]), []);
      const texts = many(500);
      const all = await encoder.encode(texts);
      assert.equal(all.length, 500);
      assert.equal(new Set(all.map((vector) => vector.buffer)).size, 500, 'own buffers');
      for (const i of [0, 31, 32, 33, 255, 499]) assert.deepEqual(all[i], await encoder.encode(texts[i]), `order at ${i}`);
      assert.ok(all.every((vector) => vector.length === 8 && vector.byteOffset === 0 && vector.buffer.byteLength === 32));
    });

    test('what is not a string is input_invalid and names the index', async () => {
      const hole = ['a', 'b', 'c'];
      delete hole[1];
      const cases = [
        [undefined], [null], [7], [{}], [new String('a')], [new Set(['a'])],
        [['a', 1], 1], [['a', 'b', null], 2], [[undefined], 0], [hole, 1], [new Array(3), 0], [[['a']], 0],
      ];
      for (const method of ['encode', 'encodeWithReport', 'countTokens', 'similarity']) {
        for (const [input, index] of cases) {
          const error = await encoder[method](input).then(() => assert.fail(`${method} took ${input}`), (e) => e);
          assert.ok(error instanceof munjang.MunjangError);
          assert.equal(error.code, 'input_invalid');
          assert.equal(error.index, index);
          if (index !== undefined) assert.match(error.message, new RegExp(`texts\\[${index}\\]`));
        }
      }
    });

    test('a text of more than 16 Mi characters is input_invalid', async () => {
      const long = 'a'.repeat(2 ** 24 + 1);
      await assert.rejects(encoder.encode(['a', long]), { code: 'input_invalid', index: 1 });
      await assert.rejects(encoder.encode(long), { code: 'input_invalid' });
    });

    test('one matrix for all texts', async () => {
      const texts = many(300);
      const matrix = await encoder.encode(texts, { flat: true });
      assert.deepEqual(matrix, Float32Array.from((await encoder.encode(texts)).flatMap((vector) => [...vector])));
      assert.deepEqual(await encoder.encode('가', { flat: true }), await encoder.encode('가'));
      assert.equal((await encoder.encode([], { flat: true })).length, 0);
      await assert.rejects(encoder.encode('가', { flat: 1 }), { code: 'input_invalid' });
    });

    test('a stream of texts', async () => {
      const texts = many(1000);
      let read = 0;
      let closed = false;
      async function* source() {
        try {
          for (const text of texts) {
            read++;
            yield text;
          }
        } finally {
          closed = true;
        }
      }
      const all = [];
      for await (const embedding of encoder.encodeStream(source())) all.push(embedding);
      assert.deepEqual(all, await encoder.encode(texts));
      let count = 0;
      for await (const _ of encoder.encodeStream(new Set(['가', '나']))) count++;
      for await (const _ of encoder.encodeStream([])) count++;
      assert.equal(count, 2);
      // Leaving early ends the reading; so far only a little was read.
      [read, closed] = [0, false];
      for await (const _ of encoder.encodeStream(source())) break;
      assert.ok(closed && read < 1000, `${read} were read`);
      const failing = async (stream) => {
        for await (const _ of stream);
      };
      for (const wrong of ['한 글', 7, null, undefined, {}]) await assert.rejects(failing(encoder.encodeStream(wrong)), { code: 'input_invalid' });
      await assert.rejects(failing(encoder.encodeStream(['가', 7])), { code: 'input_invalid', index: 1 });
      await assert.rejects(failing(encoder.encodeStream(['가'], { signal: AbortSignal.abort() })), { code: 'aborted' });
      const controller = new AbortController();
      await assert.rejects(async () => {
        for await (const _ of encoder.encodeStream(source(), { signal: controller.signal })) controller.abort();
      }, { code: 'aborted' });
    });

    test('later changes to the array do not matter', async () => {
      const texts = many(100);
      const promise = encoder.encode(texts);
      texts.fill('changed');
      const embeddings = await promise;
      assert.deepEqual(embeddings[99], await encoder.encode('문장 99'));
    });

    test('the report', async () => {
      const report = await encoder.encodeWithReport(['짧다', '길'.repeat(40)]);
      assert.deepEqual(report.tokenCounts, [4, 42]);
      assert.deepEqual(report.truncated, [false, true]);
      assert.equal(report.embeddings.length, 2);
      assert.equal((await encoder.encodeWithReport('짧다')).embeddings.length, 1);
      assert.equal(await encoder.countTokens('짧다'), 4);
      assert.deepEqual(await encoder.countTokens(['짧다', '']), [4, 2]);
      assert.deepEqual(await encoder.countTokens([]), []);
    });

    test('similarity', async () => {
      const matrix = await encoder.similarity(['가', '나', '다'], ['가', '라']);
      assert.equal(matrix.length, 3);
      assert.equal(matrix[0].length, 2);
      assert.ok(Math.abs(matrix[0][0] - 1) < 1e-6);
      const self = await encoder.similarity(['가', '나']);
      assert.equal(self[0][1], self[1][0]);
      assert.ok(Math.abs(self[1][1] - 1) < 1e-6);
      const [a, b] = await encoder.encode(['가', '라']);
      assert.equal((await encoder.similarity(a, [b]))[0][0], matrix[0][1]);
      assert.equal((await encoder.similarity('가', '라'))[0][0], matrix[0][1]);
      assert.equal((await encoder.similarity('가', b))[0][0], matrix[0][1]);
      assert.deepEqual(await encoder.similarity([], []), []);
      await assert.rejects(encoder.similarity([a, new Float32Array(3)]), { code: 'input_invalid', index: 1 });
      await assert.rejects(encoder.similarity([a, 7]), { code: 'input_invalid', index: 1 });
      await assert.rejects(encoder.similarity([[1, 2, 3]]), { code: 'input_invalid', index: 0 });
      await assert.rejects(encoder.similarity([[...b].with(5, 'x')]), { code: 'input_invalid', index: 0 });
      await assert.rejects(encoder.similarity([new Int32Array(8)]), { code: 'input_invalid', index: 0 });
    });

    test('similarity of texts and embeddings of all origins, mixed', async () => {
      const [a, b] = await encoder.encode(['가', '라']);
      // As a worker, an iframe or a test runner's sandbox gives them.
      const foreign = runInNewContext('Float32Array').from(b);
      assert.ok(!(foreign instanceof Float32Array));
      const expected = await encoder.similarity(['가', '라'], ['라', '가']);
      for (const [left, right] of [
        [['가', b], [b, '가']], [[a, '라'], ['라', a]], [[a, foreign], [foreign, a]], [[[...a], [...b]], [foreign, '가']],
        [[a, b].map((v) => Float64Array.from(v)), ['라', [...a]]], [JSON.parse(JSON.stringify([[...a], [...b]])), ['라', '가']],
      ]) {
        assert.deepEqual(await encoder.similarity(left, right), expected);
      }
      assert.equal((await encoder.similarity(foreign, [...a]))[0][0], expected[1][1]);
    });

    test('a large matrix leaves the caller its turns', async () => {
      const vectors = Array.from({ length: 1500 }, () => Float32Array.from({ length: 8 }, Math.random));
      let turns = 0;
      const timer = setInterval(() => turns++, 1);
      await encoder.similarity(vectors);
      clearInterval(timer);
      assert.ok(turns >= 2, `${turns} turns`);
      await assert.rejects(encoder.similarity(vectors, vectors, { signal: AbortSignal.timeout(30) }), { code: 'aborted' });
    });

    test('100,000 texts at once, in order, with progress', async () => {
      const texts = many(100_000);
      const events = [];
      const embeddings = await encoder.encode(texts, { onProgress: (event) => events.push(event) });
      assert.equal(embeddings.length, texts.length);
      assert.ok(events.length >= 100);
      assert.ok(events.every((event, i) => event.total === 100_000 && (i === 0 || event.done > events[i - 1].done)));
      assert.equal(events.at(-1).done, 100_000);
      for (const i of [0, 54_321, 99_999]) assert.deepEqual(embeddings[i], await encoder.encode(texts[i]));
    });

    test('a short call waits for what is being encoded, not for what else is handed out', async () => {
      const other = await munjang.loadEncoder(options);
      let done = 0;
      const long = other.encode(many(30).map(() => '#slow'), { onProgress: (event) => { done = event.done; } });
      // By then it is known how long one takes.
      while (done < 10) await new Promise((resolve) => setTimeout(resolve, 5));
      const before = done;
      await other.encode('짧다');
      assert.ok(done - before <= other.info.workers, `${done - before} slow texts went first`);
      await long;
      other.dispose();
    });

    test('what an aborted call has handed out is not encoded any more', async () => {
      const other = await munjang.loadEncoder(options);
      const controller = new AbortController();
      let done = 0;
      const long = other.encode(many(30).map(() => '#slow'), { signal: controller.signal, onProgress: (event) => { done = event.done; } });
      while (done < 10) await new Promise((resolve) => setTimeout(resolve, 5));
      // Of the worker that answers; one worker only, or it would be anyone's count.
      const [before] = await other.encode('#count');
      controller.abort();
      await assert.rejects(long, { code: 'aborted' });
      const [after] = await other.encode('#count');
      if (other.info.workers === 1) assert.ok(after - before <= 2, `${after - before} texts were encoded`);
      other.dispose();
    });

    test('short calls without end do not keep a long one from its end', async () => {
      const other = await munjang.loadEncoder(options);
      let over = false;
      const flood = async () => {
        while (!over) await other.encode('짧다');
      };
      const floods = Array.from({ length: 50 }, flood);
      await other.encode(many(20_000));
      over = true;
      await Promise.all(floods);
      other.dispose();
    });

    test('texts whose time is unknown come in batches that soon fit it', async () => {
      const other = await munjang.loadEncoder(options);
      const sizes = [];
      let last = 0;
      await other.encode(many(20).map(() => '#slow'), {
        onProgress: ({ done }) => {
          sizes.push(done - last);
          last = done;
        } });
      // One takes longer than a batch should.
      assert.ok(sizes.slice(-5).every((size) => size === 1), String(sizes));
      other.dispose();
    });

    test('abort stops a long call, and the next one works', async () => {
      const controller = new AbortController();
      const call = encoder.encode(many(100_000), {
        signal: controller.signal, onProgress: ({ done }) => done > 1000 && controller.abort() });
      const error = await call.catch((e) => e);
      assert.equal(error.code, 'aborted');
      assert.equal(error.name, 'AbortError');
      await assert.rejects(encoder.encode('가', { signal: AbortSignal.abort() }), { code: 'aborted' });
      assert.equal((await encoder.encode('가')).length, 8);
    });

    test('an error of the core rejects that call only', async () => {
      const [good, bad] = await Promise.allSettled([encoder.encode('좋다'), encoder.encode(['가', '#refuse'])]);
      assert.equal(good.status, 'fulfilled');
      assert.equal(bad.reason.code, 'input_invalid');
    });

    test('an error thrown by onProgress rejects that call only', async () => {
      const thrown = new Error('from the caller');
      await assert.rejects(encoder.encode(many(100), { onProgress: () => { throw thrown; } }), (error) => error === thrown);
      assert.equal((await encoder.encode('가')).length, 8);
    });

    test('after a trap pending calls are rejected and the next one starts afresh', async () => {
      const calls = await Promise.allSettled([encoder.encode(many(5000)), encoder.encode('#trap'), encoder.countTokens(many(5000))]);
      assert.deepEqual(calls.map(({ reason }) => reason?.code), ['crashed', 'crashed', 'crashed']);
      assert.equal((await encoder.encode('다시')).length, 8);
      // And once more, with calls that come in while it restarts.
      await assert.rejects(encoder.encode('#trap'), { code: 'crashed' });
      const both = await Promise.all([encoder.encode('하나'), encoder.encode(['둘', '셋'])]);
      assert.equal(both[1].length, 2);
    });

    test('memory is told', async () => {
      assert.ok((await encoder.memoryUsage()).wasmBytes >= 65536);
    });

    test('dispose during a call, and calls afterwards', async () => {
      const other = await munjang.loadEncoder(options);
      const call = other.encode(many(5000));
      other.dispose();
      other.dispose();
      await assert.rejects(call, { code: 'disposed' });
      for (const method of ['encode', 'encodeWithReport', 'countTokens', 'similarity']) {
        await assert.rejects(other[method](['가']), { code: 'disposed' }, method);
      }
      await assert.rejects(other.memoryUsage(), { code: 'disposed' });
      await assert.rejects(other.encode([]), { code: 'disposed' });
      assert.equal(other.info.hiddenSize, 8);
    });

    test('dispose while it restarts', async () => {
      const other = await munjang.loadEncoder(options);
      await assert.rejects(other.encode('#trap'), { code: 'crashed' });
      const call = other.encode('가');
      other.dispose();
      await assert.rejects(call, { code: 'disposed' });
    });
  });
}

test('a model that is gone when the encoder restarts', async () => {
  const other = await fakePackage();
  try {
    const { loadEncoder } = await other.import();
    const encoder = await loadEncoder();
    await writeFile(join(other.root, 'model/fake.munjang'), 'gone');
    await assert.rejects(encoder.encode('#trap'), { code: 'crashed' });
    await assert.rejects(encoder.encode('가'), { code: 'not_a_model' });
    encoder.dispose();
  } finally {
    await other.remove();
  }
});

test('an idle encoder does not keep Node alive, a busy one does', async () => {
  const script = `
    import { loadEncoder } from ${JSON.stringify(pkg.url('index.js'))};
    const encoder = await loadEncoder({ workers: 2 });
    const embeddings = await encoder.encode(Array(2000).fill('문장'));
    await encoder.memoryUsage();
    console.log(embeddings.length);`;
  const { stdout } = await promisify(execFile)(process.execPath, ['--input-type=module', '-e', script], { timeout: 30_000 });
  assert.equal(stdout.trim(), '2000');
});

test('Symbol.dispose', async () => {
  const encoder = await munjang.loadEncoder();
  encoder[Symbol.dispose ?? Symbol.for('Symbol.dispose')]();
  await assert.rejects(encoder.encode('가'), { code: 'disposed' });
});

test('options that are not what is documented are input_invalid, whoever takes them', async () => {
  const encoder = await munjang.loadEncoder({ worker: false });
  const calls = [null, 7, 'x', { signal: {} }, { signal: 7 }, { onProgress: 7 }, { onProgress: {} }];
  const loads = [...calls, { worker: 'no' }, { worker: null }, { cache: 1 }, { workers: 0 }, { workers: '2' }, { workers: Object.create(null) },
    { workers: 65 }, { workers: 2, worker: false }, { build: 'avx2' }, { build: Symbol('s') }, { modelUrl: 7 }, { modelUrl: {} }, { modelUrl: null },
    { wasmUrl: 7 }, { workerUrl: {} }, { createWorker: 'worker.js' }, { createWorker() {}, worker: false }, { modelUrl: 'http://:0' }];
  const refuse = async (run, what) => {
    const error = await run().then(() => assert.fail(`${what} was taken`), (e) => e);
    assert.ok(error instanceof munjang.MunjangError, `${what}: ${error}`);
    assert.equal(error.code, 'input_invalid', what);
    assert.match(error.message, /\S/);
  };
  for (const options of loads) await refuse(() => munjang.loadEncoder(options), `loadEncoder(${inspect(options)})`);
  for (const method of ['encode', 'encodeWithReport', 'countTokens']) {
    for (const options of calls) await refuse(() => encoder[method]('가', options), `${method}(…, ${inspect(options)})`);
  }
  for (const options of calls) await refuse(() => encoder.similarity('가', '나', options), `similarity(…, ${inspect(options)})`);
  await assert.rejects(munjang.loadEncoder({ modelUrl: 'file://host/x' }), { name: 'MunjangError', code: 'io' });
  // What fetch takes as "none" is none here too.
  await encoder.encode('가', { signal: null, onProgress: null });
  encoder.dispose();
});

test('cosineSimilarity: the dot product of embeddings, the cosine of all else', async () => {
  const { cosineSimilarity } = munjang;
  const encoder = await munjang.loadEncoder({ worker: false });
  const [a, b] = await encoder.encode(['가', '라']);
  assert.equal(cosineSimilarity(a, b), (await encoder.similarity(a, b))[0][0]);
  assert.equal(cosineSimilarity([...a], runInNewContext('Float32Array').from(b)), cosineSimilarity(a, b));
  assert.equal(cosineSimilarity([3, 0], [5, 0]), 1);
  assert.ok(Math.abs(cosineSimilarity([1, 1], [1, 0]) - Math.SQRT1_2) < 1e-7);
  assert.ok(Number.isNaN(cosineSimilarity([0, 0], [1, 0])));
  for (const [x, y] of [[a, [1]], ['가', '나'], [undefined, a], [a, undefined], [[1, 'x'], [1, 2]], [[], []]]) {
    assert.throws(() => cosineSimilarity(x, y), { code: 'input_invalid' });
  }
  encoder.dispose();
});

test('SentenceEncoder cannot be made by hand', () => {
  assert.throws(() => new munjang.SentenceEncoder(), { code: 'input_invalid' });
});

test('the entry for measurements', async () => {
  const { init } = await import(pkg.url('internal/bench-entry.js'));
  const bench = await init(pkg.url('model/fake.munjang'), { build: 'simd128' });
  assert.equal(bench.info.build, 'simd128');
  assert.deepEqual(bench.encodeIds([Uint32Array.of(1, 2), Uint32Array.of(3)]), new Float32Array(16).fill(3));
  assert.equal(bench.encodeTexts(['가', '나']).length, 16);
  bench.dispose();
});
