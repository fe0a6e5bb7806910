"""The released packages, in whose place stand-ins note how they are made and play made-up numbers back."""

from __future__ import annotations

import dataclasses
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks.harness.train import under
from benchmarks.methods.baselines import RECIPES
from benchmarks.methods.catalogue import METHODS
from benchmarks.tasks.common.catalogue import tasks
from benchmarks.tasks.common.task import Task

DISTANCES = [1e-6, 1e-6, 3.7e-6, 1.9e-5, 8.8e-5]
"""Prodigy's ``d`` by update, of prodigyopt 1.1.2 on a net of digits; the last one stays."""


class Played(torch.optim.SGD):
    """An optimizer of a package."""

    made: dict[str, Any]

    def __init__(self, params: Any, lr: float, **options: Any) -> None:
        super().__init__(params, lr=lr)
        Played.made, self.count, self.trains = {"lr": lr} | options, 0, False
        self.param_groups[0] |= {"d": DISTANCES[0], "scheduled_lr": 0.0}

    def step(self, closure: Any = None) -> None:
        assert self.trains or "safeguard_warmup" in self.made
        self.count += 1
        self.param_groups[0]["d"] = DISTANCES[min(self.count, len(DISTANCES)) - 1]

    def train(self) -> None:
        self.trains = True

    def eval(self) -> None:
        self.trains = False


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> Task:
    """A task of 40 updates, and the packages played."""
    monkeypatch.setitem(sys.modules, "prodigyopt", SimpleNamespace(Prodigy=Played))
    monkeypatch.setitem(sys.modules, "schedulefree", SimpleNamespace(AdamWScheduleFree=Played))
    return dataclasses.replace(tasks()["digits-mlp"], steps=40)


@pytest.mark.parametrize("recipe", RECIPES["prodigy"])
def test_rates_of_prodigy(short: Task, recipe: str) -> None:
    problem = short.build(101)
    method = METHODS["prodigy"](problem, short, "AdamW", recipe=recipe)
    assert Played.made == {"lr": 1.0, "weight_decay": 0.01, "safeguard_warmup": recipe != "documented"}
    rates = [method.rate() for _ in under(method, problem, short)]
    if recipe == "documented":
        assert rates == DISTANCES + DISTANCES[-1:] * 35
    else:
        # half way behind a warm-up of 10; an update of 30 changes a factor by 1/30, the cosine's by pi/2 of that
        assert rates[10 + 15] == pytest.approx(0.5 * DISTANCES[-1], rel=0.12)
        late = {"annealed": (1 - 3**0.5 / 2) / 2, "linear": 1 / 6}[recipe]
        assert rates[10 + 25 - 1] == pytest.approx(late * DISTANCES[-1], rel=0.02)


@pytest.mark.parametrize("recipe", RECIPES["schedulefree"])
def test_schedule_free_is_scored_in_its_average(short: Task, recipe: str) -> None:
    problem = short.build(101)
    method = METHODS["schedulefree"](problem, short, "AdamW", recipe=recipe)
    warm = {"documented": 2, "annealed": 10}[recipe]
    assert Played.made == {"lr": 0.0025, "weight_decay": 0.01, "warmup_steps": warm}
    assert len(list(under(method, problem, short))) == 40
    assert method.finish() is problem.model
    assert not method.optimizer.trains


def test_what_a_baseline_refuses(short: Task) -> None:
    problem = short.build(101)
    with pytest.raises(ValueError, match="prodigy stands beside AdamW, not SGD"):
        METHODS["prodigy"](problem, short, "SGD")
    with pytest.raises(ValueError, match="must be one of documented, annealed, got 'linear'"):
        METHODS["schedulefree"](problem, short, "AdamW", recipe="linear")
