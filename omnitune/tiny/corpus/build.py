"""Building the corpus: planning it, drawing and speaking it, and recording what it is."""

import hashlib
import json
import math
import multiprocessing
import os
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.pool import Pool
from pathlib import Path
from typing import Any

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from omnitune.tiny.corpus.records import (
    PictureJob,
    Plan,
    Record,
    SpeechJob,
    plan_images,
    plan_pairs,
    plan_sheets,
    plan_speech,
    plan_text,
    plan_told,
)
from omnitune.tiny.corpus.scenes import HELD_OUT


@dataclass(frozen=True)
class Sizes:
    """How many records each split gets at scale 1; pairs are shared by two files."""

    conversations: int
    told: int
    images: int
    utterances: int
    pairs: int
    sheets: int = 0


SIZES = {
    "train": Sizes(
        conversations=2400, told=4200, images=3400, utterances=3000, pairs=2000, sheets=500
    ),
    "validation": Sizes(conversations=160, told=0, images=160, utterances=200, pairs=100),
    "test": Sizes(conversations=300, told=0, images=300, utterances=400, pairs=200),
    "test_composition": Sizes(conversations=0, told=0, images=200, utterances=0, pairs=0),
    "test_voices": Sizes(conversations=0, told=0, images=0, utterances=300, pairs=0),
}
VERSION = 15  # raised whenever the same seed makes another corpus
MINIMUM = 10  # of every kind of record that a split has at all
SUMMARY = "corpus.json"
MARKER = ".omnitune-corpus-building"
FILES = {
    "text": "text/conversations.json",
    "told": "text/told_qa.json",
    "images": "images/image_qa.json",
    "captions": "images/captions.json",
    "sheets": "images/sheets.json",
    "audio": "audio/audio_qa.json",
    "transcripts": "audio/transcripts.json",
}
# Of so many records of training with media so many are for the joint fine-tuning; the others the
# parts alone learn from before, as a model is mostly tuned on less than its parts have seen.
TUNED, DEALT = 4, 9
PICTURES_PER_BLOCK = 250
# How an utterance sounds depends a little on those before it in its block, so the size
# of a block must not follow from the number of workers.
UTTERANCES_PER_BLOCK = 100


class CorpusError(ValueError):
    """The folder holds something that building a corpus would destroy."""


@dataclass(frozen=True)
class Block:
    """Media that one process makes."""

    folder: Path
    pictures: tuple[PictureJob, ...] = ()
    speech: tuple[SpeechJob, ...] = ()


