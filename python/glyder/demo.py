"""``python -m glyder demo``: real networks, no learning rate given, next to the best of a tuned grid.

The rival is strong on purpose: the same schedule, warm-up and linear decay, its peak the best of seven half a decade
apart, chosen on a validation split over several seeds. Both are then run on fresh seeds with the same initial weights
and the same order of the data, and compared on the test split.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glyder._checks import measurement_phase
from glyder.schedulers.annealed import AnnealedLR
from glyder.schedulers.glyder import GlyderLR

BATCH = 32
STEPS = 600
NOISE = 0.3
TUNING_SEEDS = (101, 102)
HALF_DECADES = tuple(10 ** (k / 2) for k in range(-3, 4))

# Middle of the grid of seven peaks per optimizer; the best of it lies inside for every model (the table says so).
OPTIMIZERS: dict[str, tuple[Callable[..., torch.optim.Optimizer], float]] = {
    "AdamW": (torch.optim.AdamW, 1e-2),
    "SGD": (torch.optim.SGD, 1.0),
    "SGD+momentum": (functools.partial(torch.optim.SGD, momentum=0.9), 1e-1),
}


def mlp() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


def conv() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1, stride=2, bias=False), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Flatten(), nn.Linear(512, 10),
    )  # fmt: skip


MODELS = {"MLP": mlp, "conv": conv}


@dataclass(frozen=True)
class Run:
    """One training run: which network and optimizer, from which seed, with a tuned peak or (None) with glyder."""

    model: str
    optimizer: str
    seed: int
    peak: float | None
    steps: int


@dataclass(frozen=True)
class Result:
    validation: float
    test: float
    seconds: float
    forwards: float
    copies: int
    peak: float
    losses: list[float]
    rates: list[float]


@functools.cache
def digits() -> dict[str, tuple[Tensor, Tensor]]:
    """scikit-learn's 1,797 digits of 8 x 8 pixels under pixel noise: 797 to train, 500 to choose the peak, 500 to
    compare, each in several noisy copies.

    Without the noise a small net errs on a handful of test digits, and they alone would decide the comparison.
    """
    from sklearn.datasets import load_digits

    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.target))
    x = torch.tensor(data.images[order], dtype=torch.float32)[:, None] / 16
    y = torch.tensor(data.target[order])
    generator = torch.Generator().manual_seed(0)
    parts = {}
    for name, part, copies in (
        ("train", slice(0, 797), 20),
        ("validation", slice(797, 1297), 4),
        ("test", slice(1297, None), 4),
    ):
        clean, label = x[part].repeat(copies, 1, 1, 1), y[part].repeat(copies)
        parts[name] = clean + NOISE * torch.randn(clean.shape, generator=generator), label
    return parts


def batches(count: int, steps: int, seed: int) -> Iterator[Tensor]:
    """Indices of ``steps`` batches: shuffled epochs, one after the other."""
    generator = torch.Generator().manual_seed(seed)
    left = torch.empty(0, dtype=torch.int64)
    for _ in range(steps):
        if len(left) < BATCH:
            left = torch.randperm(count, generator=generator)
        yield left[:BATCH]
        left = left[BATCH:]


def evaluate(model: nn.Module, part: tuple[Tensor, Tensor]) -> float:
    """Mean cross-entropy; a run that diverged counts as infinite."""
    model.eval()
    with torch.no_grad():
        loss = float(F.cross_entropy(model(part[0]), part[1]))
    return loss if math.isfinite(loss) else math.inf


def train(run: Run) -> Result:
    """One run on one thread. The loop is that of the README; only the scheduler's name differs."""
    torch.set_num_threads(1)
    parts = digits()
    x, y = parts["train"]
    torch.manual_seed(run.seed)
    model = MODELS[run.model]()
    build, _ = OPTIMIZERS[run.optimizer]
    started = time.perf_counter()
    scheduler: GlyderLR | AnnealedLR
    if run.peak is None:
        optimizer = build(model.parameters())
        scheduler = GlyderLR(optimizer, total_steps=run.steps)
    else:
        optimizer = build(model.parameters(), lr=run.peak)
        scheduler = AnnealedLR(optimizer, run.steps, "linear", warmup=measurement_phase(run.steps))
    losses, rates = [], []
    for batch in batches(len(y), run.steps, run.seed):
        loss = F.cross_entropy(model(x[batch]), y[batch])
        loss.backward()
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if run.peak is None:
            rates[-1] = optimizer.param_groups[0]["lr"]  # glyder sets the rate inside of the update
        scheduler.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    seconds = time.perf_counter() - started
    forwards, copies = scheduler.cost if isinstance(scheduler, GlyderLR) else (0.0, 0)
    peak = scheduler.peak_lr if isinstance(scheduler, GlyderLR) else float(run.peak or 0)
    found, kept = (evaluate(model, parts[part]) for part in ("validation", "test"))
    return Result(found, kept, seconds, forwards, copies, peak, losses, rates)


