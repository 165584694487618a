"""What was asked and answered since a conversation began, to be saved and loaded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from omnitune.media.registry import MEDIA
from omnitune.sample import Media, UserError
from omnitune.serving import conversations
from omnitune.serving.conversations import Turn, answer_of
from omnitune.serving.session import ChatSession
from omnitune.serving.streams import printable

LONGEST_NAME = 200  # bytes of a file's name


class Transcript:
    """The turns of a conversation, with the media that they show.

    It holds turns that the model is no longer shown, too.

    Attributes:
        turns: as files have them.
    """

    def __init__(self, turns: Sequence[Turn] = ()) -> None:
        self.turns = list(turns)
        self._attached: list[tuple[Media, dict[str, str]]] = []

    def note(self, medium: Media, waiting: Sequence[Media]) -> None:
        """Keeps what a file holds now.

        Args:
            waiting: what goes into the next turn; others that were noted are forgotten.
        """
        try:
            type_, content = MEDIA[medium.modality].portable(medium.path)
        except UserError:  # it went away just now: the model has read it, a file cannot hold it
            return
        name = medium.path.name
        entry = conversations.medium_entry(medium.modality, name, type_, content)
        self._attached.append((medium, entry))
        left, kept = list(waiting), []
        for one in reversed(self._attached):
            if one[0] in left:
                left.remove(one[0])
                kept.append(one)
        self._attached = kept[::-1]

    def begin(self, text: str) -> Turn:
        """A turn that is not answered yet, with what was noted for it."""
        return {"text": text, "media": [entry for _, entry in self._attached]}

    def again(self) -> Turn:
        """The last turn, not answered yet; what it was stays as an earlier version of it."""
        turn = self.turns.pop()
        versions, version = turn.get("versions"), turn.get("version")
        if not isinstance(versions, list) or version not in range(len(versions)):
            versions, version = [None], 0  # it had none, or a file that says nonsense
        was = {key: turn[key] for key in ("text", "reference", "answers") if key in turn}
        versions = [was | {"after": []} if n == version else v for n, v in enumerate(versions)]
        return turn | {"version": len(versions), "versions": [*versions, None]}

    def add(self, turn: Turn) -> None:
        """Takes a turn that was answered."""
        self.turns.append(turn)
        self._attached = []


class Loaded(NamedTuple):
    """A conversation that was saved.

    Attributes:
        session: that goes on with it. turns: those that were answered. shown: the media of each.
        notices: what is left out, in words.
    """

    session: ChatSession
    turns: list[Turn]
    shown: list[list[Media]]
    notices: list[str]


def load(path: Path, session: ChatSession, name: str, new_folder: Callable[[], Path]) -> Loaded:
    """Reads a conversation into a session of its own.

    Args:
        session: whose model goes on with it; it stays as it is.
        name: of the model.
        new_folder: for the files of the media.

    Raises:
        UserError: the file holds no conversation, or one that the model cannot be shown.
    """
    found, system = conversations.read_conversation(path)
    turns = [turn for turn in found if answer_of(turn, name)]
    loaded = Loaded(session.another(), turns, [], [])
    loaded.session.system = system
    for number, turn in enumerate(turns, 1):
        media = []
        for entry in turn.get("media") or []:
            why = ""
            if entry["kind"] not in session.model.modalities:
                why = f"this model reads no {entry['kind']}"
            elif "uri" not in entry:
                why = "the file does not hold it"
            if why:
                loaded.notices.append(f"{entry['name']} is left out: {why}")
            else:
                media.append(_unpacked(entry, new_folder()))
        loaded.shown.append(media)
        try:
            for medium in media:
                loaded.session.attach(medium.path, medium.modality)
            loaded.session.remember(turn.get("text", ""), answer_of(turn, name))
        except UserError as error:
            told = str(error)
            for medium in media:  # nobody knows the folder that it was unpacked into
                told = told.replace(str(medium.path), medium.path.name)
            raise UserError(f"{path}: turn {number}: {told}") from None
    if len(turns) < len(found):
        loaded.notices.append(f"{len(found) - len(turns)} without an answer left out")
    return loaded


def _unpacked(medium: dict[str, str], folder: Path) -> Media:
    """A medium of a saved conversation as a file; its name is anybody's."""
    name = Path(printable(medium["name"]).replace("\\", "/")).name
    name = name.encode("utf-8", "ignore")[-LONGEST_NAME:].decode(errors="ignore")
    path = folder / (name if name.strip(".") else "medium")
    path.write_bytes(conversations.content_of(medium))
    return Media(medium["kind"], path)
