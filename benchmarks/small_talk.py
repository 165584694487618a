"""What talk before a picture does to the answer about it.

    python -m benchmarks.small_talk --ckpt_dir checkpoints/omni_sft_tiny [--data FOLDER]
        [--split test] [--pictures 100] [--json FILE]

The question about held-out pictures that wants a caption is asked alone, after one and after two
turns of talk, each with the model's own answer. It is asked as the chat asks it, and with all of
the talk left in what the model reads.
"""

from __future__ import annotations

import argparse
import random
import sys
from pathlib import Path

import torch

from benchmarks.command import Arguments, command
from omnitune.data.reading import read_available, split_of
from omnitune.data.taught import Taught
from omnitune.evaluation.metrics import exact_match
from omnitune.evaluation.scoring import Question, questions_of
from omnitune.models.loading import load_omni
from omnitune.sample import Media, Text, UserError
from omnitune.serving.session import ChatSession
from omnitune.storage import write_json
from omnitune.tiny import sources as sources  # of the corpus

SOURCE, TASK = "image_text", "caption"
TALK = ("hello", "how are you?")
SEED = 0


def captions_of(data_dir: Path, split: str, count: int) -> list[Question]:
    """Questions that want the caption of a picture, a choice of the seed.

    Raises:
        UserError: there are none.
    """
    pictures = read_available(data_dir, [SOURCE])[SOURCE]
    asked = [q for s in split_of(pictures, split) for q in questions_of(s) if q.task == TASK]
    if not asked:
        there = ", ".join(sorted(pictures.splits))
        raise UserError(f"{data_dir}: no captions in the split {split!r}; there are: {there}")
    return random.Random(SEED).sample(asked, min(count, len(asked)))


def right_after(session: ChatSession, talk: tuple[str, ...], questions: list[Question]) -> float:
    """Share of the questions that are answered exactly right after some turns of talk."""
    session.reset()
    for line in talk:
        list(session.ask(line))
    said = list(session.messages)
    right = 0
    for question in questions:
        session.reset()
        session.messages = list(said)
        parts = question.messages[-1].parts
        for medium in parts:
            if isinstance(medium, Media):
                session.attach(medium.path, medium.modality)
        text = "".join(part.text for part in parts if isinstance(part, Text))
        right += exact_match("".join(session.ask(text)), question.reference)
    return right / len(questions)


@command
def main(arguments: Arguments) -> None:
    """Reads the options, asks, prints, writes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--ckpt_dir", "--ckpt-dir", type=Path, required=True, help="a model")
    parser.add_argument("--data", type=Path, default=Path("data/multimodal"), help="corpus")
    parser.add_argument("--split", default="test", help="whose pictures are asked about")
    parser.add_argument("--pictures", type=int, default=100, help="at most so many [100]")
    parser.add_argument("--json", type=Path, help="write the numbers to this file too")
    options = parser.parse_args(arguments)
    if options.pictures < 1:
        raise UserError(f"--pictures {options.pictures}: expected at least 1")
    questions = captions_of(options.data, options.split, options.pictures)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model, renderer, values = load_omni(options.ckpt_dir, device)
    found: dict[str, dict[str, float]] = {}
    print(f"{len(questions)} pictures described exactly right")
    for name, taught in (
        ("in the chat", Taught.of(values)),
        ("with the talk in view", Taught(media_after_text=True)),
    ):
        session = ChatSession(model, renderer, taught=taught)
        found[name] = {
            f"after {n} turns of talk": right_after(session, TALK[:n], questions)
            for n in range(len(TALK) + 1)
        }
        print(name + ": " + ", ".join(f"{share:.1%} {when}" for when, share in found[name].items()))
    if options.json:
        write_json(options.json, {"small_talk": found})


if __name__ == "__main__":
    sys.exit(main())
