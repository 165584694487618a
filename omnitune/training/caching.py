"""Whether the media of frozen encoders are encoded once, before the first step."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path

from omnitune.config.settings import read_json_object
from omnitune.config.sft import SftConfig
from omnitune.console import progress_bar
from omnitune.data.feature_cache import FEATURES_FOLDER, FeatureStore
from omnitune.data.samples import Samples
from omnitune.distributed.protocol import Distributed
from omnitune.distributed.single import SingleProcess
from omnitune.evaluation.evaluate import encode_once
from omnitune.models.omni import OmniModel
from omnitune.sample import Sample, UserError
from omnitune.training.output_dir import CACHE_NOTE
from omnitune.training.phases import Phases

SPARED = 0.5  # of the free disk is left alone


def encode_media(
    config: SftConfig,
    model: OmniModel,
    samples: Sequence[Sample],
    rows: Mapping[str, int],
    resume: bool = False,
    ranks: Distributed | None = None,
) -> dict[str, FeatureStore]:
    """Encodes media once while their encoder is frozen, if that pays or was asked for.

    Args:
        rows: feature rows of all media, at most, by modality.
        resume: do as the run began.
        ranks: rank 0 decides; each encodes a share, and finds what the others kept.

    Returns:
        the rows by modality; those of a modality that is left out are encoded in each step.

    Raises:
        UserError: it was asked for, and an encoder is trained from the first step on.
    """
    asked, passes = config.feature_cache, frozen_passes(config, model)
    if asked == "on" and len(passes) < len(model.modalities):
        raise UserError(
            "feature_cache is on, but the encoders are trained; their features "
            "change with every step: freeze_encoders true, or feature_cache auto"
        )
    root, note = config.data_dir / FEATURES_FOLDER, config.out / CACHE_NOTE
    if asked != "auto":
        chosen, why = list(passes) if asked == "on" else [], "as configured"
    elif resume and note.exists():
        chosen, why = read_json_object(note).get("modalities", list(passes)), "as the run began"
    else:
        chosen, why = choose_cached(model, passes, rows, root)
    ranks = ranks or SingleProcess()
    chosen, why = ranks.share((chosen, why))  # room on the disk changes from moment to moment
    print(f"feature cache: {', '.join(chosen) or 'off'} ({why})", flush=True)
    lenient = config.bad_samples == "skip"
    if chosen and ranks.world_size > 1:
        encode_together(model, samples, root, chosen, lenient, ranks)
    with ranks.in_turn():
        return encode_once(model, samples, root, chosen, lenient) if chosen else {}


def encode_together(
    model: OmniModel,
    samples: Sequence[Sample],
    root: Path,
    chosen: Sequence[str],
    lenient: bool,
    ranks: Distributed,
) -> None:
    """Each rank encodes a share of the media, where all find what the others keep.

    Where they do not, each machine has to encode all of them.
    """
    if not isinstance(samples, Samples) or not ranks.see_same(root):
        return
    model.eval()
    key = samples.media_key

    def encode(part: int) -> None:
        for name in chosen:
            store = FeatureStore(model.modalities[name], model.encoders[name], root, lenient)
            if key and store.holds(key):
                continue
            shares = samples.media(part, ranks.world_size)
            todo = store.missing(m.path for m, _ in shares if m.modality == name)
            told = progress_bar(f"encoding {name}, share of rank 0", len(todo))
            with told if todo and not part else nullcontext(lambda n: None) as advance:
                store.prepare(todo, advance)

    ranks.share_out(encode, range(ranks.world_size))


def frozen_passes(config: SftConfig, model: OmniModel) -> dict[str, float]:
    """Passes over the data in which an encoder is frozen, by modality, from the start on."""
    phases = Phases(config, model.parts(), model.modalities)
    share = dict.fromkeys(model.modalities, 1.0)
    share |= {name: phases.starts[n] for name, n in phases.raw_from().items()}
    return {name: config.num_epochs * until for name, until in share.items() if until}


def choose_cached(
    model: OmniModel, passes: Mapping[str, float], rows: Mapping[str, int], root: Path
) -> tuple[list[str], str]:
    """The modalities whose media are encoded once, and why; ``root`` is the stores' folder.

    To encode a medium in large batches and keep its rows takes no longer than to encode it in the
    steps of one pass (docs/performance.md, "What gives what"): the cache pays from the second on.
    """
    chosen = [name for name, count in passes.items() if count > 1]
    if not chosen:
        return [], "no medium is met twice by a frozen encoder"
    # In half precision.
    size = sum(2 * model.modalities[name].feature_dim * rows.get(name, 0) for name in chosen)
    there = next(folder for folder in (root, *root.parents) if folder.exists())
    kept = sum(file.stat().st_size for file in root.rglob("rows-*"))
    room = (1 - SPARED) * shutil.disk_usage(there).free + kept
    if size > room:
        return [], f"the features take {size / 1e6:,.0f} MB, and there are {room / 1e6:,.0f}"
    times = " and ".join(f"{count:g}" for count in sorted({passes[name] for name in chosen}))
    return chosen, f"frozen for {times} passes; at most {size / 1e6:,.0f} MB"
