"""Low-rank adapters (2106.09685): a GPT that knows Python's standard library learns tiny Shakespeare."""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor, nn

from benchmarks.tasks import gpt, gpt_finetune
from benchmarks.tasks.common import data
from benchmarks.tasks.common.task import Problem, Task, seeded

CENTRE = {"SGD": 0.0, "momentum": -0.5, "AdamW": -2.0}


class Adapted(nn.Module):
    """A linear layer plus alpha/rank · B A x, B = 0 at the start."""

    def __init__(self, base: nn.Linear, rank: int, alpha: float) -> None:
        super().__init__()
        self.base, self.scale = base, alpha / rank
        self.A = nn.Parameter(torch.empty(rank, base.in_features))
        self.B = nn.Parameter(torch.zeros(base.out_features, rank))
        nn.init.kaiming_uniform_(self.A, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.scale * (x @ self.A.T @ self.B.T)


def start(rank: int = 8, alpha: float = 16.0) -> nn.Module:
    """The trained GPT, frozen, with an adapter on each of its linear layers; its head is its embedding."""
    model = gpt_finetune.start().requires_grad_(False)
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear):
            model.set_submodule(name, Adapted(module, rank, alpha))
    return model


@functools.cache
def shakespeare() -> dict[str, Tensor]:
    """The first 90 % of the bytes to train, then 5 % and 5 %."""
    ids = gpt.as_bytes((data.root() / data.FILES["shakespeare"]).read_bytes())
    a, b = int(0.9 * len(ids)), int(0.95 * len(ids))
    return {"train": ids[:a], "validation": ids[a:b], "test": ids[b:]}


def build(seed: int) -> Problem:
    gpt_finetune.base()
    return gpt.language(seeded(seed, start), shakespeare(), 16, seed)


TASKS = (
    Task(
        "gpt-lora",
        "gpt-lora",
        build,
        150,
        CENTRE,
        "low-rank adapters",
        ("shakespeare",),
        transformer=True,
        held_out=True,
    ),
)
