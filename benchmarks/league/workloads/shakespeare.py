"""Decoder transformer on the characters of tiny Shakespeare, at three lengths."""

from __future__ import annotations

from functools import partial
from typing import Any

from benchmarks.league import data
from benchmarks.league.transformer import Decoder, next_token, score, windows
from benchmarks.league.workload import Cell, Task, seeded

CENTRE = {"SGD": 0.0, "momentum": -0.7, "AdamW": -2.0}
LENGTH = 64


def build(seed: int) -> Task:
    parts, characters = data.shakespeare()
    return Task(
        model=seeded(seed, partial(Decoder, characters, LENGTH)),
        loss=next_token,
        batches=windows(parts["train"], 16, LENGTH, seed),
        evaluate=lambda model, part: score(model, parts[part], LENGTH),
    )


def cell(suffix: str, steps: int, stretch: str, suites: tuple[str, ...] = ("full",)) -> Cell:
    how: dict[str, Any] = {"needs": ("shakespeare",), "suites": suites, "transformer": True}
    return Cell("shakespeare" + suffix, "shakespeare", build, steps, CENTRE, stretch, **how)


CELLS = (
    cell("-t125", 125, "125 updates; ladder T", suites=("quick", "full")),
    cell("", 500, "ladder 4 T"),
    cell("-t2000", 2000, "ladder 16 T"),
)
