"""The engine that people would otherwise use: the library's Trainer over padded rows.

Shape suffixes: B rows, L longest row, E embedding width.
"""

from __future__ import annotations

import itertools
import multiprocessing
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers.utils import is_flash_attn_2_available

from benchmarks.workload import Bench
from omnitune.data.loader import SampleReader
from omnitune.data.packing import Item
from omnitune.models.kernels import cpu as operators
from omnitune.training.optim import build_optimizer

IGNORED = -100  # the label that the library's loss leaves out
WARM_UP = 3  # steps whose time does not count
READERS = 8  # processes that read for the Trainer beside a GPU


@dataclass
class Timing:
    """What some steps took.

    Attributes:
        seconds: of each step.
        parts: seconds by part, summed over the steps.
    """

    seconds: list[float]
    parts: Counter[str] = field(default_factory=Counter)


class PaddedOmni(nn.Module):
    """The same model behind the interface that trainers expect: padded rows, every logit.

    Args:
        cached: media come as features, which encoders have made beforehand.
    """

    def __init__(self, bench: Bench, cached: bool = False) -> None:
        super().__init__()
        self.omni = bench.model
        self.cached = cached
        flash = torch.cuda.is_available() and is_flash_attn_2_available()
        self.omni.thinker.set_attn_implementation("flash_attention_2" if flash else "sdpa")

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        labels: Tensor,
        media: dict[str, list[Tensor]],
        slots: dict[str, Tensor],
        **kwargs: Any,
    ) -> dict[str, Tensor]:
        """The library's own loss over padded rows ``[B, L]``."""
        embeds_BLE = self.omni.thinker.get_input_embeddings()(input_ids)
        flat = embeds_BLE.flatten(0, 1)
        for name, inputs in media.items():
            encoded = inputs if self.cached else self.omni.encode(name, inputs)
            lengths = [len(rows) for rows in encoded]
            rows_RD = torch.cat(encoded).to(flat.dtype)
            projected = self.omni.projector(name)(rows_RD, lengths)
            flat = flat.index_put((slots[name],), projected.to(flat.dtype))
        out = self.omni.thinker(
            inputs_embeds=flat.view_as(embeds_BLE),
            attention_mask=attention_mask,
            labels=labels,
            use_cache=False,
            **kwargs,
        )
        return {"loss": out.loss}


def collate(items: list[Item]) -> dict[str, Any]:
    """Right-padded rows, as most fine-tuning frameworks make them."""
    longest = max(len(item.rendered.tokens) for item in items)
    ids = torch.zeros(len(items), longest, dtype=torch.long)
    labels = torch.full_like(ids, IGNORED)
    mask = torch.zeros_like(ids)
    media: dict[str, list[Tensor]] = {}
    slots: dict[str, list[Tensor]] = {}
    for row, item in enumerate(items):
        tokens = torch.tensor(item.rendered.tokens)
        learnt = torch.tensor(item.rendered.supervised)
        ids[row, : len(tokens)] = tokens
        labels[row, : len(tokens)] = torch.where(learnt, tokens, IGNORED)
        mask[row, : len(tokens)] = 1
        for slot, tensor in zip(item.rendered.slots, item.media, strict=True):
            media.setdefault(slot.media.modality, []).append(tensor)
            first = row * longest + slot.start
            slots.setdefault(slot.media.modality, []).append(
                torch.arange(first, first + slot.count)
            )
    return {
        "input_ids": ids,
        "labels": labels,
        "attention_mask": mask,
        "media": media,
        "slots": {name: torch.cat(places) for name, places in slots.items()},
    }


class LibraryTrainer:
    """The Trainer of transformers, with its own loader, optimiser, operators and precision."""

    def __init__(self, bench: Bench, share: float, bf16: bool) -> None:
        peer = bench.peer
        self.bench, self.share, self.bf16 = bench, share if peer.share is None else peer.share, bf16
        self.model = PaddedOmni(bench, peer.cached)
        self.features, self.encoding_seconds = bench.encode() if peer.cached else (None, 0.0)
        self.folder = Path(tempfile.mkdtemp())
        if torch.cuda.is_available():  # else its readers would be sent what cannot be sent
            multiprocessing.set_start_method("fork", force=True)

    def run(self, first: int, steps: int) -> Timing:
        """Trains ``steps`` steps from sample ``first`` on."""
        from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

        stamps: list[float] = []

        class Stamps(TrainerCallback):
            def on_step_end(self, *args: Any, **kwargs: Any) -> None:
                stamps.append(time.perf_counter())

        class InOrder(Trainer):
            def _get_train_sampler(self, *args: Any) -> Any:
                return torch.utils.data.SequentialSampler(self.train_dataset)

        arguments = TrainingArguments(
            output_dir=str(self.folder),
            per_device_train_batch_size=self.bench.batch_size,
            max_steps=WARM_UP + steps,
            learning_rate=1e-4,
            lr_scheduler_type="cosine",
            optim="adamw_torch_fused",
            bf16=self.bf16,
            save_strategy="no",
            logging_strategy="no",
            report_to=[],
            disable_tqdm=True,
            remove_unused_columns=False,
            use_cpu=not torch.cuda.is_available(),
            # Where cores are to spare, reading is not what it waits for.
            dataloader_num_workers=READERS if torch.cuda.is_available() else 0,
        )
        trainer = InOrder(
            self.model,
            arguments,
            data_collator=lambda samples: collate([i for found in samples for i in found]),
            train_dataset=_Samples(self.bench, self.bench.reader(self.features), self.share, first),
            callbacks=[Stamps()],
            optimizers=(self._optimizer(), None),
        )
        trainer.remove_callback(PrinterCallback)
        try:
            operators.replaced = False
            trainer.train()
        finally:
            operators.replaced = True
        kept = stamps[WARM_UP - 1 :]
        return Timing([b - a for a, b in itertools.pairwise(kept)])

    def _optimizer(self) -> torch.optim.Optimizer | None:
        """None for the Trainer's own; it is one of the same kind."""
        if self.bench.peer.own_settings:
            return None
        rates = {f"omni.{name}": rate for name, rate in (self.bench.rates or {}).items()}
        return build_optimizer(self.model, self.bench.settings, rates)

    def close(self) -> None:
        """Nothing is open."""


class _Samples(torch.utils.data.Dataset):
    """Sample k as the items that it is read as; media are read from their files."""

    def __init__(self, bench: Bench, reader: SampleReader, share: float, first: int) -> None:
        self.bench, self.reader, self.share, self.first = bench, reader, share, first

    def __len__(self) -> int:
        return 1_000_000

    def __getitem__(self, n: int) -> list[Item]:
        return self.bench.items(self.reader, self.first + n, self.share)
