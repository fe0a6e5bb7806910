"""What is registered with torch's optimizers: the hooks around their steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.optim import Optimizer

Call = tuple[tuple[Any, ...], dict[str, Any]]
"""What a step is called with."""


@dataclass(eq=False)
class PreHook:
    """Tells ``act`` of a step of the optimizer of this index before it is made.

    ``owner`` is who does so, for others to find.
    """

    owner: Any
    index: int
    act: Callable[[int, tuple[Any, ...], dict[str, Any]], Call | None]

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def __call__(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call | None:
        return self.act(self.index, args, kwargs)


@dataclass(eq=False)
class PostHook:
    """Tells ``act`` of a step of the optimizer of this index after it was made."""

    index: int
    act: Callable[[int], None]

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def __call__(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.act(self.index)
