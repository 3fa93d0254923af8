// The WebAssembly instance in which a page's indexes live: one for all of them, beside the caller. It is made of
// the file that the encoder's worker runs, which the browser has then.
import { chooseBuild, compileCode } from './code.js';
import { MunjangError } from './errors.js';
import createGlue from './wasm/munjang.js';

let core;

/**
 * The instance, made on the first call.
 * @param {Promise<WebAssembly.Module>} [code] where it is compiled already
 * @returns {Promise<{ glue: any, memory: WebAssembly.Memory }>}
 */
export function searchCore(code) {
  core ??= start(code).catch((error) => {
    core = undefined;
    throw error;
  });
  return core;
}

async function start(code) {
  const glue = createGlue();
  const module = await (code ?? compileCode(chooseBuild()));
  try {
    const { memory } = await glue({ module_or_path: module });
    return { glue, memory };
  } catch (cause) {
    throw new MunjangError('wasm_unavailable', `The index's code cannot be started: ${cause?.message ?? cause}. `
      + 'Serve the files of the package as they are, all of one version.', { cause });
  }
}

/**
 * Runs a call of the core; what it throws becomes a `MunjangError`. A trap leaves the instance in an unknown state:
 * the next index gets a new one.
 * @template T
 * @param {() => T} call
 * @returns {T}
 */
export function coded(call) {
  try {
    return call();
  } catch (error) {
    if (error instanceof MunjangError) throw error;
    if (typeof error?.code === 'string') throw new MunjangError(error.code, error.message, { cause: error });
    core = undefined;
    throw new MunjangError('crashed', `The index stopped (${error?.message ?? error}), as it does where memory runs out. `
      + 'Open it again; if it stays so, keep fewer vectors, or in a smaller precision.', { cause: error });
  }
}
