"""Holds the first batches of a run against their records, before the first step.

A run can go through without an error and teach nothing: a medium that is not in the row, an answer
that is not supervised, a projector that no gradient reaches. Each of these is looked for here.
Nothing of the run changes by it: weights, random numbers and the order of the samples stay.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from omnitune.data.loader import BatchStream, SampleReader
from omnitune.data.packing import Batch, Item
from omnitune.data.template import ChatRenderer, placeholder
from omnitune.distributed.apart import call_apart, can_fork
from omnitune.models.omni import OmniModel
from omnitune.sample import Message, Sample, Text, UserError
from omnitune.training.optim import total_norm
from omnitune.training.precision import choose_precision
from omnitune.training.run import Run

BATCHES = 4
AT_MOST = 256  # samples that are held against their records
LOOKED_THROUGH = 2_048  # samples in which one that shows a medium is sought
PROBES = 2  # samples with a medium that a gradient is computed of
SHOWN = 60  # letters of a text in a message


def preflight(run: Run, reader: SampleReader) -> list[str]:
    """Checks the first batches of a run that is about to begin or go on.

    Args:
        run: with an ``OmniModel`` and a strategy, whose stream is looked at.
        reader: gives the media of every encoder that is ever trained as files, not as features.

    Returns:
        what to say: what was found whole, and what only has to be known.

    Raises:
        UserError: a sample would not be learnt as its record says, or a part not at all; names it.
    """
    model, stream = cast(OmniModel, run.model), stream_of(run)
    first = run.step * run.config.gradient_accumulation * stream.batch_size
    end = run.plan.total_steps * run.config.gradient_accumulation * stream.batch_size
    count = min(BATCHES * stream.batch_size, AT_MOST, end - first)
    if count <= 0:
        return []
    answers = Answers(reader.renderer)
    for k in range(first, first + count):
        record, items = stream.record_at(k), stream.items_at(k)
        if not items:  # it cannot be read, and is left out
            continue
        for item in items:
            check_media(record, item, model, reader.renderer)
        shown = [m for single in stream.shown_at(k) for m in single.messages if m.learnt]
        answers.check(record, shown, stream.pack([items]))
    reached, missed = check_gradients(run, reader, range(first, end))
    batches = -(-count // stream.batch_size)
    said = (
        f"preflight: {batches} batches, {count} samples: every medium in its row, answers and "
        f"ends supervised, gradients reach {', '.join(reached)}"
    )
    return [said, *answers.remarks(), *missed]


def stream_of(run: Run) -> BatchStream:
    """The samples of a run, by number."""
    assert run.strategy is not None
    return run.strategy.stream


def _refuse(where: str, found: str, mend: str) -> UserError:
    return UserError(f"preflight: {where}: {found}; {mend}")


def _named(record: Sample) -> str:
    return f"sample {record.id} ({record.source})"


def check_media(record: Sample, item: Item, model: OmniModel, renderer: ChatRenderer) -> None:
    """Holds the media of a rendered sample against those of its record.

    Raises:
        UserError: a medium is missing or there twice, or has another number of rows than slots.
    """
    where = _named(record)
    wanted, there = Counter(record.media), Counter(slots.media for slots in item.rendered.slots)
    odd = next((medium for medium in (wanted | there) if wanted[medium] != there[medium]), None)
    if odd is not None:
        raise _refuse(
            where,
            f"{odd.path} stands {there[odd]} times in the row, and {wanted[odd]} times in the "
            "record",
            "the renderer has to write each medium of a record once (see data/template.py)",
        )
    places: dict[str, list[int]] = {name: [] for name in model.modalities}
    for slots, tensor in zip(item.rendered.slots, item.media, strict=True):
        name = slots.media.modality
        encoder = model.modalities[name]
        rows = encoder.num_slots(tensor) if name in item.raw else len(tensor)
        # The projector may make another number of them: a resampler always makes as many.
        expected = encoder.slots_for(rows) if rows else 0
        if expected != slots.count or not rows:
            raise _refuse(
                where,
                f"{slots.media.path} has {rows} feature rows, so {expected} slots, and its "
                f"placeholders are {slots.count}",
                f"the encoder {encoder.type!r} and the renderer have to agree on one or more",
            )
        # What is not yet encoded may mark its padding by what is no number.
        if name not in item.raw and not bool(tensor.isfinite().all()):
            raise _refuse(
                where,
                f"the features of {slots.media.path} are not finite",
                f"look at the file and at the encoder {encoder.type!r}",
            )
        places[name] += range(slots.start, slots.start + slots.count)
    for name, own in places.items():
        token = renderer.id_of(placeholder(name))
        found = [n for n, id in enumerate(item.rendered.tokens) if id == token]
        if found != sorted(own):
            raise _refuse(
                where,
                f"{len(found)} placeholders of {name} for {len(own)} slots",
                "there has to be one for each slot, where the renderer says that its slots are",
            )


@dataclass
class Answers:
    """Holds what is supervised against the records' answers.

    Attributes:
        lost: signs that the tokenizer cannot write. losers: samples that have some.
    """

    renderer: ChatRenderer
    lost: dict[str, None] = field(default_factory=dict)
    losers: dict[str, None] = field(default_factory=dict)

    def check(self, record: Sample, answers: Sequence[Message], batch: Batch) -> None:
        """Decodes the supervised tokens of a sample: they are its answers and nothing else.

        Args:
            answers: of the record, as far as they are shown.
            batch: the sample alone.

        Raises:
            UserError: they are not; says what is supervised.
        """
        where = _named(record)
        if not len(batch.labels_N):
            raise _refuse(
                where,
                "no token of it is supervised, so there is nothing to learn from it",
                "give it an answer of weight 1, or take it out of the data",
            )
        turns = [batch.labels_N[batch.turn_N == n].tolist() for n in batch.turn_N.unique()]
        if len(turns) != len(answers):
            raise _refuse(
                where,
                f"{len(turns)} turns are supervised, and {len(answers)} answers are to be learnt "
                f"(supervised: {self._shown(batch.labels_N.tolist())})",
                "the renderer has to mark the tokens of each answer of weight 1, and no others",
            )
        for answer, tokens in zip(answers, turns, strict=True):
            self._check_turn(record, answer, tokens)

    def _check_turn(self, record: Sample, answer: Message, tokens: list[int]) -> None:
        where, end = _named(record), self.renderer.end
        if end not in tokens:
            raise _refuse(
                where,
                f"the end of the turn is not supervised after {_cut(answer.text)!r}, so the model "
                "would never learn to stop",
                "the renderer has to supervise the token that ends an answer",
            )
        last = len(tokens) - 1 - tokens[::-1].index(end)
        text, behind = tokens[:last], tokens[last + 1 :]
        written = self._written(answer)
        control = set(text + behind) & self._control_tokens() - set(written)
        found, expected = self._read(text), _squeezed(answer.text)
        if control or self._read(behind) or found not in (expected, self._read(written)):
            raise _refuse(
                where,
                f"supervised are the tokens of {self._shown(tokens)}, and its answer is "
                f"{_cut(answer.text)!r}",
                "the renderer has to supervise the answer and its end, and nothing else",
            )
        if found == expected:
            return
        lost = [sign for sign in dict.fromkeys(expected) if sign not in found]
        if len(lost) == len(set(expected)):
            raise _refuse(
                where,
                f"the thinker's tokenizer can write nothing of its answer {_cut(answer.text)!r}",
                "take a thinker that knows this script, or take the sample out of the data",
            )
        self.lost |= dict.fromkeys(lost)
        self.losers[record.id] = None

    def remarks(self) -> list[str]:
        """What answers lose by the tokenizer."""
        if not self.losers:
            return []
        signs = ", ".join(repr(sign) for sign in list(self.lost)[:10]) or "some of their signs"
        return [
            f"warning: the thinker's tokenizer cannot write {signs} in the answers of "
            f"{len(self.losers)} of these samples (the first is {next(iter(self.losers))}); the "
            "model cannot learn to say them"
        ]

    def _written(self, answer: Message) -> list[int]:
        """The tokens of an answer's text, whatever the renderer makes of them."""
        texts = (part.text for part in answer.parts if isinstance(part, Text))
        return [token for text in texts for token in self.renderer.encode(text)]

    def _read(self, tokens: Sequence[int]) -> str:
        return _squeezed(self.renderer.decode(tokens))

    def _control_tokens(self) -> set[int]:
        added = self.renderer.tokenizer.get_added_tokens_decoder()
        return {id for id, token in added.items() if token.special}

    def _shown(self, tokens: Sequence[int]) -> str:
        """Tokens as text, control tokens included."""
        words = self.renderer.tokenizer.decode(list(tokens), skip_special_tokens=False)
        return repr(_cut(words))


