"""The words of an answer while it is written: whole characters only, and no further than a stop."""

from __future__ import annotations

from collections.abc import Sequence

from omnitune.data.template import ChatRenderer
from omnitune.serving.spelling import Spelling


class Wording:
    """Turns the tokens of an answer into its text, piece by piece.

    Args:
        stops: texts that end the answer and are no part of it.
        streams: whether pieces are asked for; without, the text is made once, at the end, unless
            there are stops to look for.
        spells: whether it is asked which part of the text each token is.

    Attributes:
        tokens: ids so far. said: the text that was given out.
        stopped: a stop was met.
        spelling: each token's part of the text, where that is asked for.
    """

    def __init__(
        self,
        renderer: ChatRenderer,
        stops: Sequence[str] = (),
        streams: bool = True,
        spells: bool = False,
    ) -> None:
        self.renderer, self.stops = renderer, [stop for stop in stops if stop]
        self._looks = streams or bool(self.stops)
        self.spelling = Spelling(renderer.tokenizer) if spells else None
        self.tokens: list[int] = []
        self.said = ""
        self.stopped = False

    def add(self, token: int) -> str:
        """Takes one more token; returns the text that is certain now and was not before."""
        self.tokens.append(token)
        if self.spelling:
            self.spelling.add(token, self._whole)
        if not self._looks:
            return ""
        whole = settled(self._until_stop(self.renderer.decode(self.tokens)))
        return self._say(whole[: len(whole) - self._may_become_stop(whole)])

    def finish(self) -> str:
        """The rest of the text, when there are no more tokens."""
        piece = self._say(self._until_stop(self.renderer.decode(self.tokens)))
        if self.spelling:
            self.spelling.end(self._whole, self.said)
        return piece

    @property
    def _whole(self) -> str:
        """The text with the blanks around it."""
        return self.renderer.tokenizer.decode(self.tokens, skip_special_tokens=True)

    def _say(self, whole: str) -> str:
        if not whole.startswith(self.said):
            return ""
        piece, self.said = whole[len(self.said) :], whole
        return piece

    def _until_stop(self, text: str) -> str:
        places = [place for stop in self.stops if (place := text.find(stop)) >= 0]
        self.stopped = self.stopped or bool(places)
        return text[: min(places)] if places else text

    def _may_become_stop(self, text: str) -> int:
        """Characters at the end of a text with which a stop may begin."""
        if self.stopped:
            return 0
        return max(
            (n for stop in self.stops for n in range(1, len(stop)) if text.endswith(stop[:n])),
            default=0,
        )


def settled(text: str) -> str:
    """A text without a last character of which bytes may still be missing."""
    return text.rstrip("\N{REPLACEMENT CHARACTER}").rstrip()
