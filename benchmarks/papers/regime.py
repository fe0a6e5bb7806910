"""Rates that follow the gradients' variation, compared: which of the candidates is ``RegimeLR``.

"Explainable Learning Rate Regimes for Stochastic Optimization" (2508.13639) describes rates for SGD, SGDM and SignSGD
that follow the variation of the stochastic gradients alone, from second-order methods, with nothing to tune; they
rise when the gradient's norm falls and fall when it rises. Its formula was not available. The candidates here are what
such a description allows, none of them is that paper's algorithm, and the one called ``regime`` is ours.

    python -m benchmarks.papers.regime run       # some three minutes of one core
    python -m benchmarks.papers.regime report    # the table, from the results

Every candidate trains three models with three optimizers, three batch sizes and three first rates, the same batches for
all. The loss on (at most 5,000) training rows after equal updates tells

* efficiency: its ratio to that of the best constant rate of the grid, geometric mean over all tasks and first rates;
* robustness: the ratio of the worst to the best first rate, geometric mean over tasks;
* scalability: the efficiency at each batch size;
* whether it lasts: efficiency and robustness of four times as many updates at the smallest batch, for the better ones.

A loss above ten times that of the untrained model counts as ten times. Below 0.01 a loss counts as 0.01: the training
set is fitted, and ratios beyond would decide alone. The constants of ``regime`` were chosen on runs of digits and a9a
like these, and ``bb1`` and the geometric rates have ``SecantLR``'s limit on growth.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import glyder
from benchmarks.harness.train import updates
from benchmarks.papers.common import PAPERS
from benchmarks.report.markdown import table
from benchmarks.tasks.common import data
from benchmarks.tasks.common.rows import cross_entropy
from benchmarks.tasks.common.task import Batch, Problem

ROWS = 5000
SHORT, LONG = 120, 480
BATCHES = (32, 128, 512)
STARTS = (1e-4, 1e-2, 1.0)
GRID = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
WORST, FITTED = 10.0, 0.01

OPTIMIZERS: dict[str, Callable[[Any, float], torch.optim.Optimizer]] = {
    "SGD": lambda p, lr: torch.optim.SGD(p, lr=lr),
    "SGDM": lambda p, lr: torch.optim.SGD(p, lr=lr, momentum=0.9),
    "SignSGD": lambda p, lr: glyder.SignSGD(p, lr=lr),
}


def mlp(inputs: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(inputs, 32), nn.ReLU(), nn.Linear(32, 10))


TASKS: dict[str, tuple[Callable[[], nn.Module], Callable[[], data.Parts]]] = {
    "digits MLP": (lambda: mlp(64), data.digits),
    "a9a logistic": (lambda: nn.Linear(123, 2), lambda: data.libsvm("a9a")),
    "MNIST MLP": (lambda: mlp(784), data.mnist),
}


class OfGradients:
    """A rate set before each update from this gradient and the one before; by arithmetic on the gradients alone."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer
        self.params = [p for group in optimizer.param_groups for p in group["params"]]
        self.before: Tensor | None = None

    def observe(self, loss: Tensor) -> None:
        grad = torch.cat([p.grad.flatten() for p in self.params])
        if self.before is not None:
            rate = self.rate(self.optimizer.param_groups[0]["lr"], self.before, grad)
            if 0 < rate < math.inf:
                self.optimizer.param_groups[0]["lr"] = rate
        self.before = grad

    def step(self) -> None:
        """Nothing is left to do after an update."""

    def rate(self, rate: float, before: Tensor, now: Tensor) -> float:
        raise NotImplementedError


class Normalised(OfGradients):
    """eta ||g'||/||g||: exactly monotone in the norm, and normalised SGD in the end."""

    def rate(self, rate: float, before: Tensor, now: Tensor) -> float:
        return rate * float(before.norm() / now.norm())


class DualNorm(OfGradients):
    """eta ||g'||_1/||g - g'||_1: the geometric secant in the norms of a sign step."""

    def rate(self, rate: float, before: Tensor, now: Tensor) -> float:
        return rate * float(before.norm(1) / (now - before).norm(1))


@dataclass(frozen=True)
class Candidate:
    """``make(optimizer, model)``: a scheduler, an :class:`OfGradients`, or None for a constant rate."""

    formula: str
    make: Callable[[torch.optim.Optimizer, nn.Module], Any]
    passes: int = 0
    starts: tuple[float, ...] = STARTS
    optimizers: tuple[str, ...] = tuple(OPTIMIZERS)
    long: bool = False


CANDIDATES = {
    "constant": Candidate("first rate", lambda o, m: None, starts=GRID, long=True),
    "normalised": Candidate("eta norm(g')/norm(g)", lambda o, m: Normalised(o)),
    "dual norm": Candidate("eta norm1(g')/norm1(g - g')", lambda o, m: DualNorm(o), optimizers=("SignSGD",)),
    "geometric": Candidate("norm(s)/norm(y), two batches", lambda o, m: glyder.SecantLR(o, form="geometric")),
    "geometric, same batch": Candidate(
        "norm(s)/norm(y), one batch", lambda o, m: glyder.SecantLR(o, m, form="geometric"), 3, long=True
    ),
    "bb1": Candidate("norm(s)^2/<s, y>, two batches", lambda o, m: glyder.SecantLR(o), long=True),
    "bb1, same batch": Candidate("norm(s)^2/<s, y>, one batch", lambda o, m: glyder.SecantLR(o, m), 3),
    "regime": Candidate("geometric mean of bb1, two batches", lambda o, m: glyder.RegimeLR(o), long=True),
}


