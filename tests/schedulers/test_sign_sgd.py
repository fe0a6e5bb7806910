"""SignSGD against other people's: the same steps to the rounding of one multiplication."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import nn

import glyder
from glyder.optimizers.properties import young

from .problems import backward, mlp, same, weights


def trained(optimizer: torch.optim.Optimizer, model: nn.Module) -> list[torch.Tensor]:
    for t in range(50):
        optimizer.zero_grad()
        backward(model, t)
        optimizer.step()
    return weights(model)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_against_pytorch_optimizer(momentum: float, decay: float) -> None:
    """50 steps in double precision; 1e-12: each rounds the step and the buffer in its own order."""
    others = pytest.importorskip(
        "pytorch_optimizer", reason="needs pytorch_optimizer, whose SignSGD this compares with"
    )
    ours, theirs = (mlp(dtype=torch.float64) for _ in range(2))
    a = trained(glyder.SignSGD(ours.parameters(), lr=0.01, momentum=momentum, weight_decay=decay), ours)
    other = others.SignSGD(theirs.parameters(), lr=0.01, momentum=momentum, weight_decay=decay, weight_decouple=True)
    b = trained(other, theirs)
    assert all(torch.allclose(x, y, rtol=1e-12, atol=1e-12) for x, y in zip(a, b, strict=True))


def test_against_lion_without_interpolation() -> None:
    """Lion with beta1 = beta2 is Signum: sign(beta m + (1 - beta) g) is the sign of the new buffer."""
    lion = pytest.importorskip("lion_pytorch", reason="needs lion_pytorch, which this compares with")
    ours, theirs = (mlp(dtype=torch.float64) for _ in range(2))
    a = trained(glyder.SignSGD(ours.parameters(), lr=0.01, momentum=0.9, weight_decay=0.1), ours)
    b = trained(lion.Lion(theirs.parameters(), lr=0.01, betas=(0.9, 0.9), weight_decay=0.1), theirs)
    assert all(torch.allclose(x, y, rtol=1e-12, atol=1e-12) for x, y in zip(a, b, strict=True))


def test_an_entry_without_gradient_stays() -> None:
    x = nn.Parameter(torch.tensor([1.0, 2.0, 3.0]))
    x.grad = torch.tensor([1e-30, 0.0, -1e30])
    glyder.SignSGD([x], lr=0.5).step()
    assert x.tolist() == [0.5, 2.0, 3.5]


def test_resumed_to_the_bit() -> None:
    whole, first = mlp(), mlp()
    a, b = (glyder.SignSGD(m.parameters(), lr=0.01, momentum=0.9) for m in (whole, first))
    trained(a, whole)
    trained(b, first)
    second = copy.deepcopy(first)
    c = glyder.SignSGD(second.parameters(), lr=0.5)
    c.load_state_dict(b.state_dict())
    assert same(trained(c, second), trained(a, whole))


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"lr": -1.0}, ValueError),
        ({"lr": math.nan}, ValueError),
        ({"momentum": 1.0}, ValueError),
        ({"lr": "1"}, TypeError),
    ],
)
def test_wrong_arguments(options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=next(iter(options))):
        glyder.SignSGD(mlp().parameters(), **options)


def test_sparse_gradients_are_refused() -> None:
    table = nn.Embedding(4, 2, sparse=True)
    optimizer = glyder.SignSGD(table.parameters())
    table(torch.tensor([1])).sum().backward()
    with pytest.raises(RuntimeError, match="sparse"):
        optimizer.step()


def test_its_momentum_is_never_young() -> None:
    """Every step is the sign of the buffer, of full length from the first on."""
    optimizer = glyder.SignSGD([torch.nn.Parameter(torch.ones(3))], momentum=0.9)
    assert young(optimizer, optimizer.param_groups[0], 1) == 1.0


@pytest.mark.parametrize("wrong", [{"momentum": 1.5}, {"lr": -1.0}, {"lr": torch.tensor(-1.0)}, {"weight_decay": -1}])
def test_options_of_a_group_are_checked(wrong: dict[str, Any]) -> None:
    name = rf"SignSGD\({next(iter(wrong))}=...\) must be"
    first, second = (nn.Parameter(torch.ones(2)) for _ in range(2))
    with pytest.raises(ValueError, match=name):
        glyder.SignSGD([{"params": [first], **wrong}])
    optimizer = glyder.SignSGD([first])
    with pytest.raises(ValueError, match=name):
        optimizer.add_param_group({"params": [second], **wrong})
    assert len(optimizer.param_groups) == 1


def test_a_group_keeps_its_own_options() -> None:
    first, second = (nn.Parameter(torch.ones(2)) for _ in range(2))
    optimizer = glyder.SignSGD([{"params": [first]}, {"params": [second], "lr": 0.25}], lr=0.5)
    for p in (first, second):
        p.grad = torch.ones(2)
    optimizer.step()
    assert first.tolist() == [0.5, 0.5]
    assert second.tolist() == [0.75, 0.75]


def test_a_tensor_rate() -> None:
    numbers, tensors = mlp(), mlp()
    a = trained(glyder.SignSGD(numbers.parameters(), lr=0.125, momentum=0.9, weight_decay=0.125), numbers)
    lr = torch.tensor(0.125)  # powers of two: no rounding between the two
    optimizer = glyder.SignSGD(tensors.parameters(), lr=lr, momentum=0.9, weight_decay=0.125)
    assert same(trained(optimizer, tensors), a)
    assert optimizer.param_groups[0]["lr"] is lr
    with pytest.raises(ValueError, match="without dimensions"):
        glyder.SignSGD(tensors.parameters(), lr=torch.ones(1))
