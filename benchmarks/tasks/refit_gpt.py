"""A transformer that was trained on tiny Shakespeare, its rate down to zero, is trained on, on the same text."""

from __future__ import annotations

import functools

from torch import Tensor

from benchmarks.tasks.common import data, transformer
from benchmarks.tasks.common.pretrained import pretrained
from benchmarks.tasks.common.task import Problem, Task, seeded
from benchmarks.tasks.common.transformer import Decoder, next_token, score, windows

CENTRE = {"SGD": 0.0, "momentum": -0.5, "AdamW": -2.0}
LENGTH = 64


def before(seed: int) -> Problem:
    parts, characters = data.shakespeare()
    return Problem(
        model=seeded(seed, functools.partial(Decoder, characters, LENGTH)),
        loss=next_token,
        batches=windows(parts["train"], 16, LENGTH, seed),
        evaluate=lambda model, part: score(model, parts[part], LENGTH),
    )


@functools.cache
def base() -> dict[str, Tensor]:
    return pretrained("refit-gpt", before, 1000, 1e-2, transformer)


def build(seed: int) -> Problem:
    """The order of the data is the seed's, the weights are the same for every seed."""
    state = base()
    problem = before(seed)
    problem.model.load_state_dict(state)
    return problem


TASKS = (
    Task(
        name="refit-gpt",
        family="refit-gpt",
        build=build,
        steps=300,
        centre=CENTRE,
        stretch="trained on",
        needs=("shakespeare",),
        clip=1.0,
        transformer=True,
        held_out=True,
    ),
)
