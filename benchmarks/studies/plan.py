"""The studies that suites are made of, and which tasks they are over."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from benchmarks.harness.run import EVALUATION_SEEDS, TUNING_SEEDS, Run
from benchmarks.harness.statistics import geometric
from benchmarks.harness.store import Store
from benchmarks.harness.tuning import Study, around, loss_of, middle, peak, run_at, search, tune
from benchmarks.methods.baselines import RECIPES
from benchmarks.methods.optimizers import OPTIMIZERS
from benchmarks.tasks.common.catalogue import tasks
from benchmarks.tasks.common.task import Task

PEAKS = {"peak 3e-4": 3e-4, "peak 1e-3": 1e-3}
"""What AdamW is run with where nothing is tuned."""
BESIDE = ("cosine", *PEAKS, "prodigy", "schedulefree")
"""What stands beside the tuned schedule and glyder, with AdamW."""
BEST = "best fixed peak"
"""And with every optimizer."""
STARTS = (1e-9, 1e-3, 10.0)
"""Rates that the optimizer is made with."""


def compare(task: Task, optimizer: str, store: Store) -> Study:
    """Tune, then the tuned schedule and glyder on the same evaluation seeds; returns the :class:`Peak`."""
    found = yield from tune(task, optimizer, store)
    yield [
        run
        for seed in EVALUATION_SEEDS
        for run in (Run(task.name, optimizer, "tuned", seed, found.options), Run(task.name, optimizer, "glyder", seed))
    ]
    return found


def beside(name: str, task: Task, store: Store) -> Study:
    """The study of one of ``BESIDE``; returns its runs on the evaluation seeds."""
    if name == "cosine":
        return cosine(task, store)
    if name in PEAKS:
        return fixed(task, "AdamW", PEAKS[name])
    return best_recipe(task, name, store)


def cosine(task: Task, store: Store) -> Study:
    """A cosine behind the tuned warm-up: of the three peaks around the tuned one, and more while the best is at the
    edge, that which is best on the first tuning seed runs on the evaluation seeds."""
    found = yield from tune(task, "AdamW", store)

    def run(half: int, seed: int) -> Run:
        options = {"peak": peak(half), "warmup": found.warmup, "anneal": "cosine"}
        return Run(task.name, "AdamW", "tuned", seed, options)

    def first(half: int) -> list[Run]:
        return [run(half, TUNING_SEEDS[0])]

    _, best = yield from search(around(found.half), middle(task, "AdamW"), first, store)
    chosen = [run(best, seed) for seed in EVALUATION_SEEDS]
    yield chosen
    return chosen


def best_recipe(task: Task, method: str, store: Store) -> Study:
    """Of a baseline's recipes that which is best on the first tuning seed runs on the evaluation seeds."""
    first = [Run(task.name, "AdamW", method, TUNING_SEEDS[0], {"recipe": recipe}) for recipe in RECIPES[method]]
    yield first
    best = min(first, key=lambda run: loss_of(store[run]))
    chosen = [Run(task.name, "AdamW", method, seed, best.options) for seed in EVALUATION_SEEDS]
    yield chosen
    return chosen


def fixed(task: Task, optimizer: str, rate: float) -> Study:
    """A peak that is not the task's own, 5 % of warm-up, a linear decay, on the evaluation seeds; returns the runs."""
    runs = [Run(task.name, optimizer, "fixed", seed, {"peak": rate}) for seed in EVALUATION_SEEDS]
    yield runs
    return runs


def starts(task: Task, optimizer: str) -> Study:
    """glyder from every starting rate, on the evaluation seeds."""
    yield [Run(task.name, optimizer, "glyder", seed, {"start": start}) for start in STARTS for seed in EVALUATION_SEEDS]


def fixed_peaks(store: Store, known: Mapping[str, Task] | None = None) -> dict[str, float]:
    """One peak for each optimizer: the half-decade whose loss over the tuned one is least on the geometric mean.

    From the first grids of all development tasks, 5 % warm-up; a peak outside of a task's grid counts as its edge. None
    for an optimizer that some task is not tuned with yet: a choice from fewer tasks would be another one.
    """
    found = {}
    known = tasks() if known is None else known
    development = [task for task in known.values() if task.group == "development"]
    for optimizer in OPTIMIZERS:
        grids = [_grid(task, optimizer, store) for task in development if optimizer in task.optimizers]
        if grids and all(grids):
            worse = {
                half: geometric([grid[max(min(grid), min(max(grid), half))] / min(grid.values()) for grid in grids])
                for half in range(-16, 9)
            }
            found[optimizer] = peak(min(worse, key=worse.__getitem__))
    return found


def _grid(task: Task, optimizer: str, store: Store) -> dict[int, float]:
    """Validation loss by half-decade on the first grid, a diverged run as the initial loss."""
    found = {}
    start = middle(task, optimizer)
    for half in range(start - 20, start + 21):
        run = run_at(task, optimizer, half, "5%", TUNING_SEEDS[0])
        if run in store:
            record = store[run]
            found[half] = min(loss_of(record), record["initial"])
    return found


def chosen(suite: str, names: Sequence[str] = (), final: bool = False) -> list[Task]:
    """The tasks of a suite, or of ``names``; held-out ones only with ``final``."""
    known = tasks()
    for name in names:
        if name not in known:
            raise SystemExit(f"no task is called {name!r}; there are {', '.join(known)}")
        if known[name].held_out and not final:
            raise SystemExit(f"{name} is held out: it runs with --final only, and that is logged")
    found = [known[name] for name in names] if names else [c for c in known.values() if suite in c.suites]
    return [c for c in found if final or not c.held_out]


def pairs_of(found: Iterable[Task]) -> list[tuple[Task, str]]:
    return [(task, optimizer) for task in found for optimizer in task.optimizers]
