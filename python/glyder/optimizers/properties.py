"""What is known of particular optimizers, by name. Everything else is measured, not assumed.

An optimizer of any other name is followed: its direction is whatever it did, divided by the rate it did it with.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch.optim import Optimizer

_OWN_RATE = "it sets a step size of its own and would not follow"

REFUSED: dict[str, str] = {
    "Rprop": "it ignores its learning rate after the first step",
    "ASGD": "it keeps a rate of its own in its state, one update behind",
    "Prodigy": _OWN_RATE,
    "DAdaptAdam": _OWN_RATE,
    "DAdaptSGD": _OWN_RATE,
    "DAdaptAdaGrad": _OWN_RATE,
    "DAdaptAdan": _OWN_RATE,
    "DAdaptLion": _OWN_RATE,
    "DoG": _OWN_RATE,
    "LDoG": _OWN_RATE,
    "Momo": _OWN_RATE,
    "MomoAdam": _OWN_RATE,
}
"""Optimizers that cannot be steered by their learning rate, and why."""

NOT_LINEAR: dict[str, str] = {
    "LBFGS": "its steps within one update build on each other",
    "Adafactor": "it holds its rate below one of its own",
    "AdamWScheduleFree": "it keeps averages of the parameters",
    "RAdamScheduleFree": "it keeps averages of the parameters",
    "SGDScheduleFree": "it keeps averages of the parameters",
}
"""Optimizers whose displacement is not proportional to their rate, or which remember it, and why."""

DECOUPLED = frozenset({"AdamW", "Muon", "Adafactor", "Lion"})
"""Optimizers whose weight decay multiplies the parameters by 1 - lr*weight_decay and is no part of the loss."""

_LATE = frozenset({"LBFGS"})
"""Optimizers that read the rate before they call the closure: a new rate acts one update later."""

_OTHER_BETAS = frozenset({"RMSprop", "RMSprop8bit", "RMSprop32bit"})
"""Optimizers whose ``betas``, where they have any, do not begin with that of a momentum."""

_SUMMED = frozenset({"SGD", "RMSprop"})
"""Optimizers with a momentum buffer that is a plain sum, neither bias-corrected nor normalised."""


_NORMALISED = (
    "Ada",
    "AMSGrad",
    "Adan",
    "NAdam",
    "RAdam",
    "RMSprop",
    "LBFGS",
    "Lion",
    "Muon",
    "Lamb",
    "LAMB",
    "Sophia",
    "Shampoo",
)
"""How the names of optimizers begin whose steps have a length that gradients do not decide."""


def check_optimizer(optimizer: Any, scheduler: str, observe_only: bool) -> None:
    """Raise TypeError or ValueError, naming the reason, for what cannot be scheduled."""
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"{scheduler}(optimizer=...) must be a torch Optimizer, got {type(optimizer).__name__}")
    name = type(optimizer).__name__
    refused = [c.__name__ for c in type(optimizer).__mro__ if c.__name__ in REFUSED]
    for g, group in enumerate(optimizer.param_groups):
        if "lr" not in group:
            raise ValueError(f"{scheduler}: group {g} of {name} has no 'lr', so there is no rate to set")
        if group.get("maximize"):
            raise ValueError(f"{scheduler}: group {g} of {name} has maximize=True: minimise the negative instead")
        if group.get("line_search_fn") is not None:
            raise ValueError(f"{scheduler} cannot follow {name} with line_search_fn: the line search sets the step")
    if refused and not observe_only:
        raise ValueError(f"{scheduler} cannot follow {name}: {REFUSED[refused[0]]}. AnnealedLR gives it a schedule")


def check_linear(optimizer: Optimizer, scheduler: str) -> None:
    """Raise ValueError, naming the reason, for an optimizer whose step cannot be shortened after it was made."""
    refused = [c.__name__ for c in type(optimizer).__mro__ if c.__name__ in NOT_LINEAR]
    if refused:
        raise ValueError(
            f"{scheduler} cannot search along a step of {type(optimizer).__name__}: {NOT_LINEAR[refused[0]]}, and half "
            "of the step is not the step of half the rate. Use SGD, Adam or AdamW, or a scheduler without line search"
        )


def is_linear(optimizer: Optimizer) -> bool:
    """Whether a step is as long as its rate, and may be taken back without the optimizer's noticing."""
    return not _is_one_of(optimizer, frozenset(NOT_LINEAR))


def _is_one_of(optimizer: Optimizer, names: frozenset[str]) -> bool:
    """Whether the optimizer is of a class of such a name, or derived from one."""
    return any(c.__name__ in names for c in type(optimizer).__mro__)


def natural_rate(optimizer: Optimizer) -> float:
    """The rate that the optimizer's directions are made for, and more than which is never right; infinite for most."""
    return 1.0 if _is_one_of(optimizer, _LATE) else math.inf


