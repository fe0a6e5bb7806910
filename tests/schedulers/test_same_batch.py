"""The default recipe measures an update on the batch that it was made from, at x_t, and leaves nothing for later."""

from __future__ import annotations

import copy
import gc
import math
import pickle
import warnings
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import glyder

from . import runs
from .problems import backward, batch, mlp, same, slope_and_curvature, train, weights
from .small import BOTH, UPDATES, Counted, small_run


def _made(model: nn.Module, optimizer: torch.optim.Optimizer, t: int) -> tuple[list[Tensor], list[Tensor]]:
    """An update on batch t: its gradient and its displacement."""
    optimizer.zero_grad()
    before = weights(model)
    backward(model, t)
    gradient = [p.grad.clone() for p in model.parameters()]
    optimizer.step()
    return gradient, [b - a for b, a in zip(before, weights(model), strict=True)]


def _dot(left: list[Tensor], right: list[Tensor]) -> float:
    return float(sum((a * b).sum() for a, b in zip(left, right, strict=True)))


@pytest.mark.parametrize(
    "make", [torch.optim.SGD, lambda p: torch.optim.AdamW(p, weight_decay=0.0)], ids=["sgd", "adamw"]
)
def test_the_slope_is_that_of_the_batch_that_made_the_update(make: Any) -> None:
    model, optimizer, scheduler = small_run(mlp(dtype=torch.float64), make, every=1, warmup=12, total_steps=12)
    passes = {True: 0, False: 0}
    model.register_forward_hook(
        lambda *_: passes.update({torch.is_grad_enabled(): passes[torch.is_grad_enabled()] + 1})
    )
    for t in range(12):
        gradient, delta = _made(model, optimizer, t)  # every update has data of its own, and there are no others
        assert len(scheduler.history) == t + 1, "measured when step() returns"
        row = scheduler.history[-1]
        assert row["update"] == t
        if row["reason"] == "not_visible":
            continue
        assert row["reason"] == "kept"
        assert row["slope"] == pytest.approx(_dot(gradient, delta), rel=1e-12)  # rounding of an inner product
        assert row["optimal"] == pytest.approx(row["lr"] * row["slope"] / row["curvature"], rel=1e-14)
    kept = scheduler.reasons["kept"]
    assert kept >= 10
    assert passes == {True: 12, False: 2 * kept}, "the user's own passes, and two probes a measurement"


def test_always_takes_the_next_batch() -> None:
    """A displacement is measured at x_{t+1}, with the batch of the next update."""
    model, optimizer, scheduler = small_run(mlp(dtype=torch.float64), torch.optim.SGD, every=1, refresh="always")
    gradients, deltas = zip(*(_made(model, optimizer, t) for t in range(12)), strict=True)
    kept = scheduler.history[scheduler.history["reason"] == "kept"]
    assert len(kept) >= 8
    for row in kept:
        t = int(row["update"])
        assert row["slope"] == pytest.approx(_dot(gradients[t + 1], deltas[t]), rel=1e-12)
        assert abs(row["slope"] - _dot(gradients[t], deltas[t])) > 1e-3 * abs(row["slope"])


# ---- laws of scale


def _rates(loss: float = 1.0, clip: float = 1.0) -> np.ndarray:
    """Rates of a run of SGD; the loss times a factor, its gradients shortened by another before the step.

    The loss starts from 2^10 times a cross-entropy: the first rate goes with the length of a gradient only where it is
    longer than a sign vector.
    """
    model, optimizer, scheduler = small_run(mlp(dtype=torch.float64), torch.optim.SGD, warmup=12)
    rates = []
    for t in range(UPDATES):
        optimizer.zero_grad()
        x, y = batch(t, torch.float64)
        (F.cross_entropy(model(x), y) * 2.0**10 * loss).backward()
        for p in model.parameters():
            p.grad.mul_(clip)
        optimizer.step()
        rates.append(scheduler.get_last_lr()[0])
    assert set(scheduler.history["source"]) == ({"gradients"} if clip == 1 else {"outputs"})
    return np.array(rates)


