"""torch's contract for schedulers, and what frameworks do with them."""

from __future__ import annotations

import copy
import io
import pickle
import warnings
from typing import Any

import pytest
import torch
from torch.optim.lr_scheduler import LRScheduler

import glyder

from .problems import backward, mlp, same, train, weights

pytestmark = pytest.mark.filterwarnings("error::glyder.GlyderWarning")

UPDATES = 30


def _make(lr: Any = 1e-3, optimizer: type = torch.optim.AdamW, **options: Any) -> tuple[Any, Any, Any]:
    model = mlp()
    o = optimizer(model.parameters(), lr=lr)
    return model, o, glyder.LocalOptimumLR(o, model, **({"total_steps": UPDATES} | options))


def test_is_a_scheduler_and_construction_leaves_the_rate() -> None:
    _, optimizer, scheduler = _make(lr=0.25)
    assert isinstance(scheduler, LRScheduler)
    assert optimizer.param_groups[0]["lr"] == 0.25
    assert scheduler.get_last_lr() == [0.25]
    assert scheduler.base_lrs == [0.25]
    assert optimizer.param_groups[0]["initial_lr"] == 0.25


def test_step_does_nothing_any_number_of_times() -> None:
    ends = []
    for calls in (0, 1, 7):
        model, optimizer, scheduler = _make()
        for t in range(UPDATES):
            for _ in range(calls):
                scheduler.step()
            train(model, optimizer, range(t, t + 1))
            for epoch in range(calls):
                scheduler.step(epoch)
        ends.append([weights(model), scheduler.state_dict()])
    assert same(ends[0], ends[1])
    assert same(ends[0], ends[2])


def test_get_last_lr_is_what_the_update_was_made_with() -> None:
    model, optimizer, scheduler = _make(optimizer=torch.optim.SGD)
    for t in range(UPDATES - 1):
        before = weights(model)
        train(model, optimizer, range(t, t + 1))
        rate = scheduler.get_last_lr()[0]
        assert type(rate) is float
        assert rate == optimizer.param_groups[0]["lr"]
        for p, x in zip(model.parameters(), before, strict=True):
            assert torch.equal(p, x.add(p.grad, alpha=-rate))  # the arithmetic of SGD itself


def test_tensor_rates_are_filled_in_place_and_handed_out_as_copies() -> None:
    rate = torch.tensor(1e-3)
    model, optimizer, scheduler = _make(lr=rate)
    train(model, optimizer, 3)
    assert optimizer.param_groups[0]["lr"] is rate
    assert rate.dtype == torch.float32
    last = scheduler.get_last_lr()
    assert torch.equal(last[0], rate)
    last[0].fill_(99.0)
    assert float(rate) != 99.0
    assert float(scheduler.get_last_lr()[0]) != 99.0


def test_rates_of_an_optimizer_share_no_tensor() -> None:
    model = mlp()
    groups = [{"params": model[0].parameters()}, {"params": model[2].parameters()}]
    optimizer = torch.optim.AdamW(groups, lr=torch.tensor(1e-3))
    glyder.LocalOptimumLR(optimizer, model, scope="group", total_steps=UPDATES)
    train(model, optimizer, 5)
    first, second = (float(group["lr"]) for group in optimizer.param_groups)
    assert first != second


def test_as_accelerate_uses_it() -> None:
    """It steps once per process, compares ``_step_count`` with ``total_steps`` where there is one, and adds."""
    for total in (UPDATES, None):
        model, optimizer, scheduler = _make(total_steps=total)
        for t in range(UPDATES):
            train(model, optimizer, range(t, t + 1))
            for _ in range(4):
                if not hasattr(scheduler, "total_steps") or scheduler._step_count <= scheduler.total_steps:
                    scheduler.step()
            scheduler._step_count += 1
            scheduler.get_last_lr()
        alone, by_itself, _ = _make(total_steps=total)
        train(alone, by_itself, UPDATES)
        assert same(weights(model), weights(alone))


def test_updates_are_counted_under_torchs_names() -> None:
    model, optimizer, scheduler = _make()
    assert (scheduler.updates, scheduler.last_epoch, scheduler._step_count) == (0, 0, 1)
    train(model, optimizer, 5)
    assert (scheduler.updates, scheduler.last_epoch, scheduler._step_count) == (5, 5, 6)


@pytest.mark.parametrize("stop", [0, 3, 11])
@pytest.mark.parametrize("way", ["pickle", "deepcopy", "torch.save"])
def test_copies_of_the_three_together_go_on_to_the_same_bits(way: str, stop: int) -> None:
    model, optimizer, scheduler = _make()
    train(model, optimizer, stop)
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
    assert scheduler2.model is model2
    for m, o in ((model, optimizer), (model2, optimizer2)):
        train(m, o, range(stop, UPDATES))
    assert same(weights(model), weights(model2))
    assert same(scheduler.state_dict(), scheduler2.state_dict())


def test_a_copy_of_the_optimizer_alone_is_a_plain_optimizer() -> None:
    model, optimizer, scheduler = _make(lr=0.01, optimizer=torch.optim.SGD)
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
    model, optimizer, scheduler = _make()
    train(model, optimizer, 3)
    copied = copy.deepcopy(model)
    state = scheduler.state_dict()
    backward(copied, 3)
    assert same(scheduler.state_dict(), state)
    assert scheduler._sampler.stream.last is None


def test_two_schedulers_on_one_optimizer() -> None:
    model, optimizer, scheduler = _make()
    with pytest.raises(ValueError, match=r"optimizer 0 \(AdamW\) already has a scheduler.*close\(\)"):
        glyder.LocalOptimumLR(optimizer, model)
    glyder.LocalOptimumLR(optimizer, model, observe_only=True)
    scheduler.close()
    glyder.LocalOptimumLR(optimizer, model)


def test_another_scheduler_beside_it_is_told_once_and_overridden() -> None:
    model, optimizer, scheduler = _make()
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, UPDATES)
    with pytest.warns(glyder.GlyderWarning, match="something else changed the learning rate") as said:
        for t in range(8):
            train(model, optimizer, range(t, t + 1))
            applied = optimizer.param_groups[0]["lr"]
            cosine.step()
            assert scheduler.get_last_lr() == [applied]
    assert len(said) == 1
    alone, by_itself, _ = _make()
    train(alone, by_itself, 8)
    assert same(weights(model), weights(alone))


def test_no_warning_of_torchs_and_step_is_not_patched() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model, optimizer, scheduler = _make()
        assert "step" not in vars(optimizer)
        train(model, optimizer, 3)
        scheduler.step()
