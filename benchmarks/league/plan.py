"""The studies that suites are made of, and which cells they are over."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from benchmarks.league import optimizers
from benchmarks.league.resample import geometric
from benchmarks.league.store import Store
from benchmarks.league.train import FRESH_SEEDS, TUNING_SEEDS, Run
from benchmarks.league.tuning import Peak, Study, around, loss_of, middle, peak, run_at, search, tune
from benchmarks.league.workload import Cell, cells

RIVAL_SEEDS = FRESH_SEEDS[:3]
SHAPES = ("constant", "rsqrt", "wsd")
FOLLOWED = ({"scale": 0.5}, {"scale": 1.0}, {"scale": 2.0})
"""GLyDER as published: the locally optimal rate times sigma to the end, without annealing."""


def compare(cell: Cell, optimizer: str, store: Store) -> Study:
    """Tune on seeds A, then the tuned schedule and glyder on the same seeds B; returns the :class:`Peak`."""
    found = yield from tune(cell, optimizer, store)
    yield [
        run
        for seed in FRESH_SEEDS
        for run in (Run(cell.name, optimizer, "tuned", seed, found.options), Run(cell.name, optimizer, "glyder", seed))
    ]
    return found


def best_of(
    cell: Cell, optimizer: str, method: str, recipes: Sequence[dict[str, Any]], store: Store, seeds: Sequence[int]
) -> Study:
    """Choose among recipes on the first of seeds A, then run the better one on ``seeds``."""
    first = [Run(cell.name, optimizer, method, TUNING_SEEDS[0], options) for options in recipes]
    yield first
    better = min(first, key=lambda run: loss_of(store[run]))
    yield [Run(cell.name, optimizer, method, seed, better.options) for seed in seeds]
    return better.options


def shapes(cell: Cell, optimizer: str, store: Store, anneals: Sequence[str] = SHAPES) -> Study:
    """Other schedules, the best of each on fresh seeds."""
    found = yield from tune(cell, optimizer, store)
    for anneal in anneals:
        yield from shape(cell, optimizer, found, anneal, store)


def shape(cell: Cell, optimizer: str, found: Peak, anneal: str, store: Store) -> Study:
    """Tune the peak of another schedule behind the warm-up of the tuned one: the three around its own on the first of
    seeds A, more while the best is at the edge."""

    def run(half: int, seed: int) -> Run:
        options = {"peak": peak(half), "warmup": found.warmup, "anneal": anneal}
        return Run(cell.name, optimizer, "tuned", seed, options)

    def first(half: int) -> list[Run]:
        return [run(half, TUNING_SEEDS[0])]

    _, best = yield from search(around(found.half), middle(cell, optimizer), first, store)
    yield [run(best, seed) for seed in RIVAL_SEEDS]


def fixed_peaks(store: Store) -> dict[str, float]:
    """One peak for each optimizer: the half-decade whose loss over the tuned one is least on the geometric mean.

    From the first grids of all development cells, 5 % warm-up; a peak outside of a cell's grid counts as its edge. None
    for an optimizer that some cell is not tuned with yet: a choice from fewer cells would be another one.
    """
    found = {}
    development = [cell for cell in chosen("full") if not cell.missing()]
    for optimizer in optimizers.MAIN:
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


def fixed(cell: Cell, optimizer: str, rate: float) -> Study:
    """The one peak of the optimizer with warm-up and a cosine, and with glyder's linear decay, on fresh seeds."""
    decays: tuple[dict[str, Any], ...] = {}, {"anneal": "linear"}
    yield [
        Run(cell.name, optimizer, "fixed", seed, {"peak": rate, **decay}) for decay in decays for seed in FRESH_SEEDS
    ]


def variants(cell: Cell, optimizer: str, method: str, recipes: Sequence[dict[str, Any]]) -> Study:
    """Every recipe on fresh seeds."""
    yield [Run(cell.name, optimizer, method, seed, options) for options in recipes for seed in RIVAL_SEEDS]


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
