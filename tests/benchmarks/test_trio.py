"""The workload of three pretrained parts, with miniatures in their place."""

import json
from pathlib import Path

import pytest
import torch
from miniatures import save_thinker_folder
from transformers import Dinov2Config, Dinov2Model, WhisperConfig, WhisperModel

from benchmarks import sft, trio
from benchmarks.trainer import LibraryTrainer
from benchmarks.versions import Omnitune
from omnitune.models.adapters import adapter_state


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parts")
    save_thinker_folder(folder / "thinker")
    torch.manual_seed(0)
    small = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    Dinov2Model(Dinov2Config(**small, image_size=56, patch_size=14)).save_pretrained(
        folder / "vision"
    )
    processor = {
        "image_processor_type": "BitImageProcessor",
        "size": {"shortest_edge": 56},
        "crop_size": {"height": 56, "width": 56},
    }
    (folder / "vision" / "preprocessor_config.json").write_text(json.dumps(processor))
    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "vocab_size": 50}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    widths = {"encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "max_source_positions": 200}
    tokens = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
    config = WhisperConfig(**sizes, **heads, **widths, **tokens)
    WhisperModel(config).save_pretrained(folder / "audio")
    settings = {"feature_extractor_type": "WhisperFeatureExtractor", "chunk_length": 4}
    (folder / "audio" / "preprocessor_config.json").write_text(json.dumps(settings))
    return folder


def test_both_engines_train_the_same_adapters_on_the_same_questions(
    home: Path, parts: Path
) -> None:
    pytest.importorskip("accelerate")
    bench = trio.make(parts, home / "data", 4)
    base = {n: p.clone() for n, p in bench.model.thinker.named_parameters() if ".lora_" not in n}
    theirs = LibraryTrainer(bench, 0.2, False)
    ours = Omnitune(bench, 0.2)
    rates = [
        {rate: sum(p.numel() for p in group) for rate, group in _by_rate(optimizer).items()}
        for optimizer in (theirs._optimizer(), ours.optimizer)
    ]
    assert rates[0] == rates[1]
    assert len(rates[0]) == 2  # adapters, projectors
    for engine in (theirs, ours):
        before = {n: t.clone() for n, t in adapter_state(bench.model)["thinker"].items()}
        projector = bench.model.proj_v.state_dict()
        projector = {name: tensor.clone() for name, tensor in projector.items()}
        assert engine.encoding_seconds > 0
        assert len(engine.run(0, 1).seconds) == 1
        after = adapter_state(bench.model)["thinker"]
        assert not all(torch.equal(after[name], before[name]) for name in after)
        now = bench.model.proj_v.state_dict()
        assert not all(torch.equal(now[name], projector[name]) for name in now)
    for name, weight in bench.model.thinker.named_parameters():
        assert ".lora_" in name or torch.equal(weight, base[name])


def _by_rate(optimizer: torch.optim.Optimizer | None) -> dict[float, list[torch.Tensor]]:
    assert optimizer is not None
    found: dict[float, list[torch.Tensor]] = {}
    for group in optimizer.param_groups:
        found.setdefault(group["lr"], []).extend(group["params"])
    return found


@pytest.mark.slow
def test_program_prints_its_table(
    home: Path, parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("accelerate")
    path = tmp_path / "found.json"
    asked = ["--workloads", "trio", "--parts", str(parts), "--data", str(home / "data")]
    names = "Trainer, padded rows|omnitune"
    sizes = ["--rounds", "1", "--steps", "1", "--versions", names, "--json", str(path)]
    assert sft.main([*asked, *sizes]) == 0
    assert "trio" in capsys.readouterr().out
    rows = json.loads(path.read_text())["workloads"]["trio"]["versions"]
    assert list(rows) == names.split("|")
    assert all(row["samples_per_second"] > 0 for row in rows.values())
    assert all(row["peak_memory_mb"] > 0 for row in rows.values())


def test_parts_that_are_missing_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_thinker_folder(tmp_path / "thinker")
    assert sft.main(["--workloads", "trio", "--parts", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert f"{tmp_path}: has no pretrained vision and no audio" in said
    assert "--parts" in said
