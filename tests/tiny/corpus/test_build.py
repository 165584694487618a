"""The files of a corpus: format, media, splits, repeatability, and what is refused."""

import hashlib
import json
import re
import shutil
import signal
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from omnitune.tiny.corpus import build as corpus
from omnitune.tiny.corpus.basics import partition
from omnitune.tiny.corpus.build import FILES, MARKER, SUMMARY, CorpusError, build_corpus
from omnitune.tiny.corpus.records import handwriting
from omnitune.tiny.corpus.scenes import HELD_OUT
from omnitune.tiny.corpus.speech import TEST_VOICES, TRAIN_VOICES, accent_group

SEED, SCALE = 3, 0.01
Records = dict[str, list[dict[str, Any]]]
FOLDERS = {
    **{"images": "images", "captions": "images", "sheets": "images"},
    **{"audio": "audio", "transcripts": "audio"},
}


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from texts(part)
    elif isinstance(value, list):
        for part in value:
            yield from texts(part)


def by_split(rows: list[dict[str, Any]], key: str) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for row in rows:
        found.setdefault(row["split"], set()).add(str(row[key]))
    return found


def pictured(records: Records) -> list[dict[str, Any]]:
    return records["images"] + records["captions"]


def voiced(records: Records) -> list[dict[str, Any]]:
    return records["audio"] + records["transcripts"]


def assert_disjoint(groups: dict[str, set[Any]]) -> None:
    names = sorted(groups)
    for index, first in enumerate(names):
        for second in names[index + 1 :]:
            assert not groups[first] & groups[second], (first, second)


def test_every_file_has_its_splits_and_unique_ids(records: Records) -> None:
    expected = {
        "text": {"train", "validation", "test"},
        "told": {"train"},
        "images": {"train", "validation", "test", "test_composition"},
        "captions": {"train"},
        "transcripts": {"train"},
        "audio": {"train", "validation", "test", "test_voices"},
    }
    for name, splits in expected.items():
        assert {row["split"] for row in records[name]} == splits
    ids = [row["id"] for rows in records.values() for row in rows]
    assert len(ids) == len(set(ids))


def test_four_ninths_of_the_media_are_for_the_joint_fine_tuning(records: Records) -> None:
    """Of plain records and of pairs alike, and none is in both files."""
    for tuned, apart in (("images", "captions"), ("audio", "transcripts")):
        training = [row for row in records[tuned] if row["split"] == "train"]
        for pairs in (True, False):
            counts = [
                sum(({"image", "audio"} <= row.keys()) == pairs for row in rows)
                for rows in (training, records[apart])
            ]
            assert counts[0] / sum(counts) == pytest.approx(4 / 9, abs=0.1)


