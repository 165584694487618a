"""Stage E from data files and part checkpoints to the model, stopped and gone on with."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import ENCODERS, MIX, tiny_model, tiny_tokenizer, write_wave
from helpers import sft_settings as settings

from omnitune.config.settings import load_config
from omnitune.config.sft import SftConfig
from omnitune.data.reading import split_of
from omnitune.models.loading import load_omni
from omnitune.models.omni import OmniModel
from omnitune.sample import UserError
from omnitune.sources import SOURCES
from omnitune.storage import read_checkpoint
from omnitune.tasks import RESULT_KEYS, headlines
from omnitune.training import checks, loop, sft
from omnitune.training.sft import build_run, finetune, read_samples


@pytest.fixture(scope="module")
def finished(home: Path) -> SftConfig:
    config = settings(home)
    results = finetune(config)
    assert results == json.loads((config.out / "results.json").read_text())
    return config


def test_run_leaves_what_it_promises(finished: SftConfig) -> None:
    for name in ("omni.pt", "omni_step_4.pt", "metrics.jsonl", "results.json", "run.json"):
        assert (finished.out / name).is_file(), name
    entries = [json.loads(x) for x in (finished.out / "metrics.jsonl").read_text().splitlines()]
    assert [e["step"] for e in entries] == [0, 2, 3, 4]  # an epoch is three steps
    assert set(entries[1]["train"]["sources"]) == set(MIX)
    results = json.loads((finished.out / "results.json").read_text())
    assert set(results["splits"]) == {"test"}
    assert {"loss", "text_acc", "image_qa_acc", "audio_wer"} <= set(results)
    assert set(results) <= RESULT_KEYS | headlines().keys()
    assert results["reliance"].keys() == set(ENCODERS)
    assert results["text_guard"]["start"] != results["text_guard"]["loss"]
    losses = {float(share): loss for share, loss in results["blend"]["losses"].items()}
    assert list(losses) == [0, 0.1, 0.2, 0.3, 0.4, 0.5]
    assert losses[results["blend"]["share"]] == min(losses.values())
    assert json.loads((finished.out / "run.json").read_text())["finished"] is True
    model, _, values = load_omni(finished.out)
    assert values["step"] == 4
    assert set(model.modalities) == set(ENCODERS)


def test_trained_model_keeps_the_encoders_and_moves_the_rest(
    finished: SftConfig, home: Path
) -> None:
    values = read_checkpoint(finished.out / "omni.pt")
    for name in ENCODERS:
        before = read_checkpoint(home / f"{name}.pt")["state"]
        assert all(
            torch.equal(tensor, before[key]) for key, tensor in values["encoders"][name].items()
        )
    thinker = read_checkpoint(home / "thinker.pt")["state"]
    assert all(not torch.equal(tensor, thinker[key]) for key, tensor in values["thinker"].items())


def test_what_is_done_is_said_before_the_first_step(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sft.build_training(settings(home, "said"))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "samples of text_only: 2 test, 4 train, 2 validation"
    starts = ["samples of audio_text", "joining", "checking", "feature cache", "scoring"]
    places = [next(n for n, x in enumerate(lines) if x.startswith(start)) for start in starts]
    assert places == sorted(places)


def test_ledger_is_in_the_run_and_in_its_results(finished: SftConfig) -> None:
    ledger = json.loads((finished.out / "truncation.json").read_text())
    assert ledger == json.loads((finished.out / "results.json").read_text())["truncation"]
    assert set(ledger) == {"image", "audio", "text"}
    assert ledger["text"]["whole"] > 0
    assert all(entry["lost"] == 0 for entry in ledger.values())


def test_long_clips_are_refused_or_split_and_served_as_they_were_trained(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, config = home / "data", settings(home, "long", max_steps=1)
    path = data / SOURCES["audio_text"].file
    before = path.read_text()
    records = json.loads(before)
    write_wave(data / "audio" / "long.wav", 3.0)
    path.write_text(json.dumps([*records, records[0] | {"audio": "long.wav", "id": "long"}]))
    try:
        short = {"encoder_settings": {"audio": {"max_seconds": 1}}}
        split = {"encoder_settings": {"audio": {"long_audio": "split", "max_seconds": 1}}}
        for refused in (short, split | {"max_tokens": 40}):
            with pytest.raises(UserError, match="sample long"):
                finetune(config.model_copy(update=refused), overwrite=True)
        cut = config.model_copy(update=split)
        finetune(cut, overwrite=True)
        assert "not shown" not in capsys.readouterr().out
        model, _, _ = load_omni(config.out)
        served = model.modalities["audio"]
        assert served.read(data / "audio" / "long.wav").shape[0] == 3
        left = cut.model_copy(update={"max_tokens": 40, "too_long": "leave_out"})
        finetune(left, overwrite=True)
        assert "seconds (1 sample)" in capsys.readouterr().out
        worst = json.loads((config.out / "truncation.json").read_text())["text"]["worst"]
        assert [entry["id"] for entry in worst] == ["long"]
    finally:
        path.write_text(before)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (
            {"audio": {"max_second": 1}},
            r"encoder_settings\.audio\.max_second: .* mean max_seconds\?",
        ),
        (
            {"audio": {"long_audio": "cut"}},
            r"^encoder_settings\.audio: .*long_audio is 'cut', not refuse",
        ),
        ({"smell": {}}, r"encoder_settings\.smell: the model has no such encoder"),
    ],
)
def test_wrong_settings_of_an_encoder_are_named(home: Path, given: Any, words: str) -> None:
    with pytest.raises(UserError, match=words):
        finetune(settings(home, "wrong", encoder_settings=given))


def test_a_model_may_do_without_a_medium(home: Path) -> None:
    mix = {"text_only": 0.5, "image_text": 0.5}
    config = settings(home, "deaf", data_mix=mix, audio_ckpt=None, max_steps=1)
    finetune(config)
    model, _, _ = load_omni(config.out)
    assert list(model.modalities) == ["image"]


def test_data_that_the_model_has_no_encoder_for_is_told_with_the_key_and_the_mix(
    home: Path,
) -> None:
    config = settings(home, "refused", audio_ckpt=None, vision_ckpt=None)
    with pytest.raises(UserError) as error:
        finetune(config)
    for source, medium, key in (
        ("image_text", "image", "vision_ckpt"),
        ("audio_text", "audio", "audio_ckpt"),
    ):
        path = home / "data" / SOURCES[source].file
        told = f"{path}: record 1 shows {medium}, but {key} is null, so the model has no encoder"
        assert told in str(error.value)
        assert f'(the default of "{source}" in "data_mix": 0.3)' in str(error.value)
    assert not config.out.exists()
    assert config.encoder_key("thermal") == "encoder_ckpts.thermal"


def test_nothing_left_to_train_on_is_an_error(home: Path) -> None:
    config = settings(home, "none", max_tokens=16, too_long="leave_out")
    with pytest.raises(UserError, match="has no training samples"):
        finetune(config)
    assert not config.out.exists()


@pytest.mark.parametrize("problem", [KeyboardInterrupt, ValueError("of another library")])
def test_whatever_ends_the_final_scores_the_model_is_there(
    finished: SftConfig, home: Path, monkeypatch: pytest.MonkeyPatch, problem: Any
) -> None:
    config = settings(home, f"unscored {type(problem).__name__}", save_every=100)
    real = sft.final_scores

    def ended(*arguments: Any) -> None:
        raise problem

    monkeypatch.setattr(sft, "final_scores", ended)
    with pytest.raises((KeyboardInterrupt, ValueError)):
        finetune(config)
    assert (config.out / "omni_step_4.pt").is_file()
    load_omni(config.out)
    monkeypatch.setattr(sft, "final_scores", real)
    monkeypatch.setattr(loop, "update", lambda *a: pytest.fail("trained again"))
    finetune(config, resume=True)
    scores = [json.loads((c.out / "results.json").read_text()) for c in (config, finished)]
    assert scores[0]["splits"] == scores[1]["splits"]
    entries = (config.out / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in entries] == [0, 2, 3, 4]


def test_a_refused_start_takes_nothing_away(finished: SftConfig, tmp_path: Path) -> None:
    folder = shutil.copytree(finished.out, tmp_path / "run")
    before = {path.name: path.read_bytes() for path in folder.glob("*.*")}
    missing = finished.model_copy(update={"output_dir": folder, "data_dir": tmp_path / "none"})
    with pytest.raises(UserError, match="no such data folder"):
        finetune(missing, overwrite=True)
    assert {path.name: path.read_bytes() for path in folder.glob("*.*")} == before


def test_samples_longer_than_the_context_are_refused_before_training(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = settings(home, "context", max_tokens=5000)
    with pytest.raises(UserError, match=r"max_tokens is 5000, .* 256 positions"):
        finetune(config)
    assert not config.out.exists()
    model = sft.build_training(
        settings(home, "context", max_steps=1)
    ).model  # not asked for by name
    assert "max_tokens is 256: the thinker has no more positions" in capsys.readouterr().out
    assert sft.within_context(settings(home, max_tokens=256), model).max_tokens == 256


@pytest.mark.parametrize("rest", [{"batch_size": 60_000}, {"tokens_per_batch": 10_000_000}])
def test_a_batch_that_no_machine_can_hold_is_refused(
    home: Path, monkeypatch: pytest.MonkeyPatch, rest: dict[str, int]
) -> None:
    monkeypatch.setattr(checks, "machine_memory", lambda: 2**30)
    monkeypatch.setattr(sft, "describe", lambda run: None)
    config = settings(home, "large", **rest)
    with pytest.raises(UserError, match=rf"{next(iter(rest))} is .* GiB of memory"):
        finetune(config)
    assert not config.out.exists()


def test_finished_run_is_not_trained_again(
    finished: SftConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sft, "train", lambda run: pytest.fail("trained again"))
    before = (finished.out / "omni.pt").read_bytes()
    assert finetune(finished) is None
    assert "nothing to do" in capsys.readouterr().out
    assert (finished.out / "omni.pt").read_bytes() == before
    assert finetune(finished, resume=True) is None
    with pytest.raises(UserError, match="learning_rate"):
        finetune(finished.model_copy(update={"learning_rate": 0.5}))


def test_stopped_and_resumed_equals_straight(
    finished: SftConfig,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = settings(home, "stopped")
    real = sft.build_run

    def stopping(*arguments: Any) -> Any:
        run = real(*arguments)
        batch_at = run.batch_at

        def until_the_third(number: int, part: Any) -> Any:
            if number == 3:
                raise KeyboardInterrupt
            return batch_at(number, part)

        run.batch_at = until_the_third
        return run

    monkeypatch.setattr(sft, "build_run", stopping)
    with pytest.raises(KeyboardInterrupt):
        finetune(config)
    monkeypatch.setattr(sft, "build_run", real)
    with pytest.raises(UserError, match="--resume"):
        finetune(config)
    capsys.readouterr()
    finetune(config, resume=True)
    assert "going on from step 3 of 4" in capsys.readouterr().out
    one, other = (read_checkpoint(c.out / "omni.pt") for c in (config, finished))
    for part in ("thinker", "proj_v", "proj_a"):
        assert all(torch.equal(one[part][key], tensor) for key, tensor in other[part].items())
    scores = [json.loads((c.out / "results.json").read_text()) for c in (config, finished)]
    for key in ("splits", "reliance", "text_guard", "blend"):
        assert scores[0][key] == scores[1][key]
    watched = [
        [json.loads(x)["validation"] for x in (c.out / "metrics.jsonl").read_text().splitlines()]
        for c in (config, finished)
    ]
    assert watched[0] == watched[1]


def test_the_model_that_is_kept_and_scored_is_the_interpolated_one(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = read_checkpoint(home / "thinker.pt")["state"]

    def silenced(model: OmniModel, start: dict[str, torch.Tensor], *rest: Any) -> dict[str, Any]:
        assert start
        assert all(torch.equal(tensor, before[key]) for key, tensor in start.items())
        for parameter in model.thinker.parameters():
            parameter.detach().zero_()
        return {"share": 0.5, "losses": {"0": 2.0, "0.5": 1.0}}

    monkeypatch.setattr(sft, "interpolate_weights", silenced)
    config = settings(home, "blended", max_steps=2)
    finetune(config)
    kept = read_checkpoint(config.out / "omni.pt")["thinker"]
    assert not any(tensor.any() for tensor in kept.values())
    guard = json.loads((config.out / "results.json").read_text())["text_guard"]
    vocabulary = len(kept["model.embed_tokens.weight"])
    assert guard["loss"] == pytest.approx(math.log(vocabulary), rel=1e-5)


def test_nothing_is_chosen_by_samples_that_are_scored(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sft, "interpolate_weights", lambda *a: pytest.fail("interpolated"))
    never = settings(home, "never", max_interpolation=0.0)
    assert sft.interpolate(never, sft.build_training(never)) == {}
    data = shutil.copytree(home / "data", tmp_path / "data")
    for file in data.glob("*/*.json"):
        file.write_text(file.read_text().replace('"test"', '"train"'))
    alone = settings(home, "alone", data_dir=data)
    assert sft.interpolate(alone, sft.build_training(alone)) == {}


@pytest.mark.parametrize("there", [1_000, 2**40])
def test_memory_that_is_not_there_is_warned_of(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], there: int
) -> None:
    config = settings(home, "memory")
    model = tiny_model()
    reader = sft.SampleReader(sft.ChatRenderer(tiny_tokenizer()), model.modalities)
    run = build_run(config, model, reader, read_samples(config))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (there, there))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 0)
    sft.log_memory_estimate(config, run)
    said = capsys.readouterr().out
    assert (
        "memory, in GiB: weights 0.0, copies 0.0, gradients 0.0, optimiser 0.0, activations" in said
    )
    assert ("warning: that may not fit" in said) is (there == 1_000)


def test_narrow_thinkers_take_larger_steps_and_projectors_larger_yet(home: Path) -> None:
    samples = read_samples(settings(home))
    reader = sft.SampleReader(sft.ChatRenderer(tiny_tokenizer()), tiny_model().modalities)

    def rates(**rest: Any) -> dict[str, float]:
        model = tiny_model()
        run = build_run(settings(home, **rest), model, reader, samples)
        names = {id(p): name.split(".")[0] for name, p in model.named_parameters()}
        groups = run.optimizer.param_groups
        return {names[id(p)]: group["peak_lr"] for group in groups for p in group["params"]}

    wide = {"thinker": 1e-3, "encoders": 1e-3, "proj_v": 2.5e-3, "proj_a": 2.5e-3}
    assert rates(lr_base_width=32) == pytest.approx(wide)  # the tiny thinker's own width
    assert rates(lr_base_width=8) == pytest.approx(wide)
    plain = {"thinker": 2e-3, "encoders": 1e-3, "proj_v": 5e-3, "proj_a": 5e-3}
    assert rates(lr_base_width=64) == pytest.approx(plain)
    told = rates(lr_base_width=64, projector_learning_rate=2e-3, encoder_learning_rate=1e-5)
    assert told == pytest.approx(plain | {"proj_v": 2e-3, "proj_a": 2e-3, "encoders": 1e-5})


def test_only_weighted_sources_are_read(home: Path, tmp_path: Path) -> None:
    assert set(read_samples(settings(home, data_mix={"text_only": 1}))) == {"text_only"}
    with pytest.raises(UserError, match=r"omni_qa\.json: no such file.*image_audio_text"):
        read_samples(settings(home, data_mix=MIX | {"image_audio_text": 0.1}))


def test_a_source_without_a_file_is_named_with_the_line_that_gives_it_weight(
    home: Path, tmp_path: Path
) -> None:
    path = tmp_path / "run.json"
    path.write_text(
        '{\n "data_mix": {\n  "text_only": 1,\n  "described": 0.3,\n  "digit_grids": 0.2\n }\n}'
    )
    options = ["--data-dir", str(home / "data")]
    with pytest.raises(UserError) as error:
        read_samples(load_config(SftConfig, path, options))
    first, second = str(error.value).splitlines()
    assert f'described has weight ({path}, line 4: "described" in "data_mix": 0.3)' in first
    assert f'digit_grids has weight ({path}, line 5: "digit_grids" in "data_mix": 0.2)' in second
    assert first.endswith("/data: text_only, image_text, audio_text")
    with pytest.raises(UserError, match=r"\(--data-mix\.described on the command line: 0\.1\)"):
        read_samples(load_config(SftConfig, None, [*options, "--data-mix.described", "0.1"]))
    (home / "data" / SOURCES["audio_text"].file).rename(tmp_path / "away.json")
    try:
        with pytest.raises(UserError, match=r'the default of "audio_text" in "data_mix": 0\.3'):
            read_samples(load_config(SftConfig, None, [*options, "--data-mix.text-only", "1"]))
    finally:
        (tmp_path / "away.json").rename(home / "data" / SOURCES["audio_text"].file)


@pytest.mark.parametrize(
    ("splits", "words"),
    [
        (["train", "val"], 'the split "val" is held out .*; if "validation" is meant'),
        ([None], "one record cannot be both"),
        (["train", "test"], r"no source has validation samples \(splits there: test, train\)"),
    ],
)
def test_nothing_to_watch_by_is_explained(
    home: Path, tmp_path: Path, splits: list[str | None], words: str
) -> None:
    path = tmp_path / SOURCES["text_only"].file
    path.parent.mkdir(parents=True)
    pair = {"question": "a", "answer": "b"}
    path.write_text(json.dumps([pair | ({"split": s} if s else {}) for s in splits]))
    with pytest.raises(UserError, match=words):
        read_samples(settings(home, data_dir=tmp_path, data_mix={"text_only": 1}))


def test_a_record_set_aside_is_said(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / SOURCES["text_only"].file
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps([{"question": f"what {n}?", "answer": "b"} for n in range(3)]))
    samples = read_samples(settings(home, data_dir=tmp_path, data_mix={"text_only": 1}))
    assert len(split_of(samples["text_only"], "validation")) == 1
    assert "was set aside from train as validation" in capsys.readouterr().out


def test_source_without_training_samples_is_named(home: Path, tmp_path: Path) -> None:
    path = tmp_path / SOURCES["text_only"].file
    path.parent.mkdir(parents=True)
    path.write_text('[{"question": "a", "answer": "b", "split": "test"}]')
    with pytest.raises(UserError, match="text_only has no training samples"):
        read_samples(settings(home, data_dir=tmp_path, data_mix={"text_only": 1}))


def test_a_gpu_that_is_not_there_is_missed_before_the_folder_is_made(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    config = settings(home, "no-gpu", device="cuda")
    with pytest.raises(UserError, match="finds no GPU"):
        finetune(config)
    assert not config.out.exists()
