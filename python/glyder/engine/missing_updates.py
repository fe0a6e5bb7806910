"""Whether the updates of a loop are seen at all: ``step()`` is called again and again, and none comes."""

from __future__ import annotations

from collections.abc import Sequence

from torch.optim import Optimizer

PATIENCE = 50
"""Calls of ``step()`` without an update: more than gradients are gathered over, or a GradScaler leaves out in a row."""


class MissingUpdates:
    """Counts the calls since the last update.

    Attributes:
        calls: of ``step()`` since the last update. The first belongs to it.
        stepped: optimizers whose step was seen since then, by index; it had no gradients, or the others did not come.
    """

    def __init__(self, optimizers: Sequence[Optimizer]) -> None:
        self._optimizers = optimizers
        self.stepped: set[int] = set()
        self.calls = 0
        self._writes: list[int] = []

    def forget(self) -> None:
        """An update was seen."""
        self.calls = 0
        self.stepped.clear()

    def call(self, scheduler: str, updates: int) -> str | None:
        """``step()`` was called. What there is to say about it: what is, and the remedy."""
        self.calls += 1
        if self.calls == 1:
            self._writes = [_written(o) for o in self._optimizers]
        if self.calls != PATIENCE:
            return None
        since = f"none since update {updates}" if updates else "not one"
        return f"{scheduler}.step() was called {PATIENCE} times and saw no update ({since}): {self._cause(scheduler)}"

    def _cause(self, scheduler: str) -> str:
        """By what can be seen: steps without gradients; parameters that move without a step; neither."""
        missing = [o for o in range(len(self._optimizers)) if o not in self.stepped]
        if not missing:
            return (
                "optimizer.step() finds no gradient. Call it after backward() and before zero_grad(), and give the "
                "optimizer the parameters that are trained, not those of a copy"
            )
        optimizer = self._optimizers[missing[0]]
        name = f"optimizer {missing[0]} ({type(optimizer).__name__})"
        if _written(optimizer) == self._writes[missing[0]]:
            return (
                f"step() of {name} is not called. Call it after backward(), and before {scheduler}.step(); where a "
                "GradScaler calls it, every step so far was left out for gradients that are not finite"
            )
        inner = [key for key, value in vars(optimizer).items() if isinstance(value, Optimizer)]
        right = f"optimizer.{inner[0]}" if inner else "optimizer"
        mover = right if inner else "another optimizer"
        return (
            f"the parameters of {name} move, but not by its step(): {mover} moves them. Make the scheduler of the one "
            f"whose step() is called, {scheduler}({right}, ...), and make that optimizer once for the whole run, "
            "before the scheduler"
        )


def _written(optimizer: Optimizer) -> int:
    """How often its parameters were written in place."""
    params = (p for group in optimizer.param_groups for p in group["params"])
    return sum(p._version for p in params if not p.is_inference())
