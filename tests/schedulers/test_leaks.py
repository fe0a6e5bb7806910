"""Nothing is left behind: objects, memory, hooks."""

from __future__ import annotations

import gc
import tracemalloc
import weakref
from typing import Any

import torch
from torch import nn

import glyder

from .problems import mlp, same, train, weights


def _make(**options: Any) -> tuple[nn.Module, torch.optim.Optimizer, glyder.LocalOptimumLR]:
    model = mlp()
    optimizer = torch.optim.AdamW(model.parameters())
    return model, optimizer, glyder.LocalOptimumLR(optimizer, model, **options)


def test_the_scheduler_lives_as_long_as_the_optimizer() -> None:
    """Nobody has to keep it."""
    model, optimizer, scheduler = _make(total_steps=30)
    train(model, optimizer, 10)
    alone = mlp()
    other = torch.optim.AdamW(alone.parameters())
    glyder.LocalOptimumLR(other, alone, total_steps=30)
    gc.collect()
    train(alone, other, 10)
    assert same(weights(model), weights(alone))
    assert scheduler.updates == 10


def test_all_three_are_collected() -> None:
    model, optimizer, scheduler = _make(total_steps=30)
    train(model, optimizer, 5)
    gone = [weakref.ref(o) for o in (model, optimizer, scheduler, next(model.parameters()))]
    del model, optimizer, scheduler
    gc.collect()
    assert [ref() for ref in gone] == [None] * 4


def test_a_closed_scheduler_is_collected_and_leaves_no_hooks() -> None:
    criterion = nn.CrossEntropyLoss()
    model, optimizer, scheduler = _make(total_steps=30, loss=criterion)
    train(model, optimizer, 5)
    rate = optimizer.param_groups[0]["lr"]
    scheduler.close()
    scheduler.close()
    for module in (*model.modules(), criterion):
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
    assert not optimizer._optimizer_step_pre_hooks
    assert not optimizer._optimizer_step_post_hooks
    gone = weakref.ref(scheduler)
    del scheduler
    gc.collect()
    assert gone() is None
    train(model, optimizer, 3)
    assert optimizer.param_groups[0]["lr"] == rate


def test_the_users_batches_are_not_kept() -> None:
    model, optimizer, _ = _make(total_steps=30, every=1, warmup=30)
    refs = []
    for t in range(6):
        x = torch.randn(8, 6, generator=torch.Generator().manual_seed(t))
        refs.append(weakref.ref(x))
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), torch.zeros(8, dtype=torch.long)).backward()
        optimizer.step()
        del x
    gc.collect()
    assert [ref() for ref in refs] == [None] * 6


def _tensors() -> int:
    gc.collect()
    return sum(1 for o in gc.get_objects() if issubclass(type(o), torch.Tensor))


def test_memory_does_not_grow() -> None:
    """1,000 updates in the state that a long run is in: after the window."""
    model, optimizer, scheduler = _make(total_steps=3000, warmup=50)
    train(model, optimizer, 100)
    tensors, rows = _tensors(), len(scheduler.history)
    tracemalloc.start()
    train(model, optimizer, 20)
    before, _ = tracemalloc.get_traced_memory()
    train(model, optimizer, 1000)
    gc.collect()
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert _tensors() <= tensors + 1
    assert len(scheduler.history) == rows
    assert after - before < 20_000  # 20 bytes an update: caches of the interpreter; one float an update would be more


def test_a_run_that_measures_for_ever_grows_by_its_history_alone() -> None:
    model, optimizer, scheduler = _make(refresh="always", every=1)
    train(model, optimizer, 100)
    tensors = _tensors()
    train(model, optimizer, 300)
    assert _tensors() <= tensors + 1
    assert len(scheduler.history) >= 390