def train(
    candidate: Candidate, workload: str, optimizer: str, batch: int, start: float, steps: int
) -> tuple[float, float]:
    """The loss of the trained model, and the last rate."""
    make_model, parts = TASKS[workload]
    x, y = parts()["train"]
    torch.manual_seed(0)
    model = make_model()
    opt = OPTIMIZERS[optimizer](model.parameters(), start)
    rule = candidate.make(opt, model)
    generator = torch.Generator().manual_seed(1)

    def whole() -> float:
        with torch.no_grad():
            return float(F.cross_entropy(model(x[:ROWS]), y[:ROWS]))

    def drawn() -> Iterator[Batch]:
        while True:
            rows = torch.randint(len(y), (batch,), generator=generator)
            yield x[rows], y[rows]

    first = whole()
    problem = Problem(model, cross_entropy, drawn(), lambda model, part: {"loss": whole()})
    for _ in updates(problem, opt, rule, steps, by_closure=candidate.passes > 0):
        pass
    last = whole()
    return last if last < WORST * first else WORST * first, float(opt.param_groups[0]["lr"])


def run() -> None:
    torch.set_num_threads(1)
    begun, rows = time.process_time(), []
    for name, candidate in CANDIDATES.items():
        tasks = [(SHORT, batch) for batch in BATCHES] + [(LONG, BATCHES[0])] * candidate.long
        cases = itertools.product(TASKS, candidate.optimizers, tasks, candidate.starts)
        for workload, optimizer, (steps, batch), start in cases:
            loss, rate = train(candidate, workload, optimizer, batch, start, steps)
            rows.append([name, workload, optimizer, batch, steps, start, float(f"{loss:.6g}"), float(f"{rate:.3g}")])
        print(f"{name}: {time.process_time() - begun:.0f} s of processor time so far", flush=True)
    fields = ["method", "workload", "optimizer", "batch", "updates", "first rate", "loss", "last rate"]
    about = {"rows": ROWS, "torch": torch.__version__, "seconds": round(time.process_time() - begun)}
    lines = ",\n".join(json.dumps(row) for row in rows)
    PAPERS.mkdir(parents=True, exist_ok=True)
    text = f'{{"about": {json.dumps(about)},\n"fields": {json.dumps(fields)},\n"runs": [\n{lines}\n]}}\n'
    (PAPERS / "regime.json").write_text(text)
    report()


def mean(ratios: Iterable[float]) -> str:
    logs = [math.log(r) for r in ratios]
    return f"{math.exp(math.fsum(logs) / len(logs)):.2f}" if logs else ""


def report() -> None:
    saved = json.loads((PAPERS / "regime.json").read_text())
    losses: dict[str, dict[tuple[str, str, int, int], list[float]]] = {}
    for method, workload, optimizer, batch, steps, _, loss, _ in saved["runs"]:
        losses.setdefault(method, {}).setdefault((workload, optimizer, batch, steps), []).append(max(loss, FITTED))
    best = {task: min(values) for task, values in losses["constant"].items()}
    head = ["method", "formula", "passes", "efficiency", *OPTIMIZERS, *(f"batch {b}" for b in BATCHES)]
    head += ["robustness", "worst", f"{LONG} updates, batch {BATCHES[0]}", "robustness there"]
    rows = []
    for name, tasks in losses.items():
        ratios = {task: [loss / best[task] for loss in values] for task, values in tasks.items()}
        short, long = ({t: r for t, r in ratios.items() if t[3] == steps} for steps in (SHORT, LONG))
        cells = [mean(itertools.chain(*short.values()))]
        cells += [mean(r for task, values in short.items() if task[1] == o for r in values) for o in OPTIMIZERS]
        cells += [mean(r for task, values in short.items() if task[2] == b for r in values) for b in BATCHES]
        cells += [mean(max(r) / min(r) for r in short.values()), f"{max(map(max, short.values())):.0f}"]
        cells += [mean(itertools.chain(*long.values())), mean(max(r) / min(r) for r in long.values())]
        rows.append([name, CANDIDATES[name].formula, str(CANDIDATES[name].passes), *cells])
    about = saved["about"]
    text = f"""# Candidates for a rate that follows the gradients' variation

Made by `python -m benchmarks.papers.regime run` ({about["seconds"]} s of one core, torch {about["torch"]}, one seed).
The loss after {SHORT} updates over that of the best constant rate of {", ".join(map(str, GRID))}: geometric
means over digits MLP, a9a logistic regression and MNIST MLP, three optimizers, three batch sizes and the first rates
{", ".join(map(str, STARTS))} (`constant`: the whole grid, so that its row is what an untuned constant rate is worth).
`robustness`: worst over best first rate; `worst`: the largest ratio met. 1 is as good as tuned, and smaller is better.
s and y are the differences of parameters and gradients, g' is the gradient before; `passes` are the forward passes that
an update costs more. None of them is the algorithm of 2508.13639, whose formula was not available; `regime` is ours.

"""
    (PAPERS / "regime.md").write_text(text + table(head, rows) + "\n")
    print(table(head, rows))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["run", "report"])
    {"run": run, "report": report}[parser.parse_args().what]()
