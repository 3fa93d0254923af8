"""The PyTorch side of benches/training_step.rs: a step per line of input, its milliseconds out."""

import sys
import time

import torch
from transformers import BertConfig, BertModel

torch.set_num_threads(2)
SENTENCES, TOKENS, VOCAB = 64, 20, 32000
model = BertModel(
    BertConfig(
        vocab_size=VOCAB, hidden_size=384, num_hidden_layers=3, num_attention_heads=12,
        intermediate_size=1536, max_position_embeddings=512, hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    ),
    add_pooling_layer=False,
)
model.embeddings.word_embeddings.weight.requires_grad_(False)
parameters = [p for p in model.parameters() if p.requires_grad]
optimizer = torch.optim.AdamW(parameters, lr=2e-5)
ids = torch.tensor(
    [[(s * 7919 + t * 104729) % VOCAB for t in range(TOKENS)] for s in range(SENTENCES)]
)
scores = torch.arange(SENTENCES // 2) / (SENTENCES // 2)


def step():
    pooled = model(input_ids=ids).last_hidden_state.mean(1)
    cosine = torch.nn.functional.cosine_similarity(*pooled.chunk(2))
    loss = torch.nn.functional.mse_loss(cosine, scores)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizer.step()
    return loss.item()


print(f"PyTorch {torch.__version__}, {torch.get_num_threads()} threads", flush=True)
for _ in sys.stdin:
    start = time.perf_counter()
    step()
    print((time.perf_counter() - start) * 1e3, flush=True)
