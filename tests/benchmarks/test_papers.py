"""What the papers' experiments share: the loop, with and without a closure, and lines that are not made twice."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import glyder
from benchmarks.harness.store import Store
from benchmarks.harness.train import updates
from benchmarks.papers.common import Trial, complete
from benchmarks.tasks.common.task import Problem


def task(rate_of_growth: float = 0.0) -> Problem:
    """A line fitted to points; inputs may grow from batch to batch until the loss overflows."""
    torch.manual_seed(0)
    model = nn.Linear(3, 1)

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        generator = torch.Generator().manual_seed(1)
        t = 0
        while True:
            x = torch.randn(8, 3, generator=generator) * math.exp(rate_of_growth * t)
            yield x, x.sum(1, keepdim=True)
            t += 1

    def loss(model: nn.Module, batch: Any) -> Tensor:
        return ((model(batch[0]) - batch[1]) ** 2).mean()

    return Problem(model, loss, batches(), lambda model, part: {"loss": 0.0})


def trained(by_closure: bool) -> tuple[list[float], list[float], glyder.HypergradientLR]:
    made = task()
    optimizer = torch.optim.SGD(made.model.parameters(), lr=0.01)
    scheduler = glyder.HypergradientLR(optimizer, beta=1e-3)
    losses = list(updates(made, optimizer, scheduler, 30, by_closure=by_closure))
    return losses, [float(p.detach().sum()) for p in made.model.parameters()], scheduler


def test_closure_and_plain_loop_train_to_the_same_bits() -> None:
    plain, closed = trained(False), trained(True)
    assert plain[:2] == closed[:2]
    assert len(plain[0]) == 30 == plain[2].updates == closed[2].updates
    assert plain[0][-1] < 0.5 * plain[0][0]


def test_a_scheduler_that_observes_sees_a_loss_once() -> None:
    """Before the update."""
    seen: list[tuple[float, float]] = []
    made = task()
    optimizer = torch.optim.SGD(made.model.parameters(), lr=0.01)

    class Observer:
        def observe(self, loss: Tensor) -> None:
            seen.append((float(loss.detach()), float(made.model.weight.detach().sum())))

        def step(self) -> None:
            assert seen[-1][1] != float(made.model.weight.detach().sum())

    assert list(updates(made, optimizer, Observer(), 10)) == [loss for loss, _ in seen]


def test_training_ends_after_a_loss_that_is_not_finite() -> None:
    made = task(rate_of_growth=20.0)
    optimizer = torch.optim.SGD(made.model.parameters(), lr=1.0)
    losses = list(updates(made, optimizer, glyder.AnnealedLR(optimizer, 50), 50))
    assert len(losses) < 50
    assert [math.isfinite(v) for v in losses] == [True] * (len(losses) - 1) + [False]


def test_what_is_stored_is_not_run_again(tmp_path: Path) -> None:
    trials = [Trial("made", seed, {"rate": rate}) for seed in (1, 2) for rate in (0.1, 1.0)]
    ran: list[Trial] = []

    def does(trial: Trial) -> dict[str, Any]:
        if len(ran) == 3:
            raise KeyboardInterrupt
        ran.append(trial)
        return {"final": trial.seed * trial.options["rate"], "threads": torch.get_num_threads()}

    path, threads = tmp_path / "deep" / "lines.jsonl", torch.get_num_threads()
    with pytest.raises(KeyboardInterrupt):
        complete(trials, Store(path), does)
    first = path.read_bytes()
    ran.clear()
    lines = complete(trials, Store(path), does)
    assert ran == trials[3:]
    assert path.read_bytes().startswith(first)
    assert [line["final"] for line in lines] == [0.1, 1.0, 0.2, 2.0]
    assert {line["threads"] for line in lines} == {1}
    assert torch.get_num_threads() == threads
    stored = json.loads(path.read_text().splitlines()[0])
    assert stored["seed"] == 1
    assert {"glyder", "torch", "numpy", "python", "machine", "processor", "commit"} <= stored["environment"].keys()
