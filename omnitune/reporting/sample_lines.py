"""A sample in the terminal: its tokens in colours, or with marks where there are none."""

from __future__ import annotations

import io
import unicodedata
import wave
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image
from rich.console import Console
from rich.text import Text as Line

from omnitune.data.audit.sample_view import CONTROL, PLACEHOLDER, Form, Piece, SampleView, Seen
from omnitune.media.registry import MEDIA
from omnitune.sample import UserError

PICTURE_COLUMNS = 48
PEAKS = "▁▂▃▄▅▆▇█"
HALF = "▀"  # two pixels: the upper one is its colour, the lower one its ground
# By what a piece is: style, and the marks around it where there are no colours.
STYLES = {
    "trained": ("bold green", "[", "]"),
    "context": ("", "", ""),
    PLACEHOLDER: ("magenta", "", ""),
    CONTROL: ("cyan", "", ""),
    "trained control": ("bold green reverse", "[", "]"),
}


def role_of(piece: Piece) -> str:
    """What a piece is shown as: a key of ``STYLES``."""
    if piece.kind == PLACEHOLDER:
        return PLACEHOLDER
    if piece.kind == CONTROL:
        return f"trained {CONTROL}" if piece.trained else CONTROL
    return "trained" if piece.trained else "context"


def shown(piece: Piece) -> str:
    """A piece's text, a run of placeholders folded."""
    if piece.kind == PLACEHOLDER:
        return f"{piece.text} x {piece.count}"
    return visible(piece.text)


def visible(text: str) -> str:
    """A text whose control characters are letters: none of them reaches the terminal."""
    return "".join(
        f"\\u{ord(sign):04x}" if unicodedata.category(sign) == "Cc" and sign not in "\n\t" else sign
        for sign in text
    )


def facts(view: SampleView) -> list[tuple[str, str]]:
    """What the sample is, as names and values."""
    sample = view.sample
    given = {
        "sample": f"{sample.source}/{sample.number}",
        "id": sample.id,
        "record": view.place,
        "split": sample.split,
        "task": sample.task,
        "kind": sample.kind,
        "language": sample.language,
        "questions": str(sample.num_questions) if sample.independent_turns else "",
    }
    return [(name, value) for name, value in given.items() if value]


def verdict(form: Form) -> str:
    """How much of a form is trained, and whether its ends are."""
    told = f"{form.trained:,} of {form.tokens:,} tokens trained ({form.share:.1%})"
    if not form.ends:
        return f"{told}; no answer is trained"
    if all(form.ends):
        every = "the end of turn is" if len(form.ends) == 1 else "every end of turn is"
        return f"{told}; {every} trained"
    missing = sum(not end for end in form.ends)
    return f"{told}; {missing} of {len(form.ends)} ends of turn are NOT trained"


def about(seen: Seen) -> str:
    """A medium in words."""
    if seen.problem:
        return f"{seen.medium.modality}: cannot be used: {seen.problem}"
    slots = "slots unknown" if seen.slots is None else f"{seen.slots:,} slots"
    return f"{seen.medium.modality}: {seen.medium.path} ({seen.amount}, {slots})"


def print_sample(view: SampleView, console: Console) -> None:
    """Prints a sample; colours only where the console has them."""
    plain = not console.is_terminal or console.no_color
    for name, value in facts(view):
        console.print(Line(f"{name}: {visible(value)}"), soft_wrap=True)
    for note in view.notes:
        console.print(Line(f"note: {visible(note)}"), soft_wrap=True)
    for seen in view.media:
        console.print()
        console.print(Line(visible(about(seen))), soft_wrap=True)
        if seen.medium.caption:
            key = MEDIA[seen.medium.modality].caption_key
            console.print(Line(f"{key}: {visible(seen.medium.caption)}"), soft_wrap=True)
        if not seen.problem:
            _print_medium(seen, console, plain)
    console.print()
    console.print(legend(plain), soft_wrap=True)
    for form in view.forms:
        console.print()
        console.print(Line(f"{form.title}: {verdict(form)}", style="bold"), soft_wrap=True)
        console.print(tokens_line(form.pieces, plain), soft_wrap=True)


def legend(plain: bool) -> Line:
    """What the colours or marks mean."""
    if plain:
        return Line(
            "[trained], context, <|control|>, <medium> x slots; | stands between two trained tokens"
        )
    line = Line("tokens: ")
    for n, (name, (style, _, _)) in enumerate(STYLES.items()):
        line.append(", " if n else "")
        line.append(name, style=style)
    return line


def tokens_line(pieces: Sequence[Piece], plain: bool) -> Line:
    """The tokens in a row; control tokens of a new turn begin a new line."""
    line, inside = Line(), False
    for n, piece in enumerate(pieces):
        role = role_of(piece)
        style, opening, closing = STYLES[role]
        before = pieces[n - 1] if n else None
        if before and piece.kind == CONTROL and before.kind == CONTROL and not piece.trained:
            line.append("\n")
        if plain and opening:
            line.append("|" if inside else opening)
        line.append(shown(piece), style="" if plain else style)
        following = pieces[n + 1] if n + 1 < len(pieces) else None
        if piece.kind == PLACEHOLDER and following and not following.text.startswith(" "):
            line.append(" ")
        inside = plain and bool(closing) and bool(following and following.trained)
        if plain and closing and not inside:
            line.append(closing)
    return line


def _print_medium(seen: Seen, console: Console, plain: bool) -> None:
    """The picture as half blocks where there are colours, and a sound's loudness as bars."""
    kind, path = MEDIA[seen.medium.modality], seen.medium.path
    columns = min(PICTURE_COLUMNS, console.width)
    try:
        if sound := kind.sound(path):
            console.print(Line(bars(loudness(sound, columns))))
        picture = None if plain else kind.picture(path, columns)
    except UserError as error:
        console.print(Line(visible(str(error))), soft_wrap=True)
        return
    if picture is not None:
        for line in half_blocks(picture, columns):
            console.print(line)


def loudness(sound: bytes, count: int) -> np.ndarray:
    """The peak of each of ``count`` stretches of a WAV file, 1 being the loudest: ``[count]``."""
    with wave.open(io.BytesIO(sound)) as file:
        wave_S = np.frombuffer(file.readframes(file.getnframes()), dtype="<i2")
    peaks = np.array(
        [np.abs(part, dtype=np.float64).max(initial=0) for part in np.array_split(wave_S, count)]
    )
    return peaks / max(1.0, peaks.max())


def bars(shares: Sequence[float] | np.ndarray) -> str:
    """Shares from 0 to 1 as small bars."""
    return "".join(PEAKS[min(len(PEAKS) - 1, int(share * len(PEAKS)))] for share in shares)


def half_blocks(picture: Image.Image, columns: int) -> Iterator[Line]:
    """A picture as lines of half blocks."""
    small = picture.convert("RGB")
    rows = max(2, round(small.height * columns / small.width / 2) * 2)
    if small.width > columns or rows < small.height:
        small = small.resize((columns, rows))
    elif small.height % 2:
        small = small.crop((0, 0, small.width, small.height + 1))
    pixels = np.asarray(small)
    for upper, lower in zip(pixels[::2], pixels[1::2], strict=False):
        line = Line()
        for above, below in zip(upper.tolist(), lower.tolist(), strict=True):
            line.append(HALF, style=f"rgb({_rgb(above)}) on rgb({_rgb(below)})")
        yield line


def _rgb(colour: Sequence[int]) -> str:
    return ",".join(map(str, colour))
