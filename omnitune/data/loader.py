"""From samples to batches: reads media, renders, packs. A batch is a function of its number."""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Callable, Collection, Mapping, Sequence
from copy import copy
from functools import lru_cache
from heapq import heappop, heappush
from itertools import zip_longest
from pathlib import Path

from torch import Tensor

from omnitune.containers.remote import fetch_ahead
from omnitune.data.mixture import Mixture
from omnitune.data.packing import WHOLE, Batch, Item, Origin, Shard, pack, share_prefix
from omnitune.data.samples import Samples
from omnitune.data.schedule import SamplingSchedule
from omnitune.data.template import ChatRenderer, Rendered
from omnitune.encoders.base import Encoder
from omnitune.sample import Media, Message, Sample, UserError

WINDOW = 16  # batches whose lengths are balanced together
# Length from which on attention is more work than the rest of a layer: 12 times a width of 512.
EVEN = 6144
ENCODED = 768  # values of an input (16 by 16 pixels) that an encoder makes a token of, about
EVERY = 4  # steps of a sequence (10 ms of sound) that an encoder makes a position of, about
MEASURED = 256  # samples at the start of a run whose mean length stands for all

# Feature rows of a medium (cached), by modality.
FeatureSource = Callable[[Path], Tensor]


class UnreadableError(UserError):
    """A medium of a sample cannot be read."""


class SampleReader:
    """Turns a sample into an item: its media's tensors and its rendered tokens.

    Args:
        renderer: of the thinker.
        modalities: how to read media.
        features: by modality, cached rows; a modality without is read from its file.
        max_tokens: longest sample; a longer one is an error, never cut silently.
    """

    def __init__(
        self,
        renderer: ChatRenderer,
        modalities: dict[str, Encoder],
        features: Mapping[str, FeatureSource] | None = None,
        max_tokens: int = 1024,
    ) -> None:
        self.renderer, self.modalities = renderer, modalities
        self.features: Mapping[str, FeatureSource] = features or {}
        self.max_tokens = max_tokens
        # The questions of one sample follow each other: its media are read once.
        self._tensor = lru_cache(maxsize=64)(self._read)

    def item(self, sample: Sample, group: int = 0) -> Item:
        """Reads and renders one sample."""
        return self._item(sample.id, sample.messages, self.renderer.render, group)

    def prompt(self, id: str, messages: Sequence[Message]) -> Item:
        """Reads and renders the turns so far, the assistant's opened."""
        return self._item(id, messages, self.renderer.render_prompt, 0)

    def without_features(self, modalities: Collection[str]) -> SampleReader:
        """A reader that leaves these modalities to their encoders, cached rows or not."""
        other = copy(self)
        other.features = {n: found for n, found in self.features.items() if n not in modalities}
        other._tensor = lru_cache(maxsize=64)(other._read)
        return other

    def _item(
        self,
        id: str,
        messages: Sequence[Message],
        render: Callable[[Sequence[Message], Sequence[int]], Rendered],
        group: int,
    ) -> Item:
        media = [p for m in messages for p in m.parts if isinstance(p, Media)]
        for medium in media:
            if medium.modality not in self.modalities:
                raise UserError(f"sample {id}: this model has no encoder for {medium.modality}")
        raw = frozenset(m.modality for m in media) - self.features.keys()
        try:
            tensors = [self._tensor(medium) for medium in media]
        except UserError as error:
            raise UnreadableError(f"sample {id}: {error}") from None
        counts = []
        for m, t in zip(media, tensors, strict=True):
            modality = self.modalities[m.modality]
            rows = modality.num_slots(t) if m.modality in raw else t.shape[0]
            counts.append(modality.slots_for(rows))
        rendered = render(messages, counts)
        if len(rendered.tokens) > self.max_tokens:
            raise UserError(
                f"sample {id}: {len(rendered.tokens)} tokens, the limit is {self.max_tokens}; "
                "shorten it or raise max_tokens"
            )
        return Item(id, rendered, tensors, group, raw, resampled=resampled(self.modalities))

    def _read(self, medium: Media) -> Tensor:
        if medium.modality in self.features:
            return self.features[medium.modality](medium.path)
        return self.modalities[medium.modality].read(medium.path)


def resampled(modalities: Mapping[str, Encoder]) -> frozenset[str]:
    """Modalities whose projector gives a number of slots of its own, whatever the rows."""
    return frozenset(name for name, encoder in modalities.items() if not encoder.keeps_rows)


