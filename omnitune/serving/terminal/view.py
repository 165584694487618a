"""How media look in a terminal: their sketch in letters, or else their picture."""

from __future__ import annotations

import sys

from omnitune.media.registry import MEDIA
from omnitune.sample import Media, UserError
from omnitune.serving.options import Pictures
from omnitune.serving.terminal import screen

SKETCH_WIDTH = 56
PICTURE_SIDE = 1024  # pixels


class View:
    """Shows media.

    Args:
        pictures: how to show them.
    """

    def __init__(self, pictures: Pictures = "auto") -> None:
        encoding = (getattr(sys.stdout, "encoding", None) or "ascii").lower()
        on_screen = bool(sys.stdout and sys.stdout.isatty())
        self.way = screen.picture_way(pictures, screen.environment(), on_screen, encoding)
        self.letters = on_screen and encoding.startswith("utf")

    def show(self, medium: Media) -> None:
        """Shows a medium, as far as the terminal can show it and it can be shown."""
        shown = MEDIA[medium.modality]
        try:
            sketch = shown.sketch(medium.path, SKETCH_WIDTH) if self.letters else ""
            image = None
            if not sketch and self.way != "none":
                image = shown.picture(medium.path, PICTURE_SIDE)
        except UserError:  # it can be heard or seen by the model only
            return
        if image:
            size = screen.terminal_size()
            sketch = screen.drawn(image, self.way, size, screen.environment())
        if sketch:
            print(sketch, flush=True)
