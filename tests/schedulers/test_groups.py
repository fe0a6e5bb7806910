"""Several rates and several optimizers: one group is the global rate, coupled blocks are never worse off than it."""

from __future__ import annotations

import math
import warnings
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import glyder
from glyder import _core
from glyder.probe.group_rates import Gram, joint_rates

from .problems import mlp, same, train, weights
from .small import BOTH, SEARCHED

UPDATES = 30


def _joint(gram: Gram, rates: list[float], sigma: float = 1.0, rules: dict | None = None) -> list[float] | None:
    rules = {} if rules is None else rules
    return joint_rates(
        gram, rates, 1.0, sigma, lambda g, h: rules.setdefault((g, h), _core.Rule("glyder", memory=math.inf))
    )


def _quadratic(seed: int, groups: int) -> tuple[Gram, list[float], torch.Tensor, torch.Tensor]:
    """Slopes A and curvatures L per unit of rate of a random convex quadratic, and what a measurement sees of them."""
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(groups, groups + 1, dtype=torch.float64, generator=generator)
    scales = 10 ** torch.empty(groups, dtype=torch.float64).uniform_(-2, 2, generator=generator)
    L = (root @ root.T) * scales[:, None] * scales[None, :]
    A = torch.rand(groups, dtype=torch.float64, generator=generator) * scales
    rates = (10 ** torch.empty(groups, dtype=torch.float64).uniform_(-3, 1, generator=generator)).tolist()
    r = torch.tensor(rates, dtype=torch.float64)
    q = L * r[:, None] * r[None, :]
    slope = A * r - q.sum(1) if seed % 2 else A * r  # at x_{t+1}, or at x_t
    return Gram(slope.tolist(), q.tolist(), (r * r).tolist(), float(seed % 2)), rates, A, L


def _gain(c: torch.Tensor, A: torch.Tensor, L: torch.Tensor) -> float:
    return float(c @ A - c @ L @ c / 2)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 5))
def test_never_worse_than_the_best_multiple_of_the_present_rates(seed: int, groups: int) -> None:
    gram, rates, A, L = _quadratic(seed, groups)
    new = _joint(gram, rates)
    assert new is not None
    r = torch.tensor(rates, dtype=torch.float64)
    best = (r @ A) / (r @ L @ r) * r
    # The averages are divided by ||d||^2 and cancel slopes against curvatures of up to 1e8 times their size.
    assert _gain(torch.tensor(new, dtype=torch.float64), A, L) >= _gain(best, A, L) * (1 - 1e-6)


def test_uncoupled_blocks_get_their_own_optima() -> None:
    A, L, r = [3.0, 0.02], [10.0, 0.5], [0.1, 2.0]
    q = [[L[0] * r[0] ** 2, 0.0], [0.0, L[1] * r[1] ** 2]]
    gram = Gram([A[g] * r[g] for g in (0, 1)], q, [1.0, 1.0], behind=0.0)
    # Block-wise optimal and uncoupled, so that the joint step along their sum is the multiple one.
    assert _joint(gram, r) == pytest.approx([0.3, 0.04], rel=1e-13)
    assert _joint(gram, r, sigma=2.0) == pytest.approx([0.6, 0.08], rel=1e-13)


def test_two_blocks_that_move_the_outputs_alike_share_the_step() -> None:
    """The separate optima would overshoot to twice the minimum."""
    gram = Gram([1.0 - 2.0, 1.0 - 2.0], [[1.0, 1.0], [1.0, 1.0]], [1.0, 1.0], behind=1.0)
    assert _joint(gram, [1.0, 1.0]) == pytest.approx([0.5, 0.5], rel=1e-15)


def test_blocks_without_descent_give_no_rate() -> None:
    for behind in (0.0, 1.0):
        gram = Gram([-5.0, -5.0], [[1.0, 0.0], [0.0, 1.0]], [1.0, 1.0], behind)
        assert _joint(gram, [1.0, 1.0]) is None


def _grouped(model: nn.Module, second: float = 1e-3) -> torch.optim.Optimizer:
    groups = [{"params": model[0].parameters()}, {"params": model[2].parameters(), "lr": second}]
    return torch.optim.AdamW(groups, weight_decay=0.0)


def test_one_group_is_the_global_rate() -> None:
    rates = []
    for scope in ("global", "group"):
        model = mlp(dtype=torch.float64)
        optimizer = torch.optim.AdamW(model.parameters())
        scheduler = glyder.LocalOptimumLR(optimizer, model, scope=scope, total_steps=UPDATES, warmup=12, every=1)
        found = []
        for t in range(UPDATES):
            train(model, optimizer, range(t, t + 1))
            found.append(scheduler.get_last_lr()[0])
        rates.append(found)
    # The same sums in another order of multiplications; training amplifies the last bits from update to update.
    assert rates[1] == pytest.approx(rates[0], rel=1e-6)


