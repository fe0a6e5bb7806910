"""What plays no part in GlyderLR: starting rates, the model, the loss, the data of one replica. And what it holds."""

from __future__ import annotations

import gc
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import glyder

from .problems import Recorder, backward, mlp, same, train, weights

UPDATES = 60


def momentum(parameters: Any, **options: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, momentum=0.9, **options)


OPTIMIZERS = [torch.optim.AdamW, torch.optim.Adagrad, torch.optim.RMSprop, torch.optim.SGD, momentum]


@pytest.mark.parametrize("make", OPTIMIZERS)
def test_the_starting_rate_changes_no_bit(make: Any) -> None:
    ended = []
    for lr in (1e-9, 1e-3, 0.1, 10.0):
        model = mlp()
        optimizer = make(model.parameters(), lr=lr)
        scheduler = glyder.GlyderLR(optimizer, total_steps=UPDATES)
        record = Recorder(optimizer)
        train(model, optimizer, UPDATES)
        assert scheduler.peak_lr > 0
        ended.append((record.rates, weights(model), scheduler.peak_lr))
    assert all(same(other, ended[0]) for other in ended[1:])


@pytest.mark.parametrize("make", OPTIMIZERS)
def test_no_forward_pass_and_no_model(make: Any) -> None:
    """The model is called by the training alone, and nothing is hung on it; given or not, all bits are the same."""
    ended, calls = [], 0

    def count(*_: Any) -> None:
        nonlocal calls
        calls += 1

    for given in (False, True):
        model = mlp()
        model.register_forward_hook(count)
        hooks = [len(m._forward_hooks) for m in model.modules()]
        optimizer = make(model.parameters(), lr=1e-3)
        scheduler = glyder.GlyderLR(optimizer, model if given else None, total_steps=UPDATES)
        train(model, optimizer, UPDATES)
        assert [len(m._forward_hooks) for m in model.modules()] == hooks
        assert not any(m._forward_pre_hooks or m._backward_hooks for m in model.modules())
        assert not any(p._backward_hooks or p._post_accumulate_grad_hooks for p in model.parameters())
        assert scheduler.cost[0] == 0.0
        ended.append(weights(model))
    assert calls == 2 * UPDATES
    assert same(*ended)


@pytest.mark.parametrize("make", OPTIMIZERS)
def test_replicas_with_the_same_gradients_have_the_same_rates(make: Any) -> None:
    """Two models that see different data and step along the mean of their gradients, as under data parallelism."""
    models = [mlp(), mlp()]
    optimizers = [make(m.parameters(), lr=1e-3) for m in models]
    schedulers = [glyder.GlyderLR(o, total_steps=UPDATES) for o in optimizers]
    for t in range(UPDATES):
        for k, (model, optimizer) in enumerate(zip(models, optimizers, strict=True)):
            optimizer.zero_grad()
            backward(model, 2 * t + k)
        means = [(p.grad + q.grad) / 2 for p, q in zip(*(m.parameters() for m in models), strict=True)]
        for model, optimizer in zip(models, optimizers, strict=True):
            for p, g in zip(model.parameters(), means, strict=True):
                p.grad = g.clone()
            optimizer.step()
        first, second = (o.param_groups[0]["lr"] for o in optimizers)
        assert first == second
    assert schedulers[0].peak_lr == schedulers[1].peak_lr > 0
    assert same(*map(weights, models))


@pytest.mark.parametrize("make", OPTIMIZERS)
def test_one_copy_while_it_searches_and_none_after(make: Any) -> None:
    """All tensors alive are counted, at every step before and after the optimizer's own work."""
    model = nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 4))
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    optimizer = make(model.parameters(), lr=1e-3)
    scheduler = glyder.GlyderLR(optimizer, total_steps=24, warmup=5)
    gc.collect()
    # held, so that no other gets its id
    foreign = {id(t): t for t in gc.get_objects() if issubclass(type(t), Tensor)}
    held: list[float] = []

    def count(*_: Any) -> None:
        known = {id(t) for p in model.parameters() for t in (p, p.grad, *optimizer.state[p].values())}
        alive = [t for t in gc.get_objects() if issubclass(type(t), Tensor) and id(t) not in known | foreign.keys()]
        held.append(sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in alive}.values()) / size)

    optimizer.register_step_pre_hook(count)
    optimizer.register_step_post_hook(count)
    end = 0
    for t in range(24):
        optimizer.zero_grad()
        model(torch.randn(8, 64)).square().mean().backward()
        optimizer.step()
        end = end if math.isnan(scheduler.peak_lr) else end or t
    assert end >= 4
    # the input of the model may be alive, a tenth of its weights
    assert all(1 <= copies < 1.2 for copies in held[: 2 * end])
    assert all(copies < 0.2 for copies in held[2 * (end + 1) :])
