"""Sound files: opened safely, and whole.

libsndfile takes what is left of a file that was cut off, and of joined files the first. Of some
formats its log tells; of the others a few bytes of the file are looked at here.
"""

from __future__ import annotations

import io
import os
import re
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

import soundfile

from omnitune.media.av_files import open_muxed
from omnitune.media.base import open_file, reason
from omnitune.media.mpeg import count_frames, with_table
from omnitune.media.muxed import recognise
from omnitune.media.segments import split_time
from omnitune.media.sound import Sound, check_length, check_limits, of_soundfile
from omnitune.sample import UserError

# Those whose length is held against the file's, here or by their decoder.
FORMATS = frozenset(
    ("WAV", "WAVEX", "RF64", "W64", "AIFF", "AU", "CAF", "NIST", "FLAC", "OGG", "MP3")
)
UNCHECKED = ("MPEG_LAYER_I", "MPEG_LAYER_II")
READ = "WAV, FLAC, OGG, MP3, M4A, MP4, MKV and WebM"
UNKNOWN_LENGTH = 1 << 50  # samples; libsndfile says so of a stream that does not tell
MAX_CHUNKS = 10_000
_POINTER = b"version https://git-lfs"
# A line of libsndfile's log: the bytes of sound that a header tells, and those that are there.
_TOLD_AND_THERE = re.compile(
    r"^ *(?:data|SSND|Data Size|Riff size|riff) *: (\d+) \(should be (\d+)\)", re.MULTILINE
)


@contextmanager
def open_sound(path: Path) -> Iterator[Sound]:
    """Opens a sound file, or a stretch of one, of sensible rate, channels and length.

    Its content is yet to be decoded. What the block inside raises that no UserError is, is told as
    damage.

    Raises:
        UserError: it is no regular file, no sound, cut off, or promises what cannot be; or the
            stretch does not lie within it.
    """
    whole, start, stop = split_time(path)
    with open_file(whole, "sound file") as file, ExitStack() as stack:
        try:
            sound = stack.enter_context(_open(file))
            if whole != path:
                sound = sound.stretch(start, stop)
            check_length(sound)
        except UserError as error:
            raise UserError(f"{path}: {error}") from None
        except Exception as error:  # OSError, or what libsndfile's errors are told as
            if isinstance(error, OSError):
                raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
            raise UserError(
                f"{path}: is not a sound file ({READ} are read), or is damaged"
            ) from None
        try:
            yield sound
        except UserError:
            raise
        except Exception as error:
            raise UserError(f"{path}: the sound is damaged ({reason(error)})") from None


@contextmanager
def _open(file: BinaryIO) -> Iterator[Sound]:
    """By whichever library reads it, which its first bytes tell."""
    size = os.fstat(file.fileno()).st_size
    if not size:
        raise UserError("is not a sound file, but empty (0 bytes); get it again")
    if file.read(len(_POINTER)) == _POINTER:
        raise UserError("is a pointer of Git LFS, and not the sound; get the sound (git lfs pull)")
    kind = recognise(file, size)
    if kind:
        with open_muxed(file, kind) as sound:
            yield sound
        return
    file.seek(0)
    repaired = _check_whole(file)
    os.lseek(file.fileno(), 0, os.SEEK_SET)
    # By number: of a name libsndfile would believe the ending, not the content.
    source = io.BytesIO(repaired) if repaired else file.fileno()
    with soundfile.SoundFile(source, closefd=False) as opened:
        _check_header(opened)
        yield of_soundfile(opened)


def _check_header(sound: soundfile.SoundFile) -> None:
    """Refuses what a header may promise and no sound for speech holds, and a file cut off."""
    if sound.format not in FORMATS or sound.subtype in UNCHECKED:
        raise UserError(f"{sound.format_info} is not read ({READ} are); convert it")
    check_limits(sound.samplerate, sound.channels)
    if sound.frames >= UNKNOWN_LENGTH:
        raise UserError(
            "its header does not say how long it is; write it anew, into a file and not "
            "through a pipe (ffmpeg -i in.flac out.wav)"
        )
    if sound.frames == 0:
        raise UserError("holds no sound (0 samples)")
    for told, there in _TOLD_AND_THERE.findall(sound.extra_info):
        if not _is_unknown(int(told)):
            _check_length(int(told), int(there))


