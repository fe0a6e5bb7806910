"""Slope and curvature of every parameter by itself: unbiased estimates of what autograd says, and turned directions."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, hessian, jvp

from glyder.probe import estimators
from glyder.probe.update_direction import Direction
from glyder.vectors.inner_products import inner_products

from .truth import direction_of, sample_of

DRAWS = 600
X = torch.randn(12, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
LABELS = torch.randint(3, (12,), generator=torch.Generator().manual_seed(2))
TARGETS = torch.randn(12, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


def _model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)).double()


def _truth(direction: Direction, squared: bool, exact: bool) -> tuple[list[float], list[float]]:
    """<grad_l f, delta_l> and delta_l^T C_ll delta_l at the origin; C the Hessian (exact) or the Gauss-Newton."""
    model = direction.model
    names = [n for n, _ in model.named_parameters()]
    origin = [p.detach() + direction.origin * d for p, d in zip(direction.params, direction.deltas, strict=True)]
    point = dict(zip(names, origin, strict=True))

    def loss(z: Tensor) -> Tensor:
        return F.mse_loss(z, TARGETS) if squared else F.cross_entropy(z, LABELS)

    def outputs(parameters: dict[str, Tensor]) -> Tensor:
        return functional_call(model, parameters, (X,))

    slopes, bends = [], []
    for i, name in enumerate(names):
        tangent = {n: torch.zeros_like(p) for n, p in point.items()} | {name: direction.deltas[i]}
        z, u = jvp(outputs, (point,), (tangent,))
        slopes.append(float(jvp(loss, (z,), (u,))[1]))
        if exact:

            def along(c: Tensor, tangent: dict[str, Tensor] = tangent) -> Tensor:
                return loss(outputs({n: p + c * tangent[n] for n, p in point.items()}))

            bends.append(float(hessian(along)(torch.zeros((), dtype=torch.float64))))
        else:
            H = hessian(loss)(z).reshape(z.numel(), z.numel())
            bends.append(float(u.reshape(-1) @ H @ u.reshape(-1)))
    return slopes, bends


CASES: dict[str, tuple[Any, bool, Any, bool]] = {
    "gauss-newton": (estimators.GaussNewton(), False, None, False),
    "squared error": (estimators.GaussNewton(), True, "squared_error", False),
    "drawn labels": (estimators.GaussNewtonBartlett(draws=2, seed=5), False, None, False),
    "projection": (estimators.Projection("hvp"), False, lambda model, _: F.cross_entropy(model(X), LABELS), True),
}


@pytest.mark.parametrize("source", ["gradients", "outputs"])
@pytest.mark.parametrize("origin", [0.0, 1.0])
@pytest.mark.parametrize("name", CASES)
def test_unbiased(name: str, origin: float, source: Any) -> None:
    estimator, squared, loss, exact = CASES[name]
    model = _model()

    def step() -> None:
        z = model(X)
        (F.mse_loss(z, TARGETS) if squared else F.cross_entropy(z, LABELS)).backward()

    start = [p.detach().clone() for p in model.parameters()]
    step()
    direction = direction_of(model, origin=origin)
    sample = sample_of(model, direction, step, loss)
    with torch.no_grad():  # the update that the batch was made from
        for p, d, x in zip(model.parameters(), direction.deltas, start, strict=True):
            p.copy_(x - origin * d)
    slopes, bends = _truth(direction, squared, exact)
    blocks = [[i] for i in range(4)]
    found = [estimator.parts(direction, sample, blocks, draw, source) for draw in range(DRAWS)]
    for parts in found:
        # Projection takes the middle of two gradients: off by a third derivative times the squared probe of 1e-3.
        assert parts.slopes == pytest.approx(slopes, rel=1e-4, abs=1e-6 * max(map(abs, slopes)))
    drawn = torch.tensor([parts.curvatures for parts in found])
    spread = drawn.std(0) / math.sqrt(DRAWS)
    # Five standard errors; 1e-6 for the truncation of a central difference where signs do not matter.
    assert torch.all((drawn.mean(0) - torch.tensor(bends)).abs() <= 5 * spread + 1e-6 * torch.tensor(bends).abs())
    assert torch.all(spread < 0.2 * torch.tensor(bends).abs().max()), "the bound says something"


def test_blocks_are_moved_together() -> None:
    """One block of everything has the draw of the whole, and the slope of the whole."""
    model = _model()

    def step() -> None:
        F.cross_entropy(model(X), LABELS).backward()

    step()
    direction = direction_of(model)
    sample = sample_of(model, direction, step)
    estimator = estimators.GaussNewtonBartlett(draws=3)
    parts = estimator.parts(direction, sample, [[0, 1, 2, 3]], 7, "gradients")
    whole = estimator.measure(direction, sample, 7)
    assert parts.curvatures == pytest.approx([whole.curvature], rel=1e-13)  # the same sum in another order
    assert parts.slopes == pytest.approx([whole.slope], rel=1e-13)


def test_a_custom_estimator_without_parts_says_so() -> None:
    with pytest.raises(estimators.EstimatorError, match="scope='global' or 'group'"):
        estimators.Estimator().parts(direction_of(_model()), None, [[0]], 0, "gradients")  # type: ignore[arg-type]


@pytest.mark.parametrize("origin", [0.0, 1.0])
def test_a_turned_direction_is_the_direction_with_other_displacements(origin: float) -> None:
    """From the same origin: x_{t+1} + origin*delta, whatever the factors."""
    model = _model()
    k = [2.0, -1.0, 0.0, 0.5]
    plain = direction_of(model, origin=origin)
    turned = dataclasses.replace(plain, factors=k)
    deltas = [f * d for f, d in zip(k, plain.deltas, strict=True)]
    assert turned.dd == pytest.approx(inner_products([deltas], [(0, 0)])[0], rel=1e-14)
    vector = [torch.randn_like(d) for d in deltas]
    expected = inner_products([vector, deltas], [(0, 1)])[0]
    assert turned.dot([None, *vector[1:]]) == pytest.approx(
        inner_products([vector[1:], deltas[1:]], [(0, 1)])[0], rel=1e-13
    )
    assert turned.dot(vector) == pytest.approx(expected, rel=1e-13)
    for got, p, d, e in zip(turned.moved(0.3), plain.params, plain.deltas, deltas, strict=True):
        assert torch.allclose(got, p.detach() + origin * d + 0.3 * e, rtol=1e-14, atol=1e-15)
    assert turned.only([0, 3]).factors == [2.0, 0.5]
