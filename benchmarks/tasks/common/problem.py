"""A problem: one seed of a task, built; and what all of them are built with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

Batch = Any
Score = dict[str, float]


@dataclass
class Problem:
    """Fresh weights and a fixed order of the data.

    ``loss(model, batch)`` is what is trained, ``evaluate(model, part)`` the mean ``loss`` (and ``error``, where there
    is one) of the part ``"train"``, ``"validation"`` or ``"test"``, in evaluation mode. ``batches`` has no end.
    """

    model: nn.Module
    loss: Callable[[nn.Module, Batch], Tensor]
    batches: Iterator[Batch]
    evaluate: Callable[[nn.Module, str], Score]

    @property
    def trained(self) -> list[nn.Parameter]:
        """The parameters that are trained."""
        return [p for p in self.model.parameters() if p.requires_grad]


def shuffled(count: int, batch: int, seed: int) -> Iterator[Tensor]:
    """Indices of batches: shuffled epochs, one after the other, without end; a rest of an epoch is dropped."""
    if not 1 <= batch <= count:
        raise ValueError(f"batch must be in 1..{count}, got {batch}")
    generator = torch.Generator().manual_seed(seed)
    while True:
        order = torch.randperm(count, generator=generator)
        yield from order[: count // batch * batch].split(batch)


def seeded(seed: int, model: Callable[[], nn.Module]) -> nn.Module:
    """A model whose initial weights depend on ``seed`` alone; what comes after (dropout) does too."""
    torch.manual_seed(seed)
    made = model()
    torch.manual_seed(seed + 10_000)
    return made.train()


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; training goes on as before."""
    training = model.training
    model.eval()
    with torch.no_grad():
        yield
    model.train(training)
