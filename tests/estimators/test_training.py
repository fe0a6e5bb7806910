"""Whole measurements in a training loop, through the scheduler: clipping, loss scaling, autocast, half precision."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import glyder

from . import truth

UPDATES = 12


def batches() -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(5)
    teacher = torch.randn(12, 7, generator=generator)
    xs = [torch.randn(32, 12, generator=generator) for _ in range(UPDATES)]
    return [(x, (x @ teacher).argmax(1)) for x in xs]


def optimal(history: np.ndarray) -> np.ndarray:
    """The locally optimal rates that were measured."""
    return history["optimal"][np.isfinite(history["optimal"])]


def sources(history: np.ndarray) -> list[str]:
    return [str(s) for s in history["source"][np.isfinite(history["optimal"])]]


def train(
    *,
    factor: float = 1.0,
    clip: float | None = None,
    autocast_step: bool = False,
    model: nn.Module | None = None,
    **options: Any,
) -> Any:
    """Watch a run at a rate of its own, so that every variant goes the same way."""
    torch.manual_seed(0)
    model = truth.mlp() if model is None else model
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    scheduler = glyder.LocalOptimumLR(optimizer, model, observe_only=True, **options)
    criterion = options.get("loss", F.cross_entropy)
    for x, y in batches():
        optimizer.zero_grad()
        (criterion(model(x.to(next(model.parameters()).dtype)).float(), y) * factor).backward()
        for p in model.parameters():
            p.grad /= factor
        if clip is not None:
            # The observed run must not change: shorten what the scheduler sees, and make up for it in the rate.
            norm = float(nn.utils.clip_grad_norm_(model.parameters(), float("inf")))
            nn.utils.clip_grad_norm_(model.parameters(), clip * norm)
            optimizer.param_groups[0]["lr"] = 0.05 / clip
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast_step):
            optimizer.step()
    return scheduler


@pytest.mark.parametrize("loss", [None, nn.CrossEntropyLoss()], ids=["inferred", "declared"])
@pytest.mark.parametrize("estimator", ["gauss-newton", "gnb"])
def test_clipped_and_scaled_gradients_leave_the_optimal_rate(estimator: str, loss: Any) -> None:
    options = {"estimator": estimator} | ({} if loss is None else {"loss": loss})
    plain = train(**options)
    expected = optimal(plain.history)
    assert len(expected) >= UPDATES - 2
    assert set(sources(plain.history)) == {"gradients"}
    for change in ({"factor": 65536.0}, {"clip": 0.1}, {"factor": 65536.0, "clip": 0.1}):
        found = train(**change, **options)
        assert set(sources(found.history)) == {"outputs"}
        rates = optimal(found.history) * change.get("clip", 1.0)  # ten times the rate on a tenth of the direction
        # The slope comes from the outputs instead of the gradient: single precision, of differences.
        np.testing.assert_allclose(rates, expected, rtol=2e-3)


def test_a_step_inside_autocast_measures_in_single_precision() -> None:
    np.testing.assert_array_equal(optimal(train(autocast_step=True).history), optimal(train().history))


class Stubborn(nn.Module):
    """Cannot run in single precision: it makes half-precision numbers by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(12, 32), nn.Linear(32, 7)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x.to(torch.bfloat16)).tanh())


def test_a_model_that_insists_on_half_precision_is_measured_in_it_and_that_is_said() -> None:
    torch.manual_seed(0)
    model = Stubborn().bfloat16()
    twin = Stubborn()
    twin.load_state_dict({k: v.float() for k, v in model.state_dict().items()})
    with pytest.warns(glyder.GlyderWarning, match="does not run in single precision"):
        found = train(model=model)
    rates = optimal(found.history)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        easy = nn.Sequential(twin.a, nn.Tanh(), twin.b)
        expected = optimal(train(model=easy).history)
    assert len(rates) >= UPDATES // 2
    # Rounding of each weight by 2**-9 against steps of 2**-5, and of the update itself.
    assert np.median(rates) == pytest.approx(np.median(expected), rel=0.3)
