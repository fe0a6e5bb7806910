"""``python -m benchmarks.papers.robustness``: the runs of ``robustness_runs.py``, their tables and figure."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from benchmarks.harness.statistics import RESAMPLES, interval
from benchmarks.harness.store import Store
from benchmarks.papers import subgrids
from benchmarks.papers.bound import bound
from benchmarks.papers.common import complete, folder
from benchmarks.papers.robustness_runs import (
    BALLS,
    LENGTHS,
    SCHEDULES,
    WRN_BATCH,
    WRN_STEPS,
    descend,
    factors,
    logistic_trials,
    train_wrn,
    wrn_trials,
)
from benchmarks.report.canvas import canvas, logarithmic, save
from benchmarks.report.markdown import table

Record = dict[str, Any]

DEGREES = {"fixed": 0, "rsqrt": 0, "linear": 1, "polynomial 2": 2, "cosine": 2}
"""p in the exponents: 1/(2p + 1) is the paper's, of an over-estimate. 1/(2p + 2) follows for a grid, which may as well
miss the best rate from below, where the loss grows by the power 1. 1/(p + 1) is ours, for a quadratic: it follows the
rate eta s^p, s of the run being left, as long as eta s^(p + 1) T is large, and keeps the loss of the rate at which
that ends."""

COLOURS = {"fixed": "#d1495b", "rsqrt": "#e69f00", "linear": "#1b6ca8", "polynomial 2": "#8a6fb0", "cosine": "#2e8b57"}

DECADE = (10**0.5, 10**1.5)
"""Resolutions and over-estimates that slopes are fitted over: above the flat bottom, below the loss at the start."""

SPAN = 1000.0
"""Factor that the ends of a grid are apart where runs of tuning are counted."""

USUAL = 10**0.5
"""Resolution of a usual grid: two rates a decade."""


@dataclass
class Sweep:
    """Scores (less is better) by schedule [seeds, rates], diverged runs counted; their mean over seeds is tuned on."""

    rates: np.ndarray
    scores: dict[str, np.ndarray]
    initial: float

    @property
    def ratio(self) -> float:
        return float(self.rates[1] / self.rates[0])

    def mean(self, name: str) -> np.ndarray:
        return self.scores[name].mean(0)

    def drawn(self, name: str) -> np.ndarray:
        """Means over resampled seeds, the same for all schedules; [RESAMPLES, rates]."""
        seeds = len(self.scores[name])
        chosen = np.random.default_rng(0).integers(seeds, size=(RESAMPLES, seeds))
        weights = np.stack([(chosen == s).sum(1) for s in range(seeds)], 1) / seeds
        return weights @ self.scores[name]

    def stride(self, resolution: float) -> int:
        return round(float(np.log(resolution) / np.log(self.ratio)))

    def widest(self) -> int:
        """Up to here no schedule's curve is decided by the ends of the grid."""
        return min(subgrids.widest(self.mean(name)) for name in self.scores)


def convex_sweep(lines: list[Record], steps: int, ball: float | None) -> Sweep:
    here = [r for r in lines if r["options"] == {"steps": steps, "ball": ball}]
    initial = np.array([[r["initial"]] for r in here])
    scores = {n: subgrids.counted(np.array([r["gaps"][n] for r in here], float), initial) for n in SCHEDULES}
    return Sweep(np.array(here[0]["rates"]), scores, float(initial.mean()))


def net_sweep(lines: list[Record], score: str) -> Sweep:
    """Of the seeds that have all runs."""
    rates = sorted({r["options"]["rate"] for r in lines})
    runs = {(r["options"]["schedule"], r["seed"], r["options"]["rate"]): r for r in lines}
    seeds = sorted({r["seed"] for r in lines})

    def scored(run: Record) -> float:
        return float(subgrids.counted(np.array(run["final"].get(score, np.nan)), run["initial"][score]))

    scores = {n: np.array([[scored(runs[n, s, rate]) for rate in rates] for s in seeds]) for n in SCHEDULES}
    return Sweep(np.array(rates), scores, float(np.mean([r["initial"][score] for r in lines])))


def told(value: float, draws: np.ndarray | None = None, digits: int = 3) -> str:
    """Significant digits of a value, and its interval."""
    text = f"{value:.{digits}g}"
    if draws is None:
        return text
    low, high = interval(draws[np.isfinite(draws)])
    return f"{text} [{low:.{digits}g}, {high:.{digits}g}]"


def bound_sweep(name: str, steps: int, ratio: float) -> np.ndarray:
    """The bound in units of D G at the rates of a grid of the same ratio, wide enough for all schedules."""
    reach = round(6 * np.log(10) / np.log(ratio))
    return bound(factors(name, steps), ratio ** np.arange(-reach, reach + 1.0), 1, 1)