def _squeezed(text: str) -> str:
    """A text without its spaces, which tokenizers put and leave out as they like."""
    return "".join(text.split())


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def check_gradients(run: Run, reader: SampleReader, numbers: range) -> tuple[list[str], list[str]]:
    """Computes the gradients of a few samples with every medium, and throws them away.

    Args:
        numbers: of the run's samples.

    Returns:
        the parts that a gradient reaches, and a sentence for each that no sample speaks to.

    Raises:
        UserError: a part that is to be trained has no gradient, or one that is not finite.
    """
    model, stream = cast(OmniModel, run.model), stream_of(run)
    trained = {name for name, part in model.parts().items() if _weights(part)}
    probes, unseen = {numbers[0]}, []
    for name, encoder in model.modalities.items():
        own = trained & {encoder.medium.projector_part, encoder.medium.encoder_part}
        found = _samples_with(name, stream, numbers[:LOOKED_THROUGH], PROBES) if own else []
        probes |= set(found)
        if own and not found:
            trained -= own
            unseen.append(
                f"warning: no {name} comes in the run's first samples, so nothing can be "
                f"said of {', '.join(sorted(own))}"
            )
    if unseen and not trained:
        media = ", ".join(model.modalities)
        raise UserError(
            f"preflight: the run trains nothing that its first samples speak to, for none of them "
            f"shows a medium ({media}); give a source that does a weight in data_mix, or train "
            "other parts (phases, freeze_encoders)"
        )
    rendered = [items for k in sorted(probes) if (items := stream.items_at(k, reader))]
    if not rendered:
        return [], [*unseen, "warning: none of the run's first samples can be read"]
    batch = stream.pack(rendered)
    where = "samples " + ", ".join(dict.fromkeys(stream.record_at(k).id for k in sorted(probes)))

    def compute() -> dict[str, float]:
        return gradient_norms(run, model, batch)

    # Once a process has computed gradients beside a GPU, those forked from it cannot.
    alone = run.ranks.world_size == 1
    apart = alone and can_fork(run.device) and torch.cuda.is_available()
    try:
        norms = call_apart(compute) if apart else compute()
    except UserError as error:
        raise UserError(f"preflight: {where}: {error}") from None
    parts = [name for name in model.parts() if name in trained]
    for name in parts:
        if not norms[name] or norms[name] != norms[name] or norms[name] == float("inf"):
            what = "is zero" if not norms[name] else "is not finite"
            raise _refuse(
                where,
                f"the gradient at {name} {what}, so that it would not learn",
                _mend(name, model),
            )
    return parts, unseen


