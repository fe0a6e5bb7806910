"""The search for the peak by cosines: what an update did, met by the gradient of the next one, tensor by tensor.

Only gradients, displacements and lengths are read, so that any loss, model and precision will do, and every rank of
replicas sees the same. ``csrc/rules/peak.c`` has the formulas.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from glyder import _core
from glyder.optimizers.displacement import moved
from glyder.optimizers.parameter_ref import ParameterRef
from glyder.optimizers.properties import is_linear
from glyder.vectors.inner_products import products_each, snapshot
from glyder.vectors.shards import restored, saved

VISIBLE, VISIBLE_HALF = 1e-4, 1e-2
"""Relative displacement that the first updates aim at: what the parameters' dtype can carry with some digits."""

LONGER = 10.0
"""What makes a step another kind of step, at the same rate."""

Found = Sequence[tuple[ParameterRef, Tensor]]
"""Parameters that have gradients, and where they are now. A search keeps what it knows of a parameter by the parameter
itself: others move up to its place when it is taken out of its optimizer."""


def first_rate(optimizers: Sequence[Optimizer], params: Sequence[Tensor], gg: float) -> tuple[float, _core.Rule]:
    """A rate for the first update, so small that it does no harm, and the rule that goes on where nothing moved.

    ``gg`` is 0 where no gradient is known yet.
    """
    half = any(p.dtype.itemsize < 4 for o in optimizers for g in o.param_groups for p in g["params"])
    start = _core.Rule("start", visible=VISIBLE_HALF if half else VISIBLE)
    (each,) = products_each([params], [(0, 0)])
    xx, n = math.fsum(each), float(sum(p.numel() for p in params))
    rate, action, reason = start.update(xx=xx, gg=gg, n=n, dd=0.0, previous=0.0)
    if action != "keep":
        raise ValueError(f"no first learning rate can be had: {reason} (||x||^2 = {xx}, ||g||^2 = {gg}, n = {n})")
    return rate, start


def here(optimizers: Sequence[Optimizer]) -> dict[Tensor, list[int]]:
    """Where each parameter is now, as plain numbers: optimizer, group and index."""
    return {
        p: [o, g, i]
        for o, optimizer in enumerate(optimizers)
        for g, group in enumerate(optimizer.param_groups)
        for i, p in enumerate(group["params"])
    }


def by_place(optimizers: Sequence[Optimizer], known: Mapping[Tensor, Any]) -> list[list[Any]]:
    """What is known of parameters, for a checkpoint. Those that were taken away are left out."""
    places = here(optimizers)
    return [[places[p], saved(value)] for p, value in known.items() if p in places]


def by_parameter(optimizers: Sequence[Optimizer], placed: Sequence[Sequence[Any]]) -> dict[Tensor, Any]:
    """Inverse of :func:`by_place`, on the devices that the parameters are on."""
    known = {}
    for (o, g, i), value in placed:
        p = optimizers[o].param_groups[g]["params"][i]
        known[p] = restored(value, p)
    return known