@pytest.mark.parametrize("c", [2.0**-3, 2.0**12])
def test_the_loss_times_c_has_the_rate_over_c(c: float) -> None:
    # Powers of two change no bit but those of pow() in the rule, which the run then carries on.
    np.testing.assert_allclose(_rates(loss=c) * c, _rates(), rtol=1e-9)


@pytest.mark.parametrize("c", [2.0**-3, 2.0**-5])
def test_gradients_shortened_by_c_have_the_rate_over_c(c: float) -> None:
    """The same updates at a rate that is so much larger: slope and curvature both come from the outputs then."""
    # What remains is the difference between two ways to the same slope, the truncation of a central difference: 1e-6
    # of it, which the run carries on.
    np.testing.assert_allclose(_rates(clip=c) * c, _rates(), rtol=1e-3)
    np.testing.assert_allclose(_rates(clip=c, loss=4.0) * 4, _rates(clip=c), rtol=1e-9)


def test_clipping_to_a_small_norm_leaves_the_rate_of_an_optimizer_that_does_not_see_it() -> None:
    """Adam's direction knows the length of its gradients by their changes only, and these are all of one length."""
    found = []
    for norm in (1e-3, 1e-2):
        model, optimizer, scheduler = small_run(mlp(dtype=torch.float64), lambda p: torch.optim.Adam(p, eps=1e-20))

        def clip(t: int, model: nn.Module = model, norm: float = norm) -> None:
            nn.utils.clip_grad_norm_(model.parameters(), norm)

        train(model, optimizer, UPDATES, clip)
        assert set(scheduler.history["source"]) == {"outputs"}
        found.append(scheduler.history["base"][-1])
    # clip_grad_norm_ adds 1e-6 to the norm that it divides by.
    assert found[0] == pytest.approx(found[1], rel=1e-3)


# ---- nothing waits


def _go(run: runs.Run, start: int, end: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", glyder.GlyderWarning)  # a gradient that is not finite is part of the runs
        run.go(start, end)


@pytest.mark.parametrize("case", ["adamw", "momentum", "groups", "two optimizers", "observe"])
def test_resumed_at_every_update_of_the_phase(case: str) -> None:
    whole = runs.CASES[case]()
    saved = []
    for t in range(runs.PHASE + 2):
        saved.append(copy.deepcopy(whole.state()))
        _go(whole, t, t + 1)
    _go(whole, runs.PHASE + 2, runs.UPDATES)
    end = whole.state()
    for t, state in enumerate(saved):
        assert state["scheduler"]["pending"] is None
        run = runs.CASES[case]()
        run.load(state, ("scheduler", "model", "optimizer"))
        _go(run, t, runs.UPDATES)
        assert same(run.state(), end), f"stopped before update {t}"


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda run: pickle.loads(pickle.dumps(run))], ids=["deepcopy", "pickle"]
)
def test_copies_between_updates_go_on_alike(copied: Callable[[Any], Any]) -> None:
    for t in (0, 1, 5):
        run = runs.CASES["momentum"]()
        _go(run, 0, t)
        twin = copied(run)
        _go(run, t, runs.UPDATES)
        _go(twin, t, runs.UPDATES)
        assert same(run.state(), twin.state())


def test_a_displacement_that_waits_in_a_state_is_not_for_this_recipe() -> None:
    """It is to be measured with the next batch: the default has none of its data, and lets it go."""
    _, _, always = small_run(refresh="always")
    train(always.model, always.optimizer, 4)
    state = always.state_dict()
    assert state["pending"] is not None
    model, optimizer, scheduler = small_run()
    with pytest.warns(glyder.GlyderWarning, match="refresh='window'"):
        scheduler.load_state_dict(state)
    assert scheduler.state_dict()["pending"] is None
    train(model, optimizer, range(4, 8))
    assert set(scheduler.history["reason"][scheduler.history["update"] >= 4]) == {"kept"}


