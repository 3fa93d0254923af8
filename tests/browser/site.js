// A static server as any host is one: www/ at the root, the package beside it.
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { extname } from 'node:path';

const TYPES = {
  '.html': 'text/html; charset=utf-8', '.js': 'text/javascript', '.mjs': 'text/javascript', '.css': 'text/css',
  '.svg': 'image/svg+xml', '.png': 'image/png', '.webmanifest': 'application/manifest+json', '.json': 'application/json', '.wasm': 'application/wasm', '.munjang': 'application/octet-stream',
};

/** As strict as a page can have it: everything works under it. */
export const STRICT = "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
  + "worker-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'";

/**
 * @param {Record<string, string | URL>} folders by path prefix, longest match first
 */
export async function openSite(folders, host = '127.0.0.1') {
  /** Set by a test to answer a path by itself: return true when it did; `headers` go with every file. */
  const site = { intercept: undefined, requests: [], headers: { 'cache-control': 'no-store', 'content-security-policy': STRICT } };
  /** Lets pages use another origin too; gives a function that ends that. */
  site.allow = (origin) => {
    const before = site.headers;
    const policy = STRICT.replace("script-src 'self'", `script-src 'self' ${origin}`).replace("connect-src 'self'", `connect-src 'self' ${origin}`)
      .replace("worker-src 'self'", `worker-src 'self' blob: ${origin}`);
    site.headers = { ...before, 'content-security-policy': policy };
    return () => {
      site.headers = before;
    };
  };
  const prefixes = Object.keys(folders).sort((a, b) => b.length - a.length);
  const server = createServer(async (request, response) => {
    const { pathname } = new URL(request.url, 'http://localhost');
    site.requests.push(pathname);
    if (site.intercept?.(pathname, response, request)) return;
    const prefix = prefixes.find((p) => pathname.startsWith(p));
    const path = pathname.slice(prefix?.length) || 'index.html';
    try {
      if (prefix === undefined || path.includes('..')) throw new Error('outside');
      const body = await readFile(new URL(path, folders[prefix]));
      response.writeHead(200, { 'content-type': TYPES[extname(path)] ?? 'application/octet-stream', 'content-length': body.length, ...site.headers });
      response.end(body);
    } catch {
      response.writeHead(404, { 'content-type': 'text/plain' }).end('not found');
    }
  });
  server.listen(0, host);
  await once(server, 'listening');
  site.origin = `http://${host}:${server.address().port}`;
  site.close = () => {
    server.closeAllConnections();
    return new Promise((resolve) => server.close(resolve));
  };
  return site;
}
