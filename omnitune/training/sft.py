"""Fine-tuning of all parts together: parts, samples, optimiser, loop, final scores."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from omnitune.config.parallel import restarted
from omnitune.config.sft import SftConfig
from omnitune.data.audit.truncation import TRUNCATION_FILE, ReadLimits, summary
from omnitune.data.bad_samples import BadSamples
from omnitune.data.loader import SampleReader
from omnitune.data.reading import DataPlace, data_files, join, split_of
from omnitune.data.rounding import round_up
from omnitune.data.samples import Samples
from omnitune.data.taught import taught_by
from omnitune.data.template import ChatRenderer
from omnitune.distributed.logs import RankLog, logging
from omnitune.distributed.opening import open_ranks
from omnitune.distributed.protocol import Distributed
from omnitune.distributed.single import SingleProcess
from omnitune.evaluation.console_summary import score_lines
from omnitune.evaluation.guard import language_lost
from omnitune.media.base import counted
from omnitune.models import adapters
from omnitune.models.loading import save_omni
from omnitune.models.omni import OmniModel
from omnitune.sample import UserError
from omnitune.storage import usable_cores, write_json
from omnitune.training import checkpoint, precision
from omnitune.training.assembling import assemble_once, bring_to_device
from omnitune.training.best import take_best
from omnitune.training.caching import encode_media
from omnitune.training.checks import check_batch, compare_with_plan, log_memory_estimate
from omnitune.training.evaluator import Evaluator, epoch_samples, final_scores, final_splits
from omnitune.training.follower import FollowerLog
from omnitune.training.interpolation import interpolate_weights
from omnitune.training.loop import train
from omnitune.training.mix import mix_lines
from omnitune.training.optim import build_optimizer, trainable
from omnitune.training.output_dir import CACHE_NOTE, OutputDir, finish, prepare_output_dir
from omnitune.training.phases import Phases
from omnitune.training.plan_lines import resident
from omnitune.training.preflight import preflight
from omnitune.training.progress import RunLog
from omnitune.training.rates import peak_rates
from omnitune.training.run import Plan, Run
from omnitune.training.sources import (
    audit_samples,
    build_stream,
    data_place,
    read_samples,
    sound_held_out,
    weights_of,
)
from omnitune.training.strategy import Strategy, plan_strategy
from omnitune.training.taught import what_taught
from omnitune.training.together import index_together, measure_together


def finetune(
    config: SftConfig, resume: bool = False, overwrite: bool = False
) -> dict[str, Any] | None:
    """Trains the joint model, scores it, and writes ``omni.pt`` and ``results.json``.

    Returns:
        the content of ``results.json``; None if the finished run was there already.

    Raises:
        UserError: the configuration, the data or the output folder does not allow it.
    """
    device = precision.pick_device(config.device)
    with (
        open_ranks(config.parallel, device) as ranks,
        logging(ranks.rank, ranks.world_size) as log,
    ):
        # After the loss of a rank the run goes on, whatever it was begun with. A machine that came
        # back counts no restart of its own.
        if ranks.any(restarted()):
            resume, overwrite = True, False
        return _finetune(config, ranks, log, resume, overwrite)


def _finetune(
    config: SftConfig, ranks: Distributed, log: RankLog | None, resume: bool, overwrite: bool
) -> dict[str, Any] | None:
    result = config.out / "omni.pt"
    place = data_place(config)

    def prepare() -> OutputDir | None:
        inputs = data_files(place, config.source_names)
        inputs |= {"thinker_ckpt": config.thinker_ckpt, **config.encoders}
        return prepare_output_dir(config, result, resume, overwrite, inputs)

    output = ranks.on_first(prepare)
    if output is None:
        return None
    started, before = time.monotonic(), resident()
    setup = build_training(config, resume, ranks, place)
    run = setup.run
    describe(run)
    check_batch(config, run, setup.samples, setup.truncation)
    if run.device.type == "cuda":
        log_memory_estimate(config, run)
    # A divided model computes on all ranks or on none.
    check = partial(preflight, run, setup.reader)
    for line in check() if ranks.sharded else ranks.on_first(check):
        run.log.say(line)
    if ranks.rank == 0:
        run.compare = compare_with_plan(config, run, setup.cached, before)
    ranks.on_first(partial(_open, config, output, setup))
    if log is not None:
        log.open(config.out, ranks.rank)
    train(run)
    if ranks.sharded:
        run.optimizer.state.clear()
    if ranks.make_whole(setup.model):
        return _conclude(config, setup, started)
    run.ranks = SingleProcess()
    return ranks.on_first(partial(_conclude, config, setup, started))


def _open(config: SftConfig, output: OutputDir, setup: TrainingSetup) -> None:
    """Begins to write into the run's folder."""
    output.open()
    write_json(config.out / TRUNCATION_FILE, setup.truncation)
    write_json(config.out / CACHE_NOTE, {"modalities": setup.cached})


