"""``step()`` is called and no update is seen: said once, with a remedy that works; and loops that are all right."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import glyder

from .problems import backward, batch, mlp, train, weights

CALLS, UPDATES = 100, 300


def _loss(model: nn.Module) -> float:
    x, y = batch(777)
    return F.cross_entropy(model(x), y).item()


MAKE = pytest.mark.parametrize(
    "make",
    [
        lambda o, model: glyder.GlyderLR(o, model, total_steps=UPDATES),
        lambda o, model: glyder.LocalOptimumLR(o, model, total_steps=UPDATES),
        lambda o, model: glyder.HypergradientLR(o, beta=1e-4),
        lambda o, model: glyder.SecantLR(o),
    ],
    ids=["GlyderLR", "LocalOptimumLR", "HypergradientLR", "SecantLR"],
)
KIND = pytest.mark.parametrize(
    "kind",
    [
        lambda p: torch.optim.SGD(p, lr=0.05),
        lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9),
        lambda p: torch.optim.AdamW(p, lr=1e-3),
    ],
    ids=["sgd", "momentum", "adamw"],
)


class Sharpness(torch.optim.Optimizer):
    """Two steps, neither of which is ``step``: up the gradient, and back with the one inside."""

    def __init__(self, params: Any, kind: Callable[..., torch.optim.Optimizer]) -> None:
        super().__init__(params, {"lr": 1e-3})
        self.inner = kind(self.param_groups)
        self.param_groups = self.inner.param_groups

    @torch.no_grad()
    def first_step(self) -> None:
        params = [p for group in self.param_groups for p in group["params"]]
        length = torch.stack([p.grad.norm() for p in params]).norm()
        for p in params:
            self.state[p]["climb"] = 0.01 * p.grad / length
            p.add_(self.state[p]["climb"])
            p.grad = None

    @torch.no_grad()
    def second_step(self) -> None:
        for p in (p for group in self.param_groups for p in group["params"]):
            p.sub_(self.state[p]["climb"])
        self.inner.step()
        self.inner.zero_grad()


def _sharp(model: nn.Module, optimizer: Sharpness, scheduler: Any, updates: range) -> None:
    for t in updates:
        backward(model, t)
        optimizer.first_step()
        backward(model, t)
        optimizer.second_step()
        scheduler.step()


@KIND
@MAKE
def test_a_wrapper_that_is_never_stepped(make: Any, kind: Any) -> None:
    model = mlp()
    optimizer = Sharpness(model.parameters(), kind)
    scheduler = make(optimizer, model)
    name = type(scheduler).__name__
    says = rf"saw no update \(not one\): .* optimizer 0 \(Sharpness\) move.*{name}\(optimizer.inner, ...\)"
    with pytest.warns(glyder.GlyderWarning, match=says) as said:
        _sharp(model, optimizer, scheduler, range(CALLS))
    assert len(said) == 1
    assert said[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error", glyder.GlyderWarning)
        model = mlp()
        optimizer = Sharpness(model.parameters(), kind)
        scheduler = make(optimizer.inner, model)
        _sharp(model, optimizer, scheduler, range(CALLS))
    assert scheduler.updates >= CALLS - 1  # one may have gone back to where the search began
    assert _loss(model) < _loss(mlp())


@KIND
@MAKE
@pytest.mark.parametrize("begun", [0, 30])
def test_an_optimizer_that_is_made_anew(make: Any, kind: Any, begun: int) -> None:
    model = mlp()
    optimizer = kind(model.parameters())
    scheduler = make(optimizer, model)
    train(model, optimizer, begun, lambda t: scheduler.step())
    made = scheduler.updates
    since = rf"none since update {made}" if begun else "not one"
    with pytest.warns(
        glyder.GlyderWarning, match=rf"saw no update \({since}\): .*another optimizer moves them"
    ) as said:
        for _ in range(2):
            other = kind(model.parameters())
            for t in range(CALLS // 2):
                train(model, other, range(t, t + 1))
                scheduler.step()
    assert len(said) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error", glyder.GlyderWarning)
        right = make(other, model)
        for t in range(CALLS):
            train(model, other, range(t, t + 1))
            right.step()
    assert right.updates >= CALLS - 1


@KIND
@MAKE
def test_gradients_that_are_taken_away_before_the_step(make: Any, kind: Any) -> None:
    model = mlp()
    optimizer = kind(model.parameters())
    scheduler = make(optimizer, model)
    held = weights(model)
    with pytest.warns(
        glyder.GlyderWarning, match="finds no gradient. Call it after backward.* before zero_grad"
    ) as said:
        for t in range(CALLS):
            backward(model, t)
            optimizer.zero_grad()
            optimizer.step()
            scheduler.step()
    assert len(said) == 1
    assert all(torch.equal(p, x) for p, x in zip(model.parameters(), held, strict=True))
    with warnings.catch_warnings():
        warnings.simplefilter("error", glyder.GlyderWarning)
        for t in range(CALLS):
            backward(model, t)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
    assert scheduler.updates >= CALLS - 1
    assert _loss(model) < _loss(mlp())


@KIND
@MAKE
def test_a_step_that_is_forgotten(make: Any, kind: Any) -> None:
    model = mlp()
    optimizer = kind(model.parameters())
    scheduler = make(optimizer, model)
    with pytest.warns(glyder.GlyderWarning, match=r"step\(\) of optimizer 0 \(\w+\) is not called") as said:
        for t in range(CALLS):
            optimizer.zero_grad()
            backward(model, t)
            scheduler.step()
    assert len(said) == 1
    for t in range(5):
        train(model, optimizer, range(t, t + 1))
        scheduler.step()
    assert scheduler.updates == 5


def test_one_of_two_that_is_never_stepped() -> None:
    model = mlp()
    optimizers = [torch.optim.SGD(model[0].parameters()), torch.optim.AdamW(model[2].parameters())]
    scheduler = glyder.GlyderLR(optimizers, total_steps=UPDATES)
    with pytest.warns(glyder.GlyderWarning, match=r"step\(\) of optimizer 1 \(AdamW\) is not called"):
        for t in range(CALLS):
            train(model, optimizers[0], range(t, t + 1))
            scheduler.step()


def test_it_is_not_said_again_where_a_run_goes_on() -> None:
    model = mlp()
    scheduler = glyder.GlyderLR(torch.optim.AdamW(model.parameters()), total_steps=UPDATES)
    with pytest.warns(glyder.GlyderWarning, match="saw no update"):
        for _ in range(CALLS):
            scheduler.step()
    second = glyder.GlyderLR(torch.optim.AdamW(model.parameters()), total_steps=UPDATES)
    second.load_state_dict(scheduler.state_dict())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(CALLS):
            second.step()


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam], ids=lambda cls: cls.__name__)
def test_gradients_that_are_all_zero(kind: Any) -> None:
    """From the first on, fifty times. Nothing but gradients moves the parameters."""
    model, optimizer, scheduler = begun_with(kind)
    with warnings.catch_warnings():
        warnings.simplefilter("error", glyder.GlyderWarning)
        train(model, optimizer, 49, vanish(model))
    resumed = begun_with(kind)
    for now, then in zip(resumed, (model, optimizer, scheduler), strict=True):
        now.load_state_dict(then.state_dict())
    says = "all gradients were zero in the first 50 updates: nothing is learned.*See that"
    for net, its, _ in ((model, optimizer, scheduler), resumed):
        with pytest.warns(glyder.GlyderWarning, match=says) as said:
            train(net, its, range(49, 170), vanish(net))
        assert len(said) == 1


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam], ids=lambda cls: cls.__name__)
@pytest.mark.parametrize("begun", [1, 60])
def test_gradients_that_are_zero_once_something_is_learned(kind: Any, begun: int) -> None:
    """A margin that is kept: nothing is wrong."""
    model, optimizer, _ = begun_with(kind)
    with warnings.catch_warnings():
        warnings.simplefilter("error", glyder.GlyderWarning)
        train(model, optimizer, begun)
        train(model, optimizer, range(begun, begun + 100), vanish(model))


def begun_with(kind: Any) -> tuple[nn.Module, torch.optim.Optimizer, glyder.GlyderLR]:
    model = mlp()
    optimizer = kind(model.parameters())
    return model, optimizer, glyder.GlyderLR(optimizer, total_steps=UPDATES)


def vanish(model: nn.Module) -> Callable[[int], None]:
    """What makes a batch's gradients zeros."""

    def do(_: int) -> None:
        for p in model.parameters():
            p.grad.zero_()

    return do


