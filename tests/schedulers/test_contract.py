"""torch's contract for schedulers, and what frameworks do with them."""

from __future__ import annotations

import copy
import io
import math
import pickle
import warnings
from typing import Any

import pytest
import torch
from torch.optim.lr_scheduler import LRScheduler

import glyder

from .problems import Recorder, backward, mlp, same, train, weights
from .small import BOTH, SEARCHED

pytestmark = pytest.mark.filterwarnings("error::glyder.GlyderWarning")

UPDATES = 30


def _run(make: Any, lr: Any = 1e-3, optimizer: type = torch.optim.AdamW, **options: Any) -> tuple[Any, Any, Any]:
    model = mlp()
    o = optimizer(model.parameters(), lr=lr)
    return model, o, make(o, model, **({"total_steps": UPDATES} | options))


@BOTH
def test_is_a_scheduler_and_construction_leaves_the_rate(make: Any) -> None:
    _, optimizer, scheduler = _run(make, lr=0.25)
    assert isinstance(scheduler, LRScheduler)
    assert optimizer.param_groups[0]["lr"] == 0.25
    assert scheduler.base_lrs == [0.25]
    assert optimizer.param_groups[0]["initial_lr"] == 0.25


@BOTH
def test_step_does_nothing_any_number_of_times(make: Any) -> None:
    ends = []
    for calls in (0, 1, 7):
        model, optimizer, scheduler = _run(make)
        for t in range(UPDATES):
            for _ in range(calls):
                scheduler.step()
            train(model, optimizer, range(t, t + 1))
            for epoch in range(calls):
                scheduler.step(epoch)
        ends.append([weights(model), scheduler.state_dict()])
    assert same(ends[0], ends[1])
    assert same(ends[0], ends[2])


@BOTH
def test_get_last_lr_is_what_the_update_was_made_with(make: Any) -> None:
    model, optimizer, scheduler = _run(make, optimizer=torch.optim.SGD)
    start, went_back = weights(model), 0
    for t in range(UPDATES - 1):
        before = weights(model)
        train(model, optimizer, range(t, t + 1))
        rate = scheduler.get_last_lr()[0]
        assert type(rate) is float
        assert rate == optimizer.param_groups[0]["lr"]
        if t and same(weights(model), start):  # the end of a search that goes back to where it began
            went_back += 1
            continue
        for p, x in zip(model.parameters(), before, strict=True):
            assert torch.equal(p, x.add(p.grad, alpha=-rate))  # the arithmetic of SGD itself
    assert went_back == (make is glyder.GlyderLR)


@BOTH
def test_tensor_rates_are_filled_in_place_and_handed_out_as_copies(make: Any) -> None:
    rate = torch.tensor(1e-3)
    model, optimizer, scheduler = _run(make, lr=rate)
    train(model, optimizer, 3)
    assert optimizer.param_groups[0]["lr"] is rate
    assert rate.dtype == torch.float32
    last = scheduler.get_last_lr()
    assert torch.equal(last[0], rate)
    last[0].fill_(99.0)
    assert float(rate) != 99.0
    assert float(scheduler.get_last_lr()[0]) != 99.0


@BOTH
def test_rates_of_an_optimizer_share_no_tensor(make: Any) -> None:
    model = mlp()
    groups = [{"params": model[0].parameters()}, {"params": model[2].parameters()}]
    optimizer = torch.optim.AdamW(groups, lr=torch.tensor(1e-3))
    scheduler = make(optimizer, model, total_steps=UPDATES)
    train(model, optimizer, 5)
    first, second = (group["lr"] for group in optimizer.param_groups)
    assert torch.equal(first, second)
    assert first is not second
    scheduler.close()
    glyder.LocalOptimumLR(optimizer, model, scope="group", total_steps=UPDATES)
    train(model, optimizer, 5)
    first, second = (float(group["lr"]) for group in optimizer.param_groups)
    assert first != second


@BOTH
def test_as_accelerate_uses_it(make: Any) -> None:
    """It steps once per process, compares ``_step_count`` with ``total_steps`` where there is one, and adds."""
    for total in (UPDATES, None):
        model, optimizer, scheduler = _run(make, total_steps=total)
        for t in range(UPDATES):
            train(model, optimizer, range(t, t + 1))
            for _ in range(4):
                if not hasattr(scheduler, "total_steps") or scheduler._step_count <= scheduler.total_steps:
                    scheduler.step()
            scheduler._step_count += 1
            scheduler.get_last_lr()
        alone, by_itself, _ = _run(make, total_steps=total)
        train(alone, by_itself, UPDATES)
        assert same(weights(model), weights(alone))


