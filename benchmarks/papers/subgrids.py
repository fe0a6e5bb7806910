"""What a coarser grid of learning rates costs: every grid that takes each s-th rate of a fine geometric one, the worst.

Losses stand in the order of their rates along the last axis. A fine grid of ratio r gives sub-grids of resolution
rho = r^s, one for each of the s rates that it may start with: where the grid lies relative to the best rate is luck,
and the worst of them is what rho guarantees.
"""

from __future__ import annotations

import math

import numpy as np


def counted(losses: np.ndarray, initial: np.ndarray | float) -> np.ndarray:
    """A run that diverged, or ended above where it began, counts as the loss before training."""
    return np.where(losses < initial, losses, initial)  # a NaN compares false


def worst_of_best(losses: np.ndarray, stride: int) -> np.ndarray:
    """Over the sub-grids of every ``stride``-th rate, the greatest of their least losses; the last axis goes."""
    if not 1 <= stride <= losses.shape[-1]:
        raise ValueError(f"worst_of_best(stride=...) must be in 1..{losses.shape[-1]}, got {stride}")
    return np.max([losses[..., first::stride].min(-1) for first in range(stride)], axis=0)


def curve(losses: np.ndarray, strides: range) -> np.ndarray:
    """:func:`worst_of_best` at each stride, along a new last axis."""
    return np.stack([worst_of_best(losses, s) for s in strides], axis=-1)


def widest(losses: np.ndarray) -> int:
    """The greatest stride at which every sub-grid has the best rate, or one on either side of it.

    Beyond it the end of the fine grid would decide. ``losses``: [rates].
    """
    best = int(np.argmin(losses))
    return min(best, len(losses) - 1 - best) + 1


def overestimate(losses: np.ndarray, offsets: range) -> np.ndarray:
    """Loss at the best rate times ratio^offset, relative to the least loss, along the last axis.

    NaN beyond the end of the grid."""
    places = losses.argmin(-1)[..., None] + np.array(offsets)
    last = losses.shape[-1] - 1
    found = np.take_along_axis(losses, np.minimum(places, last), -1) / losses.min(-1, keepdims=True)
    return np.where(places <= last, found, np.nan)


def slope(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Least-squares slope of log y against log x, over the last axis of y."""
    u = np.log(x) - np.log(x).mean()
    return np.log(y) @ u / (u @ u)


def coarsest(losses: np.ndarray, level: float) -> int:
    """The greatest stride up to :func:`widest` such that it and all lesser ones come to at most ``level``; 0: none."""
    stride = 0
    while stride < widest(losses) and worst_of_best(losses, stride + 1) <= level:
        stride += 1
    return stride


def runs(span: float, resolution: float) -> int:
    """Rates of a geometric grid whose ends are at least a factor ``span`` apart."""
    return 1 + math.ceil(math.log(span) / math.log(resolution) - 1e-9)  # 1e-9: a quotient of logs that is whole