def test_a_rate_for_each_group_and_the_ratios_are_saved() -> None:
    model = mlp()
    optimizer = _grouped(model)
    scheduler = glyder.LocalOptimumLR(optimizer, model, scope="group", total_steps=UPDATES, warmup=12)
    train(model, optimizer, 10)
    first, second = scheduler.get_last_lr()
    assert first != second
    ratios = scheduler.state_dict()["ratios"][0]
    assert second / first == pytest.approx(ratios[1] / ratios[0], rel=1e-14)


def test_bounds_hold_for_each_group() -> None:
    model = mlp()
    optimizer = _grouped(model)
    scheduler = glyder.LocalOptimumLR(
        optimizer, model, scope="group", total_steps=UPDATES, warmup=0, anneal=None, every=1, min_lr=1e-4, max_lr=2e-4
    )
    train(model, optimizer, 12)
    assert scheduler.base_lr is not None
    assert all(1e-4 <= rate <= 2e-4 * (1 + 1e-15) for rate in scheduler.get_last_lr())


@BOTH
def test_the_global_rate_keeps_the_ratios(make: Any) -> None:
    model = mlp()
    optimizer = _grouped(model, second=2.5e-4)
    scheduler = make(optimizer, model, total_steps=UPDATES)
    for t in range(20):
        train(model, optimizer, range(t, t + 1))
        first, second = scheduler.get_last_lr()
        assert second == pytest.approx(first / 4, rel=1e-15)


def test_max_lr_given_is_a_ceiling() -> None:
    model = mlp()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4)
    scheduler = glyder.LocalOptimumLR(optimizer, model, total_steps=UPDATES, max_lr="given", warmup=5)
    rates = []
    for t in range(UPDATES):
        train(model, optimizer, range(t, t + 1))
        rates.append(scheduler.get_last_lr()[0])
    assert max(rates) <= 3e-4
    # 1e-12: the factor is within 1e-15 of its formula
    assert rates[-1] == pytest.approx(3e-4 / (UPDATES - 5), rel=1e-12), "the ceiling is annealed like any base"


@pytest.mark.parametrize(
    ("make", "kind"), [(glyder.LocalOptimumLR, torch.optim.SGD), (glyder.GlyderLR, torch.optim.AdamW)]
)
def test_two_optimizers_are_one_update(make: Any, kind: Any) -> None:
    """An optimizer split in two takes the run of the one in one piece, bit for bit."""
    ends = []
    for split in (False, True):
        model = mlp()
        parts = [model[0].parameters(), model[2].parameters()] if split else [model.parameters()]
        optimizers = [kind(list(part), lr=0.1) for part in parts]
        scheduler = make(optimizers, model, total_steps=UPDATES)
        train(model, optimizers, UPDATES)
        ends.append([weights(model), scheduler.history.tolist(), scheduler.updates])
    assert same(*ends)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_search_that_goes_back_is_that_of_all_groups(momentum: float) -> None:
    """In one piece, in two groups, in two optimizers: the same sums, added up in another order."""
    ends = []
    for way in range(3):
        model = mlp(dtype=torch.float64)
        parts = [list(model[0].parameters()), list(model[2].parameters())]
        groups = [[list(model.parameters())], [[{"params": part} for part in parts]], parts][way]
        optimizers = [torch.optim.SGD(of, lr=0.1, momentum=momentum) for of in groups]
        scheduler = glyder.GlyderLR(optimizers, total_steps=UPDATES)
        start, went_back = weights(model), 0
        for t in range(UPDATES):
            train(model, optimizers, range(t, t + 1))
            went_back += t > 0 and same(weights(model), start)
        assert went_back == 1
        ends.append([scheduler.peak_lr, torch.cat([w.reshape(-1) for w in weights(model)])])
    for peak, end in ends[1:]:
        # The search goes on until steps overshoot, and makes as much of the last bits.
        assert peak == pytest.approx(ends[0][0], rel=1e-9)
        assert torch.allclose(end, ends[0][1], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    ("kind", "goes_back"),
    [(lambda p: torch.optim.SGD(p, momentum=0.9, lr=1e-4), 1), (lambda p: torch.optim.AdamW(p, lr=1e-4), 0)],
    ids=["sgd", "adamw"],
)
def test_beside_sgd(kind: Any, goes_back: int) -> None:
    """All go back together, or none of them: AdamW's averages belong to where it is."""
    model = mlp()
    optimizers = [torch.optim.SGD(model[0].parameters()), kind(model[2].parameters())]
    scheduler = glyder.GlyderLR(optimizers, total_steps=UPDATES)
    start, went_back = weights(model), []
    for t in range(UPDATES):
        train(model, optimizers, range(t, t + 1))
        if t and any(same(a, b) for a, b in zip(weights(model), start, strict=True)):
            went_back.append(t)
            assert same(weights(model), start)
            kept = [value for o in optimizers for of in o.state.values() for value in of.values()]
            assert not any(isinstance(value, torch.Tensor) for value in kept), "as when nothing had been done yet"
        first, second = (o.param_groups[0]["lr"] for o in optimizers)
        assert second == pytest.approx(first / 10, rel=1e-15), "the ratio of their rates is kept"
    assert len(went_back) == goes_back
    assert scheduler.updates == UPDATES - goes_back
    assert scheduler.peak_lr > 0


