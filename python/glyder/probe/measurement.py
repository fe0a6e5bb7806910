"""Slope and curvature along a direction: an estimator's answers, averaged over samples, with weight decay."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from torch.optim import Optimizer

from glyder.optimizers.displacement import by_group
from glyder.optimizers.properties import l2_decay
from glyder.probe.estimators import Estimator, Measured, Sample, Source
from glyder.probe.update_direction import Direction


class Meter:
    """Measures, and counts what it cost.

    Attributes:
        native: the model does not run in single precision and is measured in its own half precision.
        forwards: forward passes made so far; a backward counts as two.
        copies: copies of the parameters made so far.
    """

    def __init__(self, estimator: Estimator, optimizers: Sequence[Optimizer], say: Callable[[str, str], None]) -> None:
        self.estimator, self._optimizers, self._say = estimator, optimizers, say
        self.native = False
        self.forwards, self.copies = 0.0, 0

    def averaged(self, direction: Direction, samples: Sequence[Sample], draw: int) -> Measured:
        """Slope and curvature, averaged over the samples; weight decay that is part of the loss is added."""
        found = [self._one(direction, sample, draw + i) for i, sample in enumerate(samples)]
        self.forwards += sum(self.estimator.passes + sample.passes_made for sample in samples)
        self.copies += 2 * len(samples)
        slope, curvature = self._decay(direction)
        slope += math.fsum(m.slope for m in found) / len(found)
        curvature += math.fsum(m.curvature for m in found) / len(found)
        return Measured(slope, curvature, found[0].source)

    def parts(
        self,
        direction: Direction,
        samples: Sequence[Sample],
        blocks: Sequence[Sequence[int]],
        draw: int,
        source: Source,
    ) -> tuple[list[float], list[float]]:
        """Slopes and curvatures of blocks of the parameters by themselves, from one estimate for all of them."""
        found = [self.estimator.parts(direction, s, blocks, draw + i, source) for i, s in enumerate(samples)]
        self.forwards += sum(parts.passes for parts in found)
        decay = [self._decay(direction.only(block)) for block in blocks]
        slopes = [math.fsum(of) / len(found) for of in zip(*(parts.slopes for parts in found), strict=True)]
        bends = [math.fsum(of) / len(found) for of in zip(*(parts.curvatures for parts in found), strict=True)]
        return [s + d for s, (d, _) in zip(slopes, decay, strict=True)], [
            b + d for b, (_, d) in zip(bends, decay, strict=True)
        ]

    def state(self) -> dict[str, Any]:
        """Plain values."""
        return {"native": self.native, "cost": [self.forwards, self.copies]}

    def load(self, state: dict[str, Any]) -> None:
        """Inverse of :meth:`state`."""
        self.native, (self.forwards, self.copies) = state["native"], state["cost"]

    def _decay(self, direction: Direction) -> tuple[float, float]:
        """What L2 decay adds: lambda*x is in the gradient that the optimizer follows, lambda in its derivative."""
        slope = curvature = 0.0
        for (o, g), indices in by_group(direction.places).items():
            factor = l2_decay(self._optimizers[o], self._optimizers[o].param_groups[g])
            if factor:
                part = direction.only(indices)
                slope += factor * (part.dot(part.params) + part.origin * part.dot(part.deltas))
                curvature += factor * part.dd
        return slope, curvature

    def _one(self, direction: Direction, sample: Sample, draw: int) -> Measured:
        direction.native = self.native
        try:
            return self.estimator.measure(direction, sample, draw)
        except RuntimeError as error:
            if self.native or not direction.half or "dtype" not in str(error):
                raise
        self.native = True
        self._say(
            "native",
            "the model does not run in single precision: slope and curvature are measured in its own half precision, "
            "with a few per cent of rounding noise",
        )
        return self._one(direction, sample, draw)
