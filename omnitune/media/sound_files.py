"""Sound files: opened safely, and whole.

libsndfile takes what is left of a file that was cut off, and of joined files the first, without a
word. So the header is held against the file's size before it is asked; a few bytes are read for it.
"""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import soundfile

from omnitune.media.base import open_file, reason
from omnitune.media.mpeg import Frames, count_frames, with_table
from omnitune.sample import UserError

# Those whose length is held against the file's, here or by their decoder.
FORMATS = frozenset(
    ("WAV", "WAVEX", "RF64", "W64", "AIFF", "AU", "CAF", "SVX", "NIST", "FLAC", "OGG", "MP3")
)
RATES = (1_000, 768_000)  # of heart sounds, and the finest recorders
MAX_CHANNELS = 64
UNKNOWN_LENGTH = 1 << 50  # samples; libsndfile says so of a stream that does not tell
MAX_CHUNKS = 10_000


@contextmanager
def open_sound(path: Path) -> Iterator[soundfile.SoundFile]:
    """Opens a sound file of sensible rate, channels and length; its content is yet to be decoded.

    What the block inside raises that no UserError is, is told as damage.

    Raises:
        UserError: it is no regular file, no sound, cut off, or promises what cannot be.
    """
    with open_file(path, "sound file") as file:
        try:
            frames = check_whole(file)
            repaired = with_table(file, frames) if frames else _with_length(file)
            os.lseek(file.fileno(), 0, os.SEEK_SET)
            # By number: of a name libsndfile would believe the ending, not the content.
            source = io.BytesIO(repaired) if repaired else file.fileno()
            sound = soundfile.SoundFile(source, closefd=False)
        except UserError as error:
            raise UserError(f"{path}: {error}") from None
        except Exception as error:  # OSError, or what libsndfile's errors are told as
            if isinstance(error, OSError):
                raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
            raise UserError(
                f"{path}: is not a sound file (WAV, FLAC, OGG and MP3 are read)"
            ) from None
        with sound:
            _check_header(path, sound)
            try:
                yield sound
            except UserError:
                raise
            except Exception as error:
                raise UserError(f"{path}: the sound is damaged ({reason(error)})") from None


def _check_header(path: Path, sound: soundfile.SoundFile) -> None:
    """Refuses what a header may promise and no sound for speech holds."""
    if sound.format not in FORMATS:
        raise UserError(
            f"{path}: {sound.format_info} is not read (WAV, FLAC, OGG and MP3 are); convert it"
        )
    if not RATES[0] <= sound.samplerate <= RATES[1]:
        raise UserError(
            f"{path}: {sound.samplerate:,} samples a second; {RATES[0]:,} to {RATES[1]:,} are read"
        )
    if sound.channels > MAX_CHANNELS:
        raise UserError(f"{path}: {sound.channels} channels; {MAX_CHANNELS} at most are read")
    if sound.frames >= UNKNOWN_LENGTH:
        raise UserError(
            f"{path}: its header does not say how long it is; write it anew, into a file and not "
            "through a pipe (ffmpeg -i in.flac out.wav)"
        )
    if sound.frames == 0:
        raise UserError(f"{path}: holds no sound (0 samples)")


def check_whole(file: BinaryIO) -> Frames | None:
    """Checks that a file is not shorter than its header says, for all formats but FLAC.

    A FLAC file that was cut off is met in decoding.

    Returns:
        the frames of an MP3 whose tag does not tell how many there are, else None.

    Raises:
        UserError: it is cut off, or holds several recordings of which one would be heard.
    """
    size = os.fstat(file.fileno()).st_size
    start = file.read(64)
    kind = start[:4]
    if kind in CHUNKED:
        _check_chunks(file, size, CHUNKED[kind])
    elif kind in (b".snd", b"dns.") and len(start) >= 12:
        offset, told = struct.unpack(">II" if kind == b".snd" else "<II", start[4:12])
        if told != 0xFFFFFFFF:
            _compare(told, size - offset)
    elif kind == b"NIST":
        _check_nist(file, size)
    elif kind == b"OggS":
        _check_ogg(file, size)
    elif kind[:3] == b"ID3" or (len(kind) == 4 and kind[0] == 0xFF and kind[1] >= 0xE0):
        return count_frames(file, size)
    return None


def _compare(told: int, there: int) -> None:
    if told > there:
        raise UserError(
            f"the file is cut off: its header says {told:,} bytes of sound, {max(there, 0):,} are "
            "there; get it again"
        )


@dataclass(frozen=True)
class Chunks:
    """How a format of chunks is laid out.

    Attributes:
        first: where its first chunk begins. name: bytes of a chunk's name. size: of its length.
        sound: name of the chunk that holds the sound.
        own: whether a length counts the chunk's own header. even: what chunks begin at a
            multiple of.
    """

    first: int
    name: int
    size: str
    sound: bytes
    own: bool = False
    even: int = 2


_RIFF = Chunks(12, 4, "<I", b"data")
_IFF = Chunks(12, 4, ">I", b"SSND")
CHUNKED = {
    b"RIFF": _RIFF,
    b"RF64": _RIFF,
    b"BW64": _RIFF,
    b"RIFX": Chunks(12, 4, ">I", b"data"),
    b"FORM": _IFF,
    b"caff": Chunks(8, 4, ">q", b"data", even=1),
    b"riff": Chunks(40, 16, "<q", b"data", own=True, even=8),
}


