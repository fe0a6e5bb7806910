"""What training loops do: clip, accumulate, scale, average, and raise half-way through a step."""

from __future__ import annotations

import functools
import warnings
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import glyder

from .problems import backward, batch, mlp, same, slope_and_curvature, train, weights
from .small import BOTH, SEARCHED, UPDATES, Counted, small_run, state_of


def _halfway(optimizer: torch.optim.Optimizer) -> Any:
    """A step that moves some parameters and raises, with the hooks around it that torch has around every step."""

    def halfway(self: Any, closure: Any = None) -> Any:
        with torch.no_grad():
            self.param_groups[0]["params"][0].add_(0.125)
        raise ZeroDivisionError

    return torch.optim.Optimizer.profile_hook_step(halfway)(optimizer)


@pytest.mark.parametrize("refresh", ["window", "always"])
def test_a_step_that_raised_is_repaired_at_the_next(refresh: Any) -> None:
    model, optimizer, scheduler = small_run(every=1, warmup=UPDATES, refresh=refresh)
    train(model, optimizer, 4)
    with pytest.raises(ZeroDivisionError):
        backward(model, 4)
        _halfway(optimizer)
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


@SEARCHED
@pytest.mark.parametrize("when", [0, 4, 20])
def test_a_search_goes_on_after_a_step_that_raised(optimizer: Any, when: int) -> None:
    """What half of a step did is not taken for what an update did; a search that goes back takes it back, too. The
    gradients that it was begun with are gradients all the same."""
    model, o, scheduler = small_run(optimizer=optimizer, make=glyder.GlyderLR)
    by_displacement = isinstance(o, torch.optim.AdamW)
    counted = Counted(model)
    for t in range(30):
        if t == when:
            backward(model, 99)
            with pytest.raises(ZeroDivisionError):
                _halfway(o)
            rows = len(scheduler.history)
        counted.around(lambda t=t: train(model, o, range(t, t + 1)))
        if t == when and by_displacement:
            assert len(scheduler.history) == rows, "nothing is known of the update that was met"
    assert scheduler.updates == counted.updates
    assert len(counted.went_back) == (not by_displacement)
    assert scheduler.peak_lr > 0
    met = scheduler.history["update"].tolist()
    assert len(met) - len(set(met)) == (not by_displacement and when == 4)


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


@SEARCHED
def test_clipped_gradients_are_searched_with(optimizer: Any) -> None:
    """They are all that there is: clipping to a length that no gradient reaches changes nothing, to a smaller one it
    does, and the run learns all the same."""
    ends = []
    for length in (None, 1e6, 0.05):
        model, o, scheduler = small_run(optimizer=optimizer, make=glyder.GlyderLR)

        def clip(t: int, model: nn.Module = model, length: Any = length) -> None:
            if length is not None:
                nn.utils.clip_grad_norm_(model.parameters(), length)

        train(model, o, UPDATES, clip)
        assert scheduler.peak_lr > 0
        ends.append(weights(model))
    assert same(ends[0], ends[1])
    assert not same(ends[0], ends[2])
    x, y = batch(777)
    assert F.cross_entropy(model(x), y).item() < 0.9 * F.cross_entropy(mlp()(x), y).item()


@BOTH
def test_accumulated_gradients(make: Any) -> None:
    options = {} if make is glyder.GlyderLR else {"every": 1, "warmup": 20}
    model, optimizer, scheduler = small_run(make=make, **options)
    for t in range(20):
        optimizer.zero_grad()
        for micro in (0, 1):
            x, y = batch(2 * t + micro)
            (F.cross_entropy(model(x), y) / 2).backward()
        optimizer.step()
    assert scheduler.updates == 20
    assert scheduler.peak_lr > 0 if make is glyder.GlyderLR else scheduler.reasons["kept"] >= 15
    x, y = batch(777)
    assert F.cross_entropy(model(x), y).item() < 0.5 * F.cross_entropy(mlp()(x), y).item()


@BOTH
@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.SGD], ids=lambda cls: cls.__name__)
@pytest.mark.parametrize("first", [True, False], ids=["before", "after"])
def test_averages_of_the_weights_see_final_ones(first: bool, kind: Any, make: Any) -> None:
    """A post-hook of the user's, registered before or after the scheduler's, sees what the next forward pass sees."""
    model = mlp()
    optimizer = kind(model.parameters())
    seen: list[Any] = []

    def average(*_: Any) -> None:
        seen.append(weights(model))

    if first:
        optimizer.register_step_post_hook(average)
    make(optimizer, model, total_steps=UPDATES)
    if not first:
        optimizer.register_step_post_hook(average)
    for t in range(15):
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


