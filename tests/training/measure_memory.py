"""Trains a thinker of some size for some steps; prints its memory, measured and estimated.

Run as a process of its own: what a process has held at most cannot be reset.
"""

import json
import sys

import torch
from helpers import conversation, tiny_tokenizer

from omnitune.data.loader import SampleReader
from omnitune.data.packing import pack
from omnitune.data.template import ChatRenderer
from omnitune.models.omni import OmniConfig, OmniModel
from omnitune.tiny.pretrain_lm import ThinkerConfig
from omnitune.training.memory import estimate_memory
from omnitune.training.optim import trainable
from omnitune.training.plan_lines import peak_resident, resident

SAMPLES = 6
STEPS = 4


def main(frozen: bool, words: int) -> None:
    before = resident()
    config = ThinkerConfig(
        hidden_size=512,
        num_layers=10,
        num_heads=8,
        num_kv_heads=4,
        intermediate_size=1536,
        max_positions=512,
    )
    model = OmniModel(OmniConfig(thinker=config.architecture(8000))).train()
    if frozen:
        model.thinker.get_decoder().layers.requires_grad_(False)
    reader = SampleReader(ChatRenderer(tiny_tokenizer()), {})
    sample = conversation("x", "the sky " * words, "the air " * 20)
    batch = pack([reader.item(sample) for _ in range(SAMPLES)])
    optimizer = torch.optim.AdamW([p for _, p in trainable(model)], fused=True)
    for _ in range(STEPS):
        model(batch)[0].sum().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    peak = peak_resident() - before
    tokens, targets = len(batch.tokens_T), len(batch.labels_N)
    terms = estimate_memory(model, tokens, targets, bf16=False, on_cpu=True)
    print(json.dumps({"measured": peak, "estimated": sum(terms.values())}))


if __name__ == "__main__":
    main(sys.argv[1] == "frozen", int(sys.argv[2]))
