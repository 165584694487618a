"""Flash attention 4: what is saved, handed on and given back, with kernels written out here."""

import itertools
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers import by_segment
from torch import Tensor

from omnitune.models import attention
from omnitune.models.kernels import flash4

BOUNDS = torch.tensor([0, 3, 4, 9], dtype=torch.int32)
SCALE = 0.3
ROOT = Path(__file__).resolve().parents[3]


def forward(q: Tensor, k: Tensor, v: Tensor, **options: Any) -> tuple[Tensor, Tensor, None]:
    """In the form of the package, with more outputs than are used."""
    assert options["causal"]
    assert options["return_lse"]
    assert options["softmax_scale"] == SCALE
    assert options["max_seqlen_q"] == options["max_seqlen_k"] == 5
    assert torch.equal(options["cu_seqlens_q"], options["cu_seqlens_k"])
    lse = torch.zeros(q.shape[1], q.shape[0]) + 7
    return by_segment(q, k, v, options["cu_seqlens_q"], SCALE), lse, None


def backward(
    q: Tensor, k: Tensor, v: Tensor, out: Tensor, grad: Tensor, lse: Tensor, **options: Any
) -> tuple[Tensor, ...]:
    """The gradients of ``by_segment``, written out: within an operator nothing is recorded."""
    assert (lse == 7).all()
    bounds = options["cu_seqlens_q"]
    torch.testing.assert_close(out, by_segment(q, k, v, bounds, SCALE))
    groups = q.shape[1] // k.shape[1]
    found = []
    for begin, end in itertools.pairwise(bounds.tolist()):
        q_HLD, g_HLD = (x[begin:end].transpose(0, 1) for x in (q, grad))
        k_HLD, v_HLD = (x[begin:end].transpose(0, 1).repeat_interleave(groups, 0) for x in (k, v))
        later = torch.ones(end - begin, end - begin, dtype=torch.bool).triu(1)
        share_HLL = (SCALE * q_HLD @ k_HLD.mT).masked_fill(later, -torch.inf).softmax(-1)
        rise_HLL = g_HLD @ v_HLD.mT
        rise_HLL = SCALE * share_HLL * (rise_HLL - (rise_HLL * share_HLL).sum(-1, keepdim=True))
        grads = (rise_HLL @ k_HLD, rise_HLL.mT @ q_HLD, share_HLL.mT @ g_HLD)
        found.append(
            [
                x.unflatten(0, (-1, n)).sum(1)
                for x, n in zip(grads, (1, groups, groups), strict=True)
            ]
        )
    dq, dk, dv = (torch.cat(parts, dim=1).transpose(0, 1) for parts in zip(*found, strict=True))
    return dq.contiguous(), dk.contiguous(), dv.contiguous()


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    kernels = SimpleNamespace(_flash_attn_fwd=forward, _flash_attn_bwd=backward)
    flash4.load()
    monkeypatch.setattr(flash4, "kernels", kernels)
    torch.manual_seed(0)
    return [torch.randn(9, heads, flash4.WIDTH, requires_grad=True) for heads in (4, 2, 2)]


@pytest.mark.parametrize("compiled", [False, True])
def test_gradients_are_those_of_plain_attention(rows: list[Tensor], compiled: bool) -> None:
    def doubled(*inputs: Tensor) -> Tensor:
        assert flash4.suits(inputs[0])
        return 2 * flash4.attend(*inputs, BOUNDS, 5, SCALE)

    function = torch.compile(doubled, backend="aot_eager", fullgraph=True) if compiled else doubled
    found = function(*rows)
    expected = 2 * by_segment(*rows, BOUNDS, SCALE)
    torch.testing.assert_close(found, expected)
    weight = torch.randn_like(found)
    grads = torch.autograd.grad((found * weight).sum(), rows)
    torch.testing.assert_close(grads, torch.autograd.grad((expected * weight).sum(), rows))


def test_it_is_taken_where_it_suits(rows: list[Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    assert flash4.suits(rows[0])
    assert not flash4.suits(rows[0][..., :64])
    monkeypatch.setattr(flash4, "kernels", None)
    assert not flash4.suits(rows[0])


def test_the_row_takes_it(rows: list[Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "varlen_attn", lambda *_, **__: pytest.fail("not this one"))
    segments = attention.Segments([torch.zeros(3, 5)], [None], BOUNDS, BOUNDS, None, None)
    in_heads = [x.transpose(0, 1)[None] for x in rows]
    found = attention._attend_unpadded(*in_heads, SCALE, segments)
    torch.testing.assert_close(found[0], by_segment(*rows, BOUNDS, SCALE))


@pytest.mark.slow
def test_importing_asks_nothing_of_a_gpu() -> None:
    """A run that is meant for the CPU must not initialise CUDA."""
    modules = [
        ".".join(file.relative_to(ROOT).with_suffix("").parts)
        for file in sorted((ROOT / "omnitune").rglob("*.py"))
        if file.name not in ("__init__.py", "__main__.py")
    ]
    assert "omnitune.models.attention" in modules
    program = f"""
import importlib, torch
def woken(*inputs, **options):
    raise SystemExit("a GPU was asked for")
for name in ("is_available", "get_device_capability", "device_count", "_lazy_init"):
    setattr(torch.cuda, name, woken)
for module in {modules!r}:
    importlib.import_module(module)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_they_are_looked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: looked.append(1))
    flash4.load.cache_clear()
    for _ in range(2):
        assert not flash4.suits(torch.zeros(1, 1, flash4.WIDTH))
    assert looked == [1]
