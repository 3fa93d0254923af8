// The results as an SVG for the README: CPU time per workload, one panel each, shorter is better.

const WIDTH = 760;
const LABEL = 190;
const ROW = 24;
const TITLES = {
  w1: 'one sentence, 16 tokens',
  w2: '256 sentences',
  w3: 'one passage, 256 tokens',
  'w2 text': '256 sentences, tokenization included',
};

const escape = (text) => text.replace(/[&<>]/g, (c) => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;' })[c]);

export function plot(report, peer) {
  const parts = [];
  let y = 34;
  const add = (x, text, attributes = '') => parts.push(`<text x="${x}" y="${y}" ${attributes}>${escape(text)}</text>`);
  const panel = (title, rows, unit) => {
    if (rows.length === 0) return;
    add(12, title, 'class="title"');
    y += 10;
    const most = Math.max(...rows.map(({ value }) => value));
    const scale = (WIDTH - LABEL - 150) / most;
    for (const { name, value, times } of rows) {
      const ours = name.startsWith('munjang');
      parts.push(`<rect x="${LABEL}" y="${y}" width="${Math.max(value * scale, 1).toFixed(1)}" height="${ROW - 8}" rx="2" class="${ours ? 'ours' : 'peer'}"/>`);
      y += ROW - 12;
      add(LABEL - 8, name, 'text-anchor="end"');
      const shown = value < 10 ? value.toFixed(2) : value < 100 ? value.toFixed(1) : value.toFixed(0);
      add(LABEL + Math.max(value * scale, 1) + 6, `${shown} ${unit}${times && name !== peer ? `  (${times.toFixed(2)}×)` : ''}`);
      y += 12;
    }
    y += 22;
  };
  for (const [name, title] of Object.entries(TITLES)) {
    panel(`${title} (${name})`, report.browser.filter((row) => row.workloads[name]).map((row) => ({
      name: row.name, value: row.workloads[name].cpu_ms, times: row.workloads[name].speed_to_peer,
    })), 'ms');
  }
  panel('new page to first embedding, nothing cached', report.browser.filter((row) => row.cold_start).map((row) => ({
    name: row.name, value: row.cold_start.ms,
  })), 'ms');
  const { num_hidden_layers: layers, hidden_size: hidden, intermediate_size: inner, vocab_size: vocab } = report.shape;
  y -= 6;
  add(12, `${layers} layers × ${hidden}, ffn ${inner}, vocabulary ${vocab}; int8, one thread, headless Chromium; CPU time of the busiest thread`, 'class="small"');
  y += 16;
  add(12, `${report.cpu}; onnxruntime-web ${report.versions['onnxruntime-web']}, transformers.js ${report.versions['@huggingface/transformers']}; ${report.when.slice(0, 10)}`, 'class="small"');
  const height = y + 14;
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}" role="img" aria-label="Times of munjang and its peers">
<style>
text { font: 13px system-ui, sans-serif; fill: #1f2328; }
.title { font-weight: 600; }
.small { font-size: 11px; fill: #59636e; }
.ours { fill: #0969da; }
.peer { fill: #afb8c1; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; }
  .small { fill: #9198a1; }
  .ours { fill: #4493f8; }
  .peer { fill: #656c76; }
}
</style>
${parts.join('\n')}
</svg>
`;
}
