"""Whether packed rows and cached answers give what a thinker's own library gives, in numbers.

Run once when a thinker is loaded, on a few tokens. It finds what no list of families can know:
a layer that looks past its sample, an attention that takes more than it is given here.

Shape suffixes: N supervised tokens, V vocabulary, B prompts, P longest prompt, E embedding width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, DynamicCache

from omnitune.data.packing import Batch, Item, pack, share_prefix
from omnitune.data.template import Rendered
from omnitune.models import attention
from omnitune.models.families import KNOWN, refusal
from omnitune.models.kernels import cpu as operators

# Layers of a family that tests know which are compared, from the first on, beside the last one:
# enough for each kind to be among them (one in six layers of Gemma 3 sees all that is before).
COMPARED = 6
TOLERANCE = 1e-4  # of the logits' length; in fp32 a right thinker is off by some 1e-6
WINDOW = 3  # to which windows are narrowed, for few tokens to be more than they hold
WINDOWS = ("sliding_window", "window_size", "attention_chunk_size", "local_attention")
LENGTHS = (9, 8, 7)  # of the samples
SHARED = 4  # tokens that the second begins with as the first does
ANSWER = 5  # where answers begin; less than the whole is read of the last layer
ONE_BY_ONE = 2  # last tokens that are read with a cache
# Tokens to try: a router whose two best experts are as good as equal may decide either way once.
SEEDS = (0, 1)


@torch.no_grad()
def check(thinker: Any, logits: Callable[[Batch], Tensor], predict: Callable[..., Tensor]) -> None:
    """Compares with the library's own forward pass of each sample alone.

    Args:
        logits: of a packed row's supervised positions. predict: of the last position, with a cache.

    Raises:
        UserError: names the family, what differs and what to take instead.
    """
    if any(weight.is_meta for weight in thinker.parameters()):
        return
    training = thinker.training
    thinker.eval()
    reason = None
    try:
        with (
            _changed(_narrowed(thinker)),
            _changed(_shortened(thinker)),
            _changed(_in_fp32(thinker)),
        ):
            for seed in SEEDS:
                reason = _difference(thinker, seed, logits, predict)
                if reason is None:
                    break
    except Exception as error:  # whatever a family of unknown ways says
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        reason = f"it cannot read a packed row ({said})"
    finally:
        thinker.train(training)
    if reason is not None:
        raise refusal(thinker.config.model_type, reason)


def _difference(
    thinker: Any, seed: int, logits: Callable[[Batch], Tensor], predict: Callable[..., Tensor]
) -> str | None:
    """In what packed rows or cached answers differ from the library's own, if in anything."""
    samples = _samples(thinker.config.vocab_size, seed)
    device = thinker.get_input_embeddings().weight.device
    rows = [torch.tensor([tokens], device=device) for tokens in samples]
    with _changed([(operators, "replaced", False)]), _attention(thinker, "eager"):
        expected = [thinker(input_ids=row, use_cache=False).logits[0] for row in rows]
    if not all(x.isfinite().all() for x in expected):
        return None  # weights of no use; nothing can be said of the family
    items = [_item(tokens) for tokens in samples]
    share_prefix(items[:2])
    with _noted() as names:
        found = logits(pack(items).to(device)).split([length - ANSWER for length in LENGTHS])
    if names:
        return f"its attention takes {', '.join(sorted(names))}, which packed rows do not know"
    offs = [_off(x, y[ANSWER - 1 : -1]) for x, y in zip(found, expected, strict=True)]
    off = max(offs)
    if offs[0] > TOLERANCE:
        what = "a packed row does not give the logits of the library's own forward pass"
    elif off > TOLERANCE:
        what = "its layers carry something from one sample of a packed row into the next"
    elif (off := _off_when_cached(thinker, rows, expected, predict)) > TOLERANCE:
        what = "answers written with a cache are not those of the library's own forward pass"
    else:
        return None
    return f"{what} (logits are off by {off:.1g} of their length)"


def _samples(vocab_size: int, seed: int) -> list[list[int]]:
    draw = torch.Generator().manual_seed(seed)
    options: Any = {"generator": draw, "device": "cpu"}
    samples = [torch.randint(vocab_size, (length,), **options).tolist() for length in LENGTHS]
    samples[1][:SHARED] = samples[0][:SHARED]
    return samples


def _item(tokens: list[int]) -> Item:
    supervised = [place >= ANSWER for place in range(len(tokens))]
    return Item("", Rendered(tokens, supervised, turns=[(0, ANSWER, len(tokens))]), [])


