// Stands in for the module that wasm-bindgen makes, so that the package's JavaScript can be tested
// for every answer that a core might give. Its "encoder" hashes the text. The "code" is a module that
// says in a custom section which of the package's files it stands for.
const HIDDEN = 8;
const MAX_TOKENS = 16;

const coded = (code, message) => Object.assign(new Error(message), { code });

export default () => {
  let memory;
  let next;
  let kernel;
  let general;

  async function init({ module_or_path }) {
    if (!(module_or_path instanceof WebAssembly.Module)) throw new TypeError('expected a compiled module');
    const [name] = WebAssembly.Module.customSections(module_or_path, 'fake');
    [kernel, general] = new TextDecoder().decode(name).split(' ');
    memory = new WebAssembly.Memory({ initial: 1024 });
    next = 64;
    return { memory };
  }

  class ModelBuffer {
    #freed = false;
    constructor(total) {
      if (total > memory.buffer.byteLength - next) throw coded('out_of_memory', `no memory for a model of ${total} bytes`);
      this.total = total;
      this.offset = next;
      this.received = 0;
      next += Math.ceil(total / 64) * 64;
    }
    push(chunk) {
      if (this.#freed) throw new Error('null pointer passed to rust');
      if (this.received + chunk.length > this.total) throw coded('weights_mismatch', 'too many bytes');
      new Uint8Array(memory.buffer, this.offset + this.received, chunk.length).set(chunk);
      this.received += chunk.length;
    }
    sha256() {
      throw new Error('the fake has no digest');
    }
    free() {
      this.#freed = true;
    }
    finish() {
      if (this.received !== this.total) throw coded('weights_truncated', 'the model file ended early');
      const bytes = new Uint8Array(memory.buffer, this.offset, this.total);
      const text = new TextDecoder().decode(bytes.slice(8, 200));
      if (text.includes('"trap"')) throw new WebAssembly.RuntimeError('unreachable');
      if (text.includes('"odd"') && !general) throw coded('tokenizer_unsupported', 'this build lacks the tokenizer');
      if (text.includes('"old"')) throw coded('weights_version', 'format version 0 is not read by this build');
      return new Encoder(this.total);
    }
  }

  class Encoder {
    #bytes;
    #encoded = 0;
    constructor(bytes) {
      this.#bytes = bytes;
    }
    info() {
      return {
        modelId: '0123456789abcdef', formatVersion: 1, bytes: this.#bytes, kernel,
        config: { hidden_size: HIDDEN, max_position_embeddings: MAX_TOKENS, num_hidden_layers: 3, vocab_size: 100, prefix: '' },
      };
    }
    encodeBatch(texts) {
      const embeddings = new Float32Array(texts.length * HIDDEN);
      const tokenCounts = new Uint32Array(texts.length);
      const truncated = new Uint8Array(texts.length);
      texts.forEach((text, i) => {
        // Asked how many texts it has encoded, it says so.
        if (text === '#count') embeddings[i * HIDDEN] = this.#encoded;
        else embeddings.set(embed(text), i * HIDDEN);
        this.#encoded++;
        tokenCounts[i] = this.countTokens(text);
        truncated[i] = tokenCounts[i] > MAX_TOKENS ? 1 : 0;
      });
      return { embeddings, tokenCounts, truncated };
    }
    encodeIds(flat, lengths) {
      return new Float32Array(lengths.length * HIDDEN).fill(flat.length);
    }
    countTokens(text) {
      return 2 + [...text].length;
    }
    free() {}
  }

  return Object.assign(init, { ModelBuffer, Encoder });
};

function embed(text) {
  if (text === '#trap') throw new WebAssembly.RuntimeError('unreachable');
  if (text === '#refuse') throw coded('input_invalid', 'the core refuses this');
  if (text === '#slow') {
    const end = Date.now() + 50;
    while (Date.now() < end);
  }
  let hash = 2166136261;
  for (const byte of new TextEncoder().encode(text)) hash = Math.imul(hash ^ byte, 16777619);
  const vector = Array.from({ length: HIDDEN }, () => {
    hash = Math.imul(hash ^ (hash >>> 15), 2246822507);
    return (hash >>> 0) / 2 ** 32 - 0.5;
  });
  const norm = Math.hypot(...vector);
  return vector.map((x) => x / norm);
}
