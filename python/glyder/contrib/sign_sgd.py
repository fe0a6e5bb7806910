"""SGD on the signs of the gradient (1802.04434)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from glyder import _checks as checks


class SignSGD(Optimizer):
    r"""SignSGD, and with momentum Signum: every entry moves by the rate, whatever the size of its gradient.

    .. math:: m \leftarrow \beta m + (1 - \beta) g, \qquad x \leftarrow (1 - \eta \lambda) x - \eta \, \mathrm{sign}(m)

    Where m is zero, the entry stays. Torch has no optimizer of this kind.

    Args:
        params: parameters, or groups of them, which may have options of their own.
        lr: eta, in units of the parameters; a number, or a tensor without dimensions.
        momentum: beta, in [0, 1). 0: the sign of the gradient itself.
        weight_decay: lambda, decoupled.

    Raises:
        TypeError, ValueError: on construction, in call form; RuntimeError on a sparse gradient.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float | Tensor = 1e-3,
        *,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
    ) -> None:
        defaults = _checked({"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        super().__init__(params, defaults | {"decoupled_weight_decay": True})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """A group more; its own options are checked as those of the constructor."""
        if isinstance(param_group, dict):
            param_group = param_group | _checked(self.defaults | param_group)
        super().add_param_group(param_group)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update. ``closure``: clears the gradients, computes the loss and its gradient, returns the loss."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self._move(p, p.grad, group)
        return loss

    def _move(self, p: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        if grad.is_sparse:
            raise RuntimeError("SignSGD does not take sparse gradients: use a dense embedding")
        if group["momentum"]:
            state = self.state[p]
            if "momentum_buffer" not in state:
                state["momentum_buffer"] = torch.zeros_like(p)
            grad = state["momentum_buffer"].lerp_(grad, 1 - group["momentum"])
        if group["weight_decay"]:
            p.mul_(1 - group["lr"] * group["weight_decay"])
        p.sub_(group["lr"] * grad.sgn())


def _checked(options: dict[str, Any]) -> dict[str, Any]:
    lr = options["lr"]
    if isinstance(lr, Tensor) and lr.dim():
        raise ValueError(
            f"SignSGD(lr=...) must be a number or a tensor without dimensions, got shape {tuple(lr.shape)}"
        )
    rate = checks.number("SignSGD", "lr", lr.item() if isinstance(lr, Tensor) else lr, 0, finite=True)
    momentum = checks.number("SignSGD", "momentum", options["momentum"], 0)
    if momentum >= 1:
        raise ValueError(f"SignSGD(momentum=...) must be < 1, got {momentum}")
    decay = checks.number("SignSGD", "weight_decay", options["weight_decay"], 0, finite=True)
    return {"lr": lr if isinstance(lr, Tensor) else rate, "momentum": momentum, "weight_decay": decay}
