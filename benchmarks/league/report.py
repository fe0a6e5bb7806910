"""The league's results for people (README.md, figures) and for programs (summary.json), from the lines alone."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from benchmarks.league import cost, figures, refit, scale, statistics, train
from benchmarks.league.canvas import save
from benchmarks.league.markdown import number, ranged, table
from benchmarks.league.optimizers import MAKERS
from benchmarks.league.pairs import League, Pair
from benchmarks.league.resample import over_seeds
from benchmarks.league.statistics import BARS, COUNTED, Compared
from benchmarks.league.store import Store
from benchmarks.league.train import FRESH_SEEDS, TUNING_SEEDS
from benchmarks.league.workload import Cell

GROUPS = {
    "development": "Development cells",
    "reserved": "Reserved cells",
    "apart": "Cells apart: every good rate overfits",
}
FIGURES = {"ratios": figures.ratios, "peaks": figures.peaks}


def report(store: Store, folder: Path, known: Mapping[str, Cell] | None = None) -> dict[str, float | None]:
    """Write ``README.md``, ``summary.json`` and the figures to ``folder``; returns the summary."""
    folder.mkdir(parents=True, exist_ok=True)
    league, costs = League(store, known), Store(cost.path(folder))
    found = statistics.summary(league, costs)
    (folder / "summary.json").write_text(json.dumps(found, indent=1) + "\n")
    counted = [p for p in league.pairs if p.cell.group in COUNTED]
    for name, drawn in FIGURES.items() if counted else ():
        save(drawn(counted), folder / f"{name}.png")
    parts = ["# Results of the league", *verdict(league, found), *comparison(league), *cells(league)]
    parts += [*checks(league, costs), *predictors(league, Store(scale.path(folder)))]
    parts += ["## Figures", *(f"![{name}]({name}.png)" for name in FIGURES)] if counted else []
    parts += versions(league)
    (folder / "README.md").write_text("\n\n".join(filter(None, parts)) + "\n")
    return found


def listed(title: str, lines: Iterable[str]) -> str:
    lines = [f"- {line}" for line in lines]
    return "\n".join([title, "", *lines]) if lines else ""


def verdict(league: League, found: Mapping[str, float | None]) -> list[str]:
    """What is missing, then the bars that are not met, then those that are."""
    lines = {
        holds: [
            f"{bar.text}: {value:.4g} ({bar.sign} {bar.limit:g})"
            for key, bar in BARS.items()
            if (value := found[key]) is not None and bar.met(value) is holds
        ]
        for holds in (False, True)
    }
    other = league.recipe != train.recipe()
    return [
        f"These lines are of recipe {league.recipe}, the tree is {train.recipe()}." if other else "",
        listed("Missing:", statistics.missing(league, found)),
        listed("Not met:", lines[False]),
        listed("Met:", lines[True]),
    ]


def comparison(league: League) -> list[str]:
    """Over many pairs: to the tuned schedule, to what stands beside it, on transformers."""
    tuned = {
        f"{o}, {group}": statistics.to_tuned(league.of(o, group)) for group in COUNTED for o in MAKERS
    }  # fmt: skip
    others = {f"{name}, {o}": made for (name, o), made in statistics.beside(league).items()}
    transformers = {
        f"{o}, {', '.join(groups)}": statistics.to_tuned([p for p in league.of(o, *groups) if p.cell.transformer])
        for o in MAKERS
        for groups in (("development",), ("reserved",), COUNTED)
    }
    parts = {
        "## Against the tuned schedule": tuned,
        "## Against other methods": others,
        "## Transformers, against the tuned schedule": transformers,
    }
    return [text for title, rows in parts.items() if (made := overall(rows)) for text in (title, made)]


def overall(rows: Mapping[str, Compared | None]) -> str:
    head = ["glyder's loss over the other's", "mean [95 %]", "median", "worst", "in", "won", "cells"]
    lines = [
        [
            name, ranged(c.value, c.interval), number(c.median), number(c.worst), c.where, f"{100 * c.wins:.0f} %",
            str(c.cells),
        ]
        for name, c in rows.items() if c is not None
    ]  # fmt: skip
    return table(head, lines) if lines else ""


def cells(league: League) -> list[str]:
    """A table for each group of cells."""
    parts = []
    for group, title in GROUPS.items():
        if pairs := [p for p in league.pairs if p.cell.group == group]:
            parts += [f"## {title}", by_cell(pairs)]
    return parts


def by_cell(pairs: Sequence[Pair]) -> str:
    head = ["cell", "optimizer", "T", "peak", "warm-up", "tuned loss", "glyder's", "ratio [95 %]", "decades off"]
    return table(
        head,
        (
            [
                p.cell.name + f" ({p.cell.stretch})" * bool(p.cell.stretch), p.optimizer, str(p.cell.steps),
                f"{p.peak.rate:.2g}", p.peak.warmup, loss(p.tuned.mean()), loss(p.glyder.mean()),
                ranged(p.ratio, over_seeds(p.tuned, p.glyder)), "-" if math.isnan(p.off) else f"{p.off:+.2f}",
            ]
            for p in pairs
        ),
    )  # fmt: skip


def loss(value: float) -> str:
    """Four decimals, or as many as show three digits."""
    return f"{value:.4f}" if value >= 0.01 else f"{value:.3g}"


def checks(league: League, costs: Store) -> list[str]:
    """Refits, starting rates, what diverged, wall time and memory."""
    parts = []
    if fits := statistics.refits(league):
        head = [f"net, {refit.OPTIMIZER}", *(f"fit {i}" for i in range(1, refit.FITS + 1))]
        parts += ["## Fitted again and again: training loss over that of the first fit"]
        parts += [table(head, ([cell, *map(number, ratios)] for cell, ratios in fits.items()))]
    count, differ = statistics.starts(league)
    if count:
        parts += ["## Starting rates", f"Of {count} cells, optimizers and seeds, runs from different rates differ in "]
        parts[-1] += f"{len(differ)}{': ' * bool(differ)}{', '.join(differ)}."
    if gone := statistics.diverged(league):
        parts += ["## Diverged", listed("With glyder's defaults:", gone)]
    if took := statistics.wall(league, costs):
        copies = [f"{o} {value:.2f}" for o, value in statistics.memory(league, costs).items()]
        parts += [
            "## Wall time, over that of a plain run",
            table(["pair", "ratio"], ([n, number(v)] for n, v in took.items())),
        ]
        parts += [f"Peak memory beyond a plain run's, in copies of the parameters: {', '.join(copies)}." * bool(copies)]
    return parts


def predictors(league: League, store: Store) -> list[str]:
    """What tells of the tuned peak before a run is trained."""
    rows = scale.summary(league.peaks, scale.found(store, league.recipe), league.known)
    return ["## What tells of the tuned peak", scale.ABOUT, scale.render(rows)] if rows else []


def versions(league: League) -> list[str]:
    lines = [f"{name}: {', '.join(values)}" for name, values in statistics.environments(league).items()]
    seeds = {"of the tuning": TUNING_SEEDS, "of the comparison": FRESH_SEEDS}
    lines += [f"seeds {name}: {', '.join(map(str, values))}" for name, values in seeds.items()]
    return ["## Versions", listed(f"Recipe {league.recipe}.", lines)]
