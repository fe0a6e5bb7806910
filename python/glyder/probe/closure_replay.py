"""The loop's closure once more: the same batch and the same randomness at other parameters, leaving no trace."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from glyder.probe.isolation import RandomState, stand_ins, untouched


class Replay:
    """Evaluates the closure of an update again.

    The closure is that of ``optimizer.step(closure)``: it clears the gradients, computes the loss of *one* batch,
    calls ``backward`` and returns the loss. One that takes ``backward=False`` and then leaves ``backward`` out saves
    two thirds of the cost where the loss alone is wanted.

    What stands in for the parameters does so in the modules of ``model``: the closure has to reach them from there. In
    it, clip ``model.parameters()`` and penalize these, not a list that was made before. A penalty of such a list is
    told; clipping one cannot be noticed, nor can its penalty where ``backward`` is left out.

    Args:
        model: holds every parameter that is trained.

    Raises:
        RuntimeError: no closure has run, or one that used parameters which it did not reach through ``model``.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self._closure: Callable[..., Any] | None = None
        self._rng: RandomState | None = None
        self.forwards = 0.0
        """Cost so far, in forward passes; a backward counts as two."""

    def watch(self, closure: Callable[..., Any]) -> Callable[..., Any]:
        """The closure to run instead: the same, remembered with the randomness of its first run."""
        self._closure, self._rng = closure, None

        def watched(*args: Any, **kwargs: Any) -> Any:
            if self._rng is None:
                self._rng = RandomState.now()
            return closure(*args, **kwargs)

        return watched

    @property
    def ready(self) -> bool:
        """Whether a closure has run in this update."""
        return self._rng is not None

    def forget(self) -> None:
        """Let go of the closure and of what it holds."""
        self._closure = self._rng = None

    def loss(self, params: Sequence[Tensor], values: Sequence[Tensor]) -> float:
        """The loss with ``values`` in place of the parameters."""
        return self._run(params, values, gradients=False)[0]

    def gradients(self, params: Sequence[Tensor], values: Sequence[Tensor]) -> tuple[float, list[Tensor]]:
        """The loss and its gradient, with zeros where a parameter plays no part."""
        return self._run(params, values, gradients=True)

    def _run(
        self, params: Sequence[Tensor], values: Sequence[Tensor], *, gradients: bool
    ) -> tuple[float, list[Tensor]]:
        if self._closure is None or self._rng is None:
            raise RuntimeError("no closure has run in this update")
        forward_only = not gradients and _can_leave_backward_out(self._closure)
        self.forwards += 1.0 if forward_only else 3.0
        kept = [(p, p.grad) for p in self.model.parameters()]
        # Every parameter is stood in for: else the backward pass would add to the user's gradients.
        others = {id(p): p.detach().requires_grad_(p.requires_grad) for p, _ in kept}
        mine = [v.detach().requires_grad_() for v in values]
        places: Mapping[int, Tensor] = others | {id(p): v for p, v in zip(params, mine, strict=True)}
        for p, _ in kept:
            p.grad = None  # a closure that zeroes gradients in place would zero the user's
        try:
            with untouched(), stand_ins(self.model, places), torch.set_grad_enabled(not forward_only):
                self._rng.restore()
                loss = plain(self._closure(backward=False) if forward_only else self._closure())
            if any(p.grad is not None for p, _ in kept):
                raise RuntimeError(
                    "the closure uses parameters that were not reached through the model given, so that it cannot be "
                    "evaluated at others: use model.parameters() inside of the closure, not a list made before"
                )
        finally:
            for p, grad in kept:
                p.grad = grad
        return loss, [torch.zeros_like(v) if v.grad is None else v.grad for v in mine] if gradients else []


def plain(loss: Tensor | float) -> float:
    """The value of a loss."""
    return float(loss.detach()) if isinstance(loss, Tensor) else float(loss)


def _can_leave_backward_out(closure: Callable[..., Any]) -> bool:
    try:
        return "backward" in inspect.signature(closure).parameters
    except (TypeError, ValueError):
        return False
