"""``python -m benchmarks.papers.convex``: the runs of ``convex_runs.py``, beside what the papers say."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from benchmarks.harness.store import Store
from benchmarks.papers import classical
from benchmarks.papers.classical import BUDGET, CONSTANT, GRID, PROBLEMS, RULES, STARTS, TARGETS
from benchmarks.papers.common import complete, folder
from benchmarks.papers.convex_runs import DATA, METHODS, RATES, SEEDS, train, trials
from benchmarks.report.canvas import canvas, save
from benchmarks.report.markdown import table

Record = dict[str, Any]

FLOOR = 1e-12
"""Losses below are rounding, and no part of how fast a run converges."""

SHOWN = {
    "SPS smoothed, c 0.5": "#d1495b", "SPS bound 1": "#e69f00", "SPS bound 100": "#b06b00", "SPS no bound": "#8a6fb0",
    "NGN 1": "#56b4e9", "NGN 100": "#1b6ca8", "SLS Armijo": "#2e8b57", "SLS Goldstein": "#9bc53d",
    "GlyderLR, SGD": "#000000",
}  # fmt: skip
"""Methods of the figure, and their colours; constant rates are grey."""

RULE_COLOURS = {
    CONSTANT: "#999999",
    "Armijo, slack 0": "#2e8b57",
    "AutoGD": "#d1495b",
    "AdGD": "#1b6ca8",
    "BB1": "#8a6fb0",
}


def runs(lines: list[Record], method: str) -> list[Record]:
    return [r for r in lines if r["options"]["method"] == method]


def gaps(lines: list[Record], method: str) -> np.ndarray:
    """Training loss above the least, [seeds, epochs + 1]; infinite after a loss that was not finite."""
    found = runs(lines, method)
    curves = np.full((len(found), max(len(r["losses"]) for r in lines)), np.inf)
    for row, r in zip(curves, found, strict=True):
        row[: len(r["losses"])] = [math.inf if v is None else max(v - r["least"], 0.0) for v in r["losses"]]
    return curves


def factor(curve: np.ndarray) -> float:
    """What the loss is multiplied by in an epoch, over the later half of a run, or of what lies above FLOOR."""
    above = int((curve > FLOOR).cumprod().sum())
    half = above // 2
    return float((curve[above - 1] / curve[half]) ** (1 / max(above - 1 - half, 1)))


def told(values: Sequence[float] | np.ndarray, digits: int = 2) -> str:
    """Median over seeds, and the least and the greatest."""
    v = np.asarray(values, float)
    if not np.isfinite(v).all():
        return "diverged"
    middle, low, high = (f"{x:.{digits}g}" for x in (np.median(v), v.min(), v.max()))
    return middle if low == high else f"{middle} [{low}, {high}]"


def epochs_to(curve: np.ndarray, level: float) -> float:
    below = np.flatnonzero(curve <= level)
    return float(below[0]) if len(below) else math.inf


def best_rate(lines: list[Record]) -> str:
    """The constant rate of SGD whose mean loss at the end is least."""
    return min((f"SGD {rate:g}" for rate in RATES), key=lambda m: float(gaps(lines, m)[:, -1].mean()))


def passes(lines: list[Record], method: str) -> float:
    """Forward passes an update; a backward counts two."""
    return float(np.mean([r["forwards"] / r["updates"] for r in runs(lines, method)]))


def stochastic_table(lines: list[Record], levels: Sequence[float]) -> str:
    rows = []
    for method in METHODS:
        curves, found = gaps(lines, method), runs(lines, method)
        end = curves[:, -1]
        reached = [[epochs_to(curve, level) for curve in curves] for level in levels]
        error = [told([100 * r["error"][part] for r in found]) if all(r["error"] for r in found) else "-"
                 for part in ("train", "test")]  # fmt: skip
        rows.append([
            method, told(end), told([factor(c) for c in curves]) if np.isfinite(end).all() else "-",
            *("-" if math.inf in r else told(r) for r in reached), *error,
            f"{passes(lines, method):.2f}", told([r["rates"][-1] for r in found if r["rates"]]),
            f"{np.mean([r['cpu'] for r in found]):.1f}",
        ])  # fmt: skip
    head = ["method", "loss above the least", "factor an epoch", *(f"epochs to {v:g}" for v in levels),
            "train error %", "test error %", "forward passes an update", "last rate", "CPU s"]  # fmt: skip
    return table(head, rows)


def chosen(lines: list[Record], problem: str, rule: str) -> list[Record]:
    """A rule's runs from all starts; of constant rates the one that ends lowest."""
    here = [r for r in lines if r["options"]["problem"] == problem and r["options"]["rule"] == rule]
    if rule != CONSTANT:
        return here
    return [min(here, key=lambda r: (r["reached"].get(f"{TARGETS[-1]:g}", math.inf), _gap(r)))]