SCALED = {
    "adamw": lambda p, fused: torch.optim.AdamW(p, fused=fused, weight_decay=0.01),
    "sgd": lambda p, fused: torch.optim.SGD(p, fused=fused),
    "momentum": lambda p, fused: torch.optim.SGD(p, fused=fused, momentum=0.9),
}


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("name", SCALED)
def test_a_grad_scaler_changes_no_bit_of_a_search(name: str, fused: bool, groups: int) -> None:
    """Scales are powers of two, and steps that it leaves out are as though they had not been."""
    ends = []
    for scaled in (False, True):
        model = mlp(dtype=torch.float64)
        parts = [{"params": model[0].parameters()}, {"params": model[2].parameters()}]
        optimizer = SCALED[name](parts if groups == 2 else model.parameters(), fused)
        scheduler = glyder.GlyderLR(optimizer, total_steps=UPDATES)
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=6, enabled=scaled)
        counted, left_out = Counted(model), 0
        with warnings.catch_warnings():
            warnings.simplefilter("error", glyder.GlyderWarning)
            for t in range(25):
                x, y = batch(t, torch.float64)
                for overflows in (True, False) if scaled and t in (0, 5, 18) else (False,):
                    optimizer.zero_grad()
                    scaler.scale(F.cross_entropy(model(x), y)).backward()
                    if overflows:
                        next(model.parameters()).grad[0, 0] = float("inf")
                        before, left_out = weights(model), left_out + 1
                        scaler.step(optimizer)
                        assert same(weights(model), before)
                    else:
                        counted.around(functools.partial(scaler.step, optimizer))
                    scaler.update()
        assert scheduler.updates == counted.updates
        assert len(counted.went_back) == (name != "adamw")
        assert left_out == 3 * scaled
        ends.append([weights(model), scheduler.peak_lr, scheduler.get_last_lr(), scheduler.history.tolist()])
    assert same(*ends)


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW], ids=lambda cls: cls.__name__)
def test_a_grad_scaler_and_two_optimizers(kind: Any) -> None:
    """All gradients are looked at when the first is stepped: they are to be unscaled by then."""
    ends = []
    for scaled in (False, True):
        model = mlp(dtype=torch.float64)
        optimizers = [kind(model[0].parameters()), kind(model[2].parameters())]
        scheduler = glyder.GlyderLR(optimizers, total_steps=UPDATES)
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=6, enabled=scaled)
        for t in range(25):
            x, y = batch(t, torch.float64)
            for o in optimizers:
                o.zero_grad()
            scaler.scale(F.cross_entropy(model(x), y)).backward()
            for o in optimizers:
                scaler.unscale_(o)
            for o in optimizers:
                scaler.step(o)
            scaler.update()
        ends.append([weights(model), scheduler.state_dict()])
    assert scheduler.peak_lr > 0
    assert same(*ends)


# ---- other total_steps while the peak is searched


@pytest.mark.parametrize(
    ("total", "options", "extended", "of", "cut"),
    [
        (1000, {}, 60, {"SGD": 8, "AdamW": 9}, False),
        (60, {}, 600, {"SGD": 60, "AdamW": 90}, False),
        (None, {}, 100, {"SGD": 10, "AdamW": 15}, False),
        (1000, {"warmup": 30}, 100, {"SGD": 30, "AdamW": 30}, False),
        (1000, {"warmup": 30}, 40, {"SGD": 20, "AdamW": 20}, True),
    ],
)
@SEARCHED
def test_a_search_has_the_length_that_total_steps_give(
    optimizer: Any, total: int, options: Any, extended: int, of: dict[str, int], cut: bool
) -> None:
    model, o, scheduler = small_run(optimizer=optimizer, make=glyder.GlyderLR, total_steps=total, **options)
    updates = of[type(o).__name__]
    train(model, o, 4)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        scheduler.extend(extended)
        scheduler.extend(extended)
    assert len(said) == cut
    assert all("warmup=30 is more than half of total_steps=40" in str(w.message) for w in said)
    assert scheduler.warmup == updates
    train(model, o, range(4, extended))
    found = len(scheduler.history)
    if isinstance(o, torch.optim.SGD):
        assert 3 < found <= updates + 1, "the edge may come before"
    else:
        assert updates <= found <= updates + 4, "few are far below the peak"
    assert scheduler.peak_lr > 0


@SEARCHED
def test_a_warmup_that_was_cut_may_come_back(optimizer: Any) -> None:
    _, _, scheduler = small_run(optimizer=optimizer, make=glyder.GlyderLR, total_steps=1000, warmup=30)
    with pytest.warns(glyder.GlyderWarning, match="the search has 20 updates"):
        scheduler.extend(40)
    scheduler.extend(80)
    assert scheduler.warmup == 30


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam], ids=lambda cls: cls.__name__)
def test_a_run_that_is_over_before_its_search(kind: Any) -> None:
    """Gradients of zero keep it waiting; the remedy helps."""
    model, o, scheduler = small_run(optimizer=kind, make=glyder.GlyderLR, total_steps=20)

    def vanish(_: int) -> None:
        for p in model.parameters():
            p.grad.zero_()

    train(model, o, 20, vanish)
    with pytest.warns(glyder.GlyderWarning, match=r"total_steps=20 updates are done and the peak is still") as said:
        train(model, o, range(20, 25), vanish)
    assert len(said) == 1
    scheduler.extend(60)
    train(model, o, range(25, 60))
    assert scheduler.peak_lr > 0
