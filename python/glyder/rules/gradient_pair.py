"""What rules that live on the difference of two gradients look at: one batch after the other, or one batch twice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import nn
from torch.optim import Optimizer

from glyder.optimizers.displacement import check_members
from glyder.probe.closure_replay import Replay
from glyder.rules.rule_lr import Look, RuleLR, Vector
from glyder.vectors.inner_products import inner_products, shifted


class GradientPairLR(RuleLR):
    """Base of the schedulers that compare the gradients at x_t and at x_{t-1} = x_t + delta_{t-1}.

    Without ``model``, the two are those that the updates were made from, on a batch each: free. With it, the batch of
    this update is evaluated again at x_{t-1}, so that the difference holds no noise: three forward passes more.
    """

    KEEPS = frozenset({"displacement", "gradient"})

    def __init__(
        self,
        optimizer: Optimizer | Sequence[Optimizer],
        model: nn.Module | None,
        config: dict[str, float],
        **options: Any,
    ) -> None:
        if model is not None and not isinstance(model, nn.Module):
            raise TypeError(f"{type(self).__name__}(model=...) must be a torch module or None, got {model!r}")
        self.replay = None if model is None else Replay(model)
        self._older: Vector | None = None
        super().__init__(optimizer, config, **options)

    def _options(self) -> dict[str, Any]:
        return super()._options() | {"same batch": self.replay is not None}

    def _replays(self) -> list[Replay]:
        return [*([] if self.replay is None else [self.replay]), *super()._replays()]

    def _watch_closure(self, closure: Callable[..., Any]) -> Callable[..., Any]:
        closure = super()._watch_closure(closure)
        return closure if self.replay is None else self.replay.watch(closure)

    def _begin(self) -> float | None:
        self._older = None
        if self.replay is None:
            return super()._begin()
        if not self.replay.ready:
            raise RuntimeError(
                f"{type(self).__name__}(model=...) evaluates each batch again: step with optimizer.step(closure), or "
                "leave model out and let it compare one batch with the next"
            )
        check_members(self.replay.model, self._with_gradients())
        try:
            return super()._begin()
        finally:
            self.replay.forget()
            self._older = None

    def _pair(self, look: Look) -> dict[str, float] | None:
        """slope, curvature, dd, yy and lr; None where there was no update before.

        After a change of a GradScaler's factor the gradients of two batches are not compared: their difference would be
        one of large numbers.
        """
        if look.deltas is None or look.before is None:
            return None
        older = look.before
        if self.replay is not None:
            older = [self._at_the_point_before()[look.places[i]] for i in look.at]
        elif look.before_scale != look.scale:
            return None
        y = (older, look.again)
        dd, curvature, yy, slope = inner_products([look.deltas, y, look.before], [(0, 0), (0, 1), (1, 1), (0, 2)])
        return {
            "slope": slope / look.before_scale,
            "curvature": curvature / look.scale,
            "dd": dd,
            "yy": yy / look.scale**2,
            "lr": look.lr,
        }

    def _at_the_point_before(self) -> Vector:
        """Gradients of this update's batch at x_{t-1}, of all that was moved; evaluated once for all blocks."""
        if self._older is None:
            assert self.replay is not None
            deltas = self._kept["displacement"]
            params = [self._parameter(place) for place in deltas]
            values = shifted(params, 1.0, list(deltas.values()))
            _, grads = self.replay.gradients(params, [v.to(p.dtype) for v, p in zip(values, params, strict=True)])
            self._older = dict(zip(deltas, grads, strict=True))
        return self._older
