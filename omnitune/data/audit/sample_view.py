"""One sample as the model sees it: its tokens, which of them are trained, and its media."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit

from omnitune.data.audit.truncation import ReadLimits
from omnitune.data.reading import DataPlace, read_available
from omnitune.data.samples import Samples
from omnitune.data.template import CONTROL_TOKENS, ChatRenderer, Rendered, placeholder
from omnitune.encoders.base import Encoder
from omnitune.media.registry import MEDIA
from omnitune.sample import Media, Sample, Text, UserError
from omnitune.sources import SOURCES

TEXT, CONTROL, PLACEHOLDER = "text", "control", "placeholder"
UNKNOWN = "[UNK]"  # a word that is in no sample; never written


@dataclass(frozen=True)
class Piece:
    """Tokens that are shown together.

    Attributes:
        kind: ``text``, ``control`` (a token of the template's) or ``placeholder``.
        trained: whether the model learns to write them.
        count: how many tokens; several where a run of placeholders is folded, or where only
            together they are whole letters.
    """

    text: str
    kind: str
    trained: bool
    count: int = 1


@dataclass(frozen=True)
class Form:
    """One way in which training or a score shows the sample.

    Attributes:
        pieces: all that is in the row, in order.
        tokens, trained: how many there are, and how many are trained.
        ends: of each answer that is trained, whether its end of turn is trained too.
    """

    title: str
    pieces: tuple[Piece, ...]
    tokens: int
    trained: int
    ends: tuple[bool, ...]

    @property
    def share(self) -> float:
        """Part of the tokens that is trained."""
        return self.trained / self.tokens if self.tokens else 0.0


@dataclass(frozen=True)
class Seen:
    """A medium of the sample.

    Attributes:
        slots: placeholders that it takes; None where no encoder says.
        amount: how much it holds, in words ("2.5 seconds").
        problem: why it cannot be used; "" if it can.
    """

    medium: Media
    slots: int | None
    amount: str
    problem: str = ""


@dataclass(frozen=True)
class SampleView:
    """One sample as the model sees it.

    Attributes:
        place: file and number of its record, in words.
        forms: all ways in which it is shown.
        notes: what is to be known of the view itself.
    """

    sample: Sample
    place: str
    forms: tuple[Form, ...]
    media: tuple[Seen, ...]
    notes: tuple[str, ...]


def find_sample(
    data: Path | DataPlace,
    name: str,
    sources: Sequence[str] | None = None,
    said: Path | None = None,
) -> tuple[Samples, int]:
    """The source that holds a sample, and the sample's number in it.

    Args:
        name: a number (the first is 0, as in the names that samples without an id have), an id,
            or either of them behind ``SOURCE/``.
        sources: names of those to look in; None: all that are there.
        said: what the user has named the data by.

    Raises:
        UserError: there is none, or several sources hold it.
    """
    place = DataPlace.of(data)
    source, _, rest = name.partition("/")
    known = rest and (source in place.own or (place.folder and source in SOURCES))
    by_name = read_available(place, [source] if known else sources)
    if source in by_name and rest:
        if (number := _number(by_name[source], rest)) is not None:
            return by_name[source], number
    elif len(by_name) > 1 and name.isdecimal():
        examples = ", ".join(f"{one}/{name}" for one in by_name)
        raise UserError(f"--sample {name}: there are several sources; say which one: {examples}")
    found = [(held, n) for held in by_name.values() if (n := _number(held, name)) is not None]
    if len(found) == 1:
        return found[0]
    if found:
        examples = ", ".join(f"{held[n].source}/{name}" for held, n in found)
        raise UserError(f"--sample {name}: several sources hold it; say which one: {examples}")
    held_by = ", ".join(f"{one} (0 to {len(held) - 1})" for one, held in by_name.items())
    raise UserError(
        f"--sample {name}: {said or data} holds no sample of this number or id; expected a number, "
        f"an id, or one of them behind its source, as in {next(iter(by_name))}/0; there are: "
        f"{held_by}"
    )


def _number(samples: Samples, name: str) -> int | None:
    """The number of a sample by its number or id."""
    if name.isdecimal() and str(int(name)) == name and int(name) < len(samples):
        return int(name)
    return next((n for n, sample in enumerate(samples) if sample.id == name), None)


def view_sample(
    samples: Samples, number: int, reading: ReadLimits | None, notes: Sequence[str] = ()
) -> SampleView:
    """Renders a sample as training and scores do.

    Args:
        samples: all of a source's.
        reading: of a model; None: words stand for tokens, and a medium takes one placeholder.
        notes: what is to be said of the reading.
    """
    sample = samples[number]
    [(source, _)] = samples.pieces
    modalities = reading.modalities if reading else {}
    renderer = reading.renderer if reading else word_renderer([sample])
    tokens = dict.fromkeys(placeholder(medium.modality) for medium in sample.media)
    if unread := [token for token in tokens if renderer.tokenizer.token_to_id(token) is None]:
        renderer.add_tokens(unread)
    seen = {medium: look(medium, modalities) for medium in sample.media}
    forms = [
        view_form(title, form, renderer, [seen[medium] for medium in form.media])
        for title, form in forms_of(sample)
    ]
    said = list(notes)
    longest = max(form.tokens for form in forms)
    if reading and longest > reading.max_tokens:
        said.append(
            f"{longest:,} tokens are more than max_tokens ({reading.max_tokens:,}): a run refuses "
            "the sample, or leaves it out"
        )
    if any(one.slots is None for one in seen.values()) and not notes:
        said.append("this model has no encoder for some of the media; each has one placeholder")
    return SampleView(sample, source.where(number), tuple(forms), tuple(seen.values()), tuple(said))


def forms_of(sample: Sample) -> Iterator[tuple[str, Sample]]:
    """Every form in which a sample is shown, with a title."""
    singles = sample.split_turns()
    if len(singles) == 1:
        yield "the whole sample", singles[0]
        return
    for n, single in enumerate(singles):
        yield f"question {n + 1} of {len(singles)}, alone", single
    if not sample.asked_alone_only:
        yield "all questions as one conversation", sample


def look(medium: Media, modalities: Mapping[str, Encoder]) -> Seen:
    """A medium with its slots."""
    kind = MEDIA[medium.modality]
    try:
        count = f"{kind.fingerprint(medium.path).amount:,.4g}"
        amount = f"{count} {kind.unit.removesuffix('s') if count == '1' else kind.unit}"
        if not (encoder := modalities.get(medium.modality)):
            return Seen(medium, None, amount)
        rows = encoder.num_slots(encoder.read(medium.path))
        return Seen(medium, encoder.slots_for(rows), amount)
    except UserError as error:
        return Seen(medium, None, "", str(error))


def view_form(title: str, form: Sample, renderer: ChatRenderer, media: Sequence[Seen]) -> Form:
    """What one form of a sample is as tokens.

    Args:
        media: of the form, in order.
    """
    slots = [1 if one.slots is None else one.slots for one in media]
    rendered = renderer.render(form.messages, slots)
    ends = (rendered.tokens[end - 1] in renderer.ends for _, _, end in rendered.turns)
    trained = (rendered.supervised[end - 1] for _, _, end in rendered.turns)
    return Form(
        title,
        tuple(pieces_of(rendered, renderer)),
        len(rendered.tokens),
        sum(rendered.supervised),
        tuple(is_end and learnt for is_end, learnt in zip(ends, trained, strict=True)),
    )


def pieces_of(rendered: Rendered, renderer: ChatRenderer) -> Iterator[Piece]:
    """The tokens as text; each run of a medium's placeholders is one piece."""
    control = renderer.tokenizer.get_added_tokens_decoder()
    spans = ((slots, range(slots.start, slots.start + slots.count)) for slots in rendered.slots)
    media = {place: slots for slots, span in spans for place in span}

    def group(place: int) -> tuple[int, bool, bool]:
        medium = media[place].start if place in media else -1
        return medium, rendered.tokens[place] in control, rendered.supervised[place]

    for (medium, is_control, trained), run in groupby(range(len(rendered.tokens)), group):
        places = list(run)
        tokens = [rendered.tokens[place] for place in places]
        if medium >= 0:
            name = media[places[0]].media.modality
            yield Piece(f"<{name}>", PLACEHOLDER, trained, len(tokens))
        elif is_control:
            yield from (Piece(renderer.token_of(token), CONTROL, trained) for token in tokens)
        else:
            yield from _texts(tokens, renderer.tokenizer, trained)


def _texts(tokens: Sequence[int], tokenizer: Tokenizer, trained: bool) -> Iterator[Piece]:
    """Tokens of text; those that are whole letters only together stand together."""
    stream, waiting, whole = DecodeStream(skip_special_tokens=False), 0, ""
    for token in tokens:
        waiting += 1
        try:
            text = stream.step(tokenizer, token)
        except Exception:  # tokens that no text has; the library has no class for it
            text = None
        if text:
            yield Piece(text, TEXT, trained, waiting)
            whole, waiting = whole + text, 0
    if waiting:  # it ends amid a letter
        rest = tokenizer.decode(list(tokens), skip_special_tokens=False)[len(whole) :]
        yield Piece(rest, TEXT, trained, waiting)


def word_renderer(samples: Sequence[Sample]) -> ChatRenderer:
    """Renders words in place of tokens, where there is no tokenizer."""
    parts = (part for sample in samples for m in sample.messages for part in m.parts)
    words = {word for part in parts if isinstance(part, Text) for word in part.text.split()}
    vocabulary = {word: n for n, word in enumerate([UNKNOWN, *sorted(words)])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    tokenizer.add_special_tokens([*CONTROL_TOKENS, *map(placeholder, MEDIA)])
    return ChatRenderer(tokenizer)
