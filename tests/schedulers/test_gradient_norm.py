"""The rate from the length of grad f: every base rate of a real run recomputed from the gradients that were drawn."""

from __future__ import annotations

import copy
import itertools
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import glyder
from glyder.schedulers.gradient_norm import squared_lengths

from .problems import batch, mlp, same, train, weights

UPDATES, M = 25, 3


def _flat(model: nn.Module, t: int, at: list[Tensor]) -> Tensor:
    other = copy.deepcopy(model)
    with torch.no_grad():
        for p, x in zip(other.parameters(), at, strict=True):
            p.copy_(x)
    x, y = batch(t, torch.float64)
    found = torch.autograd.grad(F.cross_entropy(other(x), y), list(other.parameters()))
    return torch.cat([g.reshape(-1) for g in found])


def _run(**options: Any) -> tuple[nn.Module, torch.optim.Optimizer, glyder.GradientNormLR]:
    model = mlp(dtype=torch.float64)
    optimizer = torch.optim.SGD(model.parameters())
    data = [batch(t, torch.float64) for t in range(500, 500 + 200)]
    options = {"loss": nn.CrossEntropyLoss(), "batches": data, "n_batches": M, "max_growth": 1e300} | options
    return model, optimizer, glyder.GradientNormLR(optimizer, model, **options)


@pytest.mark.parametrize(("L", "every"), [(2.5, 1), (2.5, 5), (None, 1)])
def test_equals_an_independent_computation(L: float | None, every: int) -> None:
    model, optimizer, scheduler = _run(L=L, every=every, scale=0.7)
    points = []
    for t in range(UPDATES):
        points.append(weights(model))
        train(model, optimizer, range(t, t + 1))
    rows = [row for row in scheduler.history if math.isfinite(row["curvature"])]
    assert len(rows) > 15
    drawn, beta = itertools.count(500), 1 - every / 100
    f = g = k = n = 0.0
    for row in rows:  # measured at x_{t+1}, for the update that comes
        gradients = [_flat(model, next(drawn), points[int(row["update"]) + 1]) for _ in range(M)]
        pairs = [float(a @ b) for a, b in itertools.permutations(gradients, 2)]
        smooth = L if L is not None else row["curvature"] / row["displacement"] ** 2
        f, g = beta * f + sum(pairs) / len(pairs), beta * g + sum(float(a @ a) for a in gradients) / M
        k, n = beta * k + smooth, beta * n + 1
        if f > 0 and k > 0:  # a few thousand roundings of gradients in double
            assert row["base"] == pytest.approx(0.7 * (f / g) / (k / n), rel=1e-10)
    assert scheduler.reasons["kept"] >= len(rows) // 2


def test_the_estimates_are_unbiased() -> None:
    generator = torch.Generator().manual_seed(0)
    truth, spread = torch.tensor([0.3, -0.2]).double(), torch.tensor([1.0, 0.4]).double()
    found = []
    for _ in range(5000):
        drawn = [[truth + spread * torch.randn(2, dtype=torch.float64, generator=generator), None] for _ in range(3)]
        of = squared_lengths(drawn)
        found.append([of["ff"], of["gg"]])
    seen = torch.tensor(found, dtype=torch.float64)
    wanted = torch.stack([truth.square().sum(), (truth.square() + spread.square()).sum()])
    error = seen.std(0) / math.sqrt(len(seen))
    assert torch.all((seen.mean(0) - wanted).abs() < 4 * error)
    assert torch.all(error < 0.03), "the bound says something"


def test_resumed_to_the_bit() -> None:
    ends = []
    for stop in (None, 13):
        model, optimizer, scheduler = _run(L=3.0)
        train(model, optimizer, range(UPDATES if stop is None else stop))
        if stop is not None:
            state = copy.deepcopy([model.state_dict(), optimizer.state_dict(), scheduler.state_dict()])
            model, optimizer, scheduler = _run(L=3.0)
            for part, saved in zip((model, optimizer, scheduler), state, strict=True):
                part.load_state_dict(saved)
            train(model, optimizer, range(stop, UPDATES))
        ends.append([weights(model), scheduler.get_last_lr(), scheduler.history.tolist()])
    assert same(*ends)


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"n_batches": 1}, ValueError, r"GradientNormLR\(n_batches=...\) must be >= 2, got 1"),
        ({"L": 0.0}, ValueError, r"GradientNormLR\(L=...\) must be > 0"),
        ({"L": math.inf}, ValueError, r"GradientNormLR\(L=...\) must be > 0 and finite"),
        ({"batches": None}, ValueError, r"GradientNormLR\(batches=None\)"),
        ({"scope": "group"}, TypeError, "has no scope=..."),
        ({"act": "same-step"}, TypeError, "has no act=..."),
    ],
)
def test_wrong_arguments(options: dict[str, Any], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        _run(**options)


@pytest.mark.parametrize("options", [{"momentum": 0.9}, {"weight_decay": 0.1}])
def test_plain_sgd_only(options: dict[str, float]) -> None:
    model = mlp()
    for optimizer in (torch.optim.SGD(model.parameters(), **options), torch.optim.Adam(model.parameters())):
        with pytest.raises(ValueError, match="must be torch.optim.SGD with momentum=0 and weight_decay=0"):
            glyder.GradientNormLR(optimizer, model, loss=nn.CrossEntropyLoss(), batches=[batch(0)])
