"""What is true of every scheduler of one rule: the table is in ``family``, the rules themselves in ``tests/rules``."""

from __future__ import annotations

import copy
import io
import math
from typing import Any

import pytest
import torch
from torch import nn

import glyder
from glyder.rules.rule_lr import RuleLR

from .family import FAMILY, MAKERS, Member, optimizers_of
from .problems import backward, mlp, same, weights

pytestmark = pytest.mark.filterwarnings("error::glyder.GlyderWarning")

UPDATES = 30
PAIRS = [pytest.param(name, o, id=f"{name}-{o}") for name, m in FAMILY.items() for o in optimizers_of(m)]
SCOPES = [pytest.param(name, s, id=f"{name}-{s}") for name, m in FAMILY.items() for s in m.scopes]


class Run:
    """A small run; the optimizer has two groups, of which the second has half of the rate."""

    def __init__(self, name: str, optimizer: str = "", **options: Any) -> None:
        member: Member = FAMILY[name]
        self.closure = member.closure
        self.model = mlp()
        self.name = optimizer or optimizers_of(member)[0]
        params = list(self.model.parameters())
        groups = [{"params": params[:2]}, {"params": params[2:], "lr": member.rate / 2}]
        if self.name in ("LBFGS", "tensor rate"):
            groups = [{"params": params}]
        self.optimizer = MAKERS[self.name](groups, member.rate)
        self.scheduler: RuleLR = member.attach(self.optimizer, self.model, **options)
        self.rates: list[list[float]] = []

    def go(self, start: int, end: int, spoil: int = -1) -> None:
        for t in range(start, end):

            def closure(t: int = t) -> torch.Tensor:
                self.optimizer.zero_grad()
                loss = backward(self.model, t)
                if t == spoil:
                    next(self.model.parameters()).grad.fill_(math.nan)  # type: ignore[union-attr]
                return loss

            torch.manual_seed(t)
            if self.closure or self.name == "LBFGS":
                self.optimizer.step(closure)
            else:
                self.scheduler.observe(closure())
                self.optimizer.step()
            self.scheduler.step()
            self.rates.append([float(rate) for rate in self.scheduler.get_last_lr()])

    def state(self) -> dict[str, Any]:
        parts = {"model": self.model, "optimizer": self.optimizer, "scheduler": self.scheduler}
        return {name: part.state_dict() for name, part in parts.items()}

    def load(self, state: dict[str, Any], order: tuple[str, ...]) -> None:
        for part in order:
            getattr(self, part).load_state_dict(copy.deepcopy(state[part]))


@pytest.mark.parametrize(("name", "optimizer"), PAIRS)
def test_every_optimizer_gets_positive_finite_rates(name: str, optimizer: str) -> None:
    run = Run(name, optimizer)
    run.go(0, UPDATES)
    assert all(0 < rate < math.inf for rates in run.rates for rate in rates)
    assert all(torch.isfinite(w).all() for w in weights(run.model))
    assert run.scheduler.updates == UPDATES


@pytest.mark.parametrize("name", FAMILY)
def test_it_is_the_rule_that_sets_the_rate(name: str) -> None:
    """A test of nothing else would pass if the rule never acted."""
    run = Run(name)
    run.go(0, UPDATES)
    assert len({rates[0] for rates in run.rates}) > 2
    assert run.scheduler.history["rate"][-1] == run.rates[-1][0]
    assert sum(run.scheduler.reasons.values()) >= len(run.scheduler.history)


@pytest.mark.parametrize(("name", "scope"), SCOPES)
@pytest.mark.parametrize("stop", [0, 1, 2, 17])
def test_resumed_to_the_bit(name: str, scope: str, stop: int) -> None:
    whole, first = Run(name, scope=scope), Run(name, scope=scope)
    whole.go(0, UPDATES)
    first.go(0, stop)
    buffer = io.BytesIO()
    torch.save(first.state(), buffer)
    buffer.seek(0)
    saved = torch.load(buffer, weights_only=True)
    first.go(stop, stop + 3)  # what was saved is a copy
    for order in (("model", "optimizer", "scheduler"), ("scheduler", "optimizer", "model")):
        second = Run(name, scope=scope)
        second.load(saved, order)
        second.go(stop, UPDATES)
        assert same(second.state(), whole.state())