@pytest.mark.parametrize("observe_only", [False, True])
def test_no_batch_is_kept_where_nothing_is_to_be_measured(observe_only: bool) -> None:
    """Also not after an update that was not finite, or that moved nothing."""
    model, optimizer, _ = small_run(
        optimizer=lambda p: torch.optim.SGD(p, lr=0.1), observe_only=observe_only, warmup=12
    )
    refs = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", glyder.GlyderWarning)
        for t in range(24):
            x, y = batch(t)
            refs.append(weakref.ref(x))
            optimizer.zero_grad()
            (F.cross_entropy(model(x), y) * (math.nan if t == 21 else 1.0)).backward()
            if t == 20 and observe_only:
                optimizer.param_groups[0]["lr"] = 0.0
            optimizer.step()
            del x
    gc.collect()
    assert [ref() for ref in refs] == [None] * 24


# ---- optimizers and loops with habits of their own


class Careless(torch.optim.Optimizer):
    """Gradient descent that does something to the gradients when it has used them: some implementations of Muon work in
    their memory, others let go of them."""

    def __init__(self, params: Any, habit: str) -> None:
        super().__init__(params, {"lr": 0.1})
        self.habit = habit

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                p.sub_(group["lr"] * p.grad)
                if self.habit == "overwrites":
                    p.grad.add_(1.0)
                elif self.habit == "lets go":
                    p.grad = None


@pytest.mark.parametrize(
    ("habit", "source"), [("none", "gradients"), ("lets go", "gradients"), ("overwrites", "outputs")]
)
def test_what_an_optimizer_does_to_the_gradients_is_its_affair(habit: str, source: str) -> None:
    model = mlp(dtype=torch.float64)
    names = [n for n, _ in model.named_parameters()]
    optimizer = Careless(model.parameters(), habit)
    scheduler = glyder.LocalOptimumLR(optimizer, model, every=1, total_steps=12, warmup=12)
    for t in range(12):
        before = weights(model)
        train(model, optimizer, range(t, t + 1))
        row = scheduler.history[-1]
        if row["reason"] == "kept":
            delta = [b - a for b, a in zip(before, weights(model), strict=True)]
            s, q = slope_and_curvature(model, names, before, delta, t)
            assert row["source"] == source
            assert row["slope"] == pytest.approx(s, rel=1e-4)  # in the outputs a central difference
            assert row["curvature"] == pytest.approx(q, rel=1e-4)
    assert scheduler.reasons["kept"] >= 10


class Derived(torch.optim.SGD):
    """torch puts its hooks around the step of each class: around this one and, in it, around that of SGD."""

    def step(self, closure: Any = None) -> Any:
        return super().step(closure)