def _off(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm().clamp(min=1e-30))


def _off_when_cached(
    thinker: Any,
    rows: Sequence[Tensor],
    expected: Sequence[Tensor],
    predict: Callable[..., Tensor],
) -> float:
    """By how much the logits of prompts of unlike length are off, read at once and then on."""
    lengths = [row.shape[1] for row in rows]
    longest = max(lengths)
    embed = thinker.get_input_embeddings()
    embeds = [embed(row[0]) for row in rows]
    padded_BPE = nn.utils.rnn.pad_sequence(embeds, batch_first=True, padding_side="left")
    place_P = torch.arange(longest, device=embed.weight.device)
    valid_BP = place_P >= longest - torch.tensor(lengths, device=place_P.device)[:, None]
    positions_BP = (valid_BP.cumsum(1) - 1).clamp(min=0)
    cache, offs, begin = DynamicCache(), [], 0
    for end in range(longest - ONE_BY_ONE, longest + 1):
        found_BV = predict(
            padded_BPE[:, begin:end], valid_BP[:, :end], positions_BP[:, begin:end], cache
        )
        places = [length - longest + end - 1 for length in lengths]
        wanted_BV = torch.stack([x[place] for x, place in zip(expected, places, strict=True)])
        offs.append(_off(found_BV, wanted_BV))
        begin = end
    offs.append(_off_when_alone(rows[0], embeds[0], expected[0], predict))
    return max(offs)


def _off_when_alone(
    row: Tensor, embeds_PE: Tensor, expected_PV: Tensor, predict: Callable[..., Tensor]
) -> float:
    """The same of one prompt, which needs no mask."""
    place_1P = torch.arange(row.shape[1], device=row.device)[None]
    cache, offs, begin = DynamicCache(), [], 0
    for end in range(row.shape[1] - ONE_BY_ONE, row.shape[1] + 1):
        found_1V = predict(embeds_PE[None, begin:end], None, place_1P[:, begin:end], cache)
        offs.append(_off(found_1V[0], expected_PV[end - 1]))
        begin = end
    return max(offs)


@contextmanager
def _attention(thinker: Any, name: str) -> Iterator[None]:
    thinker.set_attn_implementation(name)
    try:
        yield
    finally:
        thinker.set_attn_implementation(attention.NAME)


@contextmanager
def _noted() -> Iterator[set[str]]:
    """Names of what layers hand to the attention that it does not know."""
    names: set[str] = set()

    def noting(*inputs: Any, **options: Any) -> Any:
        names.update(k for k, v in options.items() if v is not None)
        return attention.segment_attention(*inputs, **options)

    AttentionInterface.register(attention.NAME, noting)
    try:
        yield names
    finally:
        names -= attention.KNOWN_OPTIONS
        AttentionInterface.register(attention.NAME, attention.segment_attention)


@contextmanager
def _changed(changes: Iterable[tuple[Any, str, Any]]) -> Iterator[None]:
    """Sets attributes, given as (object, name, value), and puts back what they were."""
    before = [(holder, name, getattr(holder, name), value) for holder, name, value in changes]
    for holder, name, _, value in before:
        setattr(holder, name, value)
    try:
        yield
    finally:
        for holder, name, value, _ in before:
            setattr(holder, name, value)


def _shortened(thinker: Any) -> list[tuple[Any, str, Any]]:
    """The decoder of a family that tests know, without most of its layers, for it takes seconds."""
    decoder = thinker.get_decoder()
    if thinker.config.model_type not in KNOWN or len(decoder.layers) <= COMPARED + 1:
        return []
    return [(decoder, "layers", nn.ModuleList([*decoder.layers[:COMPARED], decoder.layers[-1]]))]


def _in_fp32(thinker: Any) -> list[tuple[Any, str, Any]]:
    """Weights of fewer bits would hide a small difference; buffers stay as they are."""
    return [(p, "data", p.float()) for p in thinker.parameters() if p.dtype != torch.float32]


def _narrowed(thinker: Any) -> list[tuple[Any, str, Any]]:
    """Every sliding window, in the configuration and in the layers that copied it."""
    configs = {id(m.config): m.config for m in thinker.modules() if hasattr(m, "config")}
    return [
        (holder, name, WINDOW)
        for holder in (*configs.values(), *thinker.modules())
        for name in WINDOWS
        if type(value := vars(holder).get(name)) is int and value > WINDOW
    ]
