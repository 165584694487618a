"""Renders through a pretrained thinker's own chat template (Jinja), as it is.

A template is rendered with marks in place of what the messages say. What stands between the marks
is the template's; what messages say is laid in afterwards and never becomes a control token. An
answer stands where the prompt that asks for it ends, so that a row of training begins, up to each
answer, as the prompt that is served. Templates that write earlier turns in another way than the
last one (those that take thoughts out of the history) are so read turn by turn.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from tokenizers import Tokenizer
from transformers.utils.chat_template_utils import render_jinja_template

from omnitune.data.template import ChatRenderer, Rendered, Slots, placeholder
from omnitune.sample import ContentPart, Media, Message, Text, UserError

MARK = re.compile("\ue000([0-9]+)\ue001")  # private characters: no template writes them
PROBE = ("system", "user", "assistant", "user", "assistant")


@dataclass(frozen=True)
class ChatTemplate:
    """A thinker's template and the tokens that it speaks of.

    Attributes:
        source: Jinja.
        special_tokens: by name, such as ``eos_token``.
        ends: tokens at which an answer ends, whatever the template writes there.
        name: where it is from, for errors.
    """

    source: str
    special_tokens: dict[str, str]
    ends: tuple[str, ...]
    name: str = "the chat template"


class Gap(NamedTuple):
    """What the template writes before a message's content.

    Attributes:
        context: read, never learnt.
        lead: written by the assistant before its answer; learnt with it.
    """

    context: str
    lead: str = ""


class TemplateRenderer(ChatRenderer):
    """Renders as a pretrained thinker's template does.

    Args:
        tokenizer: the thinker's, with the placeholders of the media that it is to render.

    Raises:
        UserError: the template cannot be rendered, or leaves out what messages say.
    """

    def __init__(self, tokenizer: Tokenizer, template: ChatTemplate) -> None:
        self.template = template
        self._fold_system = False
        self._take(tokenizer)
        self._gaps = lru_cache(maxsize=4096)(self._find_gaps)
        self._check()
        self.end = self.id_of(self._tail(("user", "assistant"), 1)[1])
        ends = {tokenizer.token_to_id(token) for token in template.ends}
        self.ends = frozenset({self.end, *(end for end in ends if end is not None)})

    @property
    def folds_system(self) -> bool:
        """Whether a system message goes into the first user's turn."""
        return self._fold_system

    def _take(self, tokenizer: Tokenizer) -> None:
        """Makes two tokenizers of one: that for what messages say knows no control tokens."""
        tokenizer.no_padding()
        tokenizer.no_truncation()
        tokenizer.encode_special_tokens = False
        self._control = tokenizer
        values = json.loads(tokenizer.to_str())
        for token in values["added_tokens"]:
            token["special"] = True
        self.tokenizer = Tokenizer.from_str(json.dumps(values))
        self.tokenizer.encode_special_tokens = True
        self.encode = lru_cache(maxsize=65_536)(self._encode)
        self._joined = lru_cache(maxsize=65_536)(self._encode_joined)
        names = sorted((t["content"] for t in values["added_tokens"]), key=len, reverse=True)
        self._tokens = re.compile("|".join(map(re.escape, names)) or r"(?!)")

    def add_tokens(self, tokens: Sequence[str]) -> None:
        """Adds control tokens, such as placeholders."""
        self._control.add_special_tokens(list(tokens))
        self._take(self._control)

    def state(self) -> dict[str, Any]:
        """What :func:`renderer_of` makes the renderer from, as a checkpoint holds it."""
        return {"tokenizer": self._control.to_str(), "chat": asdict(self.template)}

    def _check(self) -> None:
        """Finds out what the template can do.

        A system message that it refuses, or writes elsewhere than in front, goes into the first
        user's turn.
        """
        try:
            self._gaps(PROBE, False)
            return
        except UserError:
            self._fold_system = True
            self._gaps.cache_clear()
        self._gaps(PROBE[1:], False)

    def render(self, messages: Sequence[Message], slot_counts: Sequence[int] = ()) -> Rendered:
        """As that of the base class; a row ends with the last answer's end."""
        return self._write(messages, slot_counts, prompt=False)

    def render_prompt(
        self, messages: Sequence[Message], slot_counts: Sequence[int] = ()
    ) -> Rendered:
        """As that of the base class."""
        return self._write(messages, slot_counts, prompt=True)

    def _write(
        self, messages: Sequence[Message], slot_counts: Sequence[int], prompt: bool
    ) -> Rendered:
        roles = tuple(message.role for message in messages)
        gaps = self._gaps(roles, prompt)
        counts = iter(slot_counts)
        out, waiting = Rendered(), _Waiting(self)
        for index, (message, gap) in enumerate(zip(messages, gaps[:-1], strict=True)):
            waiting.control(gap.context)
            if message.role != "assistant":
                self._write_parts(out, waiting, message.parts, counts)
                continue
            waiting.flush(out)
            start = len(out.tokens)
            waiting.control(gap.lead)
            self._write_parts(out, waiting, message.parts, counts, message.learnt)
            waiting.control(self._tail(roles, index)[0])
            waiting.flush(out, message.learnt)
            if message.learnt:
                out.turns.append((index, start, len(out.tokens)))
            else:
                out.masked.append((start, len(out.tokens)))
        waiting.control(gaps[-1].context)
        waiting.flush(out)
        return out

    def _write_parts(
        self,
        out: Rendered,
        waiting: _Waiting,
        parts: Sequence[ContentPart],
        counts: Iterator[int],
        supervised: bool = False,
    ) -> None:
        for part in parts:
            if isinstance(part, Text):
                waiting.say(part.text.strip())
            elif isinstance(part, Media):
                waiting.flush(out, supervised)
                slots = Slots(part, len(out.tokens), next(counts))
                out.slots.append(slots)
                waiting.before = placeholder(part.modality)
                self._append(out, [self.id_of(waiting.before)] * slots.count)

    def _find_gaps(self, roles: tuple[str, ...], prompt: bool) -> list[Gap]:
        """What stands before each content, and at last what opens the assistant's turn."""
        gaps: list[Gap] = []
        answers = [n for n, role in enumerate(roles) if role == "assistant"]
        for place in answers:
            asked = self._between(roles[:place], prompt=True)
            opening, lead = self._lead(roles[:place], asked)
            *before, last = self._after(roles, gaps, asked)
            gaps += [*map(Gap, before), Gap(last + opening, lead)]
        if len(gaps) < len(roles) or prompt:
            pieces = self._between(roles, prompt=prompt)
            opening = self._lead(roles, pieces)[0] if prompt and roles[-1:] == ("user",) else ""
            *before, last = self._after(roles, gaps, pieces)
            gaps += [*map(Gap, before), Gap(last + opening)]
        else:
            gaps.append(Gap(""))
        if not prompt and roles and roles[-1] == "assistant":
            gaps[-1] = Gap("")
        return gaps

    def _lead(self, roles: tuple[str, ...], asked: Sequence[str]) -> tuple[str, str]:
        """What the template writes between the prompt and an answer: control tokens, and the rest.

        Control tokens that every answer begins with (the channel of gpt-oss) are part of the
        prompt: nothing is to be learnt there, and an answer is what is said. A space is not: it is
        often one token with the first word.

        Args:
            asked: the pieces of the prompt.
        """
        told = self._between((*roles, "assistant"))[len(roles)]
        lead = told.removeprefix(asked[-1]) if told.startswith(asked[-1]) else ""
        ends = [found.end() for found in self._tokens.finditer(lead)]
        if not ends:
            return "", lead
        rest = lead[ends[-1] :]
        space = rest[: len(rest) - len(rest.lstrip())]
        cut = ends[-1] + space.rfind("\n") + 1
        return lead[:cut], lead[cut:]

    @property
    def opening(self) -> str:
        """What an answer's prompt ends with beside the template's own generation prompt."""
        return self._lead(("user",), self._between(("user",), prompt=True))[0]

    def _after(self, roles: tuple[str, ...], gaps: Sequence[Gap], pieces: list[str]) -> list[str]:
        """Of the pieces of a rendering those from the last answer on, less the end of that."""
        done = len(gaps)
        rest = pieces[done:]
        if done and roles[done - 1] == "assistant" and rest:
            rest = [rest[0].removeprefix(self._tail(roles, done - 1)[0]), *rest[1:]]
        return rest

    def _tail(self, roles: tuple[str, ...], place: int) -> tuple[str, str]:
        """What ends the answer at a place, up to its last token; and that token."""
        tail = self._between(roles[: place + 1])[-1]
        if found := self._tokens.search(tail):
            return tail[: found.end()], found[0]
        end = self.template.special_tokens.get("eos_token", "")
        if not end or self._control.token_to_id(end) is None:
            raise UserError(
                f"{self.template.name}: ends no answer by a token, and the tokenizer names no "
                "eos_token"
            )
        return tail.rstrip() + end, end

    def _between(self, roles: Sequence[str], prompt: bool = False) -> list[str]:
        """What the template writes before, between and behind the contents of some messages."""
        marks = [f"\ue000{n}\ue001" for n in range(len(roles))]
        messages = [
            {"role": role, "content": mark} for role, mark in zip(roles, marks, strict=True)
        ]
        if self._fold_system and roles[:2] == ("system", "user"):
            messages[:2] = [{"role": "user", "content": f"{marks[0]}\n\n{marks[1]}"}]
        text = self._jinja(messages, prompt)
        pieces = MARK.split(text)
        if pieces[1::2] != [str(n) for n in range(len(roles))]:
            raise UserError(
                f"{self.template.name}: does not write each message once and in order (a "
                f"conversation of {', '.join(roles)}); take a thinker with another template, or "
                '"chat_template": "plain"'
            )
        return pieces[::2]

    def _jinja(self, messages: list[dict[str, str]], prompt: bool) -> str:
        names: dict[str, Any] = dict(self.template.special_tokens)
        try:
            rendered: Any = render_jinja_template(
                conversations=[messages],
                chat_template=self.template.source,
                add_generation_prompt=prompt,
                enable_thinking=False,  # a trained answer holds no thoughts
                **names,
            )
        except Exception as error:  # templates raise what they like
            said = (str(error).strip() or type(error).__name__).splitlines()[0]
            roles = ", ".join(message["role"] for message in messages)
            raise UserError(
                f"{self.template.name}: cannot render a conversation of {roles} ({said})"
            ) from None
        return rendered[0][0]

    def encode_run(self, pieces: Sequence[tuple[str, bool]], before: str = "") -> Sequence[int]:
        """Ids of pieces that follow each other, each with whether it is the template's.

        All at once, as the thinker's pretraining saw them; unless somebody says a control token.

        Args:
            before: what stands before them in the row. Many tokenizers put a space in front of a
                text, but not in its midst.
        """
        if not self.says_control(pieces):
            text = "".join(text for text, _ in pieces)
            head, whole = self._joined(before), self._joined(before + text)
            if before and whole[: len(head)] == head:
                return whole[len(head) :]
            return self._joined(text)
        return [
            token
            for text, is_control in pieces
            for token in (self._joined(text) if is_control else self.encode(text))
        ]

    def says_control(self, pieces: Sequence[tuple[str, bool]]) -> bool:
        """Whether a message holds the letters of a control token."""
        return any(self._tokens.search(text) for text, is_control in pieces if not is_control)

    def from_last_control(self, text: str) -> str:
        """The end of a text from its last control token on: no token reaches across one."""
        starts = [found.start() for found in self._tokens.finditer(text)]
        return text[starts[-1] :] if starts else text

    def _encode_joined(self, text: str) -> tuple[int, ...]:
        return tuple(self._control.encode(text, add_special_tokens=False).ids)


