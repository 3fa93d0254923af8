#!/usr/bin/env python3
"""Times onnxruntime's int8 model on one thread: `native.py DATA`, CPU milliseconds as JSON."""

import json
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime

data = Path(sys.argv[1])
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
options.log_severity_level = 3
session = onnxruntime.InferenceSession(str(data / "hub/model/onnx/model_quantized.onnx"), options)


def encode(batch, size):
    order = sorted(range(len(batch)), key=lambda i: -len(batch[i]))
    out = [None] * len(batch)
    for start in range(0, len(order), size):
        members = order[start : start + size]
        longest = len(batch[members[0]])
        ids = np.ones((len(members), longest), np.int64)
        mask = np.zeros_like(ids)
        for row, member in enumerate(members):
            ids[row, : len(batch[member])] = batch[member]
            mask[row, : len(batch[member])] = 1
        feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        states = session.run(None, feed)[0]
        pooled = (states * mask[..., None]).sum(1)
        pooled /= np.linalg.norm(pooled, axis=1, keepdims=True)
        for row, member in enumerate(members):
            out[member] = pooled[row]
    return out


def measure(batch, size):
    encode(batch, size)
    times, stop = [], time.perf_counter() + 1
    while len(times) < 3 or time.perf_counter() < stop:
        start = time.thread_time()
        encode(batch, size)
        times.append((time.thread_time() - start) * 1e3)
    return sorted(times)[len(times) // 2]


workloads = json.loads((data / "workloads.json").read_text("utf-8"))
# The size of batch that suits it best is its own choice, as in the browser.
print(json.dumps({name: min(measure(load["ids"], size) for size in ((16, 32, 64) if len(load["ids"]) > 1 else (1,)))
                  for name, load in workloads.items()}))
