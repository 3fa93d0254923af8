// The bound: inner loops of nothing but products, on operands that stay in the nearest cache. The
// engine's best code for the instruction, so the share of it that an encoder reaches is its own.
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const ROWS = 4;
const DEPTH = 384;
const ACTIVATIONS = 16384;

/** Products of one call with argument 1: 4 rows, 8 channels. */
export const MACS = ROWS * 8 * DEPTH;

/** Each build's step: `depth` products of each pair of row and channel, `bytes` of weights and of one row. */
const STEPS = {
  // 8-bit products summed in pairs in 16 bits, two steps deep, then widened.
  relaxed: {
    depth: 8,
    weightBytes: 64,
    rowBytes: 8,
    loads: [0, 16, 32, 48],
    row: (x) => [0, 1].map((half) => `
      (local.set $s${x * 2 + half} (i32x4.add (local.get $s${x * 2 + half})
        (i32x4.extadd_pairwise_i16x8_s (i16x8.add
          (i16x8.relaxed_dot_i8x16_i7x16_s (local.get $w${half}) (local.get $x0))
          (i16x8.relaxed_dot_i8x16_i7x16_s (local.get $w${half + 2}) (local.get $x1))))))`).join(''),
  },
  // Both operands widened to 16 bits beforehand; products summed in 32 bits.
  simd128: {
    depth: 4,
    weightBytes: 64,
    rowBytes: 8,
    loads: [0, 16, 32, 48],
    row: (x) => [0, 1].map((half) => `
      (local.set $s${x * 2 + half} (i32x4.add (local.get $s${x * 2 + half})
        (i32x4.add
          (i32x4.dot_i16x8_s (local.get $w${half}) (local.get $x0))
          (i32x4.dot_i16x8_s (local.get $w${half + 2}) (local.get $x1)))))`).join(''),
  },
};

/** The loop as WebAssembly text: run(n) goes n times over all of the depth. */
function text(build) {
  const { depth, weightBytes, rowBytes, loads, row } = STEPS[build];
  const steps = DEPTH / depth;
  const sums = Array.from({ length: ROWS * 2 }, (_, i) => i);
  return `(module
  (memory (export "memory") 1)
  (func (export "run") (param $n i32) (result i32)
    (local $w i32) (local $x i32) (local $x0 v128) (local $x1 v128)
    ${loads.map((_, i) => `(local $w${i} v128)`).join(' ')}
    ${sums.map((i) => `(local $s${i} v128)`).join(' ')}
    (loop $again
      (local.set $w (i32.const 0))
      (local.set $x (i32.const ${ACTIVATIONS}))
      (loop $step
        ${loads.map((at, i) => `(local.set $w${i} (v128.load offset=${at} (local.get $w)))`).join('\n        ')}
        ${Array.from({ length: ROWS }, (_, r) => `
        (local.set $x0 (v128.load32_splat offset=${r * steps * rowBytes} (local.get $x)))
        (local.set $x1 (v128.load32_splat offset=${r * steps * rowBytes + 4} (local.get $x)))${row(r)}`).join('')}
        (local.set $x (i32.add (local.get $x) (i32.const ${rowBytes})))
        (br_if $step (i32.lt_u (local.tee $w (i32.add (local.get $w) (i32.const ${weightBytes}))) (i32.const ${steps * weightBytes}))))
      (br_if $again (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))
    (i32x4.extract_lane 0 ${sums.map((i) => `(local.get $s${i})`).reduce((a, b) => `(i32x4.add ${a} ${b})`)})))`;
}

/** Assembles both loops with binaryen's `wasm-as`: bytes by build. */
export function assemble(wasmAs) {
  const folder = mkdtempSync(join(tmpdir(), 'peak-'));
  try {
    return Object.fromEntries(Object.keys(STEPS).map((build) => {
      const [source, out] = [join(folder, `${build}.wat`), join(folder, `${build}.wasm`)];
      writeFileSync(source, text(build));
      execFileSync(wasmAs, ['--enable-simd', ...(build === 'relaxed' ? ['--enable-relaxed-simd'] : []), source, '-o', out]);
      return [build, [...readFileSync(out)]];
    }));
  } finally {
    rmSync(folder, { recursive: true });
  }
}
