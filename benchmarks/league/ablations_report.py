"""Tables and the figure of the ablations, from the stored lines."""

# ruff: noqa: RUF001 (signs and Greek letters are wanted in what is read)

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.league import ablations as a
from benchmarks.league import markdown
from benchmarks.league.canvas import canvas, logarithmic
from benchmarks.league.pairs import League
from benchmarks.league.resample import geometric
from benchmarks.league.store import Store
from benchmarks.league.tuning import loss_of

NAMES = {
    "gauss-newton": "Gauss-Newton, exact (default)",
    "gnb": "Gauss-Newton-Bartlett, 1 draw",
    "gnb-8": "Gauss-Newton-Bartlett, 8 draws",
    "hvp": "1-d projection, hvp",
    "gradient": "1-d projection, gradients",
    "loss": "1-d projection, losses",
}


def ratios(league: League, mode: str, **options: Any) -> list[float]:
    """Validation loss over that of the default of the same mode, by cell, optimizer and seed; as far as there."""
    found = []
    for cell, optimizer in _pairs(league):
        changed = league.seeds(cell, optimizer, a.METHOD, a.plain(options) | a.MODES[mode])
        usual = league.seeds(cell, optimizer, a.METHOD, a.MODES[mode])
        found += [loss(record) / loss(usual[seed]) for seed, record in changed.items() if seed in usual]
    return found


def loss(record: dict[str, Any]) -> float:
    """A run that diverged counts as untrained."""
    return min(loss_of(record), record.get("initial", math.inf))


def _pairs(league: League) -> list[tuple[str, str]]:
    return sorted({(r["cell"], r["optimizer"]) for r in league.lines if r["method"] == a.METHOD})


def mean(values: Sequence[float]) -> float:
    return geometric(values) if values else math.nan


def _entry(values: Sequence[float]) -> str:
    """Geometric mean, and the worst."""
    return f"{mean(values):.3f} ({max(values):.2f})" if values else "–"


def probed(league: League, method: str) -> list[dict[str, Any]]:
    """The experiments on the side."""
    found = Store(a.path(league.store.path.parent)).records.values()
    return [r for r in found if r["method"] == method and r["recipe"] == league.recipe]


def shares(records: Sequence[dict[str, Any]], name: str, i: int) -> list[float]:
    """Shares of the best one-step gain at the i-th multiple of the rate that ``name`` finds on the whole set."""
    return [direction[i] for record in records for direction in record["wrong"][name]]


def table(league: League) -> str:
    """The Markdown section; nothing where no ablation was run."""
    if not _pairs(league):
        return ""
    parts = [
        "## Ablations",
        "Validation losses over the default's (exact Gauss-Newton on the training stream, every 5 updates) in the same "
        "mode: geometric mean over cells, optimizers and seeds, and in brackets the worst. *window*: glyder's recipe, "
        "one annealed scale. *published*: the locally optimal rate followed to the end.",
        *(f"**Estimator × additional mini-batches, {mode}**\n\n{_by_batches(league, mode)}" for mode in a.MODES),
        f"**Injected errors of L, and the measuring interval**\n\n{_one_at_a_time(league)}",
    ]
    if records := probed(league, a.GAIN):
        parts += [
            "**One-step gain on the whole training set as a share of the best one**, digits-mlp, along gradients of "
            f"single mini-batches: medians over {len(shares(records, 'best', 0))} directions\n\n{_gains(records)}",
            "The same at the rate that an estimator finds from additional mini-batches: median, and how many keep at "
            f"least half of the best gain\n\n{_estimated(records)}",
        ]
    if records := probed(league, a.COST):
        parts.append(
            f"**Cost of a measurement** on the training stream, one thread: forward passes (a backward counts as two), "
            f"and wall time over that of a plain training step; on one additional batch in brackets\n\n{_cost(records)}"
        )
    return "\n\n".join(parts)


def _by_batches(league: League, mode: str) -> str:
    head = ["estimator", *("training stream" if m == 0 else f"{m}" for m in a.BATCHES)]
    return markdown.table(
        head,
        (
            [NAMES[name], *(_entry(ratios(league, mode, estimator=name, batches=m)) for m in a.BATCHES)]
            for name in a.ESTIMATORS
        ),
    )


