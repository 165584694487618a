"""Conversion: the same samples come back, media are found, and nothing is lost in silence."""

import base64
import csv
import json
from pathlib import Path
from typing import Any

import pytest
from helpers import write_image, write_source, write_wave

from omnitune.cli import main
from omnitune.data.convert import NativeReader
from omnitune.data.converted_media import ConvertedMedia, suffix_of
from omnitune.data.reading import DataPlace, read_available
from omnitune.data.sources.base import Dialect, Values
from omnitune.data.sources.registry import DIALECTS
from omnitune.media.registry import MEDIA
from omnitune.sample import Media, Sample, Text, UserError
from omnitune.sources import Source


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A picture with questions, a sound, text; every form of a record, and every split."""
    data = tmp_path / "data"
    for folder in ("images", "audio"):
        (data / folder).mkdir(parents=True)
    for n in range(3):
        write_image(data / "images" / f"{n}.png", 16, seed=n)
    write_wave(data / "audio" / "a.wav")
    qa = [{"question": "how many <image>?", "answer": "2"}, {"question": "what?", "answer": "a"}]
    parts = [{"type": "image", "path": "0.png", "caption": "dots"}, {"type": "text", "text": "so?"}]
    talk = [{"role": "user", "content": parts}, {"role": "assistant", "content": "yes"}]
    images: list[dict[str, Any]] = [
        {"id": "both", "image": ["0.png", "1.png"], "qa": qa, "meta": {"by": "me"}},
        {"id": "talk", "messages": talk, "split": "train", "difficulty": 0.5},
        {
            "id": "one",
            "image": "2.png",
            "question": "<image> red?",
            "answer": "no",
            "split": "test",
        },
    ]
    sound = {"id": "s", "audio": "a.wav", "question": "say it", "answer": "hm", "split": "train"}
    told = [("system", "be brief"), ("user", "hi"), ("assistant", "ho")]
    text = {"id": "t", "messages": [{"role": r, "content": c} for r, c in told], "split": "train"}
    write_source(data, "image_text", images)
    write_source(data, "audio_text", [sound | {"task": "transcription", "language": "de"}])
    write_source(data, "text_only", [text])
    return data


def samples_of(path: Path | DataPlace) -> dict[str, Sample]:
    return {s.id: s for held in read_available(path).values() for s in held}


def outside(path: Path) -> DataPlace:
    """A file whose paths may lead anywhere."""
    return DataPlace(None, {"back": Source("back", path=str(path), allow_outside=True)})


def content(sample: Sample) -> list[Any]:
    """What a model is shown: roles, texts, and media by what is in them."""
    return [
        (
            message.role,
            message.task,
            [
                part.text if isinstance(part, Text) else fingerprint(part)
                for part in message.parts
                if isinstance(part, Text | Media)
            ],
        )
        for form in sample.split_turns()
        for message in form.messages
    ]


def fingerprint(medium: Media) -> tuple[str, int, str]:
    found = MEDIA[medium.modality].fingerprint(medium.path)
    return medium.modality, found.content, medium.caption


def same(before: Sample, after: Sample) -> bool:
    kept = [(s.split, s.language, s.difficulty, s.task) for s in (before, after)]
    return kept[0] == kept[1] and content(before) == content(after)


@pytest.mark.parametrize("container", ["json", "jsonl"])
@pytest.mark.parametrize("copy", [False, True])
def test_our_own_records_come_back(data: Path, tmp_path: Path, container: str, copy: bool) -> None:
    out = tmp_path / "elsewhere" / f"all.{container}"
    assert main(["convert", str(data), str(out), "--to", "native"] + ["--copy-media"] * copy) == 0
    before, after = samples_of(data), samples_of(out if copy else outside(out))
    assert before.keys() == after.keys()
    assert all(same(before[name], after[name]) for name in before)
    assert out.with_name("all_media").is_dir() == copy


def test_media_below_the_new_file_are_named_from_there(data: Path) -> None:
    assert main(["convert", str(data), str(data / "all.json"), "--to", "native"]) == 0
    before, after = samples_of(data), samples_of(data / "all.json")
    assert all(same(before[name], after[name]) for name in before)
    assert "images/0.png" in (data / "all.json").read_text()


def test_several_sources_go_into_a_folder_of_files(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main(["convert", str(data), str(out), "--to", "native", "--split", "train"]) == 0
    assert {path.name for path in out.iterdir()} == {f"{n}.json" for n in read_available(data)}
    [record] = json.loads((out / "text_only.json").read_text())
    assert record["split"] == "train"
    # Sources that have nothing of a split are passed over.
    assert (
        main(["convert", str(data), str(tmp_path / "t"), "--to", "native", "--split", "test"]) == 0
    )
    assert [path.name for path in (tmp_path / "t").iterdir()] == ["image_text.json"]


def test_no_file_is_replaced_unasked(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.json"
    out.write_text("mine")
    command = ["convert", str(data), str(out), "--to", "native"]
    assert main(command) == 2
    assert "is there already" in capsys.readouterr().err
    assert out.read_text() == "mine"
    assert main([*command, "--overwrite"]) == 0
    assert len(json.loads(out.read_text())) == len(samples_of(data))
    file = str(data / "text" / "conversations.json")
    assert main(["convert", file, file, "--to", "native", "--overwrite"]) == 2
    assert "is a file that is read" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["llava", "openai"])
def test_independent_questions_become_records(
    data: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where a format has none: the samples that training and scores make are the same."""
    out = tmp_path / "out.jsonl"
    assert main(["convert", str(data / "images"), str(out), "--to", name, "--strict"]) == 0
    assert "1 record with independent questions" in capsys.readouterr().out
    place = DataPlace(None, {"back": Source("back", path=str(out), format=name)})
    before = singles_of(data / "images")
    assert [shown(one) for one in singles_of(place)] == [shown(one) for one in before]
    assert len(before) == 4


