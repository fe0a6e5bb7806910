"""The league's results for people (README.md, figures) and for programs (league.json), from the lines alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.league import ablations_report, figures, scale
from benchmarks.league.markdown import number, ranged, table, worth_runs
from benchmarks.league.optimizers import MAIN
from benchmarks.league.pairs import League
from benchmarks.league.promises import promises
from benchmarks.league.resample import DEPTH
from benchmarks.league.statistics import summary
from benchmarks.league.store import Store
from benchmarks.league.workload import Cell

REPEAT = """\
From the root of the repository, glyder installed; what has been run is found in the file of lines and not run again.

    python -m benchmarks.league run --suite full
    python -m benchmarks.league scale
    python -m benchmarks.league run --suite ablations
    python -m benchmarks.league report
"""


def report(
    store: Store, folder: Path, recipe: str | None = None, known: Mapping[str, Cell] | None = None
) -> dict[str, Any]:
    """Write ``README.md``, ``league.json`` and the figures to ``folder``; returns the summary."""
    folder.mkdir(parents=True, exist_ok=True)
    league = League(store, recipe, known)
    found = summary(league)
    drawn = figures.draw(league, found, folder)
    (folder / "league.json").write_text(json.dumps(found, indent=1, allow_nan=False) + "\n")
    parts = ["# Results of the league", *verdict(found, (folder / "LESSONS.md").exists()), *sections(found)]
    parts += [ablations_report.table(league), "## Incomplete", incomplete(found["incomplete"])]
    parts += ["## Figures", pictures(drawn), "## How to repeat", REPEAT.rstrip(), "## Versions", versions(found)]
    (folder / "README.md").write_text("\n\n".join(filter(None, parts)) + "\n")
    return found


def sections(found: dict[str, Any]) -> list[str]:
    """The tables, of what there is."""
    rows = [r for group in (found, found["others"], found["reserved"]) for r in group.get("cells", [])]
    parts = ["## Overall", overall(found), "## Every cell", CELLS, cells(rows), forgotten(rows)] if rows else []
    if found["pairs"]:
        parts += ["## Other methods", rivals(found["rivals"]), rivals_apart(found["rivals"])]
        parts += ["## Ranks", ranks(found["ranks"])]
        parts += ["## Length of the run", ladder(found["ladder_slope"])]
        parts += ["## Cost", cost(found["cost"]), costs(rows, found["measured_cost"]["time"])]
    if found["scale"]:
        parts += ["## Scale", SCALE, scale.render(found["scale"])]
    return parts


def verdict(found: dict[str, Any], lessons: bool) -> list[str]:
    """What it rests on, then every promise with its figure, those that do not hold first."""
    kept = promises(found)
    tried = " (what was tried: [LESSONS.md](LESSONS.md))" * lessons
    parts = [
        f"{found['complete']} of {found['planned']} pairs of a development cell and an optimizer are complete; "
        "intervals hold 95 %."
    ]
    if found["recipe"] != found["tree_recipe"]:
        parts.insert(0, f"These lines are of recipe {found['recipe']}, the tree is {found['tree_recipe']}.")
    for title, holds in ((f"What does not hold{tried}:", False), ("What holds:", True), ("What cannot be told:", None)):
        lines = [f"- {p.text}: {p.figure}" for p in kept if p.holds is holds]
        parts += ["\n".join([title, "", *lines])] if lines else []
    return parts


def overall(found: dict[str, Any]) -> str:
    """The main figures, by optimizer as well, next to those of the groups that are kept apart."""
    apart = found.get("by_optimizer", {})
    groups = {
        "SGD, momentum, AdamW": found,
        **apart,
        "other optimizers": found["others"],
        "reserved cells": found["reserved"],
    }
    groups = {name: group for name, group in groups.items() if group["pairs"]}
    texts = {
        "median_ratio": "median ratio", "mean_ratio": "geometric mean ratio", "worst_ratio": "worst ratio",
        "median_regret": "median regret", "worst_regret": "worst regret", "win_rate": "share of pairs won",
    }  # fmt: skip
    lines = [[text, *(_placed(group[name]) for group in groups.values())] for name, text in texts.items()]
    steady = [_steady(group["steady_ratio"]) for group in groups.values()]
    lines.append(["geometric mean ratio without pairs of which a tuned run diverged (how many)", *steady])
    sure = (group["sure"] for group in groups.values())
    lines.append(["pairs surely better, surely worse", *(f"{s['better']}, {s['worse']}" for s in sure)])
    lines.append(["worth in tuned runs", *(worth_runs(group["worth_runs"]) for group in groups.values())])
    lines.append(["pairs", *(str(group["pairs"]) for group in groups.values())])
    return table(["value [95 %]", *groups], lines)


def _steady(entry: dict[str, Any] | None) -> str:
    return "-" if entry is None else f"{ranged(entry)} ({entry['left_out']})"


def _placed(entry: dict[str, Any]) -> str:
    return ranged(entry) + (f" ({entry['where']})" if "where" in entry else "")


SCALE = """\
How far predictors are from the tuned peaks, in decades, before a run is trained to its end; constants are fitted with
the workload left out."""

CELLS = f"""\
Ratio: mean test loss of glyder over that of the tuned schedule, on the same five seeds. Regret: 0 is the bottom of the
tuned valley, 1 a peak one step of the grid off to the gentler side (beside a cliff the mean of both sides forgives
almost anything); "tuned" is that of the tuned schedule itself, which misses the bottom because the grid is coarse. \\*
marks a valley that is flatter than the noise: there the noise is the unit of regret. † marks one whose bottom the
parabola puts deeper than {DEPTH:g} of the tuned loss, which is as deep as it is taken to lie. Error: glyder's less the
tuned one's."""


