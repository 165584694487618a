"""Ranks of a run whose parts only one reads: the same weights, and none holds too many."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import sft_settings
from miniatures import save_thinker_folder
from rank_helpers import Held, needs_fork, on_ranks, whole

from omnitune.config.sft import SftConfig
from omnitune.distributed.opening import open_ranks
from omnitune.models.omni import OmniModel
from omnitune.sample import UserError
from omnitune.training import assembling, precision
from omnitune.training.phases import Phases
from omnitune.training.sft import finetune

pytestmark = needs_fork
CPU = torch.device("cpu")


def prepared(config: SftConfig, ranks: Any) -> OmniModel:
    """The model of a run, ready for its optimiser; rank 0 alone may read parts."""
    torch.manual_seed(config.seed)
    with pytest.MonkeyPatch.context() as patch:
        if ranks.rank:
            patch.setattr(assembling, "assemble", lambda *_: pytest.fail("another rank reads"))
        model, renderer = assembling.assemble_once(config, ranks)
    assembling.bring_to_device(model, CPU, ranks)
    Phases(config, model.parts(), model.modalities).set_trainable()
    precision.set_formats(config, model, CPU)
    ranks.prepare(model)
    assert renderer.tokenizer.get_vocab_size() <= model.config.thinker["vocab_size"]
    return model


def prepared_on(rank: int, config: SftConfig) -> dict[str, Any]:
    """What there is to compare of a rank's model."""
    with open_ranks(config.parallel, CPU) as ranks, pytest.MonkeyPatch.context() as patch:
        patch.setattr(precision, "has_bf16_units", lambda: True)
        model = prepared(config, ranks)
        head = model.thinker.get_output_embeddings().weight
        return {
            "weights": ranks.whole(dict(model.named_parameters())),
            "buffers": dict(model.named_buffers()),
            "trained": [name for name, p in model.named_parameters() if p.requires_grad],
            "tied": head is model.thinker.get_input_embeddings().weight,
            "plain head": model._has_plain_head,
            "bases": model.bases,
            "draws": torch.get_rng_state(),
        }


ONE_PART = {"train": ["proj_v"]}
HYBRID = {"mode": "fsdp", "shard": 2, "replicate": 2}
DORA = {"r": 2, "dora": True, "targets": {"thinker": None, "vision_encoder": None}}


@pytest.mark.parametrize(
    ("count", "parallel", "family", "rest"),
    [
        (2, {"mode": "ddp"}, "llama", {}),
        (2, {"mode": "fsdp"}, "gemma2", {"thinker_dtype": "bf16", "phases": [ONE_PART]}),
        (2, {"mode": "fsdp", "cpu_offload": True}, "qwen3", {"freeze_encoders": False}),
        (3, {"mode": "fsdp"}, "llama", {"lora": {"r": 2, "modules_to_save": ["norm"]}}),
        pytest.param(2, {"mode": "fsdp"}, "llama", {"lora": DORA}, marks=pytest.mark.slow),
        pytest.param(4, HYBRID, "llama", {"thinker_dtype": "bf16"}, marks=pytest.mark.slow),
    ],
)
def test_ranks_begin_with_the_weights_of_one_process(
    home: Path, tmp_path: Path, count: int, parallel: Any, family: str, rest: dict[str, Any]
) -> None:
    tied = family != "gemma2"
    thinker = save_thinker_folder(
        tmp_path / family, family=family, dtype=torch.bfloat16, tie_word_embeddings=tied
    )
    config = sft_settings(home, thinker_ckpt=thinker, precision="auto", **rest)
    alone = prepared_on(0, config)
    together = config.model_copy(update={"parallel": type(config.parallel)(**parallel)})
    found = whole(on_ranks(count, partial(prepared_on, config=together)))
    assert alone["tied"] is tied
    for rank, one in enumerate(found):
        for key in ("trained", "tied", "plain head", "bases"):
            assert one[key] == alone[key]
        assert torch.equal(one["draws"], alone["draws"])
        assert one["buffers"].keys() == alone["buffers"].keys()
        for name, buffer in alone["buffers"].items():
            assert torch.equal(one["buffers"][name], buffer), name
        if rank and parallel["mode"] == "fsdp":
            continue  # all is gathered on rank 0
        assert one["weights"].keys() == alone["weights"].keys()
        for name, weight in alone["weights"].items():
            assert one["weights"][name].dtype == weight.dtype, name
            assert torch.equal(one["weights"][name], weight), name


def held_on(rank: int, config: SftConfig) -> tuple[int, int]:
    """Most bytes that a rank's tensors take at a time while its model is made, and all weights."""
    with open_ranks(config.parallel, CPU) as ranks, Held() as held:
        model = prepared(config, ranks)
        return held.most, sum(p.numel() * p.element_size() for p in model.parameters())


def test_no_rank_but_the_first_holds_the_whole(home: Path, tmp_path: Path) -> None:
    """Its share, what every pass needs, and the memory of a layer that is gathered."""
    sizes = {"hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 24}
    thinker = save_thinker_folder(tmp_path / "deep", **sizes)
    config = sft_settings(home, thinker_ckpt=thinker, parallel={"mode": "fsdp"})
    first, second = whole(on_ranks(2, partial(held_on, config=config)))
    assert first[1] == second[1]
    assert 0.5 * second[1] < second[0] < 0.65 * second[1]


def finetuned_on(rank: int, config: SftConfig) -> tuple[str, str]:
    try:
        finetune(config)
    except UserError as error:
        return type(error).__name__, str(error)
    return "", ""


@pytest.mark.parametrize("damage", ["missing", "short", "another"])
def test_a_part_that_is_no_good_ends_all_ranks_with_one_sentence(
    home: Path, tmp_path: Path, damage: str
) -> None:
    thinker = save_thinker_folder(tmp_path / "thinker")
    file = thinker / "model.safetensors"
    if damage == "missing":
        file.unlink()
    elif damage == "short":
        file.write_bytes(file.read_bytes()[:-100])
    else:
        thinker = home / "image.pt"
    config = sft_settings(home, damage, thinker_ckpt=thinker, parallel={"mode": "fsdp"})
    (kind, said), (other, told) = whole(on_ranks(2, partial(finetuned_on, config=config), 60.0))
    assert kind == "UserError"
    assert str(thinker) in said
    assert other == "OfFirstRank"
    assert said in told
    assert not (home / damage).exists()
