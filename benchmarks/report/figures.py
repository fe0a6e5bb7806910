"""The figures: ratios by task, and the peaks that glyder finds against the tuned ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from benchmarks.harness.statistics import over_seeds
from benchmarks.methods.optimizers import OPTIMIZERS
from benchmarks.report.canvas import canvas, logarithmic
from benchmarks.report.pairs import Pair

ENDS = (0.5, 2.0)
"""Of the axis of ratios; what lies beyond is drawn at its end."""


def ratios(pairs: Sequence[Pair]) -> Figure:
    """A dot for each pair, with its interval; the tasks from the best of them to the worst."""
    by_task: dict[str, list[float]] = {}
    for p in pairs:
        by_task.setdefault(p.task.name, []).append(np.log(p.ratio))
    order = {name: y for y, name in enumerate(sorted(by_task, key=lambda name: -float(np.mean(by_task[name]))))}
    figure, axes = canvas(11, 1.2 + 0.17 * len(order), 1, len(OPTIMIZERS))
    for ax, optimizer in zip(axes, OPTIMIZERS, strict=True):
        for p in (p for p in pairs if p.optimizer == optimizer):
            y = order[p.task.name]
            ax.plot(np.clip(over_seeds(p.tuned, p.glyder), *ENDS), [y, y], color="tab:blue", linewidth=1.4)
            ax.plot(
                np.clip(p.ratio, *ENDS),
                y,
                "o",
                color="tab:blue",
                markersize=4,
                fillstyle="none" if p.task.held_out else "full",
            )
        ax.axvline(1, color="black", linewidth=0.8)
        ax.set_xlim(*ENDS)
        logarithmic(ax, "x", (1, 1.2, 1.5, 2, 5, 7))
        ax.set_yticks(range(len(order)), list(order) if ax is axes[0] else [""] * len(order), fontsize=7)
        ax.set(ylim=(-1, len(order)), title=optimizer)
        ax.tick_params(axis="x", labelsize=7)
    figure.supxlabel("test loss of glyder / tuned, 95 %; circles: held-out tasks", fontsize=9)
    return figure


def peaks(pairs: Sequence[Pair]) -> Figure:
    """A dot for each pair that glyder found a peak of, on the diagonal where that is the tuned one."""
    figure, axes = canvas(11, 4, 1, len(OPTIMIZERS))
    for ax, optimizer in zip(axes, OPTIMIZERS, strict=True):
        found = np.array([[p.peak.decades, p.found.mean()] for p in pairs if p.optimizer == optimizer]).reshape(-1, 2)
        found = 10 ** found[np.isfinite(found).all(1)]
        if len(found):
            ends = [found.min() / 2, found.max() * 2]
            ax.plot(ends, ends, color="black", linewidth=0.8)
        ax.loglog(*found.T, "o", color="tab:blue", markersize=4, alpha=0.7)
        ax.set(title=optimizer, aspect="equal")
    figure.supxlabel("tuned peak", fontsize=9)
    figure.supylabel("peak that glyder found", fontsize=9)
    return figure
