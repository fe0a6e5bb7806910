"""Nothing is left behind: objects, memory, hooks."""

from __future__ import annotations

import gc
import tracemalloc
import weakref
from typing import Any

import pytest
import torch
from torch import nn

import glyder

from .problems import mlp, same, train, weights
from .small import BOTH


def _run(make: Any, kind: Any = torch.optim.AdamW, **options: Any) -> tuple[nn.Module, torch.optim.Optimizer, Any]:
    model = mlp()
    optimizer = kind(model.parameters())
    return model, optimizer, make(optimizer, model, **options)


KINDS = pytest.mark.parametrize(
    ("make", "kind"),
    [
        (glyder.LocalOptimumLR, torch.optim.AdamW),
        (glyder.GlyderLR, torch.optim.AdamW),
        (glyder.GlyderLR, torch.optim.SGD),
    ],
)


@BOTH
def test_the_scheduler_lives_as_long_as_the_optimizer(make: Any) -> None:
    """Nobody has to keep it."""
    model, optimizer, scheduler = _run(make, total_steps=30)
    train(model, optimizer, 10)
    alone = mlp()
    other = torch.optim.AdamW(alone.parameters())
    make(other, alone, total_steps=30)
    gc.collect()
    train(alone, other, 10)
    assert same(weights(model), weights(alone))
    assert scheduler.updates == 10


@KINDS
@pytest.mark.parametrize("updates", [5, 20])
def test_all_three_are_collected(make: Any, kind: Any, updates: int) -> None:
    model, optimizer, scheduler = _run(make, kind, total_steps=30)
    train(model, optimizer, updates)
    gone = [weakref.ref(o) for o in (model, optimizer, scheduler, next(model.parameters()))]
    del model, optimizer, scheduler
    gc.collect()
    assert [ref() for ref in gone] == [None] * 4


@BOTH
def test_a_closed_scheduler_is_collected_and_leaves_no_hooks(make: Any) -> None:
    criterion = nn.CrossEntropyLoss()
    model, optimizer, scheduler = _run(make, total_steps=30, loss=criterion)
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


@BOTH
def test_the_users_batches_are_not_kept(make: Any) -> None:
    options = {"every": 1} if make is glyder.LocalOptimumLR else {}
    model, optimizer, _ = _run(make, total_steps=30, warmup=15, **options)
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


@KINDS
def test_memory_does_not_grow(make: Any, kind: Any) -> None:
    """500 updates in the state that a long run is in: after the measurement phase, or the search."""
    model, optimizer, scheduler = _run(make, kind, total_steps=3000, warmup=50)
    train(model, optimizer, 100)
    tensors, rows = _tensors(), len(scheduler.history)
    tracemalloc.start()
    train(model, optimizer, 20)
    before, _ = tracemalloc.get_traced_memory()
    train(model, optimizer, 500)
    gc.collect()
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert _tensors() <= tensors + 1
    assert len(scheduler.history) == rows
    assert after - before < 10_000  # 20 bytes an update: caches of the interpreter; one float an update would be more


def test_a_run_that_measures_for_ever_grows_by_its_history_alone() -> None:
    model, optimizer, scheduler = _run(glyder.LocalOptimumLR, refresh="always", every=1)
    train(model, optimizer, 100)
    tensors = _tensors()
    train(model, optimizer, 300)
    assert _tensors() <= tensors + 1
    assert len(scheduler.history) >= 390
