"""Groups that are added while a run is on its way, and groups at rest that are given a rate."""

from __future__ import annotations

import copy
import itertools
import math
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import glyder

from .problems import backward, mlp, same, train, weights

pytestmark = pytest.mark.filterwarnings("error::glyder.GlyderWarning")

UPDATES = 60

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": torch.optim.SGD,
    "momentum": lambda params, lr: torch.optim.SGD(params, lr=lr, momentum=0.9, weight_decay=0.01),
    "adamw": torch.optim.AdamW,
}

SCHEDULERS: dict[str, Callable[..., Any]] = {
    "GlyderLR": lambda o, model: glyder.GlyderLR(o, total_steps=UPDATES, warmup=15),
    "GlyderLR, peak given": lambda o, model: glyder.GlyderLR(o, total_steps=UPDATES, peak_lr=0.01),
    "LocalOptimumLR": lambda o, model: glyder.LocalOptimumLR(o, model, total_steps=UPDATES),
    "LocalOptimumLR always": lambda o, model: glyder.LocalOptimumLR(
        o, model, total_steps=UPDATES, refresh="always", every=1
    ),
    "HypergradientLR": lambda o, model: glyder.HypergradientLR(o, beta=1e-4, total_steps=UPDATES, anneal="cosine"),
    "SecantLR": lambda o, model: glyder.SecantLR(o, total_steps=UPDATES, anneal="linear", warmup=10),
    "NewtonLR": lambda o, model: glyder.NewtonLR(o, every=3, scope="global"),
    "AnnealedLR": lambda o, model: glyder.AnnealedLR(o, UPDATES, "linear", warmup=5),
}

EACH = [pytest.param(s, o, id=f"{s}-{o}") for s in SCHEDULERS for o in OPTIMIZERS]
SAVED = [pytest.param(s, o, id=f"{s}-{o}") for s in ("GlyderLR", "LocalOptimumLR", "SecantLR") for o in OPTIMIZERS]


class Run:
    """The head is trained from the start; the backbone comes later, or is at rest until then."""

    def __init__(self, scheduler: str, optimizer: str, start: float = 1e-3, rest: bool = False) -> None:
        self.model = mlp()
        self.head, self.backbone = list(self.model[2].parameters()), list(self.model[0].parameters())
        groups: list[dict[str, Any]] = [{"params": self.head}]
        if rest:
            groups.insert(0, {"params": self.backbone, "lr": 0.0})
        self.optimizer = OPTIMIZERS[optimizer](groups, lr=start)
        self.scheduler = SCHEDULERS[scheduler](self.optimizer, self.model)

    def go(self, *updates: int) -> None:
        for t in range(*updates):
            train(self.model, self.optimizer, range(t, t + 1))
            self.scheduler.step()

    def rates(self) -> list[float]:
        return [float(group["lr"]) for group in self.optimizer.param_groups]

    def add(self, lr: Any = None) -> None:
        self.optimizer.add_param_group({"params": self.backbone} | ({} if lr is None else {"lr": lr}))

    def parts(self) -> dict[str, Any]:
        return {"model": self.model, "optimizer": self.optimizer, "scheduler": self.scheduler}

    def state(self) -> dict[str, Any]:
        return copy.deepcopy({name: part.state_dict() for name, part in self.parts().items()})


@pytest.mark.parametrize(("scheduler", "optimizer"), EACH)
@pytest.mark.parametrize("when", [0, 4, 40])
def test_one_that_is_added_keeps_its_proportion_to_the_present_rate(scheduler: str, optimizer: str, when: int) -> None:
    """Whatever the starting rate was: for those that find the rate by themselves it plays no part at all."""
    for start in (1e-5, 1e-3, 1e-2):
        run = Run(scheduler, optimizer, start)
        run.go(when)
        run.add(run.rates()[0] / 10)
        held = weights(run.model[0])
        for t in range(when, when + 10):
            run.go(t, t + 1)
            first, second = run.rates()
            assert second == pytest.approx(first / 10, rel=1e-13)
        assert not same(weights(run.model[0]), held)


@pytest.mark.parametrize(("scheduler", "optimizer"), EACH)
@pytest.mark.parametrize("when", [0, 4, 40])
def test_one_that_is_added_without_a_rate_is_like_the_others_without_one(
    scheduler: str, optimizer: str, when: int
) -> None:
    run = Run(scheduler, optimizer)
    run.go(when)
    run.add()
    run.go(when, when + 3)
    first, second = run.rates()
    assert second == pytest.approx(first, rel=1e-14)