def grid(optimizer: str) -> list[float]:
    """Seven peaks, half a decade apart."""
    return [OPTIMIZERS[optimizer][1] * factor for factor in HALF_DECADES]


@dataclass(frozen=True)
class Row:
    """One line of the table. Losses are means over seeds; ``ratio`` is the mean of glyder/tuned over paired seeds, with
    a 95 % interval (Student's t of the log-ratios). Costs are in training steps: a step is one forward and one
    backward, and a backward counts as two forwards."""

    model: str
    optimizer: str
    glyder_loss: float
    tuned_loss: float
    ratio: float
    ratio_low: float
    ratio_high: float
    tuned_peak: float
    peak_inside: bool
    glyder_peak: float
    glyder_cost: float
    tuned_cost: float
    glyder_seconds: float
    tuned_seconds: float
    seconds: float


def interval(ratios: np.ndarray) -> tuple[float, float]:
    """95 % interval of the mean log-ratio, as ratios."""
    from scipy.stats import t

    logs = np.log(ratios)
    if len(logs) < 2:
        return math.nan, math.nan
    half = t.ppf(0.975, len(logs) - 1) * logs.std(ddof=1) / math.sqrt(len(logs))
    return float(np.exp(logs.mean() - half)), float(np.exp(logs.mean() + half))


def copy_cost(model: str) -> float:
    """Cost of one copy of the parameters, in training steps, measured."""
    from glyder.vectors.inner_products import snapshot

    torch.set_num_threads(1)
    x, y = digits()["train"]
    network = MODELS[model]()
    parameters = list(network.parameters())

    def step() -> None:
        F.cross_entropy(network(x[:BATCH]), y[:BATCH]).backward()

    def fastest(work: Any) -> float:
        times = []
        for _ in range(50):
            started = time.perf_counter()
            work()
            times.append(time.perf_counter() - started)
        return min(times)

    step()
    return fastest(lambda: snapshot(parameters)) / fastest(step)


def row(cell: tuple[str, str], results: dict[Run, Result], steps: int, peak: float) -> Row:
    """Compare glyder with the tuned peak over the paired seeds of one cell."""
    model, optimizer = cell
    seeds = [run.seed for run in results if (run.model, run.optimizer) == cell and run.peak is None]
    ours, tuned = ([results[Run(*cell, seed, p, steps)] for seed in seeds] for p in (None, peak))
    ratios = np.array([g.test / t.test for g, t in zip(ours, tuned, strict=True)])
    copy = copy_cost(model)
    return Row(
        model=model,
        optimizer=optimizer,
        glyder_loss=float(np.mean([r.test for r in ours])),
        tuned_loss=float(np.mean([r.test for r in tuned])),
        ratio=float(ratios.mean()),
        ratio_low=interval(ratios)[0],
        ratio_high=interval(ratios)[1],
        tuned_peak=peak,
        peak_inside=peak not in (grid(optimizer)[0], grid(optimizer)[-1]),
        glyder_peak=float(np.median([r.peak for r in ours])),
        glyder_cost=steps + float(np.mean([r.forwards / 3 + r.copies * copy for r in ours])),
        tuned_cost=float(steps * len(HALF_DECADES)),
        glyder_seconds=float(np.mean([r.seconds for r in ours])),
        tuned_seconds=float(np.mean([r.seconds for r in tuned]) * len(HALF_DECADES)),
        seconds=sum(result.seconds for run, result in results.items() if (run.model, run.optimizer) == cell),
    )


def run_all(runs: Iterable[Run], jobs: int, label: str) -> dict[Run, Result]:
    """Run them side by side, one thread each, with a progress bar on standard error."""
    from tqdm import tqdm

    runs = list(runs)
    # Fresh processes: a forked one may inherit locks of torch's threads.
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        done = pool.imap(train, runs)
        return dict(zip(runs, tqdm(done, label, total=len(runs), file=sys.stderr, unit="run"), strict=True))


def compare(cells: list[tuple[str, str]], seeds: int, steps: int, jobs: int) -> tuple[list[Row], dict[Run, Result]]:
    """Choose the peaks on the tuning seeds, then run glyder and the chosen peaks on fresh ones."""
    tuning = run_all(
        (Run(*cell, seed, peak, steps) for cell in cells for seed in TUNING_SEEDS for peak in grid(cell[1])),
        jobs,
        "tuning the rival",
    )

    def validation(cell: tuple[str, str], peak: float) -> float:
        return float(np.mean([tuning[Run(*cell, seed, peak, steps)].validation for seed in TUNING_SEEDS]))

    chosen = {cell: min(grid(cell[1]), key=functools.partial(validation, cell)) for cell in cells}
    results = run_all(
        (Run(*cell, seed, peak, steps) for cell in cells for seed in range(seeds) for peak in (None, chosen[cell])),
        jobs,
        "comparing       ",
    )
    return [row(cell, results, steps, chosen[cell]) for cell in cells], results


