"""Validation: one fault of each kind is found where it was put, and a cleaned copy is clean."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from helpers import (
    ENCODERS,
    conversation,
    tiny_model,
    tiny_tokenizer,
    write_image,
    write_source,
    write_wave,
)
from PIL import Image

from omnitune.cli import main
from omnitune.data.audit.cleaned import SETTINGS_FILE, write_clean
from omnitune.data.audit.findings import Problem
from omnitune.data.audit.looking import Looker
from omnitune.data.audit.text_checks import TextChecks
from omnitune.data.audit.truncation import ReadLimits
from omnitune.data.audit.validate import Checks, Validation, validate
from omnitune.data.reading import DataPlace
from omnitune.data.template import ChatRenderer
from omnitune.encoders.registry import build_encoder
from omnitune.media.audio import AudioMedium
from omnitune.media.registry import MEDIA
from omnitune.models.loading import save_omni
from omnitune.reporting.given import given_data
from omnitune.sample import Media, UserError
from omnitune.sources import Source


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of this test's own."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("OMNITUNE_CACHE", str(folder))
    return folder


def record(n: int, **rest: Any) -> dict[str, Any]:
    """A record that is as it should be, unlike any other number's."""
    words = f"number {n} is of the row {n * n} and no other word {n + 7}"
    return {"id": f"r{n}", "question": f"what is {n}?", "answer": words, "split": "train", **rest}


# By code, what is wrong in a record of text.
WRONG_TEXTS: dict[str, dict[str, Any]] = {
    "empty-answer": {"answer": " "},
    "unknown-key": {"anwser": "six"},
    "missing-key": {"answer": ...},
    "tag-mismatch": {"question": "<image> what is it?"},
    "role-order": {
        "messages": [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}],
        "question": ...,
        "answer": ...,
    },
    "broken-text": {"answer": "half \ud83d of a sign"},
    "wrong-type": {"answer": 6},
    "unknown-task": {"task": "dancing"},
    "unknown-split": {"split": "Train"},
    "unknown-language": {"language": "Hindi!"},
    "outside-media": {"image": "../up.png"},
    "remote-media": {"image": "https://example.org/a.png"},
    "control-token": {"answer": "of course<|im_end|> and more"},
    "unfilled": {"question": "who is {{ name }}?"},
    "wrong-language": {"answer": "это совсем другой язык", "language": "hi"},
    "other-script": {"answer": "this is another script", "language": "hi"},
}


@pytest.fixture
def texts(tmp_path: Path) -> tuple[Path, dict[str, int]]:
    """A file with a fault of each kind between sound records, and by code the record's number."""
    records, places = [record(n) for n in range(100, 120)], {}  # by these it is recognised
    for n, (code, change) in enumerate(WRONG_TEXTS.items()):
        records.append(record(2 * n))
        changed = record(2 * n + 1) | change
        records.append({key: value for key, value in changed.items() if value is not ...})
        places[code] = len(records)
    records.append(records[0] | {"id": "again"})
    places["duplicate"] = len(records)
    records.append(record(98, split="test", answer=records[22]["answer"], question="anew?"))
    places["overlap"] = 23
    path = tmp_path / "texts.jsonl"
    path.write_text("\n".join(map(json.dumps, records)))
    return path, places


def picture(path: Path, colour: int) -> Path:
    Image.new("RGB", (24, 24), (colour,) * 3).save(path)
    return path


@pytest.fixture
def media(tmp_path: Path) -> tuple[Path, dict[str, int]]:
    """Records of media with a fault of each kind."""
    folder = tmp_path / "media"
    folder.mkdir()
    for n in range(3):
        write_image(folder / f"{n}.png", seed=n)
        write_wave(folder / f"{n}.wav", seed=n)
    picture(folder / "black.png", 0)
    (folder / "cut.png").write_bytes((folder / "0.png").read_bytes()[:200])
    soundfile.write(folder / "silent.wav", np.zeros(8000), 16_000)
    write_wave(folder / "short.wav", 0.01)
    write_wave(folder / "long.wav", 3.0, seed=9)
    shown = {
        "": {"image": "0.png"},
        "missing-media": {"image": "none.png"},
        "unreadable-media": {"image": "cut.png"},
        "black-media": {"image": "black.png"},
        "silent-media": {"audio": "silent.wav"},
        "short-media": {"audio": "short.wav"},
        "maybe-long-media": {"audio": "long.wav"},
    }
    records = [record(n, **what) for n, what in enumerate(shown.values())]
    records.append(record(20, image="0.png", split="test"))
    records.append(record(21, image="1.png"))
    records.append(record(21, image="1.png", answer="quite another answer to this"))
    (folder / "media.json").write_text(json.dumps(records))
    places = {code: n + 1 for n, code in enumerate(shown) if code}
    return folder / "media.json", places | {"overlap": 1, "other-answer": 10}


