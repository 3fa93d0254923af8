// Firefox and WebKitGTK as they are installed, by what they bring to be driven: Marionette (JSON over a socket) and
// WebDriver. Each gives { go(url), run(script), close() }; `script` is the body of an async function.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer, connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const find = (...paths) => paths.find((path) => path && existsSync(path));
export const FIREFOX = find(process.env.FIREFOX, '/usr/bin/firefox-esr', '/usr/bin/firefox');
export const WEBKIT_DRIVER = find(process.env.WEBKIT_DRIVER, '/usr/bin/WebKitWebDriver');
export const XVFB = find('/usr/bin/Xvfb');
const PATIENCE_MS = 240_000;

const ASYNC = (body) => `const done = arguments[arguments.length - 1];
  (async () => { ${body} })().then((value) => done({ value }), (error) => done({ error: String(error?.stack || error) + ' ' + error?.code }));`;

function valueOf({ value, error }) {
  if (error) throw new Error(error);
  return value;
}

async function freePort() {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address();
  server.close();
  return port;
}

async function retry(attempt) {
  for (let n = 0; ; n++) {
    try {
      return await attempt();
    } catch (error) {
      if (n >= 600) throw error;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }
}

export async function openFirefox() {
  const profile = await mkdtemp(join(tmpdir(), 'munjang-firefox-'));
  const port = await freePort();
  await writeFile(join(profile, 'user.js'), `user_pref('marionette.port', ${port});\nuser_pref('datareporting.policy.dataSubmissionEnabled', false);\n`);
  const browser = spawn(FIREFOX, ['--headless', '--marionette', '--no-remote', '--profile', profile, 'about:blank'], { stdio: 'ignore' });
  const socket = await retry(async () => {
    const made = connect(port, '127.0.0.1');
    await once(made, 'connect');
    return made;
  });
  // Messages are `length:json`; a request is [0, id, name, parameters], its answer [1, id, error, result].
  const waiting = new Map();
  let received = Buffer.alloc(0);
  socket.on('data', (data) => {
    received = Buffer.concat([received, data]);
    for (;;) {
      const colon = received.indexOf(58);
      const end = colon + 1 + Number(received.subarray(0, Math.max(colon, 0)));
      if (colon < 0 || received.length < end) return;
      const message = JSON.parse(received.subarray(colon + 1, end));
      received = received.subarray(end);
      // The first one only greets.
      if (!Array.isArray(message)) continue;
      const [, id, error, result] = message;
      const { resolve, reject } = waiting.get(id);
      if (error) reject(new Error(`${error.error}: ${error.message}`));
      else resolve(result);
    }
  });
  let last = 0;
  const ask = (name, parameters = {}) => new Promise((resolve, reject) => {
    const id = ++last;
    waiting.set(id, { resolve, reject });
    const text = JSON.stringify([0, id, name, parameters]);
    socket.write(`${Buffer.byteLength(text)}:${text}`);
  });
  await ask('WebDriver:NewSession', {});
  await ask('WebDriver:SetTimeouts', { script: PATIENCE_MS, pageLoad: PATIENCE_MS });
  return {
    go: (url) => ask('WebDriver:Navigate', { url }),
    run: async (script) => valueOf((await ask('WebDriver:ExecuteAsyncScript', { script: ASYNC(script), args: [], sandbox: null })).value),
    async close() {
      socket.destroy();
      browser.kill();
      await once(browser, 'exit');
      await rm(profile, { recursive: true, force: true });
    },
  };
}

export async function openWebKit() {
  const number = 90 + Math.floor(Math.random() * 9000);
  const display = spawn(XVFB, [`:${number}`, '-screen', '0', '1200x900x24'], { stdio: 'ignore' });
  const port = await freePort();
  const driver = spawn(WEBKIT_DRIVER, [`--port=${port}`], { stdio: 'ignore', env: { ...process.env, DISPLAY: `:${number}` } });
  const ask = async (method, path, body) => {
    const response = await fetch(`http://127.0.0.1:${port}${path}`, { method, body: body && JSON.stringify(body) });
    const { value } = await response.json();
    if (value?.error) throw new Error(`${value.error}: ${value.message}`);
    return value;
  };
  await retry(() => ask('GET', '/status'));
  const browser = find('/usr/lib/x86_64-linux-gnu/webkit2gtk-4.1/MiniBrowser', '/usr/lib/x86_64-linux-gnu/webkit2gtk-4.0/MiniBrowser');
  const { sessionId } = await ask('POST', '/session', { capabilities: { alwaysMatch: browser
    ? { 'webkitgtk:browserOptions': { binary: browser, args: ['--automation'] } } : {} } });
  const session = `/session/${sessionId}`;
  await ask('POST', `${session}/timeouts`, { script: PATIENCE_MS, pageLoad: PATIENCE_MS });
  return {
    go: (url) => ask('POST', `${session}/url`, { url }),
    run: async (script) => valueOf(await ask('POST', `${session}/execute/async`, { script: ASYNC(script), args: [] })),
    async close() {
      await ask('DELETE', session).catch(() => {});
      for (const process of [driver, display]) {
        process.kill();
        await once(process, 'exit');
      }
    },
  };
}
