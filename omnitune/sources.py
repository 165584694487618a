"""The sources of records: what ``data_mix`` gives weights to. A new one is one more entry here."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Source:
    """Records of one kind, with a file and a weight of their own.

    Attributes:
        name: key in ``SOURCES`` and in ``data_mix``.
        file: within the data folder; records in another format have its suffix instead.
        media: kinds that each of its records holds at least one of; a record may hold any more.
        keys: further keys that its records may have, and that nothing reads.
    """

    name: str
    file: str
    media: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()


SOURCES: dict[str, Source] = {
    source.name: source
    for source in (
        Source("text_only", "text/conversations.json"),
        Source("image_text", "images/image_qa.json", media=("image",)),
        Source("audio_text", "audio/audio_qa.json", media=("audio",)),
        Source("image_audio_text", "omni/omni_qa.json", media=("image", "audio")),
    )
}
