"""Small problems, and truths about them that owe nothing to the package: plain autograd in double precision."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, jvp

INPUTS, HIDDEN, CLASSES, ROWS = 6, 8, 4, 32

torch.set_num_threads(1)


def mlp(seed: int = 0, dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(INPUTS, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, CLASSES)).to(dtype)


def batch(t: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Batch number t: inputs, and labels of a fixed teacher."""
    x = torch.randn(ROWS, INPUTS, dtype=torch.float64, generator=torch.Generator().manual_seed(1000 + t))
    teacher = torch.randn(INPUTS, CLASSES, dtype=torch.float64, generator=torch.Generator().manual_seed(7))
    return x.to(dtype), (x @ teacher).argmax(1)


def backward(model: nn.Module, t: int) -> Tensor:
    p = next(model.parameters())
    x, y = batch(t, p.dtype)
    loss = F.cross_entropy(model(x), y)
    loss.backward()
    return loss


def train(
    model: nn.Module,
    optimizers: torch.optim.Optimizer | Sequence[torch.optim.Optimizer],
    updates: range | int,
    before: Callable[[int], None] | None = None,
) -> None:
    """The plainest of loops. ``before(t)`` is called between backward and step."""
    several = optimizers if isinstance(optimizers, (list, tuple)) else [optimizers]
    for t in range(updates) if isinstance(updates, int) else updates:
        for o in several:
            o.zero_grad()
        backward(model, t)
        if before is not None:
            before(t)
        for o in several:
            o.step()


def weights(model: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in model.parameters()]


def same(a: Any, b: Any) -> bool:
    """Equal bit for bit, nested, with NaN equal to itself."""
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and a.dtype == b.dtype and torch.equal(_bits(a), _bits(b))
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, float):
        return type(a) is type(b) and (a == b or (a != a and b != b))
    return type(a) is type(b) and a == b


def _bits(t: Tensor) -> Tensor:
    return t.detach().contiguous().view(-1).view(torch.uint8) if t.numel() else t


@dataclass(eq=False)
class Recorder:
    """What really happened: parameters before and after each step, the rates it was made with. Its own hooks.

    Make it after the scheduler, so that its pre-hook sees the rates that the scheduler has just set.
    """

    optimizer: torch.optim.Optimizer
    before: list[list[Tensor]] = field(default_factory=list)
    after: list[list[Tensor]] = field(default_factory=list)
    rates: list[list[float]] = field(default_factory=list)
    rates_at_entry: list[list[float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.optimizer.register_step_pre_hook(self._pre)
        self.optimizer.register_step_post_hook(self._post)

    @torch.compiler.disable
    def _pre(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        self.before.append([p.detach().clone() for g in optimizer.param_groups for p in g["params"]])
        self.rates_at_entry.append([float(g["lr"]) for g in optimizer.param_groups])

    @torch.compiler.disable
    def _post(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        self.after.append([p.detach().clone() for g in optimizer.param_groups for p in g["params"]])
        self.rates.append([float(g["lr"]) for g in optimizer.param_groups])


def slope_and_curvature(
    model: nn.Module,
    names: Sequence[str],
    at: Sequence[Tensor],
    delta: Sequence[Tensor],
    t: int,
    shrink: float = 1.0,
) -> tuple[float, float]:
    """<grad f, delta> and the Gauss-Newton delta^T J^T H J delta on batch t at the parameters ``at``, in double.

    With ``shrink`` the Jacobian J of the curvature is that at shrink*at: decoupled weight decay is no part of delta,
    and a probe from x_{t+1} + delta starts at (1 - lr*lambda) x_t.
    """
    point = {n: p.detach().double() for n, p in model.state_dict().items()}
    point |= {n: p.double() for n, p in zip(names, at, strict=True)}
    tangent = {n: torch.zeros_like(p) for n, p in point.items()}
    tangent |= {n: d.double() for n, d in zip(names, delta, strict=True)}
    x, y = batch(t, torch.float64)

    def outputs(parameters: dict[str, Tensor]) -> Tensor:
        return functional_call(model, parameters, (x,))

    z, u = jvp(outputs, (point,), (tangent,))
    slope_of = u
    if shrink != 1.0:
        _, u = jvp(outputs, (point | {n: shrink * point[n] for n in names},), (tangent,))
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        (r,) = torch.autograd.grad(F.cross_entropy(z, y), z, create_graph=True)
        (hu,) = torch.autograd.grad((r * u).sum(), z)
    return float((r.detach() * slope_of).sum()), float((hu * u).sum())
