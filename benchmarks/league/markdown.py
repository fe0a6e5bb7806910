"""Tables and figures of text, as the reports write them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Markdown; the first column to the left, the others to the right."""
    names = list(head)
    lines = ["| " + " | ".join(r) + " |" for r in rows]
    return "\n".join(["| " + " | ".join(names) + " |", "|---|" + "---:|" * (len(names) - 1), *lines])


def number(value: float | None, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def ranged(entry: dict[str, Any], digits: int = 3) -> str:
    """A value and its interval."""
    low, high = entry["interval"]
    return f"{number(entry['value'], digits)} [{number(low, digits)}, {number(high, digits)}]"


def worth_runs(worth: dict[str, Any]) -> str:
    """How many tuned runs one of glyder is worth, and its interval."""
    counts = (worth["runs"], *worth["interval"])
    value, *ends = (str(k) if k <= worth["most"] else f"more than {worth['most']}" for k in counts)
    return f"{value} [{', '.join(ends)}]"
