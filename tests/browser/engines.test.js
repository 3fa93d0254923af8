// Firefox and WebKitGTK: the package's bits, the package from another origin, the page.
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { after, before, describe, test } from 'node:test';

import { BLANK, PKG, VARIED, WWW } from './built.js';
import { FIREFOX, WEBKIT_DRIVER, XVFB, openFirefox, openWebKit } from './engines.js';
import { openSite } from './site.js';

const { loadEncoder } = await import(new URL('index.js', PKG).href);

let expected;
let site;
let cdn;
before(async () => {
  const encoder = await loadEncoder();
  const embeddings = await encoder.encode(VARIED, { flat: true });
  encoder.dispose();
  expected = createHash('sha256').update(Buffer.from(embeddings.buffer)).digest('hex');
  site = await openSite({ '/': BLANK, '/munjang/': PKG, '/www/': WWW, '/pkg/': PKG });
  cdn = await openSite({ '/munjang/': PKG });
  cdn.headers = { 'cache-control': 'no-store', 'access-control-allow-origin': '*' };
});
after(async () => {
  await site.close();
  await cdn.close();
});

for (const [name, there, open] of [['Firefox', FIREFOX, openFirefox], ['WebKitGTK', WEBKIT_DRIVER && XVFB, openWebKit]]) {
  describe(name, { skip: there ? false : 'is not installed' }, () => {
    let browser;
    before(async () => {
      browser = await open();
    });
    after(() => browser?.close());

    for (const options of [{ worker: true }, { worker: false }, { build: 'simd128' }]) {
      test(`the bits of Node: ${JSON.stringify(options)}`, async () => {
        await browser.go(site.origin);
        const hash = await browser.run(`const { loadEncoder } = await import('/munjang/index.js');
          const encoder = await loadEncoder(${JSON.stringify(options)});
          const embeddings = await encoder.encode(${JSON.stringify(VARIED)}, { flat: true });
          encoder.dispose();
          return [...new Uint8Array(await crypto.subtle.digest('SHA-256', embeddings))].map((byte) => byte.toString(16).padStart(2, '0')).join('');`);
        assert.equal(hash, expected);
      });
    }

    test('the package on another origin, in a worker', async () => {
      const { headers } = site;
      site.headers = { 'content-security-policy': `script-src 'self' ${cdn.origin} 'wasm-unsafe-eval'; connect-src ${cdn.origin}; worker-src blob: ${cdn.origin}` };
      await browser.go(site.origin);
      const seen = await browser.run(`const { loadEncoder } = await import('${cdn.origin}/munjang/index.js');
        const encoder = await loadEncoder();
        const { length } = await encoder.encode('비가 옵니다.');
        encoder.dispose();
        return [length === encoder.info.hiddenSize, encoder.info.worker];`);
      assert.deepEqual(seen, [true, true]);
      site.headers = headers;
    });

    test('the page fills its matrix', async () => {
      await browser.go(`${site.origin}/www/index.html`);
      const cells = await browser.run(`for (;;) {
          const filled = [...document.querySelectorAll('#matrix td')].filter((cell) => /\\d/.test(cell.textContent));
          if (filled.length > 0) return filled.length;
          await new Promise((resolve) => setTimeout(resolve, 100));
        }`);
      assert.ok(cells >= 1);
    });
  });
}
