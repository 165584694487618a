"""Drawing pictures: 96 x 96 pixels of shapes, handwritten digits or a printed word."""

import functools
import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from omnitune.tiny.corpus.scenes import Digits, Picture, Scene, Sheet, Thing, Word

SIDE = 96
CELL = 32
_FINE = 4  # masks are drawn this many times larger, then reduced, which smooths their edges

PALETTE: dict[str, tuple[int, int, int]] = {
    "red": (220, 25, 30),
    "green": (35, 165, 60),
    "blue": (45, 95, 245),
    "yellow": (245, 230, 40),
    "orange": (250, 135, 10),
    "purple": (145, 45, 200),
    "pink": (255, 145, 195),
    "white": (245, 245, 245),
}
_LIGHT_COLOURS = {"yellow", "pink", "white", "orange"}
_RADIUS = {"small": 7.0, "large": 13.0}
_JITTER = {"small": 5.0, "large": 1.8}

FloatArray = NDArray[np.float32]
ByteArray = NDArray[np.uint8]


def draw(
    picture: Picture | Sheet, rng: np.random.Generator, glyphs: ByteArray | None = None
) -> ByteArray:
    """Draws a picture.

    Args:
        picture: What to show.
        rng: The source of positions, tints, turns, backgrounds and noise.
        glyphs: For digits, their handwriting, uint8 [count, 8, 8] with values 0-16.

    Returns:
        The pixels, uint8 [96, 96, 3].

    Raises:
        ValueError: Digits came without one glyph each.
    """
    if isinstance(picture, Scene):
        canvas = _background(rng, {thing.colour for thing in picture.things})
        for thing in picture.things:
            mask, top, left = _thing_mask(thing, rng)
            _blend(canvas, mask, top, left, _tint(thing.colour, rng))
    elif isinstance(picture, Word):
        colour = str(rng.choice(list(PALETTE)))
        canvas = _background(rng, {colour})
        mask, top, left = _word_mask(picture.text, rng)
        _blend(canvas, mask, top, left, _tint(colour, rng))
    else:
        if glyphs is None or len(glyphs) != len(picture.values):
            raise ValueError("every digit needs its handwriting, an array [count, 8, 8]")
        if isinstance(picture, Sheet):
            canvas = _draw_sheet(picture, rng, glyphs)
        else:
            canvas = _draw_digits(picture, rng, glyphs)
    sigma = rng.uniform(0.0, 7.0)
    noise = rng.standard_normal(canvas.shape, dtype=np.float32) * np.float32(sigma)
    return np.clip(canvas + noise + 0.5, 0, 255).astype(np.uint8)


def _tint(colour: str, rng: np.random.Generator) -> FloatArray:
    """Returns the colour, a little off."""
    base = np.array(PALETTE[colour], dtype=np.float32)
    return np.clip(base + rng.uniform(-14, 14, 3), 0, 255).astype(np.float32)


