"""The sub-grid statistic, the bound and the convex task, each against the plainest way to say it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import glyder
from benchmarks.papers import bound, logistic, subgrids
from benchmarks.papers.common import Trial
from benchmarks.papers.robustness import net_sweep, ordering
from benchmarks.papers.robustness_runs import LOGISTIC_RATES, SCHEDULES, descend, factors

LOSSES = st.lists(st.floats(0.01, 100), min_size=1, max_size=12)


def brute_worst(losses: list[float], stride: int) -> float:
    """Each grid written out: its rates are those whose places leave the same rest."""
    grids: dict[int, list[float]] = {}
    for place, loss in enumerate(losses):
        grids.setdefault(place % stride, []).append(loss)
    return max(min(grid) for grid in grids.values())


@given(LOSSES, st.data())
def test_worst_of_best_of_all_grids_written_out(losses: list[float], draw: st.DataObject) -> None:
    stride = draw.draw(st.integers(1, len(losses)))
    assert subgrids.worst_of_best(np.array(losses), stride) == brute_worst(losses, stride)


@given(st.lists(st.lists(st.floats(0.01, 100), min_size=6, max_size=6), min_size=1, max_size=4))
def test_curve_is_one_stride_after_the_other(rows: list[list[float]]) -> None:
    strides = range(1, 7)
    expected = [[brute_worst(row, s) for s in strides] for row in rows]
    np.testing.assert_array_equal(subgrids.curve(np.array(rows), strides), expected)


def test_the_finest_grid_is_best_the_coarsest_worst() -> None:
    losses = np.array([5.0, 2.0, 1.0, 3.0])
    assert subgrids.worst_of_best(losses, 1) == 1
    assert subgrids.worst_of_best(losses, 2) == 2
    assert subgrids.worst_of_best(losses, 4) == 5


@pytest.mark.parametrize("stride", [0, 5])
def test_a_stride_that_leaves_no_grid_is_an_error(stride: int) -> None:
    with pytest.raises(ValueError, match=rf"worst_of_best\(stride=\.\.\.\) must be in 1\.\.4, got {stride}"):
        subgrids.worst_of_best(np.ones(4), stride)


@given(LOSSES)
def test_up_to_the_widest_stride_grids_surround_best(losses: list[float]) -> None:
    best, widest = losses.index(min(losses)), subgrids.widest(np.array(losses))

    def surrounded(stride: int) -> bool:
        grids = [range(first, len(losses), stride) for first in range(stride)]
        return all(best in g or (min(g, default=best) < best < max(g, default=best)) for g in grids)

    assert surrounded(widest)
    assert not surrounded(widest + 1)


def test_a_diverged_run_counts_as_untrained() -> None:
    ended = np.array([[0.5, 3.0, math.nan, math.inf], [0.9, 1.5, -math.inf, 1.0]])
    np.testing.assert_array_equal(
        subgrids.counted(ended, np.array([[1.0], [2.0]])), [[0.5, 1, 1, 1], [0.9, 1.5, -math.inf, 1.0]]
    )


def test_overestimate_follows_the_best_of_each_row() -> None:
    losses = np.array([[4.0, 2.0, 6.0, 8.0], [9.0, 8.0, 4.0, 5.0]])
    np.testing.assert_array_equal(subgrids.overestimate(losses, range(3)), [[1, 3, 4], [1, 1.25, math.nan]])


def test_slope_of_a_power_is_its_exponent() -> None:
    x = np.array([1.0, 2.0, 5.0, 30.0])
    exponents = np.array([0.0, 1 / 3, 1.0])
    # 1e-12: sums of four logarithms in double precision.
    np.testing.assert_allclose(subgrids.slope(x, 7 * x ** exponents[:, None]), exponents, atol=1e-12)


def test_coarsest_stops_at_the_first_stride_that_fails() -> None:
    losses = np.array([9.0, 4.0, 3.0, 1.0, 2.0, 5.0, 9.0])
    worst = [brute_worst(list(losses), s) for s in range(1, 5)]
    assert worst == [1, 2, 3, 4]
    assert [subgrids.coarsest(losses, level) for level in (0.5, 1, 2.5, 3, 9)] == [0, 1, 2, 3, 4]
    uneven = np.array([9.0, 9.0, 1.0, 2.0, 9.0, 2.0, 9.0])
    assert [brute_worst(list(uneven), s) for s in range(1, 4)] == [1, 2, 9]
    assert subgrids.coarsest(uneven, 2) == 2


@pytest.mark.parametrize(("span", "resolution", "count"), [(1000, 10, 4), (1000, 1000, 2), (1001, 10, 5), (8, 2, 4)])
def test_runs_counts_both_ends(span: float, resolution: float, count: int) -> None:
    assert subgrids.runs(span, resolution) == count


def brute_bound(h: np.ndarray, rate: float, diameter: float, moment: float) -> float:
    """The formula, sum by sum, at every tail."""
    eta, values = rate * h, []
    for tau in range(len(h)):
        e = eta[tau:]
        last = sum(e[k] / e[k + 1 :].sum() * (e[k:] ** 2).sum() * moment / e[k:].sum() for k in range(len(e) - 1))
        values.append(diameter**2 / (2 * e.sum()) + moment * (e**2).sum() / (2 * e.sum()) + last / 2)
    return min(values)


@pytest.mark.parametrize("name", SCHEDULES)
def test_bound_is_the_formula(name: str) -> None:
    h, rates = factors(name, 37), np.array([0.01, 0.3, 7.0])
    expected = [brute_bound(h, rate, 2.5, 1.7) for rate in rates]
    # 1e-12: two orders of a few dozen positive terms.
    np.testing.assert_allclose(bound.bound(h, rates, 2.5, 1.7), expected, rtol=1e-12)


def test_bound_refuses_a_factor_of_zero() -> None:
    with pytest.raises(ValueError, match="leave out the zeros"):
        bound.bound(np.array([1.0, 0.5, 0.0]), np.ones(1), 1, 1)


def test_bound_grows_by_the_power_that_the_paper_names() -> None:
    """10 to 30 times above the best rate: 1/(2p + 1) for degree p, 1/5 for the cosine, nearly 1 without annealing."""
    steps, grid = 20_000, 10.0 ** np.arange(-5, 1, 0.05)

    def exponent(name: str) -> float:
        h = factors(name, steps)
        rates = grid[bound.bound(h, grid, 1, 1).argmin()] * np.array([10.0, 20.0, 30.0])
        return float(subgrids.slope(rates, bound.bound(h, rates, 1, 1)))

    # 0.005: tails that start between two updates; 0.02: the cosine is a square only where it ends.
    assert exponent("linear") == pytest.approx(1 / 3, abs=0.005)
    assert exponent("polynomial 2") == pytest.approx(1 / 5, abs=0.005)
    assert exponent("cosine") == pytest.approx(1 / 5, abs=0.02)
    # Of a fixed rate a shorter tail saves some of a logarithm of its length.
    assert 0.7 < exponent("fixed") < 1
    assert 0.7 < exponent("rsqrt") < 1


def test_optimum_of_the_convex_task_has_no_gradient() -> None:
    problem = logistic.made(3)
    p = 1 / (1 + np.exp(problem.rows @ problem.optimum))
    # 1e-7: the search ends where rounding of f, 1e-16, hides the descent, which is quadratic in the gradient.
    assert np.linalg.norm(problem.rows.T @ p / len(problem.rows)) < 1e-7
    assert 0 < problem.initial < math.log(2)


@pytest.mark.parametrize("radius", [0.5, math.inf])
def test_descent_is_sgd_one_run_at_a_time(radius: float) -> None:
    problem = logistic.made(1, rows=30, dimensions=3)
    rates = np.random.default_rng(0).uniform(0, 5, (4, 25))
    order = np.random.default_rng(9).integers(30, size=25)
    expected = []
    for run in rates:
        w = np.zeros(3)
        for rate, i in zip(run, order, strict=True):
            z = problem.rows[i]
            w = w + rate * z / (1 + math.exp(z @ w))
            w = w if np.linalg.norm(w) <= radius else w * radius / np.linalg.norm(w)
        expected.append(w)
    # 1e-10: 25 updates whose rounding errors are of size 1e-15, and rates that may triple them.
    np.testing.assert_allclose(logistic.descended(problem, rates, radius, 9), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", SCHEDULES)
def test_gaps_are_those_of_torch(name: str) -> None:
    steps, seed, place = 40, 2, 30
    line = descend(Trial("logistic", seed, {"steps": steps, "ball": None}))
    problem = logistic.made(seed)
    w = torch.zeros(50, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.SGD([w], lr=LOGISTIC_RATES[place])
    scheduler = glyder.AnnealedLR(optimizer, steps, **SCHEDULES[name])
    rows = torch.from_numpy(problem.rows)
    for i in np.random.default_rng(seed + 1_000).integers(len(rows), size=steps):
        optimizer.zero_grad()
        torch.nn.functional.softplus(-(rows[i] @ w)).backward()
        optimizer.step()
        scheduler.step()
    gap = torch.nn.functional.softplus(-(rows @ w.detach())).mean() - problem.loss(problem.optimum)
    # 1e-3: lines hold four digits.
    assert line["gaps"][name][place] == pytest.approx(float(gap), rel=1e-3)


def test_net_sweep_puts_every_run_in_its_place() -> None:
    def line(name: str, seed: int, rate: float, error: float | None) -> dict[str, Any]:
        final = {} if error is None else {"error": error}
        options = {"schedule": name, "rate": rate}
        return {"seed": seed, "options": options, "initial": {"error": 0.9 + seed / 100}, "final": final}

    order = {name: 0.1 * (1 + i) for i, name in enumerate(reversed(SCHEDULES))}
    lines = [
        line(name, seed, rate, None if rate == 4 else order[name] + seed / 100 + (rate == 2) / 1000)
        for rate in (4.0, 1.0, 2.0)
        for seed in (1, 2)
        for name in SCHEDULES
    ]
    sweep = net_sweep(lines, "error")
    assert sweep.rates.tolist() == [1, 2, 4]
    # 1e-15: the same sums in another order.
    np.testing.assert_allclose(sweep.scores["cosine"], [[0.11, 0.111, 0.91], [0.12, 0.121, 0.92]], atol=1e-15)
    assert ordering(sweep, 2) == " < ".join(reversed(SCHEDULES))
