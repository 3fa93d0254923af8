// What a padding engine needs around it, written as a careful user of it would.

/** Indices of `batch` in groups of `size`, longest first, so that little is padded. */
export function byLength(batch, size) {
  const order = batch.map((_, i) => i).sort((a, b) => batch[b].length - batch[a].length);
  return Array.from({ length: Math.ceil(order.length / size) }, (_, i) => order.slice(i * size, (i + 1) * size));
}

/** Mean over `tokens` rows of `states` from row `first` on, scaled to length one. */
export function pool(states, first, tokens, hidden, out) {
  for (let t = 0, at = first * hidden; t < tokens; t++) {
    for (let i = 0; i < hidden; i++, at++) out[i] += states[at];
  }
  let square = 0;
  for (let i = 0; i < hidden; i++) square += out[i] * out[i];
  const scale = 1 / Math.sqrt(square);
  for (let i = 0; i < hidden; i++) out[i] *= scale;
}
