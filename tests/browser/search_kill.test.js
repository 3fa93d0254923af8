// A browser that is killed (-9) while it writes, again and again: what was acknowledged is there, each call as a whole.
// KILLS says how often; `npm run test:kills` does it twenty times.
import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';

import { PKG } from './built.js';
import { KINDS, listen, startBrowser } from './killable.js';
import { openSite } from './site.js';

const KILLS = Number(process.env.KILLS ?? 2);
const HERE = new URL('search/', import.meta.url);
const JS = new URL('../js/', import.meta.url);

let site;
before(async () => {
  site = await openSite({ '/': HERE, '/pkg/': PKG, '/js/': JS });
});
after(() => site.close());

for (const kind of KINDS) {
  test(`${kind}, killed ${KILLS} times while it writes`, { timeout: 60_000 + KILLS * 30_000 }, async (t) => {
    const profile = await mkdtemp(join(tmpdir(), 'munjang-killed-'));
    const pages = listen(site);
    /** What must be there: batches that were acknowledged; those that may be: of which nobody knows. */
    const [there, unsure] = [new Set(), new Set()];
    let counter = 0;
    let [least, survived] = [Infinity, 0];
    const take = (report) => {
      if (report.acknowledged !== undefined) {
        there.add(report.acknowledged);
        counter = report.acknowledged;
      }
      if (report.removed !== undefined) there.delete(report.removed);
    };
    try {
      for (let round = 1; round <= KILLS + 1; round++) {
        const browser = await startBrowser(kind, profile, [`${site.origin}/writer.html?round=${round}`]);
        try {
          const seen = await pages.next((report) => report.failed || report.round === round);
          assert.equal(seen.failed, undefined);
          assert.equal(seen.persistent, true);
          assert.equal(seen.encoded, 0, 'nothing is encoded again');
          assert.equal(seen.passages[0], seen.passages[1]);
          for (const [batch, [count, of]] of Object.entries(seen.found)) {
            assert.equal(count, of, `all of batch ${batch}, or nothing`);
            assert.ok(there.has(Number(batch)) || unsure.has(Number(batch)), `batch ${batch} came back`);
          }
          for (const batch of there) {
            // The one that was being removed may be gone.
            if (!unsure.has(batch)) assert.ok(seen.found[batch], `batch ${batch} was acknowledged and is lost`);
          }
          assert.ok(seen.counter >= counter, `${seen.counter} instead of ${counter} or more`);
          assert.ok(seen.counter <= counter + 1 || unsure.has(seen.counter));
          there.clear();
          unsure.clear();
          for (const batch of Object.keys(seen.found)) there.add(Number(batch));
          counter = seen.counter;
          survived += there.size;
          if (round > KILLS) break;
          // At any time while it writes: from the first step on.
          await pages.next((report) => report.failed || report.acknowledged !== undefined).then(take);
          await new Promise((resolve) => setTimeout(resolve, 50 + Math.random() * 1500));
        } finally {
          await browser.kill();
        }
        let count = 0;
        for (const report of pages.reports.splice(0)) {
          assert.equal(report.failed, undefined);
          take(report);
          count++;
        }
        least = Math.min(least, count);
        // The step under way when it died, an add or a removal.
        const last = counter;
        unsure.add(last + 1);
        if (last % 3 === 2) unsure.add(last);
      }
      t.diagnostic(`${there.size} batches at the end, ${survived} looked at after a kill; at least ${least} steps in a round`);
    } finally {
      await rm(profile, { recursive: true, force: true });
    }
  });
}
