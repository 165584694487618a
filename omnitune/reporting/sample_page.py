"""A sample as a page: its tokens in colours, its media with picture, waveform and spectrogram."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from pathlib import Path

from omnitune.data.audit.sample_view import CONTROL, PLACEHOLDER, Form, Piece, SampleView, Seen
from omnitune.media.registry import MEDIA
from omnitune.reporting.page import Block, Section, render_page
from omnitune.reporting.previews import PICTURE_SIDE, SOUND_BUDGET, Preview, preview
from omnitune.reporting.sample_lines import STYLES, facts, loudness, role_of, shown, verdict
from omnitune.storage import write_lines

WAVE_POINTS = 240
WAVE_HEIGHT = 48
LEGEND = [(role, role if role != PLACEHOLDER else "<medium> x slots") for role in STYLES]


def write_sample_page(view: SampleView, path: Path) -> Path:
    """Writes the page of a sample; returns its path."""
    sections = [
        Section(
            "As the model sees it",
            "Each box is a token; a run of placeholders is one box. Trained tokens are those that "
            "the model learns to write.",
            [("token_legend", {"roles": LEGEND}), *map(_form_block, view.forms)],
        )
    ]
    if view.media:
        cards = list(_cards(view.media))
        sections.insert(0, Section("Media", "", [("media_cards", {"cards": cards})]))
    opening: list[Block] = [("pairs", {"values": facts(view)})]
    opening += [("note", {"text": note}) for note in view.notes]
    write_lines(path, [render_page("sample", view.sample.id, sections, opening)])
    return path


def _form_block(form: Form) -> Block:
    lines = [[_box(piece) for piece in line] for line in _turns(form.pieces)]
    values = {"heading": form.title, "verdict": verdict(form), "share": form.share, "lines": lines}
    return "token_row", values


def _turns(pieces: Sequence[Piece]) -> Iterator[list[Piece]]:
    """The pieces line by line: a control token behind another one opens a turn."""
    line: list[Piece] = []
    for piece in pieces:
        opens = piece.kind == CONTROL and not piece.trained
        if line and opens and line[-1].kind == CONTROL:
            yield line
            line = []
        line.append(piece)
    if line:
        yield line


def _box(piece: Piece) -> tuple[str, str, str]:
    """Class, text and explanation of a piece."""
    count = f"{piece.count} tokens" if piece.count > 1 else "1 token"
    return role_of(piece), shown(piece), f"{role_of(piece)}, {count}"


def _cards(media: Sequence[Seen]) -> Iterator[tuple[Preview, str, list[tuple[str, str]]]]:
    """Preview, waveform and facts of each medium."""
    left = SOUND_BUDGET
    for seen in media:
        kind = MEDIA[seen.medium.modality]
        lines = [(kind.noun, str(seen.medium.path))]
        if seen.problem:
            yield Preview("(cannot be used)"), "", [*lines, ("problem", seen.problem)]
            continue
        slots = "unknown: no encoder" if seen.slots is None else f"{seen.slots:,}"
        lines += [("holds", seen.amount), ("slots", slots)]
        if seen.medium.caption:
            lines.append((kind.caption_key, seen.medium.caption))
        found = preview(seen.medium, PICTURE_SIDE)
        drawing = waveform(base64.b64decode(found.sound.partition(",")[2])) if found.sound else ""
        if len(found.sound) > left:
            found = Preview(found.words, found.picture, left_out="(sound left out: too long)")
        left -= len(found.sound)
        yield found, drawing, lines


def waveform(sound: bytes) -> str:
    """A WAV file's peaks over time, as inline SVG."""
    middle = WAVE_HEIGHT / 2
    peaks = [max(0.5, share * middle) for share in loudness(sound, WAVE_POINTS)]
    rows = [
        f'<rect x="{n}" y="{middle - peak:.1f}" width=".8" height="{2 * peak:.1f}"/>'
        for n, peak in enumerate(peaks)
    ]
    return (
        f'<svg class="wave" viewBox="0 0 {WAVE_POINTS} {WAVE_HEIGHT}" role="img" '
        f'aria-label="waveform" preserveAspectRatio="none">{"".join(rows)}</svg>'
    )