def test_conversations_have_the_agreed_format(records: Records) -> None:
    kinds = {"described_scene", "arithmetic", "repeat", "reading", "small_talk"}
    for split in ("train", "validation", "test"):
        assert {row["kind"] for row in records["text"] if row["split"] == split} == kinds
    for row in records["text"]:
        assert set(row) == {"id", "messages", "kind", "split"}
        roles = [message["role"] for message in row["messages"]]
        assert roles == ["user", "assistant"] * (len(roles) // 2)
        assert 2 <= len(roles) // 2 <= 5
        assert all(message["content"] for message in row["messages"])


def statements_about(row: dict[str, Any]) -> int:
    """How many statements training reads about a picture."""
    return 1 if row["caption"].startswith("the digit") else 4


def test_pictures_are_told_in_training_alone(records: Records) -> None:
    assert len(records["told"]) >= 10
    for row in records["told"]:
        assert set(row) == {"id", "caption", "qa", "split"}
        assert row["split"] == "train"
        statements = [pair for pair in row["qa"] if pair["kind"] == "statement"]
        assert len(statements) == statements_about(row)
        assert all(pair["question"].endswith(". is this true?") for pair in statements)
    # Digits and words are too few for splits of their own.
    scenes = [row for row in pictured(records) if not row["caption"].startswith("the ")]
    held_out = {row["caption"] for row in scenes if row["split"] != "train"}
    assert not held_out & {row["caption"] for row in records["told"]}


def test_image_records_have_the_agreed_format(records: Records) -> None:
    kinds: set[str] = set()
    for row in pictured(records):
        if "audio" in row:
            asked = pair_question(row)
            assert asked["kind"] == "spoken_question"
            assert asked["question"] == ""
            assert asked["answer"]
            assert row["transcript"]
        else:
            assert row["qa"][-1] == {
                "question": "describe the picture.",
                "answer": row["caption"],
                "kind": "caption",
            }
            asked = [qa for qa in row["qa"] if qa["kind"] != "statement"]  # of which some recur
            statements = statements_about(row) if row["split"] == "train" else 0
            assert len(row["qa"]) - len(asked) == statements
            assert len({qa["question"] for qa in asked}) == len(asked) >= 3
            kinds |= {qa["kind"] for qa in asked}
    scene_kinds = {"attribute", "count", "existence", "comparison", "spatial"}
    sums = {"digit_sum", "running_sum", "pair_sums"}
    assert kinds == scene_kinds | {"digits", "word", "caption"} | sums


def test_sheets_are_full_of_digits_and_for_training_alone(records: Records) -> None:
    assert records["sheets"]
    for row in records["sheets"]:
        assert row["split"] == "train"
        values = row["caption"].removeprefix("the digits ").split()
        # More than any question is about, so that no row of another split is among them.
        assert 4 <= len(values) <= 9
        assert len(row["digits"]) == len(values)
        targets = handwriting()[1]
        assert [str(targets[number]) for number in row["digits"]] == values
        (asked,) = row["qa"]
        assert asked["answer"] == row["caption"]


def pair_question(row: dict[str, Any]) -> dict[str, Any]:
    """What is asked of a picture with speech; in training a transcript is asked for too."""
    assert ("qa" in row) == (row["split"] == "train")
    if "qa" not in row:
        return row
    heard, asked = row["qa"]
    assert (heard["kind"], heard["answer"]) == ("transcript", row["transcript"])
    return asked


def test_audio_records_have_the_agreed_format(records: Records) -> None:
    plain = [row for row in voiced(records) if "image" not in row]
    trained = [row for row in plain if row["split"] == "train"]
    for row in trained:
        assert [qa["task"] for qa in row["qa"]] == ["transcription"] + ["qa"] * (len(row["qa"]) - 1)
        assert len({qa["question"] for qa in row["qa"]}) == len(row["qa"]) >= 2
    held_out = [row for row in plain if row["split"] != "train"]
    for row in [*held_out, *({**full, **qa} for full in trained for qa in full["qa"])]:
        if row["task"] == "transcription":
            assert row["kind"] == f"{accent_group(row['voice'])}_accent"
            assert row["answer"] == row["transcript"]
        else:
            assert row["task"] == "qa"
            assert row["kind"].startswith("audio_")
            assert f" {row['answer']} " in f" {row['transcript']} "
            assert 1 <= len(row["answer"].split()) <= 3
    asked = sum(row["task"] == "qa" for row in held_out) / len(held_out)
    assert 0.2 < asked <= 0.3
    statements = [pair_question(row) for row in voiced(records) if "image" in row]
    assert {row["answer"] for row in statements} == {"yes", "no"}
    assert {row["question"] for row in statements} == {"is this true?"}
    assert {row["kind"] for row in statements} == {"spoken_statement"}


def test_text_is_plain_lower_case_english(records: Records) -> None:
    for rows in records.values():
        for row in rows:
            fields = ("messages", "caption", "transcript", "question", "answer", "qa")
            for text in texts([row[field] for field in fields if field in row]):
                assert re.fullmatch(r"[a-z0-9 .,?:_]*", text), text
            if "transcript" in row:
                assert re.fullmatch(r"[a-z]+( [a-z]+)*", row["transcript"])


def test_media_stay_inside_and_have_the_agreed_form(corpus_dir: Path, records: Records) -> None:
    for name, folder in FOLDERS.items():
        for row in records[name]:
            root = (corpus_dir / folder).resolve()
            for medium in ("image", "audio"):
                if medium in row:
                    assert (root / row[medium]).resolve().is_relative_to(root)
            if "image" in row:
                with Image.open(root / row["image"]) as image:
                    assert (image.size, image.mode, image.format) == ((96, 96), "RGB", "PNG")
            if "audio" in row:
                with wave.open(str(root / row["audio"])) as sound:
                    form = (sound.getframerate(), sound.getnchannels(), sound.getsampwidth())
                    frames = np.frombuffer(sound.readframes(sound.getnframes()), dtype="<i2")
                assert form == (16_000, 1, 2)
                assert 1.1 <= len(frames) / 16_000 <= 3.7
                assert 0.2 < np.abs(frames.astype(int)).max() / 32768 < 1.0


def test_no_picture_is_in_two_splits(corpus_dir: Path, records: Records) -> None:
    files: dict[str, set[str]] = {}
    scenes: dict[str, set[str]] = {}
    for name, folder in FOLDERS.items():
        for row in records[name]:
            if "image" in row:
                digest = digests_of(corpus_dir / folder / row["image"])
                files.setdefault(row["split"], set()).add(digest)
                if not row["caption"].startswith(("the word", "the digit ")):
                    scenes.setdefault(row["split"], set()).add(row["caption"])
    assert_disjoint(files)
    assert_disjoint(scenes)


def digests_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_no_handwriting_is_in_two_splits(records: Records) -> None:
    shown: dict[str, set[int]] = {}
    for row in (*pictured(records), *records["sheets"], *voiced(records)):
        shown.setdefault(row["split"], set()).update(row.get("digits", []))
        if "digits" in row:
            assert len(row["digits"]) == len(row["caption"].split()) - 2
    assert all(shown[split] for split in ("train", "validation", "test"))
    assert_disjoint(shown)


def test_no_sentence_or_conversation_is_in_two_splits(records: Records) -> None:
    spoken = [row for row in voiced(records) if "image" not in row]
    sentences = by_split(spoken, "transcript")
    sentences["test"] |= sentences.pop("test_voices")  # the same sentences may be said anew
    for row in records["text"]:
        if row["kind"] == "repeat":
            answers = {message["content"] for message in row["messages"][1::2]}
            sentences[row["split"]] |= answers
    assert_disjoint(sentences)
    for split, group in sentences.items():
        assert {partition(sentence) for sentence in group} == {split}
    assert_disjoint(by_split(records["text"], "messages"))


def test_held_out_pairs_are_only_in_their_own_split(records: Records) -> None:
    pattern = re.compile("|".join(rf"\b{colour} {shape}" for colour, shape in HELD_OUT))
    assert len({part for pair in HELD_OUT for part in pair}) == 2 * len(HELD_OUT)
    composition = told = 0
    for name, rows in records.items():
        for row in rows:
            named = any(pattern.search(text) for text in texts(row))
            if row["split"] == "test_composition":
                composition += 1
                assert pattern.search(row["caption"])
            elif name in ("text", "told") and row["split"] == "train":
                told += named  # to be able to say what it has never seen
            else:
                assert not named, row
    assert composition >= 10
    assert told > 0


def test_test_voices_are_new(records: Records) -> None:
    spoken = [row for row in (*pictured(records), *voiced(records)) if "voice" in row]
    for row in spoken:
        allowed = TEST_VOICES if row["split"] == "test_voices" else TRAIN_VOICES
        assert row["voice"] in allowed


def test_the_number_of_workers_changes_no_byte(corpus_dir: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    summary = build_corpus(other, seed=SEED, scale=SCALE, workers=2)
    assert digests(other) == digests(corpus_dir)
    assert "skipped" not in summary
    assert not (other / MARKER).exists()


def test_worker_processes_leave_signals_to_the_command() -> None:
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # as the command does
    try:
        with corpus._workers(2) as pool:
            handlers = pool.map(signal.getsignal, [signal.SIGINT, signal.SIGTERM])
    finally:
        signal.signal(signal.SIGTERM, before)
    assert handlers == [signal.SIG_IGN, signal.SIG_DFL]


def test_another_seed_gives_another_corpus() -> None:
    assert corpus.make_plan(1, 0.002).text != corpus.make_plan(2, 0.002).text


def test_the_summary_describes_the_files(corpus_dir: Path, records: Records) -> None:
    summary = json.loads((corpus_dir / SUMMARY).read_text(encoding="utf-8"))
    assert (summary["seed"], summary["scale"], summary["complete"]) == (SEED, SCALE, True)
    for name, path in FILES.items():
        assert summary["sha256"][path] == digests_of(corpus_dir / path)
        assert sum(summary["counts"][path].values()) == len(records[name])
    assert 1.2 < summary["seconds_of_speech"] / count_wavs(corpus_dir) < 3.5


def count_wavs(folder: Path) -> int:
    return len(list(folder.rglob("*.wav")))


def test_a_finished_corpus_is_left_alone(corpus_dir: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in corpus_dir.rglob("*")}
    summary = build_corpus(corpus_dir, seed=SEED, scale=SCALE)
    assert summary["skipped"] is True
    assert {path: path.stat().st_mtime_ns for path in corpus_dir.rglob("*")} == before


def test_another_corpus_is_refused(corpus_dir: Path) -> None:
    with pytest.raises(CorpusError, match=r"seed 3.*seed 4.*--overwrite"):
        build_corpus(corpus_dir, seed=4, scale=SCALE)


def test_somebody_elses_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text").mkdir()
    foreign = tmp_path / "text" / "conversations.json"
    foreign.write_text("[]", encoding="utf-8")
    with pytest.raises(CorpusError, match=r"conversations\.json.*--data-dir"):
        build_corpus(tmp_path, seed=SEED, scale=SCALE)
    assert foreign.read_text(encoding="utf-8") == "[]"


@pytest.mark.parametrize("damage", ["records", "medium", "summary"])
def test_a_changed_corpus_is_refused(corpus_dir: Path, tmp_path: Path, damage: str) -> None:
    changed = tmp_path / "changed"
    shutil.copytree(corpus_dir, changed)
    if damage == "records":
        (changed / FILES["text"]).write_text("[]", encoding="utf-8")
    elif damage == "medium":
        next((changed / "audio" / "clips").iterdir()).unlink()
    else:
        (changed / SUMMARY).write_text("{}", encoding="utf-8")
    with pytest.raises(CorpusError, match=r"--overwrite"):
        build_corpus(changed, seed=SEED, scale=SCALE)


@pytest.fixture
def silent_media(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Replaces drawing and speaking, which these tests do not look at."""
    calls: list[int] = []

    def fake(data_dir: Path, plan: object, workers: object, progress: object) -> float:
        calls.append(1)
        return 1.0

    monkeypatch.setattr(corpus, "_make_media", fake)
    return calls


def test_an_interrupted_build_is_built_again(tmp_path: Path, silent_media: list[int]) -> None:
    build_corpus(tmp_path, seed=SEED, scale=0.001)
    (tmp_path / SUMMARY).unlink()
    (tmp_path / MARKER).write_text("", encoding="utf-8")
    summary = build_corpus(tmp_path, seed=SEED, scale=0.001)
    assert len(silent_media) == 2
    assert summary["complete"] is True


def test_an_interruption_leaves_no_finished_corpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*arguments: object) -> float:
        raise KeyboardInterrupt

    (tmp_path / SUMMARY).write_text("{}", encoding="utf-8")
    monkeypatch.setattr(corpus, "_make_media", interrupt)
    with pytest.raises(KeyboardInterrupt):
        build_corpus(tmp_path, seed=SEED, scale=0.001, overwrite=True)
    assert (tmp_path / MARKER).exists()
    assert not (tmp_path / SUMMARY).exists()


def test_overwriting_builds_over_other_files(tmp_path: Path, silent_media: list[int]) -> None:
    (tmp_path / "text").mkdir()
    (tmp_path / FILES["text"]).write_text("[]", encoding="utf-8")
    build_corpus(tmp_path, seed=SEED, scale=0.001, overwrite=True)
    assert len(json.loads((tmp_path / FILES["text"]).read_text(encoding="utf-8"))) == 30


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_a_senseless_scale_is_refused(tmp_path: Path, scale: float) -> None:
    with pytest.raises(ValueError, match="scale"):
        build_corpus(tmp_path, scale=scale)
