"""Pictures as a terminal takes them: three protocols, and half-blocks in colours.

Shape suffixes: H rows and W columns of pixels, C channels.
"""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

ESCAPE, END = "\x1b", "\x1b\\"
KITTY_CHUNK = 4096  # letters of base64 in one command, the most that kitty takes
SIXEL_COLOURS = 128
# The 256 colours: six levels a channel, then greys from 8 on in steps of 10.
LEVELS = np.array([0, 95, 135, 175, 215, 255])
CUBE, GREYS = 16, 232


def kitty(image: Image.Image) -> str:
    """Kitty's graphics protocol: PNG in chunks, to be shown at once and without a reply."""
    data = base64.b64encode(_png(image)).decode()
    pieces = [data[n : n + KITTY_CHUNK] for n in range(0, len(data), KITTY_CHUNK)]
    keys = ["a=T,f=100,q=2,"] + [""] * (len(pieces) - 1)
    return "".join(
        f"{ESCAPE}_G{first}m={int(n < len(pieces) - 1)};{piece}{END}"
        for n, (first, piece) in enumerate(zip(keys, pieces, strict=True))
    )


def iterm(image: Image.Image) -> str:
    """iTerm's OSC 1337, which WezTerm and mintty understand too."""
    png = _png(image)
    size = f"size={len(png)};width={image.width}px;height={image.height}px"
    keys = f"inline=1;{size};preserveAspectRatio=1"
    return f"{ESCAPE}]1337;File={keys}:{base64.b64encode(png).decode()}\a"


def sixel(image: Image.Image) -> str:
    """DEC's sixels: bands of six rows, drawn colour by colour."""
    few = image.convert("RGB").quantize(SIXEL_COLOURS)
    index_HW = np.asarray(few)
    palette = np.array(few.getpalette()).reshape(-1, 3) * 100 / 255
    used = np.unique(index_HW).tolist()
    out = [f'{ESCAPE}P0;1;0q"1;1;{image.width};{image.height}']
    out += [f"#{n};2;" + ";".join(f"{round(share)}" for share in palette[n]) for n in used]
    for top in range(0, image.height, 6):
        band_HW = index_HW[top : top + 6]
        bits_H1 = 1 << np.arange(len(band_HW))[:, None]
        for n in np.unique(band_HW).tolist():
            out.append(f"#{n}{_runs(((band_HW == n) * bits_H1).sum(axis=0))}$")
        out.append("-")
    return "".join(out) + END


def _runs(sixels_W: np.ndarray) -> str:
    """Columns as letters, four and more of the same as their number."""
    starts = np.flatnonzero(np.diff(sixels_W, prepend=-1))
    lengths = np.diff(starts, append=len(sixels_W))
    letters = [chr(63 + code) for code in sixels_W[starts].tolist()]
    return "".join(
        f"!{length}{letter}" if length > 3 else letter * length
        for letter, length in zip(letters, lengths.tolist(), strict=True)
    )


def blocks(image: Image.Image, true_colour: bool) -> str:
    """Half-blocks: each sign shows two pixels, one above the other.

    Args:
        true_colour: 24 bits a colour; else the nearest of 256.
    """
    pixels_HWC = np.asarray(image.convert("RGB"))
    names_HW = _true_names(pixels_HWC) if true_colour else _nearest_names(pixels_HWC)
    lines = []
    for top in range(0, len(names_HW), 2):
        upper, rest = names_HW[top], names_HW[top + 1 : top + 2]
        # An odd last row stands alone on the terminal's own ground.
        lower = [f"48;{name}" for name in rest[0]] if rest else ["49"] * len(upper)
        line, before = "", ("", "")
        for above, below in zip(upper, lower, strict=True):
            if (above, below) != before:
                line += f"{ESCAPE}[38;{above};{below}m"
                before = above, below
            line += "▀"
        lines.append(f"{line}{ESCAPE}[0m")
    return "\n".join(lines)


def _true_names(pixels_HWC: np.ndarray) -> list[list[str]]:
    return [["2;{};{};{}".format(*pixel) for pixel in row] for row in pixels_HWC.tolist()]


def _nearest_names(pixels_HWC: np.ndarray) -> list[list[str]]:
    pixels_HWC = pixels_HWC.astype(int)
    places_HWC = np.abs(pixels_HWC[..., None] - LEVELS).argmin(axis=-1)
    grey_HW = ((pixels_HWC.mean(axis=-1) - 8) / 10).round().clip(0, 23).astype(int)
    cube_error_HW = np.square(LEVELS[places_HWC] - pixels_HWC).sum(axis=-1)
    grey_error_HW = np.square(8 + 10 * grey_HW[..., None] - pixels_HWC).sum(axis=-1)
    cube_HW = CUBE + places_HWC @ np.array([36, 6, 1])
    number_HW = np.where(grey_error_HW < cube_error_HW, GREYS + grey_HW, cube_HW)
    return [[f"5;{number}" for number in row] for row in number_HW.tolist()]


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "PNG")
    return buffer.getvalue()
