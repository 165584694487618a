"""Files as phones, browsers and cameras write them, made with PyAV."""

from pathlib import Path
from typing import Any

import av
import numpy as np

# By name: the muxer, the codec and the rate.
KINDS: dict[str, tuple[str, str, int]] = {
    "a.m4a": ("mp4", "aac", 44_100),
    "alac.m4a": ("mp4", "alac", 16_000),
    "a.mov": ("mov", "pcm_s16le", 16_000),
    "a.mkv": ("matroska", "aac", 16_000),
    "a.webm": ("webm", "libopus", 48_000),
    "a.aac": ("adts", "aac", 16_000),
}


def sweep(seconds: float, rate: int) -> np.ndarray:
    """A tone that rises, so that no two places sound alike ``[S]``."""
    times = np.arange(round(seconds * rate)) / rate
    return (0.3 * np.sin(2 * np.pi * (300 + 150 * times) * times)).astype(np.float32)


def write_muxed(
    path: Path,
    seconds: float = 2.0,
    *,
    video: int = 0,
    tracks: int = 1,
    wave_CS: np.ndarray | None = None,
    **options: str,
) -> Path:
    """A sweep, or samples, in the container and codec of the path's name.

    Args:
        video: frames of pictures beside it, ten a second.
        options: of the muxer.
    """
    muxer, codec, rate = KINDS[path.name]
    wave_CS = sweep(seconds, rate)[None] if wave_CS is None else wave_CS
    with av.open(str(path), "w", format=muxer, options=options) as container:
        codecs = {"webm": "libvpx"}
        if video:
            pictures: Any = container.add_stream(codecs.get(muxer, "mpeg4"), rate=10)
            pictures.width = pictures.height = 32
            pictures.pix_fmt = "yuv420p"
        layout = "mono" if len(wave_CS) == 1 else "stereo"
        sounds: list[Any] = [
            container.add_stream(codec, rate=rate, layout=layout) for _ in range(tracks)
        ]
        for number in range(video):
            pixels = np.full((32, 32, 3), number, dtype=np.uint8)
            container.mux(pictures.encode(av.VideoFrame.from_ndarray(pixels)))
        if video:
            container.mux(pictures.encode())
        for sound in sounds:
            fifo, even = av.AudioFifo(), av.AudioResampler(format=sound.codec_context.format)
            frame = av.AudioFrame.from_ndarray(wave_CS, format="fltp", layout=layout)
            frame.sample_rate, frame.pts = rate, 0
            fifo.write(frame)
            while piece := fifo.read(sound.codec_context.frame_size or 1024, partial=True):
                for same in even.resample(piece):
                    container.mux(sound.encode(same))
            container.mux(sound.encode())
    return path
