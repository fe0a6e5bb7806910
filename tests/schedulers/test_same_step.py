"""A trial step, a measurement at x_0, and the step anew in the same update: as published."""

from __future__ import annotations

import functools
from typing import Any

import lion_pytorch
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import glyder
from glyder.optimizers.trial_step import check_linear

from .problems import backward, batch, mlp, same, slope_and_curvature, train, weights

UPDATES = 20

OPTIMIZERS: dict[str, Any] = {
    "SGD": functools.partial(torch.optim.SGD, lr=0.1, weight_decay=0.01),
    "momentum": functools.partial(torch.optim.SGD, lr=0.1, momentum=0.9, nesterov=True),
    "Adam": torch.optim.Adam,
    "AdamW": functools.partial(torch.optim.AdamW, weight_decay=0.5),
    "AdamW fused": functools.partial(torch.optim.AdamW, fused=True),
    "NAdam": torch.optim.NAdam,
    "RAdam": torch.optim.RAdam,
    "Adamax": torch.optim.Adamax,
    "Adagrad": functools.partial(torch.optim.Adagrad, lr_decay=0.1),
    "Adadelta": torch.optim.Adadelta,
    "RMSprop": functools.partial(torch.optim.RMSprop, momentum=0.5),
    "Lion": functools.partial(lion_pytorch.Lion, weight_decay=0.5),
    "tensor rate": functools.partial(torch.optim.AdamW, lr=torch.tensor(1e-3, dtype=torch.float64)),
}


class Bowl(nn.Module):
    """f(x) = x^T H x/2, whatever the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.x = nn.Parameter(torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64))
        self.H = torch.diag(torch.tensor([1.0, 4.0, 9.0], dtype=torch.float64))
        self.H[0, 1] = self.H[1, 0] = 0.5

    def forward(self, sign: float = 1.0) -> Tensor:
        return sign * (self.x @ self.H @ self.x) / 2


def _same_step(optimizer: torch.optim.Optimizer, model: nn.Module, **options: Any) -> glyder.LocalOptimumLR:
    options = {"refresh": "always", "act": "same-step", "every": 1, "warmup": 0, "anneal": None} | options
    return glyder.LocalOptimumLR(optimizer, model, **options)


def _descend(model: nn.Module, optimizer: torch.optim.Optimizer, updates: int) -> None:
    for _ in range(updates):
        optimizer.zero_grad()
        model().backward()
        optimizer.step()


def test_sgd_is_steepest_descent_with_an_exact_line_search() -> None:
    model = Bowl()
    optimizer = torch.optim.SGD(model.parameters())
    scheduler = _same_step(
        optimizer, model, estimator="hvp", loss=lambda model, _: model(), batches=lambda: None, max_growth=1e300
    )
    x, H = model.x.detach().clone(), model.H
    _descend(model, optimizer, UPDATES)
    for _ in range(UPDATES):
        g = H @ x
        x = x - (g @ g) / (g @ H @ g) * g
    assert scheduler.reasons == {"kept": UPDATES}
    # The whole map is a contraction to 0: rounding of 1e-16 of the first points does not outlive the shrinking.
    assert model.x.detach() == pytest.approx(x, rel=1e-9)


@pytest.mark.parametrize(("name", "scope"), [*((n, "global") for n in OPTIMIZERS), ("AdamW", "group")])
def test_the_step_is_the_one_the_optimizer_would_have_made(name: str, scope: Any) -> None:
    model = mlp(dtype=torch.float64)
    groups = [{"params": model[0].parameters()}, {"params": model[2].parameters()}]
    optimizer = OPTIMIZERS[name](groups)
    scheduler = _same_step(optimizer, model, scope=scope)
    rates = []
    for t in range(UPDATES):
        train(model, optimizer, range(t, t + 1))
        rates.append([float(rate) for rate in scheduler.get_last_lr()])
    assert scheduler.reasons["kept"] >= UPDATES - 4
    assert len({first for first, _ in rates}) > 10
    assert all((first == second) == (scope == "global") for first, second in rates[-5:])
    alone = mlp(dtype=torch.float64)
    other = OPTIMIZERS[name]([{"params": alone[0].parameters()}, {"params": alone[2].parameters()}])

    def by_hand(t: int) -> None:
        for group, rate in zip(other.param_groups, rates[t], strict=True):
            group["lr"] = torch.full_like(group["lr"], rate) if isinstance(group["lr"], Tensor) else rate

    train(alone, other, UPDATES, by_hand)
    for a, b in zip(weights(model), weights(alone), strict=True):
        # The step is scaled after it was rounded: an ulp or two each, amplified by the updates to come. Lion takes the
        # sign of a gradient, which an ulp may turn only where it is 0.
        assert torch.allclose(a, b, rtol=1e-8, atol=1e-9)


def test_it_is_measured_at_x_0_on_independent_data() -> None:
    model = mlp(dtype=torch.float64)
    names = [n for n, _ in model.named_parameters()]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    drawn = [100]

    def another() -> Any:
        drawn.append(drawn[-1] + 1)
        return batch(drawn[-1], torch.float64)

    scheduler = _same_step(optimizer, model, batches=another, loss=nn.CrossEntropyLoss())
    for t in range(UPDATES):
        before = weights(model)
        train(model, optimizer, range(t, t + 1))
        row = scheduler.history[-1]
        if row["reason"] != "kept":
            continue
        rate = scheduler.get_last_lr()[0]
        step = [a - b for a, b in zip(before, weights(model), strict=True)]
        s, q = slope_and_curvature(model, names, before, step, drawn[-1])
        share = row["lr"] / rate
        assert row["slope"] == pytest.approx(s * share, rel=1e-7)  # the step itself is a difference of parameters
        assert row["curvature"] == pytest.approx(q * share**2, rel=1e-4)  # central difference
        if t > 12:  # young momentum is referred to its full length before
            assert rate == pytest.approx(min(row["optimal"], 3 * row["lr"]), rel=1e-9)
    assert scheduler.reasons["kept"] >= UPDATES // 2


def test_where_the_loss_rises_the_step_is_taken_back() -> None:
    model = Bowl()
    optimizer = torch.optim.SGD(model.parameters(), momentum=0.9)
    sign = [1.0]
    scheduler = _same_step(
        optimizer, model, estimator="hvp", loss=lambda model, _: model(sign[0]), batches=lambda: None
    )
    _descend(model, optimizer, 3)
    before, trial = weights(model), optimizer.param_groups[0]["lr"]
    sign[0] = -1.0
    _descend(model, optimizer, 1)
    assert same(weights(model), before), "to the bit"
    assert scheduler.get_last_lr() == [0.0]
    assert optimizer.param_groups[0]["lr"] > 0
    assert scheduler.reasons["no_slope"] == 1
    assert scheduler.updates == 4
    sign[0] = 1.0
    _descend(model, optimizer, 1)
    assert scheduler.get_last_lr()[0] > trial / 100


@pytest.mark.filterwarnings("ignore:no measurement:glyder.GlyderWarning")
def test_a_failed_measurement_lets_the_trial_step_stand() -> None:
    model = mlp(dtype=torch.float64)
    optimizer = torch.optim.AdamW(model.parameters())
    broken = [False]

    def loss(model: nn.Module, data: Any) -> Tensor:
        if broken[0]:
            raise OSError("no data")
        return F.cross_entropy(model(data[0]), data[1])

    scheduler = _same_step(optimizer, model, batches=lambda: batch(77, torch.float64), loss=loss, estimator="gradient")
    train(model, optimizer, 6)
    broken[0] = True
    before = weights(model)
    train(model, optimizer, range(6, 7))
    assert scheduler.reasons["raised"] == 1
    assert scheduler.get_last_lr()[0] == optimizer.param_groups[0]["lr"] > 0
    assert all(not torch.equal(a, b) for a, b in zip(before, weights(model), strict=True))


# ---- which optimizers


class RateInState(torch.optim.SGD):
    """A momentum buffer of steps, not of gradients: what many a textbook has."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                buffer = self.state[p].setdefault("buffer", torch.zeros_like(p))
                buffer.mul_(0.9).add_(p.grad, alpha=group["lr"])
                p.sub_(buffer)


