"""Pages: one HTML file that needs no network, made from plain data and the folder ``templates``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from omnitune.reporting.tables import compare_scores, write_interval, write_score

# A macro of ``templates/blocks.html`` and its arguments, plain words and numbers.
Block = tuple[str, dict[str, Any]]


@dataclass(frozen=True)
class Section:
    """A part of a page.

    Attributes:
        note: how to read it, in a sentence or two.
    """

    heading: str
    note: str
    blocks: Sequence[Block] = ()

    @property
    def anchor(self) -> str:
        """Its name in links."""
        return self.heading.lower().replace(" ", "-")


def render_page(
    kind: str, title: str, sections: Sequence[Section], opening: Sequence[Block] = ()
) -> str:
    """Renders a page as HTML.

    Args:
        kind: what page it is, such as ``report``.
        opening: what stands between the title and the list of sections.
    """
    page = _ENVIRONMENT.get_template("page.html")
    return page.render(kind=kind, title=title, sections=sections, opening=opening)


def _split_name(name: str) -> list[str]:
    """The pieces between which a line may break: after ``_`` and ``/``, and a dot of no number."""
    return re.split(r"(?<=[_/])|(?<=\.)(?!\d)", name)


_ENVIRONMENT = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_ENVIRONMENT.filters |= {"pieces": _split_name, "score": write_score, "interval": write_interval}
_ENVIRONMENT.globals["compare_scores"] = compare_scores
