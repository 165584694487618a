"""Which way pictures are shown, by the environment, and how large."""

import base64
import io
import re

import pytest
from PIL import Image

from omnitune.serving.options import Pictures
from omnitune.serving.terminal.screen import Size, drawn, picture_way


@pytest.mark.parametrize(
    ("environ", "way"),
    [
        ({"TERM": "xterm-kitty", "KITTY_WINDOW_ID": "1"}, "kitty"),
        ({"TERM": "xterm-256color", "KITTY_WINDOW_ID": "1"}, "kitty"),
        ({"TERM": "xterm-ghostty"}, "kitty"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "ghostty"}, "kitty"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "iTerm.app"}, "iterm"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "WezTerm"}, "iterm"),
        ({"TERM": "xterm-256color", "LC_TERMINAL": "iTerm2"}, "iterm"),
        ({"TERM": "foot"}, "sixel"),
        ({"TERM": "mlterm-256color"}, "sixel"),
        ({"TERM": "xterm-kitty", "NO_COLOR": "1"}, "kitty"),  # a picture is no coloured text
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "Apple_Terminal"}, "blocks"),
        ({"TERM": "screen-256color", "KITTY_WINDOW_ID": "1", "TMUX": "x"}, "blocks"),
        ({"TERM": "xterm-256color", "NO_COLOR": "1"}, "none"),
        ({"TERM": "xterm-256color", "NO_COLOR": ""}, "blocks"),
        ({"TERM": "dumb", "KITTY_WINDOW_ID": "1"}, "none"),
        ({"TERM": "vt100"}, "none"),
        ({"TERM": "linux", "COLORTERM": "truecolor"}, "blocks"),
        ({}, "none"),
    ],
)
def test_the_environment_tells_the_way(environ: dict[str, str], way: Pictures) -> None:
    assert picture_way("auto", environ, is_terminal=True) == way
    assert picture_way("auto", environ, is_terminal=False) == "none"
    assert picture_way("sixel", environ, is_terminal=False) == "sixel"  # as asked for
    if way == "blocks":
        assert picture_way("auto", environ, True, encoding="latin-1") == "none"


SIZE = Size(80, 40, (10, 20))


def shown(image: Image.Image, size: Size = SIZE) -> Image.Image:
    """What kitty is sent."""
    data = "".join(re.findall(r"_G[^;]*;([^\x1b]*)\x1b", drawn(image, "kitty", size, {})))
    return Image.open(io.BytesIO(base64.b64decode(data)))


@pytest.mark.parametrize("size", [(2000, 1000), (1000, 2000), (300, 300), (30, 20), (1, 1)])
def test_pictures_fit_and_keep_their_aspect(size: tuple[int, int]) -> None:
    found = shown(Image.new("RGB", size))
    assert found.width <= 640
    assert found.height <= 320
    assert max(found.width / 640, found.height / 320) > 0.5  # and are no specks
    assert found.width / found.height == pytest.approx(size[0] / size[1], rel=0.02)


@pytest.mark.parametrize("terminal", [SIZE, Size(20, 10), Size(1, 1)])
@pytest.mark.parametrize("size", [(400, 400), (900, 30), (30, 900), (16, 16)])
def test_blocks_fit_the_terminal(size: tuple[int, int], terminal: Size) -> None:
    text = drawn(Image.new("RGB", size, "red"), "blocks", terminal, {})
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in text.split("\n")]
    assert len(lines) <= max(2, terminal.rows // 2)
    assert len(lines[0]) <= max(4, terminal.columns - 1)


def test_colours_are_as_many_as_there_are() -> None:
    image = Image.new("RGB", (4, 4), (200, 30, 30))
    assert "38;5;" in drawn(image, "blocks", SIZE, {"TERM": "xterm-256color"})
    assert "38;2;200;30;30" in drawn(image, "blocks", SIZE, {"COLORTERM": "truecolor"})
    assert drawn(image, "none", SIZE, {}) == ""