@BOTH
def test_a_step_that_calls_its_base_class_is_one_update(make: Any) -> None:
    torch.optim.SGD(mlp().parameters())  # the hooks are there once an optimizer of that class is
    model = mlp()
    optimizer = Derived(model.parameters())
    options = {"every": 1} if make is glyder.LocalOptimumLR else {}
    scheduler = make(optimizer, model, total_steps=24, warmup=12, **options)
    counted = Counted(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error", glyder.GlyderWarning)
        for t in range(20):
            counted.around(lambda t=t: train(model, optimizer, range(t, t + 1)))
    assert scheduler.updates == counted.updates
    assert len(counted.went_back) == (make is glyder.GlyderLR)
    updates = scheduler.history["update"].tolist()
    assert updates == list(range(updates[0], updates[0] + len(updates)))
    assert len(updates) >= 9


@BOTH
@pytest.mark.parametrize("closing", [False, True])
def test_a_step_that_calls_its_base_class_changes_no_bit(make: Any, closing: bool) -> None:
    """Also where gradients are not finite, and twice in a row."""
    ends = []
    for kind in (torch.optim.SGD, Derived):
        model = mlp()
        optimizer = kind(model.parameters(), momentum=0.5)
        scheduler = make(optimizer, model, total_steps=UPDATES)

        def closure(t: int, optimizer: Any = optimizer, model: nn.Module = model) -> Tensor:
            optimizer.zero_grad()
            loss = backward(model, t)
            if t in (5, 20, 21):
                next(model.parameters()).grad.fill_(math.nan)
            return loss

        for t in range(30):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", glyder.GlyderWarning)
                if closing:
                    optimizer.step(lambda t=t: closure(t))
                else:
                    closure(t)
                    optimizer.step()
        assert scheduler.skipped == 3
        ends.append([weights(model), scheduler.state_dict()])
    assert same(*ends)


class Stumbling(Derived):
    """Its step raises once, before that of its base class or after."""

    before = after = False

    def step(self, closure: Any = None) -> Any:
        if self.before:
            raise ZeroDivisionError
        result = super().step(closure)
        if self.after:
            raise ZeroDivisionError
        return result


@BOTH
@pytest.mark.parametrize("where", ["before", "after"])
def test_a_step_around_another_that_raised(make: Any, where: str) -> None:
    """It is not taken for the next one, nor the next one for a part of it."""
    torch.optim.SGD(mlp().parameters())
    Derived(mlp().parameters())
    model = mlp()
    optimizer = Stumbling(model.parameters())
    scheduler = make(optimizer, model, total_steps=UPDATES)
    train(model, optimizer, 4)
    setattr(optimizer, where, True)
    with pytest.raises(ZeroDivisionError):
        train(model, optimizer, range(4, 5))
    setattr(optimizer, where, False)
    assert scheduler.updates == 4
    train(model, optimizer, range(5, 8))
    assert scheduler.updates == 7


@BOTH
def test_one_of_two_optimizers_stepped_more_often(make: Any) -> None:
    """An update is one step of each, and begins with the last step of the one that is stepped twice."""
    model = mlp()
    optimizers = [torch.optim.Adam(model[0].parameters()), torch.optim.Adam(model[2].parameters())]
    options = {"every": 1} if make is glyder.LocalOptimumLR else {"warmup": 8}
    scheduler = make(optimizers, model, total_steps=UPDATES, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error", glyder.GlyderWarning)
        for t in range(12):
            train(model, optimizers[0], range(2 * t, 2 * t + 1))
            train(model, optimizers, range(2 * t + 1, 2 * t + 2))
    assert scheduler.updates == 12
    assert len(scheduler.history) >= 8
    if make is glyder.LocalOptimumLR:
        assert scheduler.reasons["kept"] >= 9


def test_an_update_that_raised_when_it_was_measured_was_made() -> None:
    """The loop that goes on counts it, and the next update is measured as though nothing had happened."""
    model, optimizer, scheduler = small_run(runs.Fragile())
    model.broken = True
    with pytest.warns(glyder.GlyderWarning, match="broken on purpose"):
        train(model, optimizer, 2)
    with pytest.raises(RuntimeError, match="could not measure anything in 3 attempts"):
        train(model, optimizer, range(2, 3))
    assert scheduler.updates == 3
    model.broken = False
    train(model, optimizer, range(3, 6))
    assert scheduler.updates == 6
    assert scheduler.history["update"].tolist() == list(range(6))
    assert scheduler.history["reason"].tolist() == ["raised"] * 3 + ["kept"] * 3


@pytest.mark.parametrize("zero", [False, True])
@pytest.mark.parametrize("observe_only", [False, True])
def test_the_length_to_go_by_is_that_before_the_first_update(zero: bool, observe_only: bool) -> None:
    model = mlp(dtype=torch.float64)
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(0.0 if zero else 1.0)
    expected = sum(float(p.detach().square().sum()) for p in model.parameters())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = glyder.LocalOptimumLR(optimizer, model, total_steps=UPDATES, observe_only=observe_only)
    train(model, optimizer, 6)
    assert scheduler.state_dict()["start"] == pytest.approx(expected, rel=1e-14)