class Plain(Dialect):
    """A dialect that says one question, and no task."""

    name, title = "plain_test", "plain test records"

    def recognises(self, records: Any, file: Path) -> bool:
        return False

    def native(self, record: Values, origin: Any) -> Values:
        media = {name: record[name] for name in MEDIA if name in record}
        return {"question": record["q"], "answer": record["a"], **media}

    def foreign(self, record: Any) -> Values:
        if "question" not in record:
            raise UserError("plain records hold one question")
        media = {name: record[name] for name in MEDIA if name in record}
        return {"q": record["question"], "a": record["answer"], **media}


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setitem(DIALECTS, Plain.name, Plain())
    return Plain.name


def test_what_a_format_cannot_say_is_named(
    data: Path, tmp_path: Path, plain: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "out.jsonl"
    command = ["convert", str(data), str(out), "--to", plain, "--copy-media"]
    assert main(command) == 0
    told = capsys.readouterr().out
    assert "2 records as plain test records" in told
    assert 'left out: 3 records: plain records hold one question ("t", "both", "talk")' in told
    assert "does not say: task (1 record), language (1 record)" in told
    assert "names no split" in told
    # Media of records that are left out are not copied.
    assert {p.name for p in out.with_name("out_media").iterdir()} == {"2.png", "a.wav"}
    assert main([*command, "--overwrite", "--strict"]) == 1
    back = ["convert", str(out), str(tmp_path / "b.json"), "--to", "native"]
    assert main([*back, "--from", plain]) == 0
    assert [r["question"] for r in json.loads((tmp_path / "b.json").read_text())] == [
        "<image> red?",
        "say it",
    ]


def test_what_is_read_back_otherwise_is_named(
    data: Path,
    tmp_path: Path,
    plain: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A format may say a record in a way that is another sample: its reader is asked."""
    monkeypatch.setattr(Plain, "foreign", lambda self, record: {"q": "?", "a": record["answer"]})
    file = write_source(data, "text_only", [{"id": "x", "question": "how?", "answer": "so"}])
    command = ["convert", str(file), str(tmp_path / "out.json"), "--to", plain]
    assert main(command) == 0
    assert 'read back otherwise: 1 record: other questions ("x")' in capsys.readouterr().out
    assert main([*command, "--strict", "--overwrite"]) == 1


def test_nothing_is_written_where_nothing_can_be_said(
    data: Path, tmp_path: Path, plain: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.json"
    command = ["convert", str(data / "text" / "conversations.json"), str(out), "--to", plain]
    assert main(command) == 2
    assert "record t: plain records hold one question" in capsys.readouterr().err
    assert not list(tmp_path.glob("out*"))


def test_sources_that_a_format_cannot_say_are_passed_over(
    data: Path, tmp_path: Path, plain: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    command = ["convert", str(data), str(out), "--to", plain]
    assert main(command) == 0
    assert "text_only.json: not written" in capsys.readouterr().out
    assert sorted(p.name for p in out.iterdir()) == ["audio_text.json", "image_text.json"]
    assert main([*command, "--overwrite", "--strict"]) == 1
    (out / "image_text.json").unlink()
    assert main(command) == 2  # before anything is written
    assert not (out / "image_text.json").exists()


def test_flat_records_become_tables(data: Path, tmp_path: Path, plain: str) -> None:
    command = ["convert", str(data), "--to", plain]
    assert main([*command, str(tmp_path / "out.csv")]) == 0
    with (tmp_path / "out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["q"], row["a"]) for row in rows] == [("<image> red?", "no"), ("say it", "hm")]
    parquet = pytest.importorskip("pyarrow.parquet")
    assert main([*command, str(tmp_path / "out.parquet")]) == 0
    assert parquet.read_table(tmp_path / "out.parquet").to_pylist() == [
        {key: value or None for key, value in row.items()} for row in rows
    ]


def test_nested_records_are_none_of_csv(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "out.csv")
    assert main(["convert", str(data), out, "--to", "native"]) == 0
    assert "a field of CSV holds one text" in capsys.readouterr().out


def test_media_inside_a_record_are_written_as_files(tmp_path: Path) -> None:
    picture = write_image(tmp_path / "p.png")
    stored = "data:image/png;base64," + base64.b64encode(picture.read_bytes()).decode()
    records = [
        {"id": f"r/{n}", "image": "::/_stored", "_stored": stored, "question": "?", "answer": "a"}
        for n in range(2)
    ]
    source = tmp_path / "in.jsonl"
    source.write_text("".join(json.dumps(r) + "\n" for r in records))
    out = tmp_path / "out" / "new.json"
    assert main(["convert", str(source), str(out), "--to", "native"]) == 0
    before, after = samples_of(source), samples_of(out)
    assert all(same(before[name], after[name]) for name in before)
    assert {p.name for p in (out.parent / "new_media").iterdir()} == {"r-0.png", "r-1.png"}


def test_copies_of_one_name_are_kept_apart(tmp_path: Path) -> None:
    paths = []
    for n in range(2):
        (tmp_path / str(n)).mkdir()
        paths.append(write_image(tmp_path / str(n) / "same.png", seed=n))
    moved = ConvertedMedia(tmp_path / "out", tmp_path / "out" / "media", copy=True)
    names = [moved.path_of(Media("image", path), "x") for path in (*paths, paths[0])]
    assert names == ["media/same.png", "media/same-2.png", "media/same.png"]
    moved.keep()
    assert [(tmp_path / "out" / n).read_bytes() for n in names[:2]] == [
        path.read_bytes() for path in paths
    ]
    again = ConvertedMedia(tmp_path / "out", tmp_path / "out" / "media", copy=True)
    assert again.path_of(Media("image", paths[1]), "x") == "media/same-2.png"
    again.keep()
    assert not again.written


def test_a_stretch_of_a_sound_stays_one(tmp_path: Path) -> None:
    wave = write_wave(tmp_path / "a.wav")
    moved = ConvertedMedia(tmp_path / "out", tmp_path / "out" / "media", copy=True)
    assert moved.path_of(Media("audio", Path(f"{wave}::t=0.1,0.3")), "x") == (
        "media/a.wav::t=0.1,0.3"
    )
    beside = ConvertedMedia(tmp_path, tmp_path / "media")
    assert beside.path_of(Media("audio", Path(f"{wave}::t=0.1,0.3")), "x") == "a.wav::t=0.1,0.3"


@pytest.mark.parametrize("name", sorted(DIALECTS))
def test_every_format_comes_back(data: Path, tmp_path: Path, name: str) -> None:
    """What a format can say is read back as it was; what it cannot is left out."""
    out = tmp_path / "out.jsonl"
    if main(["convert", str(data), str(out), "--to", name, "--copy-media"]) == 2:
        assert not out.exists()
        pytest.skip(f"{name} cannot be written, or says none of these records")
    before = [shown(single) for single in singles_of(data)]
    place = DataPlace(None, {"back": Source("back", path=str(out), format=name)})
    after = [shown(single) for single in singles_of(place)]
    assert after
    assert all(one in before for one in after)


def singles_of(path: Path | DataPlace) -> list[Sample]:
    """What training and scores make of data."""
    return [single for sample in samples_of(path).values() for single in sample.split_turns()]


def shown(sample: Sample) -> list[Any]:
    """Roles, texts and media, without what other formats have not: captions, tasks."""
    return [
        (role, [part[:2] if isinstance(part, tuple) else part.strip() for part in parts])
        for role, _, parts in content(sample)
    ]


def test_mistakes(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def error(*words: str) -> str:
        assert main(["convert", *words]) == 2
        return capsys.readouterr().err

    out = str(tmp_path / "out.json")
    assert "--to natve: is no known format (did you mean native?)" in error(
        str(data), out, "--to", "natve"
    )
    assert "has no such split; it has" in error(str(data), out, "--to", "native", "--split", "no")
    assert "suffix .txt" in error(str(data), str(tmp_path / "o.txt"), "--to", "native")
    assert error(str(data), "--to", "native").startswith("error: ")
    assert "no such" in error(str(tmp_path / "none"), out, "--to", "native")


def test_suffixes_of_contents(tmp_path: Path) -> None:
    for name in ("a.png", "a.jpg", "a.gif", "a.bmp", "a.webp", "a.tiff"):
        assert suffix_of(write_image(tmp_path / name).read_bytes()) == Path(name).suffix
    for name in ("a.wav", "a.flac", "a.ogg"):
        assert suffix_of(write_wave(tmp_path / name).read_bytes()) == Path(name).suffix
    assert suffix_of(b"words") == ""


def test_keys_that_nothing_reads_are_left_behind(data: Path) -> None:
    held = read_available(data)["image_text"]
    [(source, _)] = held.pieces
    reader = NativeReader(source, None)
    values = reader.native(0, ConvertedMedia(data, data / "media"))
    assert values["meta"] == {"by": "me"}
    assert values["image"] == ["images/0.png", "images/1.png"]


def test_further_right_answers_that_stay_behind_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = {"question": "which?", "answers": ["red", "red", "dark"], "task": "vqa"}
    (tmp_path / "a.json").write_text(json.dumps([asked, {"question": "so?", "answer": "b"}]))
    assert (
        main(["convert", str(tmp_path / "a.json"), str(tmp_path / "b.json"), "--to", "openai"]) == 0
    )
    assert "openai does not say: answers (1 record)" in capsys.readouterr().out
    assert (
        main(["convert", str(tmp_path / "a.json"), str(tmp_path / "c.json"), "--to", "native"]) == 0
    )
    assert "does not say" not in capsys.readouterr().out


@pytest.mark.parametrize("to", ["native", "llava", "sharegpt", "alpaca", "openai", "trl", "swift"])
def test_tags_amid_the_words_of_independent_questions_stay_there(tmp_path: Path, to: str) -> None:
    data = tmp_path / "data"
    (data / "images").mkdir(parents=True)
    write_image(data / "images" / "0.png", 16, seed=0)
    qa = [{"question": f"is <image> {word}?", "answer": "no"} for word in ("red", "blue")]
    write_source(data, "image_text", [{"id": "a", "image": "0.png", "qa": qa, "split": "train"}])
    out = data / f"{to}.{'jsonl' if to in ('openai', 'trl', 'swift') else 'json'}"
    assert main(["convert", str(data), str(out), "--to", to, "--strict"]) == 0
    found = [form for s in samples_of(out).values() for form in s.split_turns()]
    shown = [
        [p.text.strip() if isinstance(p, Text) else "" for p in form.messages[0].parts]
        for form in found
    ]
    assert shown == [["is", "", "red?"], ["is", "", "blue?"]]


def test_a_copy_of_a_vqa_pair_is_whole_wherever_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pictures that were moved after a first look, and the copy itself."""
    monkeypatch.setenv("OMNITUNE_CACHE", str(tmp_path / "cache"))
    data, out = tmp_path / "data", tmp_path / "new" / "copy.json"
    old, new = data / "images", data / "val2014"
    old.mkdir(parents=True)
    asked = [{"image_id": n, "question": "what?", "question_id": n} for n in (1, 2)]
    told = [{"question_id": n, "answers": [{"answer": "yes"}]} for n in (1, 2)]
    head = {"data_subtype": "val2014"}
    path = data / "v2_OpenEnded_mscoco_val2014_questions.json"
    path.write_text(json.dumps({**head, "questions": asked}))
    notes = data / "v2_mscoco_val2014_annotations.json"
    notes.write_text(json.dumps({**head, "annotations": told}))
    for n in (1, 2):
        write_image(old / f"COCO_val2014_{n:012d}.png", 16, seed=n).rename(
            old / f"COCO_val2014_{n:012d}.jpg"
        )
    assert len(samples_of(data)) == 2  # what is joined lies in the cache now
    old.rename(new)
    out.parent.mkdir()
    command = ["convert", str(data), str(out), "--to", "native", "--copy-media", "--strict"]
    assert main(command) == 0
    moved = out.parent.rename(tmp_path / "elsewhere")
    data.rename(tmp_path / "gone")
    found = samples_of(moved / out.name).values()
    assert [Path(m.path).is_file() for sample in found for m in sample.media] == [True, True]
