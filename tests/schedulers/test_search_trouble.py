"""What may go wrong while GlyderLR searches, and how it gets out of it."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import glyder
from glyder.optimizers.properties import bearable_rate

from .problems import Recorder, backward, mlp, same, train, weights

UPDATES = 120


def run(
    make: Any, change: Any = None, updates: int = UPDATES, model: nn.Module | None = None, **options: Any
) -> tuple[glyder.GlyderLR, Recorder]:
    """A run of the small problem; ``change(t, model)`` between backward and step."""
    model = mlp() if model is None else model
    optimizer = make(model.parameters())
    scheduler = glyder.GlyderLR(optimizer, **{"total_steps": UPDATES} | options)
    record = Recorder(optimizer)
    train(model, optimizer, updates, None if change is None else lambda t: change(t, model))
    return scheduler, record


def times(factor: float, begin: int = 0, end: int = UPDATES) -> Any:
    """Gradients times ``factor``, from one update to another."""

    def change(t: int, model: nn.Module) -> None:
        for p in model.parameters() if begin <= t < end else ():
            p.grad.mul_(factor)

    return change


def decayed(p: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1)


# ---------------------------------------------------------------- nothing to see


@pytest.mark.parametrize(("begin", "zeros"), [(0, 3), (0, 10), (3, 5)])
def test_the_search_waits_where_gradients_are_zero(begin: int, zeros: int) -> None:
    """AdamW's decay moves the parameters all the same, but for a rounding by as much as is known."""
    make = lambda p: torch.optim.AdamW(p, weight_decay=0.1)  # noqa: E731
    free, _ = run(make)
    scheduler, record = run(make, times(0.0, begin, begin + zeros))
    rates = [rate for (rate,) in record.rates]
    assert scheduler.reasons["no_gradient"] == zeros
    assert len(set(rates[begin : begin + zeros])) <= 2, "one that the update before asked for"
    assert len(scheduler.history) == len(free.history), "they do not count"
    # Other batches: the search is the same but for its noise.
    assert 0.5 < scheduler.peak_lr / free.peak_lr < 2


@pytest.mark.parametrize("make", [torch.optim.Adam, torch.optim.AdamW])
def test_parameters_that_all_begin_at_zero(make: Any) -> None:
    """The length of a vector of ones stands for theirs, so that the run has one to go by."""
    torch.manual_seed(0)
    model = nn.Linear(6, 4)
    for p in model.parameters():
        nn.init.zeros_(p)
    scheduler, record = run(make, model=model)
    assert scheduler.history["relative"][0] == pytest.approx(1.0, rel=1e-3), "a sign for every element"
    assert scheduler.history["update"][-1] <= 2 * scheduler.warmup
    assert max(rate for (rate,) in record.rates) < 3


# ---------------------------------------------------------------- steps of another kind


def test_steps_that_become_longer_are_taken_back() -> None:
    """RAdam's first steps are as long as gradients, a thousandth here, and those after them are not."""
    model = mlp()
    scheduler, record = run(torch.optim.RAdam, times(1e-3), model=model)
    assert scheduler.reasons["restarted"] == 1
    t = next(int(row["update"]) for row in scheduler.history if row["reason"] == "restarted")
    for x, y in zip(record.before[t], record.after[t + 1], strict=True):
        # the sum of a difference and what was taken away: some roundings of a step that was long
        assert torch.allclose(x, y, rtol=0, atol=1e-4)
    assert record.rates[t + 2][0] < record.rates[t][0] / 100
    assert scheduler.updates == UPDATES - 1, "the step back is none"
    assert all(p.abs().max() < 100 for p in model.parameters())


class Lion(torch.optim.Optimizer):
    """Its steps have one length, whatever the gradients."""

    def __init__(self, params: Any) -> None:
        super().__init__(params, {"lr": 1e-3})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for p in self.param_groups[0]["params"]:
            p.sub_(p.grad.sign(), alpha=self.param_groups[0]["lr"])


def muon(params: Any) -> torch.optim.Optimizer:
    return torch.optim.Muon([p for p in params if p.ndim == 2])


ORDINARY = [torch.optim.Adam, torch.optim.AdamW, torch.optim.NAdam, torch.optim.Adamax, torch.optim.RMSprop,
            torch.optim.Adagrad, torch.optim.Adafactor, torch.optim.Adadelta, Lion, muon]  # fmt: skip