class BatchStream:
    """The batches of a run, by number.

    Args:
        reader: makes items.
        samples: training samples by source.
        mixture: which record is sample k.
        batch_size: samples a batch.
        prompt_weight: in the loss, of tokens that are not the assistant's.
        loss_length_exponent: an answer of n tokens weighs n to the power of 1 less this, in all.
        multi_turn_prob: how often a sample of several independent questions is shown as one
            conversation; otherwise each of its questions is asked alone, as it is when scored.
        max_questions_per_sample: so many of a sample's independent questions.
        fresh_questions: others in each pass.
        tokens_per_batch: in place of ``batch_size``: as many samples a batch as have about so many
            tokens, and batches of like length.
        on_broken: told of a sample whose media cannot be read, which is then in no batch: the same
            one whoever makes the batch. None: it is an error.

    Attributes:
        watch: called with the number and the samples of each batch that is made, on every rank.
    """

    watch: Callable[[int, list[list[Item]]], None] | None = None

    def __init__(
        self,
        reader: SampleReader,
        samples: Mapping[str, Sequence[Sample]],
        mixture: Mixture | SamplingSchedule,
        batch_size: int,
        prompt_weight: float = 0.0,
        loss_length_exponent: float = 0.0,
        multi_turn_prob: float = 1.0,
        max_questions_per_sample: int | None = None,
        fresh_questions: bool = True,
        tokens_per_batch: int | None = None,
        on_broken: Callable[[Sample, UserError], None] | None = None,
    ) -> None:
        self.on_broken = on_broken
        self.reader, self.samples = reader, samples
        self.mixture: Mixture | SamplingSchedule = mixture
        self.batch_size, self.prompt_weight = batch_size, prompt_weight
        self.loss_length_exponent = loss_length_exponent
        self.multi_turn_prob = multi_turn_prob
        self.max_questions_per_sample = max_questions_per_sample
        self.fresh_questions = fresh_questions
        self.groups = mixture.names
        self._later: list[tuple[int, SampleReader]] = []
        self.balanced = tokens_per_batch is not None
        if tokens_per_batch is not None:
            mean = sum(_tokens(self.items_at(k)) for k in range(MEASURED)) / MEASURED
            self.batch_size = max(1, round(tokens_per_batch / (mean or 1.0)))
        self._window = lru_cache(maxsize=2)(self._make_window)
        pieces = [piece for s in samples.values() if isinstance(s, Samples) for piece in s.pieces]
        self._fetches = any(source.is_remote for source, _ in pieces)

    def follow(
        self, schedule: SamplingSchedule, readers: Sequence[tuple[int, SampleReader]] = ()
    ) -> None:
        """Takes the samples from a schedule of the same sources and size.

        Args:
            readers: that take over from a sample on, in order.
        """
        self.mixture, self._later = schedule, list(readers)

    @property
    def most_samples(self) -> int:
        """Samples that a batch has at most: one of few tokens has more of them."""
        return self.batch_size * (WINDOW if self.balanced else 1)

    def __len__(self) -> int:
        """Batches in one epoch."""
        return max(1, -(-self.mixture.epoch_size // self.batch_size))

    def __call__(self, number: int, part: Shard = WHOLE) -> Batch | None:
        """Batch ``number`` of the run, counted from 0 over all epochs; None for an empty part.

        The parts of a batch hold its samples once each, and are about as much work.
        """
        whole = self.read_batch(number)
        if self.watch is not None:
            self.watch(number, whole)
        samples = take(whole, part)
        return self.pack(samples) if any(samples) else None

    def read_batch(self, number: int) -> list[list[Item]]:
        """The samples of batch ``number``, in the order in which they are packed."""
        samples = [items for items in self._samples(number) if items]
        for place, items in enumerate(samples):
            for item in items:
                item.place = place
        return samples

    def _samples(self, number: int) -> list[list[Item]]:
        first = number * self.batch_size
        if self._fetches:  # what this batch and the next one show, if the cache has lost it
            records = map(self.record_at, range(first, first + 2 * self.batch_size))
            fetch_ahead(medium.path for record in records for medium in record.media)
        if self.balanced:
            start, stop = self.window(first, WINDOW * self.batch_size)
            return self._window(start, stop)[(first - start) // self.batch_size]
        return [self.items_at(k) for k in range(first, first + self.batch_size)]

    def window(self, k: int, size: int) -> tuple[int, int]:
        """First sample and end of the window that sample ``k`` is in.

        Windows are counted from the start of a segment of the run, and the last one ends with it.
        """
        begin, end = self.mixture.bounds(k)
        start = k - (k - begin) % size
        return start, min(start + size, end)

    def _make_window(self, start: int, stop: int) -> list[list[list[Item]]]:
        """The samples of some batches, dealt out so that each has about as many tokens."""
        samples = [self.items_at(k) for k in range(start, stop)]
        batches = (stop - start) // self.batch_size
        dealt = pack_into_bins([_tokens(items) for items in samples], batches)
        return [[samples[n] for n in numbers] for numbers in dealt]

    def record_at(self, k: int) -> Sample:
        """The record that sample ``k`` of the run is drawn from."""
        source, index = self.mixture.sample_at(k)
        return self.samples[source][index]

    def shown_at(self, k: int) -> list[Sample]:
        """Sample ``k`` of the run as it is shown: a conversation, or question by question."""
        return self._ask(self.record_at(k), k)[0]

    def _ask(self, record: Sample, k: int) -> tuple[list[Sample], list[int]]:
        return ask(
            record,
            k,
            self.mixture.seed,
            self.multi_turn_prob,
            self.max_questions_per_sample,
            self.fresh_questions,
        )

    def items_at(self, k: int, reader: SampleReader | None = None) -> list[Item]:
        """Sample ``k`` of the run, read and rendered by the reader of its time, or by another.

        Nothing if it cannot be read and somebody is told of that.
        """
        source, place = self.mixture.sample_at(k)
        record, group = self.samples[source][place], self.groups.index(source)
        shown, asked = self._ask(record, k)
        reader = reader or self._reader_at(k)
        try:
            items = [reader.item(single, group) for single in shown]
        except UnreadableError as error:
            if self.on_broken is None:
                raise
            self.on_broken(record, error)
            return []
        origin = Origin(k, source, place, record.number, tuple(asked))
        for n, item in enumerate(items):
            item.opens, item.origin = n == 0, origin
        share_prefix(items)
        return items

    def pack(self, samples: Sequence[Sequence[Item]]) -> Batch:
        """A batch of some samples; raises UserError where media and slots do not agree."""
        items = [item for found in samples for item in found]
        return pack(items, len(self.groups), self.prompt_weight, self.loss_length_exponent)

    def _reader_at(self, k: int) -> SampleReader:
        place = bisect_right(self._later, k, key=lambda pair: pair[0])
        return self._later[place - 1][1] if place else self.reader


def pack_into_bins(lengths: Sequence[int], bins: int) -> list[list[int]]:
    """Deals numbers into bins of about the same sum of lengths; each bin's in rising order.

    The longest first, each into the emptiest (Graham 1969): no bin is above the mean by more
    than one length.
    """
    dealt: list[list[int]] = [[] for _ in range(bins)]
    filled = [(0, place) for place in range(bins)]
    for number in sorted(range(len(lengths)), key=lambda n: -lengths[n]):
        total, place = heappop(filled)
        dealt[place].append(number)
        heappush(filled, (total + lengths[number], place))
    return [sorted(numbers) for numbers in dealt]


def take(samples: list[list[Item]], part: Shard) -> list[list[Item]]:
    """A part of a batch's samples: each is in one of the parts, which are about as much work."""
    dealt = pack_into_bins([work(items) for items in samples], part.of)
    return [samples[n] for n in dealt[part.rank]]


def work(items: Sequence[Item]) -> int:
    """About how much it is to compute some items that share what they begin with.

    In tokens of a decoder times ``EVEN``: its layers' own work grows with the tokens, attention
    with their square, and an encoder's with what is still to be encoded.
    """
    total = 0
    for item in items:
        total += item.row_tokens * (EVEN + len(item.rendered.tokens))
        for slots, tensor in zip(item.rendered.slots, item.media, strict=True):
            if slots.media.modality in item.raw and slots.start >= item.shared:
                seen = _encoded(tensor)
                total += seen * (EVEN + seen)
    return total


def _encoded(tensor: Tensor) -> int:
    """About how many positions an encoder has for an input."""
    if tensor.ndim == 2:  # a sequence
        return max(1, max(tensor.shape) // EVERY)
    return max(1, tensor.numel() // ENCODED)


def _tokens(items: Sequence[Item]) -> int:
    """Tokens that some items take of a row."""
    return sum(item.row_tokens for item in items)


def as_asked(
    sample: Sample,
    k: int,
    seed: int,
    multi_turn_prob: float,
    at_most: int | None = None,
    fresh: bool = True,
) -> list[Sample]:
    """Sample ``k`` of a run as one conversation, or each of its questions alone with its media.

    Args:
        at_most: of independent questions so many, of as many kinds as there are.
        fresh: others in each pass; else a record's are the same in all.
    """
    return ask(sample, k, seed, multi_turn_prob, at_most, fresh)[0]


def ask(
    sample: Sample, k: int, seed: int, multi_turn_prob: float, at_most: int | None, fresh: bool
) -> tuple[list[Sample], list[int]]:
    """``as_asked``, and the numbers of the questions; none where the record is shown as it is."""
    draw = random.Random(f"{seed}/conversation/{k}")
    together = draw.random() < multi_turn_prob
    if not sample.independent_turns:
        return [sample], []
    numbers = list(range(sample.num_questions))
    if at_most is not None and len(numbers) > at_most:
        chosen = draw if fresh else random.Random(f"{seed}/questions/{sample.id}")
        numbers = choose_questions(sample, at_most, chosen)
    if sample.asked_alone_only:
        alone = sample.split_turns()
        return [alone[number] for number in numbers], numbers
    if together:
        # A record ends with its description, but any question may follow any other.
        draw.shuffle(numbers)
        return [sample.select_turns(numbers)], numbers
    return sample.select_turns(numbers).split_turns(), numbers


def choose_questions(sample: Sample, count: int, draw: random.Random) -> list[int]:
    """Numbers of ``count`` of a sample's questions: one of each kind in turn."""
    kinds: dict[str, list[int]] = {}
    for number, message in enumerate(m for m in sample.messages if m.role == "assistant"):
        kinds.setdefault(f"{message.task}/{message.kind}", []).append(number)
    turns = [draw.sample(numbers, len(numbers)) for numbers in kinds.values()]
    draw.shuffle(turns)
    in_turn = [n for some in zip_longest(*turns) for n in some if n is not None]
    return sorted(in_turn[:count])
