"""Answers on a terminal: their Markdown, as they grow; without one, the bare text."""

import io
import os
import re
import sys
from collections.abc import Callable, Iterator

import pytest

from omnitune.serving.terminal import answers
from omnitune.serving.terminal.answers import write_answer

LONG = "\n".join(f"- **line** {n}" for n in range(80))


class Output(io.StringIO):
    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


@pytest.fixture
def write(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """What is written of an answer that comes in small pieces."""
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("LINES", "20")
    monkeypatch.delenv("NO_COLOR", raising=False)

    def run(text: str, terminal: bool = True, term: str = "xterm-256color", step: int = 5) -> str:
        output = Output(terminal)
        monkeypatch.setenv("TERM", term)
        monkeypatch.setattr(sys, "stdout", output)
        write_answer(text[n : n + step] for n in range(0, len(text), step))
        monkeypatch.setattr(sys, "stdout", sys.__stdout__)
        return output.getvalue()

    return run


def screen(written: str) -> list[str]:
    """The lines that stand there in the end, without colours."""
    lines, row = [""], 0
    for found in re.finditer(
        r"\x1b\[(\d*)A|\x1b\[2K|\x1b\[[0-9;?]*[A-Za-z]|(\r)|(\n)|([^\x1b])", written
    ):
        up, _, newline, sign = found[1], found[2], found[3], found[4]
        if found[0].endswith("A") and not sign:
            row -= int(up or 1)
            assert row >= 0
        elif found[0] == "\x1b[2K":
            lines[row] = ""
        elif newline:
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif sign:
            lines[row] += sign
    return [line.rstrip() for line in lines]


@pytest.mark.parametrize(("terminal", "term"), [(False, "xterm"), (True, "dumb")])
def test_the_bare_text_without_a_terminal(
    write: Callable[..., str], terminal: bool, term: str
) -> None:
    assert write("**a** [b](c)\n\n# d", terminal, term) == "model> **a** [b](c)\n\n# d\n"


@pytest.mark.parametrize("step", [1, 3, 1000])
def test_markdown_is_shown_as_it_is_meant(write: Callable[..., str], step: int) -> None:
    text = "# Title\n**bold** and `code`\n\n- one\n- two\n\n```\nx = 1\n\ny = 2\n```\nend"
    written = write(text, step=step)
    assert screen(written) == [
        "model> Title",
        "",
        "       bold and code",
        "",
        "        • one",
        "        • two",
        "",
        "        x = 1",
        "",
        "        y = 2",
        "",
        "       end",
        "",
    ]
    assert "\x1b[1m" in written


@pytest.mark.parametrize(
    "text",
    ["7.", "2 * 3 * 4 = 24", "<b>x</b> & 1 < 2", "a_b_c", ":smile: [red]x[/red]", "one\ntwo", "#1"],
)
def test_plain_words_stay_as_they_are(write: Callable[..., str], text: str) -> None:
    shown = [line[7:] for line in screen(write(text))[:-1]]
    assert "\n".join(shown) == text


def test_html_and_new_lines_stay_in_markdown(write: Callable[..., str]) -> None:
    text = "**a** <script>b</script>\nc <img src=x>"
    assert screen(write(text))[:2] == ["model> a <script>b</script>", "       c <img src=x>"]


def test_links_do_not_hide_where_they_lead(write: Callable[..., str]) -> None:
    written = write("[safe](https://other.example/x)")
    assert "\x1b]8" not in written
    assert screen(written)[0] == "model> safe (https://other.example/x)"


def test_what_scrolled_out_is_not_redrawn(
    write: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "PAUSE", 0)
    written = write(LONG, step=40)
    ups = [run.count("A") for run in re.findall(r"(?:\x1b\[1A\x1b\[2K)+", written)]
    assert 10 < max(ups) < 20
    lines = [line.removeprefix("model>").strip() for line in screen(written) if "line" in line]
    assert lines[-80:] == [f"• line {n}" for n in range(80)]


def test_control_characters_are_left_out(write: Callable[..., str]) -> None:
    assert "\x1b]0;" not in write("a\x1b]0;title\x07b", step=100)
    assert "\x07" not in write("**a**\x07")


@pytest.mark.parametrize("term", ["xterm", "dumb"])
def test_a_stopped_answer_ends_its_line(monkeypatch: pytest.MonkeyPatch, term: str) -> None:
    output = Output(True)
    monkeypatch.setenv("TERM", term)
    monkeypatch.setattr(sys, "stdout", output)

    def pieces() -> Iterator[str]:
        yield "half an **ans"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_answer(pieces())
    assert screen(output.getvalue()) == ["model> half an **ans", ""]
    assert os.environ["TERM"] == term


def test_no_colours_where_they_are_not_wanted(
    write: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    written = write("`code` and **bold**\n\n```python\nx = 1\n```")
    assert not re.search(r"\x1b\[[0-9;]*(3[0-9]|4[0-9])[;m]", written)