def bearable_rate(optimizers: Sequence[Optimizer], ratios: Sequence[Sequence[float]]) -> float:
    """The reference rate at which weight decay alone halves a group's parameters in an update, by all that momentum
    makes of it: more than which is never right. Infinite without decay."""
    shares = [0.0]
    for optimizer, of in zip(optimizers, ratios, strict=True):
        for ratio, group in zip(of, optimizer.param_groups, strict=False):  # a group may have been taken away
            decay = decoupled_decay(optimizer, group)
            if not decay and descends(optimizer):
                decay = _number(group.get("weight_decay")) * (gradient_weight(optimizer, group) or 1.0)
            shares.append(ratio * decay)
    return 0.5 / max(shares) if max(shares) > 0 else math.inf


def acts_late(optimizer: Optimizer) -> bool:
    """Whether a rate that is written while the closure runs is read in the next step only."""
    return _is_one_of(optimizer, _LATE)


def decoupled_decay(optimizer: Optimizer, group: dict[str, Any]) -> float:
    """The factor lambda of decoupled weight decay, x <- (1 - lr*lambda)x - lr*d; 0 without."""
    if _is_one_of(optimizer, DECOUPLED) or group.get("decoupled_weight_decay"):
        return float(group.get("weight_decay", 0.0))
    return 0.0


def l2_decay(optimizer: Optimizer, group: dict[str, Any]) -> float:
    """The factor lambda of weight decay that is part of the loss, lambda/2 ||x||^2; 0 without."""
    return 0.0 if decoupled_decay(optimizer, group) else float(group.get("weight_decay", 0.0))


def gradient_weight(optimizer: Optimizer, group: dict[str, Any]) -> float:
    """Sum of the weights that a gradient has in all directions to come, where those are sums of gradients: SGD with
    momentum has (1 - dampening)/(1 - beta). 0 where directions are something else, or the gradient itself.
    """
    beta = float(group.get("momentum") or 0.0)
    if not 0 < beta < 1 or not _is_one_of(optimizer, frozenset({"SGD"})):
        return 0.0
    return max(1.0 - float(group.get("dampening", 0.0)), 0.0) / (1.0 - beta)


def descends(optimizer: Optimizer) -> bool:
    """Whether it is SGD, or derived from it: its state hangs on no parameters, so that these may be set back."""
    return _is_one_of(optimizer, frozenset({"SGD", "SGDW"}))


def follows_gradients(optimizer: Optimizer) -> bool:
    """Whether a gradient twice as long makes a step twice as long. Optimizers of unknown names are taken to do so."""
    names = [c.__name__ for c in type(optimizer).__mro__ if issubclass(c, Optimizer) and c is not Optimizer]
    return not any(name.startswith(_NORMALISED) or name.endswith("Adam") for name in names)


def repeated(optimizer: Optimizer, group: dict[str, Any]) -> float:
    """The share of an update that is in the next one, too: beta of the momentum, or the first of ``betas``; or 0.

    What Schedule-Free optimizers call so is the weight of an average, and what is no number is no beta.
    """
    if any("ScheduleFree" in c.__name__ for c in type(optimizer).__mro__):
        return 0.0
    betas = None if _is_one_of(optimizer, _OTHER_BETAS) else group.get("betas")
    found = (_number(group.get("momentum")), _number(betas, 0))
    return max((beta for beta in found if 0 < beta < 1), default=0.0)


def _number(value: Any, *index: int) -> float:
    """A number, or that at ``index`` of a sequence; 0 where there is none."""
    try:
        return float(value[index[0]] if index else value)
    except (TypeError, ValueError, LookupError, RuntimeError):
        return 0.0


def gathered(optimizer: Optimizer, group: dict[str, Any], updates: int) -> float:
    """The share of its final size that an average of squared gradients has after ``updates`` updates, in (0, 1].

    Only where it is not bias-corrected: RMSprop's is 1 - alpha^t, which makes its directions longer than they will be
    by the root of that.
    """
    alpha = float(group.get("alpha") or 0.0)
    if not 0 < alpha < 1 or not _is_one_of(optimizer, frozenset({"RMSprop"})) or updates < 1:
        return 1.0
    return 1.0 - alpha**updates


def young(optimizer: Optimizer, group: dict[str, Any], updates: int) -> float:
    """The share of its final weight that a momentum buffer has gathered after ``updates`` updates, in (0, 1].

    A buffer b <- beta*b + (1 - dampening)*g, started from b = g, holds the weight beta^(t-1) +
    (1 - dampening)(1 - beta^(t-1))/(1 - beta) after t updates. Buffers that are bias-corrected (Adam and its kin) or
    normalised (Muon) are never young.
    """
    beta = float(group.get("momentum") or 0.0)
    if not 0 < beta < 1 or not _is_one_of(optimizer, _SUMMED) or updates < 1:
        return 1.0
    rest = 1.0 - float(group.get("dampening", 0.0))
    if rest <= 0:
        return 1.0
    old = beta ** (updates - 1)
    weight = old + rest * (1 - old) / (1 - beta)
    return min(1.0, weight * (1 - beta) / rest)
