"""Measured back at x_t, on the data that an update was made from: every estimator against autograd at x_t.

The parameters stand at x_{t+1} when it is measured; truths are taken before they are moved there.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from glyder.probe.estimators import Estimator, GaussNewton, GaussNewtonBartlett, Projection, Smoothness
from glyder.probe.update_direction import Direction

from . import truth

SIZE = 0.1
"""Relative length of the update: long enough that slope and curvature differ between its two ends."""


class Made:
    """A model that an update has moved, what was seen of its batch, and autograd's answers at both ends."""

    def __init__(self, name: str, part: slice = slice(None), size: float = SIZE) -> None:
        torch.manual_seed(1)
        model, x, labels = truth.cases()[name](torch.float64)
        loss = truth.cross_entropy(labels)
        loss(model(x)).backward()
        params = list(model.parameters())
        deltas = truth.displacement(params, size)
        state = torch.get_rng_state()
        forward = truth.replayed(state, lambda m: m(x))
        # A part of the direction moves some of the parameters while the others stay at x_t.
        chosen = range(len(params))[part]
        moving = [d if i in chosen else torch.zeros_like(d) for i, d in enumerate(deltas)]

        def evaluate(m: Any) -> torch.Tensor:
            return loss(forward(m))

        self.gn = truth.gauss_newton(model, forward, loss, moving)
        self.h = truth.hessian(model, evaluate, moving)
        whole = Direction(model, params, deltas, [f"parameter {i}" for i in range(len(params))], origin=1.0)
        self.direction = whole if part == slice(None) else whole.only(list(chosen))
        self.sample = truth.sample_of(
            model,
            self.direction,
            lambda: loss(model(x)).backward(),
            loss=lambda m, batch: loss(m(*batch.args, **batch.kwargs)),
        )
        with torch.no_grad():
            for p, d in zip(params, deltas, strict=True):
                p.sub_(d)
        self.gn_after = truth.gauss_newton(model, forward, loss, moving)
        self.h_after = truth.hessian(model, evaluate, moving)


# Relative to the curvature of Gauss-Newton. "hvp" is exact but for rounding, and x_{t+1} + delta is x_t but for a last
# bit; the others are differences with relative steps of 1e-3 or more, see test_values.
BOUNDS = {
    "gauss-newton": (GaussNewton(), 1e-4),
    "hvp": (Projection("hvp"), 1e-11),
    "gradient": (Projection("gradient"), 1e-3),
    "loss": (Projection("loss"), 1e-3),
}


@pytest.mark.parametrize("name", truth.cases())
@pytest.mark.parametrize("part", [slice(None), slice(1, 3)], ids=["whole", "part"])
@pytest.mark.parametrize("method", BOUNDS)
def test_slope_and_curvature_are_those_before_the_update(method: str, part: slice, name: str) -> None:
    made = Made(name, part=part)
    estimator, bound = BOUNDS[method]
    which, after = (made.gn, made.gn_after) if method == "gauss-newton" else (made.h, made.h_after)
    found = estimator.measure(made.direction, made.sample, 0)
    scale = made.gn[1]
    assert abs(which[1] - after[1]) > 10 * bound * scale, "the curvature at the other end is another"
    assert abs(which[0] - after[0]) > 1e-2 * abs(which[0]), "and so is the slope"
    assert found.source == "gradients"
    assert found.slope == pytest.approx(which[0], rel=1e-10)  # rounding of an inner product that cancels a little
    assert abs(found.curvature - which[1]) <= bound * scale


@pytest.mark.parametrize("estimator", [GaussNewton(), GaussNewtonBartlett(), Projection("hvp")], ids=str)
def test_the_slope_beside_a_clipped_gradient_is_that_before_the_update(estimator: Estimator) -> None:
    made = Made("mlp")
    for g in made.sample.gradients:
        assert g is not None
        g.mul_(0.1)
    found = estimator.measure(made.direction, made.sample, 0)
    assert found.source in ("outputs", "loss")
    # In the outputs it is a central difference with a relative step of 1e-3.
    assert found.slope == pytest.approx(made.gn[0], rel=1e-4)
    assert abs(made.gn[0] - made.gn_after[0]) > 1e-2 * made.gn[0]


def test_sampled_labels_are_unbiased_before_the_update() -> None:
    """The mean of many draws within three standard errors of the exact value (fixed seed), which are below 2 %."""
    made = Made("mlp", size=0.5)
    q = [GaussNewtonBartlett().measure(made.direction, made.sample, i).curvature for i in range(5500)]
    draws = torch.tensor(q, dtype=torch.float64)
    error = float(draws.std()) / math.sqrt(len(draws))
    assert error < 0.02 * made.gn[1]
    assert abs(float(draws.mean()) - made.gn[1]) <= 3 * error
    assert abs(made.gn[1] - made.gn_after[1]) > 6 * error, "which tells it from the value after the update"


def test_smoothness_takes_the_gradient_that_made_the_update() -> None:
    made = Made("mlp")
    found = Smoothness(3.0).measure(made.direction, made.sample, 0)
    assert found.slope == pytest.approx(made.gn[0], rel=1e-10)
    assert found.curvature == pytest.approx(3 * float(truth.dot(made.direction.deltas, made.direction.deltas)))


@pytest.mark.parametrize("native", [False, True])
def test_half_precision_weights_go_back_to_where_they_were(native: bool) -> None:
    """In single precision x_{t+1} + delta is x_t to the bit of bfloat16; so it is where the model insists on it."""
    model, _, _ = truth.cases()["mlp"](torch.bfloat16)
    before = [p.detach().clone() for p in model.parameters()]
    with torch.no_grad():
        for p in model.parameters():
            p.sub_(0.1 * torch.randn_like(p))
    params = list(model.parameters())
    deltas = [b.float() - p.detach().float() for b, p in zip(before, params, strict=True)]
    direction = Direction(model, params, deltas, params, origin=1.0, native=native)
    for moved, b in zip(direction.moved(0.0), before, strict=True):
        assert moved.dtype == (torch.bfloat16 if native else torch.float32)
        assert torch.equal(moved.bfloat16(), b)