def _gap(r: Record) -> float:
    return math.inf if r["gap"] is None else float(r["gap"])


def costs(found: list[Record], target: str) -> str:
    """Forward passes to a target, over the starts; how many came to it, where not all did."""
    spent = [r["reached"][target] for r in found if target in r["reached"]]
    if not spent:
        return "-"
    some = "" if len(spent) == len(found) else f" ({len(spent)} of {len(found)})"
    return (f"{min(spent)}" if min(spent) == max(spent) else f"{min(spent)} to {max(spent)}") + some


def _reached(lines: list[Record], problem: str, rule: str, target: float) -> str:
    cost = costs(chosen(lines, problem, rule), f"{target:g}")
    return "not reached" if cost == "-" else cost


def classical_table(lines: list[Record]) -> str:
    rows = []
    for problem in PROBLEMS:
        for rule in RULES:
            found = chosen(lines, problem, rule)
            ends = [_gap(r) for r in found]
            name = f"{rule}, best: {found[0]['options']['rate']:.2g}" if rule == CONSTANT else rule
            end = told(ends, 1) if np.isfinite(ends).all() else f"{sum(map(math.isinf, ends))} diverged"
            rows.append([problem, name, *(costs(found, f"{t:g}") for t in TARGETS), end])
    return table(["problem", "rule", *(f"to {t:g}" for t in TARGETS), "gap at the end"], rows)


def claims(stochastic: dict[str, list[Record]], exact: list[Record]) -> str:
    """What the papers say, and the numbers here that speak to it."""
    rows = []

    def end(lines: list[Record], method: str) -> str:
        return f"{method}: {told(gaps(lines, method)[:, -1])}"

    if "mushrooms" in stochastic:
        lines = stochastic["mushrooms"]
        best = best_rate(lines)

        def speed(method: str) -> str:
            return f"{method}: {told([factor(c) for c in gaps(lines, method)])}"

        linear = ("SPS smoothed, c 0.5", "SPS smoothed, c 0.2", "SLS Armijo", "SPS no bound", best, "Adam 0.001")
        rows.append([
            "Where every batch can be fitted, SPS and SLS converge linearly, no rate given (2002.10542, 1905.09997)",
            "mushrooms, factor an epoch: " + "; ".join(map(speed, linear)),
        ])  # fmt: skip
        rows.append([
            "SPS does what a search does without its cost (2002.10542)",
            "; ".join(f"{m}: {passes(lines, m):.2f} forward passes an update, 1e-6 after "
                      f"{told([epochs_to(c, 1e-6) for c in gaps(lines, m)])} epochs"
                      for m in ("SPS smoothed, c 0.5", "SLS Armijo")),
        ])  # fmt: skip
    if "ijcnn1" in stochastic:
        lines = stochastic["ijcnn1"]
        best = best_rate(lines)
        rows.append([
            "Where they cannot, SPS comes to a neighbourhood that its bound decides (2002.10542)",
            "ijcnn1, loss above the least: "
            + "; ".join(end(lines, m) for m in METHODS if m.startswith("SPS")) + f"; {end(lines, best)}",
        ])  # fmt: skip
        rows.append([
            "NGN never diverges, and its neighbourhood shrinks with sigma (2407.04358)",
            "; ".join(end(lines, m) for m in METHODS if m.startswith("NGN")),
        ])  # fmt: skip
        rows.append([
            "SLS keeps up with tuned baselines (1905.09997), seen where it cannot fit every batch",
            "; ".join(end(lines, m) for m in ("SLS Armijo", "SLS Goldstein", best, "Adam 0.001", "GlyderLR, SGD")),
        ])  # fmt: skip
    shown = ("AutoGD", "Armijo, slack 0", CONSTANT)
    for claim, target in (
        ("AutoGD takes any rate to start from (2505.21651)", TARGETS[0]),
        ("AutoGD comes within a constant of the best rate of gradient descent (2505.21651, 2510.09923)", TARGETS[1]),
    ):
        seen = [
            f"{problem} ({' / '.join(f'{rule}: {_reached(exact, problem, rule, target)}' for rule in shown)})"
            for problem in PROBLEMS
        ]
        rows.append([claim, f"forward passes to a gap of {target:g}. " + "; ".join(seen)])
    return "\n".join(f"- **{claim}.** Here: {seen}" for claim, seen in rows)