@pytest.mark.parametrize("name", FAMILY)
def test_an_update_that_is_not_finite_moves_nothing(name: str) -> None:
    run = Run(name)
    run.go(0, 10)
    held, base = weights(run.model), copy.deepcopy(run.optimizer.state_dict()["state"])
    with pytest.warns(glyder.GlyderWarning, match="not a number"):
        run.go(10, 11, spoil=10)
    assert same(weights(run.model), held)
    assert same(run.optimizer.state_dict()["state"], base)
    assert (run.scheduler.skipped, run.scheduler.updates) == (1, 10)
    run.go(11, UPDATES)
    assert all(torch.isfinite(w).all() for w in weights(run.model))


@pytest.mark.parametrize("name", FAMILY)
def test_annealed_to_zero(name: str) -> None:
    """The schedule is a factor on the rule's rate: the rule's own rate does not see it."""
    run = Run(name, total_steps=UPDATES, anneal="linear", warmup=5)
    run.go(0, UPDATES)
    base = [row["rate"] for row in run.scheduler.history]
    for t in (2, 4, 10, UPDATES - 1):
        factor = (t + 1) / 5 if t < 5 else (UPDATES - t) / (UPDATES - 5)
        seen = [b for b, row in zip(base, run.scheduler.history, strict=True) if row["update"] <= t]
        rate = seen[-1] if seen else FAMILY[name].rate
        assert run.rates[t][0] == pytest.approx(rate * factor, rel=1e-12)
    with pytest.warns(glyder.GlyderWarning, match="total_steps=30"):
        run.go(UPDATES, UPDATES + 1)
    assert run.rates[-1] == [0.0, 0.0]


@pytest.mark.parametrize("name", FAMILY)
def test_bounds(name: str) -> None:
    run = Run(name, min_lr=0.01, max_lr=0.0101)
    run.go(0, UPDATES)
    assert all(0.01 <= rates[0] <= 0.0101 for rates in run.rates), "from the first update on"


@pytest.mark.parametrize(("name", "scope"), SCOPES)
def test_scopes(name: str, scope: str) -> None:
    run = Run(name, scope=scope)
    run.go(0, UPDATES)
    rates = run.rates[-1]
    assert len(rates) == {"global": 2, "group": 2, "tensor": 4}[scope]
    if scope == "global":
        assert rates[1] == pytest.approx(rates[0] / 2, rel=1e-15)
    else:
        assert len(set(rates)) == len(rates)


@pytest.mark.parametrize("name", FAMILY)
def test_a_group_at_zero_stays_at_zero(name: str) -> None:
    run = Run(name)
    run.scheduler.close()
    run.optimizer.param_groups[1]["lr"] = 0.0
    run.scheduler = FAMILY[name].attach(run.optimizer, run.model)
    held = [p.detach().clone() for p in run.optimizer.param_groups[1]["params"]]
    run.go(0, 8)
    assert run.rates[-1][1] == 0.0
    assert same(held, [p.detach() for p in run.optimizer.param_groups[1]["params"]])


@pytest.mark.parametrize("name", FAMILY)
def test_some_parameters_without_gradient(name: str) -> None:
    """A branch that some batches leave out: its vectors are looked back at only where there are any."""
    run = Run(name)
    if run.closure:
        pytest.skip("the loop of this test has no closure")
    for t in range(12):
        run.optimizer.zero_grad()
        run.scheduler.observe(backward(run.model, t))
        if t % 3:
            last: nn.Parameter = list(run.model.parameters())[-1]
            last.grad = None
        run.optimizer.step()
        assert all(0 < float(r) < math.inf for r in run.scheduler.get_last_lr())


