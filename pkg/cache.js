// Verified model files, kept in the browser's Cache API under their SHA-256. Everything here may
// fail without harm (private windows, full disks, plain http): the model is then fetched again.
import { cacheStorage } from './environment.js';

const CACHE_NAME = 'munjang-models';
/** When each of them was last used; apart, so that noting it does not write the model anew. */
const USES_NAME = 'munjang-models-used';
/** A model that no page has loaded for so long is an old version's. */
const KEPT_DAYS = 30;
// A name that no network request can hit; the Cache API only takes http(s) addresses.
const keyOf = (sha256) => `https://munjang.invalid/sha256/${sha256}`;

async function openCache(name = CACHE_NAME) {
  try {
    return await cacheStorage()?.open(name);
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

/**
 * Notes that a model is in use, and deletes those that have not been for long.
 * @param {string} sha256
 */
export async function noteUse(sha256) {
  try {
    const [models, uses] = await Promise.all([openCache(), openCache(USES_NAME)]);
    if (!models || !uses) return;
    const today = Math.floor(Date.now() / 864e5);
    const stamp = (key) => uses.put(key, new Response(String(today)));
    await stamp(keyOf(sha256));
    for (const { url } of await models.keys()) {
      const kept = await uses.match(url);
      // One from before there were notes begins its time now.
      if (!kept) await stamp(url);
      else if (today - Number(await kept.text()) > KEPT_DAYS) await Promise.all([models.delete(url), uses.delete(url)]);
    }
  } catch {
    // Another time.
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
    const [had] = await Promise.all([CACHE_NAME, USES_NAME].map((name) => cacheStorage()?.delete(name)));
    return had ?? false;
  } catch {
    return false;
  }
}