def _ground_and_ink(rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    """Draws a ground and the colour of what is written on it."""
    colour = str(rng.choice(list(PALETTE)))
    return _background(rng, {colour}), _tint(colour, rng)


def _background(rng: np.random.Generator, colours: set[str]) -> FloatArray:
    """Draws a plain, graded or textured ground that every colour stands out from."""
    light = not (colours & _LIGHT_COLOURS) and rng.random() < 0.3
    base = rng.uniform(185, 225) if light else rng.uniform(8, 70)
    ground = base + rng.uniform(-8, 8, 3)
    canvas = np.empty((SIDE, SIDE, 3), dtype=np.float32)
    canvas[:] = ground
    style = rng.integers(4)
    if style == 1:
        angle = rng.uniform(0, 2 * math.pi)
        steps = np.linspace(-1, 1, SIDE, dtype=np.float32)
        slope = steps[:, None] * math.sin(angle) + steps[None, :] * math.cos(angle)
        canvas += (slope * rng.uniform(5, 18))[:, :, None].astype(np.float32)
    elif style == 2:
        blocks = rng.uniform(-9, 9, (12, 12)).astype(np.float32)
        canvas += np.kron(blocks, np.ones((8, 8), dtype=np.float32))[:, :, None]
    elif style == 3:
        period = rng.uniform(5, 14)
        waves = np.sin(np.arange(SIDE) * (2 * math.pi / period)).astype(np.float32) * 7
        canvas += waves[:, None, None] if rng.random() < 0.5 else waves[None, :, None]
    return canvas


def _blend(canvas: FloatArray, mask: FloatArray, top: int, left: int, tint: FloatArray) -> None:
    """Paints the tint through the mask, in place; the part outside the canvas is lost."""
    top, left = max(0, min(top, SIDE - 1)), max(0, min(left, SIDE - 1))
    height = min(mask.shape[0], SIDE - top)
    width = min(mask.shape[1], SIDE - left)
    share = mask[:height, :width, None]
    region = canvas[top : top + height, left : left + width]
    region += (tint - region) * share


def _turned(points: list[tuple[float, float]], angle: float) -> list[tuple[float, float]]:
    """Turns points around the origin and scales them into the pixels of a fine cell."""
    sine, cosine = math.sin(angle), math.cos(angle)
    return [(x * cosine - y * sine, x * sine + y * cosine) for x, y in points]


def _polygon(shape: str) -> list[tuple[float, float]]:
    """Returns the outline of a shape of radius one, y pointing down."""
    if shape == "square":
        return [(-0.8, -0.8), (0.8, -0.8), (0.8, 0.8), (-0.8, 0.8)]
    if shape == "diamond":
        return [(0, -1.1), (0.68, 0), (0, 1.1), (-0.68, 0)]
    if shape == "triangle":
        return [(0, -1.0), (0.98, 0.78), (-0.98, 0.78)]
    if shape == "cross":
        arm, end = 0.3, 1.0
        quarter = [(arm, -end), (arm, -arm), (end, -arm)]
        return [p for k in range(4) for p in _turned(quarter, k * math.pi / 2)]
    if shape == "star":
        radii = [1.1, 0.42] * 5
        angles = [math.pi * k / 5 for k in range(10)]
        return [(r * math.sin(a), -r * math.cos(a)) for r, a in zip(radii, angles, strict=True)]
    angles = [2 * math.pi * k / 48 for k in range(48)]
    return [_heart_point(angle) for angle in angles]


def _heart_point(angle: float) -> tuple[float, float]:
    height = 13 * math.cos(angle) - 5 * math.cos(2 * angle)
    height -= 2 * math.cos(3 * angle) + math.cos(4 * angle)
    return math.sin(angle) ** 3 * 1.05, -(height + 2.5) / 15.5


def _thing_mask(thing: Thing, rng: np.random.Generator) -> tuple[FloatArray, int, int]:
    """Returns the coverage (0-1) of a cell by an object, and the cell's top and left."""
    radius = _RADIUS[thing.size] * rng.uniform(0.93, 1.05) * _FINE
    reach = _JITTER[thing.size] * _FINE
    middle = CELL * _FINE / 2
    x, y = middle + rng.uniform(-reach, reach, 2)
    angle = math.radians(rng.uniform(-12, 12))
    mask = Image.new("L", (CELL * _FINE, CELL * _FINE), 0)
    pen = ImageDraw.Draw(mask)
    if thing.shape in ("circle", "ring"):
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
        if thing.shape == "ring":
            hole = radius * 0.58
            pen.ellipse((x - hole, y - hole, x + hole, y + hole), fill=0)
    else:
        corners = _turned(_polygon(thing.shape), angle)
        pen.polygon([(x + px * radius, y + py * radius) for px, py in corners], fill=255)
    coverage = np.asarray(mask.reduce(_FINE), dtype=np.float32) / np.float32(255)
    return coverage, thing.row * CELL, thing.col * CELL


def _draw_digits(digits: Digits, rng: np.random.Generator, glyphs: ByteArray) -> FloatArray:
    """Draws handwritten digits from left to right, each in a column of its own."""
    canvas, tint = _ground_and_ink(rng)
    columns = np.sort(rng.choice(3, size=len(digits.values), replace=False)).astype(np.float32)
    columns += rng.uniform(-0.1, 0.1)
    height = rng.uniform(18, 78)
    for glyph, column in zip(glyphs, columns, strict=True):
        mask = _glyph_mask(glyph, rng)
        size = len(mask)
        top = round(height + rng.uniform(-5, 5) - size / 2)
        left = round((column + 0.5) * CELL - size / 2)
        _blend(canvas, mask, max(0, min(top, SIDE - size)), max(0, left), tint)
    return canvas


def _draw_sheet(sheet: Sheet, rng: np.random.Generator, glyphs: ByteArray) -> FloatArray:
    """Draws handwritten digits, each in a cell of its own."""
    canvas, tint = _ground_and_ink(rng)
    places = [n for n, value in enumerate(sheet.cells) if value is not None]
    for glyph, place in zip(glyphs, places, strict=True):
        mask = _glyph_mask(glyph, rng)
        middle = (np.array(divmod(place, 3)) + 0.5) * CELL + rng.uniform(-3, 3, 2)
        top, left = np.clip(np.round(middle - len(mask) / 2), 0, SIDE - len(mask)).astype(int)
        _blend(canvas, mask, int(top), int(left), tint)
    return canvas


def _glyph_mask(glyph: ByteArray, rng: np.random.Generator) -> FloatArray:
    """Returns the coverage (0-1) of a square by a handwritten digit, a little turned."""
    size = round(rng.uniform(26, 32))
    image = Image.fromarray((glyph * 15.9).astype(np.uint8))
    image = image.resize((size, size), Image.Resampling.BICUBIC)
    image = image.rotate(rng.uniform(-10, 10), Image.Resampling.BICUBIC)
    return np.clip(np.asarray(image, dtype=np.float32) / np.float32(190), 0, 1)


@functools.lru_cache(maxsize=64)
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=size)


def _word_mask(text: str, rng: np.random.Generator) -> tuple[FloatArray, int, int]:
    """Returns the coverage (0-1) of the text's box, and the box's top and left."""
    size = int(rng.integers(20, 33))
    while size > 14 and _font(size).getlength(text) > SIDE - 12:
        size -= 1
    box = _font(size).getbbox(text)
    width, height = math.ceil(box[2] - box[0]) + 6, math.ceil(box[3] - box[1]) + 10
    image = Image.new("L", (width, height), 0)
    ImageDraw.Draw(image).text((3 - box[0], 5 - box[1]), text, fill=255, font=_font(size))
    image = image.rotate(rng.uniform(-4, 4), Image.Resampling.BICUBIC)
    top = int(rng.integers(0, SIDE - height + 1))
    left = int(rng.integers(0, SIDE - width + 1))
    return np.asarray(image, dtype=np.float32) / np.float32(255), top, left
