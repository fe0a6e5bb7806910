"""What theory promises of the last iterate of SGD under a schedule: convex loss, bounded domain, bounded gradients.

From any update tau on SGD is itself a run of SGD, that starts within the diameter D of the domain. With rates eta_t,
E||g||^2 <= G^2 and all sums from tau on, the loss before the last update exceeds the least one by at most

    D^2/(2 sum eta) + G^2 sum eta^2/(2 sum eta)
        + G^2/2 sum_{k < T} eta_k/(sum_{t > k} eta_t) * (sum_{t >= k} eta_t^2)/(sum_{t >= k} eta_t)

(2310.07831, 2501.18965). The best tau counts: 2503.09411's way to its exponents, as we understand it. With
eta_t = eta h_t each tail is a(tau) D^2/eta + b(tau) G^2 eta.
"""

from __future__ import annotations

import numpy as np


def tails(factors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """a and b of every tail of a schedule: ``factors`` are h_0..h_{T-1}, all positive."""
    h = np.asarray(factors, dtype=float)
    if not (h > 0).all():
        raise ValueError(
            f"tails(factors=...) must all be > 0, the least is {h.min():g}: leave out the zeros at the end"
        )
    sums, squares = (np.cumsum(v[::-1])[::-1] for v in (h, h * h))
    terms = np.zeros_like(h)
    terms[:-1] = h[:-1] / sums[1:] * squares[:-1] / sums[:-1]
    return 1 / (2 * sums), squares / (2 * sums) + np.cumsum(terms[::-1])[::-1] / 2


def bound(factors: np.ndarray, rates: np.ndarray, diameter: float, moment: float) -> np.ndarray:
    """The bound at each of ``rates``; ``moment`` is G^2."""
    a, b = tails(factors)
    return np.array([np.min(a * diameter**2 / rate + b * moment * rate) for rate in rates])
