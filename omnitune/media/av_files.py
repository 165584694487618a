"""The sound of M4A, MP4, MOV, Matroska, WebM and AAC files, by PyAV or the program ffmpeg.

Neither is needed for other files, so neither is imported before such a file is met. A sound begins
with its own first sample, also where a video's picture begins earlier.

Shape suffixes: S samples, C channels.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
import soundfile

from omnitune.media.muxed import Muxed
from omnitune.media.sound import Sound, check_limits, of_soundfile
from omnitune.sample import UserError

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer

PREROLL = 0.5  # seconds decoded before a place: a codec's first frames there lack what went before
GAP = 0.02  # seconds between two frames from which silence is put in; times are rounded to 1 ms
# Samples by which a header and a decoder may differ: a codec fills its last frame up.
FRAME = 4096
PATIENCE = 600  # seconds until ffmpeg must have ended


@contextmanager
def open_muxed(file: BinaryIO, kind: Muxed) -> Iterator[Sound]:
    """Reads the header of a file of such a kind.

    Raises:
        UserError: it holds no sound, or nothing is installed that reads it.
    """
    try:
        import av  # noqa: F401
    except ImportError:
        with _by_program(file, kind) as sound:
            yield sound
        return
    yield _header(file, kind)


@contextmanager
def _opened(file: BinaryIO, kind: Muxed) -> Iterator[tuple[InputContainer, AudioStream]]:
    """The container and its first sound track; what belongs to other tracks is skipped."""
    import av

    file.seek(0)
    try:
        with av.open(file, "r", format=kind.demuxer, metadata_errors="replace") as container:
            if not container.streams.audio:
                others = sorted({stream.type for stream in container.streams})
                raise UserError(f"holds no sound (its tracks: {', '.join(others) or 'none'})")
            sound = container.streams.audio[0]
            for stream in container.streams:
                if stream is not sound:
                    stream.discard = av.stream.Discard.all
            yield container, sound
    except av.FFmpegError as error:  # some are OSErrors, as if the disk were to blame
        raise ValueError(error.strerror) from None


def _header(file: BinaryIO, kind: Muxed) -> Sound:
    with _opened(file, kind) as (container, stream):
        codec = stream.codec_context
        rate, channels, tick = codec.sample_rate or 0, codec.channels, stream.time_base
        check_limits(rate, channels)
        tracks = len(container.streams.audio)
        first = next(container.decode(stream), None)
        begun = (first.pts or 0) if first is not None else 0
        end = (stream.start_time or 0) + (stream.duration or 0)
    if kind.counted or not stream.duration:
        end = _end(file, kind)
    frames = round((end - begun) * (tick or 0) * rate)
    if first is None or frames <= 0:
        raise UserError("holds no sound (0 samples)")

    def decode(place: int, count: int) -> np.ndarray:
        return _decode(file, kind, begun, place, count)

    told = (f"{tracks} sound tracks; only the first is heard",) if tracks > 1 else ()
    return Sound(rate, channels, frames, decode, remarks=told)


def _end(file: BinaryIO, kind: Muxed) -> int:
    """When the last packet ends, in ticks of the track; nothing is decoded."""
    end = 0
    with _opened(file, kind) as (container, stream):
        for packet in container.demux(stream):
            if packet.pts is not None:
                end = max(end, packet.pts + (packet.duration or 0))
    return end


def _decode(file: BinaryIO, kind: Muxed, begun: int, first: int, count: int) -> np.ndarray:
    """``count`` samples ``[S, C]`` from ``first`` on, or fewer; sought where that can be.

    What a codec's last frame lacks to the length that the header told is silence.
    """
    with _opened(file, kind) as (container, stream):
        channels = stream.codec_context.channels
        pieces, due, end = [np.zeros((0, channels), dtype=np.float32)], first, first + count
        if sought := kind.seekable and _seek(container, stream, begun, first):
            stream.codec_context.flush_buffers()
        for place, piece_SC in _placed(container, stream, begun):
            if sought and place > first:  # the index led too far
                return _decode(file, replace(kind, seekable=False), begun, first, count)
            sought = False
            piece_SC = piece_SC[max(0, due - place) :]
            if not len(piece_SC):
                continue
            silence = max(0, min(place, end) - due)
            pieces += [np.zeros((silence, channels), dtype=np.float32), piece_SC]
            due += silence + len(piece_SC)
            if due >= end:
                break
    wave_SC = np.concatenate(pieces)[:count]
    lacking = count - len(wave_SC)
    return np.pad(wave_SC, ((0, lacking), (0, 0))) if 0 < lacking <= FRAME else wave_SC


def _seek(container: InputContainer, stream: AudioStream, begun: int, first: int) -> bool:
    """Goes to well before a sample; False if that is the beginning, or there is no way."""
    import av

    seconds = first / stream.codec_context.sample_rate - PREROLL
    if seconds <= 0 or not stream.time_base:
        return False
    try:
        container.seek(int(begun + seconds / stream.time_base), stream=stream)
    except (av.FFmpegError, OSError):
        container.seek(0)
        return False
    return True


def _placed(
    container: InputContainer, stream: AudioStream, begun: int
) -> Iterator[tuple[int, np.ndarray]]:
    """Where each frame's samples ``[S, C]`` begin, counted from the sound's first sample.

    Frames follow each other, but for gaps in the recording.
    """
    import av

    codec, tick = stream.codec_context, stream.time_base or 0
    rate, layout = codec.sample_rate, codec.layout
    resampler = av.AudioResampler(format="flt", layout=layout, rate=rate)
    due: int | None = None
    for frame in container.decode(stream):
        told = due if frame.pts is None else round((frame.pts - begun) * tick * rate)
        if due is None or (told is not None and told - due > GAP * rate):
            due = told or 0
        for even in resampler.resample(frame):
            piece_SC = even.to_ndarray().reshape(-1, codec.channels)
            yield due, piece_SC
            due += len(piece_SC)


@contextmanager
def _by_program(file: BinaryIO, kind: Muxed) -> Iterator[Sound]:
    """Writes the sound as another file that libsndfile reads; ffmpeg's complaints end it."""
    program = shutil.which("ffmpeg")
    if program is None:
        raise UserError(
            f"is a file of the kind {kind.name}, which PyAV or the program ffmpeg reads, and "
            "neither is installed: pip install 'omnitune[media]' (or write it as WAV elsewhere)"
        )
    number = file.fileno()
    with tempfile.NamedTemporaryFile() as wave:
        command = [program, "-nostdin", "-v", "error", "-xerror", "-protocol_whitelist", "file"]
        command += ["-f", kind.demuxer, "-i", f"file:/dev/fd/{number}", "-map", "0:a:0"]
        command += ["-c:a", "pcm_f32le", "-f", "w64", "-y", f"file:{wave.name}"]
        done = subprocess.run(
            command, pass_fds=(number,), capture_output=True, text=True, timeout=PATIENCE
        )
        if done.returncode:
            said = " ".join(done.stderr.split())
            raise UserError(f"holds no sound that ffmpeg can read ({said[-300:]})")
        with soundfile.SoundFile(wave.name) as opened:
            yield of_soundfile(opened)
