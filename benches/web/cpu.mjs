// CPU time of threads, from Linux's own counters.
import { readFileSync, readdirSync } from 'node:fs';

/** Milliseconds that each thread of the processes has run, by "pid/tid"; empty where /proc is missing. */
export function cpuByThread(pids) {
  const times = new Map();
  for (const pid of pids) {
    let threads = [];
    try {
      threads = readdirSync(`/proc/${pid}/task`);
    } catch {
      // Gone, or not Linux.
    }
    for (const thread of threads) {
      try {
        // Its first figure is nanoseconds on a CPU.
        times.set(`${pid}/${thread}`, Number(readFileSync(`/proc/${pid}/task/${thread}/schedstat`, 'utf8').split(' ')[0]) / 1e6);
      } catch {
        // The thread ended meanwhile.
      }
    }
  }
  return times;
}
