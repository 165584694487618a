"""What a thinker of stage A answers about pictures whose captions stand in slots.

    python -m benchmarks.words checkpoints/thinker_tiny/thinker_best.pt [MORE ...] [--data FOLDER]
        [--split test] [--json FILE]

Where the joined model answers wrongly about a picture, this tells the thinker's share of it. As a
split asks for few sums, all rows of two and three digits that training never holds are there too.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Sequence
from itertools import product
from pathlib import Path

from rich.console import Console
from rich.table import Column, Table

from benchmarks.command import Arguments, command
from omnitune.data.loader import SampleReader
from omnitune.data.reading import read_available, split_of
from omnitune.evaluation.metrics import exact_match
from omnitune.evaluation.scoring import answer, questions_of
from omnitune.models.loading import load_thinker
from omnitune.sample import Described, Message, Sample, Text, UserError
from omnitune.storage import write_json
from omnitune.tiny.corpus.questions import ADD_DIGITS, READ_DIGITS
from omnitune.tiny.corpus.scenes import Digits, belongs, caption
from omnitune.tiny.pretrain_lm import shown

LENGTHS = (2, 3)  # of the rows of digits
SOURCE, TASK = "image_text", "image_qa"


def rows_of_digits(length: int) -> list[Sample]:
    """What the digits are and what their sum is, of each row that is not for training."""
    found = []
    for values in product(range(10), repeat=length):
        row = Digits(values)
        if not belongs(row, "train"):
            asked = {
                f"digits of {length}": (READ_DIGITS, " ".join(map(str, values))),
                f"sums of {length}": (ADD_DIGITS, str(sum(values))),
            }
            found += [
                _question(f"{kind} {values}", caption(row), kind, *turns)
                for kind, turns in asked.items()
            ]
    return found


def questions_about(data_dir: Path, split: str) -> list[Sample]:
    """The samples of a split that ask about pictures.

    Raises:
        UserError: there are none.
    """
    pictures = read_available(data_dir, [SOURCE])[SOURCE]
    found = [sample for sample in split_of(pictures, split) if sample.task == TASK]
    if not found:
        there = ", ".join(sorted(pictures.splits))
        raise UserError(
            f"{data_dir}: no questions about pictures in the split {split!r}; there are: {there}"
        )
    return found


def _question(name: str, words: str, kind: str, asked: str, answered: str) -> Sample:
    messages = (
        Message("user", (Described.of("image", words), Text(asked))),
        Message("assistant", (Text(answered),), kind, TASK),
    )
    return Sample(name, "described", messages, TASK, "held out")


def right_by_kind(checkpoint: Path, samples: Sequence[Sample]) -> dict[str, tuple[int, int]]:
    """By kind of question: answers that are exactly right, and how many were asked."""
    model, renderer = load_thinker(checkpoint)
    model.eval()
    reader = SampleReader(renderer, {})
    singles = [single for sample in samples for single in sample.split_turns()]
    seen = (shown(s, 0, pseudo_feature_prob=1.0, spoken_question_prob=0.0) for s in singles)
    questions = [question for sample in seen for question in questions_of(sample)]
    found: dict[str, list[bool]] = defaultdict(list)
    for question, given in zip(questions, answer(model, reader, questions), strict=True):
        found[question.kind].append(exact_match(given.answer, question.reference))
    return {kind: (sum(right), len(right)) for kind, right in sorted(found.items())}


def show(found: dict[str, dict[str, tuple[int, int]]]) -> None:
    """Prints a row for each kind of question, a column for each thinker."""
    names = (Column(name, overflow="fold") for name in found)
    table = Table("kind", "asked", *names)
    kinds = {kind: asked for rows in found.values() for kind, (_, asked) in rows.items()}
    for kind, asked in kinds.items():
        shares = (rows[kind] for rows in found.values())
        table.add_row(kind, str(asked), *(f"{right / n:.1%}" for right, n in shares))
    Console().print(table)


@command
def main(arguments: Arguments) -> None:
    """Reads the options, asks, prints, writes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("thinkers", type=Path, nargs="+", help="checkpoints of stage A")
    parser.add_argument("--data", type=Path, default=Path("data/multimodal"), help="corpus")
    parser.add_argument("--split", default="test", help="whose pictures are asked about")
    parser.add_argument("--json", type=Path, help="write the numbers to this file too")
    options = parser.parse_args(arguments)
    samples = questions_about(options.data, options.split)
    samples += [row for length in LENGTHS for row in rows_of_digits(length)]
    found = {str(path): right_by_kind(path, samples) for path in options.thinkers}
    show(found)
    if options.json:
        write_json(options.json, {"words": found})


if __name__ == "__main__":
    sys.exit(main())
