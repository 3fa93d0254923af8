// A visit of the demo page: a site, a browser, and what must never happen on the page.
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { after, before } from 'node:test';

import { PKG, WWW } from './built.js';
import { launch } from './chromium.js';
import { openSite } from './site.js';

/** The index of the texts that the search tab brings along; ./build.sh makes it. */
export const INDEX = new URL('corpus/texts.index.gz', WWW);

/**
 * Starts site and browser before the tests of a file and ends them after.
 * @param {{ index?: boolean }} needs whether the search tab's index must have been built
 */
export function visits({ index = false } = {}) {
  if (index && !existsSync(INDEX)) throw new Error('www/corpus/texts.index.gz is missing; run ./build.sh demo first');
  const visit = {
    /** @type {Awaited<ReturnType<typeof openSite>>} */
    site: undefined,
    browser: undefined,

    /** Runs with a fresh page; errors in it and requests to other places fail the test. */
    async withPage(options, run) {
      const context = await visit.browser.newContext({ locale: 'ko-KR', viewport: { width: 1200, height: 900 }, ...options });
      const problems = [];
      try {
        const page = await context.newPage();
        page.on('pageerror', (error) => problems.push(error.message));
        page.on('request', (request) => {
          if (!/^(blob|data):/.test(request.url()) && !request.url().startsWith(visit.site.origin)) problems.push(`foreign: ${request.url()}`);
        });
        await run(page, context);
        assert.deepEqual(problems, []);
      } finally {
        visit.site.intercept = undefined;
        await context.close();
      }
    },

    /** Opens the page and waits until the model is there and the matrix is full. */
    async open(page, path = '/') {
      await page.goto(visit.site.origin + path);
      await page.waitForFunction(() => /\d/.test(document.querySelector('#fact-speed').textContent));
    },
  };
  before(async () => {
    visit.site = await openSite({ '/': WWW, '/pkg/': PKG });
    // The service worker keeps nothing that may not be stored.
    visit.site.headers['cache-control'] = 'no-cache';
    visit.browser = await launch();
  });
  after(async () => {
    await visit.browser.close();
    await visit.site.close();
  });
  return visit;
}

/** Files dropped on the page, as a visitor's mouse would. */
export async function drop(page, selector, files) {
  const data = await page.evaluateHandle((list) => {
    const transfer = new DataTransfer();
    for (const { name, content } of list) transfer.items.add(new File([content], name));
    return transfer;
  }, files);
  for (const type of ['dragenter', 'dragover', 'drop']) await page.dispatchEvent(selector, type, { dataTransfer: data });
}

/** What axe-core finds against WCAG 2.2 AA and good practice. */
export async function violations(page, axe) {
  await page.evaluate(axe);
  return page.evaluate(async () => {
    const tags = ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'];
    const { violations: found } = await globalThis.axe.run(document, { runOnly: tags });
    return found.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html.slice(0, 120)).join(' | ')}`);
  });
}

/** What can be touched and is smaller than 44 pixels. */
export const smallTargets = (page) => page.evaluate(() =>
  [...document.querySelectorAll('button, summary, textarea, select, input:not([type=radio]):not([type=file]), .scope label, .choose, td[tabindex]')]
    .filter((element) => {
      const { width, height } = element.getBoundingClientRect();
      return width > 0 && (width < 43.5 || height < 43.5);
    }).map((element) => element.outerHTML.slice(0, 100)));