REFUSED = {
    torch.optim.ASGD: "its state depends on the rate",
    torch.optim.Rprop: "its step is not linear|its state depends",
    torch.optim.Adafactor: "its step is not linear",
    torch.optim.LBFGS: "could not be tried",
    torch.optim.SparseAdam: "could not be tried",  # no dense gradients
    RateInState: "its state depends on the rate",
}


@pytest.mark.parametrize("cls", REFUSED, ids=lambda cls: cls.__name__)
def test_refused_with_the_reason(cls: Any) -> None:
    with pytest.raises(ValueError, match=f"act='same-step'\\) cannot take {cls.__name__}: .*({REFUSED[cls]})"):
        check_linear(cls(mlp().parameters()))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_check_leaves_no_trace(name: str) -> None:
    model = mlp()
    optimizer = OPTIMIZERS[name](model.parameters())
    torch.optim.lr_scheduler.StepLR(optimizer, 5)  # patches step, for one
    before = [weights(model), optimizer.state_dict(), torch.get_rng_state()]
    check_linear(optimizer)
    assert same(before, [weights(model), optimizer.state_dict(), torch.get_rng_state()])
    assert all(p.grad is None for p in model.parameters())


def test_the_constructor_refuses_and_changes_nothing() -> None:
    model = mlp()
    optimizer = torch.optim.Adafactor(model.parameters())
    with pytest.raises(ValueError, match="cannot take Adafactor"):
        _same_step(optimizer, model)
    assert not optimizer._optimizer_step_post_hooks
    backward(model, 0)
    optimizer.step()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_tensor_rate_is_not_refused_for_its_rounding(dtype: torch.dtype) -> None:
    check_linear(torch.optim.AdamW(mlp().parameters(), lr=torch.tensor(1e-3, dtype=dtype)))
