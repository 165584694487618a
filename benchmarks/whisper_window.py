"""What a short window costs Whisper: word errors of its own decoder, by the window of its encoder.

    python -m benchmarks.whisper_window WHISPER LIST [MORE ...] [--margins 0,1,2]
        [--most 200] [--skip 0]

WHISPER is a folder with all of Whisper. A LIST is a JSON list of records with ``audio``,
``transcript`` and ``split`` (those for training are left out), a table of Common Voice with
``path`` and ``sentence``, a ``.trans.txt`` of LibriSpeech, or a text with lines ``name: words``
beside a folder of ``name.wav``.

The decoder sees all states of a window. As it was trained on 30 s, a shorter window leads it into
loops, whatever the rows say. So it is also shown the rows of the sound from the short window,
followed by the silence of the full one: only the rows of the sound go to a thinker.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from transformers import PreTrainedTokenizerFast, WhisperForConditionalGeneration

from benchmarks.command import Arguments, command, numbers
from omnitune.encoders.speech import in_groups, pieces_of
from omnitune.encoders.whisper import FRAMES, WhisperSpeechEncoder, run_window, window_mel
from omnitune.evaluation.metrics import word_errors
from omnitune.hub import load_pretrained, read_config
from omnitune.sample import UserError

LONGEST = 100  # tokens of a transcript


def spoken(path: Path) -> Iterator[tuple[Path, str]]:
    """Sound files of a list, each with its words.

    Raises:
        UserError: the list is of none of the known forms.
    """
    lines = path.read_text(encoding="utf-8").splitlines()
    if path.suffix == ".json":
        for record in json.loads("\n".join(lines)):
            if record["split"] != "train":
                yield path.parent / record["audio"], record["transcript"]
    elif path.suffix == ".tsv":
        for row in csv.DictReader(lines, delimiter="\t"):
            yield path.parent / "clips" / row["path"], row["sentence"]
    elif path.name.endswith(".trans.txt"):
        for line in lines:
            name, _, words = line.partition(" ")
            yield path.parent / f"{name}.flac", words
    elif path.suffix == ".txt":
        there = {sound.stem: sound for sound in path.parent.rglob("*.wav")}
        for line in lines:
            name, _, words = line.partition(": ")
            if name in there and words:
                yield there[name], words
    else:
        raise UserError(f"{path}: expected a .json, .tsv, .trans.txt or .txt")


class Decoder:
    """Whisper's own decoder, greedy, without timestamps."""

    def __init__(self, folder: Path) -> None:
        self.model: Any = load_pretrained(WhisperForConditionalGeneration, folder).eval()
        self.encoder = self.model.get_encoder()
        self.tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
        settings = self.model.generation_config
        self.never = list(settings.suppress_tokens or ())
        self.not_first = list(settings.begin_suppress_tokens or ())
        self.end = settings.eos_token_id
        marks = ["<|startoftranscript|>", "<|notimestamps|>"]
        if settings.is_multilingual:
            marks[1:1] = ["<|en|>", "<|transcribe|>"]
        self.start = self.tokenizer.convert_tokens_to_ids(marks)

    def say(self, states: list[Tensor]) -> list[str]:
        """The transcripts of the encoder's rows ``[T, D]`` of some pieces of equal length."""
        given_BT, cache = torch.tensor([self.start] * len(states)), None
        said: list[Tensor] = []
        ended_B = torch.zeros(len(states), dtype=torch.bool)
        while len(said) < LONGEST and not ended_B.all():
            found = self.model(
                encoder_outputs=(torch.stack(states),),
                decoder_input_ids=given_BT,
                past_key_values=cache,
                use_cache=True,
            )
            cache, logits_BV = found.past_key_values, found.logits[:, -1]
            logits_BV[:, self.never if said else self.never + self.not_first] = -torch.inf
            said.append(logits_BV.argmax(dim=-1).masked_fill(ended_B, self.end))
            ended_B |= said[-1] == self.end
            given_BT = said[-1][:, None]
        rows = torch.stack(said, dim=1).tolist()
        return [self.tokenizer.decode(row, skip_special_tokens=True) for row in rows]

    def transcribe(self, pieces: list[Tensor]) -> list[str]:
        """The transcripts of any pieces' rows."""
        size = 16
        return in_groups(
            pieces,
            len,
            lambda group: [
                text
                for first in range(0, len(group), size)
                for text in self.say(group[first : first + size])
            ],
        )


