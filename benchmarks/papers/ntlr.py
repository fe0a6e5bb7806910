"""``python -m benchmarks.papers.ntlr``: the runs of ``ntlr_runs.py`` that are there, next to the papers' numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from benchmarks.harness.store import Store
from benchmarks.harness.train import GONE
from benchmarks.papers import ntlr_runs as runs
from benchmarks.papers.common import complete, folder
from benchmarks.papers.ntlr_runs import Arm
from benchmarks.report.canvas import canvas, logarithmic, save
from benchmarks.report.markdown import table
from benchmarks.tasks import multi30k

Record = dict[str, Any]

CLASSES = {"multi30k": multi30k.WORDS}
"""Of a task's targets, where they are not ten."""

SEEDS = (1, 2)
DASH = "-"
PALETTE = ("#1b6ca8", "#d1495b", "#2e8b57", "#e69f00", "#8a6fb0", "#555555", "#00a3a3", "#8b5a2b")

SGD_OVER_STARTS, TLR_OVER_STARTS = "0.661 ± 0.774", "0.095 ± 0.054"
LARGEST_START = {"SGD": ("0.326", "92.3"), "TLR": ("0.095", "96.0")}
"""TLR's paper, MNIST, batch 128: loss over the starts 1e-1..1e-5; loss and accuracy in % from the largest."""

TABLE_1 = {
    0.1: ("0.48±0.07", "0.38±0.26", "0.57±0.08", "0.10±0.03", "0.09±0.01"),
    0.01: ("0.47±0.06", "0.59±0.03", "1.06±0.14", "0.62±0.24", "0.16±0.02"),
    0.001: ("0.36±0.07", "0.49±0.22", "1.61±0.14", "2.02±0.71", "0.18±0.03"),
}
"""TLR's Table 1, by start: the hypergradients in the order of FORMS, then TLR."""

HD_PUBLISHED = {
    "SGD": (1.565, 0.149, 0.0010, 0.0010),
    "SGD-HD": (0.317, 0.097, 0.0160, 0.0016),
    "SGDN": (0.306, 0.0614, 0.0010, 0.0010),
    "SGDN-HD": (0.173, 0.0599, 0.0060, 0.0025),
    "Adam": (0.098, 0.0628, 0.0010, 0.0010),
}
"""From the csv files beside hypergradient descent's code (Adam-HD's is not there): validation loss after epochs 2 and
100, mean rate of epochs 1 and 2."""


STARTS_NOTE = (
    "As published, TLR depends far less on its start than SGD, and gets going from 1e-9; from 0.1 the two are level, "
    "below it TLR is ahead. Its level is not the published one: 3 epochs are 14 decisions. From 0.1 the rate hardly "
    "falls in them, since windows at too large a rate are nearly orthogonal, which asks for no change; for the same "
    "reason a small start that overshoots to about 0.1 (seed 2 from 1e-4 and 1e-5) stays there. The code's options "
    "decide 6 times, more timidly, and too late for the smallest starts; up to 3 of these asked for a negative rate, "
    "which the authors' program would take and `reference=True` does not. Their code also leaves dropout on while "
    "testing; here accuracy is without."
)
HYPERGRADIENT_NOTE = (
    "Without hypergradients ours are the published runs up to the order of the data; with them the first epoch's "
    "rates agree. After that ours stay positive (`shrink`), while the published rate is negative in 72 of the first "
    "two epochs' updates (SGD-HD; none of SGDN-HD), and in 5,376 and 6,459 of all 46,900. Adam-HD: ours takes one "
    "inner product over all tensors, its code changes the rate tensor by tensor. One run each, as published."
)
WINDOWED_NOTE = (
    "The two multiplicative arms are the constant rate, here and by the formula: a window changes the rate by at most "
    "the factor 1 + beta, 4 % in 400 windows at 1e-4, so that the published distance between them is not of the rule "
    "as it is written. The additive form is averaged over windows (beta/K^2 of sums). TLR's lead does not show in 3 "
    "epochs, and its rate rises as windows get shorter: momentum 0.8 carries a direction over several updates, so "
    "that short windows agree whatever the loss does. Of pure noise alone, <v, w>/<v, v> is 0.80, 0.45, 0.12 and 0.03 "
    "with windows of 1, 6, 23 and 93 updates, which asks for a factor of 2.3, 1.3, 1.04 and 1.01 each time; windows "
    "of one update diverge. The paper's are three times longer than ours, and many more."
)
BASELINES_NOTE = (
    "TLR from a small start is next to Adam and GlyderLR; from the start of the tuned schedule it is behind it, for "
    "want of decisions (above). In the paper's curves of CIFAR-100 the schedule is best, TLR on par early, Adam and "
    "SPS below. Under dropout no batch can be fitted, so that SPS's bound of 0 makes its rate too large, and SLS fits "
    "what the next masks undo."
)
CURVES_NOTE = (
    "The published choice is near the least of both curves here as well (p 0.1 and 0.2 are as good). Shorter windows "
    "raise the rate too far, by what momentum carries from one to the next; longer ones leave few decisions in 3 "
    "epochs, so that our right branch says more of the length of the run than of p."
)
TRANSLATOR_NOTE = (
    "From a hundredth of a usual rate TLR comes near the usual rate's loss, over both optimizers; from the usual rate "
    "it costs a little, since it raises it."
)


