"""Attention without padding is that with padding, whatever the segments share."""

import itertools
from typing import Any

import pytest
import torch
from helpers import by_segment, conversation, tiny_model, tiny_reader
from torch import Tensor

from omnitune.data.packing import Item, pack, share_prefix
from omnitune.data.rounding import round_up
from omnitune.encoders.attention import attend
from omnitune.models import attention
from omnitune.models.omni import OmniModel


def plain_varlen(
    q_PHD: Tensor,
    k_PKD: Tensor,
    v_PKD: Tensor,
    bounds: Tensor,
    key_bounds: Tensor,
    longest: int,
    longest_key: int,
    *,
    scale: float | None,
    window_size: tuple[int, int],
    enable_gqa: bool,
) -> Tensor:
    """What torch promises of its variable-length attention, segment by segment."""
    assert bounds.dtype == torch.int32
    assert torch.equal(bounds, key_bounds)
    assert max(e - b for b, e in itertools.pairwise(bounds.tolist())) <= longest == longest_key
    assert window_size == (-1, 0)
    return by_segment(q_PHD, k_PKD, v_PKD, bounds, scale, enable_gqa)


def items(model: OmniModel, share: bool = True) -> list[Item]:
    """Four questions of which two share a beginning, and segments of unlike length."""
    reader = tiny_reader(model)
    turns = ("which color?", "red.", "which color is it?", "red or blue.", "which?", "the air.")
    album = conversation("a", *turns, independent_turns=True)
    shared = [reader.item(single) for single in album.split_turns()]
    if share:
        share_prefix(shared)
    assert any(item.shared for item in shared) == share
    return [reader.item(conversation("x", "hello " * 9, "the sky")), *shared]


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("rounded", [True, False])
def test_without_padding_is_as_with_padding(
    monkeypatch: pytest.MonkeyPatch, rounded: bool, share: bool
) -> None:
    model = tiny_model()
    batch = pack(items(model, share))
    batch = round_up(batch) if rounded else batch
    if not share:  # the row is read as it is, to its last token
        assert batch.segments.order_P is None
        assert int(batch.segments.bounds_B[-1]) == len(batch.tokens_T)
    results = []
    for function in (None, plain_varlen):
        monkeypatch.setattr(attention, "varlen_attn", function)
        monkeypatch.setattr(attention, "_suits_varlen", lambda values: True)
        model.zero_grad()
        loss = model(batch)[0].sum()
        loss.backward()
        results.append([loss.detach(), *(p.grad for p in model.thinker.parameters())])
        results[-1] = [x.clone() for x in results[-1]]
    for padded, unpadded in zip(*results, strict=True):
        torch.testing.assert_close(unpadded, padded, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("rounded", [True, False])
def test_what_moves_tokens_moves_their_gradients_back(rounded: bool) -> None:
    model = tiny_model()
    batch = pack(items(model))
    tokens = len(batch.tokens_T)
    segments = (round_up(batch) if rounded else batch).segments
    scatter_T, gathers = segments.scatter_T, segments.gathers
    draw = torch.Generator().manual_seed(0)
    shape = (2, len(scatter_T), 3)
    x_HTD = torch.randn(shape, generator=draw, dtype=torch.double, requires_grad=True)
    views = attention.Unpack.apply(x_HTD, scatter_T, *gathers)
    assert len(views) == (4 if rounded else 2)
    back_THD = attention.Repack.apply(scatter_T, *views)
    assert torch.equal(back_THD[:tokens], x_HTD.transpose(0, 1)[:tokens])

    def plain(x_HTD: Tensor) -> Tensor:
        """The same by torch's own indexing, whose gradients are added up."""
        places = torch.cat([x_HTD[:, g.flatten()] for g in gathers], dim=1)
        return places[:, scatter_T].transpose(0, 1)

    weight = torch.randn(back_THD.shape, generator=draw, dtype=torch.double)
    weight[tokens:] = 0  # nothing reads what was added
    expected = torch.autograd.grad((plain(x_HTD) * weight).sum(), x_HTD)
    assert torch.equal(torch.autograd.grad((back_THD * weight).sum(), x_HTD)[0], expected[0])


def test_single_precision_and_cpu_are_padded() -> None:
    for dtype in (torch.float32, torch.bfloat16):
        assert not attention._suits_varlen(torch.zeros(1, 2, 3, 8, dtype=dtype))


def test_on_a_cpu_attention_is_computed_in_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also under autocast, for the thinker and for an encoder; what comes out is as it was."""
    seen: list[torch.dtype] = []
    plain = torch.nn.functional.scaled_dot_product_attention

    def noting(*inputs: Tensor, **options: Any) -> Tensor:
        seen.extend(x.dtype for x in inputs)
        return plain(*inputs, **options)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", noting)
    model = tiny_model()
    batch = pack(items(model))
    with torch.autocast("cpu", torch.bfloat16):
        model(batch)
        features = model.encode("image", [torch.zeros(3, 32, 32)])
    assert len(seen) > 3
    assert set(seen) == {torch.float32}
    half = torch.zeros(1, 2, 3, 4, dtype=torch.bfloat16)
    assert attend(half, half, half).dtype == torch.bfloat16
    assert features[0].isfinite().all()