def build_corpus(
    data_dir: Path,
    seed: int = 0,
    scale: float = 1.0,
    workers: int | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Builds the corpus in a folder, or finds it there already built.

    The files depend on `seed` and `scale` alone: every byte is the same whatever the
    number of workers.

    Args:
        data_dir: The folder; it is made if it is missing.
        seed: Decides everything that is drawn.
        scale: Multiplies the sizes; every kind of record keeps at least a few.
        workers: The number of processes; by default one for each processor.
        overwrite: Whether to build over whatever corpus the folder holds.

    Returns:
        What `corpus.json` holds: "version", "seed", "scale", "complete", "sha256" (of
        each JSON file), "counts" (of records, by file and split), "voices" (by split),
        "held_out_pairs" and "seconds_of_speech"; and "skipped": True where the corpus
        was there already.

    Raises:
        CorpusError: The folder holds other data, or a corpus of another seed or scale,
            or one that was changed since, and `overwrite` is false.
        ValueError: The scale is not a positive number.
    """
    data_dir = Path(data_dir)
    if not 0 < scale < math.inf:
        raise ValueError(f"the scale must be a positive number, not {scale}")
    if not overwrite:
        ready = _ready_corpus(data_dir, seed, scale)
        if ready is not None:
            return {**ready, "skipped": True}
    data_dir.mkdir(parents=True, exist_ok=True)
    (data_dir / MARKER).write_text("a corpus is being built here\n", encoding="utf-8")
    (data_dir / SUMMARY).unlink(missing_ok=True)
    with _progress() as progress:
        plan = make_plan(seed, scale, progress)
        seconds = _make_media(data_dir, plan, workers, progress)
    summary = {
        "version": VERSION,
        "seed": seed,
        "scale": scale,
        "complete": True,
        "sha256": _write_records(data_dir, plan),
        "counts": _counts(plan),
        "voices": _voice_counts(plan),
        "held_out_pairs": [" ".join(pair) for pair in sorted(HELD_OUT)],
        "seconds_of_speech": round(seconds, 1),
    }
    _write_json(data_dir / SUMMARY, summary)
    (data_dir / MARKER).unlink()
    return summary


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description:<12}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )


def _ready_corpus(data_dir: Path, seed: int, scale: float) -> dict[str, Any] | None:
    """Returns the summary of the wanted corpus if it is there, None if there is room for it."""
    mend = "Choose another folder with --data-dir, or pass --overwrite to build over it."
    if (data_dir / MARKER).exists():
        return None
    if not (data_dir / SUMMARY).exists():
        folders = (data_dir, *(data_dir / name for name in ("text", "images", "audio", "omni")))
        found = sorted(str(path) for folder in folders for path in folder.glob("*.json"))
        if found:
            raise CorpusError(
                f"{data_dir} holds JSON files that are not of a corpus built here, such as "
                f"{found[0]}; an empty or new folder was expected. {mend}"
            )
        return None
    try:
        summary = json.loads((data_dir / SUMMARY).read_text(encoding="utf-8"))
        present = tuple(summary[name] for name in ("version", "seed", "scale", "complete"))
        digests = dict(summary["sha256"])
    except (ValueError, KeyError, TypeError) as error:
        raise CorpusError(
            f"{data_dir / SUMMARY} does not describe a corpus built here. {mend}"
        ) from error
    if present != (VERSION, seed, scale, True):
        raise CorpusError(
            f"{data_dir} holds a corpus of version {present[0]}, seed {present[1]}, scale "
            f"{present[2]}; version {VERSION}, seed {seed}, scale {scale} was expected. {mend}"
        )
    damage = _damage(data_dir, digests)
    if damage:
        raise CorpusError(f"the corpus in {data_dir} was changed: {damage}. {mend}")
    summary_dict: dict[str, Any] = summary
    return summary_dict


def _damage(data_dir: Path, digests: dict[str, str]) -> str:
    """Returns what is wrong with the files of a corpus, or nothing."""
    for name in FILES.values():
        path = data_dir / name
        if not path.exists() or _sha256(path) != digests.get(name):
            return f"{name} is missing or is not what was written"
        present = {
            f"{folder.name}/{entry.name}"
            for folder in path.parent.iterdir()
            if folder.is_dir()
            for entry in os.scandir(folder)
        }
        for record in json.loads(path.read_text(encoding="utf-8")):
            for medium in ("image", "audio"):
                if medium in record and record[medium] not in present:
                    return f"{path.parent.name}/{record[medium]} is missing"
    return ""


def make_plan(seed: int, scale: float, progress: Progress | None = None) -> Plan:
    """Draws every record of a corpus, and the media to make for them.

    Args:
        seed: Decides everything that is drawn.
        scale: Multiplies `SIZES`.
        progress: Where to show a bar, if anywhere.
    """
    plan = Plan()
    steps = [
        (plan_text, split, _scaled(sizes.conversations, scale)) for split, sizes in SIZES.items()
    ]
    steps += [(plan_told, split, _scaled(sizes.told, scale)) for split, sizes in SIZES.items()]
    steps += [(plan_images, split, _scaled(sizes.images, scale)) for split, sizes in SIZES.items()]
    steps += [
        (plan_speech, split, _scaled(sizes.utterances, scale)) for split, sizes in SIZES.items()
    ]
    steps += [(plan_pairs, split, _scaled(s.pairs // 2, scale)) for split, s in SIZES.items()]
    steps += [(plan_sheets, split, _scaled(sizes.sheets, scale)) for split, sizes in SIZES.items()]
    bar = progress.add_task("planning", total=len(steps)) if progress else None
    for planner, split, count in steps:
        planner(plan, seed, split, count)
        if progress and bar is not None:
            progress.advance(bar)
    return plan


def _scaled(count: int, scale: float) -> int:
    return max(MINIMUM, round(count * scale)) if count else 0


def _blocks(data_dir: Path, plan: Plan) -> Iterator[Block]:
    """Yields the work in blocks; speech first, being the longer work."""
    for start in range(0, len(plan.speech), UTTERANCES_PER_BLOCK):
        jobs = plan.speech[start : start + UTTERANCES_PER_BLOCK]
        yield Block(data_dir, speech=tuple(jobs))
    for start in range(0, len(plan.pictures), PICTURES_PER_BLOCK):
        pictures = plan.pictures[start : start + PICTURES_PER_BLOCK]
        yield Block(data_dir, pictures=tuple(pictures))


def _make_block(block: Block) -> tuple[int, int, float]:
    """Makes the media of a block: returns the pictures, the utterances, the seconds spoken."""
    # Imported in the working process: the others need neither drawing nor sound.
    import numpy as np
    from PIL import Image

    from omnitune.tiny.corpus.drawing import draw
    from omnitune.tiny.corpus.speech import speak_block

    for job in block.pictures:
        pixels = draw(job.picture, np.random.default_rng(job.seed), job.glyphs)
        Image.fromarray(pixels).save(block.folder / job.path, compress_level=1)
    seconds = 0.0
    if block.speech:
        seconds = speak_block([(block.folder / job.path, job.utterance) for job in block.speech])
    return len(block.pictures), len(block.speech), seconds


def _make_media(data_dir: Path, plan: Plan, workers: int | None, progress: Progress) -> float:
    """Draws and speaks everything planned; returns the seconds of speech."""
    paths = [job.path for job in plan.pictures] + [job.path for job in plan.speech]
    for folder in {(data_dir / path).parent for path in paths}:
        folder.mkdir(parents=True, exist_ok=True)
    drawing = progress.add_task("drawing", total=len(plan.pictures))
    speaking = progress.add_task("speaking", total=len(plan.speech))
    seconds: list[float] = []
    with _workers(workers or _processors()) as pool:
        for drawn, spoken, length in pool.imap_unordered(_make_block, _blocks(data_dir, plan)):
            progress.advance(drawing, drawn)
            progress.advance(speaking, spoken)
            seconds.append(length)
    return math.fsum(seconds)  # exact, so that the order of arrival does not show


@contextmanager
def _workers(count: int) -> Iterator[Pool]:
    """Yields a pool of processes whose ends, wanted or not, print nothing."""
    # Every block leaves a copy of the speech library in memory, so processes are renewed.
    with multiprocessing.Pool(count, _leave_signals_to_parent, maxtasksperchild=16) as pool:
        yield pool
        pool.close()  # leaving the block alone would kill them
        pool.join()


def _leave_signals_to_parent() -> None:
    """Undoes the handlers a forked process inherits: the command's would raise in it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # how the pool ends its processes


def _processors() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _write_records(data_dir: Path, plan: Plan) -> dict[str, str]:
    """Writes the JSON files; returns the digest of each."""
    digests = {}
    for name, records in _by_file(plan).items():
        path = data_dir / name
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_json(path, records)
        digests[name] = _sha256(path)
    return digests


def _by_file(plan: Plan) -> dict[str, list[Record]]:
    images, captions = _dealt(plan.images)
    audio, transcripts = _dealt(plan.audio)
    return {
        FILES["text"]: plan.text,
        FILES["told"]: plan.told,
        FILES["images"]: images,
        FILES["captions"]: captions,
        FILES["sheets"]: plan.sheets,
        FILES["audio"]: audio,
        FILES["transcripts"]: transcripts,
    }


def _dealt(records: list[Record]) -> tuple[list[Record], list[Record]]:
    """The records for the joint fine-tuning and for scores, and those for pretraining alone."""
    training = [record for record in records if record["split"] == "train"]
    apart = {record["id"] for n, record in enumerate(training) if n % DEALT >= TUNED}
    return (
        [record for record in records if record["id"] not in apart],
        [record for record in records if record["id"] in apart],
    )


def _counts(plan: Plan) -> dict[str, dict[str, int]]:
    return {
        name: dict(Counter(record["split"] for record in records))
        for name, records in _by_file(plan).items()
    }


def _voice_counts(plan: Plan) -> dict[str, int]:
    voices: dict[str, set[str]] = {}
    for record in (*plan.images, *plan.audio):
        if "voice" in record:
            voices.setdefault(record["split"], set()).add(record["voice"])
    return {split: len(names) for split, names in voices.items()}


def _write_json(path: Path, value: object) -> None:
    """Writes a file in one step, so that a reader never meets half of it."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
