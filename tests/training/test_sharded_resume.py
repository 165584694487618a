"""Ranks of a divided model go on from a checkpoint: each has its own part of it, and no more."""

import shutil
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import sft_settings
from loop_helpers import eight_samples, settings, start
from miniatures import save_thinker_folder
from rank_helpers import Held, needs_fork, on_ranks, whole
from safetensors.torch import load_file, save_file

from benchmarks.chaos_outcome import difference
from omnitune.config.sft import SftConfig
from omnitune.data.packing import WHOLE
from omnitune.distributed.opening import open_ranks
from omnitune.distributed.protocol import Distributed
from omnitune.sample import Sample, UserError
from omnitune.storage import MANIFEST, edit_manifest, read_manifest, sha256
from omnitune.training import checkpoint, sharded_checkpoint
from omnitune.training.assembling import assemble_once, bring_to_device
from omnitune.training.optim import build_optimizer
from omnitune.training.phases import Phases
from omnitune.training.progress import RunLog
from omnitune.training.run import Plan, Run

pytestmark = needs_fork
CPU = torch.device("cpu")
DORA = {"r": 2, "dora": True, "targets": {"thinker": None, "vision_encoder": None}}
HYBRID = {"mode": "fsdp", "shard": 2, "replicate": 2}


def save(run: Run, step: int) -> None:
    """Saves a run as if it had come to a step, with state of each weight that is trained."""
    for group in run.optimizer.param_groups:
        for weight in group["params"]:
            weight.grad = weight.detach() * 0.5
    run.optimizer.step()
    run.optimizer.zero_grad()
    run.step = step
    checkpoint.save(run)
    checkpoint.finish_saving(run, last=True)


def made(config: SftConfig, ranks: Distributed) -> Run:
    """A run of a configuration that has no data yet."""
    torch.manual_seed(config.seed)
    model, _ = assemble_once(config, ranks)
    bring_to_device(model, CPU, ranks)
    Phases(config, model.parts(), model.modalities).set_trainable()
    ranks.prepare(model)
    return Run(
        model=model,
        optimizer=build_optimizer(model, config),
        batch_at=lambda number, shard=WHOLE: None,
        plan=Plan(1, 4),
        config=config,
        log=RunLog(config, [], lambda step, entry: [], 1),
        groups=[],
        score=lambda step, ended: {},
        ranks=ranks,
    )


def saved_on(rank: int, config: SftConfig) -> bool:
    with open_ranks(config.parallel, CPU) as ranks:
        run = made(config, ranks)
        run.state["seen"] = ["what the ranks know"]
        save(run, 1)
        return True


def resumed_on(rank: int, config: SftConfig, counted: bool) -> dict[str, Any]:
    """What a run has when it goes on, and the most bytes that its tensors took meanwhile."""
    held = Held()
    with open_ranks(config.parallel, CPU) as ranks, held if counted else nullcontext():
        run = made(config, ranks)
        held.most = held.now
        assert checkpoint.restore(run)
        most = held.most
        state = run.optimizer.state_dict()
        return {
            "most": most,
            "step": run.step,
            "seen": run.state["seen"],
            "groups": state["param_groups"],
            "model": ranks.whole(checkpoint.trained_state(run)),
            "state": {n: ranks.whole(by_key) for n, by_key in state["state"].items()},
        }


def assert_goes_on(
    config: SftConfig, expected: dict[str, Any], count: int, counted: bool = False
) -> list[dict[str, Any]]:
    found = whole(on_ranks(count, partial(resumed_on, config=config, counted=counted)))
    for one in found:
        assert (one["step"], one["seen"]) == (1, ["what the ranks know"])
        assert one["groups"] == expected["optimizer"]["param_groups"]
    assert difference(found[0]["model"], expected["model"]) == ""
    assert difference(found[0]["state"], expected["optimizer"]["state"]) == ""
    return found


def nbytes(values: Any) -> int:
    if isinstance(values, dict):
        return sum(map(nbytes, values.values()))
    return int(values.nbytes) if isinstance(values, torch.Tensor) else 0


def test_no_rank_but_the_first_holds_a_whole_checkpoint(home: Path, tmp_path: Path) -> None:
    """Of a folder none does; of a file rank 0 has what it has read."""
    sizes = {"hidden_size": 64, "intermediate_size": 512, "num_hidden_layers": 10}
    thinker = save_thinker_folder(tmp_path / "deep", **sizes)
    config = sft_settings(home, "deep", thinker_ckpt=thinker, parallel={"mode": "fsdp"})
    whole(on_ranks(2, partial(saved_on, config=config)))
    folder = config.out / "omni_step_1.dcp"
    expected = sharded_checkpoint.read(folder)
    size = nbytes(expected["model"]) + nbytes(expected["optimizer"]["state"])
    for first in (0.7, 1.7):
        found = assert_goes_on(config, expected, 2, counted=True)
        assert found[0]["most"] < first * size
        assert 0.5 * size < found[1]["most"] < 0.65 * size
        if folder.exists():
            sharded_checkpoint.consolidate(folder)
            shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("count", "rest"),
    [
        (3, {"lora": DORA, "freeze_encoders": False}),
        pytest.param(3, {"optimizer": "muon", "freeze_encoders": False}, marks=pytest.mark.slow),
        pytest.param(4, {"parallel": HYBRID}, marks=pytest.mark.slow),
    ],
)
def test_another_number_of_ranks_has_all_that_was_saved(
    home: Path, count: int, rest: dict[str, Any]
) -> None:
    config = sft_settings(home, "other", **{"parallel": {"mode": "fsdp"}, **rest})
    before = config.model_copy(update={"parallel": type(config.parallel)(mode="fsdp")})
    whole(on_ranks(2, partial(saved_on, config=before)))
    folder = config.out / "omni_step_1.dcp"
    assert_goes_on(config, sharded_checkpoint.read(folder), count)


