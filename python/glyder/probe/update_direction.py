"""The direction that an update really took, and the model's answer to a small move along it.

``delta = x_t - x_{t+1}`` is what the optimizer did to the parameters (decoupled weight decay taken out). It points
uphill: moving by ``+c*delta`` from x_{t+1} goes back towards x_t.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from glyder.probe.capture import Call, outputs_of
from glyder.probe.isolation import is_half, stand_ins
from glyder.vectors.inner_products import inner_products, shifted


class Unmeasurable(Exception):
    """A measurement that could not be made; the rate stays as it was. ``reason`` goes into the history."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


# How far a probe moves, relative to the parameters: |c| * ||delta|| = RELATIVE * ||x||.  In single precision 1e-3
# balances the truncation error of a central difference, of the order of its square, against rounding, 6e-8 / 1e-3.
# Half-precision arithmetic rounds each weight by 2**-9 (bfloat16) or 2**-12, and has to move further.
RELATIVE_STEP = 1e-3
RELATIVE_STEP_HALF = 2.0**-5


@dataclass(eq=False)
class Direction:
    """``params`` of ``model`` and their displacements, entry by entry.

    Multiples c of delta are counted from x_{t+1} + origin*delta: with ``origin`` = 1 from x_t, less its decoupled
    weight decay. ``logits`` picks the outputs out of what the model returns; ``places[i]`` names parameter i in
    messages. ``rest`` are parameters of the same update, with their displacements, that stay at the origin.
    ``factors``, one for each parameter, turn the direction: delta_i becomes factors[i]*delta_i, and the origin stays.
    """

    model: nn.Module
    params: Sequence[Tensor]
    deltas: Sequence[Tensor]
    places: Sequence[object]
    logits: Callable[[Any], Tensor] | None = None
    origin: float = 0.0
    rest: Sequence[tuple[Tensor, Tensor]] = ()
    factors: Sequence[float] | None = None
    behind: float = 0.0
    """1 where the origin is x_{t+1}, behind the update; 0 where it is x_t."""
    native: bool = False
    """Probe half-precision parameters as they are, where the model does not run in single precision."""

    def where(self, i: int) -> str:
        return str(self.places[i])

    @cached_property
    def dd(self) -> float:
        """||delta||^2."""
        if self.factors is None:
            return inner_products([self.deltas], [(0, 0)], where=self.where)[0]
        return math.fsum(k * dot for k, dot in zip(self.factors, self.dots(self.deltas), strict=True))

    @cached_property
    def xx(self) -> float:
        """||x||^2 over the same parameters."""
        return inner_products([self.params], [(0, 0)], where=self.where)[0]

    def only(self, indices: Sequence[int]) -> Direction:
        """The part of the direction that moves some of the parameters, and leaves the others at the origin."""
        still = set(range(len(self.params))).difference(indices)
        return dataclasses.replace(
            self,
            params=[self.params[i] for i in indices],
            deltas=[self.deltas[i] for i in indices],
            places=[self.places[i] for i in indices],
            factors=None if self.factors is None else [self.factors[i] for i in indices],
            rest=[*self.rest, *((self.params[i], self.deltas[i]) for i in sorted(still))],
        )

    def dot(self, vector: Sequence[Tensor | None]) -> float:
        """<vector, delta>; entries that are None count as zero."""
        if self.factors is not None:
            return math.fsum(self.dots(vector))
        here = [i for i, v in enumerate(vector) if v is not None]
        v, d = [vector[i] for i in here], [self.deltas[i] for i in here]
        return inner_products([v, d], [(0, 1)], where=lambda i: self.where(here[i]))[0]  # type: ignore[list-item]

    def dots(self, vector: Sequence[Tensor | None]) -> list[float]:
        """<vector_i, delta_i> of each parameter."""
        factors = self.factors or [1.0] * len(self.deltas)
        pairs = zip(factors, vector, self.deltas, strict=True)
        return [0.0 if v is None else k * inner_products([[v], [d]], [(0, 1)])[0] for k, v, d in pairs]

    def step(self, half: bool) -> float:
        """The multiple c of delta by which a central difference moves."""
        if self.dd == 0:
            raise Unmeasurable("not_visible", "the update left the parameters as they were")
        relative = RELATIVE_STEP_HALF if half or (self.native and self.half) else RELATIVE_STEP
        return relative * (self.xx / self.dd) ** 0.5 if self.xx > 0 else 1.0

    @property
    def half(self) -> bool:
        """Whether some of the parameters are in half precision."""
        return any(p.dtype.itemsize < 4 for p in self.params)

    @property
    def single(self) -> bool:
        """Whether the model has to be put into single precision: half-precision parameters cannot carry a probe."""
        return self.half and not self.native

    def moved(self, c: float) -> list[Tensor]:
        """The parameters c*delta away from the origin, as new tensors."""
        if self.factors is None:
            moved = shifted(self.params, self.origin + c, self.deltas, where=self.where)
        else:
            entries = zip(self.params, self.factors, self.deltas, strict=True)
            moved = [shifted([p], self.origin + c * k, [d])[0] for p, k, d in entries]
        return [m.to(p.dtype) for m, p in zip(moved, self.params, strict=True)] if self.native else moved

    @contextlib.contextmanager
    def with_parameters(self, moved: Sequence[Tensor]) -> Iterator[None]:
        """One pass of the model with ``moved`` in place of ``params``; in single precision as a whole where any is."""
        replacement = {id(p): m for p, m in zip(self.params, moved, strict=True)} | self._still()
        with contextlib.ExitStack() as stack:
            if self.single:
                for p in self.model.parameters():
                    if id(p) not in replacement and is_half(p):
                        replacement[id(p)] = p.detach().float()
                handle = self.model.register_forward_pre_hook(_single_inputs, prepend=True, with_kwargs=True)
                stack.callback(handle.remove)
            stack.enter_context(stand_ins(self.model, replacement, single=self.single))
            yield

    def _still(self) -> dict[int, Tensor]:
        """What stands in for ``rest``: nothing where the origin is where the parameters are."""
        if not (self.origin and self.rest):
            return {}
        params, deltas = zip(*self.rest, strict=True)
        back = shifted(params, self.origin, deltas)
        return {id(p): m if self.single else m.to(p.dtype) for p, m in zip(params, back, strict=True)}

    def outputs(self, call: Call, c: float) -> Tensor:
        """The outputs c*delta away from the origin for the inputs, the switches and the random numbers of ``call``."""
        call.random.restore()
        with torch.no_grad(), self.with_parameters(self.moved(c)), call.mode.applied(self.model):
            return outputs_of(self.model(*call.args, **call.kwargs), self.logits).detach()


def _single_inputs(
    module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return tree_map(lambda value: value.float() if is_half(value) else value, (args, kwargs))  # type: ignore[no-any-return]