def cells(rows: list[dict[str, Any]]) -> str:
    head = [
        "cell", "optimizer", "peak", "warm-up", "tuned loss", "glyder loss", "ratio [95 %]", "regret [95 %]",
        "tuned", "training ratio", "error", "training error", "worst loss within", "diverged, tuned",
    ]  # fmt: skip
    return table(head, ([*_losses(r), *_rest(r)] for r in rows))


def loss(value: float | None) -> str:
    """Four decimals, or as many as show three digits."""
    return "-" if value is None else f"{value:.4f}" if value >= 0.01 else f"{value:.3g}"


def _losses(r: dict[str, Any]) -> list[str]:
    about = "; ".join(filter(None, [r["stretch"], "reserved" * r["reserved"]]))
    name = r["cell"] + f" ({about})" * bool(about)
    low, high = r["interval"]
    return [
        name, r["optimizer"], f"{r['peak']:.2g}", r["warmup"], loss(r["tuned_loss"]), loss(r["glyder_loss"]),
        f"{r['ratio']:.3f} [{low:.3f}, {high:.3f}]",
    ]  # fmt: skip


def _rest(r: dict[str, Any]) -> list[str]:
    low, high = r["regret_interval"]
    errors = ["-" if e is None else f"{100 * e:.2f} %" for e in (r["error_difference"], r["train_error_difference"])]
    marks = " \\*" * r["floored"] + " †" * r["deep"]
    return [
        f"{r['regret']:.2f} [{low:.2f}, {high:.2f}]{marks}", number(r["tuned_regret"], 2),
        number(r["train_ratio"]), *errors, number(r["worst"], 2), f"{r['diverged']}, {r['tuned_diverged']}",
    ]  # fmt: skip


def forgotten(rows: list[dict[str, Any]]) -> str:
    """What fine-tuning does to the classes of the pre-training."""
    found = [(f"{r['cell']} {r['optimizer']}", r["old_error"]) for r in rows if r["old_error"]]
    parts = [f"{name} " + ", ".join(f"{m} {100 * e:.1f} %" for m, e in errors.items()) for name, errors in found]
    return f"Test error on the classes of the pre-training: {'; '.join(parts)}." if parts else ""


