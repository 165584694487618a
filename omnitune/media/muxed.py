"""Files that libsndfile does not read: which kind one is, and whether it is whole.

What decodes them takes what is left of a file that was cut off, so a few bytes are looked at here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from omnitune.media.mpeg import after_tags
from omnitune.sample import UserError

BOXES = (b"ftyp", b"styp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")
NEEDED = (b"moov", b"moof", b"mdat")  # what a box may not be cut in
EBML, SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
MAX_BOXES = 1_000_000  # a fragment of a tenth of a second each is a day


@dataclass(frozen=True)
class Muxed:
    """A kind of file that PyAV or ffmpeg decodes.

    Attributes:
        name: what people call it.
        demuxer: what FFmpeg calls what reads it; no other may, since some open further files.
        counted: whether its packets are counted to know how long it is. Its header does not tell,
            or tells the length of a picture track.
        seekable: whether a place in time can be found.
    """

    name: str
    demuxer: str
    counted: bool = True
    seekable: bool = True


def recognise(file: BinaryIO, size: int) -> Muxed | None:
    """Which kind of file this is by its first bytes; None if it is none of these.

    Raises:
        UserError: it is cut off.
    """
    start = _at(file, 0, 12)
    if start[4:8] in BOXES:
        return _mp4(file, size)
    if start[:4] == EBML:
        _check_matroska(file, size)
        return Muxed("Matroska or WebM", "matroska")
    if start[:3] == b"ID3" or start[:1] == b"\xff":
        return _adts(file, size)
    return None


def _at(file: BinaryIO, place: int, count: int) -> bytes:
    file.seek(place)
    return file.read(count)


def _boxes(file: BinaryIO, size: int) -> Iterator[tuple[bytes, int]]:
    """Name of each outermost box of an MP4 file, and where it ends as told."""
    place = 0
    for _ in range(MAX_BOXES):
        header = _at(file, place, 16)
        told = int.from_bytes(header[:4], "big")
        if told == 1:
            told = int.from_bytes(header[8:], "big")
        elif told == 0:
            told = size - place
        if len(header) < 8 or told < 8:
            return
        place += told
        yield header[4:8], place


def _mp4(file: BinaryIO, size: int) -> Muxed:
    found = set()
    for name, end in _boxes(file, size):
        if name in NEEDED and end > size:
            raise UserError(
                f"the file is cut off: its header says {end:,} bytes, {size:,} are there; get it "
                "again"
            )
        found.add(name)
    if b"moov" not in found:
        raise UserError("the file is cut off: its index (moov) is not there; get it again")
    return Muxed("MP4, M4A or MOV", "mov", counted=b"moof" in found)


def _check_matroska(file: BinaryIO, size: int) -> None:
    """Of a recording that was not ended the length is not told; its packets are counted."""
    place = 4
    told, width, _ = _number(_at(file, place, 8))
    place += width + told
    if _at(file, place, 4) != SEGMENT:
        return
    told, width, unknown = _number(_at(file, place + 4, 8))
    end = place + 4 + width + told
    if end > size and not unknown:
        raise UserError(
            f"the file is cut off: its header says {end:,} bytes, {size:,} are there; get it again"
        )


def _number(content: bytes) -> tuple[int, int, bool]:
    """A number of EBML, how many bytes it takes, and whether it stands for "not known"."""
    width = 9 - content[0].bit_length() if content else 9
    if width > min(8, len(content)):
        return 0, 8, True
    most = (1 << 7 * width) - 1
    value = int.from_bytes(content[:width], "big") & most
    return value, width, value == most


def _adts(file: BinaryIO, size: int) -> Muxed | None:
    """AAC without a container: frames that each say how long they are."""
    place = start = after_tags(file, 0)
    count = 0
    while (length := _adts_length(_at(file, place, 7))) and place + length <= size:
        place += length
        count += 1
    if not count or (count == 1 and length == 0 and place < size):  # chance
        return None
    if length and place + length > size:
        raise UserError("the file is cut off in its last frame; get it again")
    return Muxed("AAC", "aac", seekable=False) if place > start else None


def _adts_length(header: bytes) -> int:
    """Bytes of the frame that begins so; 0 if none does."""
    if len(header) < 7 or header[0] != 0xFF or header[1] & 0xF6 != 0xF0:
        return 0
    length = (header[3] & 3) << 11 | header[4] << 3 | header[5] >> 5
    return length if length > 7 else 0
