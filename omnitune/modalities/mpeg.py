"""The frames of an MP3 file: how many its tag promises, and how many are there.

libsndfile guesses the length of an MP3 without a tag from the bit rate of its first frame. It is
wrong wherever that varies, and what lies beyond it is not heard.
"""

from __future__ import annotations

from typing import BinaryIO, NamedTuple

from omnitune.sample import UserError

_RATES = (44_100, 48_000, 32_000)
_KBITS = {  # by whether it is MPEG-1, and by layer
    (True, 1): (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
TRAILER = 4096  # bytes after the last frame that tags usually have, at most
SEARCHED = 1 << 16  # bytes in which the first frame is looked for


class Frame(NamedTuple):
    """The header of a frame: its bytes, its samples, and what all frames of a file share."""

    length: int
    samples: int
    kind: tuple[int, int, int]  # version, layer, rate
    mono: bool


class Tag(NamedTuple):
    """What the first frame may hold in place of sound: numbers of the others; 0 if not told."""

    frames: int
    size: int


def mp3_samples(file: BinaryIO, size: int) -> int | None:
    """Checks that all frames are there.

    Returns:
        the samples of each channel if the frames had to be counted, else None: a tag tells their
        number and agrees with the file's size, or this is no MP3 after all.

    Raises:
        UserError: frames are missing.
    """
    start = _first_frame(file, _after_tags(file, 0), size)
    if start is None:
        return None
    tag = _tag(file, start)
    if tag and tag.frames and tag.size <= size - start <= tag.size + TRAILER:
        return None
    count, samples, cut = _count(file, start, size)
    if tag and count:
        count, samples = count - 1, samples - samples // count
    if tag and tag.frames:
        if count < tag.frames:
            raise UserError(
                f"the file is cut off: its header says {tag.frames:,} frames, {count:,} are "
                "there; get it again"
            )
    elif cut:
        raise UserError("the file is cut off in its last frame; get it again")
    return samples


def _frame(header: bytes) -> Frame | None:
    """Reads the four bytes that a frame begins with; None if they are something else."""
    if len(header) < 4 or header[0] != 0xFF or header[1] < 0xE0:
        return None
    version, layer = header[1] >> 3 & 3, 4 - (header[1] >> 1 & 3)
    kbits, rate = header[2] >> 4, header[2] >> 2 & 3
    if version == 1 or layer == 4 or kbits in (0, 15) or rate == 3:
        return None
    first = version == 3
    hertz = _RATES[rate] >> (0 if first else 1 if version == 2 else 2)
    bits = _KBITS[first, layer][kbits] * 1000
    padding = header[2] >> 1 & 1
    if layer == 1:
        length, samples = (12 * bits // hertz + padding) * 4, 384
    else:
        samples = 576 if layer == 3 and not first else 1152
        length = samples // 8 * bits // hertz + padding
    return Frame(length, samples, (version, layer, rate), header[3] >> 6 == 3)


def _at(file: BinaryIO, place: int, count: int = 4) -> bytes:
    file.seek(place)
    return file.read(count)


def _after_tags(file: BinaryIO, place: int) -> int:
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
    wide, narrow = (32, 17) if frame.kind[0] == 3 else (17, 9)
    place = 4 + (narrow if frame.mono else wide)
    if content[place : place + 4] not in (b"Xing", b"Info"):
        return None
    told, place = content[place + 7], place + 8
    frames = int.from_bytes(content[place : place + 4], "big") if told & 1 else 0
    place += 4 * (told & 1)
    return Tag(frames, int.from_bytes(content[place : place + 4], "big") if told & 2 else 0)


def _count(file: BinaryIO, start: int, size: int) -> tuple[int, int, bool]:
    """Whole frames from a place on, their samples, and whether one more is there in part."""
    count = samples = 0
    kind = None
    place = start
    while (frame := _frame(_at(file, place))) and kind in (None, frame.kind):
        kind = frame.kind
        if place + frame.length > size:
            return count, samples, True
        count, samples = count + 1, samples + frame.samples
        place = _after_tags(file, place + frame.length)
    return count, samples, False
