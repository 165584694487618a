"""Pictures and sound as data inside a page, small enough for it."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape
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


def show_media(exhibits: Sequence[tuple[Media, ...]]) -> list[str]:
    """The media of each exhibit as HTML with their data inside.

    What cannot be shown is said in a line; sound is left out once ``SOUND_BUDGET`` is spent.
    """
    left = SOUND_BUDGET
    shown = []
    for media in exhibits:
        parts = []
        for medium in media:
            html, spent = _show(medium, left)
            left -= spent
            parts.append(html)
        shown.append("".join(parts))
    return shown


def show_thumbnails(exhibits: Sequence[tuple[Media, ...]]) -> list[str]:
    """The pictures of each exhibit as HTML, small; in words what cannot be shown."""
    return ["".join(_glance(medium.path) for medium in media) for media in exhibits]


def _glance(path: Path) -> str:
    try:
        picture = thumbnail(path)
    except UserError:
        return '<p class="absent">(image: cannot be shown)</p>'
    picture.thumbnail((GLANCE_SIDE, GLANCE_SIDE))
    return f'<img src="{_jpeg(picture)}" alt="the picture of this question">'


def thumbnail(path: Path) -> Any:
    """A picture as it is shown to the model (upright, on white), made smaller if it is large.

    Returns:
        PIL image, its longer side at most ``PICTURE_SIDE`` pixels.

    Raises:
        UserError: the file is missing, damaged, huge or no image.
    """
    from omnitune.media.image import decode

    picture = decode(path)
    picture.thumbnail((PICTURE_SIDE, PICTURE_SIDE))
    return picture


def spectrogram(wave: np.ndarray) -> Any:
    """Draws mono 16 kHz sound: time to the right, pitch upwards, loud parts bright.

    Args:
        wave: ``[samples]``; only its first ``_SECONDS`` are drawn.

    Returns:
        PIL image of 0 to 8 kHz.
    """
    from PIL import Image

    from omnitune.encoders.fastconformer import HOP, SAMPLE_RATE, WINDOW

    wave = wave[: int(_SECONDS * SAMPLE_RATE)]
    pieces_TW = np.lib.stride_tricks.sliding_window_view(wave, WINDOW)[::HOP]
    power_TF = np.abs(np.fft.rfft(pieces_TW * np.hanning(WINDOW))) ** 2
    decibel_FT = 10 * np.log10(power_TF + 1e-10).T[::-1]
    level_FT = np.clip(1 + (decibel_FT - decibel_FT.max()) / _RANGE, 0, 1)
    places = np.linspace(0, 1, len(_COLOURS))
    channels = [np.interp(level_FT, places, [colour[n] for colour in _COLOURS]) for n in range(3)]
    picture = Image.fromarray(np.stack(channels, axis=-1).round().astype(np.uint8))
    return picture.resize((min(picture.width, _WIDTH), _HEIGHT), Image.Resampling.BOX)


def _show(medium: Media, budget: int) -> tuple[str, int]:
    """HTML of a medium, and the characters that it takes of the sound's budget."""
    try:
        if medium.modality == "image":
            picture = _picture(medium.path)
            return f'<img src="{picture}" alt="the picture of this question">', 0
        if medium.modality == "audio":
            return _sound(medium.path, budget)
    except UserError:
        pass
    return f'<p class="absent">({escape(medium.modality)}: cannot be shown)</p>', 0


def _picture(path: Path) -> str:
    picture = thumbnail(path)
    if path.suffix.lower() == ".png" and path.stat().st_size <= _SHARP:
        buffer = io.BytesIO()
        picture.save(buffer, "PNG")
        return _data_uri("image/png", buffer.getvalue())
    return _jpeg(picture)


def _sound(path: Path, budget: int) -> tuple[str, int]:
    """Spectrogram and player of a sound, as the mono 16 kHz WAV that the model hears."""
    import soundfile

    from omnitune.media.audio import SAMPLE_RATE, read_wave

    wave = read_wave(path)
    drawn = (
        f'<img class="spectrogram" src="{_jpeg(spectrogram(wave))}" '
        f'alt="spectrogram of {len(wave) / SAMPLE_RATE:.1f} seconds of sound">'
    )
    buffer = io.BytesIO()
    soundfile.write(buffer, wave, SAMPLE_RATE, format="WAV", subtype="PCM_16")
    source = _data_uri("audio/wav", buffer.getvalue())
    if len(source) > budget:
        return f'{drawn}<p class="absent">(sound left out to keep the page small)</p>', 0
    return f'{drawn}<audio controls preload="metadata" src="{source}"></audio>', len(source)


def _jpeg(picture: Any) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=85)
    return _data_uri("image/jpeg", buffer.getvalue())


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
