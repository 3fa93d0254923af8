// Native contestants: each runs in a process of its own, in turn; both print JSON.
import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';

const NATIVE_PEER = 'onnxruntime native int8';

const median = (values) => [...values].sort((a, b) => a - b)[values.length >> 1];

/** Runs what is there: an example of the crate, and onnxruntime of the bench's Python. */
export async function timeNative({ root, data, rounds, note }) {
  const target = process.env.CARGO_TARGET_DIR ?? join(root, 'target');
  const ours = join(target, 'release/examples/measure');
  const python = join(root, '.tools/venv/bin/python');
  const commands = [
    { name: 'munjang native', command: [ours, join(data, 'model.munjang'), join(data, 'workloads.json')] },
    { name: NATIVE_PEER, command: [python, join(root, 'benches/web/native.py'), data] },
  ].filter(({ command }) => existsSync(command[0]));
  if (commands.length === 0) return [];
  for (let round = 0; round < rounds; round++) {
    for (const contestant of round % 2 ? [...commands].reverse() : commands) {
      const [program, ...given] = contestant.command;
      const out = execFileSync(program, given, { encoding: 'utf8', env: { ...process.env, RAYON_NUM_THREADS: '1' } });
      (contestant.rounds ??= []).push(JSON.parse(out));
    }
  }
  const peer = commands.find(({ name }) => name === NATIVE_PEER);
  return commands.map(({ name, rounds: times }) => {
    note(`${name}: ${Object.entries(times[0]).map(([load, value]) => `${load} ${value.toFixed(2)} ms`).join(', ')}`);
    return {
      name,
      workloads: Object.fromEntries(Object.keys(times[0]).map((load) => [load, {
        cpu_ms: median(times.map((t) => t[load])),
        ...(peer ? { speed_to_peer: median(times.map((t, i) => peer.rounds[i][load] / t[load])) } : {}),
      }])),
    };
  });
}
