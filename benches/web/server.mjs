// Serves the bench's folders, as a good host serves static files: right types, cacheable.
import { createReadStream, statSync } from 'node:fs';
import { createServer } from 'node:http';
import { extname, join, normalize } from 'node:path';

const TYPES = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.json': 'application/json',
  '.mjs': 'text/javascript; charset=utf-8',
  '.wasm': 'application/wasm',
};

/** @param {Record<string, string>} folders URL prefix to folder */
export async function serve(folders) {
  const file = (path) => {
    const prefix = Object.keys(folders).find((start) => path.startsWith(start));
    return prefix && join(folders[prefix], normalize(`/${path.slice(prefix.length)}`));
  };
  const server = createServer((request, response) => {
    const found = file(decodeURIComponent(new URL(request.url, 'http://localhost').pathname));
    let info;
    try {
      info = found && statSync(found);
    } catch {
      // Answered below.
    }
    if (!info?.isFile()) return response.writeHead(404).end();
    response.writeHead(200, {
      'content-type': TYPES[extname(found)] ?? 'application/octet-stream',
      'content-length': info.size,
      'last-modified': info.mtime.toUTCString(),
      'cache-control': 'max-age=3600',
    });
    createReadStream(found).pipe(response);
  });
  await new Promise((listening) => server.listen(0, 'localhost', listening));
  return {
    origin: `http://localhost:${server.address().port}`,
    file,
    close: () => {
      server.closeAllConnections();
      return new Promise((closed) => server.close(closed));
    },
  };
}
