"""A run in words."""

from __future__ import annotations

import math

import numpy as np

from glyder.engine.scheduler import Scheduler
from glyder.probe.outputs_loss import EstimatorError
from glyder.probe.update_direction import Unmeasurable

USUAL = ("kept", "first", "growth_limited", "spike", "held")
"""Reasons that are no news, or told of in a sentence of their own."""


def explain(scheduler: Scheduler, base: float | None) -> str:
    """What the scheduler found so far and what it means. ``base``: its rate before warm-up and annealing, if found."""
    history = scheduler.history
    usable = history[np.isfinite(history["curvature"])]
    lines = [_measured(scheduler, len(usable), len(history))]
    if len(usable):
        lines.append(_advice(usable) if scheduler.observe_only else _found(scheduler, base))
        outputs = int((usable["source"] != "gradients").sum())
        if outputs:
            lines.append(
                f"In {outputs} of {len(usable)} measurements the training gradient was not that of the loss seen in "
                "the outputs (clipped, rescaled or summed over several passes, or a loss with other terms): the "
                "outputs' slope was taken."
            )
    unusual = {r: c for r, c in scheduler.reasons.items() if r not in USUAL}
    if unusual:
        lines.append("Also: " + ", ".join(f"{reason} {count} times" for reason, count in unusual.items()) + ".")
    if scheduler.skipped:
        lines.append(f"{scheduler.skipped} updates were skipped because their gradient was not finite.")
    return "\n".join(lines)


def _measured(scheduler: Scheduler, usable: int, rows: int) -> str:
    made = f"{scheduler.updates} updates made"
    if not rows:
        return f"{made}, nothing measured yet."
    return f"{made}, {usable} of {rows} measurements usable."


def _found(scheduler: Scheduler, base: float | None) -> str:
    if base is None:
        return "No scale has been found yet: the loss did not fall along the measured directions."
    rates = ", ".join(f"{float(rate):.3g}" for rate in scheduler.get_last_lr())
    spikes, held = (scheduler.reasons.get(reason, 0) for reason in ("spike", "held"))
    after = f", and {held} more while momentum held such a gradient" if held else ""
    shortened = (
        f" {spikes} updates with a gradient 1.5 times as long as usual, or longer, were made at a smaller rate{after}."
        if spikes
        else ""
    )
    now = f"with warm-up and {scheduler.anneal} annealing now {rates}"
    return f"Base learning rate {base:.3g}; {now}.{shortened}"


def _advice(usable: np.ndarray) -> str:
    """The base rate that glyder would train with, next to the largest of the user's rates so far."""
    base, largest = usable["base"][-1], usable["lr"].max()
    if (usable["reason"] == "no_slope").mean() > 0.5:
        return f"The loss rises along the updates: your largest rate so far, {largest:.3g}, is too high."
    if not math.isfinite(base):
        return "The loss does not bend upwards along the updates: no rate can be named."
    factor = base / largest
    verdict = (
        "about right"
        if 0.5 <= factor <= 2
        else f"about {factor:.2g} times too low"
        if factor > 1
        else f"about {1 / factor:.2g} times too high"
    )
    return (
        f"The base learning rate would be {base:.3g}, before warm-up and annealing; your largest rate so far is "
        f"{largest:.3g}, which is {verdict}."
    )


def text_of(error: Exception) -> str:
    """What went wrong: in our own words where the error is ours."""
    return str(error) if isinstance(error, (Unmeasurable, EstimatorError)) else f"{type(error).__name__}: {error}"