def _mend(part: str, model: OmniModel) -> str:
    for encoder in model.modalities.values():
        if part in (encoder.medium.projector_part, encoder.medium.encoder_part):
            return (
                f"what the encoder {encoder.type!r} and its projector give has to depend on their "
                f"weights and be finite; mend that, or train other parts (phases, freeze_encoders)"
            )
    return "look at the checkpoint's weights, or train other parts (phases)"


def _samples_with(
    modality: str, stream: BatchStream, numbers: Iterable[int], count: int
) -> list[int]:
    """The first samples that show a medium of a kind."""
    found: list[int] = []
    for k in numbers:
        if any(medium.modality == modality for medium in stream.record_at(k).media):
            found.append(k)
        if len(found) == count:
            break
    return found


def gradient_norms(run: Run, model: OmniModel, batch: Batch) -> dict[str, float]:
    """Norm of the gradient at each part that has weights to train; leaves everything as it was."""
    bf16 = run.state.get("precision", choose_precision(run)[0]) == "bf16"
    if bf16 and run.rounded is not None:
        batch = cast(Batch, run.rounded(batch, False))
    was_training = model.training
    with _draws_kept(run.device):
        model.train()
        try:
            with torch.autocast(run.device.type, torch.bfloat16, enabled=bf16):
                loss_G, _ = model(batch.to(run.device))
            loss_G.sum().backward()
            return {name: _norm(_weights(part)) for name, part in model.parts().items()}
        finally:
            model.train(was_training)
            model.zero_grad(set_to_none=True)


def _weights(part: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in part.parameters() if parameter.requires_grad]


def _norm(weights: Iterable[Tensor]) -> float:
    gradients = [weight.grad for weight in weights if weight.grad is not None]
    return total_norm(gradients) if gradients else 0.0


@contextmanager
def _draws_kept(device: torch.device) -> Iterator[None]:
    """What is drawn within changes no draw after it; some libraries' dropout asks NumPy."""
    ours, numpys = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            yield
    finally:
        random.setstate(ours)
        np.random.set_state(numpys)
