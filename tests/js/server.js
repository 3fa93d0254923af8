// A server that misbehaves on request.
import { once } from 'node:events';
import { createServer } from 'node:http';

/** @param {Record<string, (request: any, response: any) => void>} routes by path */
export async function serve(routes) {
  const requests = [];
  const server = createServer((request, response) => {
    const { pathname } = new URL(request.url, 'http://localhost');
    requests.push(pathname);
    const route = routes[pathname];
    if (route) route(request, response);
    else response.writeHead(404).end('not here');
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    origin: `http://127.0.0.1:${server.address().port}`,
    requests,
    routes,
    close: () => {
      server.closeAllConnections();
      return new Promise((resolve) => server.close(resolve));
    },
  };
}

/** Sends `bytes` in pieces, as a network does. */
export const pieces = (bytes, { headers = {}, piece = 50_000 } = {}) => (_request, response) => {
  response.writeHead(200, { 'content-length': bytes.length, ...headers });
  let at = 0;
  const next = () => {
    if (response.destroyed) return;
    if (at >= bytes.length) response.end();
    else response.write(bytes.subarray(at, (at += piece)), () => setImmediate(next));
  };
  next();
};
