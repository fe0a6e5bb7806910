"""A scheduler after another one on the same optimizer: in its place, or when its run is over; and before any update."""

from __future__ import annotations

import copy
import gc
import io
import math
import warnings
import weakref
from typing import Any

import pytest
import torch

import glyder

from .family import FAMILY
from .problems import mlp, same, train, weights
from .test_family import Run as FamilyRun

UPDATES = 40

MAKE = pytest.mark.parametrize(
    "make",
    [
        lambda o, model: glyder.GlyderLR(o, model, total_steps=UPDATES),
        lambda o, model: glyder.LocalOptimumLR(o, model, total_steps=UPDATES),
        lambda o, model: glyder.SecantLR(o, total_steps=UPDATES, anneal="linear"),
        lambda o, model: glyder.HypergradientLR(o, beta=1e-4, total_steps=UPDATES, anneal="cosine"),
    ],
    ids=["GlyderLR", "LocalOptimumLR", "SecantLR", "HypergradientLR"],
)
KIND = pytest.mark.parametrize(
    "kind",
    [torch.optim.SGD, lambda p, lr: torch.optim.SGD(p, lr=lr, momentum=0.9), torch.optim.AdamW],
    ids=["sgd", "momentum", "adamw"],
)


def _grouped(model: Any, kind: Any) -> torch.optim.Optimizer:
    """The first rests, the last has a quarter of the second's rate."""
    groups = [
        {"params": [model[0].bias], "lr": 0.0},
        {"params": [model[0].weight]},
        {"params": model[2].parameters(), "lr": 2.5e-3},
    ]
    return kind(groups, lr=1e-2)


def _over(make: Any, model: Any, optimizer: Any) -> Any:
    """A run to its end and a little farther."""
    scheduler = make(optimizer, model)
    with pytest.warns(glyder.GlyderWarning, match="at its end"):
        train(model, optimizer, UPDATES + 3)
    assert all(group["lr"] == 0 for group in optimizer.param_groups)
    return scheduler


# ---- one gives way


@KIND
@MAKE
@pytest.mark.parametrize("when", [0, 3, 30])
def test_the_newest_sets_the_rates(make: Any, kind: Any, when: int) -> None:
    """As after ``close()``, but for what is said; parameters, optimizer and rates are left as they are, unless they are
    set back (below)."""
    ends = []
    for closed in (False, True):
        model = mlp()
        optimizer = kind(model.parameters(), lr=1e-2)
        old = make(optimizer, model)
        goes_back = isinstance(old, glyder.GlyderLR) and isinstance(optimizer, torch.optim.SGD) and when == 3
        train(model, optimizer, when)
        held = [weights(model), copy.deepcopy(optimizer.state_dict())]
        if closed:
            old.close()
            new = make(optimizer, model)
        else:
            with pytest.warns(glyder.GlyderWarning, match=r"optimizer 0 \(\w+\) has a \w+ already.*closed") as said:
                new = make(optimizer, model)
            assert len(said) == 1
        assert same(held, [weights(model), optimizer.state_dict()]) is not goes_back
        assert (len(optimizer._optimizer_step_pre_hooks), len(optimizer._optimizer_step_post_hooks)) == (1, 1)
        before = old.updates
        train(model, optimizer, range(when, when + 20))
        assert old.updates == before
        assert new.updates in (19, 20)
        ends.append([weights(model), new.state_dict()])
    (weights_a, state_a), (weights_b, state_b) = ends
    assert same(weights_a, weights_b)
    assert same(state_a | {"said": []}, state_b | {"said": []})


@MAKE
def test_one_that_nobody_holds_is_let_go(make: Any) -> None:
    model = mlp()
    optimizer = torch.optim.AdamW(model.parameters())
    old = weakref.ref(make(optimizer, model))
    gc.collect()
    assert old() is not None
    with pytest.warns(glyder.GlyderWarning, match="gives way"):
        make(optimizer, model)
    gc.collect()
    assert old() is None
    assert len(model._forward_hooks) <= 1


