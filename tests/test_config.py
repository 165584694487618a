"""Configuration: file and command line together, every mistake in one message."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from omnitune.config.help import help_text, option_rows
from omnitune.config.run import RunOptions
from omnitune.config.settings import load_config, read_json_object
from omnitune.config.sft import DataMix, SftConfig
from omnitune.sample import UserError
from omnitune.serving.options import chat_config
from omnitune.sources import SOURCES, Source

ROOT = Path(__file__).resolve().parents[1]
MIX = {"text_only": 0.4, "image_text": 0.3, "audio_text": 0.3}


def write(folder: Path, values: Any, name: str = "run.json") -> Path:
    path = folder / name
    path.write_text(values if isinstance(values, str) else json.dumps(values), encoding="utf-8")
    return path


def load(folder: Path, values: Any, *arguments: str) -> SftConfig:
    return load_config(SftConfig, write(folder, values), list(arguments))


def test_config_of_the_repository_loads() -> None:
    path = ROOT / "configs" / "omni_sft_tiny.json"
    config = load_config(SftConfig, path, [])
    assert config.out == Path("checkpoints/omni_sft_tiny")
    assert config.freeze_encoders is True
    assert (config.batch_size, config.num_epochs, config.warmup_steps) == (8, 5, 500)
    assert config.learning_rate == 1e-4
    assert config.data_mix.weights() == MIX
    assert config.encoders["image"] == Path("checkpoints/vision_tiny/vision.pt")
    assert config.encoders["audio"] == Path("checkpoints/audio_enc_tiny/audio_enc.pt")
    assert config.thinker_ckpt == Path("checkpoints/thinker_tiny/thinker_best.pt")


@pytest.mark.parametrize("name", ["two_stage", "unfreeze"])
def test_configs_of_the_strategies_are_the_plain_one_with_phases(name: str) -> None:
    config = load_config(SftConfig, ROOT / "configs" / f"omni_sft_{name}.json", [])
    plain = load_config(SftConfig, ROOT / "configs" / "omni_sft_tiny.json", [])
    assert config.out == Path(f"checkpoints/omni_sft_{name}")
    assert len(config.phases) == 2
    own = ("phases", "output_dir", "encoder_learning_rate")
    assert config.model_copy(update={k: getattr(plain, k) for k in own}) == plain


def test_phases_are_a_json_list_on_the_command_line(tmp_path: Path) -> None:
    given = [{"until": 0.25, "train": ["proj_v"]}, {"data_mix": {"image_audio_text": 1}}]
    config = load(tmp_path, {}, "--phases", json.dumps(given))
    assert [phase.until for phase in config.phases] == [0.25, 1.0]
    assert config.phases[0].train == ["proj_v"]
    assert config.source_names == ["text_only", "image_text", "audio_text", "image_audio_text"]
    assert load(tmp_path, config.model_dump_json()) == config
    assert load(tmp_path, {}).source_names == list(MIX)


def test_all_that_is_wrong_with_phases_is_said_at_once(tmp_path: Path) -> None:
    phases = [
        {"train": "proj_v"},
        {"until": 0.5, "unti": 1, "data_mix": {"text_onl": 1}},
        {"until": 0.4, "train": []},
        {"until": 0.9, "learning_rate": 0, "max_difficulty": 2},
    ]
    with pytest.raises(UserError) as error:
        load(tmp_path, {"batch_size": 0, "phases": phases})
    lines = str(error.value).splitlines()[1:]
    place = {line.split(":")[0].strip(): line for line in lines}
    assert set(place) == {
        "batch_size",
        "phases.0.train",
        "phases.0.until",
        "phases.1.unti",
        "phases.1.data_mix.text_onl",
        "phases.2.until",
        "phases.2.train",
        "phases.3.until",
        "phases.3.learning_rate",
        "phases.3.max_difficulty",
    }
    assert "only the last phase may leave it out" in place["phases.0.until"]
    assert "did you mean phases.1.until?" in place["phases.1.unti"]
    assert "mean phases.1.data_mix.text_only?" in place["phases.1.data_mix.text_onl"]
    assert "above 0.5" in place["phases.2.until"]
    assert "the last phase ends at 1" in place["phases.3.until"]


@pytest.mark.parametrize("value", [3, [3], {"until": 1}, "soon"])
def test_phases_that_are_no_list_of_objects_are_refused(tmp_path: Path, value: Any) -> None:
    with pytest.raises(UserError, match="phases"):
        load(tmp_path, {"phases": value})


def test_without_a_file_there_is_no_output_folder() -> None:
    with pytest.raises(UserError, match="--output-dir"):
        _ = load_config(SftConfig, None, []).out
    assert load_config(SftConfig, None, ["--output-dir", "x"]).out == Path("x")


def test_output_folder_of_the_file_wins_over_its_name(tmp_path: Path) -> None:
    assert load(tmp_path, {"output_dir": "there"}).out == Path("there")
    assert load(tmp_path, {"output_dir": None}).out == Path("checkpoints/run")
    assert load(tmp_path, {"output_dir": "there"}, "--output-dir", "here").out == Path("here")


@pytest.mark.parametrize(
    ("arguments", "name", "expected"),
    [
        (["--learning-rate", "3e-4"], "learning_rate", 3e-4),
        (["--learning_rate=3e-4"], "learning_rate", 3e-4),
        (["--max-steps", "7"], "max_steps", 7),
        (["--max-steps", "null"], "max_steps", None),
        (["--max-steps", "None"], "max_steps", None),
        (["--no-freeze-encoders"], "freeze_encoders", False),
        (["--freeze-encoders"], "freeze_encoders", True),
        (["--freeze-encoders", "False"], "freeze_encoders", False),
        (["--no-freeze-encoders", "--seed", "3"], "freeze_encoders", False),
        (["--data-dir", "my data/here"], "data_dir", Path("my data/here")),
        (["--seed", "1", "--seed", "2"], "seed", 2),
    ],
)
def test_command_line_overrides_the_file(
    tmp_path: Path, arguments: list[str], name: str, expected: object
) -> None:
    values = {"freeze_encoders": "--freeze-encoders" not in arguments, "max_steps": 3, "seed": 9}
    assert getattr(load(tmp_path, values, *arguments), name) == expected


@pytest.mark.parametrize(
    ("given", "trackers"),
    [("wandb", ["wandb"]), ("tensorboard, trackio", ["tensorboard", "trackio"]), ("", [])],
)
def test_trackers_are_names_in_a_row(given: str, trackers: list[str]) -> None:
    assert load_config(SftConfig, None, [f"--trackers={given}"]).trackers == trackers
    with pytest.raises(UserError, match=r"trackers\.0: must be 'tensorboard', 'wandb'"):
        load_config(SftConfig, None, ["--trackers", "visdom"])


def test_numeric_folder_name_is_a_folder(tmp_path: Path) -> None:
    assert load(tmp_path, {}, "--output-dir", "2026").out == Path("2026")


@pytest.mark.parametrize("arguments", [["--output-dir"], ["--output-dir", ""], ["--data-dir="]])
def test_path_that_is_missing_is_refused(tmp_path: Path, arguments: list[str]) -> None:
    """Neither a folder that is called "true" nor the one where the command is given is meant."""
    with pytest.raises(UserError, match=r"--(output|data)-dir: a value is missing$"):
        load(tmp_path, {}, *arguments)


@pytest.mark.parametrize("arguments", [["--config="], ["--config", "a.json", ""]])
def test_an_empty_path_among_several_is_missing(arguments: list[str]) -> None:
    with pytest.raises(UserError, match="--config: a value is missing"):
        load_config(RunOptions, None, arguments)
    with pytest.raises(UserError, match="--encoder-ckpts: a value is missing"):
        load_config(SftConfig, None, ["--encoder-ckpts.thermal="])


@pytest.mark.parametrize("word", ["null", "None"])
def test_null_on_the_command_line_is_none_where_a_path_may_be(tmp_path: Path, word: str) -> None:
    config = load(tmp_path, {}, "--vision-ckpt", word, f"--audio-ckpt={word}")
    assert list(config.encoders) == []
    assert load(tmp_path, {}, "--thinker-ckpt", word).thinker_ckpt == Path(word)
    assert load_config(chat_config(), None, ["--prompt", word]).prompt == word


@pytest.mark.parametrize("option", ["--learning-rate", "--batch-size", "--data-mix.image-text"])
def test_option_whose_value_was_forgotten_is_refused(tmp_path: Path, option: str) -> None:
    """True is not silently the number 1, be it last or before another option."""
    for arguments in ([option], [option, "--no-freeze-encoders"]):
        with pytest.raises(UserError, match=f"{option}: a value is missing"):
            load(tmp_path, {}, *arguments)


def test_nested_override_leaves_the_other_weights(tmp_path: Path) -> None:
    config = load(tmp_path, {"data_mix": MIX}, "--data-mix.image-text", "0.5")
    assert config.data_mix.weights() == MIX | {"image_text": 0.5}
    config = load(tmp_path, {"data_mix": MIX}, "--data-mix.audio-text=0", "--data-mix.text-only=1")
    assert config.data_mix.weights() == {"text_only": 1, "image_text": 0.3}


def test_nested_override_leaves_the_other_default_weights(tmp_path: Path) -> None:
    """The same where the mix is the default one, which no file spells out."""
    config = load(tmp_path, {}, "--data-mix.image-text", "0.5")
    assert config.data_mix.weights() == MIX | {"image_text": 0.5}
    without_sound = load_config(SftConfig, None, ["--data-mix.audio-text", "0"])
    assert without_sound.data_mix.weights() == {"text_only": 0.4, "image_text": 0.3}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"learning_rat": 1}, ["learning_rat", "unknown key", "did you mean learning_rate?"]),
        ({"freeze_encoder": 1}, ["did you mean freeze_encoders?"]),
        ({"lora": {"rank": 8}}, ["lora.rank", "unknown key", "did you mean lora.r?"]),
        ({"lora": {"target_modules": "q_proj"}}, ["did you mean lora.targets?"]),
        ({"data_mix": {"image_txt": 1}}, ["data_mix.image_txt", "mean data_mix.image_text?"]),
        ({"zzz": 1}, ["zzz: unknown key"]),
        ({"batch_size": 0}, ["batch_size", "must be at least 1", "found 0"]),
        ({"learning_rate": 0}, ["learning_rate", "must be above 0"]),
        ({"learning_rate": "fast"}, ["learning_rate", "must be a number", "'fast'"]),
        ({"adam_beta2": 1.0}, ["adam_beta2", "must be below 1"]),
        ({"device": "tpu"}, ["device", "'cpu'", "'tpu'"]),
        ({"data_mix": {"text_only": -1}}, ["data_mix.text_only", "found -1"]),
        ({"data_mix": dict.fromkeys(MIX, 0)}, ["data_mix", "every weight is 0"]),
        ({"data_mix": {}}, ["every weight is 0"]),
        ({"data_mix": 3}, ["data_mix", "must be an object", "found 3"]),
        ({"num_epochs": 1.5}, ["num_epochs", "must be a whole number", "1.5"]),
    ],
)
def test_wrong_value_is_explained(tmp_path: Path, values: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(UserError) as error:
        load(tmp_path, values)
    for word in ["run.json", *words]:
        assert word in str(error.value)
    assert "\n" not in str(error.value)


def test_unknown_key_without_a_near_one_gets_no_suggestion(tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        load(tmp_path, {"zzz": 1})
    assert "did you mean" not in str(error.value)


@pytest.mark.parametrize("number", ["NaN", "Infinity"])
@pytest.mark.parametrize("key", ["learning_rate", "weight_decay", "data_mix"])
def test_numbers_that_are_none_are_refused(tmp_path: Path, number: str, key: str) -> None:
    value = f'{{"text_only": {number}}}' if key == "data_mix" else number
    with pytest.raises(UserError, match=key):
        load(tmp_path, f'{{"{key}": {value}}}')


def test_all_mistakes_are_reported_at_once_with_their_place(tmp_path: Path) -> None:
    values = {"batch_size": 0, "learning_rat": 1, "data_mix": {"text_only": 1, "audio_text": -1}}
    with pytest.raises(UserError) as error:
        load(tmp_path, values, "--warmup-steps", "-3", "--sead", "1", "--device=tpu")
    lines = str(error.value).splitlines()
    assert lines[0] == "6 problems:"
    place = {line.split(":")[0].strip(): line for line in lines[1:]}
    assert set(place) == {
        "batch_size",
        "learning_rat",
        "data_mix.audio_text",
        "--warmup-steps",
        "--sead",
        "--device",
    }
    for key in ("batch_size", "learning_rat", "data_mix.audio_text"):
        assert place[key].endswith("run.json)")
    assert place["--sead"].endswith("--sead: unknown option; did you mean --seed?")


def test_wrong_override_of_a_right_file_is_the_command_lines(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^--batch-size: must be at least 1, found 0$"):
        load(tmp_path, {"batch_size": 4}, "--batch-size", "0")
    with pytest.raises(UserError, match=r"^--data-mix.text-only: must be at least 0, found -1$"):
        load(tmp_path, {"data_mix": MIX}, "--data-mix.text-only=-1")


def test_word_that_is_no_option_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'seed' is not an option"):
        load(tmp_path, {}, "seed", "1")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"seed": 1,\n "batch_size" 2}', "line 2, column 15: not valid JSON"),
        ("", "not valid JSON"),
        ("[1, 2]", "holds a JSON list"),
        ('"seed"', "holds a JSON str"),
    ],
)
def test_broken_file_is_named(tmp_path: Path, text: str, words: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(UserError) as error:
        load_config(SftConfig, path, [])
    assert str(path) in str(error.value)
    assert words in str(error.value)


def test_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "run.json")
    with pytest.raises(UserError, match=r"run\.json: is a pipe or a device"):
        read_json_object(tmp_path / "run.json")


def test_missing_folder_and_binary_files_are_named(tmp_path: Path) -> None:
    binary = tmp_path / "binary.json"
    binary.write_bytes(b"\xff\xfe\x00")
    for path, words in (
        (tmp_path / "none.json", "no such file"),
        (tmp_path, "cannot be read"),
        (binary, "not UTF-8"),
    ):
        with pytest.raises(UserError) as error:
            read_json_object(path)
        assert str(path) in str(error.value)
        assert words in str(error.value)


def test_resolved_configuration_loads_again(tmp_path: Path) -> None:
    config = load(tmp_path, {"data_mix": MIX}, "--data-mix.image-audio-text", "0.1", "--seed", "4")
    assert load(tmp_path, config.model_dump_json()) == config


def refusal(folder: Path, *arguments: str) -> str:
    """What is said of the arguments; nothing if they are taken (a path takes any text)."""
    try:
        load(folder, {}, *arguments)
    except UserError as error:
        return str(error)
    return ""


def test_help_names_every_option_as_the_command_line_takes_it(tmp_path: Path) -> None:
    options = [name.split()[0] for name, _ in option_rows(SftConfig) if name.startswith("--")]
    assert len(options) == len(set(options)) == len(SftConfig.model_fields)
    assert {"--data-mix.SOURCE", "--[no-]freeze-encoders", "--learning-rate"} <= set(options)
    for option in options:
        option = option.replace("[no-]", "").replace("SOURCE", "text-only").replace("KEY", "r")
        option = option.replace("--parallel.r", "--parallel.mode")
        assert "unknown" not in refusal(tmp_path, option, '["no such value"]')


def test_help_gives_each_option_a_type_a_text_and_a_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = dict(option_rows(SftConfig))
    assert "[default" not in rows.pop("    path TEXT")  # a source has none without it
    assert all(text.count("[default: ") == 1 and text[0] != "[" for text in rows.values())
    assert rows["--seed INT"].endswith(" [default: 0]")
    assert rows["--device {auto,cpu,cuda}"].endswith(" [default: auto]")
    assert "text_only 0.4, image_text 0.3" in rows["--data-mix.SOURCE NUMBER"]
    assert "    until NUMBER" in rows
    assert {"--lora.KEY VALUE", "    targets REGEX", "    r INT"} <= rows.keys()
    for width in (80, 100):
        monkeypatch.setenv("COLUMNS", str(width))
        lines = help_text("sft", "Fine-tunes.", {"Settings": SftConfig}).splitlines()
        assert max(len(line) for line in lines if "{" not in line) in range(width - 8, width + 1)


def test_languages_are_by_source(tmp_path: Path) -> None:
    config = load_config(SftConfig, None, ["--languages.audio-text", "hi"])
    assert config.languages == {"audio_text": "hi"}
    for wrong, told in (
        ("audio", "did you mean --languages.audio-text?"),
        ("described", "expected a language code such as en, hi or pt-BR, found 'h1'"),
    ):
        with pytest.raises(UserError, match=told.replace("?", r"\?")):
            load_config(SftConfig, None, [f"--languages.{wrong}", "h1"])


def test_a_source_may_be_registered_at_any_time(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"--data-mix\.depth: unknown source; expected "):
        load_config(SftConfig, None, ["--data-mix.depth", "1"])
    monkeypatch.setitem(SOURCES, "depth", Source("depth", "depth/qa.json"))
    config = load_config(SftConfig, None, ["--data-mix.depth", "1", "--languages.depth", "hi"])
    assert list(config.data_mix.weights()) == config.source_names == [*MIX, "depth"]


def test_mixes_are_the_same_whatever_has_no_weight() -> None:
    mix = DataMix(image_text=1, text_only=2, audio_text=0)
    assert mix == DataMix(text_only=2, image_text=1)
    assert list(mix.weights()) == ["text_only", "image_text"]
    assert DataMix.model_validate_json(mix.model_dump_json()) == mix


def test_default_paths_move_with_the_folder_of_the_checkpoints(tmp_path: Path) -> None:
    config = load(tmp_path, {"audio_ckpt": "checkpoints/mine.pt"}, "--data-dir", "checkpoints/data")
    moved = config.moved(Path("there"))
    assert moved.out == Path("there/run")
    assert moved.thinker_ckpt == Path("there/thinker_tiny/thinker_best.pt")
    assert (moved.audio_ckpt, moved.data_dir) == (config.audio_ckpt, config.data_dir)


@pytest.mark.parametrize("value", [True, False, None])
def test_save_whole_may_be_left_to_the_size_of_parts(tmp_path: Path, value: bool | None) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"save_whole": value}))
    assert load_config(SftConfig, path, []).save_whole is value
    if value is not None:
        arguments = ["--save-whole" if value else "--no-save-whole"]
        assert load_config(SftConfig, None, arguments).save_whole is value


def test_a_key_that_a_source_lacks_is_told_in_its_own_words(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"sources\.x\.path is required: file, folder or pattern"):
        load(tmp_path, {"sources": {"x": {"weight": 2}}})


@pytest.mark.parametrize("name", ["compile", "activation_checkpointing"])
def test_settings_of_the_run_within_parallel_are_told_their_place(name: str) -> None:
    with pytest.raises(ValidationError, match=f"{name} is a setting of the run.*beside it"):
        SftConfig(parallel={name: True})
