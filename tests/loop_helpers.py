"""Runs of a tiny model, for tests of the loop and of the processes that share its steps."""

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from helpers import conversation, mixed_samples, tiny_model, tiny_reader
from torch import Tensor

from omnitune.config.sft import SftConfig
from omnitune.data.loader import BatchStream
from omnitune.data.mixture import Mixture
from omnitune.distributed.protocol import Distributed
from omnitune.distributed.single import SingleProcess
from omnitune.sample import Sample
from omnitune.training.optim import build_optimizer
from omnitune.training.progress import RunLog
from omnitune.training.run import Plan, Run

Score = Callable[[int, bool], dict[str, Any]]


def eight_samples(folder: Path) -> list[Sample]:
    """Eight, with unequal numbers of supervised tokens."""
    extra = [conversation(f"t{n}", "count.", "one two three"[: 3 + 4 * n]) for n in range(3)]
    return [*mixed_samples(folder), *extra]


def settings(folder: Path, **rest: Any) -> SftConfig:
    values = {"learning_rate": 1e-2, "warmup_steps": 3, "log_every": 2, "save_every": 100}
    return SftConfig(output_dir=folder, **{**values, "max_steps": 8, "num_epochs": 50, **rest})


def start(
    config: SftConfig,
    samples: list[Sample],
    score: Score = lambda step, ended: {"loss": float(step)},
    freeze: bool = True,
    ranks: Distributed | None = None,
) -> Run:
    """A fresh run, as a new process would build it."""
    torch.manual_seed(config.seed)
    model = tiny_model()
    if freeze:
        model.freeze_encoders()
    ranks = ranks or SingleProcess()
    ranks.prepare(model)
    groups = {"text_only": samples[:1] + samples[5:], "audio_text": samples[1:5]}
    sizes = {name: len(found) for name, found in groups.items()}
    mixture = Mixture(sizes, {"text_only": 1, "audio_text": 1}, config.seed)
    stream = BatchStream(tiny_reader(model), groups, mixture, config.batch_size)
    return Run(
        model=model,
        optimizer=build_optimizer(model, config, {"proj": 2e-2}),
        batch_at=stream,
        plan=Plan.of(config, len(stream)),
        config=config,
        log=RunLog(config, stream.groups, lambda step, entry: [], config.num_epochs),
        groups=stream.groups,
        score=score,
        ranks=ranks,
    )


def weights(run: Run) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in run.model.state_dict().items()}


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert [name for name, tensor in one.items() if not torch.equal(tensor, other[name])] == []


def use_plain_descent(run: Run, rate: float = 0.1) -> None:
    """An optimiser whose step is proportional to the gradient, small differences included."""
    run.optimizer = torch.optim.SGD([p for p in run.model.parameters() if p.requires_grad], rate)
    run.optimizer.param_groups[0]["peak_lr"] = rate


def press_ctrl_c() -> None:
    signal.raise_signal(signal.SIGINT)


def metrics(folder: Path) -> list[dict[str, Any]]:
    """The log without the moment before the first step."""
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    entries = [json.loads(line) for line in lines]
    return [entry for entry in entries if entry["step"]]
