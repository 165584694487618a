"""What each protocol says, read back by a small reader of its own."""

import base64
import io
import re
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from omnitune.serving.terminal import graphics


def picture(width: int = 30, height: int = 20, colours: int = 7) -> Image.Image:
    """Patches of a few colours."""
    draw = np.random.default_rng(width * height)
    palette = draw.integers(0, 256, (colours, 3))
    small = palette[draw.integers(0, colours, (-(-height // 4), -(-width // 4)))]
    pixels = small.repeat(4, axis=0).repeat(4, axis=1)[:height, :width]
    return Image.fromarray(pixels.astype(np.uint8))


def noise(side: int) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3))
    return Image.fromarray(pixels.astype(np.uint8))


def same(found: bytes, image: Image.Image) -> bool:
    return np.array_equal(np.asarray(Image.open(io.BytesIO(found))), np.asarray(image))


@pytest.mark.parametrize("image", [picture(), noise(80)])
def test_kitty_sends_png_in_chunks(image: Image.Image) -> None:
    commands = re.findall(r"\x1b_G([^;]*);([A-Za-z0-9+/=]*)\x1b\\", graphics.kitty(image))
    keys = [dict(pair.split("=") for pair in keys.split(",")) for keys, _ in commands]
    assert keys[0].items() >= {"a": "T", "f": "100", "q": "2"}.items()  # no reply is typed for us
    assert all(set(rest) == {"m"} for rest in keys[1:])
    assert [key["m"] for key in keys] == ["1"] * (len(keys) - 1) + ["0"]
    assert all(len(data) == graphics.KITTY_CHUNK for _, data in commands[:-1])
    assert (len(commands) > 1) is (image.width == 80)
    assert same(base64.b64decode("".join(data for _, data in commands)), image)


def test_iterm_sends_png() -> None:
    image = picture()
    found = re.fullmatch(r"\x1b\]1337;File=([^:]*):([^\a]*)\a", graphics.iterm(image))
    assert found
    png = base64.b64decode(found[2])
    keys = dict(pair.split("=") for pair in found[1].split(";"))
    assert keys["inline"] == "1"
    assert (keys["width"], keys["height"], keys["size"]) == ("30px", "20px", str(len(png)))
    assert same(png, image)


def read_sixels(text: str) -> np.ndarray:
    """Draws what sixels say ``[H, W, 3]``, in percent; what nothing was drawn on is -1."""
    head = re.match(r'\x1bP[0-9;]*q"1;1;(\d+);(\d+)', text)
    assert head
    assert text.endswith("\x1b\\")
    width, height = int(head[1]), int(head[2])
    canvas = np.full((-(-height // 6) * 6, width, 3), -1)
    palette: dict[int, list[int]] = {}
    colour = column = top = 0
    tokens = r"#(\d+);2;(\d+);(\d+);(\d+)|#(\d+)|!(\d+)([?-~])|([$-])|([?-~])"
    for found in re.finditer(tokens, text[head.end() : -2]):
        number, *shares, chosen, count, repeated, move, letter = found.groups()
        if number:
            palette[int(number)] = [int(share) for share in shares]
        elif chosen:
            colour, column = int(chosen), 0 if column == width else column
        elif move:
            column, top = 0, top + 6 * (move == "-")
        else:
            bits = ord(repeated or letter) - 63
            rows = [top + row for row in range(6) if bits >> row & 1]
            end = column + int(count or 1)
            canvas[rows, column:end] = palette[colour]
            column = end
    assert top >= height  # every band was ended
    return canvas


@pytest.mark.parametrize("size", [(30, 20), (1, 1), (7, 6), (64, 13)])
def test_sixels_draw_every_pixel_once(size: tuple[int, int]) -> None:
    image = picture(*size)
    canvas = read_sixels(graphics.sixel(image))
    height = size[1]
    assert (canvas[height:] == -1).all()  # below the picture nothing is drawn
    wanted = np.asarray(image) / 2.55
    assert np.abs(canvas[:height] - wanted).max() <= 1


def test_sixels_of_many_colours_come_near() -> None:
    image = noise(60).resize((120, 120), Image.Resampling.BICUBIC)
    canvas = read_sixels(graphics.sixel(image))
    assert canvas.min() >= 0
    assert np.abs(canvas - np.asarray(image) / 2.55).mean() < 10


def read_blocks(text: str, value: Callable[[str], tuple[int, ...]]) -> np.ndarray:
    """Draws half-blocks ``[H, W, 3]``; -1 where the terminal's own ground is."""
    rows: list[list[tuple[int, ...]]] = []
    for line in text.split("\n"):
        upper: list[tuple[int, ...]] = []
        lower: list[tuple[int, ...]] = []
        above = below = ""
        for code, sign in re.findall(r"\x1b\[([0-9;]*)m|(.)", line):
            if sign:
                assert sign == "▀"
                upper.append(value(above))
                lower.append(value(below) if below else (-1,) * 3)
            elif found := re.fullmatch(r"38;(2;\d+;\d+;\d+|5;\d+);(?:48;(.*)|49)", code):
                above, below = found[1], found[2] or ""
            else:
                assert code == "0"
        assert line.endswith("\x1b[0m")  # the rest of the line has no colour
        rows += [upper, lower]
    return np.array(rows)


def of_256(name: str) -> tuple[int, ...]:
    kind, number = map(int, name.split(";"))
    assert kind == 5
    if number >= 232:
        return (8 + 10 * (number - 232),) * 3
    levels = (0, 95, 135, 175, 215, 255)
    cube = number - 16
    return levels[cube // 36], levels[cube // 6 % 6], levels[cube % 6]


@pytest.mark.parametrize("size", [(30, 20), (5, 7), (1, 1)])
def test_blocks_of_24_bits_are_the_pixels(size: tuple[int, int]) -> None:
    image = picture(*size)
    found = read_blocks(
        graphics.blocks(image, true_colour=True), lambda name: tuple(map(int, name.split(";")[1:]))
    )
    assert np.array_equal(found[: size[1]], np.asarray(image))
    assert (found[size[1] :] == -1).all()


def test_blocks_of_256_colours_are_the_nearest() -> None:
    image = noise(16)
    found = read_blocks(graphics.blocks(image, true_colour=False), of_256)
    every = np.array([of_256(f"5;{number}") for number in range(16, 256)])
    wanted = np.asarray(image).astype(int)
    distance = np.square(every[None, None] - wanted[:, :, None]).sum(axis=-1).min(axis=-1)
    assert np.array_equal(np.square(found - wanted).sum(axis=-1), distance)


def test_one_colour_is_said_once_a_line() -> None:
    text = graphics.blocks(Image.new("RGB", (40, 4), "red"), true_colour=True)
    assert text.count("\x1b[38;") == 2