class Lines:
    """The lines of one task, found by arm."""

    def __init__(self, store: Store, task: str, batch: int, steps: int) -> None:
        self.store, self.task, self.batch, self.steps = store, task, batch, steps
        self.guessed = math.log(CLASSES.get(task, 10))

    def lost(self, record: Record) -> bool:
        return record["loss"] is None or record["loss"] > GONE * self.guessed

    def of(self, arm: Arm) -> list[Record]:
        wanted = [arm.trial(self.task, seed, self.batch, self.steps) for seed in SEEDS]
        return [self.store[trial] for trial in wanted if trial in self.store]

    def losses(self, arm: Arm) -> list[float]:
        return [self.guessed if self.lost(r) else r["loss"] for r in self.of(arm)]

    def loss(self, arm: Arm) -> str:
        """Mean, deviation where there are several seeds, and how many diverged."""
        diverged = sum(map(self.lost, self.of(arm)))
        return spread(self.losses(arm)) + (f" ({diverged} diverged)" if diverged else "")

    def mean(self, arm: Arm) -> float:
        return float(np.mean(self.losses(arm))) if self.of(arm) else math.nan

    def score(self, arm: Arm, what: str) -> str:
        return spread([r["test"][what] for r in self.of(arm) if r["test"]])

    def rate(self, arm: Arm) -> str:
        return " ".join(f"{r['rate']:.2g}" for r in self.of(arm)) or DASH

    def there(self, arms: Iterable[Arm]) -> list[Arm]:
        return [arm for arm in arms if self.of(arm)]


def spread(values: Sequence[float], digits: int = 3) -> str:
    """Mean ± deviation (of these values, not of a sample); one value stands alone."""
    if not values:
        return DASH
    text = f"{np.mean(values):.{digits}f}"
    return text if len(values) == 1 else f"{text} ± {np.std(values):.{digits}f}"


def mnist(store: Store) -> Lines:
    return Lines(store, "mnist", 128, runs.MNIST_STEPS)


def hd_mnist(store: Store) -> Lines:
    return Lines(store, "hd-mnist", 128, runs.HD_MNIST_STEPS)


def translator(store: Store) -> Lines:
    return Lines(store, "multi30k", runs.MULTI30K_BATCH, runs.MULTI30K_STEPS)