@pytest.mark.parametrize("make", ORDINARY)
@pytest.mark.parametrize("factor", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("trouble", ["none", "spike", "late layer", "rare layer"])
def test_other_optimizers_keep_their_steps(make: Any, factor: float, trouble: str) -> None:
    def change(t: int, model: nn.Module) -> None:
        times(factor * (30 if trouble == "spike" and t % 4 == 3 else 1))(t, model)
        if (trouble == "late layer" and t < 5) or (trouble == "rare layer" and t % 3):
            for p in model[0].parameters():
                p.grad.zero_()

    scheduler, _ = run(make, change)
    assert "restarted" not in scheduler.reasons
    assert not math.isnan(scheduler.peak_lr)


# ---------------------------------------------------------------- bounds


@pytest.mark.parametrize(
    ("make", "bound"),
    [
        (decayed, 0.5 * 0.1 / 0.1),
        (lambda p: torch.optim.SGD(p, lr=0.1, weight_decay=0.1), 0.5 / 0.1),
        (lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, dampening=0.5, weight_decay=0.1), 1.0),
        (lambda p: torch.optim.AdamW(p, weight_decay=0.1), 5.0),
        (lambda p: torch.optim.NAdam(p, weight_decay=0.1, decoupled_weight_decay=True), 5.0),
        (lambda p: torch.optim.NAdam(p, weight_decay=0.1), math.inf),
        (lambda p: torch.optim.SGD([{"params": p}, {"params": [torch.ones(1)], "lr": 0.4, "weight_decay": 0.5}], 0.1),
         0.5 / 0.5 / 4),
    ],
)  # fmt: skip
def test_decay_takes_half_of_the_parameters_at_most(make: Any, bound: float) -> None:
    optimizer = make(list(mlp().parameters()))
    scheduler = glyder.GlyderLR(optimizer, total_steps=UPDATES, peak_lr=1e9)
    assert scheduler.peak_lr == pytest.approx(min(bound, 1e9), rel=1e-12)
    assert bearable_rate([optimizer], scheduler.rates.ratios) == pytest.approx(bound, rel=1e-12)


def test_decay_bounds_a_search_that_no_gradient_does() -> None:
    model = mlp()
    scheduler, record = run(decayed, times(1e-6), model=model)
    assert max(rate for (rate,) in record.rates) <= 0.5
    assert scheduler.peak_lr == pytest.approx(0.5)
    assert all(p.abs().max() < 10 for p in model.parameters())


@pytest.mark.parametrize("top", [1e-3, 1e-2, 0.05])
def test_a_bound_below_the_edge_is_the_peak(top: float) -> None:
    sgd = lambda p: torch.optim.SGD(p, lr=0.1)  # noqa: E731
    free, _ = run(sgd)
    assert free.peak_lr > 0.05
    scheduler, _ = run(sgd, max_lr=top)
    assert scheduler.peak_lr == top
    assert scheduler.history["reason"][-1] == "no_edge"


def test_a_bound_raises_no_peak() -> None:
    """A plane has no edge: with a bound above the length of the run the peak stays at what it is without."""
    peaks = []
    for top in (math.inf, 0.5):
        x = torch.ones(20, dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.SGD([x], lr=0.1)
        scheduler = glyder.GlyderLR(optimizer, total_steps=400, max_lr=top)
        while math.isnan(scheduler.peak_lr):
            optimizer.zero_grad()
            x.sum().backward()
            optimizer.step()
        peaks.append(scheduler.peak_lr)
    assert scheduler.reasons["at_max"]
    # the first was told by the rate it had reached, up to one pace higher
    assert peaks[0] / 2 < peaks[1] <= peaks[0] * (1 + 1e-9) < 0.5


# ---------------------------------------------------------------- gradients that are not finite


@pytest.mark.parametrize("bad", [(1, 2), (2, 3), (3, 4)])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.filterwarnings("ignore:the gradient of update")
def test_two_bad_batches_early_in_the_search_are_no_edge(bad: tuple[int, int], momentum: float) -> None:
    sgd = lambda p: torch.optim.SGD(p, lr=0.1, momentum=momentum)  # noqa: E731
    free, _ = run(sgd)
    scheduler, _ = run(sgd, times(math.nan, bad[0], bad[1] + 1), updates=UPDATES + 3)
    assert scheduler.skipped == 2
    assert "restarted" not in scheduler.reasons
    assert 0.5 < scheduler.peak_lr / free.peak_lr < 2


@pytest.mark.filterwarnings("ignore:the gradient of update")
def test_twenty_bad_batches_are_believed() -> None:
    model = mlp()
    begin = weights(model)
    optimizer = torch.optim.SGD(model.parameters())
    glyder.GlyderLR(optimizer, total_steps=UPDATES)
    train(model, optimizer, 3)
    for t in range(20):
        assert not same(weights(model), begin), t
        train(model, optimizer, range(t, t + 1), lambda t: times(math.nan)(t, model))
    assert same(weights(model), begin)


class Cliff:
    """Parameters beyond which the loss overflows for good, met by a search; and how a GradScaler takes that."""

    def __init__(self, kind: str, fused: bool) -> None:
        torch.manual_seed(0)
        self.x = torch.ones(8, 8).requires_grad_()
        make = torch.optim.SGD if kind == "sgd" else torch.optim.AdamW
        options = {"weight_decay": 0.0} if kind == "adamw" else {"momentum": 0.9}
        self.optimizer = make([self.x], lr=0.1, fused=fused, **options)
        self.scheduler = glyder.GlyderLR(self.optimizer, total_steps=200)
        self.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16, growth_interval=1000)

    def step(self) -> bool:
        """Whether the loss was finite."""
        self.optimizer.zero_grad()
        over = self.x.detach().max() > 1.2
        loss = (-self.x.sum()) * (math.inf if over else 1.0)
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.scheduler.step()
        return not over


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_a_scaler_that_overflows_for_good_is_the_rates_affair(kind: str, fused: bool) -> None:
    run = Cliff(kind, fused)
    places: list[Tensor] = []
    rates = []
    for _ in range(60):
        places.append(run.x.detach().clone())
        rates.append(run.scheduler.search.rate)
        if not run.step():
            break
    met = run.scheduler.updates
    for _ in range(18):
        assert not run.step()
    assert not run.step(), "the twentieth"
    assert run.scheduler.updates == met
    if kind == "sgd":
        assert torch.equal(run.x.detach(), torch.ones(8, 8))
        assert not math.isnan(run.scheduler.peak_lr)
    else:
        assert torch.allclose(run.x.detach(), places[-2], rtol=1e-6, atol=0)
        assert run.scheduler.search.rate == pytest.approx(rates[-1] / 10, rel=1e-12)
    assert run.step()
    assert run.scheduler.updates == met + 1


