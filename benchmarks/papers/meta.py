"""The shipped net of ``MetaLR`` next to a grid of constant rates, on tasks that it was not trained on.

    python -m benchmarks.papers.meta            about two minutes of one core; writes results/papers/meta.{json,md}
    python -m benchmarks.papers.meta --dry      a few seconds, writes nothing

Plain SGD everywhere. Counted is the loss on held-out data after the last update, and its accuracy; the best constant
rate of the grid is picked with hindsight, by the mean loss over the same seeds. ``digits MLP`` is the kind of task
that the net was trained on, the others are not.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from sklearn.datasets import load_breast_cancer, load_digits, load_wine
from torch import Tensor, nn

import glyder
from benchmarks.harness.train import updates
from benchmarks.papers.common import PAPERS
from benchmarks.report.markdown import table
from benchmarks.tasks.common.rows import cross_entropy, score_labels
from benchmarks.tasks.common.task import Batch, Problem

GRID = [2.0**k for k in range(-8, 2)]
SEEDS, UPDATES = range(3), 1000


@dataclass
class Task:
    name: str
    load: Callable[..., tuple[object, object]] | None
    model: Callable[[], nn.Module]
    classes: int
    batch: int
    scale: bool
    """Whether inputs are standardised; else they are divided by their largest value."""

    def data(self) -> tuple[Tensor, Tensor]:
        draws = torch.Generator().manual_seed(0)
        if self.load is None:  # a teacher network, one label in ten wrong
            x = torch.randn(3000, 20, generator=draws)
            hidden = torch.tanh(x @ torch.randn(20, 30, generator=draws) / 3)
            y = (hidden @ torch.randn(30, self.classes, generator=draws)).argmax(1)
            wrong = torch.rand(len(y), generator=draws) < 0.1
            return x, torch.where(wrong, torch.randint(self.classes, y.shape, generator=draws), y)
        x, y = (torch.tensor(a) for a in self.load(return_X_y=True))
        order = torch.randperm(len(y), generator=draws)
        x = x[order].float()
        return ((x - x.mean(0)) / x.std(0) if self.scale else x / x.max()), y[order].long()


def mlp(*sizes: int) -> nn.Module:
    layers: list[nn.Module] = []
    for rows, columns in itertools.pairwise(sizes):
        layers += [nn.Linear(rows, columns), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def convolutions() -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        nn.Conv2d(1, 8, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(256, 10),
    )


TASKS = [
    Task("digits MLP", load_digits, lambda: mlp(64, 32, 10), 10, 64, False),
    Task("digits convolutions", load_digits, convolutions, 10, 64, False),
    Task("breast cancer MLP", load_breast_cancer, lambda: mlp(30, 32, 2), 2, 32, True),
    Task("wine softmax regression", load_wine, lambda: mlp(13, 3), 3, 16, True),
    Task("noisy teacher, 3 hidden layers", None, lambda: mlp(20, 64, 64, 64, 5), 5, 64, True),
]


def run(task: Task, rate: float | None, seed: int, steps: int) -> tuple[float, float]:
    """Loss and accuracy on rows that are not trained on; ``rate`` None: MetaLR."""
    x, y = task.data()
    held = len(y) // 3
    torch.manual_seed(seed)
    model = task.model()
    optimizer = torch.optim.SGD(model.parameters(), lr=rate or 0.1)
    scheduler = None if rate else glyder.MetaLR(optimizer, classes=task.classes)
    draws = torch.Generator().manual_seed(seed)

    def drawn() -> Iterator[Batch]:
        while True:
            at = torch.randint(len(y) - held, (task.batch,), generator=draws)
            yield x[at], y[at]

    problem = Problem(model, cross_entropy, drawn(), lambda model, part: score_labels(model, (x[-held:], y[-held:])))
    for _ in updates(problem, optimizer, scheduler, steps):
        pass
    score = problem.evaluate(model, "test")
    return score["loss"] if math.isfinite(score["loss"]) else math.inf, 1 - score["error"]


def compare(task: Task, steps: int, seeds: range, grid: list[float]) -> dict[str, Any]:
    def mean(rate: float | None) -> tuple[float, float]:
        losses, accuracies = zip(*(run(task, rate, seed, steps) for seed in seeds), strict=True)
        return statistics.fmean(losses), statistics.fmean(accuracies)

    constant = {rate: mean(rate) for rate in grid}
    best = min(grid, key=lambda rate: constant[rate][0])
    meta = mean(None)
    return {
        "workload": task.name,
        "meta": meta,
        "best_rate": best,
        "best": constant[best],
        "better_than": sum(meta[0] <= loss for loss, _ in constant.values()),
        "grid": [[rate, *constant[rate]] for rate in grid],
    }


def tabled(rows: list[dict[str, Any]]) -> str:
    head = ["task", "MetaLR: loss, accuracy", "best constant rate: loss, accuracy", "its rate", "constant rates beaten"]
    return table(
        head,
        (
            [
                r["workload"], *(f"{loss:.3f}, {accuracy:.3f}" for loss, accuracy in (r["meta"], r["best"])),
                f"{r['best_rate']:g}", f"{r['better_than']} of {len(r['grid'])}",
            ]
            for r in rows
        ),
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dry", action="store_true", help="one seed, 20 updates, two rates; nothing written")
    dry = parser.parse_args().dry
    torch.set_num_threads(1)
    began = time.process_time()
    how = (20, range(1), GRID[:2]) if dry else (UPDATES, SEEDS, GRID)
    rows = [compare(task, *how) for task in TASKS]
    print(tabled(rows), f"{time.process_time() - began:.0f} s of processor time", sep="\n")
    if not dry:
        PAPERS.mkdir(parents=True, exist_ok=True)
        about = __doc__.split("everywhere.")[1].strip()
        how_long = f"Plain SGD, {UPDATES} updates, mean of {len(SEEDS)} seeds."
        title = f"# MetaLR on other tasks than it was trained on\n\n{how_long}\n"
        (PAPERS / "meta.md").write_text(f"{title}{about}\n\n{tabled(rows)}\n", encoding="utf-8")
        (PAPERS / "meta.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