def _conclude(config: SftConfig, setup: TrainingSetup, started: float) -> dict[str, Any]:
    """What follows the training: ``omni.pt``, the final scores, ``results.json``.

    All ranks have the whole model and share the scoring; rank 0 writes.
    """
    run, ranks = setup.run, setup.run.ranks
    step = take_best(run) if config.use_best else run.step
    interpolation = interpolate(config, setup)
    # Before the final scores: whatever ends those, the model is there.
    ranks.on_first(partial(_save, config, setup, step))
    given = (config, setup.model, setup.reader, setup.samples, run.state, ranks.rank == 0)
    results = ranks.scores(setup.model, lambda: final_scores(*given))
    asked = (setup.model, setup.reader, setup.samples, setup.strategy.losses)
    results["taught"] = ranks.scores(setup.model, lambda: what_taught(*asked))
    return ranks.on_first(partial(_report, config, setup, started, results, interpolation))


def _save(config: SftConfig, setup: TrainingSetup, step: int) -> None:
    """Writes ``omni.pt``."""
    training = split_of(join(setup.samples.values()), "train")
    taught = taught_by(training, setup.model.modalities).values()
    path = config.out / "omni.pt"
    save_omni(path, setup.model, setup.renderer, config.save_whole, step=step, **taught)


def _report(
    config: SftConfig,
    setup: TrainingSetup,
    started: float,
    results: dict[str, Any],
    interpolation: dict[str, Any],
) -> dict[str, Any]:
    """Writes ``results.json``; returns its content."""
    run = setup.run
    for warning in [*language_lost(results.get("text_guard", {})), *results["warnings"]]:
        run.log.warn(warning)
    results["seconds"] = round(time.monotonic() - started, 1)
    if setup.bad:
        results["bad_samples"] = setup.bad.as_json()
        run.log.say(setup.bad.summary)
    results["truncation"], results["mix"] = setup.truncation, setup.strategy.mix
    results["receipt"], results["run_hash"] = setup.strategy.receipt, setup.strategy.proof(run.step)
    results |= {"blend": interpolation} if interpolation else {}
    results |= {"best": run.state["best"]} if "best" in run.state else {}
    results["precision"], results["compiled"] = run.state["precision"], run.state.get("compile")
    results["device"], results["cores"] = str(run.device), usable_cores()
    write_json(config.out / "results.json", results)
    value = setup.strategy.hash.value or "none"
    run.log.say(f"run hash after {counted(run.step, 'step')}: {value}")
    finish(config)
    return results


@dataclass
class TrainingSetup:
    """All that a joint fine-tuning needs.

    Attributes:
        start: ``starting_weights``, to interpolate with; else empty.
        truncation: the ledger of ``audit_truncation``.
        cached: modalities whose media were encoded once, before the first step.
        bad: counts what is left out; None where it would be an error.
    """

    model: OmniModel
    start: dict[str, Tensor]
    renderer: ChatRenderer
    reader: SampleReader
    samples: dict[str, Samples]
    run: Run
    strategy: Strategy
    truncation: dict[str, Any]
    cached: list[str]
    bad: BadSamples | None = None


def build_training(
    config: SftConfig,
    resume: bool = False,
    ranks: Distributed | None = None,
    place: DataPlace | None = None,
) -> TrainingSetup:
    """Everything before the first step; ``resume`` goes on from the newest checkpoint.

    Nothing is written into the output folder yet. ``place``: of the data, with what is known of it.
    """
    ranks, place = ranks or SingleProcess(), place or data_place(config)
    torch.manual_seed(config.seed)
    index_together(place, weights_of(config), config.languages, ranks)
    with ranks.in_turn():
        samples = read_samples(config, place)
    model, renderer = assemble_once(config, ranks)
    describe_parts(model)
    config = within_context(config, model)
    measure_together(samples, model.modalities, config.bad_samples == "skip", ranks)
    with ranks.in_turn():
        samples, truncation, bad = log_truncation(config, samples, renderer, model)
    device = precision.pick_device(config.device)
    bring_to_device(model, device, ranks)
    Phases(config, model.parts(), model.modalities).set_trainable()
    precision.set_formats(config, model, device)
    kept = config.max_interpolation and ranks.rank == 0  # which alone interpolates
    start = starting_weights(model) if kept else {}
    if config.activation_checkpointing:
        model.checkpoint_activations()
    rows = {name: truncation[name]["rows"] for name in model.modalities if name in truncation}
    features = encode_media(config, model, join(samples.values()), rows, resume, ranks)
    ranks.prepare(model)
    reader = SampleReader(renderer, model.modalities, features, config.max_tokens)
    run = build_run(config, model, reader, samples, bad, ranks)
    if resume and checkpoint.restore(run):
        print(f"going on from step {run.step} of {run.plan.total_steps}")
    if bad:
        bad.go_on(run.state)
    assert run.strategy is not None
    reader = run.strategy.reader_at(run.plan.total_steps)
    cached = list(features)
    return TrainingSetup(
        model, start, renderer, reader, samples, run, run.strategy, truncation, cached, bad
    )