@MAKE
def test_interrupted_within_a_step(make: Any) -> None:
    """Ctrl-C between the hooks: gradients that were hidden for a skipped update are shown again."""
    model = mlp()
    optimizer = torch.optim.AdamW(model.parameters())
    make(optimizer, model)

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    train(model, optimizer, 3)
    handle = optimizer.register_step_pre_hook(interrupt)
    with pytest.raises(KeyboardInterrupt), warnings.catch_warnings():
        warnings.simplefilter("ignore", glyder.GlyderWarning)
        train(model, optimizer, range(3, 4), lambda t: model[0].weight.grad.fill_(math.nan))
    handle.remove()
    with pytest.warns(glyder.GlyderWarning, match="gives way"):
        make(optimizer, model)
    assert all(p.grad is not None for p in model.parameters())
    train(model, optimizer, range(4, 24))
    assert all(torch.isfinite(w).all() for w in weights(model))


def test_of_several_optimizers_and_of_another_kind() -> None:
    model = mlp()
    optimizers = [torch.optim.SGD(model[0].parameters()), torch.optim.AdamW(model[2].parameters())]
    glyder.LocalOptimumLR(optimizers, model)
    with pytest.warns(glyder.GlyderWarning, match=r"optimizer 0 \(AdamW\) has a LocalOptimumLR already.*GlyderLR"):
        glyder.GlyderLR(optimizers[1], total_steps=UPDATES)
    assert not optimizers[0]._optimizer_step_pre_hooks
    assert not model._forward_hooks


def test_one_that_fails_leaves_the_old_one() -> None:
    model, other = mlp(), mlp()
    optimizer = torch.optim.AdamW(model.parameters())
    old = glyder.GlyderLR(optimizer, total_steps=UPDATES)
    with warnings.catch_warnings():
        warnings.simplefilter("error", glyder.GlyderWarning)
        with pytest.raises(glyder.GlyderWarning, match="already"):
            glyder.GlyderLR(optimizer, total_steps=UPDATES)
    with (
        pytest.warns(glyder.GlyderWarning, match="already"),
        pytest.raises(ValueError, match=r"not among model.parameters\(\)"),
    ):
        glyder.LocalOptimumLR(optimizer, other)
    train(model, optimizer, 5)
    assert old.updates == 5


