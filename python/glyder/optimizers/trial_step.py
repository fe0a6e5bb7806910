"""A step made on trial, and then anew at another rate: GLyDER as published (2311.13877).

The optimizer makes its step at a trial rate; then the parameters go back to x_0, the loss is measured along what it
did, and the step x_0 - eta d is made at the rate that was found, in the very same update. A step along which the loss
does not fall is taken back: of a negative optimum the published bound makes nothing (the floor at 0 is ours).

That is the step the optimizer would have made itself only where its displacement is linear in the rate and its state
does not depend on it; each optimizer is asked, on a clone with small parameters.
"""

from __future__ import annotations

import copy
from collections import OrderedDict, defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from glyder.optimizers.displacement import Displacement, by_group
from glyder.optimizers.properties import decoupled_decay

RATES, STEPS, ROUNDING = (1.0, 1e-3, 1e3), 4, 1e-6
"""What linearity is tried with: rates in turn, steps, and a relative difference beyond all rounding in float64."""


class TrialStep:
    """A step that was just made.

    Args:
        optimizers: that made it.
        start: the parameters before it, whose memory it takes.
        made: what it did.
    """

    def __init__(self, optimizers: Sequence[Optimizer], start: Sequence[Tensor], made: Displacement) -> None:
        self._optimizers, self._start, self._made = optimizers, start, made
        self._blocks = by_group(made.places)
        self._params: list[Tensor] = [
            optimizers[p.optimizer].param_groups[p.group]["params"][p.index] for p in made.places
        ]
        self._tried = {key: self._rate(*key) for key in self._blocks}

    def _rate(self, o: int, g: int) -> float:
        return float(self._optimizers[o].param_groups[g]["lr"])

    def take_back(self) -> None:
        """Go back to where it began."""
        for p, x in zip(self._params, self._start, strict=True):
            p.copy_(x)

    def make_anew(self) -> None:
        """Make it at the rates that the groups have now. Takes the memory of what it did."""
        for (o, g), indices in self._blocks.items():
            rate = self._rate(o, g)
            decay = decoupled_decay(self._optimizers[o], self._optimizers[o].param_groups[g])
            for i in indices:
                start = self._start[i]
                step = self._made.deltas[i].mul_(rate / self._tried[o, g]).add_(start, alpha=rate * decay)
                self._params[i].copy_(start.to(step.dtype) - step)


def check_linear(optimizer: Optimizer) -> None:
    """ValueError, with the reason, where a step cannot be made anew at another rate."""
    try:
        why = _not_linear(optimizer)
    except Exception as error:
        why = f"it could not be tried on a clone ({type(error).__name__}: {error})"
    if why:
        raise ValueError(
            f"LocalOptimumLR(act='same-step') cannot take {type(optimizer).__name__}: {why}. Leave act at 'next': "
            "there the rate acts in the update after the measurement"
        )


def _not_linear(optimizer: Optimizer) -> str:
    """Steps of a clone for each rate, from the same points with the same gradients; empty if all is well."""
    generator = torch.Generator().manual_seed(0)
    clones = [_clone(optimizer) for _ in RATES]
    for t in range(STEPS):
        directions: list[list[Tensor]] = []
        shapes = [p.shape for group in clones[0].param_groups for p in group["params"]]
        points = [torch.randn(shape, dtype=torch.float64, generator=generator) for shape in shapes]
        gradients = [torch.randn(shape, dtype=torch.float64, generator=generator) for shape in shapes]
        for k, clone in enumerate(clones):
            rate = RATES[(k + t) % len(RATES)]  # another one in each step: a state of steps would show
            params = [p for group in clone.param_groups for p in group["params"]]
            for p, x, g in zip(params, points, gradients, strict=True):
                p.data.copy_(x)
                p.grad = g.to(p.device, copy=True)
            for group in clone.param_groups:
                lr = group["lr"]  # a rate in single precision would round 1 - lr*decay, beyond ROUNDING
                group["lr"] = torch.full_like(lr, rate, dtype=torch.float64) if isinstance(lr, Tensor) else rate
            clone.step()
            directions.append([(x - p.detach().cpu()) / rate for p, x in zip(params, points, strict=True)])
        for other in directions[1:]:
            for d, e in zip(directions[0], other, strict=True):
                if not torch.all((d - e).abs() <= ROUNDING * d.abs().amax()):
                    return "its step is not linear in the rate" if t == 0 else "its state depends on the rate"
    return ""


def _clone(optimizer: Optimizer) -> Any:
    """The optimizer with fresh state on small parameters of as many dimensions, each at most 3 long; no hooks."""
    memo: dict[int, Any] = {}
    for group in optimizer.param_groups:
        for p in group["params"]:
            small = torch.zeros([min(n, 3) for n in p.shape], dtype=torch.float64, device=p.device)
            memo[id(p)] = torch.nn.Parameter(small)
    own = {k: v for k, v in optimizer.__dict__.items() if "hook" not in k and k not in ("state", "step")}
    clone = object.__new__(type(optimizer))
    clone.__dict__.update(copy.deepcopy(own, memo))
    clone.__dict__.update({k: OrderedDict() for k in optimizer.__dict__ if "hook" in k})
    clone.state = defaultdict(dict)
    return clone
