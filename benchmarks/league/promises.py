"""What glyder promises of the league, and whether the figures bear it out."""

from __future__ import annotations

import statistics
from typing import Any, NamedTuple

from benchmarks.league import scale
from benchmarks.league.markdown import ranged, worth_runs
from benchmarks.league.optimizers import MAIN
from benchmarks.league.rivals import CLASS
from benchmarks.league.statistics import PASSED
from benchmarks.league.train import GONE


class Promise(NamedTuple):
    """``holds`` is None where it cannot be told."""

    text: str
    holds: bool | None
    figure: str = "not measured"


def promises(found: dict[str, Any]) -> list[Promise]:
    """All promises, of a summary."""
    beside = {
        "tuned anneal=linear": "a linear schedule whose peak is tuned",
        "fixed": "one fixed peak",
        "fixed anneal=linear": "one fixed peak with glyder's linear decay",
        "followed": "GLyDER followed to the end, as published",
    }
    better = [_better(found, method, text, o) for method, text in beside.items() for o in MAIN]
    untuned = [_better(found, name, name, o) for name, optimizers in CLASS.items() for o in optimizers]
    whole = found["complete"] == found["planned"]
    return [
        *_bounds(found, "", whole),
        _divergence(found["diverged"]),
        *_bounds(found["reserved"], "reserved workloads: ", True),
        _ladder(found.get("ladder_slope")),
        *_scale(found["scale"], found["planned"]),
        _worth(found.get("worth_runs"), found.get("by_optimizer", {})),
        *better,
        *untuned,
        _starts(found["starts"]),
        *_cost(found["measured_cost"]),
        _spans(found["tuned_peaks"]),
    ]


def _bounds(group: dict[str, Any], of: str, whole: bool) -> list[Promise]:
    """Of pairs that are not ``whole``, a bound may be broken but does not hold yet."""
    texts = (
        "median regret at most 0, the upper end of its interval at most 0.1",
        "no regret above 0.5",
        "loss at most 1.05 of the tuned one everywhere, at 95 %",
    )
    if not group["pairs"]:
        return [Promise(of + text, None) for text in texts]
    median, worst = group["median_regret"], group["worst_regret"]
    highest = max(group["cells"], key=lambda c: c["interval"][1])
    over = sum(c["interval"][1] > 1.05 for c in group["cells"])
    upper = f"{highest['interval'][1]:.3f} in {highest['cell']} {highest['optimizer']}"
    within = (median["value"] <= 0 and median["interval"][1] <= 0.1, worst["value"] <= 0.5, over == 0)
    kept = [(True if whole else None) if each else False for each in within]
    own = statistics.median(c["tuned_regret"] for c in group["cells"])
    figures = (
        f"{ranged(median)}; the tuned schedule's own {own:.3f}",
        f"{ranged(worst)} in {worst['where']}",
        f"above in {over} of {group['pairs']}; highest upper end {upper}",
    )
    return [Promise(of + text, holds, figure) for text, holds, figure in zip(texts, kept, figures, strict=True)]


def _divergence(runs: dict[str, Any]) -> Promise:
    text = f"no run with the defaults ends above {GONE:g} times the validation loss before training"
    where = f": {', '.join(runs['where'])}" if runs["where"] else ""
    if not runs["runs"]:
        return Promise(text, None)
    worst = runs["worst"]
    peak = "not finite" if worst["value"] is None else f"{worst['value']:.2f} of the untrained model's"
    within = f"; largest loss within a run {peak}, in {worst['where']}" if worst["where"] else ""
    passed = ", ".join(f"{count} of {name}" for name, count in runs["passed"].items())
    within += f"; runs above {PASSED:g} times on their way: {passed or 'none'}"
    return Promise(text, runs["diverged"] == 0, f"{runs['diverged']} of {runs['runs']}{where}{within}")


def _ladder(slope: dict[str, Any] | None) -> Promise:
    text = "regret does not grow with the length of the run: the upper end of the interval of its slope at most 0"
    if slope is None:
        return Promise(text, None)
    low, high = slope["interval"]
    holds = True if high <= 0 else False if low > 0 else None
    return Promise(text, holds, f"{ranged(slope)} for each factor 4")


def _scale(found: dict[str, dict[str, Any]], planned: int) -> list[Promise]:
    near = "the scale within 0.2 decades rms of the tuned peaks"
    never = "the scale never more than 0.4 decades off"
    half = "the scale at most half as far off as one fixed peak per optimizer"
    ours, fixed = found.get(scale.OURS), found.get(scale.FIXED)
    if ours is None:
        return [Promise(text, None) for text in (near, never, half)]
    rms, worst = ours["rms"], ours["worst"]
    if ours["pairs"] < planned:
        figure = f"{ours['pairs']} of {planned} pairs have one; {rms:.2f} rms, {worst:+.2f} at worst"
        return [Promise(text, None, figure) for text in (near, never, half)]
    kept = [
        Promise(near, rms <= 0.2, f"{rms:.2f} over {ours['pairs']} pairs"),
        Promise(never, abs(worst) <= 0.4, f"{worst:+.2f} in {ours['where']}"),
    ]
    if fixed is None:
        return [*kept, Promise(half, None)]
    return [*kept, Promise(half, rms <= 0.5 * fixed["rms"], f"{rms:.2f} against {fixed['rms']:.2f}")]