class CosineSearch:
    """Looks for the peak of a schedule while the rate rises, and is thrown away once it is found.

    Holds one copy of the parameters, from an update to the next: before the step what they were, after it what the
    step did to them.

    Args:
        optimizers: those that are stepped.
        updates: of the search.
    """

    SHARE, MOST = 0.15, 120
    """Updates of the search unless told: as a share of the run, and at most."""

    def __init__(self, optimizers: Sequence[Optimizer], updates: int) -> None:
        self.optimizers = optimizers
        self.rule = _core.Rule("peak", updates=float(updates), longest=float(updates))
        self.start = _core.Rule("start")
        self.lengths: dict[Tensor, float] = {}  # ||x||^2 when it was first seen
        self.before: tuple[Found, list[Tensor]] | None = None  # and a copy of each
        self.displacement: dict[Tensor, Tensor] | None = None
        self.lr = 0.0  # that the displacement was made with
        self.still: set[Tensor] = set()  # whose gradients were zero when the displacement was made
        self.silent = False  # all of them
        self.asleep: set[Tensor] = set()  # the same, once the first updates are over
        self.longest: dict[Tensor, float] = {}  # ||d||^2 at a rate of 1, at most so far
        self.row: dict[str, Any] = {}

    def first(self, params: Sequence[Tensor], gg: float) -> float:
        """A rate for the first update, so small that it does no harm."""
        rate, self.start = first_rate(self.optimizers, params, gg)
        return rate

    def finish(self) -> bool:
        """The end: whether parameters were set back, so that the gradients that are there belong to others."""
        return False

    def lengthen(self, updates: int) -> None:
        """Change the number of updates, to more or to fewer."""
        state = self.rule.state
        self.rule = _core.Rule("peak", **self.rule.config | {"updates": float(updates), "longest": float(updates)})
        self.rule.load(state)

    def note(self, found: Found) -> bool:
        """Before an update: copy what it will move. Whether that is one more copy of the parameters."""
        params = [p for _, p in found]
        new = [p for p in params if p not in self.lengths]
        if new:
            (xx,) = products_each([new], [(0, 0)])
            self.lengths |= dict(zip(new, xx, strict=True))
        self.displacement = None
        self.before = found, snapshot(params)
        self.still = set()
        if self.rule.state["seen"] < 2:  # what has no gradient yet, behind a zero, is moved by rounding alone
            grads = [p.grad for p in params if p.grad is not None]
            (gg,) = products_each([grads], [(0, 0)])
            self.still = {p for p, square in zip(params, gg, strict=True) if square == 0}
        return True

    def made(self, lr: float) -> None:
        """After the update, made at the reference rate ``lr``: what it did, in the memory of the copy."""
        if self.before is None or lr <= 0:
            self.before = None
            return
        (found, older), self.before, self.lr = self.before, None, lr
        deltas = moved(self.optimizers, [place for place, _ in found], older)
        self.displacement = dict(zip((p for _, p in found), deltas, strict=True))

    def forget(self) -> None:
        """What was noted will not be measured."""
        self.before = self.displacement = None

    def undo(self) -> bool:
        """Take the last step back; whether there was one."""
        if self.displacement is None:
            return False
        present = here(self.optimizers)
        with torch.no_grad():
            for p, delta in self.displacement.items():
                if p in present:
                    p.add_(delta.to(p.dtype))
        self.forget()
        return True

    def look(self, rate: float, found: Found, gg: float, squares: float, top: float = math.inf) -> tuple[float, str]:
        """With the gradients of the next update: its rate, and the reason.

        Args:
            rate: the search's own rate for the update before.
            found: what the update to come will move.
            gg: squared length of its gradients.
            squares: sum of the squared schedule factors over the run.
            top: the highest rate there is, which does not end this search.
        """
        self.row = {}
        silent, self.silent = self.silent, gg == 0
        if self.displacement is None:
            return rate, "kept"
        if silent:  # what moved is the rounding of weight decay, or momentum on its own
            return rate, "no_gradient"
        grads = {p: p.grad for _, p in found if p.grad is not None}
        pairs = [(p, grads[p], d) for p, d in self.displacement.items() if _alike(grads.get(p), d)]
        if not pairs:
            return rate, "no_gradient"
        every = _matrices(pairs)
        matrices = _matrices([entry for entry in pairs if entry[0] not in self.still] or pairs)
        xx = [self.lengths[p] for p, *_ in matrices]
        vectors = [g for _, g, _ in matrices], [d for *_, d in matrices], [p for p, *_ in matrices]
        gd, gg_each, dd, now = products_each(vectors, [(0, 1), (0, 0), (1, 1), (2, 2)])
        growth, _ = _core.sum_of_ratios([math.fsum(now)], [math.fsum(xx)])
        if not any(self.rule.state.values()):  # the first displacement
            n = float(sum(d.numel() for d in vectors[1]))
            new, _, reason = self.start.update(xx=math.fsum(xx), gg=gg, n=n, dd=math.fsum(dd), previous=rate)
            if reason != "kept":
                return new, reason
        cosine, _ = _core.mean_cosine(gd, gg_each, dd)
        if not any(self.lengths[p] for p, *_ in every):  # none has a length: as in start.c
            xx = [float(p.numel()) for p, *_ in matrices]
        ratio, _ = _core.sum_of_ratios(dd, xx)
        longer = self._longer([p for p, *_ in matrices], dd, xx)
        self.asleep = {p for (p, *_), square in zip(matrices, gg_each, strict=True) if square == 0}
        if longer:
            self.rule = _core.Rule("peak", **self.rule.config)
        seen = {"cosine": cosine, "relative": ratio / self.lr**2, "growth": growth, "lr": rate, "energy": squares}
        new, action, reason = self.rule.update(**seen)
        peak = self.rule.state["peak"] or math.nan
        roots = {name: math.sqrt(seen[name]) for name in ("relative", "growth")}
        self.row = {"cosine": cosine, "peak": peak} | roots
        if longer and action == "keep":
            return new, "restarted"
        return (new, reason) if action == "keep" else (rate, reason)

    def _longer(self, params: Sequence[Tensor], dd: Sequence[float], xx: Sequence[float]) -> bool:
        """Whether the optimizer has changed the length of its steps: that of the parameters which have moved before is
        at a rate of 1 more than ``LONGER`` times what it ever was. RAdam's steps are gradients at first and then not.
        """
        now = {p: (d / self.lr**2, x) for p, d, x in zip(params, dd, xx, strict=True)
               if p not in self.still and p not in self.asleep}  # fmt: skip
        known = [p for p in now if p in self.longest]
        lengths = [now[p][1] for p in known]
        new, _ = _core.sum_of_ratios([now[p][0] for p in known], lengths)
        old, _ = _core.sum_of_ratios([self.longest[p] for p in known], lengths)
        self.longest |= {p: max(d, self.longest.get(p, 0.0)) for p, (d, _) in now.items()}
        return new > LONGER**2 * old > 0 and all(is_linear(o) for o in self.optimizers)

    # ---- checkpoints

    def state(self) -> dict[str, Any]:
        """Plain values and tensors."""
        return {
            "rule": self.rule.state,
            "start": [self.start.config, self.start.state],
            "lengths": by_place(self.optimizers, self.lengths),
            "displacement": None if self.displacement is None else by_place(self.optimizers, self.displacement),
            "lr": self.lr,
            "still": by_place(self.optimizers, {p: True for p in self.lengths if p in self.still}),
            "silent": self.silent,
            "asleep": by_place(self.optimizers, {p: True for p in self.lengths if p in self.asleep}),
            "longest": by_place(self.optimizers, self.longest),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Inverse of :meth:`state`."""
        self.rule.load(state["rule"])
        config, started = state["start"]
        self.start = _core.Rule("start", **config)
        self.start.load(started)
        self.lengths = by_parameter(self.optimizers, state["lengths"])
        self.still, self.asleep = (set(by_parameter(self.optimizers, state[name])) for name in ("still", "asleep"))
        self.silent, self.longest = state["silent"], by_parameter(self.optimizers, state["longest"])
        displacement = state["displacement"]
        self.displacement = None if displacement is None else by_parameter(self.optimizers, displacement)
        self.before, self.lr = None, state["lr"]


def _matrices(pairs: list[tuple[Tensor, Tensor, Tensor]]) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Those of matrices; all where there are none."""
    return [entry for entry in pairs if entry[2].ndim >= 2] or pairs


def _alike(grad: Tensor | None, delta: Tensor) -> bool:
    return grad is not None and grad.shape == delta.shape
