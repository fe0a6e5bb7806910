"""The witnesses of a ramp, where calculus tells them, and the errors of predictors on made-up peaks."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.harness.run import Run
from benchmarks.harness.store import Store
from benchmarks.harness.tuning import Peak
from benchmarks.studies import ramp, scale
from benchmarks.studies.ramp import MEMORY, Trace, climb, witnesses
from benchmarks.tasks.common.task import Problem, Task

from .made import line, task

STEPS = 300


def quadratic(curvature: float) -> Task:
    """curvature/2 ||x||^2 from a vector of length 3, without noise."""

    def build(seed: int) -> Problem:
        model = nn.Linear(3, 1, bias=False).double()
        with torch.no_grad():
            model.weight.copy_(torch.tensor([[1.0, 2.0, 2.0]]))
        return Problem(
            model,
            lambda model, _: curvature / 2 * model.weight.square().sum(),
            itertools.repeat(None),
            lambda model, part: {},
        )

    return Task("bowl", "bowl", build, STEPS, {})


@pytest.mark.parametrize("pace", scale.PACES)
@pytest.mark.parametrize("curvature", [0.01, 30.0])
def test_gradient_descent_on_a_bowl(curvature: float, pace: float) -> None:
    """x goes to (1 - eta curvature) x: the next gradient turns against the step at 1/curvature, and grows from
    2/curvature on."""
    trace = climb(quadratic(curvature), "SGD", 1, pace)
    told = witnesses(trace, STEPS)
    # an exponential mean of +1, then -1, crosses zero log(2) of its memory later; an update is log10(pace)
    zero, slack = -math.log10(curvature) - (1 - math.log(2)) * MEMORY, 2 * math.log10(pace)
    for name in ("mean cosine, first zero", "whole vector's cosine, last zero", "mean of the matrices' first zeros"):
        assert told[name] == pytest.approx(zero, abs=slack)
    edge = math.log10(2 / curvature)
    assert edge < told["gradient threefold"] + MEMORY < edge + 3 * MEMORY
    assert told["least loss"] < told["loss risen"]
    # a step is eta curvature ||x||, a linear decay has T/3 squares; ||x|| has shrunk a little where it is measured
    assert told["walk, whole vector"] == told["walk, sum over matrices"]
    walk = -0.5 * math.log10(curvature**2 * STEPS / 3)
    assert walk <= told["walk, whole vector"] < walk + 0.6


def test_a_ramp_is_geometric() -> None:
    """From the second update on, which moves by the ten thousandth of the length, until the loss is three times 9/2."""
    trace = climb(quadratic(1.0), "SGD", 1, 1.2)
    assert np.diff(trace.rates[1:]) == pytest.approx(math.log10(1.2))
    assert math.sqrt(trace.products[1, 1].sum()) == pytest.approx(3e-4, rel=1e-3)
    smoothed = ramp.smoothed(np.concatenate(([4.5], trace.losses)), 1.2)
    assert trace.losses[-1] > ramp.GONE * 4.5
    assert smoothed[-3] < ramp.GONE * 4.5


def trace(cosines: np.ndarray, matrices: list[bool]) -> Trace:
    """Rates of 1e-5 and up, steps of length eta, gradients of length 1; [updates, tensors]."""
    rates = -5 + 0.05 * np.arange(len(cosines))
    dd = np.repeat(10 ** (2 * rates)[:, None], cosines.shape[1], 1)
    gg = np.ones_like(cosines)
    products = np.stack((cosines * np.sqrt(dd), dd, gg), 1)
    return Trace(10**0.05, np.array(matrices), np.full(cosines.shape[1], 4.0), rates, np.ones(len(rates)), products)


def test_each_matrix_has_one_vote() -> None:
    """Two matrices that turn at 1e-3 and 1e-2, and a vector that does at once."""
    at = (-5 + 0.05 * np.arange(100))[:, None]
    told = witnesses(trace(np.where(at < [[-3.0, -2.0, -9.0]], 1.0, -1.0), [True, True, False]), STEPS)
    lag = -(1 - math.log(2)) * MEMORY
    assert told["mean of the matrices' first zeros"] == pytest.approx(-2.5 + lag, abs=0.05)
    assert told["mean cosine, last zero"] == pytest.approx(-2.0 + lag, abs=1.0)
    # squares add up: two matrices of length 2 that move by 1, and three tensors of length 2
    assert told["walk, sum over matrices"] == pytest.approx(-0.5 * math.log10(2 / 4 * STEPS / 3))
    assert told["walk, whole vector"] == pytest.approx(-0.5 * math.log10(3 / 12 * STEPS / 3))


def test_a_trace_ends_where_it_is_not_finite() -> None:
    """What is never met is at the last rate."""
    cosines = np.ones((60, 1))
    cosines[50:] = math.nan
    told = witnesses(trace(cosines, [True]), STEPS)
    assert told["mean cosine, first zero"] == pytest.approx(-5 + 0.05 * 49 - MEMORY)


def test_left_out_is_left_out() -> None:
    """Three families on a line and one off it: the line does not know of the one that it predicts."""
    x = np.array([[0.0], [1.0], [2.0], [5.0]])
    y = np.array([1.0, 3.0, 5.0, 0.0])
    errors = scale.left_out(x, y, ["a", "b", "c", "d"])
    assert errors[3] == pytest.approx(11.0)
    constant = scale.left_out(np.empty((4, 0)), y, ["a", "a", "b", "b"])
    assert constant == pytest.approx([2.5 - 1, 2.5 - 3, 2.0 - 5, 2.0 - 0])
    assert np.isnan(scale.left_out(x, y, ["a"] * 4)).all()


def test_summary(tmp_path: Path) -> None:
    """A predictor that is a constant off, two that tell together what neither does alone, and glyder's own; a task that
    is apart, on which all are far off, does not count."""
    store, generator = Store(tmp_path / "scale.jsonl"), np.random.default_rng(0)
    halves = dict(zip("abcdefgh", range(-4, 4), strict=True))
    for name, half in halves.items():
        part = float(generator.standard_normal()) + 100 * (name == "h")
        seen = {
            "off": half / 2 + 0.5,
            "part": part,
            "rest": half / 2 - part,
            "noise": float(generator.standard_normal()),
        }
        for seed, away in zip(scale.SEEDS, (0.1, -0.1), strict=True):  # the mean over seeds counts
            found = {key: value + away for key, value in seen.items()}
            for pace in scale.PACES:
                store.add(line(Run(name, "SGD", scale.RAMP, seed, {"pace": pace}), 1.0, found=found, recipe="any"))
            for recipe, off in (("now", 0.2), ("old", 9.0)):
                run = Run(name, "SGD", scale.SEARCH, seed)
                ours = {"found": {scale.OURS: half / 2 + off}, "recipe": recipe, "key": f"{run.key} {recipe}"}
                store.add(line(run, 1.0) | ours)
    known = {name: task(name, apart=name == "h") for name in halves}
    peaks = {(name, "SGD"): Peak(half, "5%", {}) for name, half in halves.items()}
    rows = {row.name: row for row in scale.summary(peaks, scale.found(store, "now"), known)}
    assert {row.pairs for row in rows.values()} == {7}
    assert rows["off, 1.07"].plain == pytest.approx(0.5)
    assert rows["off, 1.07"].fitted == pytest.approx(0.0, abs=1e-12)
    assert (rows[scale.OURS].plain, rows[scale.OURS].fitted) == pytest.approx((0.2, 0.0))
    # half-decades -4 to 2, each against the mean of the other six: 7/6 of what it is off the mean of all, 2 rms
    assert rows["one constant"].fitted == pytest.approx(7 / 6 * 2 / 2)
    assert rows["part + rest, 1.2"].fitted == pytest.approx(0.0, abs=1e-9)
    assert sum(" + " in name for name in rows) == 2 * 2 * scale.BEST
