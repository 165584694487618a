"""Runs with adapters: what moves, what is saved, and how they go on and end."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import ENCODERS, tiny_model
from helpers import sft_settings as settings
from rank_helpers import needs_fork, on_ranks, whole
from torch import Tensor

from omnitune.config.lora import LoraSettings
from omnitune.config.sft import SftConfig
from omnitune.distributed.opening import open_ranks
from omnitune.models import adapters
from omnitune.models.loading import load_omni
from omnitune.models.omni import OmniModel
from omnitune.sample import UserError
from omnitune.storage import read_checkpoint, write_checkpoint
from omnitune.training import checkpoint, loop, sft
from omnitune.training.optim import build_optimizer, hidden_matrices
from omnitune.training.phases import Phases
from omnitune.training.sft import build_training, finetune

LORA = {"r": 4, "alpha": 8, "learning_rate": 1e-2}
PROJECTORS = {"proj_v", "proj_a"}


def adapted(**values: Any) -> OmniModel:
    model = tiny_model()
    adapters.add_adapters(model, LoraSettings(**{**LORA, **values}))
    return model


def phases(model: OmniModel, **values: Any) -> Phases:
    return Phases(SftConfig(**values), model.parts(), model.modalities, 10)


def assert_equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    assert [name for name, tensor in one.items() if not torch.equal(tensor, other[name])] == []


@pytest.fixture(scope="module")
def finished(home: Path) -> SftConfig:
    config = settings(home, "lora", lora=LORA | {"modules_to_save": ["norm"]})
    finetune(config)
    return config


def test_not_one_other_weight_moves_in_a_whole_run(finished: SftConfig, home: Path) -> None:
    values = read_checkpoint(finished.out / "omni.pt")
    assert_equal(values["thinker"], read_checkpoint(home / "thinker.pt")["state"])
    for name in ENCODERS:
        assert_equal(values["encoders"][name], read_checkpoint(home / f"{name}.pt")["state"])
    learnt = values["adapter"]["state"]["thinker"]
    moved = [tensor for name, tensor in learnt.items() if ".lora_B." in name]
    assert moved
    assert all(tensor.any() for tensor in moved)
    assert not torch.equal(learnt["model.norm.weight"], values["thinker"]["model.norm.weight"])
    model, _, _ = load_omni(finished.out)
    assert_equal(adapters.adapter_state(model)["thinker"], learnt)


def test_base_stays_also_in_the_model_that_is_trained(home: Path) -> None:
    """Before anything is written: the tensors themselves, and that they have no gradient."""
    setup = build_training(settings(home, "watched", lora=LORA, max_steps=2))
    before = {name: tensor.clone() for name, tensor in setup.model.state_dict().items()}
    optimizer, model = setup.run.optimizer, setup.model
    for n in range(2):
        sums, counts = model.train()(setup.run.batch_at(n))
        (sums.sum() / counts.sum()).backward()
        optimizer.step()
        assert all(p.grad is None for p in model.parameters() if not p.requires_grad)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert {name.partition(".")[0] for name in trained} == {"thinker", *PROJECTORS}
    assert all(".lora_" in name for name in trained if name.startswith("thinker."))
    after = model.state_dict()
    moved = {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    assert moved <= trained
    assert {name for name in trained if ".lora_B." in name} <= moved


def test_step_checkpoints_hold_what_is_trained_and_no_base(finished: SftConfig) -> None:
    saved = read_checkpoint(finished.out / "omni_step_4.pt")
    weights = {n for n in saved["model"] if n.startswith("thinker.")}
    assert {n for n in weights if ".lora_" not in n} == {"thinker.model.norm.weight"}
    assert any(n.startswith("proj_v.") for n in saved["model"])
    parameters = {n for n, _ in tiny_model().encoders.named_parameters(prefix="encoders")}
    assert not parameters & saved["model"].keys()


@pytest.mark.parametrize("kind", [{}, {"dora": True, "rslora": True, "dropout": 0.1}])
def test_stopped_and_resumed_equals_straight(
    home: Path, monkeypatch: pytest.MonkeyPatch, kind: dict[str, Any]
) -> None:
    configs = [
        settings(home, f"{name} {len(kind)}", lora=LORA | kind, max_steps=3, log_every=3)
        for name in ("straight", "stopped")
    ]
    finetune(configs[0])
    real = sft.build_run

    def stopping(*arguments: Any) -> Any:
        run = real(*arguments)
        batch_at = run.batch_at

        def until_the_third(number: int, part: Any) -> Any:
            if number == 2:
                raise KeyboardInterrupt
            return batch_at(number, part)

        run.batch_at = until_the_third
        return run

    with monkeypatch.context() as patch:
        patch.setattr(sft, "build_run", stopping)
        with pytest.raises(KeyboardInterrupt):
            finetune(configs[1])
    finetune(configs[1], resume=True)
    one, other = (read_checkpoint(c.out / "omni.pt") for c in configs)
    for part in ("thinker", *PROJECTORS):
        assert_equal(one[part], other[part])
    assert_equal(one["adapter"]["state"]["thinker"], other["adapter"]["state"]["thinker"])
    scores = [json.loads((c.out / "results.json").read_text()) for c in configs]
    assert scores[0]["splits"] == scores[1]["splits"]


def test_checkpoint_of_another_base_or_with_a_weight_missing_is_refused(
    finished: SftConfig, home: Path, tmp_path: Path
) -> None:
    config = finished.model_copy(update={"output_dir": tmp_path})
    path = tmp_path / "omni_step_4.pt"
    values = read_checkpoint(finished.out / path.name)
    run = build_training(config).run
    frozen = dict(run.model.named_parameters())["thinker.model.embed_tokens.weight"]
    write_checkpoint(path, values)
    frozen.data.mul_(1.01)
    with pytest.raises(UserError, match=r"omni_step_4\.pt: the frozen thinker\.model\.embed_tok"):
        checkpoint.restore(run)
    frozen.data.div_(1.01)
    run.frozen = None
    name = next(n for n in values["model"] if ".lora_B." in n)
    less = {n: tensor for n, tensor in values["model"].items() if n != name}
    write_checkpoint(path, values | {"model": less})
    with pytest.raises(UserError, match=r"omni_step_4\.pt: holds no thinker\..*lora_B"):
        checkpoint.restore(run)
    other = values["model"] | {"thinker.other": torch.zeros(1)}
    write_checkpoint(path, values | {"model": other})
    with pytest.raises(UserError, match=r"omni_step_4\.pt: holds thinker\.other, which"):
        checkpoint.restore(run)


def test_older_checkpoints_with_every_weight_are_gone_on_from(home: Path, tmp_path: Path) -> None:
    config = settings(home, "old", output_dir=tmp_path)
    run = build_training(config).run
    run.step = 2
    checkpoint.save(run)
    checkpoint.finish_saving(run)
    path = tmp_path / "omni_step_2.pt"
    values = read_checkpoint(path)
    del values["frozen"]
    whole = {n: tensor + 1.0 for n, tensor in run.model.state_dict().items()}
    write_checkpoint(path, values | {"model": whole})
    again = build_training(config).run
    assert checkpoint.restore(again)
    assert_equal(again.model.state_dict(), whole)


def test_what_is_trained_is_projectors_and_adapters_unless_a_phase_says() -> None:
    model = adapted(targets={"thinker": None, "vision_encoder": None})
    both = {"thinker_adapter", "vision_encoder_adapter"}
    assert phases(model).trained(0) == PROJECTORS | both
    assert phases(model, freeze_encoders=False).trained(0) == PROJECTORS | both | {"audio_encoder"}
    steps = [{"until": 0.3, "train": ["proj_v"]}, {"train": ["thinker_adapter", "proj_v"]}]
    made = phases(model, phases=steps)
    for n, names in enumerate((set(), {"thinker"})):
        made.set_trainable(n)
        trained = {name for name, p in model.named_parameters() if p.requires_grad}
        assert {name.partition(".")[0] for name in trained} == {"proj_v", *names}
        assert all(".lora_" in name for name in trained if "proj_v" not in name)
    with pytest.raises(UserError, match=r"phases\.0\.train: thinker has adapters .*thinker_adap"):
        phases(model, phases=[{"train": ["thinker"]}])
    with pytest.raises(UserError, match=r"'adapter' is not one .*did you mean thinker_adapter\?"):
        phases(model, phases=[{"train": ["adapter"]}])


def test_features_are_encoded_anew_from_where_their_encoders_adapter_is_trained() -> None:
    model = adapted(targets={"vision_encoder": None})
    late = [{"until": 0.5, "train": ["proj_v"]}, {"train": ["vision_encoder_adapter"]}]
    assert phases(model, phases=late).raw_from() == {"image": 1}
    assert phases(model).raw_from() == {"image": 0}


def test_encoders_learn_by_their_adapters_and_keep_their_weights(home: Path) -> None:
    targets = {"vision_encoder": "fc1|fc2"}
    config = settings(home, "seeing", lora=LORA | {"targets": targets}, max_steps=2)
    setup = build_training(config)
    assert "image" not in setup.cached
    setup.run.model.train()
    batches = [setup.run.batch_at(n) for n in range(3)]
    batch = next(b for b in batches if "image" in b.media)
    setup.model(batch)[0].sum().backward()
    gradients = {
        n for n, p in setup.model.named_parameters() if p.grad is not None and p.grad.any()
    }
    assert any(n.startswith("encoders.image.") and ".lora_B." in n for n in gradients)
    assert not [n for n in gradients if n.startswith("encoders.") and ".lora_" not in n]


def test_adapters_have_a_rate_of_their_own(home: Path) -> None:
    targets = {"thinker": None, "audio_encoder": None}
    setup = build_training(settings(home, "rates", lora=LORA | {"targets": targets}))
    names = {id(p): n for n, p in setup.model.named_parameters()}
    rates = {
        names[id(p)]: group["peak_lr"]
        for group in setup.run.optimizer.param_groups
        for p in group["params"]
    }
    assert {r for n, r in rates.items() if ".lora_" in n} == {1e-2}
    assert 1e-2 not in {r for n, r in rates.items() if ".lora_" not in n}


def test_muon_leaves_adapters_to_adamw() -> None:
    model = adapted()
    matrices = hidden_matrices(model)
    assert not [n for n, p in model.named_parameters() if ".lora_" in n and p in matrices]
    optimizer = build_optimizer(model, SftConfig(optimizer="muon"))
    assert any(group["orthogonal"] for group in optimizer.param_groups)


def test_the_end_is_interpolated_by_fading_the_adapter(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup = build_training(settings(home, "faded", lora=LORA))
    model = setup.model
    state = adapters.adapter_state(model)["thinker"]
    for tensor in state.values():
        tensor.add_(torch.randn_like(tensor), alpha=0.1)
    before = {name: tensor.clone() for name, tensor in state.items()}
    losses = iter([3.0, 2.0, 1.0, 2.0, 3.0, 4.0])
    module = "omnitune.training.interpolation.token_scoreboard"
    monkeypatch.setattr(module, lambda *a: {"loss": next(losses)})
    found = sft.interpolate_weights(model, setup.start, [], 0.5)
    assert found["share"] == 0.2
    for name, tensor in adapters.adapter_state(model)["thinker"].items():
        factor = 0.8 if ".lora_B." in name else 1.0
        torch.testing.assert_close(tensor, factor * before[name])
    assert_equal(
        adapters.base_state(model, "thinker"),
        read_checkpoint(home / "thinker.pt")["state"],
    )


def train_adapters(rank: int, home: Path, mode: str) -> dict[str, torch.Tensor]:
    lora = {"r": 4, "alpha": 8, "learning_rate": 1e-3}
    config = settings(home, f"shared {mode}", lora=lora, parallel={"mode": mode}, max_steps=2)
    with open_ranks(config.parallel, torch.device("cpu")) as shared:
        run = build_training(config, ranks=shared).run
        run.score = lambda step, ended: {"loss": float(step)}
        loop.train(run)
        return shared.whole_state(run.model)


@needs_fork
@pytest.mark.parametrize("mode", ["ddp", "fsdp"])
def test_processes_that_share_steps_train_adapters_alike(home: Path, mode: str) -> None:
    alone = train_adapters(0, home, "auto")
    shared, _ = whole(on_ranks(2, partial(train_adapters, home=home, mode=mode)))
    for name, weight in alone.items():
        torch.testing.assert_close(shared[name], weight, atol=1e-4, rtol=1e-4)


@pytest.mark.slow
def test_layers_are_compiled_with_their_adapters(home: Path) -> None:
    config = settings(home, "compiled", lora=LORA)
    losses = []
    for compiled in (False, True):
        setup = build_training(config)
        if compiled:
            setup.model.compile_decoder()
        sums, _ = setup.model.train()(setup.run.batch_at(0))
        sums.sum().backward()
        losses.append(sums.detach())
    assert setup.model._compiled
    torch.testing.assert_close(losses[0], losses[1], atol=1e-3, rtol=1e-3)
