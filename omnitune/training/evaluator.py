"""What stage E is watched by: the held-out scores while it trains, and those at its end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from omnitune.config.sft import SftConfig
from omnitune.console import progress_bar
from omnitune.data.loader import SampleReader
from omnitune.data.reading import join, split_of
from omnitune.data.samples import Samples
from omnitune.distributed.protocol import Distributed
from omnitune.distributed.single import SingleProcess
from omnitune.evaluation.evaluate import score_splits, top_split
from omnitune.evaluation.guard import TEXT_TASK, language_lost, text_guard, text_losses
from omnitune.evaluation.priors import answer_priors
from omnitune.evaluation.reliance import gains, ignored, make_trials, reliance
from omnitune.evaluation.scoring import pick, scoreboard
from omnitune.models.omni import OmniModel
from omnitune.sample import Sample
from omnitune.training.run import Plan
from omnitune.training.strategy import Strategy

# Questions of a modality that are asked again with other media, after an epoch and at the end.
EPOCH_SWAPS, FINAL_SWAPS = 50, 200
# Text questions whose loss at the end is held against the starting thinker's.
FINAL_TEXTS = 1000
# After the first epoch it is too early to say that a modality is being ignored.
PATIENCE = 2


class Evaluator:
    """The ``score`` of stage E's run: made before the first step, of the starting thinker.

    What is scored is chosen once, by the configuration's seed.

    Attributes:
        probed, whole, texts: what is scored between epochs, after an epoch, and of that the text.
        priors: the most frequent training answers.
        state: to be the run's: under ``text_start`` the text losses of the starting thinker, of
            the texts scored after each epoch and of those scored at the end.
    """

    def __init__(
        self,
        config: SftConfig,
        model: OmniModel,
        strategy: Strategy,
        samples: Mapping[str, Samples],
        plan: Plan,
        ranks: Distributed | None = None,
    ) -> None:
        self.config, self.model, self.strategy, self.plan = config, model, strategy, plan
        everything = join(samples.values())
        held_out = split_of(everything, "validation")
        self.probed = pick(held_out, config.probe_questions, config.seed, strategy.probed)
        self.whole = epoch_samples(config, everything)
        self.texts = [single for single in self.whole if single.task == TEXT_TASK]
        self.priors = answer_priors(split_of(everything, "train"))
        print("scoring the thinker as it begins", flush=True)
        model.eval()
        texts = {"epoch": self.texts, "final": final_texts(config, everything)}
        reader = strategy.reader_at(0)
        self.state = strategy.state
        self.state["text_start"] = (ranks or SingleProcess()).scores(
            model, lambda: {n: text_losses(model, reader, found) for n, found in texts.items()}
        )

    def __call__(self, step: int, epoch_ended: bool) -> dict[str, Any]:
        """The scores of a moment; after an epoch with reliance and text guard, and warnings.

        Before the first step they are of as many questions as after an epoch.
        """
        chosen = self.whole if epoch_ended or not step else self.probed
        reader = self.strategy.reader_at(step)
        scores, _ = scoreboard(self.model, reader, chosen, priors=self.priors)
        if not epoch_ended:
            return scores
        trials = make_trials(reader, self.whole, EPOCH_SWAPS, self.config.seed)
        found = reliance(self.model, reader, trials)
        scores |= {"reliance": found, **gains(found)}
        patient = self.plan.epoch(step) < PATIENCE and step < self.plan.total_steps
        warnings = [] if patient else ignored(found)
        if self.texts:
            now = text_losses(self.model, reader, self.texts)
            scores["text_guard"] = text_guard(now, self.state["text_start"]["epoch"], self.texts)
            warnings += language_lost(scores["text_guard"])
        return scores | {"warnings": warnings}


def final_scores(
    config: SftConfig,
    model: OmniModel,
    reader: SampleReader,
    samples: Mapping[str, Samples],
    state: Mapping[str, Any],
    writes: bool = True,
) -> dict[str, Any]:
    """Scores of every held-out split but validation, which the run was watched on.

    Args:
        writes: the answers are kept, as ``predictions.jsonl``.
    """
    everything = join(samples.values())
    splits = final_splits(everything)
    model.eval()
    priors = answer_priors(split_of(everything, "train"))
    answers = config.out / "predictions.jsonl" if writes else None
    results = score_splits(model, reader, splits, answers, priors)
    chosen = pick(splits[top_split(splits)], FINAL_SWAPS, config.seed)
    trials = make_trials(reader, chosen, FINAL_SWAPS, config.seed)
    total = 3 * sum(trial.questions for trial in trials)
    with progress_bar("scoring with other media", total) as advance:
        results["reliance"] = reliance(model, reader, trials, advance)
    texts = final_texts(config, everything)
    if texts:
        now = text_losses(model, reader, texts)
        results["text_guard"] = text_guard(now, state["text_start"]["final"], texts)
    return results


def epoch_samples(config: SftConfig, samples: Samples) -> list[Sample]:
    """What of the validation split is scored after an epoch, and the interpolation is chosen by."""
    return pick(split_of(samples, "validation"), config.epoch_questions, config.seed)


def final_splits(samples: Samples) -> dict[str, Samples]:
    """What is scored at the end, by split."""
    names = sorted(samples.splits - {"train", "validation"}) or ["validation"]
    return {name: split_of(samples, name) for name in names}


def final_texts(config: SftConfig, samples: Samples) -> list[Sample]:
    """The texts of the main split whose loss is held against the starting thinker's."""
    splits = final_splits(samples)
    return pick(splits[top_split(splits)], FINAL_TEXTS, config.seed, [TEXT_TASK])
