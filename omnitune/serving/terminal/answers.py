"""Answers on the screen: Markdown as it is meant where that can be shown, else the bare text."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterable, Sequence
from typing import ClassVar

from markdown_it import MarkdownIt
from markdown_it.token import Token
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.markdown import CodeBlock, Heading, Markdown
from rich.segment import Segment
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from omnitune.serving.streams import printable
from omnitune.serving.terminal.screen import environment, is_dumb

NAME = "model>"
PAUSE = 0.05  # seconds between two drawings of a growing answer
FENCE = re.compile(r"^ {0,3}(```|~~~)")
# What Markdown gives another look. Other text is shown as it is, line by line.
MARKED = re.compile(
    r"[`|]|\*\S|_\S.*_|~~|\[.*\]\(|^ {0,3}(#{1,6} |>|[-+*] \S|\d{1,9}[.)] \S|[-=*_]{3,} *$)", re.M
)


def styled_console() -> Console | None:
    """For an output that understands more than letters; None for any other."""
    console = Console(file=sys.stdout, highlight=False, emoji=False, markup=False)
    return console if console.is_terminal and not is_dumb(environment()) else None


def say(text: str, style: str = "") -> None:
    """Writes a line, broken between words where the output is a terminal."""
    if console := styled_console():
        console.print(Text(printable(text), style))
    else:
        print(printable(text), flush=True)


def aside(text: str) -> None:
    """Writes what the program says beside the conversation."""
    say(f"({text})", "dim")


def write_answer(pieces: Iterable[str]) -> None:
    """Writes an answer as it comes, a line begun behind it."""
    if console := styled_console():
        _write_rendered(console, pieces)
        return
    print(NAME, end=" ", flush=True)
    try:
        for piece in pieces:
            print(printable(piece), end="", flush=True)
    finally:
        print()


def _write_rendered(console: Console, pieces: Iterable[str]) -> None:
    """Draws the block that grows anew with each piece; what is above it stays."""
    text, name, above = "", NAME, False
    live = _live(console)
    try:
        live.start()
        live.update(_Newest(_row(name, ""), console), refresh=True)
        drawn = 0.0
        for piece in pieces:
            text += printable(piece)
            whole, text = _whole_blocks(text)
            for block in whole:
                live.update(_spaced(_row(name, block), above))
                live.stop()  # draws it: once, as it may be higher than the screen
                name, above, drawn = "", True, 0.0
                live = _live(console)
                live.start()
            if time.monotonic() - drawn > PAUSE:
                live.update(_Newest(_spaced(_row(name, text), above), console), refresh=True)
                drawn = time.monotonic()
    finally:
        last = _spaced(_row(name, text), above) if text.strip() or name else Group()
        live.update(last)
        live.stop()


def _live(console: Console) -> Live:
    return Live(
        console=console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False,
        vertical_overflow="visible",
    )  # fmt: skip


def _spaced(block: RenderableType, above: bool) -> RenderableType:
    return Group("", block) if above else block


def _row(name: str, text: str) -> RenderableType:
    """A block of an answer beside its name, its further lines below its first."""
    grid = Table.grid(padding=(0, 1, 0, 0))
    grid.add_column(width=len(NAME), no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_row(Text(name, "bold green"), _Trimmed(rendered(text)))
    return grid


class _Newest:
    """The last lines of what is higher than the screen: what scrolled out cannot be redrawn."""

    def __init__(self, content: RenderableType, console: Console) -> None:
        self.content, self.most = content, max(1, console.size.height - 1)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from _joined(console.render_lines(self.content, options, pad=False)[-self.most :])


class _Trimmed:
    """Without the empty lines that Markdown puts around some blocks."""

    def __init__(self, content: RenderableType) -> None:
        self.content = content

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lines = console.render_lines(self.content, options, pad=False)
        filled = [n for n, line in enumerate(lines) if "".join(s.text for s in line).strip()]
        yield from _joined(lines[filled[0] : filled[-1] + 1] if filled else [])


def _joined(lines: Sequence[Sequence[Segment]]) -> RenderResult:
    for n, line in enumerate(lines):
        if n:
            yield Segment.line()
        yield from line


def _whole_blocks(text: str) -> tuple[list[str], str]:
    """Blocks that nothing can be added to, and the rest.

    A block ends with an empty line before one that is not indented, outside of code.
    """
    blocks, start, fence = [], 0, ""
    lines = text.splitlines(keepends=True)
    place = 0
    for n, line in enumerate(lines):
        if (found := FENCE.match(line)) and (not fence or found[1] == fence):
            fence = "" if fence else found[1]
        place += len(line)
        after = lines[n + 1] if n + 1 < len(lines) else ""
        ends = not line.strip() and line.endswith("\n") and after[:1].strip() and not fence
        if ends and text[start:place].strip():
            blocks.append(text[start:place].strip("\n"))
            start = place
    return blocks, text[start:]


def rendered(text: str) -> RenderableType:
    """A text as its Markdown means it. Nothing that it says is lost, HTML neither."""
    if not MARKED.search(text):
        return Text(text.strip("\n"))
    found = _Markdown("", code_theme="ansi_dark", hyperlinks=False)
    parser = MarkdownIt("commonmark", {"html": False}).enable("strikethrough").enable("table")
    found.parsed = parser.parse(text)
    _keep_lines(found.parsed)
    return found


def _keep_lines(tokens: Iterable[Token]) -> None:
    """A new line of an answer is one on the screen, too."""
    for token in tokens:
        if token.type == "softbreak":
            token.type = "hardbreak"
        _keep_lines(token.children or ())


class _Heading(Heading):
    LEVEL_ALIGN: ClassVar = dict.fromkeys(Heading.LEVEL_ALIGN, "left")


class _CodeBlock(CodeBlock):
    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        code = str(self.text).rstrip()
        yield Syntax(code, self.lexer_name, theme=self.theme, word_wrap=True, padding=(0, 1))


class _Markdown(Markdown):
    elements: ClassVar = {
        **Markdown.elements,
        "heading_open": _Heading,
        "fence": _CodeBlock,
        "code_block": _CodeBlock,
    }