def check(path: Path, **rest: Any) -> Validation:
    return validate(DataPlace.of(path), Checks(**{"max_seconds": 2.0, **rest}))


def found(checked: Validation) -> dict[str, list[int]]:
    places: dict[str, list[int]] = {}
    for one in checked.findings.problems:
        places.setdefault(one.reason, []).append(one.record)
    return places


def test_every_fault_of_text_is_found_where_it_is(texts: tuple[Path, dict[str, int]]) -> None:
    path, places = texts
    checked = check(path)
    assert found(checked) == {code: [number] for code, number in places.items()}
    for one in checked.findings.problems:
        assert one.what.startswith(f"{path}: record {one.record}: "), one
    fields = {one.reason: one.field for one in checked.findings.problems}
    assert fields["empty-answer"] == fields["control-token"] == "answer"
    assert fields["unknown-key"] == "anwser"
    assert fields["role-order"] == "message 2"


def test_every_fault_of_media_is_found_where_it_is(media: tuple[Path, dict[str, int]]) -> None:
    path, places = media
    checked = check(path)
    assert found(checked) == {code: [number] for code, number in places.items()}
    assert {one.field for one in checked.findings.errors if "media" in one.reason} == {
        "image",
        "audio",
    }


def test_more_faults_than_an_error_would_tell_are_all_found(tmp_path: Path) -> None:
    path = tmp_path / "many.jsonl"
    path.write_text("\n".join(json.dumps(record(n, answer="")) for n in range(1500)))
    assert found(check(path)) == {"empty-answer": list(range(1, 1501))}


