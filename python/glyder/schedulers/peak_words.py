"""A run with GlyderLR in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from glyder.optimizers.properties import descends

if TYPE_CHECKING:
    from glyder.schedulers.glyder import GlyderLR

USUAL = ("kept", "rising", "found")
"""Reasons that are no news."""


def explain(scheduler: GlyderLR) -> str:
    """What the scheduler found so far and what it means. See :meth:`glyder.GlyderLR.explain`."""
    updates, reasons = scheduler.updates, scheduler.reasons
    rates = ", ".join(f"{float(rate):.3g}" for rate in scheduler.get_last_lr())
    if scheduler._peak is None:
        now = f", the learning rate is now {rates}" if updates else ""
        searched = "is being searched" if scheduler._search is not None else "was being searched when it was closed"
        lines = [f"{updates} updates made; the peak {searched}{now}."]
    else:
        given = scheduler._given_peak is not None or not len(scheduler._history)
        found = "as it was given" if given else f"found in the first {scheduler._found} updates"
        lines = [
            f"{updates} updates made. Peak learning rate {scheduler.peak_lr:.3g}, {found}; with {scheduler.anneal} "
            f"annealing now {rates}."
        ]
    if scheduler._found and all(descends(o) for o in scheduler.optimizers):
        back = 1 + reasons.get("restarted", 0)
        steps = "in a step that is no update" if back == 1 else f"for the last time; this took {back} steps, no updates"
        lines.append(
            f"The parameters were set back to where the search began after {scheduler._found} updates, {steps}: a loop "
            f"of total_steps steps makes {back} less."
        )
    unusual = [f"{reason} {count} times" for reason, count in reasons.items() if reason not in USUAL]
    if unusual:
        lines.append(f"Also: {', '.join(unusual)}.")
    if scheduler.skipped:
        lines.append(f"{scheduler.skipped} updates were skipped because their gradient was not finite.")
    return "\n".join(lines)