def _is_unknown(told: int) -> bool:
    """Whether a length is what programs write who cannot know it: ffmpeg, SoX, arecord."""
    return told >= 0xFFFFFF00 or 0x7FFFE000 <= told <= 0x80000000


def _check_whole(file: BinaryIO) -> bytes | None:
    """Checks, where libsndfile does not, that a file is as long as its header says.

    A FLAC file that was cut off is met in decoding.

    Returns:
        the file with its length told, where libsndfile would take it for shorter; else None.

    Raises:
        UserError: it is cut off, or holds several recordings of which one would be heard.
    """
    size = os.fstat(file.fileno()).st_size
    kind = file.read(4)
    if kind == b"RIFF":
        return _check_riff(file, size)
    if kind == b"NIST":
        _check_nist(file, size)
    elif kind == b"OggS":
        _check_ogg(file, size)
    elif kind[:3] == b"ID3" or (len(kind) == 4 and kind[0] == 0xFF and kind[1] >= 0xE0):
        frames = count_frames(file, size)
        return with_table(file, frames) if frames else None
    return None


def _check_length(told: int, there: int) -> None:
    if told > there:
        raise UserError(
            f"the file is cut off: its header says {told:,} bytes of sound, {max(there, 0):,} are "
            "there; get it again"
        )


def _chunks(file: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    """Name, place of the content and length as told of each chunk of a WAV file."""
    place = 12
    for _ in range(MAX_CHUNKS):
        file.seek(place)
        header = file.read(8)
        if len(header) < 8:
            return
        told = int.from_bytes(header[4:], "little")
        yield header[:4], place + 8, told
        place += 8 + told + told % 2


def _check_riff(file: BinaryIO, size: int) -> bytes | None:
    """WAV: nothing follows its sound but other chunks, or some bytes of any kind.

    Returns:
        the file with its length set, if its recorder was stopped before it could say it: its sound
        is said to be 0 bytes long, and what follows is no row of chunks.
    """
    end = 8 + int.from_bytes(file.read(4), "little")
    file.seek(end)
    if 12 < end < size and file.read(4) == b"RIFF":
        raise UserError(
            "two WAV files lie one after the other in it, of which only the first would be heard; "
            "write them anew as one"
        )
    chunks = list(_chunks(file))
    number = next((n for n, (name, _, _) in enumerate(chunks) if name == b"data"), None)
    if number is None:
        return None
    _, place, told = chunks[number]
    rest = chunks[number + 1 :]
    named = all(name.isascii() and name.decode().isprintable() for name, _, _ in rest)
    follows = size - (place + told + told % 2)
    if told and follows > max(told, 4096) and not named:
        raise UserError(
            f"its header says {told:,} bytes of sound, and {follows:,} more follow that would "
            "not be heard; write it anew (ffmpeg -i in.wav out.wav)"
        )
    whole = rest and named and size - 8 < rest[-1][1] + rest[-1][2] <= size
    if told or not follows or whole:
        return None
    file.seek(0)
    content = bytearray(file.read())
    content[place - 4 : place] = struct.pack("<I", min(follows, 0xFFFFFFFF))
    return bytes(content)


def _check_nist(file: BinaryIO, size: int) -> None:
    """NIST SPHERE: its header is text."""
    file.seek(0)
    lines = file.read(1024).split(b"\n")
    fields = {words[0]: words[-1] for line in lines if len(words := line.split()) == 3}
    if b"embedded" in fields.get(b"sample_coding", b""):
        raise UserError(
            "is compressed inside (Shorten), which is not read; unpack it with sph2pipe -f wav"
        )
    names = (b"sample_count", b"sample_n_bytes", b"channel_count")
    if all(fields.get(name, b"").isdigit() for name in names) and lines[1].strip().isdigit():
        count, width, channels = (int(fields[name]) for name in names)
        _check_length(count * width * channels, size - int(lines[1]))


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
