"""Decoder transformer on the characters of tiny Shakespeare, at three lengths."""

from __future__ import annotations

from functools import partial
from typing import Any

from benchmarks.tasks.common import data
from benchmarks.tasks.common.task import Problem, Task, seeded
from benchmarks.tasks.common.transformer import Decoder, next_token, score, windows

CENTRE = {"SGD": 0.0, "momentum": -0.7, "AdamW": -2.0}
LENGTH = 64


def build(seed: int) -> Problem:
    parts, characters = data.shakespeare()
    return Problem(
        model=seeded(seed, partial(Decoder, characters, LENGTH)),
        loss=next_token,
        batches=windows(parts["train"], 16, LENGTH, seed),
        evaluate=lambda model, part: score(model, parts[part], LENGTH),
    )


def task(suffix: str, steps: int, stretch: str, suites: tuple[str, ...] = ("full",)) -> Task:
    how: dict[str, Any] = {"needs": ("shakespeare",), "suites": suites, "transformer": True}
    return Task("shakespeare" + suffix, "shakespeare", build, steps, CENTRE, stretch, **how)


TASKS = (
    task("-t125", 125, "125 updates; ladder T", suites=("quick", "full")),
    task("", 500, "ladder 4 T"),
    task("-t2000", 2000, "ladder 16 T"),
)