def test_each_record_that_shows_a_broken_medium_is_told_of(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    path.write_text("\n".join(json.dumps(record(n, image="gone.png")) for n in range(3)))
    assert found(check(path)) == {"missing-media": [1, 2, 3]}


def test_a_broken_line_costs_no_other(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps(record(3)))
    lines = [json.dumps(record(0)), json.dumps(record(1))[:9], json.dumps(record(4))]
    (tmp_path / "b.jsonl").write_text("\n".join(lines))
    (tmp_path / "c.jsonl").write_text(json.dumps(record(2, answer="")))
    checked = check(tmp_path)
    told = [(one.reason, Path(one.file).name) for one in checked.findings.errors]
    assert told == [("broken-line", "b.jsonl"), ("empty-answer", "c.jsonl")]
    assert checked.findings.records == {tmp_path.name: 4}


def test_a_broken_file_ends_there_and_others_go_on(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps([record(3)]))
    (tmp_path / "b.json").write_text(json.dumps([record(0), record(1)])[:-9])
    (tmp_path / "c.json").write_text(json.dumps([record(2, answer="")]))
    checked = check(tmp_path)
    told = [(one.reason, Path(one.file).name) for one in checked.findings.errors]
    assert told == [("broken-file", "b.json"), ("empty-answer", "c.json")]
    assert checked.findings.records == {tmp_path.name: 3}


def test_a_source_that_is_missing_does_not_hide_the_others(tmp_path: Path) -> None:
    path = tmp_path / "there.jsonl"
    path.write_text(json.dumps(record(0)) + "\n" + json.dumps(record(1, answer="")))
    own = {name: Source(name, path=str(tmp_path / f"{name}.jsonl")) for name in ("gone", "there")}
    checked = validate(DataPlace(None, own), Checks())
    told = [(one.source, one.reason) for one in checked.findings.problems]
    assert told == [("gone", "missing-file"), ("there", "empty-answer")]


def test_a_rate_that_is_not_the_manifests_is_found(tmp_path: Path) -> None:
    write_wave(tmp_path / "a.wav", rate=8000, seed=1)
    write_wave(tmp_path / "b.wav", rate=16_000, seed=2)
    lines = [{"file": f"{n}.wav", "said": f"as {n} says it", "sampling_rate": 16_000} for n in "ab"]
    (tmp_path / "manifest.jsonl").write_text("\n".join(map(json.dumps, lines)))
    columns = (("audio", "file"), ("answer", "said"))
    source = Source("clips", path=str(tmp_path / "manifest.jsonl"), columns=columns)
    assert found(validate(DataPlace(None, {"clips": source}), Checks()))["wrong-rate"] == [1]


def test_a_source_of_one_answer_is_told_of(tmp_path: Path) -> None:
    path = tmp_path / "constant.jsonl"
    path.write_text("\n".join(json.dumps(record(n, answer="0")) for n in range(30)))
    checked = check(path)
    assert found(checked) == {"one-answer": [0]}
    assert not checked.findings.errors


def test_what_is_ignored_is_not_told(texts: tuple[Path, dict[str, int]]) -> None:
    path, places = texts
    checked = check(path, ignored=frozenset({"unfilled", "duplicate"}))
    assert found(checked).keys() == places.keys() - {"unfilled", "duplicate"}


def test_threads_find_what_one_finds(media: tuple[Path, dict[str, int]]) -> None:
    path, _ = media
    one, several = (check(path, workers=n).findings for n in (1, 7))
    assert one.as_json() == several.as_json()


def test_interrupted_is_as_uninterrupted(
    media: tuple[Path, dict[str, int]], monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    path, _ = media
    monkeypatch.setattr("omnitune.storage.SETTLED", -1e9)  # the files are old enough
    whole = check(path).findings.as_json()
    shutil.rmtree(cache)
    seen: list[Path] = []
    original = AudioMedium.fingerprint

    def stopping(self: AudioMedium, file: Path) -> Any:
        if len(seen) == 1:
            raise KeyboardInterrupt
        seen.append(file)
        return original(self, file)

    monkeypatch.setattr(AudioMedium, "fingerprint", stopping)
    with pytest.raises(KeyboardInterrupt):
        check(path, workers=1)
    assert len(seen) == 1

    def noting(self: AudioMedium, file: Path) -> Any:
        assert file not in seen
        return original(self, file)

    monkeypatch.setattr(AudioMedium, "fingerprint", noting)
    assert check(path, workers=1).findings.as_json() == whole


def test_a_medium_that_changes_is_looked_at_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("omnitune.storage.SETTLED", -1e9)
    medium = Media("image", picture(tmp_path / "a.png", 0))
    (black,) = Looker("key")([medium])
    os.utime(picture(tmp_path / "a.png", 200), (1e9, 1e9))  # a clock may stand still meanwhile
    (grey,) = Looker("key")([medium])
    assert black != grey
    (again,) = Looker("key")([medium])
    assert again == grey


@pytest.mark.parametrize("kind", ["texts", "media"])
def test_a_cleaned_copy_is_clean_and_the_original_as_it_was(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    path, _ = request.getfixturevalue(kind)
    before = path.read_bytes()
    checked = check(path)
    out = tmp_path / "clean"
    counts = write_clean(checked, Checks(max_seconds=2.0), out)
    name = next(iter(checked.findings.records))
    wrong = {one.record for one in checked.findings.errors}
    total = checked.findings.records[name]
    assert counts == {"kept": {name: total - len(wrong)}, "left_out": {name: len(wrong)}}
    assert path.read_bytes() == before
    copy = given_data(out)
    again = validate(copy.data, Checks(max_seconds=2.0), copy.sources)
    assert not again.findings.errors
    assert again.findings.records == {name: total - len(wrong)}
    splits = {sample.id: sample.split for sample in again.checked[0].held or ()}
    originals = {sample.id: sample.split for sample in checked.checked[0].held or ()}
    assert splits.items() <= originals.items()


def test_the_embedded_layout_and_the_copy_of_it(tmp_path: Path) -> None:
    data = tmp_path / "data"
    write_source(data, "image_text", [record(n, image=f"{n}.png") for n in range(3)])
    for n in range(2):
        write_image(data / "images" / f"{n}.png", seed=n)
    write_source(data, "text_only", [record(9), record(9)])
    checked = check(data)
    assert found(checked) == {"missing-media": [3], "duplicate": [2]}
    counts = write_clean(checked, Checks(), tmp_path / "clean")
    assert counts["kept"] == {"text_only": 1, "image_text": 2}
    copy = given_data(tmp_path / "clean")
    assert set(copy.sources or ()) == {"clean_text_only", "clean_image_text"}
    assert not validate(copy.data, Checks(), copy.sources).findings.problems


def test_what_a_model_would_not_be_shown(
    media: tuple[Path, dict[str, int]], tmp_path: Path
) -> None:
    path, _ = media
    reading = ReadLimits(
        ChatRenderer(tiny_tokenizer()),
        {name: build_encoder(name, config) for name, config in ENCODERS.items()},
        max_tokens=40,
    )
    longest = record(40, answer="and so on " * 20)
    records = [*json.loads(path.read_text()), longest]
    path.write_text(json.dumps(records))
    checked = check(path, reading=reading)
    over = [one for one in checked.findings.problems if one.reason == "over-context"]
    assert len(records) in [one.record for one in over]
    assert all(one.tokens > 40 for one in over)
    assert "maybe-long-media" not in found(checked)


@pytest.fixture
def run_command(
    capsys: pytest.CaptureFixture[str],
) -> Callable[..., tuple[int, str]]:
    def run(*words: object) -> tuple[int, str]:
        status = main(["validate", *map(str, words)])
        told = capsys.readouterr()
        return status, told.out + (told.err if status == 2 else "")

    return run


def test_the_command(texts: tuple[Path, dict[str, int]], tmp_path: Path, run_command: Any) -> None:
    path, places = texts
    status, told = run_command(path, "--json", tmp_path / "all.json", "--fix", tmp_path / "out")
    assert status == 1
    written = json.loads((tmp_path / "all.json").read_text())
    assert {one["reason"] for one in written["findings"]} == places.keys()
    assert written["counts"]["texts"] == dict.fromkeys(sorted(places), 1)
    assert written["errors"] + written["remarks"] == len(places)
    for code in places:
        assert f"  {code}" in told
    assert f"{written['fixed']['left_out']['texts']:,} left out" in told
    status, told = run_command(tmp_path / "out")
    assert (status, "0 errors" in told) == (0, True)
    assert run_command(tmp_path / "out", "--strict")[0] == 1
    status, told = run_command(tmp_path / "out" / SETTINGS_FILE, "--ignore", "other-script")
    assert (status, "clean" in told) == (0, True)
    status, told = run_command(path, "--fix", tmp_path / "out")
    assert (status, "is there already" in told) == (2, True)


def test_a_copy_among_the_datas_own_files_is_refused(
    texts: tuple[Path, dict[str, int]], run_command: Any
) -> None:
    path, _ = texts
    status, told = run_command(path.parent, "--fix", path.parent / "clean")
    assert (status, "outside of it" in told) == (2, True)


def test_a_model_from_its_folder(
    texts: tuple[Path, dict[str, int]], tmp_path: Path, run_command: Any
) -> None:
    path, _ = texts
    renderer = ChatRenderer(tiny_tokenizer())
    save_omni(tmp_path / "model" / "omni.pt", tiny_model(), renderer, step=1)
    status, told = run_command(path, "--ckpt_dir", tmp_path / "model", "--max-tokens", 16)
    assert (status, "over-context" in told, "tokens lost" in told) == (1, True, True)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("<s>[INST] hello [/INST]</s>", True),
        ("an end </s>", True),
        ("old <s>price</s> new price", False),
        ("a <b>bold</b> word, a | b, {x} and {{}", False),
        ("call {{ user.name }} now", True),
        ("{{}}", True),
    ],
)
def test_what_a_text_should_not_hold(text: str, found: bool) -> None:
    sample = conversation("x", "what?", text)
    assert bool(list(TextChecks()(sample))) == found


@pytest.mark.parametrize(
    ("language", "text", "reason"),
    [
        ("hi", "this is written in English", "other-script"),
        ("hi-Latn", "yah hindi mein likha hai", ""),
        ("hi", "यह हिन्दी में लिखा है", ""),
        ("hi", "यह mixed with some English words", ""),
        ("en", "это написано по-русски", "wrong-language"),
        ("ja", "これはひらがなです、カタカナ", ""),
        ("zh", "这是用中文写的一个句子吧", ""),
        ("de", "12345 67890 12345", ""),
        ("xx", "это написано по-русски", ""),
        ("ru", "да", ""),
    ],
)
def test_only_certain_mismatches_of_language_are_told(
    language: str, text: str, reason: str
) -> None:
    sample = conversation("x", "what?", text, language=language)
    assert [code for _, code, _ in TextChecks()(sample)] == [reason] * bool(reason)


def test_every_code_has_a_kind() -> None:
    assert Problem("s", "one-answer", "").is_remark
    assert not Problem("s", "duplicate", "").is_remark
    with pytest.raises(UserError):
        validate(DataPlace.of(Path("no/such/folder")), Checks())
    assert MEDIA


def test_a_file_that_cannot_be_read_has_a_code_of_files(tmp_path: Path) -> None:
    contents = {
        "empty.json": b"",
        "blank.json": b" \n",
        "empty.jsonl": b"",
        "none.json": b"[]",
        "object.json": b'{"a": 1}',
        "cut.parquet": b"PAR1 and no more",
        "cut.jsonl.gz": b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03",
        "text.txt": b"hello",
    }
    codes = {"broken-file", "no-records", "unknown-format"}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        [problem] = check(tmp_path / name).findings.problems
        assert problem.reason in codes, (name, problem)
        assert "Expecting value" not in problem.what


def test_records_of_an_overlap_are_named_alike(tmp_path: Path) -> None:
    records = [record(0), record(1), {**record(1), "id": "other", "split": "test"}]
    path = tmp_path / "a.json"
    path.write_text(json.dumps(records))
    told = [one.what for one in check(path).findings.problems if one.reason == "overlap"]
    assert told
    assert all("record 2" in what and "record 3" in what for what in told)


def test_what_a_source_is_read_as_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    parts = [{"type": "text", "text": "so?"}, {"type": "image_url", "image_url": {"url": "a.png"}}]
    turns = [{"role": "user", "content": parts}, {"role": "assistant", "content": "yes"}]
    path.write_text(json.dumps([{"messages": turns}]))
    findings = check(path).findings
    assert findings.as_json()["formats"] == {"a": "OpenAI messages (1 file, json)"}
    assert "a: 1 record, OpenAI messages (1 file, json)" in findings.lines()


ASKED: dict[str, list[dict[str, Any]]] = {
    "ours": [{"question": "1?"}, {"question": "2?"}],
    "a row": [{"image": "a.png", "question": "1?"}],
    "messages": [{"messages": [{"role": "user", "content": "1?"}]}],
    "choices": [{"question": "1?", "choices": ["x", "y"]}] * 2,
}


@pytest.mark.parametrize("name", ASKED)
def test_questions_alone_are_a_remark(tmp_path: Path, name: str) -> None:
    """What `omnitune answer` takes is no error; its copy holds no answer either."""
    write_image(tmp_path / "a.png", 16, seed=0)
    path = tmp_path / "ask.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in ASKED[name]))
    found = check(path)
    assert [one.reason for one in found.findings.problems] == ["questions-only"]
    assert "can be answered" in found.findings.problems[0].what
    write_clean(found, Checks(), tmp_path / "clean")
    copy = (tmp_path / "clean" / "ask.jsonl").read_text()
    assert copy.count("\n") == len(ASKED[name])
    assert "answer" not in copy
    assert main(["validate", str(path)]) == 0
    assert main(["validate", str(path), "--strict"]) == 1
    config = tmp_path / "run.json"
    config.write_text(json.dumps({"sources": {"ask": {"path": str(path)}}}))
    assert main(["validate", str(config)]) == 1  # it is there to be trained


def test_some_answers_that_are_missing_stay_errors(tmp_path: Path) -> None:
    path = tmp_path / "some.jsonl"
    path.write_text(json.dumps(record(1)) + "\n" + json.dumps({"question": "?"}) + "\n")
    [one] = check(path).findings.errors
    assert one.record == 2