def encoded(
    encoder: WhisperSpeechEncoder, module: Any, pieces: list[Tensor]
) -> tuple[list[Tensor], float]:
    """The rows of each piece's whole window, and the seconds that took."""
    start = time.perf_counter()
    found = []
    for piece in pieces:
        mel_TM = window_mel(piece, FRAMES * encoder.window_of(piece))
        found.append(run_window(module, mel_TM[None])[0])
    return found, time.perf_counter() - start


@torch.no_grad()
def compare(
    folder: Path, sounds: list[tuple[Path, str]], margins: list[int]
) -> dict[str, tuple[list[tuple[int, int]], float]]:
    """By window: word edits and words of each sound, and the seconds of the encoder."""
    decoder = Decoder(folder)
    config = WhisperSpeechEncoder.from_folder(folder, read_config(folder)).config
    full = WhisperSpeechEncoder(config | {"audio_window": "full"})
    clips = [pieces_of(full.read(sound)) for sound, _ in sounds]
    flat = [piece for pieces in clips for piece in pieces]
    found = {}

    def score(kind: str, states: list[Tensor], seconds: float) -> None:
        texts = iter(decoder.transcribe(states))
        answers = [" ".join(next(texts) for _ in pieces) for pieces in clips]
        pairs = zip(answers, sounds, strict=True)
        found[kind] = [word_errors(answer, words, "en") for answer, (_, words) in pairs], seconds
        print(f"{kind}: {sum(e for e, _ in found[kind][0])} word errors", flush=True)

    whole, seconds = encoded(full, decoder.encoder, flat)
    score("full", whole, seconds)
    for margin in margins:
        encoder = WhisperSpeechEncoder(config | {"audio_window": "auto"})
        encoder.margin = margin
        states, seconds = encoded(encoder, decoder.encoder, flat)
        mixed = [
            torch.cat([short[:rows], long[rows:]])
            for short, long, rows in zip(states, whole, map(full.rows, flat), strict=True)
        ]
        score(f"auto, {margin} s; its rows, full's silence", mixed, seconds)
        score(f"auto, {margin} s", states, seconds)
    return found


@command
def main(arguments: Arguments) -> None:
    """Reads the options, compares, prints."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("whisper", type=Path)
    parser.add_argument("lists", type=Path, nargs="+")
    parser.add_argument("--margins", default="1", help="seconds of silence at least")
    parser.add_argument("--most", type=int, default=200, help="sounds of a list")
    parser.add_argument("--skip", type=int, default=0, help="sounds of a list, before those")
    options = parser.parse_args(arguments)
    margins = numbers("--margins", options.margins)
    taken = slice(options.skip, options.skip + options.most)
    lists = [(path, list(spoken(path))[taken]) for path in options.lists]
    sounds = [sound for _, found in lists for sound in found]
    names = (f"{path.name} ({len(found)})" for path, found in lists)
    table = Table("window", *names, "all", "WER", "encoder, s")
    compared = compare(options.whisper, sounds, margins)
    for kind, (pairs, seconds) in compared.items():
        left = iter(pairs)
        sums = [_sum([next(left) for _ in found]) for _, found in lists]
        edits, words = _sum(sums)
        cells = (f"{e}/{n}" for e, n in [*sums, (edits, words)])
        table.add_row(kind, *cells, f"{edits / words:.2%}", f"{seconds:.1f}")
    Console(width=160).print(table)


def _sum(pairs: list[tuple[int, int]]) -> tuple[int, int]:
    return sum(edits for edits, _ in pairs), sum(words for _, words in pairs)


if __name__ == "__main__":
    sys.exit(main())
