"""The starting rate plays no part, in single precision and with bfloat16 weights."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

import glyder

from .problems import backward, batch, mlp, same, train, weights
from .small import BOTH

UPDATES = 40


def _run(make: Any, lr: Any, dtype: torch.dtype, optimizer: type, **options: Any) -> tuple[Any, ...]:
    model = mlp(dtype=dtype)
    o = optimizer(model.parameters(), lr=lr, **options)
    scheduler = make(o, model, total_steps=UPDATES)
    rates = []
    for t in range(UPDATES):
        train(model, o, range(t, t + 1))
        rates.append(float(scheduler.get_last_lr()[0]))
    return weights(model), rates, scheduler.history.tolist()


@BOTH
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize(
    ("optimizer", "options"),
    [(torch.optim.SGD, {}), (torch.optim.SGD, {"momentum": 0.9}), (torch.optim.AdamW, {"weight_decay": 0.1})],
    ids=["sgd", "momentum", "adamw"],
)
def test_runs_from_any_rate_are_the_same_bits(
    dtype: torch.dtype, optimizer: type, options: dict[str, Any], make: Any
) -> None:
    first = _run(make, 1e-3, dtype, optimizer, **options)
    for lr in (1e-9, 10.0):
        assert same(_run(make, lr, dtype, optimizer, **options), first)
    if optimizer is torch.optim.SGD:
        return
    tensors = [_run(make, torch.tensor(lr, dtype=torch.float64), dtype, optimizer, **options) for lr in (1e-9, 10.0)]
    assert same(tensors[0], tensors[1])


@BOTH
def test_bf16_weights_learn(make: Any) -> None:
    model = mlp(dtype=torch.bfloat16)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-9)
    make(optimizer, model, total_steps=150)
    x, y = batch(9999, torch.bfloat16)

    def accuracy() -> float:
        with torch.no_grad():
            return float((model(x).argmax(1) == y).double().mean())

    start = accuracy()
    train(model, optimizer, 150)
    assert start < 0.5  # four classes
    assert accuracy() > 0.8


@BOTH
@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW], ids=["sgd", "adamw"])
def test_the_rate_is_never_zero_and_the_first_step_is_small(kind: Any, make: Any) -> None:
    model = mlp()
    optimizer = kind(model.parameters(), lr=10.0)
    scheduler = make(optimizer, model)
    before = weights(model)
    backward(model, 0)
    optimizer.step()
    assert scheduler.get_last_lr()[0] > 0
    moved = sum(float((a - b).pow(2).sum()) for a, b in zip(before, weights(model), strict=True)) ** 0.5
    length = sum(float(a.pow(2).sum()) for a in before) ** 0.5
    assert 0 < moved < 1e-2 * length


class _Wells(torch.nn.Module):
    """The mean of (x^2 - a^2)^2 over the entries of x: bent down where 3 x^2 < a^2, and least at a and -a."""

    def __init__(self, start: float) -> None:
        super().__init__()
        self.x = torch.nn.Parameter(torch.tensor([start, -start, 2 * start, -2 * start], dtype=torch.float64))

    def forward(self, a: torch.Tensor) -> torch.Tensor:
        return (self.x.square() - a.square()).square().mean()


def _fall(start: float, updates: int, **options: Any) -> tuple[glyder.LocalOptimumLR, float]:
    """Train from near the ridge at 0; the scheduler and the loss at the end, which starts at 1."""
    model, a = _Wells(start), torch.ones((), dtype=torch.float64)
    optimizer = torch.optim.SGD(model.parameters())
    scheduler = glyder.LocalOptimumLR(
        optimizer, model, total_steps=updates, loss=lambda model, call: model(*call.args), **options
    )
    for _ in range(updates):
        optimizer.zero_grad()
        loss = model(a)
        loss.backward()
        optimizer.step()
    return scheduler, loss.item()


@pytest.mark.parametrize("refresh", ["window", "always"])
@pytest.mark.parametrize("estimator", ["hvp", "gradient", "loss"])
def test_where_the_loss_bends_down_the_rate_rises_until_it_bends_up(estimator: str, refresh: str) -> None:
    """A curvature below zero says of the rate that it is too small, and no more: the first one is not kept."""
    scheduler, loss = _fall(0.1, 100, estimator=estimator, refresh=refresh)
    assert scheduler.reasons["no_curvature"] > 0
    assert loss < 1e-3


@pytest.mark.parametrize("scope", ["group", "tensor"])
def test_so_it_does_where_groups_have_rates_of_their_own(scope: Any) -> None:
    scheduler, loss = _fall(0.1, 100, estimator="hvp", scope=scope)
    assert scheduler.reasons["no_curvature"] > 0
    assert loss < 1e-3


def test_the_rise_ends_at_max_lr() -> None:
    scheduler, _ = _fall(1e-4, 30, estimator="hvp", refresh="always", max_lr=0.01)
    assert scheduler.reasons["no_curvature"] > 20
    assert scheduler.get_last_lr()[0] == 0.01


@pytest.mark.parametrize("growth", [3.0, math.inf])
def test_the_rise_ends_where_steps_are_a_tenth_of_the_parameters(growth: float) -> None:
    """Of a loss without an end, -||x||^2."""

    class Ridge(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.x = torch.nn.Parameter(torch.ones(4, dtype=torch.float64))

        def forward(self, one: torch.Tensor) -> torch.Tensor:
            return -(one * self.x.square()).sum()

    model = Ridge()
    x = model.x
    optimizer = torch.optim.SGD([x])
    glyder.LocalOptimumLR(
        optimizer, model, total_steps=60, estimator="hvp", refresh="always", max_growth=growth,
        loss=lambda model, call: model(*call.args),
    )  # fmt: skip
    longest = 0.0
    for _ in range(60):
        optimizer.zero_grad()
        model(torch.ones(())).backward()
        before = x.detach().clone()
        optimizer.step()
        longest = max(longest, float((x.detach() - before).norm() / before.norm()))
    # The step that a rise follows from is shorter than the one that it leads to, by what the gradient grows.
    assert 0.01 < longest <= 0.1 * (1 + 1e-9)
