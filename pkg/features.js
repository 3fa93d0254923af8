// Which of the two WebAssembly files this engine can run. An engine without relaxed SIMD rejects
// a module that merely contains such an instruction, so a tiny module is asked about first.
import { MunjangError } from './errors.js';

// (module (func (result v128) i32.const 0 i8x16.splat i8x16.popcnt))
const SIMD128 = [0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0,
  253, 15, 253, 98, 11];
// (module (func (result v128) i32.const 1 i8x16.splat i32.const 2 i8x16.splat
//   i16x8.relaxed_dot_i8x16_i7x16_s))
const RELAXED = [0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 15, 1, 13, 0, 65, 1,
  253, 15, 65, 2, 253, 15, 253, 146, 2, 11];

/**
 * @param {'simd128' | 'relaxed'} [wanted] a certain build, for tests and measurements
 * @returns {'simd128' | 'relaxed'}
 */
export function chooseBuild(wanted) {
  if (wanted !== undefined && wanted !== 'simd128' && wanted !== 'relaxed') {
    throw new MunjangError('input_invalid', `build is ${String(wanted)}; expected 'simd128' or 'relaxed'.`);
  }
  const runs = (bytes) => WebAssembly.validate(new Uint8Array(bytes));
  if (typeof WebAssembly !== 'object' || !runs(SIMD128)) {
    throw new MunjangError('unsupported_browser',
      'This browser has no WebAssembly SIMD. Use Chrome or Edge 91, Firefox 89, Safari 16.4, Node 20, or newer.');
  }
  const relaxed = runs(RELAXED);
  if (wanted === 'relaxed' && !relaxed) {
    throw new MunjangError('unsupported_browser',
      "This browser has no relaxed WebAssembly SIMD; leave `build` out, or ask for 'simd128'.");
  }
  return wanted ?? (relaxed ? 'relaxed' : 'simd128');
}
