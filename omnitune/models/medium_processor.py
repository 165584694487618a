"""What a processor does with media of one kind, and with what it is called with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import unquote, urlsplit

import torch
from torch import Tensor
from transformers import BatchFeature

from omnitune.encoders.base import Encoder
from omnitune.models.media_tensors import SIZES, stack
from omnitune.sample import UserError

NESTED = ("text_kwargs", "images_kwargs", "audio_kwargs", "videos_kwargs", "common_kwargs")


class MediumProcessor:
    """Reads media of one kind.

    Args:
        encoder: without weights. values: from which it was built.
    """

    def __init__(self, encoder: Encoder, values: Mapping[str, Any]) -> None:
        self.encoder = encoder
        self.values = {key: v for key, v in values.items() if key != "medium"}
        tensor = encoder.medium.tensor_name
        self.model_input_names = [tensor, tensor + SIZES]

    @property
    def chunk_length(self) -> int:
        """Seconds of the longest sound, by which vLLM tries the model; pictures have none."""
        return int(self.encoder.max_seconds)  # type: ignore[attr-defined]

    @property
    def size(self) -> dict[str, int]:
        """Height and width of the picture with the most slots, with which vLLM tries the model.

        Raises:
            AttributeError: the encoder does not tell; then large squares are tried.
        """
        largest = self.encoder.largest_size
        if largest is None or len(largest) != 2:
            raise AttributeError(f"{self.encoder.medium.name} has no largest height and width")
        return dict(zip(("height", "width"), largest, strict=True))

    def read(self, given: Any) -> Tensor:
        """The encoder's input of a path, a ``file:`` address, or a medium that is decoded already.

        Raises:
            ValueError: it cannot be used; says why.
        """
        if isinstance(given, str | Path):
            return self._read_file(_local(given))
        noun = self.encoder.medium.noun
        with TemporaryDirectory() as folder:
            try:
                path = self.encoder.medium.store(given, Path(folder))
            except UserError as error:
                raise ValueError(str(error)) from None
            try:
                return self._read_file(path)
            except ValueError as error:
                raise ValueError(str(error).replace(str(path), f"the {noun}")) from None

    def _read_file(self, path: Path) -> Tensor:
        try:
            return self.encoder.read(path)
        except UserError as error:
            raise ValueError(str(error)) from None

    def __call__(self, media: Sequence[Any], **kwargs: Any) -> BatchFeature:
        """Tensors of some media."""
        return BatchFeature(self.tensors([self.read(given) for given in media]))

    def tensors(self, inputs: Sequence[Tensor]) -> dict[str, Tensor]:
        """What the model takes; each medium's own form is told where media can differ in it.

        It is told of one medium too: vLLM prepares media one by one and joins them afterwards.
        """
        stacked, sizes_MK = stack(inputs)
        tensor, sizes = self.model_input_names
        if self.encoder.fixed_rows is not None and len({x.shape for x in inputs}) == 1:
            return {tensor: stacked}
        return {tensor: stacked, sizes: sizes_MK}


def _local(given: str | Path) -> Path:
    """The path of a file on this machine.

    Raises:
        ValueError: it is an address elsewhere: nothing is fetched here.
    """
    address = urlsplit(str(given)) if isinstance(given, str) and "://" in given else None
    if address is None:
        return Path(given)
    if address.scheme != "file" or address.netloc not in ("", "localhost"):
        raise ValueError(f"{given}: is on another machine; fetch it and give the path of the file")
    return Path(unquote(address.path))


def named(**media: Any) -> dict[str, Any]:
    """Media by the argument that they are given as."""
    return media


def flat(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options by name; the library also takes them grouped."""
    flat = {key: value for key, value in options.items() if key not in NESTED}
    for group in NESTED:
        flat |= options.get(group) or {}
    return flat


def each(*given: Any) -> Iterator[Any]:
    """Media one by one, however they are nested."""
    for item in given:
        if item is None:
            continue
        pair = isinstance(item, tuple) and len(item) == 2 and isinstance(item[1], int)
        numbers = isinstance(item, list) and item and isinstance(item[0], int | float)
        if isinstance(item, list | tuple) and not pair and not numbers:
            yield from each(*item)
        else:
            yield item


def conversations_of(given: Any) -> list[list[dict[str, Any]]]:
    """Conversations, given one or several, without keys whose value is None.

    A part as OpenAI has it (``image_url``) becomes one of the medium's type with ``url``. The
    library's own reading of conversations changes from version to version.
    """
    several = bool(given) and not isinstance(given[0], Mapping)
    found = []
    for conversation in given if several else [given]:
        messages = [{k: v for k, v in one.items() if v is not None} for one in conversation]
        for message in messages:
            if isinstance(message.get("content"), list):
                message["content"] = [_part(part) for part in message["content"]]
        found.append(messages)
    return found


def _part(part: Any) -> Any:
    kind = part.get("type") if isinstance(part, Mapping) else None
    if not isinstance(kind, str) or not kind.endswith("_url") or kind not in part:
        return part
    told = part[kind]
    url = told.get("url") if isinstance(told, Mapping) else told
    return {"type": kind.removesuffix("_url"), "url": url}


def rows_of(input_ids: Any) -> list[list[int]]:
    return input_ids.tolist() if isinstance(input_ids, torch.Tensor) else list(map(list, input_ids))


def split(text: str, tokens: Sequence[str]) -> Iterator[tuple[str, str, int]]:
    """Pieces of a text, each with the token behind it and where that begins; at last the rest."""
    place = 0
    while True:
        found = [(text.find(token, place), token) for token in tokens]
        start, token = min(((n, t) for n, t in found if n >= 0), default=(-1, ""))
        if start < 0:
            yield text[place:], "", len(text)
            return
        yield text[place:start], token, start
        place = start + len(token)
