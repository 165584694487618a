"""What the messages of a record are made of: text, and media by their paths."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from omnitune.config.settings import as_found, quoted
from omnitune.containers.address import INSIDE, MARK, complete
from omnitune.data.fields import TEXT_KEYS, Fields, hint
from omnitune.data.tags import Written, plain
from omnitune.media.base import Medium
from omnitune.media.registry import MEDIA
from omnitune.sample import Described, Media, join_texts

_WEB = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


class Content(Fields):
    """A record's media and the parts of its messages."""

    def listed_media(self) -> dict[str, list[Media]]:
        """By kind, the media under keys of their own: one path, or a list of them."""
        return {m.name: self._listed(m) for m in MEDIA.values() if m.name in self.values}

    def described_media(self) -> dict[str, list[Described]]:
        """By kind, the captions that a record without media is asked about instead."""
        return {
            medium.name: [Described.of(medium.name, words) for words in self._captions(medium)]
            for medium in MEDIA.values()
            if medium.caption_key in self.values
        }

    def message_parts(self, given: Any, role: str, at: str) -> Sequence[Written | Media]:
        """The content of a message: one text, or a list of typed parts.

        Texts that follow each other are one text, as :meth:`Message.text` joins them.
        """
        if isinstance(given, str):
            parts: list[Written | Media] = [self.written(given, at)]
        elif isinstance(given, list) and given:
            parts = []
            for n, value in enumerate(given):
                part = self._part(value, role, f"{at} part {n + 1}: ")
                if isinstance(part, Written) and parts and isinstance(parts[-1], Written):
                    whole = join_texts([parts[-1].text, part.text])
                    parts[-1] = parts[-1]._replace(text=whole)
                else:
                    parts.append(part)
        else:
            raise self.wrong(f"{at} is {as_found(given)}, expected text or a list of parts")
        said = any(isinstance(part, Written) and part.text.strip() for part in parts)
        if role == "assistant" and not said:
            raise self.wrong(f"{at} is {as_found(given)}, expected text")
        return parts

    def _part(self, part: Any, role: str, at: str) -> Written | Media:
        """One typed part of a message."""
        known = ("text", *MEDIA)
        if not isinstance(part, dict):
            raise self.wrong(f'{at}is {as_found(part)}, expected an object with a "type"')
        kind = self.required(part, "type", at, " or ".join(known))
        if not isinstance(kind, str) or kind not in known:
            meant = hint(kind, known) if isinstance(kind, str) else ""
            raise self.wrong(
                f'{at}"type" is {as_found(kind)}, expected {" or ".join(known)}{meant}'
            )
        if kind == "text":
            self.check_keys(part, TEXT_KEYS, at)
            return self.written(self.required(part, "text", at), f'{at}"text"')
        if role != "user":
            raise self.wrong(
                f"{at}is of the type {quoted(kind)}, but the message is the {role}'s; media stand "
                "in what the user says"
            )
        key = MEDIA[kind].caption_key
        self.check_keys(part, ("type", "path", key), at)
        path = self.required(part, "path", at, "a relative path")
        caption = self._caption(part[key], f'{at}"{key}"') if key in part else ""
        return Media(kind, self._path(path, f'{at}"path"'), caption)

    def written(self, text: Any, at: str) -> Written:
        """A text in which tags may stand."""
        if not isinstance(text, str):
            raise self.wrong(f"{at} is {as_found(text)}, expected text")
        return Written(self.checked(text, at), at)

    def _listed(self, medium: Medium) -> list[Media]:
        name, key = medium.name, medium.caption_key
        given = self.values[name]
        if given == []:
            raise self.wrong(f'"{name}" is an empty list; leave the key out where there is none')
        items = enumerate(given) if isinstance(given, list) else ()
        paths = [self._path(item, f'"{name}": item {n + 1}') for n, item in items]
        paths = paths or [self._path(given, f'"{name}"')]
        captions = self._captions(medium) if key in self.values else [""] * len(paths)
        if len(captions) != len(paths):
            raise self.wrong(
                f'"{key}" holds {len(captions)} and "{name}" {len(paths)}; expected one text for '
                "each path, in the same order"
            )
        return [Media(name, *pair) for pair in zip(paths, captions, strict=True)]

    def _captions(self, medium: Medium) -> list[str]:
        """The texts under the key of a medium's captions: one, or a list of them."""
        key = medium.caption_key
        given = self.values[key]
        if not isinstance(given, list) or not given:
            return [self._caption(given, f'"{key}"')]
        return [self._caption(text, f'"{key}": item {n + 1}') for n, text in enumerate(given)]

    def _caption(self, given: Any, at: str) -> str:
        return plain(self.words(given, at), at, self.wrong)

    def _path(self, given: Any, at: str) -> Path:
        """The path of a medium: below the source's folder, or an address inside this record."""
        if not isinstance(given, str) or not given.strip():
            raise self.wrong(f"{at} is {as_found(given)}, expected one relative path")
        text = self.checked(given, at)
        if text.startswith(INSIDE):
            return complete(text, self.path, self.place.start, self.place.length)
        if _WEB.match(text):
            raise self.wrong(
                f"{at} is {quoted(given)}, a web address, and nothing is fetched for a record; "
                "download the file and name it by a path"
            )
        folder = Path(self.of.media_dir or self.path.parent / self.of.media_within)
        if self.of.allow_outside:
            return folder / text
        mend = '; or give the source "allow_outside": true' if self.of.path else ""
        if os.path.isabs(text) or ".." in text.split("/"):
            raise self.wrong(
                f"{at} is {quoted(given)}, which leaves the folder {folder}; media paths are "
                f"relative to the data file and stay beside it{mend}"
            )
        file = text.partition(MARK)[0]  # of a stretch, or of a record in another file
        base = str(folder)
        if target := leads_out(base, os.path.join(base, file)):
            raise self.wrong(
                f"{at} is {quoted(given)}, a link that leaves the folder {folder}, for {target}; "
                f"put the file itself there{mend}"
            )
        return folder / text


def leads_out(folder: str, path: str) -> str:
    """Where a path below a folder leads to by links, if that is outside of it; else ""."""
    above, name = os.path.split(path)
    root = _real(folder)
    real = os.path.realpath(path) if os.path.islink(path) else os.path.join(_real(above), name)
    return "" if real.startswith(root.rstrip(os.sep) + os.sep) else real


# Links among folders are looked up once: a source has many files in few of them.
_real = lru_cache(maxsize=4096)(os.path.realpath)