class _Waiting:
    """Pieces of text that are encoded together; ``before`` is what was written last."""

    def __init__(self, renderer: TemplateRenderer) -> None:
        self.renderer = renderer
        self.pieces: list[tuple[str, bool]] = []
        self.before = ""

    def control(self, text: str) -> None:
        if text:
            self.pieces.append((text, True))

    def say(self, text: str) -> None:
        if not text:
            return
        if self.pieces and not self.pieces[-1][1]:  # two texts in a row do not run together
            text = f" {text}"
        self.pieces.append((text, False))

    def flush(self, out: Rendered, supervised: bool = False) -> None:
        if not self.pieces:
            return
        tokens = self.renderer.encode_run(self.pieces, self.before)
        out.tokens.extend(tokens)
        out.supervised.extend([supervised] * len(tokens))
        if self.renderer.says_control(self.pieces):
            text, is_control = self.pieces[-1]
            self.before = text if is_control else ""
        else:
            self.before += "".join(text for text, _ in self.pieces)
        self.before = self.renderer.from_last_control(self.before)
        self.pieces = []


def renderer_of(values: dict[str, Any]) -> ChatRenderer:
    """The renderer that a checkpoint holds; see ``state``."""
    tokenizer = Tokenizer.from_str(values["tokenizer"])
    if "chat" not in values:
        return ChatRenderer(tokenizer)
    chat = dict(values["chat"])
    return TemplateRenderer(tokenizer, ChatTemplate(**chat | {"ends": tuple(chat["ends"])}))
