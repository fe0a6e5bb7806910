"""Where a parameter is, in words that a checkpoint can hold."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ParameterRef:
    """Where a parameter lives: optimizer, group and index, as plain numbers that survive a checkpoint."""

    optimizer: int
    group: int
    index: int

    def __str__(self) -> str:
        of = f" of optimizer {self.optimizer}" if self.optimizer else ""
        return f"parameter {self.index} of group {self.group}{of}"