def _worth(worth: dict[str, Any] | None, by_optimizer: dict[str, dict[str, Any]]) -> Promise:
    text = "worth at least 7 tuned runs, the lower end of its interval too"
    if worth is None:
        return Promise(text, None)
    low, high = worth["interval"]
    holds = True if low >= 7 else False if high < 7 else None
    last = f"the best of {worth['most']} comes to {worth['expected_best'][-1]:.3f}"
    each = ", ".join(f"{o} {worth_runs(entry['worth_runs'])}" for o, entry in by_optimizer.items())
    return Promise(text, holds, f"{worth_runs(worth)}, at a mean ratio of {worth['glyder']:.3f}; {last}; {each}")


def _better(found: dict[str, Any], method: str, text: str, optimizer: str) -> Promise:
    """By the geometric mean of loss ratios, the upper end of its interval below 1. For each optimizer alone: where one
    method fails with one of them, the mean over all would hide what it is with the others."""
    text = f"{optimizer}: better than {text}"
    row = next((r for r in found.get("rivals", []) if r["method"] == method), None)
    if row is None:
        return Promise(text, None)
    ended = [f"{row[n]} of all its {row['runs']} runs {n}" for n in ("diverged", "crashed") if row[n]]
    ratio = row["glyder_to_it"]["by_optimizer"].get(optimizer) if row["pairs"] else None
    if ratio is None:
        return Promise(text, None, "; ".join(["no run counts", *ended]))
    won = f"{100 * ratio['win_rate']['value']:.0f} % of {ratio['pairs']} pairs won"
    parts = [f"loss {ranged(ratio)} of its loss in the mean, {ratio['median']:.3f} in the median, {won}"]
    kept = row["glyder_to_it_steady"]  # None where nothing diverged
    steady = kept and kept["by_optimizer"].get(optimizer)
    if steady and (left_out := ratio["pairs"] - steady["pairs"]):
        parts.append(f"{ranged(steady)} without {left_out} of them in which it diverged")
    if row["crashed_counted"]:
        ended.append(f"{row['crashed_counted']} that crashed count as the model before training")
    return Promise(text, ratio["interval"][1] < 1, "; ".join([*parts, *ended]))


def _starts(found: dict[str, Any]) -> Promise:
    text = "runs from starting rates of 1e-9 to 10 are identical to the bit"
    if not found["groups"]:
        return Promise(text, None)
    figure = f"{len(found['differ'])} of {found['groups']} cells, optimizers and seeds differ"
    return Promise(text, not found["differ"], ": ".join(filter(None, [figure, ", ".join(found["differ"])])))


def _cost(cost: dict[str, Any]) -> list[Promise]:
    time, memory = cost["time"], cost["memory"]
    texts = (
        "costs at most 1.05 of the wall time of a plain run",
        "takes at most two copies of the parameters in memory, to a tenth of one, for a while",
    )
    made = [Promise(text, None) for text in texts]
    if time is not None:
        worst = f"{time['worst']:.3f} in {time['where']}"
        figure = f"{time['median']:.3f} in the median, {worst}, over {len(time['pairs'])} pairs"
        if time["long"]:
            figure += "; of the longest runs " + ", ".join(f"{name} {r:.3f}" for name, r in time["long"].items())
        made[0] = Promise(texts[0], time["worst"] <= 1.05, figure)
    if memory is not None:
        copies = ", ".join(f"{optimizer} {value:.2f}" for optimizer, value in memory["optimizers"].items())
        # to a tenth of a copy: code and outputs of the passes come on top of the copies
        made[1] = Promise(texts[1], round(memory["worst"], 1) <= 2, f"{copies} more than a plain run at its peak")
    return made


def _spans(peaks: dict[str, dict[str, Any]]) -> Promise:
    text, main = "tuned peaks span at least 2 decades", {o: peaks[o] for o in MAIN if o in peaks}
    if not main:
        return Promise(text, None)
    holds = None if len(main) < len(MAIN) else True
    return Promise(
        text,
        holds if all(p["decades"] >= 2 for p in main.values()) else False,
        ", ".join(f"{o} {p['decades']:.1f} ({p['left']:.1f} without {p['without']})" for o, p in main.items()),
    )
