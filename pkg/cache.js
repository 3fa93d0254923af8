// Verified model files, kept in the browser's Cache API under their SHA-256. Everything here may
// fail without harm (private windows, full disks, plain http): the model is then fetched again.
import { cacheStorage } from './environment.js';

const CACHE_NAME = 'munjang-models';
// A name that no network request can hit; the Cache API only takes http(s) addresses.
const keyOf = (sha256) => `https://munjang.invalid/sha256/${sha256}`;

async function openCache() {
  try {
    return await cacheStorage()?.open(CACHE_NAME);
  } catch {
    return undefined;
  }
}

/**
 * @param {string} sha256
 * @returns {Promise<Response | undefined>}
 */
export async function readCached(sha256) {
  try {
    return await (await openCache())?.match(keyOf(sha256));
  } catch {
    return undefined;
  }
}

/**
 * Keeps a file whose SHA-256 has been checked.
 * @param {string} sha256
 * @param {Response} response
 */
export async function writeCached(sha256, response) {
  try {
    await (await openCache())?.put(keyOf(sha256), response);
  } catch {
    // Quota, or no storage at all.
  }
}

/** @param {string} sha256 */
export async function deleteCached(sha256) {
  try {
    await (await openCache())?.delete(keyOf(sha256));
  } catch {
    // It will be found bad again, and fetched again.
  }
}

/** Whether keeping a copy is possible at all. */
export const cacheAvailable = () => cacheStorage() !== undefined;

/**
 * Deletes every model file that this package has kept for the page's origin.
 * @returns {Promise<boolean>} whether there were any
 */
export async function clearModelCache() {
  try {
    return (await cacheStorage()?.delete(CACHE_NAME)) ?? false;
  } catch {
    return false;
  }
}