def _one_at_a_time(league: League) -> str:
    settings: list[tuple[str, dict[str, Any]]] = []
    for k in a.FACTORS:
        settings.append((f"curvature × {k:g}", {"factor": k}))
        settings.append((f"curvature × {k:g}, slope kept", {"factor": k, "slope_kept": True}))
    settings += [(f"log-normal noise, σ = {s:g}", {"sigma": s}) for s in a.SIGMAS]
    settings += [(f"every {n}", {"every": n}) for n in a.INTERVALS]
    rows = ([name, *(_entry(ratios(league, mode, **options)) for mode in a.MODES)] for name, options in settings)
    return markdown.table(["change", *a.MODES], rows)


def _gains(records: Sequence[dict[str, Any]]) -> str:
    rows = (
        [f"{c:g}", f"{c * (2 - c):.2f}"]
        + [f"{statistics.median(shares(records, name, i)):.2f}" for name in ("best", "hvp", "gauss-newton")]
        for i, c in enumerate(a.SHARES)
    )
    return markdown.table(["c", "c(2 − c)", "c × best rate", "c × η*, Hessian", "c × η*, Gauss-Newton"], rows)


def _estimated(records: Sequence[dict[str, Any]]) -> str:
    def entry(name: str, m: int) -> str:
        found = [share for record in records for share in record["estimated"][name][str(m)]]
        return f"{statistics.median(found):.2f} ({sum(s >= 0.5 for s in found) / len(found):.0%})"

    batches = [m for m in a.BATCHES if m]
    rows = ([NAMES[name], *(entry(name, m) for m in batches)] for name in a.ESTIMATORS)
    return markdown.table(["estimator", *map(str, batches)], rows)


def _cost(records: Sequence[dict[str, Any]]) -> str:
    at = {(r["cell"], r["options"]["estimator"], r["options"]["batches"]): r for r in records}
    names = list(dict.fromkeys(r["cell"] for r in records))

    def entry(name: str, value: str, cell: str) -> str:
        pair = [at.get((cell, name, m)) for m in (0, 1)]
        return "{:.1f} ({:.1f})".format(*(r[value] for r in pair)) if all(pair) else "–"

    rows = (
        [NAMES[name], entry(name, "forwards", names[0]), *(entry(name, "rate", cell) for cell in names)]
        for name in a.ESTIMATORS
    )
    return markdown.table(["estimator", "forwards", *names], rows)


def figure(league: League) -> Figure | str:
    """One-step gains against theory, and final losses against errors of L and against additional mini-batches."""
    if not _pairs(league):
        return "no ablation was run"
    made, axes = canvas(13, 3.8, 1, 3)
    _draw_gains(axes[0], probed(league, a.GAIN))
    _draw_errors(axes[1], league)
    _draw_batches(axes[2], league)
    for ax in axes:
        ax.legend(fontsize=7)
    return made


def _draw_gains(ax: Axes, records: Sequence[dict[str, Any]]) -> None:
    c = [k / 100 for k in range(5, 201)]
    ax.plot(c, [x * (2 - x) for x in c], color="black", label="c(2 − c)")
    for name, label in (("best", "best rate"), ("hvp", "η*, Hessian"), ("gauss-newton", "η*, Gauss-Newton")):
        if records:
            kept = [statistics.median(shares(records, name, i)) for i in range(len(a.SHARES))]
            ax.plot(a.SHARES, kept, "o", alpha=0.7, label=label)
    ax.set(xlabel="multiple c of the rate", ylabel="share of the best one-step gain", xlim=(0, 2), ylim=(-1, 1.1))


def _draw_errors(ax: Axes, league: League) -> None:
    factors = sorted((*a.FACTORS, 1.0))
    for mode in a.MODES:
        for kept, style in ((False, "o-"), (True, "o:")):
            losses = [mean(ratios(league, mode, factor=k, slope_kept=kept and k != 1)) for k in factors]
            ax.plot(factors, losses, style, label=mode + ", slope kept" * kept)
    ax.set(xlabel="factor on L", ylabel="validation loss over the default's")
    logarithmic(ax, "x")
    logarithmic(ax, "y")


def _draw_batches(ax: Axes, league: League) -> None:
    for name in a.ESTIMATORS:
        losses = [mean(ratios(league, "window", estimator=name, batches=m)) for m in a.BATCHES]
        ax.plot(range(len(a.BATCHES)), losses, "o-", label=NAMES[name])
    ax.set_xticks(range(len(a.BATCHES)), ["stream" if m == 0 else str(m) for m in a.BATCHES])
    ax.set(xlabel="additional mini-batches (window)", ylabel="validation loss over the default's")
