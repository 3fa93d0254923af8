// A browser as a plain process with a profile of its own, so that it can be killed like by a power failure. Its
// pages speak to the test by posting JSON to /report of the site that they come from.
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { once } from 'node:events';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

const PLACES = {
  chromium: [process.env.CHROMIUM, '/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'],
  firefox: [process.env.FIREFOX, '/usr/bin/firefox', '/usr/bin/firefox-esr'],
};
const place = (kind) => PLACES[kind].find((path) => path && existsSync(path));

/** The browsers that are here. */
export const KINDS = Object.keys(PLACES).filter(place);

/** Nothing asked of the network, no first-run pages, no crash dialogs. */
const PREFS = {
  'app.update.enabled': false, 'browser.aboutwelcome.enabled': false, 'browser.shell.checkDefaultBrowser': false,
  'browser.startup.homepage_override.mstone': 'ignore', 'browser.sessionstore.resume_from_crash': false,
  'datareporting.policy.dataSubmissionEnabled': false, 'network.captive-portal-service.enabled': false,
  'network.connectivity-service.enabled': false, 'toolkit.startup.max_resumed_crashes': -1, 'toolkit.telemetry.reportingpolicy.firstRun': false,
  'browser.tabs.remote.autostart': true, 'dom.disable_open_during_load': false, 'app.normandy.enabled': false,
};

/**
 * @param {'chromium' | 'firefox'} kind
 * @param {string} profile a folder
 * @param {string[]} urls a tab each
 * @param {{ args?: string[], prefs?: object }} [options]
 */
export async function startBrowser(kind, profile, urls, { args = [], prefs = {} } = {}) {
  await mkdir(profile, { recursive: true });
  let all;
  if (kind === 'firefox') {
    await writeFile(join(profile, 'user.js'), Object.entries({ ...PREFS, ...prefs })
      .map(([key, value]) => `user_pref(${JSON.stringify(key)}, ${JSON.stringify(value)});`).join('\n'));
    all = ['--headless', '--no-remote', '--profile', profile, ...args, ...urls];
  } else {
    all = ['--headless=new', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
      '--disable-component-update', '--disable-sync', '--hide-crash-restore-bubble', '--disable-popup-blocking', `--user-data-dir=${profile}`, ...args, ...urls];
  }
  // A group of its own: all of its processes can be killed at once.
  const child = spawn(place(kind), all, { detached: true, stdio: 'ignore' });
  const ended = once(child, 'exit');
  return {
    /** As `kill -9` does it, to all of the browser's processes. */
    async kill() {
      try {
        process.kill(-child.pid, 'SIGKILL');
      } catch {
        // It has ended by itself.
      }
      await ended;
      // The children's files are closed a moment later.
      await new Promise((resolve) => setTimeout(resolve, 100));
    },
  };
}

/**
 * What pages of a site report.
 * @param {{ intercept?: Function }} site from `openSite`
 */
export function listen(site) {
  const reports = [];
  let wake = () => {};
  site.intercept = (path, response, request) => {
    if (path !== '/report') return false;
    let body = '';
    request.setEncoding('utf8').on('data', (text) => {
      body += text;
    }).on('end', () => {
      reports.push(JSON.parse(body));
      response.writeHead(204).end();
      wake();
    });
    return true;
  };
  return {
    reports,
    /** Waits for a report that `wanted` accepts, and takes it and those before it out. */
    async next(wanted = () => true, ms = 60_000) {
      const end = Date.now() + ms;
      for (;;) {
        const at = reports.findIndex(wanted);
        if (at >= 0) return reports.splice(0, at + 1).at(-1);
        const failed = reports.find(({ failed }) => failed);
        if (failed) throw new Error(`the page failed: ${failed.failed}`);
        if (Date.now() > end) throw new Error(`no such report in ${ms} ms: ${wanted}`);
        await Promise.race([new Promise((resolve) => { wake = resolve; }), new Promise((resolve) => setTimeout(resolve, 200))]);
      }
    },
  };
}
