#!/usr/bin/env python3
"""Makes what the contestants of the bench run: one set of weights in every contestant's own form.

    python make_models.py OUT                     # random weights of the shape S, and a tokenizer
    python make_models.py OUT --checkpoint DIR    # a BERT checkpoint folder instead

OUT/checkpoint/     Hugging Face layout, for `munjang convert`
OUT/onnx-f32.onnx   the reference; OUT/reference.json holds its embeddings of the workloads
OUT/hub/model/      what transformers.js and onnxruntime load (onnx/model_quantized.onnx)
OUT/workloads.json  token ids and texts, the same for all

It needs no network and no PyTorch: the ONNX graph is written node by node as PyTorch's exporter
writes it, so that onnxruntime's own fusions (GELU, layer norm, dynamic quantization + matrix
product) find the patterns that they look for. The quantization is the one that transformers.js
publishes as `q8`: onnxruntime.quantization.quantize_dynamic.
"""

import argparse
import gzip
import json
import math
import shutil
import unicodedata
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer, models, trainers

ROOT = Path(__file__).resolve().parents[2]
FIXTURES = ROOT / "tests" / "fixtures"
SHAPE_S = {
    "architectures": ["BertModel"],
    "model_type": "bert",
    "vocab_size": 32_000,
    "hidden_size": 384,
    "num_hidden_layers": 3,
    "num_attention_heads": 12,
    "intermediate_size": 1536,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "hidden_act": "gelu",
    "pad_token_id": 1,
}


def corpus():
    with gzip.open(FIXTURES / "korean.txt.gz", "rt", encoding="utf-8") as lines:
        return [line.rstrip("\n") for line in lines]


def make_tokenizer(path, vocab_size):
    """A Unigram tokenizer filled up to `vocab_size`, arranged as the shipped model's."""
    tokenizer = Tokenizer.from_file(str(FIXTURES / "small" / "xlm-roberta" / "tokenizer.json"))
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    tokenizer.model = models.Unigram()
    tokenizer.train_from_iterator(
        corpus(),
        trainers.UnigramTrainer(vocab_size=vocab_size, special_tokens=special, unk_token="<unk>", show_progress=False),
    )
    content = json.loads(tokenizer.to_str())
    content["normalizer"] = {"type": "Sequence", "normalizers": [
        {"type": "NFKC"},
        {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "},
        {"type": "Strip", "strip_left": False, "strip_right": True},
    ]}
    content["pre_tokenizer"] = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
    # Without the fixture's <mask>, which would be id `vocab_size`.
    content["added_tokens"] = [token for token in content["added_tokens"] if token["content"] in special]
    vocab = content["model"]["vocab"]
    lowest = min(score for _, score in vocab)
    # Pieces that no text has: the table must have its full size, whatever the corpus gave.
    vocab += [[f"\U000f0000{i}", lowest - 1 - i] for i in range(vocab_size - len(vocab))]
    path.write_text(json.dumps(content, ensure_ascii=False), "utf-8")


def make_checkpoint(folder):
    """Random weights as trained models have them: products of order 1, gains with noise."""
    random = np.random.default_rng(7)
    c = SHAPE_S
    hidden, inner = c["hidden_size"], c["intermediate_size"]
    normal = lambda *shape, std: (random.standard_normal(shape) * std).astype(np.float32)
    weights = {}

    def linear(name, outputs, inputs):
        weights[f"{name}.weight"] = normal(outputs, inputs, std=1 / math.sqrt(inputs))
        weights[f"{name}.bias"] = normal(outputs, std=0.05)

    def norm(name):
        weights[f"{name}.weight"] = 1 + normal(hidden, std=0.1)
        weights[f"{name}.bias"] = normal(hidden, std=0.1)

    weights["embeddings.word_embeddings.weight"] = normal(c["vocab_size"], hidden, std=0.05)
    weights["embeddings.position_embeddings.weight"] = normal(c["max_position_embeddings"], hidden, std=0.01)
    weights["embeddings.token_type_embeddings.weight"] = normal(2, hidden, std=0.01)
    norm("embeddings.LayerNorm")
    for i in range(c["num_hidden_layers"]):
        layer = f"encoder.layer.{i}"
        for part in ("query", "key", "value"):
            linear(f"{layer}.attention.self.{part}", hidden, hidden)
        linear(f"{layer}.attention.output.dense", hidden, hidden)
        norm(f"{layer}.attention.output.LayerNorm")
        linear(f"{layer}.intermediate.dense", inner, hidden)
        linear(f"{layer}.output.dense", hidden, inner)
        norm(f"{layer}.output.LayerNorm")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(c, indent=2))
    make_tokenizer(folder / "tokenizer.json", c["vocab_size"])


