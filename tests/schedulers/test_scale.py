"""The default recipe: what the driver hands to the rule `scale`, recomputed from the run as it really happened."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

import glyder

from .problems import Recorder, backward, batch, mlp, slope_and_curvature, train
from .small import BOTH

UPDATES, WARMUP = 60, 24


def _squared_gradient(names: list[str], at: list[torch.Tensor], t: int) -> float:
    model = mlp(dtype=torch.float64)
    model.load_state_dict(dict(zip(names, at, strict=True)))
    backward(model, t)
    return sum(float(p.grad.square().sum()) for p in model.parameters())


@pytest.mark.parametrize(
    ("make", "options", "summed"),
    [
        (torch.optim.SGD, {}, None),
        (torch.optim.SGD, {"momentum": 0.9}, 10),
        (torch.optim.SGD, {"momentum": 0.9, "dampening": 0.5}, 5),
        (torch.optim.AdamW, {"weight_decay": 0.1}, None),
        (torch.optim.RMSprop, {"alpha": 0.9}, None),
    ],
)
def test_base_rate_is_that_of_the_formula(make: Any, options: dict, summed: float | None) -> None:
    """eta*^0.38 eta_n^0.62 of the head of local_optimum.c; ``summed``: all weights of a gradient in a buffer that sums.

    RMSprop's directions are long while its average of squares gathers.
    """
    model = mlp(dtype=torch.float64)
    names = [name for name, _ in model.named_parameters()]
    optimizer = make(model.parameters(), **options)
    scheduler = glyder.LocalOptimumLR(optimizer, model, total_steps=UPDATES, warmup=WARMUP)
    record = Recorder(optimizer)
    xx = sum(float(p.detach().square().sum()) for p in model.parameters())
    train(model, optimizer, UPDATES)

    decay = options.get("weight_decay", 0.0)
    momentum = options.get("momentum", 0.0)
    slope = curvature = length = 0.0
    usable = scheduler.history[scheduler.history["reason"] == "kept"]
    assert len(usable) >= 15
    for row in usable:
        t = int(row["update"])
        (lr,) = record.rates[t]
        before, after = record.before[t], record.after[t]
        delta = [b * (1 - lr * decay) - a for b, a in zip(before, after, strict=True)]
        s, q = slope_and_curvature(model, names, before, delta, t, 1 - lr * decay)
        dd = sum(float(d.square().sum()) for d in delta)
        # a buffer starts from the first gradient in full, whatever the dampening of those that follow
        rest = 1 - options.get("dampening", 0.0)
        old = momentum**t
        grown = min(1.0, (old + rest * (1 - old) / (1 - momentum)) * (1 - momentum) / rest) if momentum else 1.0
        slope += lr**2 * grown * lr * max(s, q / 4) / dd
        curvature += lr**2 * q / dd
        squares = 1 - options["alpha"] ** (t + 1) if "alpha" in options else 1.0
        length += squares * dd / lr**2 if summed is None else summed**2 * _squared_gradient(names, before, t)
    squares = sum(
        ((t + 1) / WARMUP) ** 2 if t < WARMUP else ((UPDATES - t) / (UPDATES - WARMUP)) ** 2 for t in range(UPDATES)
    )
    optimal = slope / curvature
    by_noise = math.sqrt(xx / (length / len(usable)) / squares)
    # The curvature comes from a central difference, with an error of the order of its step squared: 1e-6.
    assert usable["base"][-1] == pytest.approx(min(1.25 * optimal**0.38 * by_noise**0.62, 6 * optimal), rel=1e-4)
    kept = [rates[0] for rates in record.rates]
    assert max(kept[WARMUP:]) <= usable["base"][-1] * (1 + 1e-12)
    last = usable["base"][-1] / (UPDATES - WARMUP)
    assert 0.9 * last < kept[-1] <= last * (1 + 1e-12), "momentum may remember a spike"


def test_from_zero_curvature_stands_alone() -> None:
    """The length of parameters that start at zero says nothing: it is what the small first rates made of it."""
    x = torch.randn(256, 10, generator=torch.Generator().manual_seed(0))
    y = (x @ torch.arange(10.0) > 0).long()
    model = torch.nn.Linear(10, 2)
    torch.nn.init.zeros_(model.weight)
    torch.nn.init.zeros_(model.bias)
    optimizer = torch.optim.SGD(model.parameters())
    scheduler = glyder.LocalOptimumLR(optimizer, model, total_steps=UPDATES)
    for _ in range(UPDATES):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
    # ||d|| > ||x|| at the start, so with ||x|| taken for the distance the rate would be far below 1/L, of order 0.1.
    assert scheduler.history["base"][-1] > 0.1
    assert loss.item() < 0.3


def test_scale_multiplies_what_is_found() -> None:
    found = []
    for scale in (1.0, 0.5):
        model = mlp(dtype=torch.float64)
        optimizer = torch.optim.SGD(model.parameters())
        scheduler = glyder.LocalOptimumLR(optimizer, model, total_steps=UPDATES, scale=scale, warmup=2, every=1)
        while "kept" not in scheduler.reasons:
            train(model, optimizer, range(scheduler.updates, scheduler.updates + 1))
        found.append(scheduler.history["base"][-1])
    assert found[1] == pytest.approx(found[0] / 2, rel=1e-15)


@pytest.mark.parametrize(
    ("total", "updates"), [(1, 0), (2, 1), (10, 5), (19, 9), (20, 10), (300, 75), (4000, 100), (None, 100)]
)
def test_default_measurement_phase(total: int | None, updates: int) -> None:
    model = mlp()
    assert glyder.LocalOptimumLR(torch.optim.SGD(model.parameters()), model, total_steps=total).warmup == updates


@BOTH
@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.SGD], ids=["adamw", "sgd"])
@pytest.mark.parametrize("total", [1, 2, 3, 4, 5, 12, 20])
def test_very_short_runs(total: int, kind: Any, make: Any) -> None:
    """A rate for every update, also where there is hardly time to measure, and none that does harm."""
    model = mlp()
    optimizer = kind(model.parameters())
    make(optimizer, model, total_steps=total)
    record = Recorder(optimizer)
    train(model, optimizer, total)
    assert all(0 < rate < math.inf for (rate,) in record.rates)
    x, y = batch(777)
    begun, ended = (torch.nn.functional.cross_entropy(m(x), y).item() for m in (mlp(), model))
    assert ended <= begun * (1 + 1e-3), "the first updates are as small as that"


def test_sum_of_squares_of_long_runs_is_sampled_well() -> None:
    from glyder.engine.schedule import sum_of_squares

    # The mean squares of a cosine's and of a straight line's factors; strided sums leave 1/POINTS of them.
    for total in (1_000, 100_000, 10_000_001):
        assert sum_of_squares("cosine", total, 0) == pytest.approx(0.375 * total, rel=2e-3)
        assert sum_of_squares("linear", total, 0) == pytest.approx(total / 3, rel=2e-3)
    assert sum_of_squares("constant", 12_345, 0) == pytest.approx(12_345, rel=1e-12)
    assert sum_of_squares("rsqrt", None, 100) == pytest.approx(100 / 3 + 100 * math.log(10), rel=1e-2)


def _base(change: Any = None, loss: float = 1.0, pieces: int = 1, **options: Any) -> float:
    """Base rate of a short AdamW run: the loss times a factor, in pieces, its gradients changed before the step."""
    model = mlp(dtype=torch.float64)
    optimizer = torch.optim.AdamW(model.parameters())
    scheduler = glyder.LocalOptimumLR(optimizer, model, total_steps=UPDATES, warmup=WARMUP, **options)
    for t in range(UPDATES):
        optimizer.zero_grad()
        x, y = batch(t, torch.float64)
        for part in range(pieces):
            mine = slice(part, None, pieces)
            (torch.nn.functional.cross_entropy(model(x[mine]), y[mine]) * (loss / pieces)).backward()
        for p in model.parameters():
            if change is not None:
                p.grad.mul_(change)
        optimizer.step()
    return float(scheduler.history["base"][-1])


def test_a_loss_scale_that_is_taken_out_again_changes_nothing() -> None:
    # What remains is the difference between two ways to the same slope: the truncation of a central difference.
    assert _base(loss=65536.0, change=1 / 65536) == pytest.approx(_base(), rel=1e-3)


def test_shortened_gradients_change_nothing_for_an_optimizer_that_does_not_see_them() -> None:
    # Adam's direction knows no length of the gradient but for its eps of 1e-8.
    assert _base(change=0.1) == pytest.approx(_base(), rel=1e-3)


def test_a_loss_summed_over_pieces_of_a_batch() -> None:
    """Slope and curvature are both of the last piece, an unbiased part of the whole; a fifth is its noise here."""
    assert _base(pieces=4) == pytest.approx(_base(), rel=0.2)


def test_the_measured_slope_matters() -> None:
    class Doubled(glyder.GaussNewton):
        def measure(self, *args: Any) -> glyder.Measured:
            found = super().measure(*args)
            return glyder.Measured(2 * found.slope, found.curvature, found.source)

    # eta* is twice as large, and weighs 0.38; training at other rates meets other slopes and curvatures.
    assert 2**0.2 < _base(estimator=Doubled()) / _base() < 2**0.6
