"""The results for people (README.md, figures) and for programs (summary.json), from the lines alone."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from benchmarks.harness.recipe import RECIPE
from benchmarks.harness.run import EVALUATION_SEEDS, TUNING_SEEDS
from benchmarks.harness.statistics import over_seeds
from benchmarks.harness.store import Store
from benchmarks.methods.optimizers import OPTIMIZERS
from benchmarks.report import figures, summary
from benchmarks.report.canvas import save
from benchmarks.report.markdown import number, ranged, table
from benchmarks.report.pairs import Pair, Results
from benchmarks.report.summary import BARS, COUNTED, Compared
from benchmarks.studies import cost, refit, scale
from benchmarks.tasks.common.task import Task

GROUPS = {
    "development": "Development tasks",
    "held-out": "Held-out tasks",
    "apart": "Tasks apart: every good rate overfits",
}
PREDICTORS = """\
Root mean square, in decades, of the errors against the tuned peak over the development tasks: of a rate as it is, with
one fitted constant, and of straight lines of two and three of them, the three best of all. What is fitted is fitted
with the family of the task left out. All but glyder's peak are read from ramps, whose rate rises by 1.07 or 1.2 an
update."""
FIGURES = {"ratios": figures.ratios, "peaks": figures.peaks}


def report(store: Store, folder: Path, known: Mapping[str, Task] | None = None) -> dict[str, float | None]:
    """Write ``README.md``, ``summary.json`` and the figures to ``folder``; returns the summary."""
    folder.mkdir(parents=True, exist_ok=True)
    results, costs = Results(store, known), Store(cost.path(folder))
    found = summary.key_figures(results, costs)
    (folder / "summary.json").write_text(json.dumps(found, indent=1) + "\n")
    counted = [p for p in results.pairs if p.task.group in COUNTED]
    for name, drawn in FIGURES.items() if counted else ():
        save(drawn(counted), folder / f"{name}.png")
    parts = ["# Results", *verdict(results, found), *comparison(results), *tasks(results)]
    parts += [*checks(results, costs), *predictors(results, Store(scale.path(folder)))]
    parts += ["## Figures", *(f"![{name}]({name}.png)" for name in FIGURES)] if counted else []
    parts += versions(results)
    (folder / "README.md").write_text("\n\n".join(filter(None, parts)) + "\n")
    return found


def listed(title: str, lines: Iterable[str]) -> str:
    lines = [f"- {line}" for line in lines]
    return "\n".join([title, "", *lines]) if lines else ""


def verdict(results: Results, found: Mapping[str, float | None]) -> list[str]:
    """What is missing, then the bars that are not met, then those that are."""
    lines = {
        holds: [
            f"{bar.text}: {value:.4g} ({bar.sign} {bar.limit:g})"
            for key, bar in BARS.items()
            if (value := found[key]) is not None and bar.met(value) is holds
        ]
        for holds in (False, True)
    }
    missing = [f"{name}: {n} of {count} pairs" for name, (n, count) in summary.incomplete(results).items()]
    if unknown := [key for key, value in found.items() if value is None]:
        missing.append(f"not known yet: {', '.join(unknown)}")
    other = results.recipe != RECIPE
    return [
        f"These lines are of recipe {results.recipe}, the tree is {RECIPE}." if other else "",
        listed("Missing:", missing),
        listed("Not met:", lines[False]),
        listed("Met:", lines[True]),
    ]


def comparison(results: Results) -> list[str]:
    """Over many pairs: to the tuned schedule, to what stands beside it, on transformers."""
    tuned = {
        f"{o}, {group}": summary.to_tuned(results.of(o, group)) for group in COUNTED for o in OPTIMIZERS
    }  # fmt: skip
    others = {f"{name}, {o}": made for (name, o), made in summary.beside(results).items()}
    transformers = {
        f"{o}, {', '.join(groups)}": summary.to_tuned([p for p in results.of(o, *groups) if p.task.transformer])
        for o in OPTIMIZERS
        for groups in (("development",), ("held-out",), COUNTED)
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
            str(c.tasks),
        ]
        for name, c in rows.items() if c is not None
    ]  # fmt: skip
    return table(head, lines) if lines else ""


def tasks(results: Results) -> list[str]:
    """A table for each group of tasks."""
    parts = []
    for group, title in GROUPS.items():
        if pairs := [p for p in results.pairs if p.task.group == group]:
            parts += [f"## {title}", by_task(pairs)]
    return parts


def by_task(pairs: Sequence[Pair]) -> str:
    head = ["cell", "optimizer", "T", "peak", "warm-up", "tuned loss", "glyder's", "ratio [95 %]", "decades off"]
    return table(
        head,
        (
            [
                p.task.name + f" ({p.task.stretch})" * bool(p.task.stretch), p.optimizer, str(p.task.steps),
                f"{p.peak.rate:.2g}", p.peak.warmup, loss(p.tuned.mean()), loss(p.glyder.mean()),
                ranged(p.ratio, over_seeds(p.tuned, p.glyder)), "-" if math.isnan(p.off) else f"{p.off:+.2f}",
            ]
            for p in pairs
        ),
    )  # fmt: skip


def loss(value: float) -> str:
    """Four decimals, or as many as show three digits."""
    return f"{value:.4f}" if value >= 0.01 else f"{value:.3g}"


def checks(results: Results, costs: Store) -> list[str]:
    """Refits, starting rates, what diverged, wall time and memory."""
    parts = []
    if fits := summary.refits(results):
        head = [f"net, {refit.OPTIMIZER}", *(f"fit {i}" for i in range(1, refit.FITS + 1))]
        parts += ["## Fitted again and again: training loss over that of the first fit"]
        parts += [table(head, ([task, *map(number, ratios)] for task, ratios in fits.items()))]
    count, differ = summary.starts(results)
    if count:
        parts += ["## Starting rates", f"Of {count} tasks, optimizers and seeds, runs from different rates differ in "]
        parts[-1] += f"{len(differ)}{': ' * bool(differ)}{', '.join(differ)}."
    if gone := summary.diverged(results):
        parts += ["## Diverged", listed("With glyder's defaults:", gone)]
    if took := summary.wall(results, costs):
        copies = [f"{o} {value:.2f}" for o, value in summary.memory(results, costs).items()]
        parts += [
            "## Wall time, over that of a plain run",
            table(["pair", "ratio"], ([n, number(v)] for n, v in took.items())),
        ]
        parts += [f"Peak memory beyond a plain run's, in copies of the parameters: {', '.join(copies)}." * bool(copies)]
    return parts


def predictors(results: Results, store: Store) -> list[str]:
    """What tells of the tuned peak before a run is trained."""
    rows = scale.summary(results.peaks, scale.found(store, results.recipe), results.known)
    return ["## What tells of the tuned peak", PREDICTORS, predicted(rows)] if rows else []


def predicted(rows: Iterable[scale.Row]) -> str:
    head = ["predictor", "optimizer", "pairs", "as it is", "fitted"]
    return table(head, ([r.name, r.optimizer, str(r.pairs), number(r.plain, 2), number(r.fitted, 2)] for r in rows))


def versions(results: Results) -> list[str]:
    lines = [f"{name}: {', '.join(values)}" for name, values in summary.environments(results).items()]
    seeds = {"of the tuning": TUNING_SEEDS, "of the comparison": EVALUATION_SEEDS}
    lines += [f"seeds {name}: {', '.join(map(str, values))}" for name, values in seeds.items()]
    return ["## Versions", listed(f"Recipe {results.recipe}.", lines)]
