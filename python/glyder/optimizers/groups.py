"""What the rates of groups mean: shares of the first one's, at the start and where they are given later."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from glyder.optimizers.parameter_ref import ParameterRef
from glyder.optimizers.properties import acts_late
from glyder.vectors.shards import is_sharded

Ratios = list[list[float]]
"""By optimizer and group."""


def share(rate: float, present: Sequence[float], shares: Sequence[float], default: float, unit: float) -> float:
    """The share of a group that is given a rate while others are on their way.

    It has the proportion to them that the rate has to theirs, wherever their schedule is. The optimizer's default is
    what a group has whose owner gave it none, and means as much as it did at the start.

    Args:
        rate: the one that is given.
        present, shares: of the groups that are there: their rates now, and their shares. A share of 0 is at rest.
        default: the optimizer's own rate.
        unit: what rates of the start are divided by to be shares.
    """
    moving = [(other, of) for other, of in zip(present, shares, strict=True) if of > 0]
    for other, of in moving:
        if other == rate:  # to the bit, and also where a schedule has come to 0
            return of
    first = next(((other, of) for other, of in moving if other > 0), None)
    return rate / unit if rate == default or first is None else rate / first[0] * first[1]


def listed(optimizer: Any) -> list[Any]:
    """What a scheduler is made of, one optimizer or a list or tuple of them, as a list of its own. Unchecked."""
    return list(optimizer) if isinstance(optimizer, (list, tuple)) else [optimizer]


def starting_rates(optimizers: Sequence[Optimizer], scheduler: str, observe_only: bool) -> Ratios:
    """The rates to begin with; ValueError for one that is none, or where all are at 0.

    Where a schedule has brought all that it had to 0, that is its own and no wish of anybody: they begin where that
    one began, which ``initial_lr`` keeps.
    """
    for o, optimizer in enumerate(optimizers):
        for g, group in enumerate(optimizer.param_groups):
            rate = float(group["lr"])
            if not (rate >= 0 and math.isfinite(rate)):
                raise ValueError(f"lr of group {g} of optimizer {o} must be >= 0 and finite, got {rate}")
    rates = [[float(group["lr"]) for group in o.param_groups] for o in optimizers]
    if observe_only:
        return rates
    begun = [[float(group.get("initial_lr", 0.0)) for group in o.param_groups] for o in optimizers]
    both = [list(zip(*of, strict=True)) for of in zip(rates, begun, strict=True)]
    if all(rate == 0 for of in both for rate, start in of if start > 0):
        rates = [[rate or start for rate, start in of] for of in both]
    if not any(rate > 0 for of in rates for rate in of):
        raise ValueError(
            f"every group of the optimizer has lr=0, which means: keep still. {scheduler} finds the rate by itself; "
            "leave lr at its default"
        )
    return rates


def check_apart(optimizers: Sequence[Optimizer], scheduler: str) -> None:
    """ValueError, with both places, for a parameter that two of the optimizers would move."""
    seen: dict[Tensor, tuple[int, str]] = {}
    for o, optimizer in enumerate(optimizers):
        for g, group in enumerate(optimizer.param_groups):
            for i, p in enumerate(group["params"]):
                place = f"parameter {i} of group {g} of optimizer {o}"
                owner, first = seen.setdefault(p, (o, place))
                if owner != o:
                    raise ValueError(
                        f"{scheduler}(optimizer=...): {place}, of shape {tuple(p.shape)}, is {first} as well, and both "
                        "would move it: leave it to one of them"
                    )


def check_whole(optimizers: Sequence[Optimizer], scheduler: str) -> None:
    """TypeError, with the place, for a parameter that is sharded."""
    for o, optimizer in enumerate(optimizers):
        for g, group in enumerate(optimizer.param_groups):
            for i, p in enumerate(group["params"]):
                if is_sharded(p):
                    raise TypeError(
                        f"{scheduler}(optimizer=...): {ParameterRef(o, g, i)} is sharded over ranks (a DTensor), and "
                        "each rank would find a rate of its own: use GlyderLR, which adds up what the ranks hold"
                    )


def reference_of(rates: Ratios) -> float:
    """The rate that ratios refer to: that of the first group that is not at 0; 1 where all are observed at 0, as in a
    warm-up of the user's own."""
    return next((rate for of in rates for rate in of if rate > 0), 1.0)


def check_ratios(ratios: Ratios, rates: Ratios, reference: float) -> None:
    """ValueError, with place and rate, for a ratio that is no number or has vanished."""
    for o, of in enumerate(rates):
        for g, rate in enumerate(of):
            _check_ratio(ratios[o][g], rate, o, g, reference)


def _check_ratio(ratio: float, rate: float, o: int, g: int, reference: float) -> None:
    if not (0 <= ratio < math.inf) or (ratio == 0 and rate > 0):
        raise ValueError(
            f"lr of group {g} of optimizer {o} is {rate}, and that of the first group {reference}: their ratio is kept "
            "and has to be a finite number"
        )


def take_in(optimizers: Sequence[Optimizer], ratios: Ratios, reference: float, freed: bool) -> list[tuple[int, int]]:
    """Give a ratio to groups that were added, and with ``freed`` to those at rest that were given a rate.

    Returns which they are. Where a rate cannot be used, ValueError says so and no ratio is changed.
    """
    new: dict[tuple[int, int], float] = {}
    for o, optimizer in enumerate(optimizers):
        for g, group in enumerate(optimizer.param_groups):
            if g < len(ratios[o]) and (ratios[o][g] != 0 or not freed or float(group["lr"]) == 0):
                continue
            known = [
                (float(of["lr"]), ratio)
                for there, of_optimizer in zip(optimizers, ratios, strict=True)
                for of, ratio in zip(there.param_groups, of_optimizer, strict=False)
            ]
            rate, present, shares = float(group["lr"]), [rate for rate, _ in known], [ratio for _, ratio in known]
            default = float(optimizer.defaults.get("lr", math.nan)) if g >= len(ratios[o]) else math.nan
            ratio = share(rate, present, shares, default, reference)
            if freed:
                _check_ratio(ratio, rate, o, g, next((rate for rate, of in known if of > 0), reference))
            new[o, g] = ratio
    for (o, g), ratio in new.items():
        ratios[o][g:] = [ratio, *ratios[o][g + 1 :]]
    return list(new)


def fits(value: float, rate: float | Tensor) -> bool:
    """Whether the value is finite in the type that the rate has."""
    return abs(value) <= (torch.finfo(rate.dtype).max if isinstance(rate, Tensor) else sys.float_info.max)


def split(optimizers: Sequence[Optimizer], ratios: Ratios, scheduler: str) -> None:
    """A group for each parameter, in place; rates, options and ratios stay what they are."""
    for optimizer in optimizers:
        if acts_late(optimizer):
            raise ValueError(
                f"{scheduler}(scope='tensor') cannot split the groups of {type(optimizer).__name__}, which takes one "
                "only: use scope='global'"
            )
    for of, optimizer in zip(ratios, optimizers, strict=True):
        of[:] = [ratio for ratio, group in zip(of, optimizer.param_groups, strict=True) for _ in group["params"]]
        optimizer.param_groups[:] = [part for group in optimizer.param_groups for part in _parts(group)]


def _parts(group: dict[str, Any]) -> Iterator[dict[str, Any]]:
    names = group.get("param_names", [None] * len(group["params"]))
    for p, name in zip(group["params"], names, strict=True):
        rate = group["lr"].clone() if isinstance(group["lr"], Tensor) else group["lr"]
        yield group | {"params": [p], "lr": rate} | ({} if name is None else {"param_names": [name]})