def wrn(store: Store, batches: Iterable[int] = runs.BATCHES) -> list[Lines]:
    return [Lines(store, "wrn", b, runs.WRN_EPOCHS * (runs.WRN_ROWS // b)) for b in batches]


def by_start(arms: Iterable[Arm]) -> dict[float, list[Arm]]:
    found: dict[float, list[Arm]] = {}
    for arm in arms:
        found.setdefault(arm.lr, []).append(arm)
    return found


def starts_part(lines: Lines) -> list[str]:
    starts = by_start(runs.start_arms())
    names = [arm.name for arm in starts[runs.TINY]]
    rows = [
        [f"{lr:g}", *(lines.loss(a) for a in arms), *(lines.rate(a) for a in arms[1:])] for lr, arms in starts.items()
    ]
    over = [[lines.mean(starts[lr][k]) for lr in runs.STARTS] for k in range(len(names))]
    rows.append(["mean ± deviation over 0.1..1e-5", *(spread([v for v in o if v == v]) for o in over), "", ""])
    rows.append(["paper", SGD_OVER_STARTS, TLR_OVER_STARTS, "", "", ""])
    largest = starts[0.1][:2]
    ends = []
    for arm in largest:
        loss, share = LARGEST_START[arm.name]
        ends.append([f"{arm.name} from 0.1", loss, lines.loss(arm), share, accuracy(lines, arm)])
    return [
        f"## TLR on MNIST from any start ({runs.MNIST_EPOCHS} epochs; the paper's search of its defaults has 20)",
        "MLP 784-512-256-10, dropout 0.5, SGD with momentum 0.8 and weight decay 5e-4, batch 128. TLR: defaults of its "
        "text with the guards (p 0.2, gamma 0.33: windows of 93 updates). Its code: `reference=True` with the code's "
        "defaults (p 1/3, gamma 0.2). Training loss:",
        table(["start", *names, *(f"{n}: last rates" for n in names[1:])], rows),
        table(["", "loss, paper", "loss, ours", "accuracy %, paper", "accuracy %, ours"], ends),
        STARTS_NOTE,
    ]


def accuracy(lines: Lines, arm: Arm) -> str:
    return spread([100 * (1 - r["test"]["error"]) for r in lines.of(arm) if r["test"]], 1)


def hypergradient_part(lines: Lines) -> list[str]:
    rows = []
    for arm in lines.there(runs.hypergradient_arms()):
        half = len(lines.of(arm)[0]["rates"]) // 2
        rates = np.mean([r["rates"] for r in lines.of(arm)], 0)
        ours = [f"{rates[:half].mean():.4f}", f"{rates[half:].mean():.4f}"]
        told = HD_PUBLISHED.get(arm.name)
        after, end, *their = (
            [DASH] * 4 if told is None else [f"{v:.3f}" for v in told[:2]] + [f"{v:.4f}" for v in told[2:]]
        )
        rows.append([arm.name, after, lines.score(arm, "loss"), end, *their, *ours])
    head = ["", "paper, epoch 2", "ours, epoch 2", "paper, epoch 100"]
    rates = [f"mean rate of epoch {k}, {who}" for who in ("paper", "ours") for k in (1, 2)]
    return [
        f"## Hypergradient descent on MNIST ({runs.HD_MNIST_EPOCHS} epochs of the paper's 100)",
        "MLP 784-1000-1000-10, 60,000 images, batch 128, weight decay 1e-4, start 1e-3; additive form, beta 1e-3 for "
        "SGD and SGDN, 1e-7 for Adam. Loss on the 10,000 test images, which are the paper's validation part; its "
        "numbers are those of the csv files beside its code, whose Adam-HD on this net is missing.",
        table([*head, *rates], rows),
        HYPERGRADIENT_NOTE,
    ]  # fmt: skip


def windowed_part(store: Store) -> list[str]:
    each, large = wrn(store), wrn(store, [runs.TOO_LARGE])
    rows = []
    for lr, arms in by_start(runs.windowed_arms()).items():
        ordered = [*arms[1:], arms[0]]
        rows.append([f"{lr:g}", "paper", *TABLE_1[lr]])
        rows.append(["", "ours", *(over_batches(each, arm) for arm in ordered)])
        rows.append(["", "ours, last rates", *(last_rates(each, arm) for arm in ordered)])
        rows.append(["", f"ours, batch {runs.TOO_LARGE}", *(over_batches(large, arm) for arm in ordered)])
    heads = [f"{form} {beta:g}" for form, beta in runs.FORMS]
    batches = ", ".join(str(lines.batch) for lines in each if any(map(lines.of, runs.windowed_arms())))
    return [
        "## Both hypergradients in windows against TLR (its Table 1)",
        f"Training loss, mean ± deviation over batches, seed 1. Paper: CIFAR-100, WRN-16-4, batches 64 to 512. Ours: "
        f"{runs.WRN_ROWS} images of CIFAR-10, the benchmark's small residual net, {runs.WRN_EPOCHS} epochs, batches "
        f"{batches}. Levels are not comparable; within a row the runs share the task. Windows are a fifth of an epoch.",
        table(["start", "", *heads, "TLR"], rows),
        WINDOWED_NOTE,
    ]


def over_batches(each: list[Lines], arm: Arm) -> str:
    found = [lines for lines in each if lines.of(arm)]
    diverged = sum(lines.lost(r) for lines in found for r in lines.of(arm))
    return spread([lines.mean(arm) for lines in found], 2) + (f" ({diverged} diverged)" if diverged else "")


def last_rates(each: list[Lines], arm: Arm) -> str:
    rates = [r["rate"] for lines in each for r in lines.of(arm)]
    if not rates:
        return DASH
    low, high = (f"{v:.2g}" for v in (min(rates), max(rates)))
    return low if low == high else f"{low}..{high}"


def baselines_part(lines: Lines) -> list[str]:
    arms = lines.there(runs.baseline_arms())
    rows = []
    for arm in arms:
        scores = [lines.score(arm, what) for what in ("loss", "error")]
        rows.append([arm.name, lines.loss(arm), *scores, lines.rate(arm), f"{lines.of(arm)[0]['passes']:g}"])
    return [
        f"## Baselines on the same MLP ({runs.MNIST_STEPS} updates)",
        "SGD with the tuned steps of the paper (0.1, a tenth at 50 % and 75 %), Adam at 1e-3; SLS and SPS on SGD "
        "without momentum, as released. The paper has curves here and no numbers.",
        table(["", "training loss", "test loss", "test error", "last rates", "extra passes"], rows),
        BASELINES_NOTE,
    ]


def curves_part(lines: Lines) -> list[str]:
    def rows(name: str, values: Sequence[float]) -> str:
        cells = []
        for value in values:
            losses = [lines.losses(runs.tlr(lr, **{name: value}))[:1] for lr in runs.CURVE_STARTS]
            flat = [v for found in losses for v in found]
            cells.append([f"{value:g}", *(spread(found) for found in losses), spread(flat)])
        return table([name, *(f"from {lr:g}" for lr in runs.CURVE_STARTS), "over starts"], cells)

    return [
        "## Window and damping (its Figure 1)",
        "Training loss of the same MLP, seed 1, the other option at its default. p is the window's share of an epoch "
        "of 468 updates. The paper chose p 0.2 and gamma 0.33 by such curves, of 20 epochs and more batches.",
        rows("fraction", runs.SHARES),
        rows("gamma", runs.GAMMAS),
        CURVES_NOTE,
    ]


def translator_part(lines: Lines) -> list[str]:
    arms = lines.there(runs.translator_arms())
    rows = [[a.name, f"{a.lr:g}", lines.loss(a), lines.score(a, "loss"), lines.rate(a)] for a in arms]
    return [
        f"## TLR over SGD and Adam on Multi30k ({runs.MULTI30K_STEPS} updates)",
        "German to English, the benchmark's small transformer, batch 32, windows of 20 updates. The paper has a larger "
        "transformer, whole epochs, and a figure.",
        table(["", "start", "training loss", "test loss", "last rate"], rows),
        TRANSLATOR_NOTE,
    ]


# ---- figure


def _curve(ax: Axes, record: Record, what: str, steps: int, **style: Any) -> None:
    values = [math.nan if v is None else v for v in record[what]]
    ax.plot((np.arange(len(values)) + 0.5) * steps / len(values), values, linewidth=1.2, **style)


def _titled(ax: Axes, title: str, x: str, y: str) -> None:
    ax.set_title(title, fontsize=9)
    ax.set_xlabel(x, fontsize=8)
    ax.set_ylabel(y, fontsize=8)
    if ax.get_legend_handles_labels()[0]:
        ax.legend(frameon=False, fontsize=6)


def _all_curves(ax: Axes, lines: Lines, arms: Iterable[Arm], named: Callable[[Arm], str], title: str) -> None:
    for arm, colour in zip(lines.there(arms), PALETTE * 2, strict=False):
        _curve(ax, lines.of(arm)[0], "losses", lines.steps, color=colour, label=named(arm))
    _titled(ax, title, "update", "training loss")


def figure(store: Store, path: Path) -> None:
    drawing, axes = canvas(14, 6.4, 2, 4)
    lines = mnist(store)
    for k, colour in zip(range(3), PALETTE, strict=False):
        arms = [arms[k] for arms in by_start(runs.start_arms()).values()]
        axes[0].plot([a.lr for a in arms], [lines.mean(a) for a in arms], "o-", ms=3, color=colour, label=arms[0].name)
    axes[0].set_xscale("log")
    _titled(axes[0], "MNIST: loss by start", "start", "training loss")
    for (lr, arms), colour in zip(by_start(runs.start_arms()).items(), PALETTE, strict=False):
        for arm, style in zip(arms[1:], ("-", "--"), strict=True):
            for record in lines.of(arm)[:1]:
                label = f"{lr:g}" if style == "-" else None
                _curve(axes[1], record, "rates", lines.steps, color=colour, linestyle=style, label=label)
    axes[1].set_yscale("log")
    _titled(axes[1], "its rate (dashed: as its code)", "update", "rate")
    for name, values, colour in (("fraction", runs.SHARES, PALETTE[0]), ("gamma", runs.GAMMAS, PALETTE[1])):
        for lr, style in zip(runs.CURVE_STARTS, ("-", "--"), strict=True):
            found = [(lines.losses(runs.tlr(lr, **{name: v})) or [math.nan])[0] for v in values]
            axes[2].plot(values, found, style, marker="o", ms=3, color=colour, label=f"{name}, from {lr:g}")
    logarithmic(axes[2], "y")
    _titled(axes[2], "MNIST: loss by p and gamma", "p, gamma", "training loss")
    _all_curves(axes[3], lines, runs.baseline_arms(), lambda a: a.name, "MNIST: baselines")
    axes[3].set_ylim(0, lines.guessed)
    _all_curves(axes[4], hd_mnist(store), runs.hypergradient_arms(), lambda a: a.name, "hypergradient's MNIST")
    for arm, colour in zip(hd_mnist(store).there(runs.hypergradient_arms()), PALETTE, strict=False):
        _curve(axes[5], hd_mnist(store).of(arm)[0], "rates", runs.HD_MNIST_STEPS, color=colour, label=arm.name)
    logarithmic(axes[5], "y")
    _titled(axes[5], "its rates", "update", "rate")
    for k, colour in zip(range(len(runs.FORMS) + 1), PALETTE, strict=False):
        arms = [arms[k] for arms in by_start(runs.windowed_arms()).values()]
        means = [[each.mean(a) for each in wrn(store) if each.of(a)] for a in arms]
        axes[6].errorbar(
            [a.lr * 1.06**k for a in arms], [np.mean(m) if m else math.nan for m in means],
            [np.std(m) if m else 0 for m in means], fmt="o-", ms=3, linewidth=1, color=colour, label=arms[0].name,
        )  # fmt: skip
    axes[6].set_xscale("log")
    _titled(axes[6], "CIFAR-10: over batches", "start", "training loss")
    _all_curves(axes[7], translator(store), runs.translator_arms(), lambda a: f"{a.name}, {a.lr:g}", "Multi30k")
    save(drawing, path)


def report(store: Store, results: Path) -> None:
    """Write ``ntlr.md`` and ``ntlr.png``."""
    figure(store, results / "ntlr.png")
    parts = [
        "# Published runs of the Newton-based rate and of hypergradients, at a small scale",
        "Written by `python -m benchmarks.papers.ntlr` from `ntlr.jsonl`. Training loss is the mean over the last "
        "fifth of an epoch, dropout included, as TLR's code reports it; a run that diverged (not finite, or above 1.5 "
        "times the loss of guessing) counts as guessing. ± is over seeds 1 and 2 where nothing else is said, a number "
        "without it is of seed 1.",
        "![](ntlr.png)",
        *starts_part(mnist(store)),
        *windowed_part(store),
        *hypergradient_part(hd_mnist(store)),
        *baselines_part(mnist(store)),
        *curves_part(mnist(store)),
        *translator_part(translator(store)),
    ]
    (results / "ntlr.md").write_text("\n\n".join(parts) + "\n")


def main(argv: Sequence[str] | None = None) -> None:
    results = folder("ntlr", __doc__, argv)
    store = Store(results / "ntlr.jsonl")
    for need in dict.fromkeys(runs.NEEDS.values()):
        complete([t for t in runs.trials() if runs.NEEDS[t.experiment] == need], store, runs.train, need)
    report(store, results)
    print(f"written: {results}")


if __name__ == "__main__":
    main()