def table(rows: list[Row]) -> str:
    """The comparison as text."""
    head = f"{'model':6} {'optimizer':13} {'glyder':>8} {'tuned':>8} {'ratio':>6} {'95 % interval':>15}"
    head += f" {'peak: glyder':>13} {'tuned':>8} {'cost: glyder':>13} {'tuned':>7}"
    lines = [head, "-" * len(head)]
    for r in rows:
        edge = " " if r.peak_inside else "*"
        lines.append(
            f"{r.model:6} {r.optimizer:13} {r.glyder_loss:8.4f} {r.tuned_loss:8.4f} {r.ratio:6.3f} "
            f"{f'{r.ratio_low:.3f} - {r.ratio_high:.3f}':>15} {r.glyder_peak:13.2g} {r.tuned_peak:7.2g}{edge} "
            f"{r.glyder_cost:13.0f} {r.tuned_cost:7.0f}"
        )
    lines += [
        "",
        "Test losses, means over paired seeds; ratio = glyder/tuned, below 1 is better than the tuned grid.",
        "Cost in training steps, with glyder's extra forwards and copies, and all seven peaks of the grid.",
    ]
    if not all(r.peak_inside for r in rows):
        lines.append("* the best peak lies at the edge of its grid: the rival may not be tuned to the end.")
    return "\n".join(lines)


def picture(rows: list[Row], results: dict[Run, Result], steps: int, path: str) -> None:
    """Loss and learning-rate curves of every cell, glyder next to the tuned schedule."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    models = list(dict.fromkeys(r.model for r in rows))
    optimizers = list(dict.fromkeys(r.optimizer for r in rows))
    shape = (2 * len(models), len(optimizers))
    figure, axes = plt.subplots(*shape, figsize=(4 * shape[1], 2.4 * shape[0]), squeeze=False, sharex=True)
    for r in rows:
        line, column = 2 * models.index(r.model), optimizers.index(r.optimizer)
        lines = ((r.tuned_peak, f"tuned, {r.tuned_peak:.2g}", "tab:gray"), (None, "glyder", "tab:red"))
        for peak, name, color in lines:
            found = [v for k, v in results.items() if (k.model, k.optimizer, k.peak) == (r.model, r.optimizer, peak)]
            losses = np.mean([_smoothed(np.array(f.losses)) for f in found], axis=0)
            axes[line, column].plot(losses, color=color, label=name)
            axes[line + 1, column].plot(np.median([f.rates for f in found], axis=0), color=color)
        axes[line, column].set_title(f"{r.model}, {r.optimizer}: test loss ratio {r.ratio:.2f}", fontsize=10)
        for axis in (axes[line, column], axes[line + 1, column]):
            axis.set_yscale("log")
            axis.grid(alpha=0.3)
        top = 2 * max(max(f.rates) for k, f in results.items() if (k.model, k.optimizer) == (r.model, r.optimizer))
        axes[line + 1, column].set_ylim(top / 1e4, top)
        axes[line, column].legend(fontsize=8)
    for line in range(shape[0]):
        axes[line, 0].set_ylabel("learning rate" if line % 2 else "training loss")
    for axis in axes[-1]:
        axis.set_xlabel("update")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _smoothed(losses: np.ndarray, span: int = 15) -> np.ndarray:
    """Running mean over ``span`` updates, shorter at the start."""
    total = np.concatenate([[0.0], np.cumsum(losses)])
    ends = np.arange(1, len(losses) + 1)
    starts = np.maximum(0, ends - span)
    return np.asarray((total[ends] - total[starts]) / (ends - starts))


def main(arguments: argparse.Namespace) -> int:
    """Run the demo. Returns the exit status."""
    try:
        import matplotlib  # noqa: F401
        import sklearn  # noqa: F401
        import tqdm  # noqa: F401
    except ImportError as error:
        print(f"the demo needs {error.name}: pip install 'glyder[demo]'", file=sys.stderr)
        return 2
    steps = STEPS if arguments.steps is None else arguments.steps
    cells = [(m, o) for m in MODELS for o in OPTIMIZERS if arguments.only.lower() in f"{m} {o}".lower()]
    if not cells or arguments.seeds < 1 or steps < 1:
        known = ", ".join(f"{m} {o}" for m in MODELS for o in OPTIMIZERS)
        print(f"nothing to run: --only must be part of one of {known}; --seeds and --steps at least 1", file=sys.stderr)
        return 2
    started = time.perf_counter()
    rows, results = compare(cells, arguments.seeds, steps, arguments.jobs or os.cpu_count() or 1)
    picture(rows, results, steps, arguments.picture)
    if arguments.json:
        for r in rows:
            print(json.dumps(asdict(r)))
    else:
        print(table(rows))
        seeds = f"seeds 0-{arguments.seeds - 1}, peaks chosen on seeds {', '.join(map(str, TUNING_SEEDS))}"
        print(f"{time.perf_counter() - started:.0f} s in all; {seeds}; picture in {Path(arguments.picture).resolve()}")
    return 0