@BOTH
def test_updates_are_counted_under_torchs_names(make: Any) -> None:
    model, optimizer, scheduler = _run(make)
    assert (scheduler.updates, scheduler.last_epoch, scheduler._step_count) == (0, 0, 1)
    train(model, optimizer, 5)
    assert (scheduler.updates, scheduler.last_epoch, scheduler._step_count) == (5, 5, 6)


COPIED = [
    (glyder.LocalOptimumLR, torch.optim.AdamW),
    (glyder.GlyderLR, torch.optim.AdamW),
    (glyder.GlyderLR, torch.optim.SGD),
]
"""A scheduler and an optimizer: GlyderLR searches differently with each of the two."""


@pytest.mark.parametrize("stop", [0, 3, 11, 20])
@pytest.mark.parametrize("way", ["pickle", "deepcopy", "torch.save"])
@pytest.mark.parametrize(("make", "kind"), COPIED)
def test_copies_of_the_three_together_go_on_to_the_same_bits(make: Any, kind: Any, way: str, stop: int) -> None:
    model, optimizer, scheduler = _run(make, optimizer=kind)
    train(model, optimizer, stop)
    if make is glyder.GlyderLR and stop != 11:
        assert math.isfinite(scheduler.peak_lr) == (stop == 20), "while it searches, and after"
    three = (model, optimizer, scheduler)
    if way == "pickle":
        model2, optimizer2, scheduler2 = pickle.loads(pickle.dumps(three))
    elif way == "deepcopy":
        model2, optimizer2, scheduler2 = copy.deepcopy(three)
    else:
        file = io.BytesIO()
        torch.save(three, file)
        file.seek(0)
        model2, optimizer2, scheduler2 = torch.load(file, weights_only=False)
    assert scheduler2.optimizer is optimizer2
    if make is glyder.LocalOptimumLR:
        assert scheduler2.model is model2
    for m, o in ((model, optimizer), (model2, optimizer2)):
        train(m, o, range(stop, UPDATES))
    assert same(weights(model), weights(model2))
    assert same(scheduler.state_dict(), scheduler2.state_dict())


@BOTH
def test_a_copy_of_the_optimizer_alone_is_a_plain_optimizer(make: Any) -> None:
    model, optimizer, scheduler = _run(make, lr=0.01, optimizer=torch.optim.SGD)
    train(model, optimizer, 5)
    state, held = scheduler.state_dict(), weights(model)
    plain = copy.deepcopy(optimizer)
    rate = plain.param_groups[0]["lr"]
    for p in plain.param_groups[0]["params"]:
        p.grad = torch.ones_like(p)
    plain.step()
    assert plain.param_groups[0]["lr"] == rate
    assert same(scheduler.state_dict(), state)
    assert same(weights(model), held)


def test_a_copy_of_the_model_alone_is_a_plain_model() -> None:
    model, optimizer, scheduler = _run(glyder.LocalOptimumLR)
    train(model, optimizer, 3)
    copied = copy.deepcopy(model)
    state = scheduler.state_dict()
    backward(copied, 3)
    assert same(scheduler.state_dict(), state)
    assert scheduler._sampler.stream.last is None


@SEARCHED
def test_one_that_observes_is_beside_one_that_searches(optimizer: Any) -> None:
    """It changes nothing, and what it measures are the updates as they are made."""
    ends = []
    for observed in (False, True):
        model = mlp()
        o = optimizer(model.parameters())
        scheduler = glyder.GlyderLR(o, total_steps=UPDATES)
        if observed:
            watch = glyder.LocalOptimumLR(o, model, observe_only=True, every=1)
        record = Recorder(o)
        train(model, o, UPDATES)
        ends.append([weights(model), scheduler.state_dict()])
    assert same(*ends)
    made = [rates[0] for before, after, rates in zip(record.before, record.after, record.rates, strict=True)
            if not same(before, after)]  # fmt: skip
    rows = {int(row["update"]): row["lr"] for row in watch.history}
    assert len(rows) > UPDATES / 2
    assert all(made[t] == lr for t, lr in rows.items())


@BOTH
def test_another_scheduler_beside_it_is_told_once_and_overridden(make: Any) -> None:
    model, optimizer, scheduler = _run(make)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, UPDATES)
    with pytest.warns(glyder.GlyderWarning, match="something else changed the learning rate") as said:
        for t in range(8):
            train(model, optimizer, range(t, t + 1))
            applied = optimizer.param_groups[0]["lr"]
            cosine.step()
            assert scheduler.get_last_lr() == [applied]
    assert len(said) == 1
    alone, by_itself, _ = _run(make)
    train(alone, by_itself, 8)
    assert same(weights(model), weights(alone))


@BOTH
def test_no_warning_of_torchs_and_step_is_not_patched(make: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model, optimizer, scheduler = _run(make)
        assert "step" not in vars(optimizer)
        train(model, optimizer, 3)
        scheduler.step()
