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
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from tokenizers import Tokenizer
from transformers.utils.chat_template_utils import render_jinja_template

from omnitune.data.template import ChatRenderer, Rendered, Slots, placeholder
from omnitune.hub import read_optional, said_by
from omnitune.sample import ContentPart, Media, Message, Text, UserError

MARK = re.compile("\ue000([0-9]+)\ue001")  # private characters: no template writes them
# For a thinker that has none: `"chat_template": "plain"`. It needs no token but the end of a text.
PLAIN_TEMPLATE = "plain"
PLAIN = (
    "{% for message in messages %}"
    "{% if message.role == 'system' %}{{ message.content + '\n\n' }}"
    "{% elif message.role == 'user' %}{{ 'User: ' + message.content + '\n' }}"
    "{% else %}{{ 'Assistant: ' + message.content + eos_token + '\n' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
SPECIAL = ("bos_token", "eos_token", "unk_token", "pad_token")
# The day of templates that write today's date: a run goes on, is scored and answers on other days.
TODAY = date(2024, 7, 26)
_CLOCK = re.compile(r"strftime_now\(\s*(['\"])(.*?)\1\s*\)")
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
            told = self._between(roles[: place + 1])[place]
            lead = told.removeprefix(asked[place]) if told.startswith(asked[place]) else ""
            gaps += [Gap(text) for text in self._after(roles, gaps, asked)[:-1]]
            gaps.append(Gap(self._after(roles, gaps, asked)[-1], lead))
        if len(gaps) < len(roles) or prompt:
            last = self._after(roles, gaps, self._between(roles, prompt=prompt))
            gaps += map(Gap, last)
        else:
            gaps.append(Gap(""))
        if not prompt and roles and roles[-1] == "assistant":
            gaps[-1] = Gap("")
        return gaps

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


def read_renderer(folder: Path, given: str | None = None) -> TemplateRenderer:
    """The renderer of a pretrained folder's tokenizer and template.

    Args:
        given: in place of the folder's template: ``plain``, or a file of Jinja.

    Raises:
        UserError: there is no tokenizer, none of the fast kind, or no template; says what to do.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # the library has no class of its own for what it finds wrong
        raise UserError(
            f"{folder}: holds no tokenizer that can be read ({said_by(error)}); take a thinker "
            "with a tokenizer.json"
        ) from None
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise UserError(
            f"{folder}: its tokenizer has no tokenizer.json and cannot be turned into one; take a "
            "thinker with a fast tokenizer"
        )
    special = {name: str(v) for name in SPECIAL if (v := getattr(tokenizer, name, None))}
    ids = read_optional(folder, "generation_config.json").get("eos_token_id")
    numbers = [n for n in (ids if isinstance(ids, list) else [ids]) if isinstance(n, int)]
    ends = [str(tokenizer.convert_ids_to_tokens(number)) for number in numbers]
    source, name = _source(folder, given, getattr(tokenizer, "chat_template", None))
    source = _CLOCK.sub(lambda found: json.dumps(TODAY.strftime(found[2])), source)
    ends += [special["eos_token"]] if "eos_token" in special else []
    template = ChatTemplate(source, special, tuple(dict.fromkeys(ends)), name)
    return TemplateRenderer(Tokenizer.from_str(backend.to_str()), template)


def _source(folder: Path, given: str | None, own: Any) -> tuple[str, str]:
    if given == PLAIN_TEMPLATE:
        return PLAIN, "the plain chat template"
    if given is not None:
        try:
            return Path(given).read_text(encoding="utf-8"), given
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(
                f"chat_template: {given} cannot be read ({error}); expected plain or a Jinja file"
            ) from None
    if isinstance(own, dict):
        own = own.get("default")
    if not own:
        raise UserError(
            f'{folder}: its tokenizer has no chat template; give "chat_template": "plain" (User: '
            "... Assistant: ...), or a file of Jinja"
        )
    return own, f"the chat template of {folder}"
