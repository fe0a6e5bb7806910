"""Micro-batches as independent looks at the gradient: against direct computation, and on average against the truth."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import glyder
from glyder.probe.gradient_noise import Replicas, Sums

from .problems import batch, mlp, same, weights

MICRO = 4


def _gradient(model: nn.Module, t: int, factor: float) -> list[Tensor]:
    x, y = batch(t, next(model.parameters()).dtype)
    return list(torch.autograd.grad(factor * F.cross_entropy(model(x), y), list(model.parameters())))


def _accumulate(model: nn.Module, first: int, factor: float = 1 / MICRO, micro: int = MICRO) -> None:
    for t in range(first, first + micro):
        x, y = batch(t, next(model.parameters()).dtype)
        (factor * F.cross_entropy(model(x), y)).backward()


def _direct(gradients: list[list[Tensor]]) -> tuple[float, float]:
    """||grad f||^2 and tr Cov of the sum, from all pairs of distinct micro-batches and from their scatter."""
    flat = torch.stack([torch.cat([g.reshape(-1) for g in one]).double() for one in gradients])
    m = len(flat)
    pairs = [flat[i] @ flat[j] for i in range(m) for j in range(m) if i != j]
    scatter = (flat - flat.mean(0)).square().sum() / (m - 1)
    return float(m * m * torch.stack(pairs).mean()), float(m * scatter)


@pytest.mark.parametrize("refresh", ["window", "always"])
@pytest.mark.parametrize("way", ["plain", "sums", "clipped", "zeroed in place"])
def test_equals_direct_computation(way: str, refresh: Any) -> None:
    model = mlp(dtype=torch.float64)
    optimizer = torch.optim.SGD(model.parameters())
    scheduler = glyder.LocalOptimumLR(optimizer, model, total_steps=50, every=1, replicas=True, refresh=refresh)
    factor = 1.0 if way == "sums" else 1 / MICRO
    expected = {}
    for t in range(8):
        gradients = [_gradient(model, MICRO * t + i, factor) for i in range(MICRO)]  # no micro-batch of its own
        squared, noise = _direct(gradients)
        optimizer.zero_grad(set_to_none=way != "zeroed in place")
        _accumulate(model, MICRO * t, factor)
        shrink = 1.0
        if way == "clipped":
            norm = float(nn.utils.clip_grad_norm_(model.parameters(), 0.01))
            shrink = 0.01 / (norm + 1e-6)  # as torch has it
        expected[t] = squared * shrink**2, noise * shrink**2
        optimizer.step()
    rows = scheduler.history
    assert len(rows) >= 6
    for row in rows:
        squared, noise = expected[int(row["update"]) + (refresh == "always")]
        assert row["replicas"] == MICRO
        # Inner products in double; the truth itself takes differences of numbers some ten times as large.
        assert row["squared_gradient"] == pytest.approx(squared, rel=1e-10)
        assert row["gradient_noise"] == pytest.approx(noise, rel=1e-10)
        assert row["noise_scale"] == pytest.approx(noise / squared if squared > 0 else math.inf, rel=1e-9)


@pytest.mark.parametrize("micro", [2, 5])
def test_unbiased(micro: int) -> None:
    """Over draws of gradients of known mean and covariance."""
    truth, spread = torch.tensor([0.5, -0.3, 0.2], dtype=torch.float64), torch.tensor([1.0, 0.5, 0.1]).double()
    generator = torch.Generator().manual_seed(micro)
    p = nn.Parameter(torch.zeros(3, dtype=torch.float64))
    replicas = Replicas()
    found = []
    for _ in range(4000):
        p.grad = None
        replicas.start([p])
        for _ in range(micro):
            h = truth + spread * torch.randn(3, dtype=torch.float64, generator=generator)
            ((h / micro) @ p).backward()
        assert p.grad is not None
        row = replicas.take().estimates(float(p.grad.square().sum()))
        found.append([row["squared_gradient"], row["gradient_noise"]])
    seen = torch.tensor(found, dtype=torch.float64)
    wanted = torch.stack([truth.square().sum(), spread.square().sum() / micro])
    error = seen.std(0) / math.sqrt(len(seen))
    assert torch.all((seen.mean(0) - wanted).abs() < 4 * error)
    assert torch.all(error < 0.03), "the bound says something"


def test_ranks_are_merged() -> None:
    """Two ranks that average their gradients know together what one with all micro-batches would."""
    gradients = [[g / MICRO for g in _gradient(mlp(), t, 1.0)] for t in range(MICRO)]

    def sums(of: list[list[Tensor]], factor: float) -> Sums:
        flat = torch.stack([torch.cat([g.reshape(-1) for g in one]).double() * factor for one in of])
        return Sums(len(of), float(flat.square().sum()), float(flat.sum(0).square().sum()))

    whole = sums(gradients, 1.0)
    ranks = [sums(gradients[i::2], 1.0) for i in (0, 1)]
    assert Sums.merged(ranks, whole.total).estimates(1.0) == pytest.approx(whole.estimates(1.0), rel=1e-12)


def test_nothing_to_compare_is_nan() -> None:
    for replicas, micro in ((True, 1), (False, 3)):
        model = mlp()
        optimizer = torch.optim.SGD(model.parameters())
        scheduler = glyder.LocalOptimumLR(optimizer, model, total_steps=50, replicas=replicas)
        for t in range(5):
            optimizer.zero_grad()
            _accumulate(model, t, micro=micro)
            optimizer.step()
        assert len(scheduler.history) > 0
        for name in ("replicas", "squared_gradient", "gradient_noise", "noise_scale"):
            assert all(math.isnan(value) for value in scheduler.history[name])


@pytest.mark.filterwarnings("ignore:the gradient of update:glyder.GlyderWarning")
def test_watching_changes_nothing_and_stops_on_close() -> None:
    ends = []
    for replicas in (False, True):
        model = mlp()
        optimizer = torch.optim.AdamW(model.parameters())
        scheduler = glyder.LocalOptimumLR(optimizer, model, total_steps=20, replicas=replicas)
        for t in range(20):
            optimizer.zero_grad()
            _accumulate(model, t, micro=2)
            if t == 7:
                next(model.parameters()).grad[0, 0] = float("nan")
            optimizer.step()
        ends.append([weights(model), scheduler.get_last_lr()])
        scheduler.close()
        assert not any(p._backward_hooks or p._post_accumulate_grad_hooks for p in model.parameters())
    assert same(*ends)


def test_a_skipped_update_leaves_nothing_behind() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters())
    scheduler = glyder.LocalOptimumLR(optimizer, model, total_steps=50, every=1, replicas=True)
    with pytest.warns(glyder.GlyderWarning, match="skipped"):
        for t in range(6):
            optimizer.zero_grad()
            _accumulate(model, t, micro=2 if t < 5 else 3)
            if t == 4:
                next(model.parameters()).grad[0, 0] = float("inf")
            optimizer.step()
    assert scheduler.history["replicas"][-1] == 3


def test_a_copy_watches_its_own_parameters() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters())
    scheduler = glyder.LocalOptimumLR(optimizer, model, total_steps=50, every=1, replicas=True)
    _accumulate(model, 0)
    optimizer.step()
    scheduler, model = copy.deepcopy((scheduler, model))
    for t in range(1, 4):
        model.zero_grad()
        _accumulate(model, t)
        scheduler.optimizer.step()
    assert scheduler.updates == 4
    assert scheduler.history["replicas"][-1] == MICRO
