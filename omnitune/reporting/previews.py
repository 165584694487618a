"""Previews of media for a page: data URIs of pictures and sound, small enough for it."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from omnitune.sample import Media, UserError

SOUND_BUDGET = 1_700_000  # characters of base64 that all players of a page may take
PICTURE_SIDE = 256  # pixels of the longer side, at most
GLANCE_SIDE = 160
_SHARP = 30_000  # bytes up to which a PNG is one on the page too
# Of a spectrogram: seconds and columns at most, rows of pixels, decibels from black to white.
_SECONDS, _WIDTH, _HEIGHT, _RANGE = 30.0, 480, 96, 70.0
# From quiet to loud: dark blue, violet, orange, pale yellow.
_COLOURS = ((13, 8, 45), (96, 26, 128), (190, 55, 84), (249, 142, 9), (252, 255, 200))


@dataclass(frozen=True)
class Preview:
    """What a page shows of a medium.

    Attributes:
        words: what the picture shows; stands alone where there is no picture.
        picture: data URI; "" for none.
        sound: data URI of what a player plays; "" for none.
        wide: the picture takes the whole width.
        left_out: what is missing, and why.
    """

    words: str
    picture: str = ""
    sound: str = ""
    wide: bool = False
    left_out: str = ""


def show_media(examples: Sequence[tuple[Media, ...]]) -> list[list[Preview]]:
    """Previews the media of each example; leaves sound out once ``SOUND_BUDGET`` is spent."""
    left = SOUND_BUDGET
    shown = []
    for media in examples:
        previews = []
        for medium in media:
            found = preview(medium, PICTURE_SIDE)
            if len(found.sound) > left:
                left_out = "(sound left out to keep the page small)"
                found = replace(found, sound="", left_out=left_out)
            left -= len(found.sound)
            previews.append(found)
        shown.append(previews)
    return shown


def preview(medium: Media, side: int) -> Preview:
    """A medium's preview; words in its place if it has none or cannot be read.

    Args:
        side: pixels of the longer side of a picture, at most.
    """
    make = PREVIEWS.get(medium.modality)
    try:
        return make(medium.path, side) if make else Preview(medium.path.name)
    except UserError:
        return Preview(f"({medium.modality}: cannot be shown)")


def preview_image(path: Path, side: int) -> Preview:
    """The picture as the model sees it; raises UserError."""
    picture = thumbnail(path, side)
    # Sharp edges survive in a PNG. In the smallest pictures nobody would see them.
    is_png = path.suffix.lower() == ".png" and path.stat().st_size <= _SHARP
    encoding = "png" if is_png and side == PICTURE_SIDE else "jpeg"
    return Preview("the picture of this question", _picture_uri(picture, encoding))


def preview_audio(path: Path, side: int) -> Preview:
    """Spectrogram, and the mono 16 kHz WAV that the model hears; raises UserError."""
    import soundfile

    from omnitune.media.audio import SAMPLE_RATE, read_wave

    wave = read_wave(path)
    buffer = io.BytesIO()
    soundfile.write(buffer, wave, SAMPLE_RATE, format="WAV", subtype="PCM_16")
    words = f"spectrogram of {len(wave) / SAMPLE_RATE:.1f} seconds of sound"
    sound = _data_uri("audio/wav", buffer.getvalue())
    return Preview(words, _picture_uri(spectrogram(wave), "jpeg"), sound, wide=True)


# By a medium's name. A medium that is not here is shown by the name of its file.
PREVIEWS: dict[str, Callable[[Path, int], Preview]] = {
    "image": preview_image,
    "audio": preview_audio,
}


def thumbnail(path: Path, side: int = PICTURE_SIDE) -> Any:
    """A picture as it is shown to the model (upright, on white), made smaller if it is large.

    Returns:
        PIL image, its longer side at most ``side`` pixels.

    Raises:
        UserError: the file is missing, damaged, huge or no image.
    """
    from omnitune.media.image import decode

    picture = decode(path)
    picture.thumbnail((side, side))
    return picture


def spectrogram(wave: np.ndarray) -> Any:
    """Draws mono 16 kHz sound: time to the right, pitch upwards, loud parts bright.

    Args:
        wave: ``[samples]``; only its first ``_SECONDS`` are drawn.

    Returns:
        PIL image of 0 to 8 kHz.
    """
    from PIL import Image

    from omnitune.encoders.fastconformer import HOP, WINDOW
    from omnitune.media.audio import SAMPLE_RATE

    wave = wave[: int(_SECONDS * SAMPLE_RATE)]
    pieces_TW = np.lib.stride_tricks.sliding_window_view(wave, WINDOW)[::HOP]
    power_TF = np.abs(np.fft.rfft(pieces_TW * np.hanning(WINDOW))) ** 2
    decibel_FT = 10 * np.log10(power_TF + 1e-10).T[::-1]
    level_FT = np.clip(1 + (decibel_FT - decibel_FT.max()) / _RANGE, 0, 1)
    places = np.linspace(0, 1, len(_COLOURS))
    channels = [np.interp(level_FT, places, [colour[n] for colour in _COLOURS]) for n in range(3)]
    picture = Image.fromarray(np.stack(channels, axis=-1).round().astype(np.uint8))
    return picture.resize((min(picture.width, _WIDTH), _HEIGHT), Image.Resampling.BOX)


def _picture_uri(picture: Any, encoding: str) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, encoding, quality=85)
    return _data_uri(f"image/{encoding}", buffer.getvalue())


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
