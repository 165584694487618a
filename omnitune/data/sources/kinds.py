"""Which kind of medium a file is, as its name tells."""

from __future__ import annotations

from pathlib import PurePosixPath

SUFFIXES = {
    "image": "png jpg jpeg jpe jfif webp gif bmp tif tiff avif heic heif ppm pgm pbm",
    "audio": "wav flac mp3 ogg oga opus m4a aac aif aiff aifc au snd caf w64 rf64 sph nist wma amr",
}
_KIND = {f".{end}": kind for kind, ends in SUFFIXES.items() for end in ends.split()}


def modality_of(name: str) -> str:
    """The kind of a medium by its file's name; "" if that does not tell.

    A stretch (``::t=``) of a sound is a sound, too.
    """
    return _KIND.get(PurePosixPath(name.partition("::t=")[0]).suffix.lower(), "")