@pytest.mark.parametrize(("scheduler", "optimizer"), EACH)
@pytest.mark.parametrize("when", [0, 4, 40])
@pytest.mark.parametrize("factor", [1.0, 0.1])
def test_one_at_rest_is_trained_at_the_rate_that_it_is_given(
    scheduler: str, optimizer: str, when: int, factor: float
) -> None:
    run = Run(scheduler, optimizer, rest=True)
    held = weights(run.model[0])
    run.go(when)
    assert same(weights(run.model[0]), held)
    run.optimizer.param_groups[0]["lr"] = factor * run.rates()[1]
    for t in range(when, when + 10):
        run.go(t, t + 1)
        first, second = run.rates()
        assert first == pytest.approx(factor * second, rel=1e-13)
    assert not same(weights(run.model[0]), held)


def test_the_optimizers_default_is_a_rate_like_any_other_where_it_is_given_to_one_at_rest() -> None:
    run = Run("GlyderLR, peak given", "sgd", start=1e-4, rest=True)
    run.go(40)
    head = run.rates()[1]
    run.optimizer.param_groups[0]["lr"] = 1e-4
    run.go(40, 42)
    first, second = run.rates()
    assert first / second == pytest.approx(1e-4 / head, rel=1e-13)


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_rates_that_are_tensors(scheduler: str) -> None:
    """Also one that two groups share from then on."""
    run = Run(scheduler, "adamw", start=torch.tensor(1e-3, dtype=torch.float64), rest=True)  # type: ignore[arg-type]
    extra = nn.Parameter(torch.ones(3))
    run.go(40)
    run.optimizer.param_groups[0]["lr"] = run.optimizer.param_groups[1]["lr"]
    run.optimizer.add_param_group({"params": [extra], "lr": run.optimizer.param_groups[1]["lr"] / 10})
    run.go(40, 43)
    first, second, third = run.rates()
    assert first == second == pytest.approx(10 * third, rel=1e-13)
    if scheduler != "AnnealedLR":  # torch's own leave them shared
        assert run.optimizer.param_groups[0]["lr"] is not run.optimizer.param_groups[1]["lr"]


@pytest.mark.parametrize("make", [glyder.GlyderLR, glyder.LocalOptimumLR], ids=lambda cls: cls.__name__)
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_of_the_first_of_two_optimizers(make: Any, kind: str) -> None:
    """The groups of the second move up by one place: nobody has changed their rates."""
    model = mlp()
    extra = [model[0].bias]
    optimizers = [OPTIMIZERS[kind](of, lr=lr) for of, lr in (([model[0].weight], 1e-3), (model[2].parameters(), 4e-3))]
    make(optimizers, model, total_steps=UPDATES)
    train(model, optimizers, 10)
    optimizers[0].add_param_group({"params": extra, "lr": optimizers[0].param_groups[0]["lr"] / 8})
    train(model, optimizers, range(10, 20))
    first, added = (group["lr"] for group in optimizers[0].param_groups)
    assert added == pytest.approx(first / 8, rel=1e-13)
    assert optimizers[1].param_groups[0]["lr"] == pytest.approx(4 * first, rel=1e-13)


@pytest.mark.parametrize("rest", [False, True], ids=["added", "at rest"])
@pytest.mark.parametrize("after", [0, 5])
@pytest.mark.parametrize("when", [6, 30])
@pytest.mark.parametrize(("scheduler", "optimizer"), SAVED)
def test_a_resumed_run_goes_on_to_the_same_bits(
    scheduler: str, optimizer: str, when: int, after: int, rest: bool
) -> None:
    """Also where it was saved before the next update, at whatever rate the group is until it is loaded."""
    run = Run(scheduler, optimizer, rest=rest)
    run.go(when)
    if rest:
        run.optimizer.param_groups[0]["lr"] = run.rates()[1] / 10
    else:
        run.add(run.rates()[0] / 10)
    run.go(when, when + after)
    saved = run.state()
    run.go(when + after, 50)
    for order in itertools.permutations(saved):
        second = Run(scheduler, optimizer, rest=rest)
        if not rest:
            second.add(0.77)
        for name in order:
            second.parts()[name].load_state_dict(copy.deepcopy(saved[name]))
        second.go(when + after, 50)
        ended, expected = second.state(), run.state()
        assert second.rates() == run.rates()
        assert same(
            [ended[name] for name in ("model", "scheduler")], [expected[name] for name in ("model", "scheduler")]
        )
        assert same(ended["optimizer"]["state"], expected["optimizer"]["state"])


