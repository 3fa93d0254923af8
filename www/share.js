// What is compared, as the part of an address behind its #: it opens the same on a friend's page,
// and no server ever sees it.

/** @param {{ rows: string[], columns: string[] }} groups */
export async function toFragment({ rows, columns }) {
  const packed = await through(new CompressionStream('deflate-raw'), new TextEncoder().encode(JSON.stringify([rows, columns])));
  return `compare=${btoa(String.fromCharCode(...packed)).replaceAll('+', '-').replaceAll('/', '_').replace(/=+$/, '')}`;
}

/** The groups of such a fragment, or undefined if it is none or a damaged one. */
export async function fromFragment(fragment, most) {
  const [, code] = fragment.match(/^#?compare=([\w-]+)$/) ?? [];
  // Longer than any that the page makes.
  if (!code || code.length > 100_000) return undefined;
  try {
    const packed = Uint8Array.from(atob(code.replaceAll('-', '+').replaceAll('_', '/')), (c) => c.charCodeAt(0));
    const groups = JSON.parse(new TextDecoder().decode(await through(new DecompressionStream('deflate-raw'), packed)));
    const fine = groups.length === 2 && groups.every((texts) => Array.isArray(texts) && texts.length > 0 && texts.length <= most
      && texts.every((text) => typeof text === 'string'));
    return fine ? { rows: groups[0], columns: groups[1] } : undefined;
  } catch {
    return undefined;
  }
}

async function through(transform, bytes) {
  return new Uint8Array(await new Response(new Blob([bytes]).stream().pipeThrough(transform)).arrayBuffer());
}
