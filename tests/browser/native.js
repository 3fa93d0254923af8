// The command line of the same working tree: the judge of what a page computes.
import { execFile, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { once } from 'node:events';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

const run = promisify(execFile);
const root = fileURLToPath(new URL('../../', import.meta.url));
const binary = join(root, process.env.CARGO_TARGET_DIR ?? 'target', 'debug/munjang');

/** Builds it where the native tests have not. */
export async function ensureNative() {
  if (!existsSync(binary)) await run('cargo', ['build', '--quiet', '--bin', 'munjang'], { cwd: root, maxBuffer: 1 << 26 });
}

/** Makes a model file of a checkpoint's folder. */
export const convert = (checkpoint, output) => run(binary, ['convert', fileURLToPath(checkpoint), '--output', output]);

/** The embeddings of lines, one after another. */
export async function encodeLines(model, lines) {
  const child = spawn(binary, ['encode', '--model', model], { stdio: ['pipe', 'pipe', 'inherit'] });
  child.stdin.end(lines.map((line) => `${line}\n`).join(''));
  let output = '';
  child.stdout.setEncoding('utf8').on('data', (text) => {
    output += text;
  });
  const [code] = await once(child, 'close');
  if (code !== 0) throw new Error(`munjang encode ended with ${code}`);
  return Float32Array.from(output.trim().split('\n').flatMap((line) => JSON.parse(line).embedding));
}
