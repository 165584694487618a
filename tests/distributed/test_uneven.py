"""Ranks whose batches hold other media never wait for each other in vain."""

from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import conversation, tiny_model, tiny_reader, write_image, write_wave
from rank_helpers import needs_fork, on_ranks, whole

from omnitune.config.lora import LoraSettings
from omnitune.config.parallel import ParallelSettings
from omnitune.data.packing import Batch, pack
from omnitune.distributed import sharding
from omnitune.distributed.opening import open_ranks
from omnitune.distributed.protocol import Share
from omnitune.models.adapters import add_adapters
from omnitune.sample import Media

pytestmark = needs_fork
HELD = ("text", "image", "audio", "image and audio", "nothing")


def batches(folder: Path, model: Any) -> dict[str, Batch | None]:
    """One of each kind; a text stands in each."""
    image, audio = Media("image", folder / "a.png"), Media("audio", folder / "a.wav")
    media = {"text": (), "image": (image,), "audio": (audio,), "image and audio": (image, audio)}
    reader = tiny_reader(model)
    found: dict[str, Batch | None] = {"nothing": None}
    for name, own in media.items():
        found[name] = pack([reader.item(conversation(name, "what is it?", "a test.", media=own))])
    return found


def passes(rank: int, folder: Path, mode: str, kind: str) -> list[float]:
    """Norms of the summed gradients, for each pair of what the two ranks hold."""
    model = tiny_model()
    for module in model.modules():
        for name in ("dropout", "activation_dropout", "attention_dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
    if kind != "unfrozen":
        model.freeze_encoders()
    torch.manual_seed(0)
    if kind == "lora":
        add_adapters(model, LoraSettings(r=2))
    if kind == "divided encoders":
        sharding.SMALL = 0
    made = batches(folder, model)
    settings = ParallelSettings(mode=mode, timeout=60)
    norms = []
    with open_ranks(settings, torch.device("cpu")) as ranks:
        ranks.prepare(model)
        model.train()
        for pair in product(HELD, HELD):
            each = [made[name] for name in pair]
            own = each[ranks.rank]
            borrowed = own is None and ranks.sharded
            share = Share((each[0] or each[1]) if borrowed else own, 0.0, borrowed)
            for last in (False, True):
                if ranks.world_size == 1:
                    for batch in each:
                        ranks.accumulate(model, Share(batch, 0.0), last, torch.enable_grad)
                else:
                    ranks.accumulate(model, share, last, torch.enable_grad)
            ranks.sum([0.0])
            found = [p.grad for p in model.parameters() if p.grad is not None]
            norm = torch.nn.utils.get_total_norm(found)
            full = getattr(norm, "full_tensor", lambda n=norm: n)()
            norms.append(float(full) * ranks.world_size)
            model.zero_grad(set_to_none=True)
    return norms


@pytest.mark.parametrize("kind", ["frozen", "unfrozen", "lora", "divided encoders"])
@pytest.mark.parametrize("mode", ["ddp", "fsdp"])
def test_every_pair_of_media_passes(tmp_path: Path, mode: str, kind: str) -> None:
    if (mode, kind) == ("ddp", "divided encoders"):
        pytest.skip("nothing is divided")
    write_image(tmp_path / "a.png")
    write_wave(tmp_path / "a.wav")
    model_norms = passes(0, tmp_path, "auto", kind)
    for found in whole(on_ranks(2, partial(passes, folder=tmp_path, mode=mode, kind=kind))):
        assert found == pytest.approx(model_norms, rel=1e-4, abs=1e-6)
