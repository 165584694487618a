"""What a model's training showed of media: how many in a conversation, and where they stood.

A conversation unlike all of these is answered badly and without a word: of two pictures, say, the
model that never saw two goes on about the first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from omnitune.data.samples import Samples
from omnitune.sample import Media, Sample

LOOKED_AT = 1_000  # samples that are read to find where media stand


@dataclass(frozen=True)
class Taught:
    """What of media a model knows how to read; without values, a model of an older run.

    Attributes:
        media_per_sample: by modality, the most that one conversation showed. One that is not
            named is taken for one.
        media_after_text: whether media ever came in a later turn than the first.
        media_together: whether one conversation ever showed media of several kinds.
        system_text: whether a conversation ever began with a system text; None: nobody noted it.
    """

    media_per_sample: Mapping[str, int] = field(default_factory=dict)
    media_after_text: bool = False
    media_together: bool = True
    system_text: bool | None = None

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Taught:
        """From what ``omni.pt`` holds; what is missing or wrong is left at its default."""
        counts = values.get("media_per_sample")
        counts = counts if isinstance(counts, dict) else {}
        found = {str(k): n for k, n in counts.items() if isinstance(n, int) and n >= 0}
        together = values.get("media_together") is not False
        system = values.get("system_text")
        system = system if isinstance(system, bool) else None
        return cls(found, values.get("media_after_text") is True, together, system)

    def values(self) -> dict[str, Any]:
        """For ``omni.pt``."""
        return asdict(self)

    def most(self, modality: str) -> int:
        """How many media of a kind may stand in a conversation."""
        return max(1, self.media_per_sample.get(modality, 1))

    def never_saw(self, modality: str) -> bool:
        """Whether training showed none of this kind."""
        return self.media_per_sample.get(modality) == 0


def taught_by(samples: Samples, modalities: Iterable[str]) -> Taught:
    """What training samples teach about media.

    Counts are of all samples and read from the index. Where media stand, and whether there are
    system texts, is looked up in ``LOOKED_AT`` samples, evenly spread.

    Args:
        samples: those of the training split.
        modalities: of the model; those that no sample shows are counted as 0.
    """
    most, together = dict.fromkeys(modalities, 0), False
    for source, numbers in samples.pieces:
        index = source.index
        if not len(numbers) or not len(index.shown_R):
            continue
        modality_R = index.media_M3[index.shown_R, 2]
        record_R = np.repeat(np.arange(len(index.show_N) - 1), np.diff(index.show_N))
        kinds_N = np.zeros(len(numbers), int)
        for code, name in enumerate(index.modalities):
            counts_N = np.bincount(record_R[modality_R == code], minlength=len(index.show_N) - 1)
            counts_N = counts_N[np.asarray(numbers)]
            most[name] = max(most.get(name, 0), int(counts_N.max()))
            kinds_N += counts_N > 0
        together = together or bool(kinds_N.max() > 1)
    places = np.unique(np.linspace(0, len(samples) - 1, min(len(samples), LOOKED_AT)).astype(int))
    late = system = False
    for n in places:
        sample = samples[int(n)]
        late = late or _media_after_text(sample)
        system = system or any(message.role == "system" for message in sample.messages)
    return Taught(most, late, together, system)


def _media_after_text(sample: Sample) -> bool:
    if sample.independent_turns:  # these are drawn in any order, media first
        return False
    shows = [any(isinstance(part, Media) for part in m.parts) for m in sample.messages]
    asked = [shown for shown, m in zip(shows, sample.messages, strict=True) if m.role == "user"]
    return any(asked[1:])