def rivals(rows: list[dict[str, Any]]) -> str:
    if not rows:
        return "None was run."
    head = [
        "method", "pairs", "told the length", "mean ratio", "glyder", "worst ratio", "median regret", "worst regret",
        "glyder wins [95 %]", "glyder's loss to its [95 %]", "runs", "diverged", "crashed", "recipes (pairs)",
    ]  # fmt: skip
    names = ("mean_ratio", "glyder_mean_ratio", "worst_ratio", "median_regret", "worst_regret")
    lines = []
    for r in rows:
        against = ["-", "-"]
        if r["pairs"]:
            against = [ranged(r["glyder_to_it"]["win_rate"], 2), ranged(r["glyder_to_it"])]
        counted = [str(r["pairs"]), str(r["know_length"])]
        ended = [str(r[n]) for n in ("runs", "diverged", "crashed")]
        recipes = ", ".join(f"{name} ({count})" for name, count in r["recipes"].items())
        lines.append([r["method"], *counted, *(number(r.get(n)) for n in names), *against, *ended, recipes])
    return table(head, lines)


def rivals_apart(rows: list[dict[str, Any]]) -> str:
    """Those that stand beside several optimizers: what is true of them together need not be of each."""
    several = [r for r in rows if r["pairs"] and len(r["glyder_to_it"]["by_optimizer"]) > 1]
    optimizers = [o for o in MAIN if any(o in r["glyder_to_it"]["by_optimizer"] for r in several)]

    def told(entry: dict[str, Any] | None) -> str:
        if entry is None:
            return "-"
        return f"{ranged(entry)}; {entry['median']:.3f}; {100 * entry['win_rate']['value']:.0f} % of {entry['pairs']}"

    head = [f"glyder's loss to it with {o} [95 %]; median; wins" for o in optimizers]
    lines = [[r["method"], *(told(r["glyder_to_it"]["by_optimizer"].get(o)) for o in optimizers)] for r in several]
    return table(["method", *head], lines) if lines else ""


def ranks(found: dict[str, Any]) -> str:
    methods = list(dict.fromkeys(m for entry in found.values() for m in entry["ranks"]))
    lines = [[o, str(e["cells"]), *(number(e["ranks"].get(m), 2) for m in methods)] for o, e in found.items()]
    return table(["mean rank", "cells", *methods], lines)


def ladder(found: dict[str, Any] | None) -> str:
    if found is None:
        return "No ladder is complete."
    lines = [[f"{e['workload']} {e['optimizer']}", ranged(e)] for e in found["lines"]]
    return table(["regret for each factor 4 in length", "slope [95 %]"], [*lines, ["mean", ranged(found)]])


def cost(found: dict[str, Any]) -> str:
    steps, tuning = found["steps"], f"{found['tuning_runs']} runs and {found['tuning_steps']} steps"
    return (
        f"A run with glyder takes {steps['mean']:.4f} of the steps in the mean, {steps['worst']:.4f} at most (a step "
        f"is three forward passes). The tuning took {tuning} in all, {found['tuning_to_one_run']:.1f} runs for each of "
        "glyder's."
    )


def costs(rows: list[dict[str, Any]], time: dict[str, Any] | None) -> str:
    head = ["cell", "optimizer", "steps", "wall time", "copies", "tuning runs", "tuning steps"]
    taken = {} if time is None else time["pairs"] | time["long"]

    def ratio(r: dict[str, Any]) -> str:
        return number(taken.get(f"{r['cell']} {r['optimizer']}"))

    return table(
        head,
        (
            [
                r["cell"], r["optimizer"], number(r["cost_steps"], 4), ratio(r),
                number(r["copies"], 0), str(r["tuning_runs"]), str(r["tuning_steps"]),
            ]
            for r in rows
        ),
    )  # fmt: skip


def incomplete(rows: list[dict[str, str]]) -> str:
    return "\n".join(f"- {r['cell']} {r['optimizer']}: {r['why']}" for r in rows) or "Nothing."


def pictures(drawn: dict[str, str]) -> str:
    return "\n\n".join(f"`{n}` left out: {why}." if why else f"![{n}]({n}.png)" for n, why in drawn.items())


def versions(found: dict[str, Any]) -> str:
    lines = [f"- {name}: {', '.join(values)}" for name, values in found["environment"].items()]
    seeds = [f"- seeds {name}: {', '.join(map(str, values))}" for name, values in found["seeds"].items()]
    return "\n".join([f"- recipe: {found['recipe']}", *lines, *seeds])