def starting_weights(model: OmniModel) -> dict[str, Tensor]:
    """The thinker's weights before the first step; of an adapted one only what brings them back.

    Kept from here on: the file may be another one when the run ends. Of one that no phase trains
    there is nothing to keep.
    """
    if model.adapters is not None and "thinker" in model.adapters.saved:
        return adapters.without_effect(model.thinker, model.adapters.saved["thinker"])
    if not any(weight.requires_grad for weight in model.thinker.parameters()):
        return {}
    return checkpoint.copied(dict(model.thinker.named_parameters()), None)


def within_context(config: SftConfig, model: OmniModel) -> SftConfig:
    """The configuration with a ``max_tokens`` that the thinker has positions for.

    Raises:
        UserError: more were asked for by name.
    """
    positions = model.thinker.config.get_text_config().max_position_embeddings
    if config.max_tokens <= positions:
        return config
    if "max_tokens" in config.model_fields_set:
        raise UserError(
            f"max_tokens is {config.max_tokens}, but the thinker of {config.thinker_ckpt} has "
            f"{positions} positions (max_position_embeddings); lower max_tokens to {positions}, or "
            "take a thinker with a longer context"
        )
    print(f"max_tokens is {positions}: the thinker has no more positions")
    return config.model_copy(update={"max_tokens": positions})


def interpolate(config: SftConfig, setup: TrainingSetup) -> dict[str, Any]:
    """Interpolates the trained thinker with its start, where validation samples are there for it.

    If they are all that is held out, they are scored at the end, and nothing may be chosen by them.
    """
    samples = join(setup.samples.values())
    ranks = setup.run.ranks
    if not ranks.share(bool(setup.start)) or "validation" in final_splits(samples):
        return {}
    setup.model.eval()
    setup.run.snapshot = None  # as large as what follows takes
    items = [setup.reader.item(single) for single in epoch_samples(config, samples)]
    largest = config.max_interpolation
    found = interpolate_weights(setup.model, setup.start, items, largest, ranks)
    if found["share"]:
        setup.run.log.say(
            f"blended with {100 * found['share']:.3g} % of the starting thinker: validation loss "
            f"{min(found['losses'].values()):.3f}, without {found['losses']['0']:.3f}"
        )
    return found


def log_truncation(
    config: SftConfig, samples: Mapping[str, Samples], renderer: ChatRenderer, model: OmniModel
) -> tuple[dict[str, Samples], dict[str, Any], BadSamples | None]:
    """Checks media and lengths before anything is trained; says what is lost."""
    print("checking every medium and the length of every sample", flush=True)
    reading = ReadLimits(
        renderer, model.modalities, config.max_tokens, conversations=config.multi_turn_prob > 0
    )
    kept, ledger, bad = audit_samples(config, samples, reading)
    kept = sound_held_out(config, kept, bad) if bad else kept
    if lost := summary(ledger):
        print(lost, flush=True)
    return kept, ledger, bad


def build_run(
    config: SftConfig,
    model: OmniModel,
    reader: SampleReader,
    samples: Mapping[str, Samples],
    bad: BadSamples | None = None,
    ranks: Distributed | None = None,
) -> Run:
    """Puts together what the loop needs."""
    ranks = ranks or SingleProcess()
    stream = build_stream(config, reader, samples, bad)
    plan = Plan.of(config, len(stream))
    strategy = plan_strategy(config, model, reader, samples, stream, plan.total_steps)
    evaluator = Evaluator(config, model, strategy, samples, plan, ranks)
    log = RunLog if ranks.rank == 0 else FollowerLog

    def lines(step: int, entry: dict[str, Any]) -> list[str]:
        return score_lines(step, entry) + mix_lines(entry)

    return Run(
        model=model,
        optimizer=build_optimizer(model, config, peak_rates(config, model)),
        batch_at=stream,
        plan=plan,
        config=config,
        log=log(config, stream.groups, lines, max(config.num_epochs, plan.epochs)),
        groups=stream.groups,
        score=evaluator,
        rounded=round_up,
        compile=model.compile_decoder,
        strategy=strategy,
        state=strategy.state,
        ranks=ranks,
    )


def describe_parts(model: OmniModel) -> None:
    """Says what is joined."""
    counts = {name: sum(p.numel() for p in m.parameters()) for name, m in model.parts().items()}
    sizes = ", ".join(f"{name} {count / 1e6:.2f}" for name, count in counts.items())
    print(f"joining, in million weights: {sizes}", flush=True)


def describe(run: Run) -> None:
    """Says what is about to be trained."""
    count = sum(p.numel() for _, p in trainable(run.model))
    total = sum(p.numel() for p in run.model.parameters())
    tokens = getattr(run.config, "tokens_per_batch", None)
    batch = f"about {tokens} tokens" if tokens else counted(run.config.batch_size, "sample")
    print(
        f"training {count / 1e6:.2f} of {total / 1e6:.2f} million weights, "
        f"{counted(run.plan.total_steps, 'step')} of {batch}",
        flush=True,
    )
