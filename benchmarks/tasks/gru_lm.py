"""GRU on the characters of tiny Shakespeare, its gradients clipped."""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn

from benchmarks.tasks.common import data
from benchmarks.tasks.common.task import Problem, Task, seeded
from benchmarks.tasks.common.transformer import next_token, score, windows

CENTRE = {"SGD": 1.0, "momentum": 0.2, "AdamW": -1.7}
LENGTH = 64


class Characters(nn.Module):
    """Ids [n, length] to logits [n · length, characters]."""

    def __init__(self, characters: int, width: int = 128) -> None:
        super().__init__()
        self.embed, self.gru = nn.Embedding(characters, width), nn.GRU(width, width, batch_first=True)
        self.head = nn.Linear(width, characters)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.gru(self.embed(ids))[0]).flatten(0, 1)


def build(seed: int) -> Problem:
    parts, characters = data.shakespeare()
    return Problem(
        model=seeded(seed, partial(Characters, characters)),
        loss=next_token,
        batches=windows(parts["train"], 32, LENGTH, seed),
        evaluate=lambda model, part: score(model, parts[part], LENGTH),
    )


TASKS = (Task("gru-lm", "gru-lm", build, 250, CENTRE, needs=("shakespeare",), clip=1.0),)