# ---- nothing to say


@pytest.fixture
def quiet() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("error", glyder.GlyderWarning)
        yield


@KIND
@MAKE
@pytest.mark.parametrize("parts", [8, 32])
def test_gradients_that_are_gathered(quiet: None, make: Any, kind: Any, parts: int) -> None:
    """``step()`` is called for every part of a batch."""
    model = mlp()
    optimizer = kind(model.parameters())
    scheduler = make(optimizer, model)
    for t in range(5 * parts):
        backward(model, t)
        if t % parts == parts - 1:
            optimizer.step()
            optimizer.zero_grad()
        scheduler.step()
    assert scheduler.updates == 5


@pytest.mark.parametrize("fused", [False, True])
@MAKE
def test_steps_that_a_grad_scaler_leaves_out(quiet: None, make: Any, fused: bool) -> None:
    model = mlp()
    optimizer = torch.optim.AdamW(model.parameters(), fused=fused)
    scheduler = make(optimizer, model)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)
    for t in range(40):
        optimizer.zero_grad()
        x, y = batch(t)
        scaler.scale(F.cross_entropy(model(x), y)).backward()
        if t < 30:
            next(model.parameters()).grad.fill_(math.inf)
        scaler.step(optimizer)
        scaler.update()
        scheduler.step()
    assert scheduler.updates == 10