@pytest.mark.parametrize("name", FAMILY)
def test_a_state_of_another_rule_is_refused(name: str) -> None:
    run = Run(name)
    state = run.scheduler.state_dict() | {"scheduler": "nosuch"}
    with pytest.raises(ValueError, match="nosuch"):
        run.scheduler.load_state_dict(state)
    with pytest.raises(ValueError, match="version"):
        run.scheduler.load_state_dict(state | {"version": 0})


@pytest.mark.parametrize("name", FAMILY)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scope": "layer"}, "scope"),
        ({"min_lr": 1.0, "max_lr": 0.5}, "min_lr"),
        ({"anneal": "cosine"}, "total_steps"),
        ({"anneal": "nosuch"}, "nosuch"),
        ({"warmup": -1}, "warmup"),
        ({"max_growth": 1.0}, "max_growth"),
        ({"nosuch": 1}, "nosuch"),
    ],
)
def test_wrong_arguments(name: str, options: dict[str, Any], message: str) -> None:
    model = mlp()
    optimizer = MAKERS[optimizers_of(FAMILY[name])[0]](model.parameters(), 0.1)
    before = copy.deepcopy(optimizer.state_dict())
    with pytest.raises((TypeError, ValueError), match=message):
        FAMILY[name].attach(optimizer, model, **options)
    assert same(optimizer.state_dict(), before)
    assert not optimizer._optimizer_step_pre_hooks


@pytest.mark.parametrize("name", [name for name, member in FAMILY.items() if member.closure])
def test_passes_over_the_closure_are_counted(name: str) -> None:
    """By the closure itself: every run of it that the loop did not ask for. It takes backward, so each is 3."""
    run, ran = Run(name), 0
    run.go(0, 2)
    before = run.scheduler.cost[0]

    def closure() -> torch.Tensor:
        nonlocal ran
        ran += 1
        run.optimizer.zero_grad()
        return backward(run.model, 3)

    for _ in range(5):
        run.optimizer.step(closure)
    assert run.scheduler.cost[0] - before == 3 * (ran - 5)
    assert ran > 5


@pytest.mark.parametrize("name", [name for name, member in FAMILY.items() if "group" in member.scopes])
def test_a_group_that_is_added_starts_where_the_others_have_come_to(name: str) -> None:
    """In proportion to their rates as they are: neither where they started from, nor in units of an annealed rate."""
    run = Run(name, scope="group", max_lr=1e-3, anneal="linear", total_steps=UPDATES)
    run.go(0, 20)
    first, second = (block.base for block in run.scheduler._blocks.values())
    now, other = (group["lr"] for group in run.optimizer.param_groups)
    for rate, base in ((other, second), (now / 8, first / 8)):
        run.optimizer.add_param_group({"params": [nn.Parameter(torch.ones(3))], "lr": rate})
        run.scheduler._take_in_groups()
        key = 0, len(run.optimizer.param_groups) - 1
        assert run.scheduler._block(key).base == pytest.approx(base, rel=1e-14)


@pytest.mark.parametrize("name", [name for name, member in FAMILY.items() if "tensor" in member.scopes])
def test_the_one_group_of_an_optimizer_is_not_split(name: str) -> None:
    if "LBFGS" not in optimizers_of(FAMILY[name]) or "LBFGS" in FAMILY[name].but:
        pytest.skip("never meets LBFGS")
    model = mlp()
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1)
    with pytest.raises(ValueError, match="LBFGS.*global"):
        FAMILY[name].attach(optimizer, model, scope="tensor")
    assert len(optimizer.param_groups) == 1


@pytest.mark.parametrize("name", [name for name, member in FAMILY.items() if member.loss or name == "polyak"])
def test_a_loss_of_a_step_that_was_not_made_is_forgotten(name: str) -> None:
    """As under a GradScaler that met an overflow: the latest loss counts."""
    clean, skipped = Run(name), Run(name)
    clean.go(0, 3)
    skipped.scheduler.observe(1e6)
    skipped.go(0, 3)
    assert skipped.rates == clean.rates
