"""Stochastic logistic regression whose optimum is known: one row a step, every schedule and rate side by side."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Logistic:
    """f(w) = mean_i log(1 + exp(-z_i w)), z_i = y_i x_i: ``rows`` [n, d], and its minimiser ``optimum`` [d]."""

    rows: np.ndarray
    optimum: np.ndarray

    def loss(self, w: np.ndarray) -> np.ndarray:
        """f at each of the vectors ``w`` [..., d]."""
        return np.logaddexp(0, -(w @ self.rows.T)).mean(-1)

    def gap(self, w: np.ndarray) -> np.ndarray:
        """f(w) - min f."""
        return self.loss(w) - self.loss(self.optimum)

    @property
    def initial(self) -> float:
        """The gap of w = 0, where every run starts."""
        return float(self.gap(np.zeros_like(self.optimum)))

    @property
    def moment(self) -> float:
        """A bound on E||g||^2 that holds at every w: mean ||x||^2."""
        return float((self.rows**2).sum(1).mean())


def made(seed: int, rows: int = 2000, dimensions: int = 50, decay: float = 1.0, margin: float = 3.0) -> Logistic:
    """Gaussian rows with variances i^-decay; labels drawn from the model of a random w, x w of deviation ``margin``."""
    generator = np.random.default_rng(seed)
    deviations = np.arange(1, dimensions + 1) ** (-decay / 2)
    x = generator.standard_normal((rows, dimensions)) * deviations
    w = generator.standard_normal(dimensions)
    w *= margin / np.linalg.norm(w * deviations)
    signs = np.where(generator.random(rows) < _sigmoid(x @ w), 1.0, -1.0)
    return Logistic(x * signs[:, None], minimised(x * signs[:, None]))


def minimised(rows: np.ndarray, steps: int = 50) -> np.ndarray:
    """The optimum by Newton's method with step halving, until rounding ends the descent."""
    problem, w = Logistic(rows, np.zeros(rows.shape[1])), np.zeros(rows.shape[1])
    for _ in range(steps):
        p = _sigmoid(-(rows @ w))
        step = np.linalg.solve((rows * (p * (1 - p))[:, None]).T @ rows, rows.T @ p)
        length = 1.0
        while length > 1e-3 and problem.loss(w + length * step) > problem.loss(w):
            length /= 2
        if length <= 1e-3 or np.linalg.norm(step) <= 1e-12 * np.linalg.norm(w):
            return w
        w = w + length * step
    raise ArithmeticError(f"Newton's method did not end in {steps} steps: the rows may be separable")


def descended(problem: Logistic, rates: np.ndarray, radius: float, seed: int) -> np.ndarray:
    """Last iterates of SGD from w = 0, one row a step, kept within ``radius`` of 0; [runs, d].

    Args:
        rates: the rate of each run at each update, [runs, updates].
        radius: of the ball that iterates are projected to; inf for none.
        seed: decides the order of the rows, the same for all runs.
    """
    order = np.random.default_rng(seed).integers(len(problem.rows), size=rates.shape[1])
    w = np.zeros((len(rates), problem.rows.shape[1]))
    for rate, row in zip(np.ascontiguousarray(rates.T), problem.rows[order], strict=True):
        w += (rate * _sigmoid(-(w @ row)))[:, None] * row
        if math.isfinite(radius):
            norms = np.sqrt(np.einsum("rd,rd->r", w, w))
            outside = norms > radius
            w[outside] *= (radius / norms[outside])[:, None]
    return w


def _sigmoid(m: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(m / 2))  # no overflow
