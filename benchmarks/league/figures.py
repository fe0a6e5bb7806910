"""The figures of the league, each from the lines it needs; without them it says so."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks.league import ablations_report
from benchmarks.league.canvas import OTHERS, OURS, canvas, colour, logarithmic, panels, save
from benchmarks.league.pairs import League, Record
from benchmarks.league.train import FRESH_SEEDS, POINTS

PANELS = 6

Sweep = dict[tuple[str, str], dict[float, dict[int, Record]]]
"""Runs by pair, value of the option, and seed."""


def draw(league: League, found: dict[str, Any], folder: Path) -> dict[str, str]:
    """Draw what there are lines for; tells of each figure why it is missing, or nothing."""
    makers = {
        "worth": lambda: worth(found),
        "ratios": lambda: ratios(found),
        "rates": lambda: rates(league),
        "rivals": lambda: rivals(found),
        "sigma": lambda: sigma(league),
        "start": lambda: start(league),
        "ablations": lambda: ablations_report.figure(league),
    }
    told = {}
    for name, make in makers.items():
        made = make()
        (folder / f"{name}.png").unlink(missing_ok=True)
        if isinstance(made, str):
            told[name] = made
            continue
        told[name] = ""
        save(made, folder / f"{name}.png")
    return told


def spread(keys: Iterable[tuple[str, str]], league: League, most: int = PANELS) -> list[tuple[str, str]]:
    """Some of the pairs: each workload once before any comes twice, the optimizers in turn."""
    left, chosen = list(keys), list[tuple[str, str]]()
    while left and len(chosen) < most:

        def used(key: tuple[str, str]) -> tuple[int, int]:
            workloads = [league.known[cell].workload for cell, _ in chosen]
            return workloads.count(league.known[key[0]].workload), [o for _, o in chosen].count(key[1])

        chosen.append(min(left, key=used))
        left.remove(chosen[-1])
    return chosen


def worth(found: dict[str, Any]) -> Figure | str:
    if not found["pairs"]:
        return "no pair is complete"
    curve, ours, kept = found["worth_runs"]["expected_best"], found["worth_runs"]["glyder"], found["steady_ratio"]
    figure, (ax,) = canvas(6, 4)
    k = range(1, len(curve) + 1)
    ax.plot(k, curve, "o-", color=OTHERS, label="best of k runs on one seed, peaks drawn from the grid")
    ax.axhline(ours, color=OURS, linewidth=0.8, linestyle=":")
    ax.plot([1], [ours], "D", color=OURS, markersize=9, label="glyder, one run")
    if kept and kept["left_out"]:
        without = f"glyder, without pairs of which a tuned run diverged ({kept['left_out']})"
        ax.plot([1], [kept["value"]], "D", color=OURS, markersize=9, fillstyle="none", label=without)
    ax.axhline(1, color="black", linewidth=0.8, label="tuned, on the other seeds of the tuning")
    if curve[0] > 2:
        logarithmic(ax, "y", (1, 1.2, 1.5, 2, 3, 5, 7))
    ax.set(xlabel="runs", ylabel="loss relative to the tuned one", xticks=list(k))
    ax.set_title(f"Geometric mean over {found['pairs']} pairs of cell and optimizer", fontsize=10)
    ax.legend(frameon=False)
    return figure


def ratios(found: dict[str, Any]) -> Figure | str:
    if not found["pairs"]:
        return "no pair is complete"
    rows = sorted(found["cells"], key=lambda r: r["ratio"])
    figure, (ax,) = canvas(7, 1.2 + 0.17 * len(rows))
    for y, r in enumerate(rows):
        ax.plot(r["interval"], [y, y], color=colour(r["optimizer"]), linewidth=1.6)
        ax.plot(r["ratio"], y, "o", color=colour(r["optimizer"]), markersize=4)
    for optimizer in dict.fromkeys(r["optimizer"] for r in found["cells"]):
        ax.plot([], [], "o-", color=colour(optimizer), markersize=4, label=optimizer)
    ax.axvline(1, color="black", linewidth=0.8)
    ax.axvline(1.05, color="black", linewidth=0.8, linestyle=":")
    if rows[-1]["interval"][1] > 2:
        logarithmic(ax, "x")
    ax.set_yticks(range(len(rows)), [r["cell"] for r in rows], fontsize=7)
    ax.set_ylim(-1, len(rows))
    ax.set_xlabel("test loss of glyder / tuned, 95 % interval; dotted: 1.05")
    ax.legend(frameon=False, loc="upper left")
    return figure


def rates(league: League) -> Figure | str:
    known = {(p.cell.name, p.optimizer): p for p in league.pairs}
    chosen = spread((key for key, p in known.items() if all("rates" in runs[0] for runs in p.runs.values())), league)
    if not chosen:
        return "no pair has curves of seed 1"
    figure, axes = panels(len(chosen))
    for ax, key in zip(axes, chosen, strict=False):
        pair = known[key]
        for method, c in (("tuned", OTHERS), ("glyder", OURS)):
            curve = np.array(pair.runs[method][0]["rates"], dtype=float)
            steps = np.arange(len(curve)) * max(1, pair.cell.steps // POINTS)
            ax.plot(steps, np.where(curve > 0, curve, np.nan), color=c, label=method)
        ax.set_yscale("log")
        ax.set_title(f"{pair.name}, ratio {pair.ratio:.3f}", fontsize=9)
        ax.tick_params(labelsize=7)
    axes[0].legend(frameon=False, fontsize=8)
    figure.supxlabel("update", fontsize=9)
    figure.supylabel("learning rate", fontsize=9)
    return figure


def rivals(found: dict[str, Any]) -> Figure | str:
    rows = [r for r in found.get("rivals", []) if r["pairs"]]
    if not rows:
        return "no other method was run"
    rows.sort(key=lambda r: r["glyder_to_it"]["win_rate"]["value"])
    figure, (ax,) = canvas(6.5, 1.2 + 0.35 * len(rows))
    for y, r in enumerate(rows):
        ax.plot(r["glyder_to_it"]["win_rate"]["interval"], [y, y], color=OURS, linewidth=2)
        ax.plot(r["glyder_to_it"]["win_rate"]["value"], y, "o", color=OURS)
    ax.axvline(0.5, color="black", linewidth=0.8)
    ax.set_yticks(range(len(rows)), [f"{r['method']} ({r['pairs']})" for r in rows], fontsize=8)
    ax.set(xlim=(-0.02, 1.02), ylim=(-0.7, len(rows) - 0.3))
    ax.set_xlabel("share of pairs (of how many) that glyder wins, 95 %")
    return figure


def sweep(league: League, method: str, option: str, default: float | None = None) -> Sweep:
    """Runs of ``method`` that have this one option, runs with none being at its ``default``."""
    found: Sweep = {}
    for (cell, optimizer, name, text), by_seed in league.runs.items():
        options = json.loads(text)
        if name == method and set(options) == {option} and cell in league.known:
            found.setdefault((cell, optimizer), {})[float(options[option])] = by_seed
    for key, runs in found.items():
        if default is not None and default not in runs and (by_seed := league.seeds(*key, method, {})):
            runs[default] = by_seed
    return {key: dict(sorted(runs.items())) for key, runs in found.items()}


def averages(league: League, runs: dict[float, dict[int, Record]]) -> dict[float, float]:
    """Mean loss by value over the seeds that all values have: on the test part if those are seeds B."""
    shared = set.intersection(*(set(by_seed) for by_seed in runs.values()))
    part = "test" if shared <= set(FRESH_SEEDS) else "validation"
    return {v: float(np.mean([league.loss(r[s], part) for s in sorted(shared)])) for v, r in runs.items() if shared}


def sigma(league: League) -> Figure | str:
    found = {key: averages(league, runs) for key, runs in sweep(league, "glyder", "scale", default=1.0).items()}
    found = {key: curve for key, curve in found.items() if len(curve) > 1}
    if not found:
        return "no line has glyder at another scale"
    figure, (ax,) = canvas(6, 4)
    logs = []
    for (_, optimizer), curve in found.items():
        least = curve.get(1.0, min(curve.values()))
        ax.plot(list(curve), [v / least for v in curve.values()], color=colour(optimizer), alpha=0.35, linewidth=1)
        logs.append({s: math.log(v / least) for s, v in curve.items()})
    shared = sorted(set.intersection(*(set(curve) for curve in logs)))
    middle = [math.exp(float(np.median([curve[s] for curve in logs]))) for s in shared]
    ax.plot(shared, middle, "o-", color="black", label="median")
    for optimizer in dict.fromkeys(o for _, o in found):
        ax.plot([], [], color=colour(optimizer), label=optimizer)
    if max(v for curve in logs for v in curve.values()) > math.log(3):
        logarithmic(ax, "y")
    logarithmic(ax, "x")
    ticks = sorted({s for curve in logs for s in curve})
    ax.set_xticks(ticks, [f"{s:g}" for s in ticks])
    ax.set(xlabel="sigma", ylabel="loss relative to sigma = 1")
    ax.set_title(f"{len(found)} pairs of cell and optimizer", fontsize=10)
    ax.legend(frameon=False)
    return figure


def start(league: League) -> Figure | str:
    ours, plain = sweep(league, "glyder", "start"), sweep(league, "plain", "peak")
    chosen = spread([key for key in ours if key in plain], league)
    if not chosen:
        return "no pair has both glyder from several starting rates and the same rates held constant"
    figure, axes = panels(len(chosen))
    for ax, key in zip(axes, chosen, strict=False):
        for runs, c, name in ((plain[key], OTHERS, "constant rate"), (ours[key], OURS, "glyder")):
            curve = averages(league, runs)
            ax.plot(list(curve), list(curve.values()), "o-", color=c, markersize=3, label=name)
        ax.set_xscale("log")
        logarithmic(ax, "y")
        ax.set_title(" ".join(key), fontsize=9)
        ax.tick_params(labelsize=7, which="both")
    axes[0].legend(frameon=False, fontsize=8)
    figure.supxlabel("rate that the optimizer is made with", fontsize=9)
    figure.supylabel("loss", fontsize=9)
    return figure
