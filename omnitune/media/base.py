"""What a medium is: how its files are read, checked and recognised. No weights are here."""

from __future__ import annotations

import mimetypes
import stat
import tempfile
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from PIL import Image

from omnitune.containers.address import parse, read_stored
from omnitune.containers.remote import ensure
from omnitune.sample import UserError

MAX_BYTES = 4 << 30  # of a file; its content is read into memory for its checksum


def open_file(path: Path, kind: str) -> BinaryIO:
    """Opens a user's file if it is a regular file or a link to one, or lies inside a record.

    A file beside a remote list of records is fetched first, if that has not been done yet.

    To open a pipe waits for who writes to it, and a device may never end: neither is opened.

    Args:
        kind: what is expected, to be told ("image file").

    Raises:
        UserError: it is missing, a folder, a pipe, socket or device, or cannot be read.
    """
    if (address := parse(path)) and not path.exists():
        file = tempfile.TemporaryFile()  # noqa: SIM115 (its caller closes it)
        file.write(read_stored(address, kind))
        file.seek(0)
        return cast(BinaryIO, file)
    try:
        found = ensure(path).stat()
        mode = found.st_mode
        if stat.S_ISDIR(mode):
            raise UserError(f"{path}: is a folder, expected {with_article(kind)}")
        if not stat.S_ISREG(mode):
            raise UserError(f"{path}: is a pipe, socket or device, expected a regular {kind}")
        if found.st_size > MAX_BYTES:
            raise UserError(
                f"{path}: has {found.st_size / 2**30:,.1f} GiB; {with_article(kind)} of more than "
                f"{MAX_BYTES >> 30} GiB is not read; cut it into pieces"
            )
        return path.open("rb")
    except FileNotFoundError:
        raise UserError(f"{path}: no such {kind}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
    except ValueError as error:  # NUL, or what the system's encoding of names cannot say
        raise UserError(f"{str(path)!a}: no {kind} can have this name ({error})") from None


def with_article(noun: str) -> str:
    """Such as "an image"."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def counted(count: int, noun: str) -> str:
    """Such as "1 image" and "2,000 images"."""
    return f"{count:,} {noun}{'s' * (count != 1)}"


def reason(error: Exception) -> str:
    """What another library says is wrong, on one line."""
    return " ".join(str(error).split()) or type(error).__name__


@dataclass(frozen=True)
class Fingerprint:
    """What a decoded medium is recognised by.

    Attributes:
        content: 64-bit hash of what is seen or heard, whatever the file's format.
        amount: how much that is, in the modality's unit.
        look: ``hash_words`` words of bits, most of which a changed copy has too.
        remarks: what its owner should know of it though it can be used (what is not shown).
    """

    content: int
    amount: float
    perceptual_hash: tuple[int, ...] = ()
    remarks: tuple[str, ...] = ()


class Medium(ABC):
    """One kind of medium.

    Attributes:
        name: key in ``MEDIA`` and in records (``"image"``).
        caption_key: key of a record that says in words what the medium holds.
        aliases: what others call it, so that an error can say which name is meant.
        unit: what its media are measured in (``"pixels"``).
        noun, verb: what people call one, and what a model does with it ("look at" the "picture").
        hash_words: words of 64 bits in a perceptual hash; 0: it has none. hash_distance: bits in
            which two copies may differ.
        is_spatial: whether each slot holds many words at once (a place in a picture) and not a
            stretch of one after the other (sound).
        reader_version: to be raised whenever a file is read differently: what is kept of before is
            then made anew.
        projector_part, encoder_part: names of its projector and its encoder among the model's
            parts [``proj_<name>``, ``<name>_encoder``].
        config_name, tensor_name, argument, processor_name: what the standard model calls its
            encoder's settings, its tensor, the media in a call of the processor, and what prepares
            them [``<name>_config``, ``<name>_values``, ``<name>``, ``<name>_processor``].
        token_type: number of its placeholders in ``mm_token_type_ids``.
        apart: whether the standard model's features are a tensor for each medium, as the library
            has it of pictures, and not one for all, as of sounds. Engines divide one for all into
            equal pieces.
        from_microphone: whether a microphone makes one.
    """

    name: str
    caption_key: str
    unit: str
    aliases: tuple[str, ...] = ()
    noun, verb = "", "use"
    hash_words = hash_distance = 0
    is_spatial = False
    reader_version = 1
    projector_part = encoder_part = ""
    config_name = tensor_name = argument = processor_name = ""
    token_type = 4
    apart = False
    from_microphone = False

    def __init_subclass__(cls) -> None:
        cls.noun = cls.noun or cls.name
        cls.projector_part = cls.projector_part or f"proj_{cls.name}"
        cls.encoder_part = cls.encoder_part or f"{cls.name}_encoder"
        cls.config_name = cls.config_name or f"{cls.name}_config"
        cls.tensor_name = cls.tensor_name or f"{cls.name}_values"
        cls.argument = cls.argument or cls.name
        cls.processor_name = cls.processor_name or f"{cls.name}_processor"

    @abstractmethod
    def check(self, path: Path) -> None:
        """Checks cheaply that a file is a readable medium.

        Raises:
            UserError: names the file and what is wrong with it.
        """

    @abstractmethod
    def fingerprint(self, path: Path) -> Fingerprint:
        """Decodes the whole of a file; raises UserError."""

    def header(self, path: Path) -> dict[str, float]:
        """What a file's header says, by the names that manifests have for it; raises UserError."""
        return {}

    def similarity(self, path: Path, other: Path) -> float:
        """How alike two media of like perceptual hash are, 1 at most; 0 if they are not copies."""
        return 0.0

    def picture(self, path: Path, side: int) -> Image.Image | None:
        """What people are shown of a file, at most ``side`` pixels wide; raises UserError."""
        return None

    def sound(self, path: Path) -> bytes:
        """What people can play of a file, as WAV; raises UserError."""
        return b""

    def sketch(self, path: Path, width: int) -> str:
        """A line of at most ``width`` signs that shows a file in letters; "" if none can.

        Raises:
            UserError: the file cannot be read.
        """
        return ""

    def portable(self, path: Path) -> tuple[str, bytes]:
        """Type and content of a file that says the same to the model and that browsers can show.

        Returns:
            a type such as ``image/png``; it begins with the medium's name.

        Raises:
            UserError: the file cannot be read.
        """
        with open_file(path, f"{self.name} file") as file:
            return self._type_of(path, "octet-stream"), file.read()

    def _type_of(self, path: Path, otherwise: str) -> str:
        found = mimetypes.guess_type(path.name)[0] or ""
        return found if found.startswith(f"{self.name}/") else f"{self.name}/{otherwise}"

    def store(self, given: Any, folder: Path) -> Path:
        """Writes what a program holds of a medium as a file that is read as any other.

        Args:
            given: decoded already, such as a picture or samples.
            folder: where to write it.

        Raises:
            UserError: no such thing can be written.
        """
        raise UserError(
            f"{with_article(self.name)} is given as {type(given).__name__}, expected a path"
        )
