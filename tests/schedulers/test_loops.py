"""What training loops do: clip, accumulate, scale, average, and raise half-way through a step."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import glyder

from .problems import backward, batch, mlp, same, slope_and_curvature, train, weights
from .small import UPDATES, small_run, state_of


@pytest.mark.parametrize("refresh", ["window", "always"])
def test_a_step_that_raised_is_repaired_at_the_next(refresh: Any) -> None:
    model, optimizer, scheduler = small_run(every=1, warmup=UPDATES, refresh=refresh)
    train(model, optimizer, 4)

    def halfway(self: Any, closure: Any = None) -> Any:
        with torch.no_grad():
            self.param_groups[0]["params"][0].add_(0.125)
        raise ZeroDivisionError

    wrapped = torch.optim.Optimizer.profile_hook_step(halfway)
    with pytest.raises(ZeroDivisionError):
        backward(model, 4)
        wrapped(optimizer)
    rows, before = len(scheduler.history), weights(model)
    train(model, optimizer, range(5, 6))
    if refresh == "always":
        assert len(scheduler.history) == rows, "the displacement of the step that raised is not measured"
    else:
        assert len(scheduler.history) == rows + 1
        moved = sum(float((a - b).double().square().sum()) for a, b in zip(before, weights(model), strict=True)) ** 0.5
        # Two differences in single precision; without decay they would be the same. The step that raised moved 0.125.
        assert scheduler.history["displacement"][-1] == pytest.approx(moved, rel=1e-2)
    train(model, optimizer, range(6, 9))
    assert scheduler.history["reason"][-1] == "kept"
    assert scheduler.updates == 8


def test_clipped_gradients_are_noticed() -> None:
    """The slope is then taken from the outputs, and is that of the loss, not of the clipped gradient."""
    model = mlp(dtype=torch.float64)
    names = [n for n, _ in model.named_parameters()]
    optimizer = torch.optim.SGD(model.parameters())
    scheduler = glyder.LocalOptimumLR(optimizer, model, total_steps=UPDATES, every=1, warmup=UPDATES)
    for t in range(10):
        before = weights(model)
        train(model, optimizer, range(t, t + 1), lambda t: nn.utils.clip_grad_norm_(model.parameters(), 0.05))
        row = scheduler.history[-1]
        if row["reason"] == "kept":
            assert row["source"] == "outputs"
            delta = [a - b for a, b in zip(before, weights(model), strict=True)]
            s, q = slope_and_curvature(model, names, before, delta, t)
            # Central difference with relative step 1e-3, see test_any_optimizer; the slope may cancel.
            assert row["slope"] == pytest.approx(s, rel=1e-4, abs=1e-4 * q)
            assert row["curvature"] == pytest.approx(q, rel=1e-4)
    assert (scheduler.history["source"] == "outputs").sum() >= 6


def test_accumulated_gradients() -> None:
    model, optimizer, scheduler = small_run(every=1, warmup=20)
    for t in range(20):
        optimizer.zero_grad()
        for micro in (0, 1):
            x, y = batch(2 * t + micro)
            (F.cross_entropy(model(x), y) / 2).backward()
        optimizer.step()
    assert scheduler.updates == 20
    assert scheduler.reasons["kept"] >= 15
    x, y = batch(777)
    assert F.cross_entropy(model(x), y).item() < 0.5 * F.cross_entropy(mlp()(x), y).item()


@pytest.mark.parametrize("first", [True, False], ids=["before", "after"])
def test_averages_of_the_weights_see_final_ones(first: bool) -> None:
    """A post-hook of the user's, registered before or after the scheduler's, sees what the next forward pass sees."""
    model = mlp()
    optimizer = torch.optim.AdamW(model.parameters())
    seen: list[Any] = []

    def average(*_: Any) -> None:
        seen.append(weights(model))

    if first:
        optimizer.register_step_post_hook(average)
    glyder.LocalOptimumLR(optimizer, model, total_steps=UPDATES)
    if not first:
        optimizer.register_step_post_hook(average)
    for t in range(8):
        train(model, optimizer, range(t, t + 1))
        assert same(seen[-1], weights(model))


@pytest.mark.parametrize("fused", [False, True])
def test_grad_scaler(fused: bool) -> None:
    """Steps that the scaler leaves out are no updates, and are not warned of; the others are made with real slopes."""
    model = mlp(dtype=torch.float64)
    names = [n for n, _ in model.named_parameters()]
    optimizer = torch.optim.AdamW(model.parameters(), fused=fused, weight_decay=0.0)
    scheduler = glyder.LocalOptimumLR(optimizer, model, total_steps=UPDATES, every=1, warmup=UPDATES)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=6)
    made = 0
    with warnings.catch_warnings():
        warnings.simplefilter("error", glyder.GlyderWarning)
        for t in range(20):
            optimizer.zero_grad()
            x, y = batch(t, torch.float64)
            scaler.scale(F.cross_entropy(model(x), y)).backward()
            if t in (0, 7):
                next(model.parameters()).grad[0, 0] = float("inf")
            before, held = weights(model), state_of(optimizer)
            scaler.step(optimizer)
            scaler.update()
            if t in (0, 7):
                assert same(weights(model), before)
                if held:
                    assert same(state_of(optimizer), held)
            else:
                made += 1
                row = scheduler.history[-1]
                assert row["update"] == made - 1
                delta = [a - b for a, b in zip(before, weights(model), strict=True)]
                s, q = slope_and_curvature(model, names, before, delta, t)
                # Both carry the scale of the loss; the rate is made of their ratio.
                assert row["slope"] / row["curvature"] == pytest.approx(s / q, rel=1e-4)
    assert scheduler.updates == made == 18
