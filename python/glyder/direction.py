"""The direction that an update really took, and the model's answer to a small move along it.

``delta = x_t - x_{t+1}`` is what the optimizer did to the parameters (decoupled weight decay taken out). It points
uphill: moving by ``+c*delta`` from x_{t+1} goes back towards x_t.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from glyder.measure import inner_products, shifted
from glyder.stream import Call, outputs_of
from glyder.untouched import parameters_as


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

    ``logits`` picks the outputs out of what the model returns; ``places[i]`` names parameter i in messages.
    """

    model: nn.Module
    params: Sequence[Tensor]
    deltas: Sequence[Tensor]
    places: Sequence[object]
    logits: Callable[[Any], Tensor] | None = None
    native: bool = False
    """Probe half-precision parameters as they are, where the model does not run in single precision."""

    def where(self, i: int) -> str:
        return str(self.places[i])

    @cached_property
    def dd(self) -> float:
        """||delta||^2."""
        return inner_products([self.deltas], [(0, 0)], where=self.where)[0]

    @cached_property
    def xx(self) -> float:
        """||x||^2 over the same parameters."""
        return inner_products([self.params], [(0, 0)], where=self.where)[0]

    def only(self, indices: Sequence[int]) -> Direction:
        """The part of the direction that moves some of the parameters, and leaves the others where they are."""
        return dataclasses.replace(
            self,
            params=[self.params[i] for i in indices],
            deltas=[self.deltas[i] for i in indices],
            places=[self.places[i] for i in indices],
        )

    def dot(self, vector: Sequence[Tensor | None]) -> float:
        """<vector, delta>; entries that are None count as zero."""
        here = [i for i, v in enumerate(vector) if v is not None]
        v, d = [vector[i] for i in here], [self.deltas[i] for i in here]
        return inner_products([v, d], [(0, 1)], where=lambda i: self.where(here[i]))[0]  # type: ignore[list-item]

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

    @contextlib.contextmanager
    def at(self, c: float) -> Iterator[list[Tensor]]:
        """The model with its parameters at x + c*delta, without writing to them. Only inside ``untouched``.

        Half-precision parameters cannot carry a small displacement: the whole model is put into single precision.
        """
        moved = shifted(self.params, c, self.deltas, where=self.where)
        if self.native:
            moved = [m.to(p.dtype) for m, p in zip(moved, self.params, strict=True)]
        replacement = {id(p): m for p, m in zip(self.params, moved, strict=True)}
        if self.half and not self.native:
            for p in self.model.parameters():
                if id(p) not in replacement:
                    replacement[id(p)] = _single(p.detach())
            for module in self.model.modules():
                for name, buffer in module._buffers.items():
                    module._buffers[name] = _single(buffer)
        with parameters_as(self.model, replacement):
            yield moved

    def outputs(self, call: Call, c: float) -> Tensor:
        """The outputs at x + c*delta for the inputs, the switches and the random numbers of ``call``."""
        call.random.restore()
        args, kwargs = call.args, call.kwargs
        if self.half and not self.native:
            args, kwargs = tree_map(_single, (args, kwargs))
        with torch.no_grad(), call.mode.applied(self.model), self.at(c):
            return outputs_of(self.model(*args, **kwargs), self.logits).detach()


def _single(value: Any) -> Any:
    """Half-precision tensors in single precision; everything else as it is."""
    if isinstance(value, Tensor) and value.dtype in (torch.float16, torch.bfloat16):
        return value.float()
    return value
