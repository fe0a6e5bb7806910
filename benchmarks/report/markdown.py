"""Tables and figures of text, as the reports write them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Markdown; the first column to the left, the others to the right."""
    names = list(head)
    lines = ["| " + " | ".join(r) + " |" for r in rows]
    return "\n".join(["| " + " | ".join(names) + " |", "|---|" + "---:|" * (len(names) - 1), *lines])


def number(value: float | None, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def ranged(value: float, interval: Sequence[float], digits: int = 3) -> str:
    """A value and its interval."""
    low, high = interval
    return f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"
