"""The frames of an MP3 file: how many its tag promises, and how many are there.

libsndfile guesses the length of an MP3 without a tag from the bit rate of its first frame. It is
wrong wherever that varies, and what lies beyond it is not heard. There the frames are counted.
"""

from __future__ import annotations

import struct
from typing import BinaryIO, NamedTuple

from omnitune.sample import UserError

_RATES = (44_100, 48_000, 32_000)
_KBITS = {  # by whether it is MPEG-1
    True: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    False: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
TRAILER = 4096  # bytes after the last frame that tags usually have, at most
SEARCHED = 1 << 16  # bytes in which the first frame is looked for


class Frame(NamedTuple):
    """The header of a frame: its bytes in all, and what all frames of a file share."""

    length: int
    kind: tuple[int, int]  # version, rate
    mono: bool


class Tag(NamedTuple):
    """What the first frame may hold in place of sound: numbers of the others; 0 if not told."""

    frames: int
    size: int


Frames = list[tuple[int, Frame]]  # each with its place in the file


def count_frames(file: BinaryIO, size: int) -> Frames | None:
    """Checks that all frames are there.

    Returns:
        None if libsndfile can tell: a tag tells their number, and rightly so, or this is no MP3
        after all.

    Raises:
        UserError: frames are missing.
    """
    start = _first_frame(file, after_tags(file, 0), size)
    if start is None:
        return None
    tag = _tag(file, start)
    if tag and tag.frames and tag.size <= size - start <= tag.size + TRAILER:
        end = after_tags(file, start + tag.size)
        if _frame(_at(file, end)) is None:  # else another recording was put behind it
            return None
    places, cut = _walk(file, start, size)
    if tag:
        places = places[1:]
    if tag and tag.frames:
        missing = tag.frames - len(places)  # one if the tag counts its own frame
        if missing > (0 if cut else 1):
            raise UserError(
                f"the file is cut off: its header says {tag.frames:,} frames, {len(places):,} are "
                "there; get it again"
            )
        if missing >= 0:
            return None
    elif cut:
        raise UserError("the file is cut off in its last frame; get it again")
    return places


def with_table(file: BinaryIO, frames: Frames) -> bytes:
    """The same frames and no tags, behind a frame that tells their number (Xing)."""
    place, first = frames[0]
    header = bytearray(_at(file, place))
    header[1] |= 1  # without a checksum
    header[2] = 0x90 | header[2] & 0x0D  # of a middle bit rate, so that it has room
    frame = _frame(bytes(header))
    assert frame is not None
    sound = b"".join(_at(file, start, one.length) for start, one in frames)
    table = b"Xing" + struct.pack(">III", 3, len(frames), frame.length + len(sound))
    start = bytes(header) + bytes(_table_place(first) - 4) + table
    return start.ljust(frame.length, b"\0") + sound


def _frame(header: bytes) -> Frame | None:
    """Reads the four bytes that a frame of layer 3 begins with; None if they are others."""
    if len(header) < 4 or header[0] != 0xFF or header[1] < 0xE0:
        return None
    version, layer_3 = header[1] >> 3 & 3, header[1] >> 1 & 3 == 1
    kbits, rate = header[2] >> 4, header[2] >> 2 & 3
    if version == 1 or not layer_3 or kbits in (0, 15) or rate == 3:
        return None
    first = version == 3
    hertz = _RATES[rate] >> (0 if first else 1 if version == 2 else 2)
    bits, padding = _KBITS[first][kbits] * 1000, header[2] >> 1 & 1
    length = (144 if first else 72) * bits // hertz + padding
    return Frame(length, (version, rate), header[3] >> 6 == 3)


def _at(file: BinaryIO, place: int, count: int = 4) -> bytes:
    file.seek(place)
    return file.read(count)


def after_tags(file: BinaryIO, place: int) -> int:
    """Where what follows ID3v2 tags begins."""
    while (header := _at(file, place, 10))[:3] == b"ID3" and len(header) == 10:
        a, b, c, d = header[6:]
        place += 10 + (a << 21 | b << 14 | c << 7 | d) + (10 if header[5] & 0x10 else 0)
    return place


def _first_frame(file: BinaryIO, place: int, size: int) -> int | None:
    """Where a frame begins after which another of its kind follows, or the file's end."""
    found = _at(file, place, SEARCHED)
    for offset in range(len(found) - 3):
        if found[offset] != 0xFF:
            continue
        frame = _frame(found[offset : offset + 4])
        if frame is None:
            continue
        end = place + offset + frame.length
        after = _frame(_at(file, end))
        if (after and after.kind == frame.kind) or (offset == 0 and end >= size):
            return place + offset
    return None


def _tag(file: BinaryIO, start: int) -> Tag | None:
    frame = _frame(_at(file, start))
    assert frame is not None
    content = _at(file, start, min(frame.length, 200))
    if content[36:40] == b"VBRI":
        return Tag(int.from_bytes(content[50:54], "big"), int.from_bytes(content[46:50], "big"))
    place = _table_place(frame)
    if content[place : place + 4] not in (b"Xing", b"Info"):
        return None
    told, place = content[place + 7], place + 8
    frames = int.from_bytes(content[place : place + 4], "big") if told & 1 else 0
    place += 4 * (told & 1)
    return Tag(frames, int.from_bytes(content[place : place + 4], "big") if told & 2 else 0)


def _table_place(frame: Frame) -> int:
    """Where in a frame the table that Xing devised begins: after what else would be there."""
    wide, narrow = (32, 17) if frame.kind[0] == 3 else (17, 9)
    return 4 + (narrow if frame.mono else wide)


def _walk(file: BinaryIO, start: int, size: int) -> tuple[Frames, bool]:
    """The whole frames from a place on, and whether one more is there in part."""
    places: Frames = []
    place = start
    while (frame := _frame(_at(file, place))) and (not places or frame.kind == places[0][1].kind):
        if place + frame.length > size:
            return places, True
        places.append((place, frame))
        place = after_tags(file, place + frame.length)
    return places, False