class Graph:
    """Collects nodes; every method adds one and gives the name of its output."""

    def __init__(self):
        self.nodes, self.constants, self.known = [], [], {}

    def add(self, op, *inputs, output=None, **attributes):
        output = output or f"{op.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [output], **attributes))
        return output

    def constant(self, value, name=None):
        value = np.asarray(value)
        key = (value.dtype.str, value.shape, value.tobytes()) if value.size < 16 else None
        if key in self.known:
            return self.known[key]
        name = name or f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        if key:
            self.known[key] = name
        return name


def make_onnx(weights, config, path):
    """BERT without its pooler: input_ids, attention_mask, token_type_ids to last_hidden_state."""
    g = Graph()
    weights = {name.removeprefix("bert."): value.astype(np.float32) for name, value in weights.items()}
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    size = hidden // heads
    f32, i64 = np.float32, np.int64

    def weight(name):
        return g.constant(weights[name], name)

    def linear(x, name):
        product = g.add("MatMul", x, g.constant(weights[f"{name}.weight"].T, f"{name}.weight"))
        return g.add("Add", weight(f"{name}.bias"), product)

    def norm(x, name):
        return g.add("LayerNormalization", x, weight(f"{name}.weight"), weight(f"{name}.bias"),
                     axis=-1, epsilon=config["layer_norm_eps"])

    def split(x):
        return g.add("Reshape", x, g.constant(np.array([0, 0, heads, size], i64)))

    def gelu(x):
        erf = g.add("Erf", g.add("Div", x, g.constant(f32(math.sqrt(2)))))
        return g.add("Mul", g.add("Mul", x, g.add("Add", erf, g.constant(f32(1)))), g.constant(f32(0.5)))

    length = g.add("Gather", g.add("Shape", "input_ids"), g.constant(np.array([1], i64)))
    positions = g.add("Slice", g.constant(weights["embeddings.position_embeddings.weight"][None], "positions"),
                      g.constant(np.array([0], i64)), length, g.constant(np.array([1], i64)))
    words = g.add("Gather", weight("embeddings.word_embeddings.weight"), "input_ids")
    types = g.add("Gather", weight("embeddings.token_type_embeddings.weight"), "token_type_ids")
    x = norm(g.add("Add", g.add("Add", words, types), positions), "embeddings.LayerNorm")
    mask = g.add("Cast", g.add("Unsqueeze", "attention_mask", g.constant(np.array([1, 2], i64))), to=TensorProto.FLOAT)
    mask = g.add("Mul", g.add("Sub", g.constant(f32(1)), mask), g.constant(f32(np.finfo(f32).min)))
    for i in range(config["num_hidden_layers"]):
        layer = f"encoder.layer.{i}"
        query = g.add("Transpose", split(linear(x, f"{layer}.attention.self.query")), perm=[0, 2, 1, 3])
        key = g.add("Transpose", split(linear(x, f"{layer}.attention.self.key")), perm=[0, 2, 3, 1])
        value = g.add("Transpose", split(linear(x, f"{layer}.attention.self.value")), perm=[0, 2, 1, 3])
        scores = g.add("Div", g.add("MatMul", query, key), g.constant(f32(math.sqrt(size))))
        context = g.add("MatMul", g.add("Softmax", g.add("Add", scores, mask), axis=-1), value)
        context = g.add("Reshape", g.add("Transpose", context, perm=[0, 2, 1, 3]), g.constant(np.array([0, 0, hidden], i64)))
        x = norm(g.add("Add", linear(context, f"{layer}.attention.output.dense"), x), f"{layer}.attention.output.LayerNorm")
        inner = gelu(linear(x, f"{layer}.intermediate.dense"))
        x = norm(g.add("Add", linear(inner, f"{layer}.output.dense"), x), f"{layer}.output.LayerNorm")
    g.add("Identity", x, output="last_hidden_state")
    ids = [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "sequence"])
           for name in ("input_ids", "attention_mask", "token_type_ids")]
    out = helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, ["batch", "sequence", hidden])
    model = helper.make_model(helper.make_graph(g.nodes, "bert", ids, [out], g.constants),
                              opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def make_workloads(tokenizer):
    """w1, w2, w3 of real sentences; w2's texts too, each of 8 to 40 tokens."""
    # Plain text only: the tokenizers differ in how they normalize single jamo and the like.
    encoded = [(text, tokenizer.encode(text).ids) for text in corpus() if unicodedata.is_normalized("NFKC", text)]
    plain = [(text, ids) for text, ids in encoded if text.strip() and 8 <= len(ids) <= 40 and 3 not in ids]
    one = next(ids for _, ids in plain if len(ids) == 16)
    # Every fourth sentence, so that the batch is mixed as a user's is.
    batch = plain[::4][:256]
    passage = [i for _, ids in plain for i in ids[1:-1]][:254]
    return {
        "w1": {"ids": [one]},
        "w2": {"ids": [ids for _, ids in batch], "texts": [text for text, _ in batch]},
        "w3": {"ids": [[batch[0][1][0], *passage, batch[0][1][-1]]]},
    }


def embed(session, batch):
    rows = []
    for ids in batch:
        ids = np.array([ids], np.int64)
        feed = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        row = session.run(None, feed)[0][0].mean(0)
        rows.append(row / np.linalg.norm(row))
    return np.stack(rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--checkpoint", type=Path, help="a BERT checkpoint folder instead of random weights")
    args = parser.parse_args()
    checkpoint, hub = args.out / "checkpoint", args.out / "hub" / "model"
    for folder in (checkpoint, hub / "onnx"):
        folder.mkdir(parents=True, exist_ok=True)
    if args.checkpoint:
        for name in ("config.json", "model.safetensors", "tokenizer.json"):
            shutil.copyfile(args.checkpoint / name, checkpoint / name)
    else:
        make_checkpoint(checkpoint)
    config = json.loads((checkpoint / "config.json").read_text())
    if config["model_type"] != "bert" or config["hidden_act"] != "gelu":
        raise SystemExit(f"the bench runs bert with gelu, not {config['model_type']} with {config['hidden_act']}")
    make_onnx(load_file(checkpoint / "model.safetensors"), config, args.out / "onnx-f32.onnx")
    quantize_dynamic(args.out / "onnx-f32.onnx", hub / "onnx" / "model_quantized.onnx", weight_type=QuantType.QInt8)
    shutil.copyfile(checkpoint / "tokenizer.json", hub / "tokenizer.json")
    (hub / "tokenizer_config.json").write_text(json.dumps({
        "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": config["max_position_embeddings"],
        "bos_token": "<s>", "eos_token": "</s>", "cls_token": "<s>", "sep_token": "</s>",
        "unk_token": "<unk>", "pad_token": "<pad>",
    }))
    shutil.copyfile(checkpoint / "config.json", hub / "config.json")

    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    workloads = make_workloads(tokenizer)
    (args.out / "workloads.json").write_text(json.dumps(workloads, ensure_ascii=False), "utf-8")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    reference = onnxruntime.InferenceSession(str(args.out / "onnx-f32.onnx"), options)
    rows = {name: embed(reference, load["ids"]) for name, load in workloads.items()}
    (args.out / "reference.json").write_text(json.dumps({
        "hidden_size": config["hidden_size"],
        "embeddings": {name: [[round(float(x), 7) for x in row] for row in r] for name, r in rows.items()},
    }))
    quantized = onnxruntime.InferenceSession(str(hub / "onnx" / "model_quantized.onnx"), options)
    cosines = (embed(quantized, workloads["w2"]["ids"]) * rows["w2"]).sum(1)
    tokens = sum(map(len, workloads["w2"]["ids"]))
    between = rows["w2"] @ rows["w2"].T
    print(f"w2: {len(rows['w2'])} sentences, {tokens} tokens; cosine between them {between.mean():.3f}; "
          f"onnxruntime int8 to f32: mean {cosines.mean():.5f}, lowest {cosines.min():.5f}")


if __name__ == "__main__":
    main()
