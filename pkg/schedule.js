// Which texts go to which lane next, and how many at a time. A batch is cut by the time it will take, learned from
// what the last ones took: short enough that another call, an abort and progress get in between, long enough that
// messages cost nothing beside it. The lane's own queue (service.js) lets short calls overtake what was handed
// out ahead.
import { aborted, throwIfAborted } from './errors.js';

/** What a batch should take in a worker, in milliseconds; a text that takes longer goes alone. */
const BATCH_MS = 30;
/** Bounds the answer to a message, however quick the texts are. */
const BATCH_TEXTS = 512;
/** Batches handed out per lane, so that it need not wait for a message between them. */
const LANE_BATCHES = 2;
/** Assumed before anything was measured; too slow for nearly all machines, so that the first batch is a short one. */
const FIRST_MS_PER_UNIT = 0.3;
/** How much the past counts, from one batch to the next. */
const MEMORY = 0.8;
/** What a text costs beside its characters (special tokens, the message), as if it were so many more. */
const TEXT_UNITS = 8;
/** No text that is cut off at a model's limit costs more than so many characters for each token of the limit. */
const CHARS_PER_TOKEN = 4;

/** How long texts take, in milliseconds per unit; a unit is about a character. */
class Pace {
  /** Whether anything was measured. */
  known = false;
  #units = 1e-3;
  #ms = FIRST_MS_PER_UNIT * 1e-3;

  note(units, ms) {
    this.known = true;
    // Sums, not single quotients: some browsers' clocks only tell whole (or a hundred) milliseconds.
    this.#units = this.#units * MEMORY + units;
    this.#ms = this.#ms * MEMORY + ms;
  }

  ms(units) {
    return (units / this.#units) * this.#ms;
  }
}

/**
 * Calls of one encoder. Each is cut into batches; `take(at, result, count)` gets each batch's answer, on the
 * caller's thread, one message at a time.
 */
export class Scheduler {
  #lanes;
  #onNoLanes;
  #maxUnits = Infinity;
  /** @type {Map<string, Pace>} by op */
  #paces = new Map();
  /** Calls that wait for an answer. */
  #active = new Set();
  /** Those of them that still have texts to hand out: calls of one batch, and longer ones, next one first. */
  #short = [];
  #long = [];

  /**
   * @param {() => import('./lane.js').Lane[]} lanes
   * @param {() => void} onNoLanes called when there is something to do and no lane
   */
  constructor(lanes, onNoLanes) {
    this.#lanes = lanes;
    this.#onNoLanes = onNoLanes;
  }

  /** @param {number} maxTokens of the model */
  setLimit(maxTokens) {
    this.#maxUnits = maxTokens * CHARS_PER_TOKEN;
  }

  get busy() {
    return this.#active.size > 0;
  }

  /**
   * Runs `op` over all texts.
   * @param {'encode' | 'count'} op
   * @param {string[]} texts
   * @param {{ signal?: AbortSignal, onProgress?: (progress: { done: number, total: number }) => void }} options
   * @param {(at: number, result: any, count: number) => void} take
   * @returns {Promise<void>}
   */
  run(op, texts, { signal, onProgress }, take) {
    return new Promise((resolve, reject) => {
      throwIfAborted(signal);
      if (texts.length === 0) {
        resolve();
        return;
      }
      const job = { op, texts, next: 0, done: 0, take, onProgress, calls: new Set() };
      const onAbort = () => job.fail(aborted(signal.reason));
      const settle = (how, value) => {
        signal?.removeEventListener('abort', onAbort);
        this.#active.delete(job);
        for (const queue of [this.#short, this.#long]) {
          const at = queue.indexOf(job);
          if (at >= 0) queue.splice(at, 1);
        }
        // What of it waits in a lane would only hold up the next call.
        for (const call of job.calls) call.drop();
        if (!this.busy) this.#setBusy(false);
        how(value);
      };
      job.finish = () => settle(resolve);
      job.fail = (error) => settle(reject, error);
      signal?.addEventListener('abort', onAbort, { once: true });
      if (!this.busy) this.#setBusy(true);
      this.#active.add(job);
      job.short = texts.length === 1 || this.#cut(job).end === texts.length;
      (job.short ? this.#short : this.#long).push(job);
      this.pump();
    });
  }

  /** Hands out batches while there are texts to encode and lanes with room. */
  pump() {
    if (this.#short.length + this.#long.length === 0) return;
    if (this.#lanes().length === 0) {
      this.#onNoLanes();
      return;
    }
    while (this.#short.length > 0 && this.#handOut(this.#short));
    while (this.#long.length > 0 && this.#handOut(this.#long));
  }

  /** @param {unknown} error rejects all calls */
  fail(error) {
    this.#short.length = 0;
    this.#long.length = 0;
    for (const job of [...this.#active]) job.fail(error);
  }

  #setBusy(busy) {
    for (const lane of this.#lanes()) lane.setBusy(busy);
  }

  /** Hands out the next batch of the first call in `queue`; false if no lane has room for it. */
  #handOut(queue) {
    const short = queue === this.#short;
    const load = (lane) => (short ? lane.load.short : lane.load.long);
    const all = (lane) => lane.load.short.ms + lane.load.long.ms;
    const lane = this.#lanes().reduce((least, other) => (all(other) < all(least) ? other : least));
    if (load(lane).batches >= LANE_BATCHES && load(lane).ms >= BATCH_MS) return false;
    // The first batch of all is a measurement; no second one is cut before it ends.
    if (!short && !this.#paceOf(queue[0].op).known && this.#lanes().some((each) => load(each).batches > 0)) return false;
    const job = queue.shift();
    const at = job.next;
    const { end, units } = this.#cut(job);
    job.next = end;
    // In turns: no long call waits for all of another.
    if (job.next < job.texts.length) queue.push(job);
    this.#dispatch(lane, load(lane), job, at, end, units);
    return true;
  }

  async #dispatch(lane, load, job, at, end, units) {
    const pace = this.#paceOf(job.op);
    const expected = pace.ms(units);
    const call = lane.batch({ op: job.op, texts: job.texts.slice(at, end), short: job.short });
    job.calls.add(call);
    load.batches++;
    load.ms += expected;
    try {
      const { result, ms } = await call.answer;
      // Given up while it waited.
      if (result === undefined) return;
      pace.note(units, ms);
      if (!this.#active.has(job)) return;
      job.take(at, result, end - at);
      job.done += end - at;
      job.onProgress?.({ done: job.done, total: job.texts.length });
      if (job.done === job.texts.length) job.finish();
    } catch (error) {
      if (this.#active.has(job)) job.fail(error);
    } finally {
      job.calls.delete(call);
      load.batches--;
      load.ms = load.batches === 0 ? 0 : load.ms - expected;
      this.pump();
    }
  }

  /** Where the next batch of `job` ends, and its units. */
  #cut({ op, texts, next }) {
    const pace = this.#paceOf(op);
    const most = op === 'count' ? Infinity : this.#maxUnits;
    let units = 0;
    let end = next;
    while (end < texts.length && end - next < BATCH_TEXTS) {
      const more = units + Math.min(texts[end].length, most) + TEXT_UNITS;
      // At least one text, however long.
      if (end > next && pace.ms(more) > BATCH_MS) break;
      units = more;
      end++;
    }
    return { end, units };
  }

  #paceOf(op) {
    let pace = this.#paces.get(op);
    if (!pace) this.#paces.set(op, (pace = new Pace()));
    return pace;
  }
}
