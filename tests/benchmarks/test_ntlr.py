"""The published runs of two rates that move themselves: every arm trains on made data, the report counts as it says."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import glyder
from benchmarks.harness.store import Store
from benchmarks.harness.train import POINTS
from benchmarks.papers import ntlr
from benchmarks.papers import ntlr_runs as runs
from benchmarks.papers.common import Trial
from benchmarks.tasks.common import data
from benchmarks.tasks.common.rows import classification
from benchmarks.tasks.common.task import Problem

EPOCH = 20
"""Updates, so that the shortest window, a twentieth, is one update."""


def made(seed: int, batch: int) -> tuple[Problem, int]:
    x = torch.randn(EPOCH * batch, 6, generator=torch.Generator().manual_seed(0))
    part = (x, (x[:, 0] > 0).long())
    net = lambda: nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2))  # noqa: E731
    return classification(net, {"train": part, "test": part}, batch, seed), EPOCH


def arms() -> list[runs.Arm]:
    """Each once, whatever its start."""
    every = [
        *runs.start_arms(),
        *runs.curve_arms(),
        *runs.baseline_arms(),
        *runs.windowed_arms(),
        *runs.hypergradient_arms(),
        *runs.translator_arms(),
    ]
    return list({json.dumps([a.optimizer, a.rule, a.options], sort_keys=True): a for a in every}.values())


def short(arm: runs.Arm, steps: int = 4, **options: Any) -> Trial:
    trial = arm.trial("made", 1, 8, steps)
    return Trial("made", 1, trial.options | options)


@pytest.fixture
def on_made_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(runs.TASKS, "made", made)


@pytest.mark.usefixtures("on_made_data")
@pytest.mark.parametrize("arm", arms(), ids=lambda a: f"{a.name} {a.options}")
def test_every_arm_moves_its_rate_as_it_should(arm: runs.Arm) -> None:
    window = int(arm.options.get("fraction", 0.2) * EPOCH)
    steps = 8 * window  # of few windows all may be of momentum that builds up, and TLR's code waits for three
    line = json.loads(json.dumps(runs.train(short(arm, steps, lr=0.1))))
    assert math.isfinite(line["loss"])
    assert 0 <= line["test"]["error"] <= 1
    assert len(line["losses"]) == len(line["rates"]) == min(steps, POINTS)
    assert line["rate"] > 0
    moved = any(rate != line["rates"][0] for rate in line["rates"]) or line["rate"] != 0.1
    assert moved == (arm.options.get("anneal") != "constant")


@pytest.mark.usefixtures("on_made_data")
def test_a_run_that_blows_up_has_no_loss() -> None:
    line = runs.train(short(runs.Arm("SGD", "SGD", 1e38), steps=20))
    assert line["loss"] is None
    assert line["test"] == {}


def test_additive_windows_are_averages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums over K updates on either side of a product, hence 1/K^2."""
    monkeypatch.setattr(glyder, "HypergradientLR", lambda optimizer, **options: options)
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(2))], lr=0.1)
    for form, beta in (("additive", 0.5 / 16), ("multiplicative", 0.5)):
        made, _ = runs.windowed(optimizer, nn.Linear(1, 1), 9, 20, form=form, fraction=0.2, beta=0.5)
        assert made == {"every": 4, "beta": beta, "form": form}


def test_runs_are_planned_once_with_whole_windows() -> None:
    trials = runs.trials()
    assert len({t.key for t in trials}) == len(trials)
    shares = [t.options["options"]["fraction"] for t in trials if t.experiment == "wrn"]
    assert min(shares) * (runs.WRN_ROWS // max(*runs.BATCHES, runs.TOO_LARGE)) >= 1


def test_report_counts_a_lost_run_as_guessing(tmp_path: Path) -> None:
    store = Store(tmp_path / "ntlr.jsonl")
    arm = runs.Arm("SGD", "SGD 0.8", 0.1)
    lines = ntlr.mnist(store)
    assert lines.loss(arm) == "-"
    for seed, loss in ((1, 0.3), (2, None)):
        trial = arm.trial("mnist", seed, 128, runs.MNIST_STEPS)
        test = {} if loss is None else {"loss": 0.2, "error": 0.05}
        store.add(
            {"key": trial.key, "loss": loss, "test": test, "rate": 0.1, "losses": [1.0, loss], "rates": [0.1] * 2}
        )
    assert lines.losses(arm) == [0.3, math.log(10)]
    assert lines.loss(arm) == f"{(0.3 + math.log(10)) / 2:.3f} ± {(math.log(10) - 0.3) / 2:.3f} (1 diverged)"
    assert lines.score(arm, "error") == "0.050"
    ntlr.report(store, tmp_path)
    text = (tmp_path / "ntlr.md").read_text()
    assert "1.301 ± 1.001" in text
    assert (tmp_path / "ntlr.png").stat().st_size > 1000


def drawn(*parts: tuple[int, ...], highest: int = 10) -> dict[str, tuple[torch.Tensor, ...]]:
    """Whole numbers in the shapes of the data."""
    made = tuple(torch.randint(highest, shape) for shape in parts)
    return dict.fromkeys(("train", "validation", "test"), made)


@pytest.fixture
def drawn_data(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """64 rows of every data set."""
    for name, shape in (("mnist", (64, 1, 28, 28)), ("cifar", (64, 3, 32, 32))):
        made = {part: (x.float(), y) for part, (x, y) in drawn(shape, (64,)).items()}
        monkeypatch.setattr(data, name, lambda made=made, **sizes: made)
    monkeypatch.setattr(data, "multi30k", lambda words: drawn((64, 20), (64, 22), highest=words))
    runs.whole_mnist.cache_clear()
    yield
    runs.whole_mnist.cache_clear()


@pytest.mark.usefixtures("drawn_data")
@pytest.mark.parametrize("task", runs.TASKS)
def test_tasks_are_those_of_the_papers(task: str) -> None:
    batch = runs.MULTI30K_BATCH if task == "multi30k" else 64
    built, epoch = runs.TASKS[task](1, batch)
    widths = [m.out_features for m in built.model.modules() if isinstance(m, nn.Linear)]
    expected = {"mnist": ([512, 256, 10], 937), "hd-mnist": ([1000, 1000, 10], 937), "wrn": ([10], 64)}
    if task in expected:
        assert (widths, epoch) == expected[task]
    x = next(built.batches)
    built.loss(built.model, x).backward()
    assert all(p.grad is not None for p in built.model.parameters())