def _curves(ax: Axes, lines: list[Record], title: str, label: str) -> None:
    for rate in RATES:
        ax.plot(np.median(gaps(lines, f"SGD {rate:g}"), 0), color="#bbbbbb", linewidth=0.8)
    for method, colour in SHOWN.items():
        curves = gaps(lines, method).clip(1e-16)
        ax.fill_between(range(curves.shape[1]), curves.min(0), curves.max(0), color=colour, alpha=0.2, linewidth=0)
        ax.plot(np.median(curves, 0), color=colour, label=method, linewidth=1.2)
    ax.plot(np.median(gaps(lines, best_rate(lines)), 0), "--", color="#555555", label="SGD, best constant rate")
    ax.set_yscale("log")
    ax.set_title(title, fontsize=9)
    ax.set_ylabel(label)
    ax.set_xlabel("epochs")


def figure(stochastic: dict[str, list[Record]], exact: list[Record], path: Path) -> None:
    drawing, axes = canvas(12.5, 7.5, 2, 3)
    for ax, (name, lines) in zip(axes, stochastic.items(), strict=False):
        fitted = "can be fitted" if name == "mushrooms" else "cannot be fitted"
        _curves(ax, lines, f"{name}: {fitted}", "training loss above the least")
    if "ijcnn1" in stochastic:
        for method, colour in SHOWN.items():
            for r in runs(stochastic["ijcnn1"], method):
                axes[2].plot(range(1, len(r["rates"]) + 1), r["rates"], color=colour, linewidth=0.9)
        axes[2].set_yscale("log")
        axes[2].set_title("ijcnn1: rate of the last update of an epoch", fontsize=9)
        axes[2].set_xlabel("epochs")
    if stochastic:
        axes[0].legend(frameon=False, fontsize=7)
    for ax, problem in zip(axes[3:], ("Rosenbrock", "quadratic, condition 1e4", "logistic regression"), strict=True):
        for rule, colour in RULE_COLOURS.items():
            for k, r in enumerate(chosen(exact, problem, rule)):
                label = None if k else (f"{rule}, best" if rule == CONSTANT else rule)
                cost, gap = np.array(r["curve"]).T
                ax.plot(cost.clip(1), gap, color=colour, linewidth=1, label=label)
        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.set_ylim(1e-10, 1e3)
        ax.set_title(f"{problem}; a line for each rate to start from", fontsize=9)
        ax.set_xlabel("forward passes")
    axes[3].set_ylabel("loss above the least, relative")
    axes[3].legend(frameon=False, fontsize=7, loc="lower left")
    path.parent.mkdir(parents=True, exist_ok=True)
    save(drawing, path)


def report(stochastic: dict[str, list[Record]], exact: list[Record], results: Path) -> None:
    """Write ``convex.md`` and ``convex.png``."""
    figure(stochastic, exact, results / "convex.png")
    parts = [
        "# Convex tasks: Polyak's step, line searches and AutoGD beside their papers",
        "Written by `python -m benchmarks.papers.convex` from `convex.jsonl`; what it means: "
        f"[findings](convex-findings.md). Median of {len(SEEDS)} seeds, in brackets the least and the greatest. The "
        "papers show figures and no tables of these tasks; their claims are set against numbers at our scale.",
        "![](convex.png)",
        "## What the papers say, and what is seen here",
        claims(stochastic, exact),
    ]
    if "mushrooms" in stochastic:
        parts += [
            "## mushrooms, RBF kernel: every row can be fitted",
            "3000 training rows, 30 updates an epoch, 35 epochs. Factor an epoch: of the loss, over the later half of "
            f"the run, or of what lies above {FLOOR:g}; 1 - 1/t is a loss that falls as 1/t.",
            stochastic_table(stochastic["mushrooms"], (1e-2, 1e-6)),
        ]
    if "ijcnn1" in stochastic:
        parts += [
            "## ijcnn1, no kernel: the least loss is not 0",
            f"45990 training rows, 459 updates an epoch, 10 epochs. The least loss is "
            f"{stochastic['ijcnn1'][0]['least']:.4f}; it is taken off. A held-out task is on these rows: "
            "no default of any rule was chosen by this table.",
            stochastic_table(stochastic["ijcnn1"], (1e-2, 3e-3)),
        ]
    parts += [
        "## Deterministic problems",
        f"Gaps relative to the first, within {BUDGET} forward passes (a backward counts two). A range is over the "
        f"rates to start from, {', '.join(f'{s:g}' for s in STARTS)}; of {len(GRID)} constant rates the best is shown. "
        f"A run ends at {TARGETS[-1]:g}.",
        classical_table(exact),
    ]
    (results / "convex.md").write_text("\n\n".join(parts) + "\n")


def main(argv: Sequence[str] | None = None) -> None:
    results = folder("convex", __doc__, argv)
    store = Store(results / "convex.jsonl")
    stochastic = {name: lines for name in DATA if (lines := complete(trials(name), store, train, name))}
    report(stochastic, complete(classical.trials(), store, classical.descend), results)
    print(f"written: {results}")


if __name__ == "__main__":
    main()
