"""A rate for each tensor: coupled tensors are never worse off than with the rates they had, whatever the estimates."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import glyder
from glyder import _core
from glyder.probe.tensor_rates import tensor_rates

from .problems import batch, mlp, slope_and_curvature, train, weights

UPDATES = 30
Rules = dict[int, _core.Rule]


def _rates(
    A: torch.Tensor, L: torch.Tensor, rates: list[float], guess: Sequence[float], rules: Rules | None = None
) -> list[float] | None:
    """New rates on a quadratic with the slopes A and curvatures L per unit of rate, estimated as ``guess``."""
    rules = {} if rules is None else rules
    r = torch.tensor(rates, dtype=torch.float64)
    parts = (A * r).tolist(), (torch.tensor(guess, dtype=torch.float64) * r * r).tolist()

    def bend(k: Sequence[float]) -> float:
        c = torch.tensor(k, dtype=torch.float64) * r
        return float(c @ L @ c)

    def rule_of(i: int) -> _core.Rule:
        return rules.setdefault(i, _core.Rule("glyder", sigma=1.3, memory=math.inf))

    return tensor_rates(parts, (r * r).tolist(), rates, 1.0, bend, rule_of)


def _gain(c: torch.Tensor, A: torch.Tensor, L: torch.Tensor) -> float:
    return float(c @ A - c @ L @ c / 2)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 6), st.booleans())
def test_coupled_quadratics_never_get_worse(seed: int, tensors: int, drawn: bool) -> None:
    """Neither with the curvatures themselves nor with estimates that are off by decades, measurement by measurement."""
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(tensors, tensors + 1, dtype=torch.float64, generator=generator)
    scales = 10 ** torch.empty(tensors, dtype=torch.float64).uniform_(-2, 2, generator=generator)
    L = (root @ root.T) * scales[:, None] * scales[None, :]
    A = torch.rand(tensors, dtype=torch.float64, generator=generator) * scales
    r = 10 ** torch.empty(tensors, dtype=torch.float64).uniform_(-3, 1, generator=generator)
    rules: Rules = {}
    for _ in range(3):
        wild = torch.randn(tensors, dtype=torch.float64, generator=generator).square() if drawn else torch.ones(tensors)
        new = _rates(A, L, r.tolist(), (L.diagonal() * wild).tolist(), rules)
        assert new is not None
        multiple = (r @ A) / (r @ L @ r)
        before, after = multiple * r, multiple * torch.tensor(new, dtype=torch.float64)
        # Slopes and curvatures of up to 1e8 times each other's size cancel; the averages round.
        assert _gain(after, A, L) >= _gain(before, A, L) * (1 - 1e-6)
        r = after


def test_uncoupled_tensors_get_their_own_optima() -> None:
    A, L = torch.tensor([3.0, 0.02], dtype=torch.float64), torch.diag(torch.tensor([10.0, 0.5], dtype=torch.float64))
    r = torch.tensor([0.1, 2.0], dtype=torch.float64)
    new = _rates(A, L, r.tolist(), L.diagonal().tolist())
    multiple = float((r @ A) / (r @ L @ r))
    assert new is not None
    assert [multiple * rate for rate in new] == pytest.approx([0.3, 0.04], rel=1e-12)  # a dozen roundings


def test_two_tensors_that_move_the_outputs_alike_share_the_step() -> None:
    """The separate optima would overshoot to twice the minimum."""
    A, L = torch.ones(2).double(), torch.ones(2, 2).double()
    for rates in ([1.0, 1.0], [0.5, 0.5]):
        new = _rates(A, L, rates, [1.0, 1.0])
        assert new == pytest.approx(rates, rel=1e-12)  # the multiple is already the joint one
    new = _rates(A, L, [1.0, 0.25], [1.0, 4.0])
    assert new is not None
    assert (1 / 1.25) * sum(new) == pytest.approx(1.0, rel=1e-12)  # together at the minimum, whatever the shares


def test_without_descent_there_is_no_rate() -> None:
    assert _rates(torch.tensor([-1.0, -1.0]).double(), torch.eye(2).double(), [1.0, 1.0], [1.0, 1.0]) is None


def test_the_better_of_both_is_taken() -> None:
    """A curvature that is thought to be next to nothing asks for a step that the joint measurement refuses."""
    A, L = torch.ones(2).double(), torch.eye(2).double()
    assert _rates(A, L, [1.0, 1.0], [1.0, 1e-6]) == [1.0, 1.0]


# ---- in a run


def test_one_tensor_is_the_global_rate() -> None:
    rates = []
    for scope in ("global", "tensor"):
        torch.manual_seed(0)
        model = nn.Linear(6, 4, bias=False, dtype=torch.float64)
        optimizer = torch.optim.AdamW(model.parameters())
        scheduler = glyder.LocalOptimumLR(optimizer, model, scope=scope, total_steps=UPDATES, warmup=12, every=1)
        found = []
        for t in range(UPDATES):
            train(model, optimizer, range(t, t + 1))
            found.append(scheduler.get_last_lr()[0])
        rates.append(found)
    # One tensor has no shape to choose: its own wish and the present rate are multiples of each other, up to rounding
    # that training amplifies from update to update.
    assert rates[1] == pytest.approx(rates[0], rel=1e-6)


def _run(
    scope: str, updates: int = 20, **options: object
) -> tuple[nn.Module, torch.optim.Optimizer, glyder.LocalOptimumLR]:
    model = mlp(dtype=torch.float64)
    optimizer = torch.optim.AdamW(
        [{"params": model[0].parameters()}, {"params": model[2].parameters(), "lr": 2e-3}], weight_decay=0.01
    )
    options = {"total_steps": UPDATES, "warmup": 12, "every": 1} | options
    scheduler = glyder.LocalOptimumLR(optimizer, model, scope=scope, **options)
    train(model, optimizer, updates)
    return model, optimizer, scheduler


def test_a_rate_and_a_group_for_each_tensor() -> None:
    model, optimizer, scheduler = _run("tensor")
    assert [group["params"] for group in optimizer.param_groups] == [[p] for p in model.parameters()]
    rates = scheduler.get_last_lr()
    assert len(set(rates)) == 4
    ratios = scheduler.state_dict()["ratios"][0]
    assert [rate / rates[0] for rate in rates] == pytest.approx([r / ratios[0] for r in ratios], rel=1e-14)


def test_the_cost_does_not_grow_with_the_number_of_tensors() -> None:
    """Two forwards, a forward and a backward, and two forwards more."""
    _, _, scheduler = _run("tensor")
    adopted = sum(math.isfinite(row["base"]) for row in scheduler.history)
    measured = sum(math.isfinite(row["curvature"]) for row in scheduler.history)
    assert adopted > 5
    assert scheduler.cost[0] == 2 * measured + 5 * adopted


def test_bounds_hold_for_each_tensor() -> None:
    _, _, scheduler = _run("tensor", warmup=0, anneal=None, min_lr=1e-4, max_lr=2e-4)
    assert scheduler.base_lr is not None
    assert all(1e-4 * (1 - 1e-15) <= rate <= 2e-4 * (1 + 1e-15) for rate in scheduler.get_last_lr())


def test_observing_splits_no_group() -> None:
    _, optimizer, _ = _run("tensor", observe_only=True)
    assert len(optimizer.param_groups) == 2


def test_the_loss_falls_along_the_new_rates_as_far_as_along_the_old() -> None:
    """On the loss itself, differentiated by autograd: the quadratic model of one measurement, at its own data."""
    model = mlp(dtype=torch.float64)
    names = [n for n, _ in model.named_parameters()]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = glyder.LocalOptimumLR(optimizer, model, scope="tensor", total_steps=100, warmup=50, every=1)
    worse = 0
    for t in range(20):
        before, ratios = weights(model), list(scheduler.rates.ratios[0])
        train(model, optimizer, range(t, t + 1))
        made = [a - b for a, b in zip(before, weights(model), strict=True)]
        new = [d * (r / o) for d, r, o in zip(made, scheduler.rates.ratios[0], ratios, strict=True)]
        if scheduler.rates.ratios[0] == ratios:
            continue
        falls = [s * s / q for s, q in (slope_and_curvature(model, names, before, d, t) for d in (made, new))]
        worse += falls[1] < falls[0] * (1 - 1e-3)
    # Slopes are averages, and each batch has its own: that the two directions compare otherwise on this batch alone
    # must stay the exception.
    assert worse <= 4
    assert batch(0)[0].shape == (32, 6)