def two_steps_on(rank: int, folder: Path, samples: list[Sample]) -> bool:
    """Leaves checkpoints of steps 1 and 2."""
    config = settings(folder, precision="fp32", parallel={"mode": "fsdp"})
    with open_ranks(config.parallel, CPU) as ranks:
        run = start(config, samples, ranks=ranks)
        for step in (1, 2):
            save(run, step)
    return True


def tried_on(rank: int, folders: list[Path], samples: list[Sample]) -> list[Any]:
    """Of each folder whether a run goes on, from where, and what it says of it."""
    found = []
    first = settings(folders[0], precision="fp32", parallel={"mode": "fsdp"})
    with open_ranks(first.parallel, CPU) as ranks, pytest.MonkeyPatch.context() as patch:
        for folder in folders:
            config = first.model_copy(update={"output_dir": folder})
            run = start(config, samples, ranks=ranks)
            said: list[str] = []
            patch.setattr(run.log, "warn", said.append)
            found.append((checkpoint.restore(run), run.step, said))
    return found


def flip(folder: Path) -> str:
    part = max(folder.glob("*.safetensors"))
    part.write_bytes(part.read_bytes()[:-1] + b"x")
    return part.name


def cut(folder: Path) -> str:
    part = min(folder.glob("*.safetensors"))
    part.write_bytes(part.read_bytes()[:-9])
    edit_manifest(folder, part.name, sha256(part))
    return part.name


def lose(folder: Path) -> str:
    part = max(folder.glob("*.safetensors"))
    part.unlink()
    return part.name


def lose_with_its_digest(folder: Path) -> str:
    part = min(folder.glob("*.safetensors"))
    part.unlink()
    edit_manifest(folder, part.name, None)
    return "a piece of "


def add(folder: Path) -> str:
    shutil.copy(max(folder.glob("*.safetensors")), folder / "shard-other.safetensors")
    return "shard-other.safetensors"


def spoil(folder: Path) -> str:
    """A number that is none, in a file that is as it was written."""
    part = max(folder.glob("*.safetensors"))
    with sharded_checkpoint.safe_open(part, framework="pt") as opened:
        metadata = opened.metadata()
    tensors = load_file(part)
    name = max(name for name, tensor in tensors.items() if tensor.dim())
    tensors[name].view(-1)[-1] = torch.nan
    save_file(tensors, part, metadata)
    edit_manifest(folder, part.name, sha256(part))
    return name


def junk(folder: Path) -> str:
    (folder / MANIFEST).write_bytes(b'{"omni')
    return MANIFEST


def no_rest(folder: Path) -> str:
    (folder / "run.pt").unlink()
    return "run.pt"


HARMS = (flip, cut, lose, lose_with_its_digest, add, spoil, junk, no_rest)


def test_of_damage_all_ranks_say_the_same_and_take_the_one_before(tmp_path: Path) -> None:
    samples = eight_samples(tmp_path)
    whole(on_ranks(2, partial(two_steps_on, folder=tmp_path / "run", samples=samples)))
    named: dict[Path, str] = {}
    for harm in HARMS:
        folder = tmp_path / harm.__name__
        shutil.copytree(tmp_path / "run", folder)
        newest = folder / "omni_step_2.dcp"
        assert len(read_manifest(newest)) == 3
        named[folder] = harm(newest)
        with pytest.raises(UserError, match=named[folder]):
            sharded_checkpoint.read(newest)
    work = partial(tried_on, folders=list(named), samples=samples)
    first, second = whole(on_ranks(2, work))
    assert first == second
    for (folder, name), (went_on, step, said) in zip(named.items(), first, strict=True):
        assert (went_on, step, len(said)) == (True, 1, 1)
        assert name in said[0]
        assert str(folder / "omni_step_2.dcp") in said[0]
        assert said[0].endswith("; trying the one before")


@pytest.mark.parametrize("ending", [".dcp", ".pt"])
def test_a_checkpoint_of_another_optimiser_is_refused(home: Path, ending: str) -> None:
    config = sft_settings(home, f"another{ending}", parallel={"mode": "fsdp"})

    def work(rank: int) -> list[str]:
        with open_ranks(config.parallel, CPU) as ranks:
            run = made(config, ranks)
            save(run, 1)
            run.optimizer.param_groups[0]["params"].pop()
            if ending == ".pt" and not rank:
                folder = config.out / "omni_step_1.dcp"
                sharded_checkpoint.consolidate(folder)
                shutil.rmtree(folder)
            with pytest.raises(UserError, match="trains other weights") as caught:
                checkpoint.restore(run)
            return [str(caught.value)]

    first, second = whole(on_ranks(2, work))
    assert first == second
    assert f"omni_step_1{ending}" in first[0]
