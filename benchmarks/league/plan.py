"""The studies that suites are made of, and which cells they are over."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmarks.league import optimizers, rivals
from benchmarks.league.resample import geometric
from benchmarks.league.store import Store
from benchmarks.league.train import FRESH_SEEDS, TUNING_SEEDS, Run
from benchmarks.league.tuning import Study, around, loss_of, middle, peak, run_at, search, tune
from benchmarks.league.workload import Cell, cells

PEAKS = {"peak 3e-4": 3e-4, "peak 1e-3": 1e-3}
"""What AdamW is run with where nothing is tuned."""
BESIDE = ("cosine", *PEAKS, "prodigy", "schedulefree")
"""What stands beside the tuned schedule and glyder, with AdamW."""
BEST = "best fixed peak"
"""And with every optimizer."""
STARTS = (1e-9, 1e-3, 10.0)
"""Rates that the optimizer is made with."""


def compare(cell: Cell, optimizer: str, store: Store) -> Study:
    """Tune on seeds A, then the tuned schedule and glyder on the same seeds B; returns the :class:`Peak`."""
    found = yield from tune(cell, optimizer, store)
    yield [
        run
        for seed in FRESH_SEEDS
        for run in (Run(cell.name, optimizer, "tuned", seed, found.options), Run(cell.name, optimizer, "glyder", seed))
    ]
    return found


def beside(name: str, cell: Cell, store: Store) -> Study:
    """The study of one of ``BESIDE``; returns its runs on seeds B."""
    if name == "cosine":
        return cosine(cell, "AdamW", store)
    if name in PEAKS:
        return fixed(cell, "AdamW", PEAKS[name])
    return best_of(cell, "AdamW", name, [{"recipe": recipe} for recipe in rivals.HORIZON[name]], store)


def cosine(cell: Cell, optimizer: str, store: Store) -> Study:
    """A cosine behind the tuned warm-up: of the three peaks around the tuned one, and more while the best is at the
    edge, that which is best on the first of seeds A runs on seeds B."""
    found = yield from tune(cell, optimizer, store)

    def run(half: int, seed: int) -> Run:
        options = {"peak": peak(half), "warmup": found.warmup, "anneal": "cosine"}
        return Run(cell.name, optimizer, "tuned", seed, options)

    def first(half: int) -> list[Run]:
        return [run(half, TUNING_SEEDS[0])]

    _, best = yield from search(around(found.half), middle(cell, optimizer), first, store)
    chosen = [run(best, seed) for seed in FRESH_SEEDS]
    yield chosen
    return chosen


def best_of(
    cell: Cell,
    optimizer: str,
    method: str,
    recipes: Sequence[dict[str, Any]],
    store: Store,
    seeds: Sequence[int] = FRESH_SEEDS,
) -> Study:
    """Choose among recipes on the first of seeds A, then run the better one on ``seeds``; returns these runs."""
    first = [Run(cell.name, optimizer, method, TUNING_SEEDS[0], options) for options in recipes]
    yield first
    better = min(first, key=lambda run: loss_of(store[run]))
    chosen = [Run(cell.name, optimizer, method, seed, better.options) for seed in seeds]
    yield chosen
    return chosen


def fixed(cell: Cell, optimizer: str, rate: float) -> Study:
    """A peak that is not the cell's own, with 5 % of warm-up and a linear decay, on seeds B; returns the runs."""
    runs = [Run(cell.name, optimizer, "fixed", seed, {"peak": rate}) for seed in FRESH_SEEDS]
    yield runs
    return runs


def starts(cell: Cell, optimizer: str) -> Study:
    """glyder from every starting rate, on seeds B."""
    yield [Run(cell.name, optimizer, "glyder", seed, {"start": start}) for start in STARTS for seed in FRESH_SEEDS]


def fixed_peaks(store: Store, known: Mapping[str, Cell] | None = None) -> dict[str, float]:
    """One peak for each optimizer: the half-decade whose loss over the tuned one is least on the geometric mean.

    From the first grids of all development cells, 5 % warm-up; a peak outside of a cell's grid counts as its edge. None
    for an optimizer that some cell is not tuned with yet: a choice from fewer cells would be another one.
    """
    found = {}
    known = cells() if known is None else known
    development = [cell for cell in known.values() if cell.group == "development"]
    for optimizer in optimizers.MAKERS:
        grids = [_grid(cell, optimizer, store) for cell in development if optimizer in cell.optimizers]
        if grids and all(grids):
            worse = {
                half: geometric([grid[max(min(grid), min(max(grid), half))] / min(grid.values()) for grid in grids])
                for half in range(-16, 9)
            }
            found[optimizer] = peak(min(worse, key=worse.__getitem__))
    return found


def _grid(cell: Cell, optimizer: str, store: Store) -> dict[int, float]:
    """Validation loss by half-decade on the first grid, a diverged run as the initial loss."""
    found = {}
    start = middle(cell, optimizer)
    for half in range(start - 20, start + 21):
        run = run_at(cell, optimizer, half, "5%", TUNING_SEEDS[0])
        if run in store:
            record = store[run]
            found[half] = min(loss_of(record), record["initial"])
    return found


def chosen(suite: str, names: Sequence[str] = (), final: bool = False) -> list[Cell]:
    """The cells of a suite, or of ``names``; reserved ones only with ``final``."""
    known = cells()
    for name in names:
        if name not in known:
            raise SystemExit(f"no cell is called {name!r}; there are {', '.join(known)}")
        if known[name].reserved and not final:
            raise SystemExit(f"{name} is reserved: it runs with --final only, and that is logged")
    found = [known[name] for name in names] if names else [c for c in known.values() if suite in c.suites]
    return [c for c in found if final or not c.reserved]


def pairs_of(found: Iterable[Cell]) -> list[tuple[Cell, str]]:
    return [(cell, optimizer) for cell in found for optimizer in cell.optimizers]
