"""On a quadratic with known Hessian, scale=1 is the exact line search."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import glyder

# The curvature comes from a central difference, exact for a linear model but for rounding: outputs are known to
# 2**-53, and the difference of two of them, at a relative distance of 2e-3, to 2**-53/2e-3 = 6e-14. Averages over 40
# rows and a slope with some cancellation leave a factor of about ten.
EXACT = 1e-12

ROWS, INPUTS = 40, 5


def _problem() -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    x = torch.randn(ROWS, INPUTS, dtype=torch.float64)
    y = torch.randn(ROWS, 1, dtype=torch.float64)
    return nn.Linear(INPUTS, 1, bias=False).double(), x, y


@pytest.mark.parametrize("estimator", ["gauss-newton", "hvp", "gradient"])
def test_exact_line_search_along_any_direction(estimator: str) -> None:
    model, x, y = _problem()
    hessian = 2 / ROWS * x.T @ x
    optimizer = torch.optim.Adam(model.parameters(), betas=(0.5, 0.9))
    criterion = nn.MSELoss()
    scheduler = glyder.LocalOptimumLR(
        optimizer, model, every=1, refresh="always", scale=1.0, estimator=estimator, loss=criterion, warmup=0
    )
    points = [model.weight.detach().clone()]
    for _ in range(8):
        optimizer.zero_grad()
        criterion(model(x), y).backward()
        optimizer.step()
        points.append(model.weight.detach().clone())
    checked = 0
    for row in scheduler.history:
        if row["reason"] != "kept":
            continue
        t = int(row["update"])
        d = ((points[t] - points[t + 1]) / row["lr"])[0]  # what one unit of rate does
        gradient = (2 / ROWS * x.T @ (x @ points[t].T - y))[:, 0]
        wanted = (gradient @ d) / (d @ hessian @ d)
        # delta itself is a difference of points: rounding of x relative to delta, 2**-53 ||x||/||delta||.
        resolved = 2**-53 * float(points[t].norm() / (points[t] - points[t + 1]).norm())
        assert row["optimal"] == pytest.approx(float(wanted), rel=EXACT + 10 * resolved)
        checked += 1
    assert checked >= 6


def test_in_one_dimension_it_lands_on_the_minimum() -> None:
    x = torch.tensor([[1.0], [2.0], [-3.0]], dtype=torch.float64)
    y = torch.tensor([[0.5], [-1.0], [2.0]], dtype=torch.float64)
    model = nn.Linear(1, 1, bias=False).double()
    nn.init.constant_(model.weight, 5.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=17.0)
    scheduler = glyder.LocalOptimumLR(
        optimizer,
        model,
        every=1,
        refresh="always",
        anneal=None,
        warmup=0,
        max_growth=1e300,
        loss="squared_error",
    )
    while "kept" not in scheduler.reasons:
        optimizer.zero_grad()
        F.mse_loss(model(x), y).backward()
        optimizer.step()
    minimum = float((x * y).sum() / (x * x).sum())
    # The rate carries the relative error EXACT, and the step from 5 to the minimum is of length 5.
    assert model.weight.item() == pytest.approx(minimum, abs=6 * EXACT * 10)
