"""The sources of the embedded corpus that only the tiny parts' pretraining draws from."""

from __future__ import annotations

from dataclasses import replace

from omnitune.sources import SOURCES, Source

# What the corpus notes in its records: which handwriting a picture shows, whose voice is heard.
CORPUS_KEYS = ("digits", "voice")

SOURCES.update(
    (source.name, source)
    for source in (
        replace(SOURCES["image_text"], keys=CORPUS_KEYS),
        replace(SOURCES["audio_text"], keys=CORPUS_KEYS),
        Source("described", "text/told_qa.json"),
        Source("captions", "images/captions.json", ("image",), CORPUS_KEYS),
        Source("digit_grids", "images/sheets.json", ("image",), CORPUS_KEYS),
        Source("transcripts", "audio/transcripts.json", ("audio",), CORPUS_KEYS),
    )
)