def test_one_that_only_observes_is_no_rival() -> None:
    model = mlp()
    optimizer = torch.optim.AdamW(model.parameters())
    with warnings.catch_warnings():
        warnings.simplefilter("error", glyder.GlyderWarning)
        first = glyder.LocalOptimumLR(optimizer, model, observe_only=True)
        second = glyder.GlyderLR(optimizer, total_steps=UPDATES)
        third = glyder.LocalOptimumLR(optimizer, model, observe_only=True)
        train(model, optimizer, 5)
    assert [s.updates for s in (first, second, third)] == [5, 5, 5]


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("way", ["closed", "in its place"])
def test_a_search_for_the_edge_that_is_stopped_goes_back(way: str, momentum: float) -> None:
    """Parameters and momentum are those of the beginning, and no copy of them is left."""
    model = mlp()
    begin = weights(model)
    optimizer = torch.optim.SGD(model.parameters(), momentum=momentum)
    old = glyder.GlyderLR(optimizer, total_steps=UPDATES)
    train(model, optimizer, 6)
    assert not same(weights(model), begin)
    assert math.isnan(old.peak_lr)
    copies = [weakref.ref(x) for x in old.search.now.begin.values()]
    if way == "closed":
        old.close()
        old.close()
    else:
        with pytest.warns(glyder.GlyderWarning, match="gives way and is closed.*parameters are set back") as said:
            glyder.GlyderLR(optimizer, total_steps=UPDATES)
        assert len(said) == 1
    gc.collect()
    assert len(copies) == 4
    assert not any(ref() is not None for ref in copies)
    assert same(weights(model), begin)
    assert not any(state.get("momentum_buffer") is not None for state in optimizer.state.values())
    assert "closed in its search" in repr(old)
    assert "was being searched when it was closed" in old.explain()
    new = glyder.GlyderLR(torch.optim.SGD(model.parameters(), momentum=momentum), total_steps=UPDATES)
    new.load_state_dict(old.state_dict())
    train(model, new.optimizer, range(6, 6 + UPDATES // 2))
    assert new.peak_lr > 0, "it begins another search"


def test_other_searches_that_are_stopped_leave_no_copy() -> None:
    model = mlp()
    optimizer = torch.optim.AdamW(model.parameters())
    old = glyder.GlyderLR(optimizer, total_steps=UPDATES)
    train(model, optimizer, 4)
    held, copies = weights(model), [weakref.ref(x) for x in old.search.now.displacement.values()]
    with pytest.warns(glyder.GlyderWarning, match="goes on from where parameters and optimizer are"):
        glyder.GlyderLR(optimizer, total_steps=UPDATES)
    gc.collect()
    assert not any(ref() is not None for ref in copies)
    assert same(weights(model), held)


# ---- a run that is over


@KIND
@MAKE
@pytest.mark.parametrize("way", ["closed", "in its place", "from a file"])
def test_rates_that_a_schedule_has_brought_to_zero_are_no_wish(make: Any, kind: Any, way: str) -> None:
    """The next one has the ratios that the groups had, and what rested rests."""
    model = mlp()
    optimizer = _grouped(model, kind)
    old = _over(make, model, optimizer)
    if way == "closed":
        old.close()
    if way == "from a file":
        file = io.BytesIO()
        torch.save([model.state_dict(), optimizer.state_dict()], file)
        file.seek(0)
        model = mlp()
        optimizer = _grouped(model, kind)
        for part, state in zip((model, optimizer), torch.load(file, weights_only=True), strict=True):
            part.load_state_dict(state)
    held = weights(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error" if way != "in its place" else "ignore", glyder.GlyderWarning)
        make(optimizer, model)
        train(model, optimizer, range(100, 125))  # a search that goes back has done so
    resting, first, second = (group["lr"] for group in optimizer.param_groups)
    assert resting == 0
    assert second == pytest.approx(first / 4, rel=1e-13)
    assert first > 0
    moved = [not torch.equal(a, b) for a, b in zip(held, weights(model), strict=True)]
    assert moved == [True, False, True, True]


@KIND
@MAKE
def test_groups_that_came_later_keep_their_ratios_too(make: Any, kind: Any) -> None:
    model = mlp()
    optimizer = kind([{"params": [model[0].weight], "lr": 0.0}, {"params": model[2].parameters()}], lr=1e-2)
    old = make(optimizer, model)
    train(model, optimizer, 20)
    rate = optimizer.param_groups[1]["lr"]
    optimizer.param_groups[0]["lr"] = rate / 10
    optimizer.add_param_group({"params": [model[0].bias], "lr": rate / 5})
    with pytest.warns(glyder.GlyderWarning, match="at its end"):
        train(model, optimizer, range(20, UPDATES + 3))
    old.close()
    make(optimizer, model)
    train(model, optimizer, range(1))
    tenth, first, fifth = (group["lr"] for group in optimizer.param_groups)
    assert tenth == pytest.approx(first / 10, rel=1e-13)
    assert fifth == pytest.approx(first / 5, rel=1e-13)


@MAKE
def test_a_group_that_its_owner_rests_for_the_second_run(make: Any) -> None:
    """The others are not at 0, so that this is a wish; and a new group beside rates that are over is none."""
    model = mlp()
    optimizer = torch.optim.AdamW([{"params": model[0].parameters()}, {"params": [model[2].weight]}], lr=1e-2)
    old = make(optimizer, model)
    train(model, optimizer, 10)
    old.close()
    optimizer.param_groups[0]["lr"] = 0.0
    old = make(optimizer, model)
    train(model, optimizer, range(10, 20))
    assert optimizer.param_groups[0]["lr"] == 0
    old.close()
    optimizer.param_groups[0]["lr"] = optimizer.param_groups[1]["lr"]
    old = _over(make, model, optimizer)
    old.close()
    optimizer.add_param_group({"params": [model[2].bias], "lr": 1e-2})
    make(optimizer, model)
    train(model, optimizer, range(5))
    assert all(group["lr"] > 0 for group in optimizer.param_groups)


@pytest.mark.parametrize("name", FAMILY)
def test_every_rule_begins_again_where_the_first_one_began(name: str) -> None:
    run = FamilyRun(name, total_steps=5, anneal="linear")
    with pytest.warns(glyder.GlyderWarning, match="at its end"):
        run.go(0, 7)
    run.scheduler.close()
    run.scheduler = FAMILY[name].attach(run.optimizer, run.model)
    assert run.scheduler.state_dict()["reference"] == FAMILY[name].rate
    assert run.scheduler.state_dict()["ratios"] == [[1.0, 0.5]]
    run.go(7, 12)
    assert all(0 < rate < math.inf for rate in run.rates[-1])


def test_after_a_schedule_of_torchs_own() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)
    for t in range(10):
        train(model, optimizer, range(t, t + 1))
        cosine.step()
    assert optimizer.param_groups[0]["lr"] == 0
    glyder.GlyderLR(optimizer, total_steps=UPDATES)
    train(model, optimizer, range(10, 15))
    assert optimizer.param_groups[0]["lr"] > 0


# ---- before the first update


@KIND
@MAKE
@pytest.mark.parametrize("tensor", [False, True])
def test_there_is_no_last_rate_before_there_was_an_update(make: Any, kind: Any, tensor: bool) -> None:
    model = mlp()
    optimizer = kind(model.parameters(), lr=torch.tensor(1e-2) if tensor else 1e-2)
    scheduler = make(optimizer, model)
    assert [float(rate) for rate in scheduler.get_last_lr()] == [0.0]
    assert isinstance(scheduler.get_last_lr()[0], torch.Tensor) == tensor
    again = make(kind(mlp().parameters(), lr=1e-2), mlp()) if not isinstance(scheduler, glyder.LocalOptimumLR) else None
    if again is not None:
        again.load_state_dict(scheduler.state_dict())
        assert again.get_last_lr() == [0.0]
    train(model, optimizer, 1)
    assert scheduler.get_last_lr() == [optimizer.param_groups[0]["lr"]]
    assert scheduler.get_last_lr()[0] > 0


@pytest.mark.parametrize("scope", ["group", "tensor"])
def test_nor_with_a_scope(scope: str) -> None:
    model = mlp()
    optimizer = torch.optim.AdamW(model.parameters())
    scheduler = glyder.LocalOptimumLR(optimizer, model, scope=scope)
    assert scheduler.get_last_lr() == [0.0] * len(optimizer.param_groups)


@pytest.mark.parametrize("name", FAMILY)
def test_nor_of_any_rule(name: str) -> None:
    assert FamilyRun(name).scheduler.get_last_lr() == [0.0, 0.0]


def test_what_is_only_observed_has_its_owners_rate() -> None:
    model = mlp()
    scheduler = glyder.LocalOptimumLR(torch.optim.AdamW(model.parameters(), lr=3e-4), model, observe_only=True)
    assert scheduler.get_last_lr() == [3e-4]


def test_a_schedule_alone_has_that_of_the_first_update() -> None:
    model = mlp()
    scheduler = glyder.AnnealedLR(torch.optim.SGD(model.parameters(), lr=0.1), UPDATES, warmup=4)
    assert scheduler.get_last_lr() == [pytest.approx(0.1 / 4)]
