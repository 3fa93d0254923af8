// The package's errors.

/**
 * The package's one error type. `code` is stable within a major version; README.md lists all codes
 * with what to do. Codes of the core (`weights_malformed`, …) pass through unchanged.
 */
export class MunjangError extends Error {
  /**
   * @param {string} code
   * @param {string} message
   * @param {{ cause?: unknown, index?: number }} [details] `index`: the input that was at fault.
   */
  constructor(code, message, details = {}) {
    super(message, 'cause' in details ? { cause: details.cause } : undefined);
    // Code written for fetch tests for the name "AbortError"; keep that working.
    this.name = code === 'aborted' ? 'AbortError' : 'MunjangError';
    this.code = code;
    if (details.index !== undefined) this.index = details.index;
  }
}

/** @param {unknown} reason what the caller gave to `abort()` */
export const aborted = (reason) =>
  new MunjangError('aborted', 'The call was aborted by its signal.', { cause: reason });

/** @param {AbortSignal | undefined} signal */
export function throwIfAborted(signal) {
  if (signal?.aborted) throw aborted(signal.reason);
}
