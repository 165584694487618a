"""The sources of records: what ``data_mix`` gives weights to. A new one is one more entry here.

A run may have sources of its own, which its setting ``sources`` describes.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Source:
    """Records of one kind, with a weight of their own.

    Attributes:
        name: key in ``SOURCES``, in ``data_mix`` and in the setting ``sources``.
        file: within the data folder; records in another container have its suffix instead.
        media: kinds that each of its records holds at least one of; a record may hold any more.
        keys: further keys that its records may have, and that nothing reads.
        path: of a run's own source: a file, folder, pattern such as ``shards-*.tar``, address of a
            remote file, or data set of the Hub; "" for one of the embedded layout.
        format: dialect of its records, a key of ``data.sources.DIALECTS``; "" if recognised.
        task: of records that name none.
        prompts: questions of records that have none; each record has one of them.
        columns: pairs of our key and the name that the records have for it.
        limit: it has so many records at most, the first ones.
        split: that all its records are in, whatever they say.
        language: code of the language of answers whose records do not say.
        media_dir: folder that its media's paths are relative to; "" if it is found.
        media_within: where nobody says, the folder in that of each file that its media lie in.
        allow_outside: its media's paths may leave that folder.
        seed: of the choice among ``prompts``.
        unanswered: its records may lack answers: they are only asked, never trained on.
    """

    name: str
    file: str = ""
    media: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    path: str = ""
    format: str = ""
    task: str = ""
    prompts: tuple[str, ...] = ()
    columns: tuple[tuple[str, str], ...] = ()
    limit: int | None = None
    split: str = ""
    language: str = ""
    media_dir: str = ""
    media_within: str = ""
    allow_outside: bool = False
    seed: int = 0
    unanswered: bool = False


AUTO = "auto"  # a split that is chosen for each record, whatever it says


def may_set_aside(source: Source) -> bool:
    """Whether a record of a source may be held out where none is: not if its split is settled."""
    return source.split in ("", AUTO)


SOURCES: dict[str, Source] = {
    source.name: source
    for source in (
        Source("text_only", "text/conversations.json"),
        Source("image_text", "images/image_qa.json", media=("image",)),
        Source("audio_text", "audio/audio_qa.json", media=("audio",)),
        Source("image_audio_text", "omni/omni_qa.json", media=("image", "audio")),
    )
}


def get_source(source: str | Source) -> Source:
    """A source, or the registered one of a name."""
    return SOURCES[source] if isinstance(source, str) else source
