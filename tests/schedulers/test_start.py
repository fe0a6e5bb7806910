"""The starting rate plays no part, in single precision and with bfloat16 weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import glyder

from .problems import backward, batch, mlp, same, train, weights

UPDATES = 40


def _run(lr: float | torch.Tensor, dtype: torch.dtype, optimizer: type, **options: Any) -> tuple[Any, ...]:
    model = mlp(dtype=dtype)
    o = optimizer(model.parameters(), lr=lr, **options)
    scheduler = glyder.GlyderLR(o, model, total_steps=UPDATES)
    rates = []
    for t in range(UPDATES):
        train(model, o, range(t, t + 1))
        rates.append(float(scheduler.get_last_lr()[0]))
    return weights(model), rates, scheduler.history.tolist()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize(
    ("optimizer", "options"),
    [(torch.optim.SGD, {}), (torch.optim.SGD, {"momentum": 0.9}), (torch.optim.AdamW, {"weight_decay": 0.1})],
    ids=["sgd", "momentum", "adamw"],
)
def test_runs_from_any_rate_are_the_same_bits(dtype: torch.dtype, optimizer: type, options: dict[str, Any]) -> None:
    first = _run(1e-3, dtype, optimizer, **options)
    for lr in (1e-9, 10.0):
        assert same(_run(lr, dtype, optimizer, **options), first)
    if optimizer is torch.optim.SGD:
        return
    tensors = [_run(torch.tensor(lr, dtype=torch.float64), dtype, optimizer, **options) for lr in (1e-9, 10.0)]
    assert same(tensors[0], tensors[1])


def test_bf16_weights_learn() -> None:
    model = mlp(dtype=torch.bfloat16)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-9)
    glyder.GlyderLR(optimizer, model, total_steps=150)
    x, y = batch(9999, torch.bfloat16)

    def accuracy() -> float:
        with torch.no_grad():
            return float((model(x).argmax(1) == y).double().mean())

    start = accuracy()
    train(model, optimizer, 150)
    assert start < 0.5  # four classes
    assert accuracy() > 0.8


def test_the_rate_is_never_zero_and_the_first_step_is_small() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=10.0)
    scheduler = glyder.GlyderLR(optimizer, model)
    before = weights(model)
    backward(model, 0)
    optimizer.step()
    assert scheduler.get_last_lr()[0] > 0
    moved = sum(float((a - b).pow(2).sum()) for a, b in zip(before, weights(model), strict=True)) ** 0.5
    length = sum(float(a.pow(2).sum()) for a in before) ** 0.5
    assert 0 < moved < 1e-2 * length
