"""The closure once more: the loss and gradient that plain autograd has there, and no trace of it."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from glyder.probe.closure_replay import Replay

from .problems import batch, same
from .runs import Dropping


class Loop:
    """A closure on a model with dropout and batch norm, as users write them."""

    def __init__(self, set_to_none: bool) -> None:
        torch.manual_seed(0)
        self.model: nn.Module = Dropping()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)
        self.set_to_none = set_to_none

    def closure(self) -> torch.Tensor:
        self.optimizer.zero_grad(set_to_none=self.set_to_none)
        x, y = batch(0)
        loss = F.cross_entropy(self.model(x), y)
        loss.backward()
        return loss


class Sparing(Loop):
    def closure(self, backward: bool = True) -> torch.Tensor:  # type: ignore[override]
        if backward:
            return super().closure()
        x, y = batch(0)
        assert not torch.is_grad_enabled()
        return F.cross_entropy(self.model(x), y)


@pytest.mark.parametrize("kind", [Loop, Sparing])
@pytest.mark.parametrize("set_to_none", [True, False])
def test_the_same_batch_and_randomness_elsewhere(kind: type[Loop], set_to_none: bool) -> None:
    loop = kind(set_to_none)
    replay = Replay(loop.model)
    torch.manual_seed(5)
    replay.watch(loop.closure)()
    params = list(loop.model.parameters())
    values = [p.detach() + 0.1 * torch.randn_like(p) for p in params]
    twin = copy.deepcopy(loop)
    with torch.no_grad():
        for p, v in zip(twin.model.parameters(), values, strict=True):
            p.copy_(v)
    rng = torch.get_rng_state()
    torch.manual_seed(5)
    expected = twin.closure().item()
    torch.set_rng_state(rng)

    before = _everything(loop)
    assert replay.loss(params, values) == expected
    loss, grads = replay.gradients(params, values)
    assert loss == expected
    assert same(grads, [p.grad for p in twin.model.parameters()])
    assert same(_everything(loop), before)
    assert replay.forwards == (4.0 if kind is Sparing else 6.0)


def test_some_parameters_stay() -> None:
    """What is not replaced stays as it is, and its gradient is not added to."""
    loop = Loop(True)
    replay = Replay(loop.model)
    replay.watch(loop.closure)()
    first = next(loop.model.parameters())
    before = _everything(loop)
    assert replay.loss([first], [first.detach().clone()]) == replay.loss([], [])
    assert same(_everything(loop), before)


def test_a_closure_that_raises_leaves_no_trace() -> None:
    loop = Loop(True)
    replay = Replay(loop.model)
    broken = False

    def closure() -> torch.Tensor:
        loss = loop.closure()
        if broken:
            raise ArithmeticError("broken on purpose")
        return loss

    replay.watch(closure)()
    broken, before = True, _everything(loop)
    with pytest.raises(ArithmeticError):
        replay.loss([], [])
    assert same(_everything(loop), before)


def test_without_a_closure() -> None:
    replay = Replay(nn.Linear(1, 1))
    assert not replay.ready
    with pytest.raises(RuntimeError, match="closure"):
        replay.loss([], [])


def _everything(loop: Loop) -> dict[str, Any]:
    return {
        "state": {k: v.clone() for k, v in loop.model.state_dict().items()},
        "grads": [None if p.grad is None else p.grad.clone() for p in loop.model.parameters()],
        "rng": torch.get_rng_state(),
    }


@pytest.mark.parametrize("captured", [True, False])
def test_a_penalty_of_parameters_that_were_captured_is_told(captured: bool) -> None:
    loop = Loop(True)
    params = list(loop.model.parameters())

    def closure() -> torch.Tensor:
        loss = loop.closure()
        penalty = sum((p.square().sum() for p in (params if captured else loop.model.parameters())), torch.zeros(()))
        penalty.backward()
        return loss + penalty.detach()

    replay = Replay(loop.model)
    replay.watch(closure)()
    before = _everything(loop)
    if captured:
        with pytest.raises(RuntimeError, match=r"not reached through the model.*model.parameters\(\) inside"):
            replay.loss([], [])
    else:
        replay.loss([], [])
    assert same(_everything(loop), before)
