"""GLyDER as published (2311.13877): a trial step, a measurement at x_0, and x_0 - eta d in the very same update.

The optimizer makes its step at a trial rate; then the parameters go back to x_0, the loss is measured along what it
did, and the step is made anew at the rate that was found. A step along which the loss does not fall is taken back: of
a negative optimum the published bound makes nothing (the floor at 0 is ours).

That is the step the optimizer would have made itself only where its displacement is linear in the rate and its state
does not depend on it; each optimizer is asked, on a clone with small parameters.
"""

from __future__ import annotations

import copy
from collections import OrderedDict, defaultdict
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from glyder.optimizers.displacement import Noted, by_group, displacement_of
from glyder.optimizers.properties import decoupled_decay
from glyder.vectors.inner_products import snapshot

if TYPE_CHECKING:
    from glyder.schedulers.local_optimum import LocalOptimumLR

FALL = 3.0
"""Least factor that the trial rate keeps of the last: a step that comes out near zero says nothing of the next."""

RATES, STEPS, ROUNDING = (1.0, 1e-3, 1e3), 4, 1e-6
"""What linearity is tried with: rates in turn, steps, and a relative difference beyond all rounding in float64."""


def step_anew(scheduler: LocalOptimumLR, noted: Noted) -> None:
    """After the trial step: measure it, and make the step at the rate that was found."""
    places, older, _ = noted
    params = [scheduler._parameter(place) for place in places]
    start = snapshot(older)
    blocks = by_group(places)
    trial = scheduler._acting
    updates = scheduler.updates + 1
    made = displacement_of(scheduler.optimizers, *noted, trial, scheduler._ratios, scheduler._ages, updates)
    tried = {key: _rate(scheduler, key) for key in blocks}
    for p, x in zip(params, start, strict=True):
        p.copy_(x)
    outcome = "raised"
    try:
        outcome = scheduler._measure(made, scheduler.updates)
    finally:
        if outcome == "kept":
            scheduler._write(scheduler._next_rate())
        if outcome != "no_slope":
            for (o, g), indices in blocks.items():
                rate = _rate(scheduler, (o, g))
                decay = decoupled_decay(scheduler.optimizers[o], scheduler.optimizers[o].param_groups[g])
                for i in indices:
                    step = made.deltas[i].mul_(rate / tried[o, g]).add_(start[i], alpha=rate * decay)
                    params[i].copy_(start[i].to(step.dtype) - step)
            scheduler._last_lr = scheduler._rates()
        else:
            scheduler._last_lr = [lr * 0 for lr in scheduler._rates()]
    if outcome == "kept":
        scheduler._rate = max(scheduler._rate, trial / FALL)


def _rate(scheduler: LocalOptimumLR, key: tuple[int, int]) -> float:
    return float(scheduler.optimizers[key[0]].param_groups[key[1]]["lr"])


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
