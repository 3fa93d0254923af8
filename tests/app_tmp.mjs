import { mkdtemp } from 'node:fs/promises';
import { launch } from './browser/chromium.js';
const url = process.argv[2];
const browser = await launch();
const context = await browser.newContext();
const page = await context.newPage();
page.on('console', (m) => console.log('console:', m.text()));
page.on('pageerror', (e) => console.log('pageerror:', e.stack));
page.on('request', (r) => /wasm|munjang|worker/.test(r.url()) && console.log(' req', r.url()));
await page.goto(url);
await page.waitForFunction(() => /notes/.test(document.querySelector('#status').textContent), undefined, { timeout: 60000 });
console.log(await page.textContent('#status'));
const texts = ['내일은 전국에 비가 내리겠습니다.', '연말정산 서류는 1월 말까지 내야 합니다.', '고양이 사료를 주문했다. 배송은 모레 온다.', '어머니 생신은 3월 12일, 케이크 예약하기', '회의는 월요일 오전 10시로 옮겼다'];
for (const text of texts) { await page.fill('#text', text); await page.click('#f button'); await page.waitForFunction(() => document.querySelector('#text').value === ''); }
console.log(await page.textContent('#status'));
for (const q of ['우산 챙길까', '세금', '월요일 회의', '엄마 생일', '애완동물 먹이']) {
  await page.fill('#q', ''); await page.fill('#q', q); await page.waitForTimeout(700);
  console.log(q, '→', await page.$$eval('#hits li', (l) => l.slice(0, 2).map((x) => x.innerHTML.replace(/<button.*/, ''))));
}
await page.click('#hits li button'); await page.waitForTimeout(300);
console.log(await page.textContent('#status'));
await page.reload();
await page.waitForFunction(() => /notes/.test(document.querySelector('#status').textContent), undefined, { timeout: 60000 });
console.log('reloaded', await page.textContent('#status'), await page.evaluate(() => JSON.stringify(index.info)));
console.log(await page.evaluate(async () => { const b = await index.toBytes(); const c = await SemanticIndex.fromBytes(b, { encoder }); return [b.length, c.size, (await c.search('비')).length, (await c.search('비')).map((h) => h.text + h.score.toFixed(2))]; }));
await page.screenshot({ path: '/tmp/app/shot.png' });
await browser.close();
