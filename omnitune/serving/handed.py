"""What a program hands over: texts, turns, settings and media, checked before anything is read."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Mapping, Sequence
from numbers import Number
from pathlib import Path
from typing import Any

import torch

from omnitune.media.registry import MEDIA
from omnitune.sample import ROLES, UserError
from omnitune.serving.decoding import Sampling
from omnitune.serving.encoded_media import GivenMedium
from omnitune.serving.prompts import Turn

_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+://|data:", re.IGNORECASE)
_SAMPLES, _RATE = "array", "sampling_rate"  # of decoded sound, as data sets hold it


def turns_of(messages: Any) -> list[Turn]:
    """The turns that messages mean.

    Raises:
        UserError: they are no messages; says which, and why.
    """
    if isinstance(messages, str | Mapping) or not isinstance(messages, Sequence):
        raise UserError(
            f"messages is {type(messages).__name__}, expected a list of messages such as "
            '{"role": "user", "content": "hello"}'
        )
    return [_turn(message, f"message {n}") for n, message in enumerate(messages, 1)]


def _turn(message: Any, where: str) -> Turn:
    if not isinstance(message, Mapping):
        raise UserError(
            f"{where} is {type(message).__name__}, expected an object such as "
            '{"role": "user", "content": "hello"}'
        )
    role, content = message.get("role"), message.get("content", "")
    if role not in ROLES:
        raise UserError(f'{where}: "role" is {role!r}, expected {", ".join(ROLES)}')
    if not isinstance(content, str):
        raise UserError(
            f'{where}: "content" is {type(content).__name__}, expected a text; media stand '
            f"beside it, under {' or '.join(MEDIA)}"
        )
    rest = {key: value for key, value in message.items() if key not in ("role", "content")}
    given = given_media(rest, f"{where}: ")
    if given and role != "user":
        raise UserError(f"{where}: media stand in what the user says, not the {role}")
    return Turn(str(role), content, given)


def given_media(media: Mapping[str, Any], where: str = "") -> tuple[GivenMedium, ...]:
    """Media by kind, each one or a list, in the order in which they were given.

    Raises:
        UserError: there is no such kind, or one is an address, of which nothing is fetched.
    """
    found: list[GivenMedium] = []
    for kind, value in media.items():
        if kind not in MEDIA:
            raise UserError(f"{where}there is no {kind!r}; media are {', '.join(MEDIA)}")
        values = value if isinstance(value, list) else [value]
        if values and all(isinstance(one, Number) for one in values):
            raise UserError(
                f"{where}{kind} is a list of numbers, and a list means several media; give an "
                "array, such as numpy.asarray of them"
            )
        for n, one in enumerate(values, 1):
            if one is not None:
                content, label = _content(one), f"{where}{kind} {n}"
                if isinstance(content, Path):
                    label = str(one)
                    _refuse_address(label, f"{where}{kind}")
                found.append(GivenMedium(kind, content, label))
    return tuple(found)


def _content(one: Any) -> Any:
    """A path, bytes, or what a medium knows to store."""
    if isinstance(one, str | os.PathLike):
        return Path(one)
    if isinstance(one, bytes | bytearray | memoryview):
        return bytes(one)
    if isinstance(one, io.IOBase) and hasattr(one, "read"):
        return one.read()
    if isinstance(one, torch.Tensor):
        return _array(one)
    if isinstance(one, Mapping):  # as data sets hold a medium
        if _SAMPLES in one and _RATE in one:
            return _content(one[_SAMPLES]), one[_RATE]
        held = one.get("bytes") or one.get("path")
        return one if held is None else _content(held)
    if isinstance(one, tuple):
        return tuple(map(_content, one))
    return one


def _array(tensor: torch.Tensor) -> Any:
    """A tensor as NumPy has it; the channels of ``[C, H, W]`` last."""
    tensor = tensor.detach().cpu()
    if tensor.ndim == 3 and tensor.shape[0] in (1, 3, 4) and tensor.shape[2] not in (1, 3, 4):
        tensor = tensor.permute(1, 2, 0)
    if tensor.ndim == 3 and tensor.shape[2] == 1:
        tensor = tensor[:, :, 0]
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


def _refuse_address(text: str, what: str) -> None:
    if not _ADDRESS.match(text):
        return
    raise UserError(
        f"{what} is {text[:60]!r}, an address, and nothing is fetched; give a path, or the bytes "
        "of the file"
    )


def checked_text(text: Any) -> str:
    """What a user says; None is nothing.

    Raises:
        UserError: it is no text.
    """
    if text is not None and not isinstance(text, str):
        raise UserError(f"text is {type(text).__name__}, expected a text (str)")
    return text or ""


def checked_stops(stop: Any) -> list[str]:
    """Texts that end an answer.

    Raises:
        UserError: they are none.
    """
    stops = [stop] if isinstance(stop, str) else list(stop) if isinstance(stop, Sequence) else stop
    if stops is None:
        return []
    if not isinstance(stops, list) or not all(isinstance(one, str) for one in stops):
        raise UserError(f"stop is {stop!r}, expected a text or a list of texts")
    return [one for one in stops if one]


def check_sampling(sampling: Sampling) -> None:
    """Raises a UserError for settings of an answer that mean nothing."""
    for name, value, least, most in (
        ("max_new_tokens", sampling.max_new_tokens, 1, float("inf")),
        ("temperature", sampling.temperature, 0, 100),
        ("top_p", sampling.top_p, 1e-6, 1),
    ):
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not least <= value <= most:
            up_to = "" if most == float("inf") else f" to {most:g}"
            raise UserError(f"{name} is {value!r}, expected a number from {least:g}{up_to}")
    if not isinstance(sampling.seed, int | str | None):
        raise UserError(f"seed is {sampling.seed!r}, expected a whole number")
