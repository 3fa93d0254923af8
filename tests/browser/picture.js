// Takes the README's pictures of the page: `node tests/browser/picture.js` writes docs/demo.png and docs/search.png.
import { fileURLToPath } from 'node:url';

import { PKG, WWW } from './built.js';
import { launch } from './chromium.js';
import { openSite } from './site.js';

const site = await openSite({ '/': WWW, '/pkg/': PKG });
const browser = await launch();
const take = async (name, hash, ready) => {
  const page = await browser.newPage({ viewport: { width: 1200, height: 860 }, colorScheme: 'light', locale: 'ko-KR' });
  await page.goto(`${site.origin}/${hash}`);
  await page.waitForFunction(() => /\d/.test(document.querySelector('#fact-speed').textContent));
  await page.waitForSelector(ready);
  // Colours fade into place.
  await page.waitForTimeout(500);
  await page.screenshot({ path: fileURLToPath(new URL(`../../docs/${name}.png`, import.meta.url)) });
  await page.close();
};
await take('demo', '', '#matrix td.best');
await take('search', `#search=${encodeURIComponent('못생겼다고 놀림받던 새')}`, '#hits .hit');
await browser.close();
await site.close();
