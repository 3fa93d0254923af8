// Takes the README's picture of the page: `node tests/browser/picture.js` writes docs/demo.png.
import { fileURLToPath } from 'node:url';

import { PKG, WWW } from './built.js';
import { launch } from './chromium.js';
import { openSite } from './site.js';

const site = await openSite({ '/': WWW, '/pkg/': PKG });
const browser = await launch();
const page = await browser.newPage({ viewport: { width: 1200, height: 810 }, colorScheme: 'light', locale: 'ko-KR' });
await page.goto(`${site.origin}/`);
await page.waitForFunction(() => /\d/.test(document.querySelector('#fact-speed').textContent));
// Colours fade into place.
await page.waitForTimeout(500);
await page.screenshot({ path: fileURLToPath(new URL('../../docs/demo.png', import.meta.url)) });
await browser.close();
await site.close();