@pytest.mark.parametrize("scheduler", ["GlyderLR, peak given", "LocalOptimumLR", "SecantLR"])
@pytest.mark.parametrize("factor", [0, 1])
def test_one_that_is_added_when_the_run_is_over(scheduler: str, factor: int) -> None:
    """All rates are 0 then, and that of the new group, a copy of them, is no wish to keep it still."""
    run = Run(scheduler, "adamw")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", glyder.GlyderWarning)
        run.go(UPDATES + 2)
        assert run.rates() == [0.0]
        run.add(factor * 1e-3)
        run.go(UPDATES + 2, UPDATES + 4)
    run.scheduler.extend(2 * UPDATES)
    run.go(UPDATES + 4, UPDATES + 8)
    first, second = run.rates()
    assert first == second > 0


@pytest.mark.parametrize("scheduler", ["GlyderLR", "LocalOptimumLR", "SecantLR", "AnnealedLR"])
@pytest.mark.parametrize("rate", [-1e-3, math.nan, math.inf])
def test_what_is_no_rate_is_named(scheduler: str, rate: float) -> None:
    run = Run(scheduler, "adamw")
    run.go(3)
    run.add(rate)
    with pytest.raises(ValueError, match=f"lr of group 1 of optimizer 0 is {rate}, .* has to be a finite number"):
        run.go(3, 4)
    run.optimizer.param_groups[1]["lr"] = run.rates()[0] / 2
    if scheduler != "AnnealedLR":  # which counts what it was asked for, like torch's
        run.go(3, 6)
        assert run.rates()[1] == pytest.approx(run.rates()[0] / 2, rel=1e-13)


def test_one_at_zero_that_is_added_stays_there() -> None:
    run = Run("GlyderLR", "adamw")
    run.go(20)
    run.add(0.0)
    held = weights(run.model[0])
    run.go(20, 30)
    assert run.rates()[1] == 0.0
    assert same(weights(run.model[0]), held)
    run.optimizer.param_groups[1]["lr"] = run.rates()[0]
    run.go(30, 33)
    assert run.rates()[1] == run.rates()[0]


@pytest.mark.parametrize("scope", ["group", "tensor"])
@pytest.mark.parametrize("make", [glyder.LocalOptimumLR, lambda o, m, **k: glyder.SecantLR(o, **k)])
def test_with_rates_of_their_own(make: Any, scope: str) -> None:
    """Each goes its own way from where it was put."""
    model = mlp()
    optimizer = torch.optim.SGD([{"params": [model[0].weight], "lr": 0.0}, {"params": [model[2].weight]}], lr=0.01)
    make(optimizer, model, scope=scope, total_steps=UPDATES)
    train(model, optimizer, 8)
    resting, head = optimizer.param_groups[0], optimizer.param_groups[-1]
    resting["lr"] = head["lr"] / 10
    train(model, optimizer, range(8, 12))
    assert 0 < resting["lr"] < math.inf
    if make is glyder.LocalOptimumLR:
        return
    optimizer.add_param_group({"params": [model[2].bias], "lr": head["lr"] / 10})
    train(model, optimizer, range(12, 20))
    rates = [group["lr"] for group in optimizer.param_groups]
    assert all(0 < rate < math.inf for rate in rates)
    assert len(set(rates)) == len(rates)


def test_a_group_that_has_its_first_gradient_late_is_no_late_group() -> None:
    """With a scope of its own it begins at the optimizer's rate, as it always did."""
    model = mlp()
    groups = [{"params": model[0].parameters()}, {"params": model[2].parameters(), "lr": 0.02}]
    optimizer = torch.optim.SGD(groups, lr=0.01)
    scheduler = glyder.HypergradientLR(optimizer, beta=0.05, form="multiplicative", scope="group")
    for t in range(10):
        optimizer.zero_grad()
        backward(model, t)
        if t < 5:
            for p in model[2].parameters():
                p.grad = None
        optimizer.step()
        if t == 5:
            assert optimizer.param_groups[1]["lr"] == pytest.approx(0.02, rel=1e-14)
    assert scheduler.get_last_lr()[0] != 0.01