def fitted(losses: np.ndarray, ratio: float) -> tuple[np.ndarray, np.ndarray]:
    """Slopes of the worst of best against the resolution and of the loss against the over-estimate, over DECADE."""
    low, high = (round(float(np.log(v) / np.log(ratio))) for v in DECADE)
    steps = range(low, high + 1)
    x = ratio ** np.array(steps)
    return subgrids.slope(x, subgrids.curve(losses, steps)), subgrids.slope(x, subgrids.overestimate(losses, steps))


def grown(sweep: Sweep, name: str, resolution: float) -> str:
    """Worst of best relative to the best."""
    s, mean, drawn = sweep.stride(resolution), sweep.mean(name), sweep.drawn(name)
    draws = subgrids.worst_of_best(drawn, s) / drawn.min(-1)
    return told(float(subgrids.worst_of_best(mean, s) / mean.min()), draws)


def of_fixed(sweep: Sweep, name: str, resolution: float, added: bool) -> str:
    """Worst of best, or what it adds to the best, relative to the same of the fixed rate."""

    def lost(losses: np.ndarray) -> np.ndarray:
        return subgrids.worst_of_best(losses, sweep.stride(resolution)) - (losses.min(-1) if added else 0)

    draws = lost(sweep.drawn(name)) / lost(sweep.drawn("fixed"))
    return told(float(lost(sweep.mean(name)) / lost(sweep.mean("fixed"))), draws)


def equal_loss(sweep: Sweep, name: str, level: float | None = None) -> str:
    """The coarsest resolution that comes to at most ``level``, and its runs of tuning; the fixed rate's by default."""
    if level is None:
        level = float(subgrids.worst_of_best(sweep.mean("fixed"), sweep.stride(USUAL)))
    stride = subgrids.coarsest(sweep.mean(name), level)
    if not stride:
        return "none"
    resolution = sweep.ratio**stride
    more = "≥ " if stride == subgrids.widest(sweep.mean(name)) else ""
    return f"{more}{resolution:.3g} ({subgrids.runs(SPAN, resolution)})"


def ordering(sweep: Sweep, resolution: float) -> str:
    """Schedules from the least to the greatest loss at a resolution; where the interval of a step holds 0, "~"."""
    s = sweep.stride(resolution)
    worst = {name: float(subgrids.worst_of_best(sweep.mean(name), s)) for name in sweep.scores}
    names = sorted(worst, key=lambda name: worst[name])
    text = names[0]
    for before, after in itertools.pairwise(names):
        low, _ = interval(
            subgrids.worst_of_best(sweep.drawn(after), s) - subgrids.worst_of_best(sweep.drawn(before), s)
        )
        text += (" < " if low > 0 else " ~ ") + after
    return text


def held(lines: list[Record], steps: int, ball: float, name: str) -> float:
    """The greatest of the mean gap over the bound with the true D and G, over the rates."""
    here = [r for r in lines if r["options"] == {"steps": steps, "ball": ball}]
    gaps, rates = np.array([r["gaps"][name] for r in here]), np.array(here[0]["rates"])
    h = factors(name, steps)
    bounds = [bound(h, rates, (1 + ball) * r["distance"], r["moment"]) for r in here]
    return float((gaps.mean(0) / np.mean(bounds, 0)).max())


def net_table(sweep: Sweep, digits: int = 3) -> str:
    """Worst of best at every resolution: the score at 1, then what it is above that, in its own units."""
    rows = []
    strides = range(2, sweep.widest() + 1)
    for name in sweep.scores:
        mean, drawn = sweep.mean(name), sweep.drawn(name)
        cells = [f"{sweep.rates[mean.argmin()]:.3g}", told(float(mean.min()), drawn.min(-1), digits)]
        for s in strides:
            worst, draws = subgrids.worst_of_best(mean, s), subgrids.worst_of_best(drawn, s)
            cells.append(told(float(worst - mean.min()), draws - drawn.min(-1), 2))
        rows.append([name, *cells])
    return table(["schedule", "best rate", "fine grid", *(f"rho {sweep.ratio**s:.3g}" for s in strides)], rows)


def _valley(ax: Axes, sweep: Sweep, title: str, log: bool) -> None:
    for name in sweep.scores:
        low, high = np.quantile(sweep.drawn(name), (0.025, 0.975), axis=0)
        ax.fill_between(sweep.rates, low, high, color=COLOURS[name], alpha=0.2, linewidth=0)
        ax.plot(sweep.rates, sweep.mean(name), color=COLOURS[name], label=name)
    ax.axhline(sweep.initial, color="black", linewidth=0.8, linestyle=":")
    ax.set_xscale("log")
    if log:
        logarithmic(ax, "y")
    ax.set_title(title, fontsize=9)
    ax.set_xlabel("learning rate")


