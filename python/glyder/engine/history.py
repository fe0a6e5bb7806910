"""The record of what was measured and decided: one row each, bounded in length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    "replicas": "micro-batches that g was summed over; this and the next with replicas=True",
    "squared_gradient": "unbiased estimate of ||grad f||^2 from them, which may be negative",
    "gradient_noise": "unbiased estimate of E||g - grad f||^2",
    "noise_scale": "the latter over the former: in units of an update's batch; infinite where it is negative",
}
"""Numeric columns of LocalOptimumLR's history, all float64 but ``update``."""

TEXTS = ("source", "reason")


class History:
    """Append-only table of the columns ``fields``, the first an integer and the others float64, and ``texts``.

    Of more than ``limit`` rows every second one goes, and from then on only every second row offered is taken.
    """

    def __init__(self, fields: Mapping[str, str] | Sequence[str], texts: Sequence[str], limit: int = 1 << 20) -> None:
        self.fields, self.texts = tuple(fields), tuple(texts)
        self._limit, self._stride, self._offered = limit, 1, 0
        self._rows: list[tuple[Any, ...]] = []

    def append(self, **row: Any) -> None:
        """One row; numbers that are not given are NaN."""
        self._offered += 1
        if (self._offered - 1) % self._stride:
            return
        full = dict.fromkeys(self.fields, float("nan")) | dict.fromkeys(self.texts, "") | row
        self._rows.append(tuple(full[name] for name in (*self.fields, *self.texts)))
        if len(self._rows) > self._limit:
            self._rows = self._rows[::2]
            self._stride *= 2

    def array(self) -> np.ndarray:
        """Structured array, one element per row; a copy."""
        first, *rest = self.fields
        dtype = [(first, np.int64)] + [(name, np.float64) for name in rest] + [(name, "U24") for name in self.texts]
        return np.array(self._rows, dtype=np.dtype(dtype))

    def __len__(self) -> int:
        return len(self._rows)

    def state(self) -> dict[str, Any]:
        """Plain lists and one float64 tensor [rows, fields]."""
        width = len(self.fields)
        rows = [row[:width] for row in self._rows]
        return {
            "numbers": torch.tensor(rows, dtype=torch.float64).reshape(len(rows), width),
            "texts": [list(row[width:]) for row in self._rows],
            "stride": self._stride,
            "offered": self._offered,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Inverse of :meth:`state`."""
        numbers = state["numbers"].tolist()
        self._rows = [(int(row[0]), *row[1:], *texts) for row, texts in zip(numbers, state["texts"], strict=True)]
        self._stride, self._offered = state["stride"], state["offered"]