def test_gradients_that_are_gathered_are_no_overflow() -> None:
    """``step()`` at every micro-batch, an update at every fourth."""
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters())
    scheduler = glyder.GlyderLR(optimizer, total_steps=40)
    for t in range(160):
        backward(model, t)
        if t % 4 == 3:
            optimizer.step()
            optimizer.zero_grad()
        scheduler.step()
    assert scheduler.updates == 39
    assert scheduler.skipped == 0


# ---------------------------------------------------------------- buffers


class Normed(nn.Module):
    """With buffers of several types, and more than one that the forward pass changes."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.BatchNorm1d(16), nn.Linear(16, 4))
        self.register_buffer("seen", torch.zeros(1, dtype=torch.bool))
        self.register_buffer("brief", torch.full((3,), math.nan, dtype=torch.bfloat16), persistent=False)
        self.register_buffer("spread", torch.arange(3).expand(4, 3), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        self.seen |= True
        self.brief += 1
        return self.body(x)


def buffers(model: nn.Module) -> list[Tensor]:
    return [b.clone() for b in model.buffers()]


@pytest.mark.parametrize("resumed", [False, True])
def test_buffers_go_back_with_the_parameters(resumed: bool) -> None:
    """To what they were at the first step, bit for bit."""
    model = Normed()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    scheduler = glyder.GlyderLR(optimizer, model, total_steps=UPDATES)
    train(model, optimizer, 1)
    begin, step = buffers(model), 1
    train(model, optimizer, range(1, 4))
    if resumed:
        saved = copy.deepcopy((model.state_dict(), optimizer.state_dict(), scheduler.state_dict()))
        model = Normed()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        scheduler = glyder.GlyderLR(optimizer, model, total_steps=UPDATES)
        for of, state in zip((model, optimizer, scheduler), saved, strict=True):
            of.load_state_dict(state)
    for step in range(4, UPDATES):
        train(model, optimizer, range(step, step + 1))
        if not math.isnan(scheduler.peak_lr):
            break
        assert not same(buffers(model), begin)
    assert same(buffers(model), begin)


def test_the_model_changes_no_rate() -> None:
    rates = []
    for given in (False, True):
        model = Normed()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        glyder.GlyderLR(optimizer, model if given else None, total_steps=UPDATES)
        record = Recorder(optimizer)
        train(model, optimizer, UPDATES)
        rates.append(record.rates)
        assert not any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in model.modules())
    assert rates[0] == rates[1]


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_gradients_vanish_while_sgd_searches(momentum: float) -> None:
    """Everything is fitted on the way, exactly: the search ends all the same, and what it found is kept."""
    model = mlp()
    begin = weights(model)
    optimizer = torch.optim.SGD(model.parameters(), momentum=momentum)
    scheduler = glyder.GlyderLR(optimizer, total_steps=UPDATES)
    train(model, optimizer, 6)
    rate = optimizer.param_groups[0]["lr"]
    seen = 6
    while math.isnan(scheduler.peak_lr) and seen < UPDATES:
        assert optimizer.param_groups[0]["lr"] <= 1.3 * rate  # it waits; the first may be of gradients seen before
        train(model, optimizer, range(seen, seen + 1), lambda t: [p.grad.zero_() for p in model.parameters()])
        seen += 1
    assert seen <= scheduler.warmup + 3
    assert 0 < scheduler.peak_lr <= rate * 1.3
    assert same(weights(model), begin)
    assert scheduler.reasons["no_edge"] == 1
