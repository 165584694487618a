"""The samples of a run: every split of the sources with weight, held against what a run needs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from omnitune.config.sft import SftConfig
from omnitune.data.audit.truncation import ReadLimits, audit_truncation
from omnitune.data.bad_samples import BadSamples, without_broken
from omnitune.data.faults import Faults
from omnitune.data.loader import BatchStream, SampleReader
from omnitune.data.mixture import Mixture
from omnitune.data.reading import DataPlace, join, read_sources, split_of
from omnitune.data.remarks import remarks
from omnitune.data.samples import Samples
from omnitune.data.splits import doubts
from omnitune.sample import UserError


def read_samples(config: SftConfig, place: DataPlace | None = None) -> dict[str, Samples]:
    """Every split of the sources with weight; says how many there are, and what is odd.

    Args:
        place: of the configuration, with what is known of it already.
    """
    samples = read_sources(place or data_place(config), weights_of(config), config.languages)
    if bad := bad_samples(config, samples):
        bad.check()
    require_encoders(config, samples)
    require_splits(config, samples)
    require_held_out(config, samples, samples)
    for source, found in samples.items():
        counts = (f"{len(split_of(found, split)):,} {split}" for split in sorted(found.splits))
        print(f"samples of {source}: {', '.join(counts)}", flush=True)
    for remark in remarks(samples.values()):
        print(f"note: {remark}", flush=True)
    return samples


def data_place(config: SftConfig) -> DataPlace:
    """Where a run's records are."""
    embedded = any(name not in config.sources for name in config.source_names)
    folder, skip = config.data_dir if embedded else None, config.bad_samples == "skip"
    return DataPlace(folder, config.own_sources, leave_out_wrong=skip)


def bad_samples(config: SftConfig, samples: Mapping[str, Samples]) -> BadSamples | None:
    """What counts the samples that are left out; None where they are errors."""
    return BadSamples(samples, config.max_bad_samples) if config.bad_samples == "skip" else None


def audit_samples(
    config: SftConfig, samples: Mapping[str, Samples], reading: ReadLimits
) -> tuple[dict[str, Samples], dict[str, Any], BadSamples | None]:
    """What of the samples is trained on, the ledger of what is not shown, and what was wrong.

    Raises:
        UserError: a medium or sample is refused, or too many are left out.
    """
    bad = bad_samples(config, samples)
    leave_out = config.too_long == "leave_out"
    on_broken = bad.on_broken if bad else None
    kept, ledger = audit_truncation(samples, reading, leave_out, on_broken)
    if bad:
        bad.check()
    require_splits(config, kept)
    return kept, ledger, bad


def sound_held_out(
    config: SftConfig, samples: Mapping[str, Samples], bad: BadSamples
) -> dict[str, Samples]:
    """The samples without held-out ones that break when they are read; says what is left out.

    What is trained on is read soon enough; scores must not meet a broken file at the end.
    """
    held_out = {name for held in samples.values() for name in held.splits} - {"train"}
    kept = without_broken(samples, bad, sorted(held_out))
    bad.check()
    require_splits(config, kept)
    require_held_out(config, samples, kept)
    print(bad.summary, flush=True)
    return kept


def weights_of(config: SftConfig) -> dict[str, str]:
    """By source with weight, where it got that from, and how much."""
    return {source: weight_of(config, source) for source in config.source_names}


def weight_of(config: SftConfig, source: str) -> str:
    """Where a source got its weight from, and how much."""
    weight = config.data_mix.weights().get(source)
    if weight is None:
        return "of a phase's data_mix: " + config.where("phases", source)
    return f"{config.where('data_mix', source)}: {weight:g}"


def require_encoders(config: SftConfig, samples: Mapping[str, Samples]) -> None:
    """Raises a UserError if records show media that the run names no encoder for."""
    faults = Faults()
    for source, found in samples.items():
        [(file, _)] = found.pieces
        for name in file.index.modalities:
            if name in config.encoders:
                continue
            key, number = config.encoder_key(name), file.index.records_showing(name)[0]
            with faults:
                raise UserError(
                    f"{file.where(int(number))} shows {name}, but {key} is null, so the "
                    f"model has no encoder for it; give {key} a checkpoint, or the source the "
                    f"weight 0 ({weight_of(config, source)})"
                )
    faults.tell()


def require_splits(config: SftConfig, samples: Mapping[str, Samples]) -> None:
    """Raises a UserError unless there is something to train on and to watch the training by."""
    for source, found in samples.items():
        if not split_of(found, "train"):
            raise UserError(
                f"{data_place(config)}: the source {source} has no training samples"
                f'{its_splits(found)}; give some of its records "split": "train"'
                + ', or the source "split": "auto"'
                * (source in config.sources)
            )
    everything = join(samples.values())
    if not split_of(everything, "validation"):
        few = ": one record cannot be both" if len(everything) == 1 else ""
        raise UserError(
            f"{data_place(config)}: no source has validation samples{its_splits(everything)}, so "
            f"there is nothing to watch the training by{few}; give some records "
            '"split": "validation", or leave "split" out and it is chosen for you'
        )


def its_splits(samples: Samples) -> str:
    """The splits that there are, and those that may be meant as another."""
    names = sorted(samples.splits)
    return f" (splits there: {'; '.join([', '.join(names), *doubts(names)])})"


def require_held_out(
    config: SftConfig, before: Mapping[str, Samples], kept: Mapping[str, Samples]
) -> None:
    """Raises a UserError where every record of a held-out split was left out.

    Args:
        before: the samples as they were read; of records that are wrong what split they name.
    """
    indices = [held.pieces[0][0].index for held in before.values()]
    named = {name for index in indices for name in (*index.splits, *index.wrong_splits)}
    for split in sorted(named - {"train"}):
        if not any(split_of(held, split) for held in kept.values()):
            raise UserError(
                f"{data_place(config)}: every record of the split {split} is left out, as it is "
                "wrong or shows a medium that cannot be used, so there is nothing to score there; "
                "`omnitune validate` lists what is wrong; mend some of them, take them out, or "
                "give others that split"
            )


def build_stream(
    config: SftConfig,
    reader: SampleReader,
    samples: Mapping[str, Samples],
    bad: BadSamples | None = None,
) -> BatchStream:
    """The batches of a run's training samples.

    Args:
        bad: counts the samples that cannot be read, in place of an error.
    """
    bad = bad or bad_samples(config, samples)
    training = {source: split_of(found, "train") for source, found in samples.items()}
    sizes = {source: len(found) for source, found in training.items()}
    # Of the whole run: batches are sized by it.
    mixes = [mix.weights() for mix in config.mixes]
    weights = {s: sum(mix.get(s, 0.0) for mix in mixes) for s in config.source_names}
    return BatchStream(
        reader,
        training,
        Mixture(sizes, weights, config.seed),
        config.batch_size,
        multi_turn_prob=config.multi_turn_prob,
        max_questions_per_sample=config.max_questions_per_sample,
        fresh_questions=config.fresh_questions,
        loss_length_exponent=config.loss_length_exponent,
        tokens_per_batch=config.tokens_per_batch,
        on_broken=bad.drop if bad else None,
    )
