"""Asks a trained model three things: in text, about a picture, about a recording.

The picture and the recording are the first of the test split: the model has seen neither.

    python examples/three_prompts.py --ckpt_dir checkpoints/omni_sft_tiny
"""

import argparse
import sys
from pathlib import Path

from omnitune.cli import main as omnitune
from omnitune.data.reading import read_source, split_of
from omnitune.evaluation.scoring import Question, questions_of
from omnitune.sample import Media, UserError


def first_question(data_dir: Path, source: str, task: str) -> Question:
    """The first question of a task in the test split."""
    samples = split_of(read_source(data_dir, source), "test")
    return next(q for s in samples for q in questions_of(s) if q.task == task)


def ask(ckpt_dir: str, question: Question) -> int:
    """Prints a question with its reference and has the chat command answer it."""
    turn = question.messages[-1]
    command = ["chat", "--ckpt_dir", ckpt_dir, "--prompt", turn.text]
    print()
    for part in turn.parts:
        if isinstance(part, Media):
            command += [f"--{part.modality}", str(part.path)]
            print(f"{part.modality}:     {part.path}")
    print(
        f"question:  {turn.text}\nreference: {question.reference}\nanswer:    ", end="", flush=True
    )
    return omnitune(command)


def main() -> int:
    """Asks the three questions."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ckpt_dir", default="checkpoints/omni_sft_tiny")
    parser.add_argument("--data_dir", type=Path, default=Path("data/multimodal"))
    options = parser.parse_args()
    try:
        for source, task in (
            ("text_only", "text"),
            ("image_text", "image_qa"),
            ("audio_text", "transcription"),
        ):
            status = ask(options.ckpt_dir, first_question(options.data_dir, source, task))
            if status:
                return status
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
