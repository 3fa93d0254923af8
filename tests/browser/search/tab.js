// Runs what its address names (runs.js), one after another, and reports what comes of each.
import * as runs from './runs.js';

const query = new URLSearchParams(location.search);
for (const name of query.get('run').split(' ')) {
  let body;
  try {
    body = { run: name, result: await runs[name](query) };
  } catch (error) {
    body = { failed: `${name}: ${error.code} ${error.stack ?? error}` };
  }
  await fetch('/report', { method: 'POST', body: JSON.stringify(body) });
}
