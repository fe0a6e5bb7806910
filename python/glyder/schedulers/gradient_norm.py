"""GLyDER for plain SGD in expectation over the gradient, from the length of grad f."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from glyder import _checks as checks
from glyder import _core
from glyder.engine.stages import Stages
from glyder.optimizers.groups import listed
from glyder.probe.estimators import Estimator, Sample, Smoothness
from glyder.probe.gradient_noise import Sums
from glyder.probe.update_direction import Unmeasurable
from glyder.schedulers.base_rate import BaseRate
from glyder.schedulers.local_optimum import LocalOptimumLR
from glyder.vectors.inner_products import inner_products


class ExpectedRate(BaseRate):
    """Of the rule ``gradnorm``, which looks at several gradients of one point."""

    def __init__(self, stages: Stages, scale: float, memory: float, *, half: bool, once: bool) -> None:
        super().__init__(stages, scale, memory, half=half, once=once)
        self._rules["gradnorm"] = _core.Rule("gradnorm", **self.config)

    def learn(
        self, statistics: dict[str, float], reach: float, samples: Sequence[Sample], squares: float
    ) -> tuple[float | None, str]:
        seen = {name: statistics[name] for name in ("curvature", "dd")}
        seen |= squared_lengths([s.gradients for s in samples])
        rate, action, reason = self._rules["gradnorm"].update(**seen)
        return rate if action == "keep" else None, reason


class GradientNormLR(LocalOptimumLR):
    r"""The rate at which a step along a fresh stochastic gradient lowers the loss most on average.

    .. math:: \eta = \frac{\|\nabla f\|^2}{L \, \mathbb{E}\|g\|^2}

    Args:
        optimizer: plain SGD, or a list of such. The starting rate plays no part.
        model: the module that the training loop calls.
        loss, batches: as for ``LocalOptimumLR``; both are needed.
        n_batches: additional mini-batches per measurement, from 2 up. They should be as large as those of the training.
        L: smoothness constant of the loss, > 0. None: the curvature along the latest displacement, by ``estimator``.
        estimator: as for ``LocalOptimumLR``, of the curvature.
        scale: factor sigma on the rate.
        anneal, warmup, every, options: as for ``LocalOptimumLR``; here no schedule, no warm-up, every update.

    Raises:
        TypeError, ValueError: on construction, in call form, with the value and the remedy.

    :formula: ``eta = ||grad f||^2/(L E||g||^2)``
    :source: 2311.13877, which measures ``||grad f||`` on additional mini-batches; the form is what its bound gives in
        expectation over g
    :passes: 3 for each of ``n_batches`` at a measurement, and those of the estimator (none where ``L`` is given)
    :memory: 2 and ``n_batches`` gradients at a measurement
    :optimizers: SGD without momentum and weight decay
    :use: as the theory has it: the rate falls by itself as noise takes over, with no schedule and no end in view
    :avoid: the end of the run is known: ``GlyderLR`` anneals towards it
    """

    RULE = "gradnorm"
    _BASE = ExpectedRate

    def __init__(
        self,
        optimizer: Optimizer | Sequence[Optimizer],
        model: nn.Module,
        *,
        loss: Any,
        batches: Any,
        n_batches: int = 2,
        L: float | None = None,
        estimator: Estimator | str = "hvp",
        scale: float = 1.0,
        anneal: str | tuple[str, dict[str, float]] | None = None,
        warmup: int = 0,
        every: int = 1,
        **more: Any,
    ) -> None:
        checks.whole("GradientNormLR", "n_batches", n_batches, 2)
        for name in ("refresh", "scope", "act", "observe_only"):
            if name in more:
                raise TypeError(f"GradientNormLR has no {name}=...: one rate for all, followed to the end")
        if batches is None:
            raise ValueError("GradientNormLR(batches=None): give the data to measure ||grad f|| on")
        if L is not None:
            estimator = Smoothness(checks.number("GradientNormLR", "L", L, 0, above=True, finite=True))
        for o in listed(optimizer):
            _check_plain(o)
        super().__init__(
            optimizer,
            model,
            loss=loss,
            batches=batches,
            n_batches=n_batches,
            estimator=estimator,
            scale=scale,
            anneal=anneal,
            warmup=warmup,
            every=every,
            refresh="always",
            **more,
        )


def squared_lengths(gradients: Sequence[Sequence[Tensor | None]]) -> dict[str, float]:
    """Unbiased ||grad f||^2 (``ff``) and E||g||^2 (``gg``) from gradients on independent mini-batches."""
    known = [[g for g in of if g is not None] for of in zip(*gradients, strict=True)]
    sums = [sum(of[1:], of[0]) for of in known if of]
    total = inner_products([sums], [(0, 0)])[0] if sums else 0.0
    squares = math.fsum(inner_products([[g]], [(0, 0)])[0] for of in known for g in of)
    count = len(gradients)
    found = Sums(count, squares, total).estimates(total / count**2)
    if not found:
        raise Unmeasurable("no_gradient", f"the gradients of {count} mini-batches add up to {total} squared")
    return {"ff": found["squared_gradient"], "gg": squares / count}


def _check_plain(optimizer: Any) -> None:
    plain = isinstance(optimizer, SGD) and all(
        not (group.get("momentum") or group.get("weight_decay")) for group in optimizer.param_groups
    )
    if not plain:
        raise ValueError(
            f"GradientNormLR(optimizer={type(optimizer).__name__}) must be torch.optim.SGD with momentum=0 and "
            "weight_decay=0: its rate is that of steps along the gradient itself. LocalOptimumLR takes any optimizer"
        )
