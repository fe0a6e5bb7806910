"""The micro-batches of gradient accumulation as independent looks at the gradient: its length and its noise.

An update's gradient G = h_1 + ... + h_m is a sum over backward passes on independent data, whatever the factor that the
loop puts on each loss. Then

    m/(m - 1) (||G||^2 - sum_i ||h_i||^2)    is unbiased for ||E G||^2 = ||grad f||^2    (a U-statistic)
    ||G||^2 - that                           is unbiased for tr Cov G, the noise of the update's gradient

and their ratio is the noise scale (1812.06162, section 2) in batches of an update. Hooks on the parameters see each h_i
on its way into ``.grad``: one read of both, no copy, no further pass. Drawn without replacement within an epoch of n
micro-batches the first is low by tr Cov h m^2/(n - 1).

The slope <grad f, delta> along an earlier displacement needs nothing of this: it is <G, delta>.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from glyder.vectors.inner_products import inner_products


@dataclass(frozen=True)
class Sums:
    """What is added up over the micro-batches of an update.

    Attributes:
        count: m.
        squares: sum_i ||h_i||^2.
        total: ||sum_i h_i||^2.
    """

    count: int
    squares: float
    total: float

    @classmethod
    def merged(cls, ranks: Sequence[Sums], total: float) -> Sums:
        """Of several ranks whose h_i add up to one gradient, of the squared length ``total``. Where ranks average,
        each rank's h_i and so its ``squares`` hold the factor 1/len(ranks) of that."""
        return cls(sum(r.count for r in ranks), math.fsum(r.squares for r in ranks), total)

    def estimates(self, gg: float) -> dict[str, float]:
        """Columns of the history, for a gradient that came to ||G||^2 = ``gg`` after clipping and unscaling.

        Empty with fewer than two micro-batches, or none that can be compared.
        """
        if self.count < 2 or not (0 < self.total < math.inf and math.isfinite(self.squares)):
            return {}
        squared = gg * (self.count / (self.count - 1)) * (1 - self.squares / self.total)
        noise = gg - squared
        scale = noise / squared if squared > 0 else math.inf
        return {"replicas": self.count, "squared_gradient": squared, "gradient_noise": noise, "noise_scale": scale}


class Replicas:
    """Watches what backward passes add to the gradients of parameters.

    Every backward pass counts as one micro-batch; what ``torch.autograd.grad`` computes goes into no ``.grad`` and does
    not count.
    """

    def __init__(self) -> None:
        self._handles: dict[int, tuple[Tensor, list[Any]]] = {}
        """By ``id`` of the parameter, which is held so that no other gets that id."""
        self._clear()

    def _clear(self) -> None:
        self._squares, self._cross = 0.0, 0.0
        self._counts: dict[int, int] = {}

    def start(self, params: Iterable[Tensor]) -> None:
        """Watch these from now on, with nothing seen yet."""
        for p in params:
            if id(p) not in self._handles and p.requires_grad:
                self._handles[id(p)] = (p, _watch(p, self))
        self._clear()

    def take(self) -> Sums:
        """What was seen since, and start anew."""
        count = max(self._counts.values(), default=0)
        sums = Sums(count, self._squares, self._squares + 2 * self._cross)
        self._clear()
        return sums

    def close(self) -> None:
        """Watch nothing more."""
        for _, handles in self._handles.values():
            for handle in handles:
                handle.remove()
        self._handles = {}

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles of parameters carry no hooks: a copy watches those that it is told to."""
        return {"_handles": {}, "_squares": 0.0, "_cross": 0.0, "_counts": {}}

    def add(self, parameter: int, squared: float, cross: float) -> None:
        self._squares += squared
        self._cross += cross
        self._counts[parameter] = self._counts.get(parameter, 0) + 1


def _watch(p: Tensor, replicas: Replicas) -> list[Any]:
    """Tell ``replicas`` of ||h||^2 and of <h, what was there> whenever a backward pass has added h to ``p.grad``.

    By a weak link: a model that lives on keeps nothing alive.
    """
    owner, name, seen = weakref.ref(replicas), id(p), (0.0, 0.0)

    def before(h: Tensor) -> None:
        nonlocal seen
        there = p.grad
        if there is None:
            seen = inner_products([[h]], [(0, 0)])[0], 0.0
        else:
            seen = inner_products([[h], [there]], [(0, 0), (0, 1)])  # type: ignore[assignment]

    def after(_: Tensor) -> None:
        there = owner()
        if there is not None:
            there.add(name, *seen)

    return [p.register_hook(before), p.register_post_accumulate_grad_hook(after)]