def _chunks(file: BinaryIO, size: int, layout: Chunks) -> Iterator[tuple[bytes, int, int]]:
    """Name, place of the content and length as told of each chunk that begins in a file."""
    place = layout.first
    header = layout.name + struct.calcsize(layout.size)
    for _ in range(MAX_CHUNKS):
        file.seek(place)
        found = file.read(header)
        if len(found) < header:
            return
        (told,) = struct.unpack(layout.size, found[layout.name :])
        told -= header if layout.own else 0
        yield found[:4], place + header, told
        if told < 0 or place + header + told > size:
            return
        place += header + told
        place += -place % layout.even


def _check_chunks(file: BinaryIO, size: int, layout: Chunks) -> None:
    wide = None  # what a 64-bit file says in another chunk
    for name, place, told in _chunks(file, size, layout):
        if name == b"ds64":
            file.seek(place + 8)
            wide = int.from_bytes(file.read(8), "little")
        if name in (layout.sound, b"BODY"):
            if told == 0xFFFFFFFF and wide is not None:
                told = wide
            if not _unknown(told, layout):
                _compare(told, size - place)
                if layout is _RIFF and told:  # 0 is written by who cannot know it
                    _check_rest(file, told, place + told + told % 2, size)
            break
    file.seek(4)
    end = 8 + int.from_bytes(file.read(4), "little")
    file.seek(end)
    if layout is _RIFF and 12 < end < size and file.read(4) == b"RIFF":
        raise UserError(
            "two WAV files lie one after the other in it, of which only the first would be heard; "
            "write them anew as one"
        )


def _check_rest(file: BinaryIO, told: int, end: int, size: int) -> None:
    """Refuses a header that says less than is there: what follows the sound is sound too.

    Other chunks may follow, or some bytes of any kind.
    """
    file.seek(end)
    name = file.read(4)
    if size - end > max(told, 4096) and not all(32 <= byte < 127 for byte in name):
        raise UserError(
            f"its header says {told:,} bytes of sound, and {size - end:,} more follow that would "
            "not be heard; write it anew (ffmpeg -i in.wav out.wav)"
        )


def _unknown(told: int, layout: Chunks) -> bool:
    """Whether a length is what programs write who cannot know it: ffmpeg, SoX, arecord."""
    if struct.calcsize(layout.size) == 8:
        return told < 0 or told >= UNKNOWN_LENGTH
    return told >= 0xFFFFFF00 or 0x7FFFE000 <= told <= 0x80000000 or told >= UNKNOWN_LENGTH


def _with_length(file: BinaryIO) -> bytes | None:
    """A WAV whose recorder was stopped before it could say its length, with the length set.

    Its sound is said to be 0 bytes long, and what follows is no row of chunks. None for others.
    """
    file.seek(0)
    if file.read(4) != b"RIFF":
        return None
    size = os.fstat(file.fileno()).st_size
    chunks = list(_chunks(file, size, _RIFF))
    for number, (name, place, told) in enumerate(chunks):
        if name != b"data" or told or size <= place:
            continue
        rest = chunks[number + 1 :]
        named = all(name.isascii() and name.decode().isprintable() for name, _, _ in rest)
        if rest and named and size - 8 < rest[-1][1] + rest[-1][2] <= size:
            return None
        file.seek(0)
        content = bytearray(file.read())
        content[place - 4 : place] = struct.pack("<I", min(size - place, 0xFFFFFFFF))
        return bytes(content)
    return None


def _check_nist(file: BinaryIO, size: int) -> None:
    """NIST SPHERE: its header is text."""
    file.seek(0)
    lines = file.read(1024).split(b"\n")
    fields = {words[0]: words[-1] for line in lines if len(words := line.split()) == 3}
    names = (b"sample_count", b"sample_n_bytes", b"channel_count")
    if all(fields.get(name, b"").isdigit() for name in names) and lines[1].strip().isdigit():
        count, width, channels = (int(fields[name]) for name in names)
        _compare(count * width * channels, size - int(lines[1]))


def _check_ogg(file: BinaryIO, size: int) -> None:
    """Vorbis or Opus: every page is there, up to those that are marked as a stream's last."""
    streams: dict[bytes, tuple[int, bool, bool]] = {}  # next page, of sound already, ended
    place = 0
    while place < size:
        file.seek(place)
        header = file.read(27)
        if header[:4] != b"OggS" or len(header) < 27:
            break
        lengths = file.read(header[26])
        place += 27 + header[26] + sum(lengths)
        if place > size:
            break
        flags, serial = header[5], header[14:18]
        number = int.from_bytes(header[18:22], "little")
        if flags & 2 and streams and all(ended for _, _, ended in streams.values()):
            raise UserError(
                "several recordings lie one after the other in it, of which only the first would "
                "be heard; write them anew as one"
            )
        due, sounding, _ = streams.get(serial, (number, False, False))
        if sounding and number != due:
            raise UserError(f"the sound is damaged: page {due} of the file is missing")
        begun = int.from_bytes(header[6:14], "little", signed=True) > 0
        streams[serial] = number + 1, sounding or begun, bool(flags & 4)
    if not streams or not all(ended for _, _, ended in streams.values()):
        raise UserError(
            "the file is cut off: the page that ends the recording is not there; get it again"
        )