def _against(
    ax: Axes, sweep: Sweep, of: Any, points: range, title: str, label: str, steps: int | None, minus: bool = False
) -> None:
    """``of(losses, points)`` relative to the best, with its interval; dashed what the bound says."""
    x = sweep.ratio ** np.array(points)

    def relative(losses: np.ndarray) -> np.ndarray:
        least = losses.min(-1, keepdims=True)
        found = of(losses, points)
        return found - least if minus else found / least

    for name in sweep.scores:
        low, high = np.quantile(relative(sweep.drawn(name)), (0.025, 0.975), axis=0)
        ax.fill_between(x, low, high, color=COLOURS[name], alpha=0.2, linewidth=0)
        ax.plot(x, relative(sweep.mean(name)), color=COLOURS[name], label=name)
        if steps is not None:
            ax.plot(x, relative(bound_sweep(name, steps, sweep.ratio)), "--", color=COLOURS[name], linewidth=1)
    logarithmic(ax, "x")
    if not minus:
        logarithmic(ax, "y")
    ax.set_title(title, fontsize=9)
    ax.set_xlabel(label)


def _over(losses: np.ndarray, points: range) -> np.ndarray:
    return subgrids.overestimate(losses, points) * losses.min(-1, keepdims=True)


def figure(convex: list[Record], net: list[Record], path: Path) -> None:
    drawing, axes = canvas(12.5, 10.5 if net else 7, 3 if net else 2, 3)
    steps = LENGTHS[-1]
    for row, ball in enumerate((1.0, None)):
        sweep = convex_sweep(convex, steps, ball)
        where = f"logistic regression, {_ball(ball)}, T = {steps}"
        theory = steps if ball is not None else None
        _valley(axes[3 * row], sweep, where, log=True)
        axes[3 * row].set_ylabel("loss above the least")
        strides = range(1, min(sweep.widest(), sweep.stride(100)) + 1)
        _against(axes[3 * row + 1], sweep, subgrids.curve, strides, "worst grid / best rate", "resolution rho", theory)
        reach = range(sweep.stride(100) + 1)
        _against(axes[3 * row + 2], sweep, _over, reach, "too large a rate / best rate", "over-estimate", theory)
    if net:
        loss, error = net_sweep(net, "loss"), net_sweep(net, "error")
        _valley(axes[6], error, f"residual net on CIFAR-10, T = {WRN_STEPS}", log=False)
        axes[6].set_ylabel("test error")
        for ax, sweep, what in ((axes[7], error, "accuracy lost"), (axes[8], loss, "test loss added")):
            strides = range(1, sweep.widest() + 1)
            _against(
                ax, sweep, subgrids.curve, strides, f"{what} on the worst grid", "resolution rho", None, minus=True
            )
    axes[0].legend(frameon=False, fontsize=8)
    drawing.suptitle(
        "Solid: measured, 95 % interval over seeds. Dashed: last-iterate bound. Dotted: before training", fontsize=9
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    save(drawing, path)


def _ball(ball: float | None) -> str:
    return "no ball" if ball is None else f"radius {ball:g}"


def _seeds(lines: Iterable[Record]) -> int:
    return len({r["seed"] for r in lines})


def slopes(sweeps: dict[tuple[int, float | None], Sweep], which: int) -> str:
    """Log-log slopes over DECADE: measured, the bound's, and the paper's."""
    rows = [
        [str(steps), _ball(ball), *(
            told(float(fitted(sweep.mean(n), sweep.ratio)[which]), fitted(sweep.drawn(n), sweep.ratio)[which], 2)
            for n in SCHEDULES
        )]
        for (steps, ball), sweep in sweeps.items()
    ]  # fmt: skip
    ratio = next(iter(sweeps.values())).ratio
    for steps in LENGTHS:
        theory = [float(fitted(bound_sweep(n, steps, ratio), ratio)[which]) for n in SCHEDULES]
        rows.append([str(steps), "bound", *(f"{v:.2f}" for v in theory)])
    if which:
        rows.append(["", "1/(2p+1)", *(f"{1 / (2 * p + 1):.2f}" for p in DEGREES.values())])
        rows.append(["", "1/(p+1)", *(f"{1 / (p + 1):.2f}" for p in DEGREES.values())])
    else:
        rows.append(["", "1/(2p+2)", *(f"{1 / (2 * p + 2):.2f}" for p in DEGREES.values())])
    return table(["T", "ball", *SCHEDULES], rows)


def convex_parts(convex: list[Record]) -> list[str]:
    sweeps = {(t, b): convex_sweep(convex, t, b) for t in LENGTHS for b in BALLS}

    def each(cell: Callable[[Sweep, str], str]) -> str:
        rows = [[str(t), _ball(b), *(cell(sweep, n) for n in SCHEDULES)] for (t, b), sweep in sweeps.items()]
        return table(["T", "ball", *SCHEDULES], rows)

    orders = [[str(t), _ball(b), *(ordering(v, r) for r in (v.ratio, 10.0, DECADE[1]))] for (t, b), v in sweeps.items()]
    inside = [(t, b) for t in LENGTHS for b in BALLS if b is not None]
    return [
        f"## Logistic regression, one row a step, {_seeds(convex)} seeds",
        "Loss is f(w_T) - f(w\\*). The ball that iterates stay in has its radius in units of the norm of w\\*.",
        "Order by loss on the worst grid; `~`: the interval of the difference holds 0.",
        table(["T", "ball", "rho 1.33, the fine grid", "rho 10", "rho 31.6"], orders),
        "Loss of the best rate of the fine grid:",
        each(lambda sweep, n: told(float(sweep.mean(n).min()), sweep.drawn(n).min(-1))),
        "Worst grid of resolution 10, relative to one's own best rate:",
        each(lambda sweep, n: grown(sweep, n, 10)),
        "Its loss, relative to the fixed rate's:",
        each(lambda sweep, n: of_fixed(sweep, n, 10, added=False)),
        "What it adds to one's own best loss, relative to what it adds to the fixed rate's:",
        each(lambda sweep, n: of_fixed(sweep, n, 10, added=True)),
        f"Log-log slope of the loss against an over-estimate of the best rate by {DECADE[0]:.3g} to {DECADE[1]:.3g}:",
        slopes(sweeps, 1),
        "The same of the worst grid against its resolution; a grid may miss the best rate on either side, so that the "
        "bound grows by the lesser power 1/(2p+2):",
        slopes(sweeps, 0),
        f"Coarsest resolution that loses no more than a fixed rate on a grid of {USUAL:.3g}, and the runs of a grid "
        f"whose ends are a factor {SPAN:g} apart:",
        each(equal_loss),
        "Coarsest resolution within 1.5 of one's own best loss, and its runs:",
        each(lambda sweep, n: equal_loss(sweep, n, 1.5 * float(sweep.mean(n).min()))),
        "Greatest loss over the bound with D = (1 + radius) |w\\*| and G^2 = mean |x|^2, of all rates; a bound that "
        "holds stays below 1:",
        table(
            ["T", "ball", *SCHEDULES],
            [[str(t), _ball(b), *(f"{held(convex, t, b, n):.3f}" for n in SCHEDULES)] for t, b in inside],
        ),
    ]


def net_parts(net: list[Record]) -> list[str]:
    loss, error = net_sweep(net, "loss"), net_sweep(net, "error")
    usual = error.ratio ** error.stride(USUAL)
    costs = [[name, equal_loss(error, name), equal_loss(loss, name)] for name in SCHEDULES]
    return [
        f"## Residual net on CIFAR-10, {WRN_STEPS} updates of {WRN_BATCH} images, {_seeds(net)} seeds",
        f"Before training: error {error.initial:.3f}, loss {loss.initial:.3f}. Test error on the fine grid, and what "
        "the worst coarser one adds:",
        net_table(error),
        "Test loss:",
        net_table(loss),
        f"Order at rho 8: by error {ordering(error, 8)}; by loss {ordering(loss, 8)}.",
        f"Coarsest resolution that loses no more than a fixed rate at rho {usual:.3g}, and the runs over a factor "
        f"{SPAN:g}:",
        table(["schedule", "by error", "by loss"], costs),
    ]


def report(convex: list[Record], net: list[Record], results: Path) -> None:
    """Write ``robustness.md`` and ``robustness.png``."""
    figure(convex, net, results / "robustness.png")
    parts = [
        "# Coarse grids of learning rates: what annealing forgives",
        "Written by `python -m benchmarks.papers.robustness` from `robustness.jsonl`; what it means: "
        "[findings](robustness-findings.md). A grid of resolution rho takes each s-th rate of the fine one; of its "
        "runs the best counts, and over where it starts the worst. Rates are chosen by the mean over seeds; a run that "
        "diverged counts as the loss before training. Brackets: 95 % of a bootstrap over seeds.",
        "![](robustness.png)",
        *convex_parts(convex),
        *(net_parts(net) if net else []),
    ]
    (results / "robustness.md").write_text("\n\n".join(parts) + "\n")


def main(argv: Sequence[str] | None = None) -> None:
    results = folder("robustness", __doc__, argv)
    store = Store(results / "robustness.jsonl")
    report(complete(logistic_trials(), store, descend), complete(wrn_trials(), store, train_wrn, "cifar"), results)
    print(f"written: {results}")


if __name__ == "__main__":
    main()
