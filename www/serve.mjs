// Serves the demo page and the package for development: `node www/serve.mjs`, PORT to choose
// another port than 8080. Any static host does as well; nothing here is special but the types.
import { createReadStream } from 'node:fs';
import { stat } from 'node:fs/promises';
import { createServer } from 'node:http';
import { extname, join, normalize, sep } from 'node:path';
import { fileURLToPath } from 'node:url';
import { precache } from './precache.mjs';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const FOLDERS = ['www', 'pkg'];
const TYPES = {
  '.css': 'text/css; charset=utf-8',
  '.html': 'text/html; charset=utf-8',
  '.ico': 'image/x-icon',
  '.js': 'text/javascript; charset=utf-8',
  '.json': 'application/json; charset=utf-8',
  '.md': 'text/plain; charset=utf-8',
  '.mjs': 'text/javascript; charset=utf-8',
  '.munjang': 'application/octet-stream',
  '.png': 'image/png',
  '.svg': 'image/svg+xml',
  '.wasm': 'application/wasm',
  '.webmanifest': 'application/manifest+json',
};

/** The file that a URL path names, or null if it is none of ours. */
async function find(path) {
  const relative = normalize(decodeURIComponent(path)).replace(/^[/\\]+/, '');
  if (!FOLDERS.includes(relative.split(sep)[0])) return null;
  const file = join(ROOT, relative);
  try {
    const info = await stat(file);
    if (info.isFile()) return { file, size: info.size };
    return info.isDirectory() && path.endsWith('/') ? find(`${path}index.html`) : null;
  } catch {
    return null;
  }
}

const server = createServer(async (request, response) => {
  const answer = (status, headers, body) => response.writeHead(status, headers).end(body);
  let path;
  try {
    path = new URL(request.url, 'http://localhost').pathname;
    decodeURIComponent(path);
  } catch {
    return answer(400, { 'content-type': 'text/plain' }, 'bad request\n');
  }
  if (request.method !== 'GET' && request.method !== 'HEAD') {
    return answer(405, { allow: 'GET, HEAD' }, '');
  }
  if (path === '/' || path === '/www') return answer(302, { location: '/www/' }, '');
  if (path === '/www/precache.js') {
    // Of the files as they are now; the service worker then asks for them each time.
    return answer(200, { 'content-type': TYPES['.js'], 'cache-control': 'no-cache' }, request.method === 'HEAD' ? '' : await precache(true));
  }
  const found = await find(path);
  if (!found) return answer(404, { 'content-type': 'text/plain' }, 'not found\n');
  response.writeHead(200, {
    'content-type': TYPES[extname(found.file)] ?? 'application/octet-stream',
    'content-length': found.size,
    // A rebuilt file must show at the next reload.
    'cache-control': 'no-cache',
    // The page's service worker also keeps the package, which lies beside www/.
    ...(found.file.endsWith('sw.js') && { 'service-worker-allowed': '/' }),
  });
  if (request.method === 'HEAD') return response.end();
  createReadStream(found.file).on('error', () => response.destroy()).pipe(response);
});

const port = Number(process.env.PORT ?? 8080);
server.on('error', (error) => {
  const hint = error.code === 'EADDRINUSE' ? `port ${port} is taken; try PORT=${port + 1} ./build.sh demo` : error.message;
  console.error(`cannot serve: ${hint}`);
  process.exit(1);
});
server.listen(port, 'localhost', () => {
  console.log(`munjang is at http://localhost:${server.address().port}/www/  (Ctrl-C ends it)`);
});
