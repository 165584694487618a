"""The optimisers and their schedule."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from omnitune.config.run import RunConfig

# Newton-Schulz coefficients of Jordan et al. 2024, "Muon": steep at zero, singular values end
# between about 0.7 and 1.2, which serves as well as exactly 1.
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
NEWTON_SCHULZ_STEPS = 5
MOMENTUM = 0.95


class Muon(torch.optim.AdamW):
    """Orthogonalised momentum (Jordan et al. 2024) for the groups marked so, AdamW for the rest.

    torch has a Muon too, but one matrix at a time and always in bfloat16, which costs a processor
    without bf16 units several times the training step itself; here matrices of one shape go
    together.

    Of a model that is divided among ranks each matrix is gathered in turn; each rank brings some of
    them to their singular values and sends them to the others, which keep their own part.

    Attributes:
        products: precision of the matrix products; the method bears bfloat16 (same source).
    """

    products: torch.dtype = torch.float32

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One update of every group."""
        groups = self.param_groups
        try:
            self.param_groups = [group for group in groups if not group["orthogonal"]]
            super().step(closure)
        finally:
            self.param_groups = groups
        for group in groups:
            if group["orthogonal"]:
                self._step_matrices(group)

    def _step_matrices(self, group: dict[str, Any]) -> None:
        by_shape: dict[torch.Size, list[nn.Parameter]] = defaultdict(list)
        for parameter in group["params"]:
            if parameter.grad is not None:
                by_shape[parameter.flatten(1).shape].append(parameter)
        for (rows, columns), parameters in by_shape.items():
            # A step of the same spectral norm relative to what the matrix maps between.
            rate = group["lr"] * max(1.0, rows / columns) ** 0.5
            for parameter, update in self._updates(parameters):
                own = local(parameter)
                own.mul_(1 - group["lr"] * group["weight_decay"])
                own.add_(update.view_as(own), alpha=-rate)

    def _updates(self, parameters: list[nn.Parameter]) -> Iterator[tuple[nn.Parameter, Tensor]]:
        """Of matrices of one shape what is taken from each; of divided ones this rank's part."""
        for parameter in parameters:
            self._add_momentum(parameter)
        if not hasattr(parameters[0], "full_tensor"):
            momenta_BMN = torch.stack([self._momentum(p).flatten(1) for p in parameters])
            yield from zip(parameters, orthogonalize(momenta_BMN, self.products), strict=True)
            return
        from omnitune.distributed.sharding import dealt_matrices  # one process needs none of it

        def turned(whole: Tensor) -> Tensor:
            return orthogonalize(whole.flatten(1)[None], self.products)[0].view_as(whole)

        yield from dealt_matrices(parameters, self._momentum, turned)

    def _add_momentum(self, parameter: nn.Parameter) -> None:
        state = self.state[parameter]
        if not state:
            state["step"] = torch.zeros(())  # AdamW looks for it when a state is loaded
            state["momentum"] = torch.zeros_like(parameter)
        local(state["momentum"]).lerp_(local(parameter.grad), 1 - MOMENTUM)

    def _momentum(self, parameter: nn.Parameter) -> Tensor:
        """Nesterov momentum of a parameter's gradient; of a divided one this rank's part."""
        return local(parameter.grad).lerp(local(self.state[parameter]["momentum"]), MOMENTUM)


def local(tensor: Any) -> Tensor:
    """A tensor; of one that is divided among ranks this rank's part."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def orthogonalize(matrices_BMN: Tensor, products: torch.dtype = torch.float32) -> Tensor:
    """Brings every singular value of each matrix near 1, by Newton-Schulz in ``products``."""
    wide = matrices_BMN.shape[1] <= matrices_BMN.shape[2]
    x = matrices_BMN if wide else matrices_BMN.mT
    x = (x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)).to(products)
    a, b, c = NEWTON_SCHULZ
    for _ in range(NEWTON_SCHULZ_STEPS):
        square = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return (x if wide else x.mT).to(matrices_BMN.dtype)


def build_optimizer(
    model: nn.Module, config: RunConfig, rates: dict[str, float] | None = None
) -> torch.optim.AdamW:
    """The optimiser of the trainable weights; no decay on norms, biases and other vectors.

    Args:
        rates: peak learning rate by prefix of the parameter's name, where it differs.
    """
    matrices = hidden_matrices(model) if config.optimizer == "muon" else set()
    groups: dict[tuple[float, float, bool], list[nn.Parameter]] = {}
    for name, parameter in trainable(model):
        rate = next(
            (r for prefix, r in (rates or {}).items() if name.startswith(prefix)),
            config.learning_rate,
        )
        orthogonal = parameter in matrices
        if orthogonal:
            rate *= config.muon_learning_rate / config.learning_rate
        is_bias = parameter.ndim < 2 or "bias" in name.rpartition(".")[2]
        decay = 0.0 if is_bias else config.weight_decay
        groups.setdefault((rate, decay, orthogonal), []).append(parameter)
    kind = Muon if config.optimizer == "muon" else torch.optim.AdamW
    return kind(
        [
            {
                "params": parameters,
                "lr": rate,
                "peak_lr": rate,
                "weight_decay": decay,
                "orthogonal": orthogonal,
            }
            for (rate, decay, orthogonal), parameters in groups.items()
        ],
        betas=(0.9, config.adam_beta2),
        fused=True,
    )


def hidden_matrices(model: nn.Module) -> set[nn.Parameter]:
    """Weights that map hidden states to hidden states: what Muon is for.

    Embeddings, output heads, convolutions of single channels and adapters are left to AdamW: an
    adapter's two factors have no singular values of their own to bring near 1.
    """
    matrices = {
        cast(nn.Parameter, module.weight)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d)
        and getattr(module, "groups", 1) == 1
        and "head" not in name.rpartition(".")[2]
        and ".lora_" not in name
    }
    return matrices - {m.weight for m in model.modules() if isinstance(m, nn.Embedding)}


def trainable(model: nn.Module) -> Iterable[tuple[str, nn.Parameter]]:
    """Names and parameters that have gradients."""
    return ((n, p) for n, p in model.named_parameters() if p.requires_grad)


def rate_factor(step: int, total: int, warmup: int, floor: float) -> float:
    """Share of the peak rate at a step: linear warm-up, then half a cosine down to ``floor``.

    The warm-up takes a tenth of the run at most, so that a short trial trains at its peak rate.
    """
    warmup = warmup_of(warmup, total)
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, total - warmup)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def warmup_of(asked: int, total: int) -> int:
    """Steps of warm-up: as asked for, but no more than a tenth of all (one at least)."""
    return min(asked, max(1, total // 10))


def total_norm(gradients: Sequence[Tensor]) -> float:
    """Norm of all gradients together; of divided ones over all ranks, which all have to call it."""
    norm = nn.utils.get_total_norm(gradients, foreach=True)
    # Of divided gradients each rank knows a part.
    return float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)


def scale(gradients: Sequence[Tensor], factor: float) -> None:
    """Multiplies gradients in place; of divided ones this rank's part."""
    torch._foreach_mul_([local(g) for g in gradients], factor)


def set_rate(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Sets every group's rate to a share of its peak."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * factor
