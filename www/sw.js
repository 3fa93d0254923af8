// Keeps the page usable without a network after one visit. What belongs to a version of the site is listed by hash
// in precache.js, which the build writes. A version is kept as a whole or not at all, and replaced as a whole: a
// page never gets files of two. Nothing else of the origin is touched. The model is not kept here; the package
// keeps it, checked, under its SHA-256.
// A worker that lies above the site says where that is.
const HERE = new URL(self.MUNJANG_WWW ?? './', location.href).href;
importScripts(`${HERE}precache.js`);

/** @type {{ version: string, live: boolean, files: Record<string, { sha256: string, later?: boolean }> }} */
const { version, live, files } = self.PRECACHE;
const PREFIX = 'munjang-page';
const CACHE = `${PREFIX}-${version}`;
const ABOVE = new URL('../', HERE).href;

/** By address: what the version holds. */
const listed = new Map(Object.entries(files).map(([path, file]) => [new URL(path, HERE).href, file]));

/** The listed address that a request means, if any. */
function addressOf({ url, mode }) {
  const address = new URL(url);
  address.hash = '';
  // A page's query (a language, a number of rounds) is for its script; another file's would be for a server.
  if (mode === 'navigate') address.search = '';
  if (address.pathname.endsWith('/')) address.pathname += 'index.html';
  return listed.has(address.href) ? address.href : undefined;
}

const hex = (digest) => Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, '0')).join('');

/** Whether an answer is a file of this version that may be kept. */
async function isOurs(response, address) {
  if (response.status !== 200 || response.redirected || response.type !== 'basic') return false;
  if (/\bno-store\b/i.test(response.headers.get('cache-control') ?? '')) return false;
  return hex(await crypto.subtle.digest('SHA-256', await response.clone().arrayBuffer())) === listed.get(address).sha256;
}

/** All files of this version, or a failure: then the old version stays, and this one is tried again later. */
async function install() {
  const cache = await caches.open(CACHE);
  try {
    await Promise.all([...listed].map(async ([address, { later }]) => {
      if (later || await cache.match(address)) return;
      const response = await fetch(address, { cache: 'no-cache' });
      if (!await isOurs(response, address)) throw new Error(`${address} is not of version ${version}`);
      await cache.put(address, response);
    }));
  } catch (error) {
    await caches.delete(CACHE);
    throw error;
  }
}

/** Large files are kept when they are first asked for. */
async function keepLater(cache, address, response) {
  try {
    if (await isOurs(response, address)) await cache.put(address, response);
  } catch {
    // Quota: it will be asked for again.
  }
}

async function answer(event, address) {
  const cache = await caches.open(CACHE);
  const kept = () => cache.match(address);
  if (live) {
    // The files change under the developer's hands: the network first.
    try {
      return await fetch(event.request);
    } catch (error) {
      return await kept() ?? Promise.reject(error);
    }
  }
  const found = await kept();
  if (found) return found;
  const response = await fetch(event.request);
  const copy = response.clone();
  if (listed.get(address).later) event.waitUntil(keepLater(cache, address, copy));
  // The browser has lost a part of the version: it is of no use any more, and the next visit gets another.
  else event.waitUntil(self.registration.unregister());
  return response;
}

self.addEventListener('install', (event) => event.waitUntil(install()));
self.addEventListener('activate', (event) => event.waitUntil((async () => {
  for (const name of await caches.keys()) if (name.startsWith(PREFIX) && name !== CACHE) await caches.delete(name);
  await self.clients.claim();
})()));
self.addEventListener('fetch', (event) => {
  const { method, mode, url } = event.request;
  const address = method === 'GET' ? addressOf(event.request) : undefined;
  if (address !== undefined) event.respondWith(answer(event, address));
  // Above the site lies what leads to it; without a network this does.
  else if (mode === 'navigate' && url === ABOVE) event.respondWith(fetch(event.request).catch(() => Response.redirect(HERE)));
});
// A page that begins asks whether it may have the newer version at once: only if no other page runs on the old one.
self.addEventListener('message', (event) => {
  if (event.data !== 'take over') return;
  event.waitUntil((async () => {
    const pages = await self.clients.matchAll({ type: 'window', includeUncontrolled: true });
    if (pages.filter(({ url }) => listed.has(addressOf({ url, mode: 'navigate' }))).length <= 1) await self.skipWaiting();
  })());
});
