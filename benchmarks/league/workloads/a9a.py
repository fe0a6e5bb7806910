"""Logistic regression on a9a: convex."""

from __future__ import annotations

from functools import partial

from torch import nn

from benchmarks.league import data
from benchmarks.league.rows import classification
from benchmarks.league.workload import Cell, Task

CENTRE = {"SGD": -0.5, "momentum": -1.5, "AdamW": -2.0}


def build(seed: int) -> Task:
    return classification(partial(nn.Linear, 123, 2), data.libsvm("a9a"), 64, seed)


CELLS = (Cell("a9a", "a9a", build, 1000, CENTRE, "convex", ("a9a",), suites=("quick", "full")),)
