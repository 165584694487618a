"""Which letters and bytes of an answer each of its tokens is: together they are the answer."""

from __future__ import annotations

import re
from functools import cache
from typing import NamedTuple

from tokenizers import Tokenizer

_ONE_BYTE = re.compile(r"<0x([0-9A-F]{2})>")  # as tokenizers of the SentencePiece family write it
_HALF = "\N{REPLACEMENT CHARACTER}"


class Spelled(NamedTuple):
    """What one token adds to a text.

    Attributes:
        text: whole characters; one of several tokens is the last one's.
        content: its own bytes, also where they are a part of a character.
    """

    text: str
    content: bytes


class Spelling:
    """Shares the text of an answer out to its tokens.

    The blank before the first word is nobody's, as the answer does not have it.

    Attributes:
        parts: of the tokens whose characters are complete.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.parts: list[Spelled] = []
        self._open: list[int] = []  # tokens whose last character is not complete yet
        self._text = ""  # of the parts
        self._within = self._length = 0  # tokens that were in the answer so far, and their letters

    def add(self, token: int, whole: str) -> None:
        """Takes a token and the text of all tokens so far."""
        self._open.append(token)
        if not whole.endswith(_HALF):
            self._close(whole.lstrip())

    def end(self, whole: str, answer: str) -> None:
        """There are no more tokens: the answer is the beginning of the text, or all of it."""
        if self._open:
            self._close(whole.lstrip(), at_end=True)
        length, room = len(answer), len(answer.encode())
        cut: list[Spelled] = []
        for part in self.parts:
            cut.append(Spelled(part.text[:length], part.content[:room]))
            length -= len(cut[-1].text)
            room -= len(cut[-1].content)
        self.parts = cut  # at once: another thread may read them

    def within(self, answer: str) -> int:
        """How many tokens are in an answer that goes on; to be asked as it grows."""
        room = len(answer) - self._length
        for number in range(self._within, len(self.parts)):
            part = self.parts[number]
            room -= len(part.text)
            if room < 0:
                break
            # A part of a character goes with the token that completes it.
            if part.text or not part.content:
                self._within, self._length = number + 1, len(answer) - room
        return self._within

    def _close(self, whole: str, at_end: bool = False) -> None:
        if not whole.startswith(self._text):
            if not at_end:  # later tokens may mend it
                return
            whole = self._text
        more, self._text = whole[len(self._text) :], whole
        *first, last = self._bytes_of(more.encode())
        self.parts += [Spelled("", content) for content in first]
        self.parts.append(Spelled(more, last))
        self._open = []

    def _bytes_of(self, content: bytes) -> list[bytes]:
        """The bytes of each open token; all are the last one's where nobody can tell."""
        each = [bytes_of(self.tokenizer, token) or b"" for token in self._open]
        if len(each) > 1 and not self._text:  # the blank before the first word
            each[0] = each[0].lstrip()
        if len(each) > 1 and b"".join(each) == content:
            return each
        return [*[b""] * (len(each) - 1), content]


def bytes_of(tokenizer: Tokenizer, token: int) -> bytes | None:
    """The bytes that a token stands for; None where it has no such, or nobody knows them."""
    piece = tokenizer.id_to_token(token) or ""
    if found := _ONE_BYTE.fullmatch(piece):
        return bytes([int(found[1], 16)])
    if "ByteLevel" in repr(tokenizer.decoder):
        letters = _byte_letters()
        return bytes(letters[c] for c in piece) if set(piece) <= letters.keys() else None
    text = tokenizer.decode([token], skip_special_tokens=False)
    return None if _HALF in text else text.encode()


@cache
def _byte_letters() -> dict[str, int]:
    """The letter that a byte-level tokenizer writes for each byte.

    A byte that prints in Latin-1 is written as it is, the others are numbered from 256 on.
    """
    shown = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    hidden = [byte for byte in range(256) if byte not in shown]
    return {chr(b): b for b in shown} | {chr(256 + n): b for n, b in enumerate(hidden)}