@SEARCHED
def test_a_group_that_rests_is_not_searched_for_nor_set_back(optimizer: Any) -> None:
    """What its owner changes in it meanwhile is the owner's."""
    model = mlp()
    o = optimizer(model[0].parameters())
    o.add_param_group({"params": model[2].parameters(), "lr": 0.0})
    scheduler = glyder.GlyderLR(o, total_steps=UPDATES)
    train(model, o, 4)
    with torch.no_grad():
        model[2].bias.fill_(0.5)
    train(model, o, range(4, 25))
    assert scheduler.peak_lr > 0
    assert torch.equal(model[2].bias, torch.full((4,), 0.5))


@BOTH
def test_one_of_two_stepped_alone_is_no_update(make: Any) -> None:
    model = mlp()
    optimizers = [torch.optim.Adam(model[0].parameters()), torch.optim.Adam(model[2].parameters())]
    scheduler = make(optimizers, model, total_steps=UPDATES)
    train(model, optimizers[0], 3)
    assert scheduler.updates == 0
    train(model, optimizers, range(3, 12))
    assert scheduler.updates == 9
    assert scheduler.reasons["rising" if make is glyder.GlyderLR else "kept"] > 0


@BOTH
def test_several_optimizers_take_no_closure(make: Any) -> None:
    model = mlp()
    optimizers = [torch.optim.SGD(model[0].parameters()), torch.optim.SGD(model[2].parameters())]
    make(optimizers, model)
    with pytest.raises(TypeError, match="several optimizers cannot be stepped with a closure"):
        optimizers[0].step(lambda: 0.0)


# ---- observing


@pytest.mark.parametrize("scope", ["global", "group"])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_observing_changes_nothing(scope: Any, momentum: float) -> None:
    ends = []
    for observed in (False, True):
        torch.manual_seed(4)
        model = nn.Sequential(mlp(), nn.Dropout(0.1))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=momentum)
        cosine = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: min(1.0, t / 5))  # a warm-up from 0
        if observed:
            scheduler = glyder.LocalOptimumLR(optimizer, model, observe_only=True, scope=scope, every=1)
        keys = set(optimizer.param_groups[0])
        for t in range(UPDATES):
            train(model, optimizer, range(t, t + 1))
            cosine.step()
        assert set(optimizer.param_groups[0]) == keys
        ends.append([weights(model), optimizer.state_dict(), torch.get_rng_state()])
    assert same(*ends)
    assert scheduler.reasons["kept"] >= UPDATES - 5


def _found() -> float:
    """The base rate that glyder finds for a small problem by itself."""
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters())
    scheduler = glyder.LocalOptimumLR(optimizer, model, total_steps=UPDATES)
    train(model, optimizer, UPDATES)
    return float(scheduler.history["base"][-1])


@pytest.mark.filterwarnings("ignore:20 measurements:glyder.GlyderWarning")
@pytest.mark.parametrize(("factor", "says"), [(1 / 30, "too low"), (1.0, "about right"), (30.0, "too high")])
def test_explain_names_the_factor(factor: float, says: str) -> None:
    """Measured at quite different rates, the advice points the same way: towards what glyder would do by itself."""
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=factor * _found())
    scheduler = glyder.LocalOptimumLR(optimizer, model, observe_only=True, total_steps=UPDATES)
    train(model, optimizer, UPDATES)
    text = scheduler.explain()
    assert text.count(says) == 1
    if says == "too low":
        named = scheduler.history["base"][-1] / optimizer.param_groups[0]["lr"]
        assert f"about {named:.2g} times too low" in text


def test_advice_is_next_to_the_largest_rate() -> None:
    """At the end of an annealed run the rate of the moment would always seem too low."""
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=_found())
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, UPDATES)
    scheduler = glyder.LocalOptimumLR(optimizer, model, observe_only=True, total_steps=UPDATES)
    for t in range(UPDATES):
        train(model, optimizer, range(t, t + 1))
        cosine.step()
    assert "about right" in scheduler.explain()


def test_a_group_that_is_taken_away_is_not_missed() -> None:
    """By whoever only watches: the history goes on."""
    model = mlp()
    layers = [list(layer.parameters()) for layer in model if list(layer.parameters())]
    optimizer = torch.optim.SGD([{"params": params} for params in layers], lr=0.01)
    scheduler = glyder.LocalOptimumLR(optimizer, model, total_steps=20, observe_only=True, every=1)
    train(model, optimizer, range(5))
    del optimizer.param_groups[-1]
    with warnings.catch_warnings():
        warnings.simplefilter("error", glyder.GlyderWarning)
        train(model, optimizer, range(5, 20))
    assert scheduler.history["update"][-1] == 19