@KIND
@MAKE
def test_gradients_that_are_missing_for_a_while(quiet: None, make: Any, kind: Any) -> None:
    model = mlp()
    optimizer = kind(model.parameters())
    scheduler = make(optimizer, model)
    for t in range(50):
        optimizer.zero_grad()
        if t >= 30:
            backward(model, t)
        optimizer.step()
        scheduler.step()
    assert scheduler.updates in (19, 20)


@MAKE
def test_one_step_for_each_epoch(quiet: None, make: Any) -> None:
    model = mlp()
    optimizer = torch.optim.AdamW(model.parameters())
    scheduler = make(optimizer, model)
    for epoch in range(CALLS):
        train(model, optimizer, range(2 * epoch, 2 * epoch + 2))
        scheduler.step()


@MAKE
def test_pauses_between_updates_do_not_add_up(quiet: None, make: Any) -> None:
    model = mlp()
    optimizer = torch.optim.AdamW(model.parameters())
    scheduler = make(optimizer, model)
    for t in range(6):
        for _ in range(40):
            scheduler.step()
        train(model, optimizer, range(t, t + 1))


@MAKE
def test_a_closed_one_waits_for_nothing(quiet: None, make: Any) -> None:
    model = mlp()
    scheduler = make(torch.optim.AdamW(model.parameters()), model)
    scheduler.close()
    for _ in range(CALLS):
        scheduler.step()


def test_small_tensors_whose_gradients_are_zero(quiet: None) -> None:
    """They alone are looked at once the peak is found, but not they alone make it an update without gradients."""
    model = nn.Sequential(nn.Linear(6, 1000), nn.Tanh(), nn.Linear(1000, 4))
    optimizer = torch.optim.AdamW(model.parameters())
    scheduler = glyder.GlyderLR(optimizer, total_steps=UPDATES)

    def vanish(_: int) -> None:
        for p in (model[0].bias, model[2].weight, model[2].bias):
            p.grad.zero_()

    train(model, optimizer, CALLS, vanish)
    assert scheduler.peak_lr > 0
