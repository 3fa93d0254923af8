// What tabs that have the same index open tell each other. Nothing here is needed for correctness, which is the
// store's: a browser may lack both means.

import { lockManager } from './environment.js';

/** So long one waits for a tab that encodes the same, before doing it too. */
const PATIENCE_MS = 30_000;

export class Tabs {
  #name;
  #channel;

  /**
   * @param {string} name of the index
   * @param {(generation: number) => void} onNews another tab has stored something
   */
  constructor(name, onNews) {
    this.#name = `munjang-search/${name}`;
    if (typeof BroadcastChannel !== 'function') return;
    try {
      this.#channel = new BroadcastChannel(this.#name);
    } catch {
      // A frame without an origin.
      return;
    }
    this.#channel.onmessage = ({ data }) => onNews(data);
    // Node only: a channel that listens does not keep the process alive.
    this.#channel.unref?.();
  }

  /** @param {number} generation what is stored now */
  tell(generation) {
    this.#channel?.postMessage(generation);
  }

  /**
   * Runs `task` when no other tab runs one of the same key, so that it can find its work done.
   * @template T
   * @param {string} key
   * @param {AbortSignal} signal ends the waiting, not the task
   * @param {() => Promise<T>} task
   * @returns {Promise<T>}
   */
  async inTurn(key, signal, task) {
    const locks = lockManager();
    if (!locks) return task();
    const patience = new AbortController();
    const giveUp = () => patience.abort();
    const timer = setTimeout(giveUp, PATIENCE_MS);
    signal.addEventListener('abort', giveUp);
    const waited = () => {
      clearTimeout(timer);
      signal.removeEventListener('abort', giveUp);
    };
    let begun = false;
    try {
      return await locks.request(`${this.#name}/${key}`, { signal: patience.signal }, () => {
        begun = true;
        waited();
        return task();
      });
    } catch (error) {
      if (begun) throw error;
      waited();
      // Too long, or no locks in this frame.
      return task();
    }
  }

  close() {
    this.#channel?.close();
    this.#channel = undefined;
  }
}
