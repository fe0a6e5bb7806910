"""The record of what was measured and decided: one row per measurement, bounded by what was measured."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

FIELDS: dict[str, str] = {
    "update": "number of the update whose displacement was measured (0-based)",
    "lr": "rate that it was made with",
    "optimal": "rate at which the loss along it would have been least, by this measurement alone",
    "base": "rate before warm-up and annealing, after this measurement",
    "slope": "<grad f, delta>, at the point before the update; after it with refresh='always' or batches",
    "curvature": "delta^T C delta",
    "displacement": "||delta||",
    "gradient": "||g|| of the training batch that was measured on",
}
"""Numeric columns of the history, all float64 but ``update``."""

TEXTS = ("source", "reason")

DTYPE = np.dtype(
    [("update", np.int64)]
    + [(name, np.float64) for name in FIELDS if name != "update"]
    + [(name, "U24") for name in TEXTS]
)


class History:
    """Append-only table; see ``FIELDS`` for the columns, plus ``source`` (of the slope) and ``reason``."""

    def __init__(self) -> None:
        self._rows: list[tuple[Any, ...]] = []

    def append(self, **row: Any) -> None:
        defaults = {name: float("nan") for name in FIELDS} | {"source": "", "reason": ""}
        full = defaults | row
        self._rows.append(tuple(full[name] for name in DTYPE.names or ()))

    def array(self) -> np.ndarray:
        """Structured array, one element per row; a copy."""
        return np.array(self._rows, dtype=DTYPE)

    def __len__(self) -> int:
        return len(self._rows)

    def state(self) -> dict[str, Any]:
        """Plain lists and one float64 tensor [rows, columns]."""
        rows = [row[: len(FIELDS)] for row in self._rows]
        return {
            "numbers": torch.tensor(rows, dtype=torch.float64).reshape(len(rows), len(FIELDS)),
            "texts": [list(row[len(FIELDS) :]) for row in self._rows],
        }

    def load(self, state: dict[str, Any]) -> None:
        numbers = state["numbers"].tolist()
        self._rows = [(int(row[0]), *row[1:], *texts) for row, texts in zip(numbers, state["texts"], strict=True)]
