// What the caller's side and the runtime's side say to each other.
import { MunjangError } from './errors.js';

/** The package's version; both sides must be of one, or they may misunderstand each other. */
export const VERSION = '0.1.0';

/** What an error looks like in a message between threads. */
export const toMessage = (error) => ({
  code: typeof error?.code === 'string' ? error.code : 'crashed',
  message: String(error?.message ?? error),
  index: error?.index,
});

/** What either side (`here`) says to a message of another version. */
export const otherVersion = (here, version) => new MunjangError('worker_failed', `The ${here} is munjang ${VERSION}, the other side ${version ?? 'an older one'}: `
  + 'files of two versions were mixed, by a cache or an unfinished deployment. Load the page again; serve all files of the package from one version.');

/** @param {{ code: string, message: string, index?: number }} message */
export const fromMessage = ({ code, message, index }) =>
  new MunjangError(code, message, index === undefined ? {} : { index });
