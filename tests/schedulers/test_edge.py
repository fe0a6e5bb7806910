"""The search by the length of gradients: what GlyderLR hands to the rule `edge`, recomputed from the run as it was."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import glyder
from glyder import _core

from ..rules.reference import Spike
from ..rules.twin_edge import Edge
from .problems import Recorder, backward, batch, mlp, same, train, weights

UPDATES, WARMUP, PHASE = 120, 16, 30
"""Of the run, of the search at most, and of the rise after it: a quarter of the run."""

Factory = Callable[[nn.Module], list[torch.optim.Optimizer]]


def one(make: Any = torch.optim.SGD, **options: Any) -> Factory:
    return lambda model: [make(model.parameters(), lr=0.1, **options)]


def by_layer(model: nn.Module) -> list[torch.optim.Optimizer]:
    """The second layer at a quarter of the first one's rate, and with other momentum."""
    groups = [
        {"params": model[0].parameters(), "lr": 0.1},
        {"params": model[2].parameters(), "lr": 0.1 / 4, "momentum": 0.75},
    ]
    return [torch.optim.SGD(groups, momentum=0.5)]


def two(model: nn.Module) -> list[torch.optim.Optimizer]:
    return [
        torch.optim.SGD(model[0].parameters(), lr=0.1, momentum=0.5),
        torch.optim.SGD(model[2].parameters(), lr=0.1 / 4),
    ]


CASES: dict[str, tuple[Factory, list[float]]] = {
    "plain": (one(), [1.0]),
    "momentum": (one(momentum=0.75), [4.0]),
    "dampening": (one(momentum=0.75, dampening=0.5), [2.0]),
    "Nesterov": (one(momentum=0.5, nesterov=True), [2.0]),
    "decay": (one(momentum=0.5, weight_decay=0.005), [2.0]),
    "groups": (by_layer, [2.0, 4.0 / 4]),
    "two optimizers": (two, [2.0, 1.0 / 4]),
}
"""With what all steps of a gradient come to, at a reference rate of 1: ratio/(1 - beta), by layer."""

HOLD = {"plain": 0.0, "momentum": 0.75, "dampening": 0.75, "Nesterov": 0.5, "decay": 0.5, "groups": 0.75,
        "two optimizers": 0.5}  # fmt: skip
"""The share of an update that the next one repeats: the largest beta."""


class Run:
    """A run in double precision. Gradients are kept as they were before each step."""

    def __init__(self, make: Factory, steps: int = UPDATES + 1, **options: Any) -> None:
        self.model = mlp(dtype=torch.float64)
        self.begin = weights(self.model)
        self.optimizers = make(self.model)
        of = self.optimizers[0] if len(self.optimizers) == 1 else self.optimizers
        self.scheduler = glyder.GlyderLR(of, **{"total_steps": UPDATES, "warmup": WARMUP} | options)
        self.records = [Recorder(o) for o in self.optimizers]
        self.gradients: list[list[Tensor]] = []
        self.peaks: list[float] = []  # after each step
        train(self.model, self.optimizers, steps, self.keep)
        self.peaks = [*self.peaks[1:], self.scheduler.peak_lr]

    def keep(self, t: int) -> None:
        self.gradients.append([p.grad.clone() for p in self.model.parameters()])
        self.peaks.append(self.scheduler.peak_lr)

    @property
    def end(self) -> int:
        """The step in which the search ended."""
        return next(t for t, peak in enumerate(self.peaks) if not math.isnan(peak))

    def after(self, t: int) -> list[Tensor]:
        return [x for record in self.records for x in record.after[t]]

    def gradient(self, t: int, at: list[Tensor]) -> list[Tensor]:
        """Of batch t at these parameters."""
        model = mlp(dtype=torch.float64)
        model.load_state_dict(dict(zip(model.state_dict(), at, strict=True)))
        backward(model, t)
        return [p.grad for p in model.parameters()]


def length(tensors: list[Tensor]) -> float:
    return math.sqrt(math.fsum(float(t.square().sum()) for t in tensors))


def squares_of_linear(updates: int, warmup: int) -> float:
    return math.fsum(
        ((t + 1) / warmup if t < warmup else (updates - t) / (updates - warmup)) ** 2 for t in range(updates)
    )


# ---------------------------------------------------------------- the run and the formula


@pytest.mark.parametrize("case", CASES)
def test_every_row_is_that_of_the_run(case: str) -> None:
    make, reach = CASES[case]
    run = Run(make)
    history = run.scheduler.history
    assert list(history["update"]) == list(range(run.end)), "every update but the first is seen by the next gradient"
    for row in history:
        t = int(row["update"])
        gradient = run.gradient(t + 1, run.after(t))
        layers = [gradient] if len(reach) == 1 else [gradient[:2], gradient[2:]]
        steps = math.hypot(*(r * length(g) for r, g in zip(reach, layers, strict=True)))
        # Sums of a few dozen numbers in double precision.
        assert row["lr"] == pytest.approx(run.records[0].rates[t][0], rel=1e-15)
        assert row["gradient"] == pytest.approx(length(gradient), rel=1e-12)
        assert row["relative"] == pytest.approx(steps / length(run.begin), rel=1e-12)
        assert math.isnan(row["cosine"])


@pytest.mark.parametrize("case", CASES)
def test_rates_and_peak_are_those_of_the_formula(case: str) -> None:
    """From the rows, which the test above has compared with the run, by the twin of the rule."""
    run = Run(CASES[case][0])
    history, twin = run.scheduler.history, Edge(longest=float(WARMUP))
    for row in history:
        t = int(row["update"])
        rate, _, reason = twin.update(
            gg=row["gradient"] ** 2,
            relative=row["relative"] ** 2,
            lr=row["lr"],
            energy=squares_of_linear(UPDATES, WARMUP),
        )
        assert row["reason"] == reason
        if reason == "rising":
            assert run.records[0].rates[t + 1][0] == pytest.approx(rate, rel=1e-12)
    assert [row["reason"] for row in history][:-1] == ["rising"] * (run.end - 1)
    assert history["reason"][-1] in ("found", "no_edge")
    assert run.scheduler.peak_lr == history["peak"][-1] == pytest.approx(twin.peak, rel=1e-12)


def test_momentum_makes_steps_longer() -> None:
    """At the same gradient the rate after the first is that without momentum times 1 - beta."""
    rates = {beta: Run(one(momentum=beta), 2).records[0].rates for beta in (0.0, 0.5, 0.9)}
    assert rates[0.5][0] == rates[0.9][0] == rates[0.0][0]
    # 1/(1 - 0.9) is rounded, and so is a power of ten.
    assert rates[0.5][1][0] == pytest.approx(0.5 * rates[0.0][1][0], rel=1e-14)
    assert rates[0.9][1][0] == pytest.approx(0.1 * rates[0.0][1][0], rel=1e-14)


@pytest.mark.parametrize("momentum", [0.0, 0.5])
@pytest.mark.parametrize("steep", [0.1, 1.0, 300.0])
def test_the_edge_of_a_quadratic(steep: float, momentum: float) -> None:
    """Gradient descent is stable up to 2(1 + beta)/L. There the search must be, and not much beyond: at four times the
    edge a step makes the steepest part of the gradient seven times as long, which no mean of a few updates hides."""
    generator = torch.Generator().manual_seed(0)
    x = torch.ones(20, dtype=torch.float64, requires_grad=True)
    h = torch.linspace(0.01, 1, 20, dtype=torch.float64) * steep
    optimizer = torch.optim.SGD([x], momentum=momentum)
    scheduler = glyder.GlyderLR(optimizer, total_steps=400, warmup=80)
    while math.isnan(scheduler.peak_lr):
        optimizer.zero_grad()
        (h @ (x + torch.randn(20, dtype=torch.float64, generator=generator)).square() / 2).backward()
        optimizer.step()
    assert scheduler.history["reason"][-1] == "found"
    edge = 2 * (1 + momentum) / steep
    assert edge < scheduler.history["lr"][-1] < 4 * edge


def test_gradients_that_never_grow() -> None:
    """A plane: the search ends two decades above the length of the run, and says so."""
    x = torch.ones(20, requires_grad=True)
    optimizer = torch.optim.SGD([x])
    scheduler = glyder.GlyderLR(optimizer, total_steps=UPDATES, warmup=WARMUP)
    steps = 0
    while math.isnan(scheduler.peak_lr):
        optimizer.zero_grad()
        x.sum().backward()
        optimizer.step()
        steps += 1
    assert scheduler.history["reason"][-1] == "no_edge"
    assert scheduler.reasons["no_edge"] == 1
    rule = _core.Rule("edge").config
    pace = rule["pace_total"] / WARMUP
    rising = math.ceil((rule["below"] + rule["above"]) / pace)
    assert steps == rising + 3, "one to begin with, one that sets the rate, and one to go back"
    assert rising + 3 < WARMUP + 2, "before its time is over"
    assert torch.equal(x.detach(), torch.ones(20))


# ---------------------------------------------------------------- the way back


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("options", [{}, {"momentum": 0.9, "weight_decay": 0.1}], ids=["plain", "momentum"])
def test_the_search_ends_where_it_began(options: dict[str, Any], dtype: torch.dtype) -> None:
    """Bit for bit. That step is no update, and the gradients are still there after it."""
    model = mlp(dtype=dtype)
    begin = weights(model)
    optimizer = torch.optim.SGD(model.parameters(), **options)
    scheduler = glyder.GlyderLR(optimizer, total_steps=UPDATES, warmup=WARMUP)
    seen: list[list[Tensor]] = []

    def take(_: int) -> None:
        seen.append([p.grad.clone() for p in model.parameters()])

    step, moved = 0, 0
    while math.isnan(scheduler.peak_lr):
        train(model, optimizer, range(step, step + 1), take)
        moved += not same(weights(model), begin)
        step += 1
    assert moved == step - 1 >= WARMUP // 2
    assert same(weights(model), begin)
    assert scheduler.updates == step - 1, "no update"
    assert same([p.grad for p in model.parameters()], seen[-1])
    train(model, optimizer, range(step, UPDATES + 1))
    assert scheduler.updates == UPDATES
    assert scheduler.skipped == 0
    assert not same(weights(model), begin)


@pytest.mark.parametrize("options", [{"momentum": 0.9}, {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1}])
def test_momentum_forgets_the_search(options: dict[str, Any]) -> None:
    """The first update behind it is the first of a run: its gradient alone, none of those that had grown."""
    run = Run(one(**options))
    t = run.end + 1
    (lr,), decay = run.records[0].rates[t], options.get("weight_decay", 0.0)
    weight = 1 + 0.9 * bool(options.get("nesterov"))  # the buffer is the gradient, and Nesterov adds beta times it
    for x, g, after in zip(run.begin, run.gradients[t], run.after(t), strict=True):
        assert torch.allclose(x - after, lr * weight * (g + decay * x), rtol=1e-10, atol=1e-16)


@pytest.mark.parametrize("case", CASES)
def test_training_goes_on_from_there(case: str) -> None:
    """After the way back the rate rises until a quarter of the run is over, and falls to zero; the loss is lower.

    Gradients that are longer than usual make shorter steps; what is usual was learned in the search, too.
    """
    run = Run(CASES[case][0])
    losses = []
    for at in (run.begin, weights(run.model)):
        run.model.load_state_dict(dict(zip(run.model.state_dict(), at, strict=True)))
        x, y = batch(10_000, torch.float64)
        losses.append(F.cross_entropy(run.model(x), y).item())
    assert losses[1] < 0.7 * losses[0]
    assert same(run.after(run.end), run.begin)
    peak, spike, updates = run.scheduler.peak_lr, Spike(), 0
    assert "backed_off" not in run.scheduler.reasons
    for t, gradient in enumerate(run.gradients):
        if t == run.end:
            continue  # it was no update
        gg = length(gradient) ** 2
        held = spike.update(rate=1.0, gg=gg, hold=HOLD[case])[0]
        factor = (updates + 1) / PHASE if updates < PHASE else (UPDATES - updates) / (UPDATES - PHASE)
        if t > run.end:
            assert run.records[0].rates[t][0] == pytest.approx(peak * factor * held, rel=1e-9)
        updates += 1
    assert run.scheduler.updates == updates == UPDATES


def test_the_spike_stage_knows_what_is_usual_when_the_search_ends() -> None:
    """A gradient a hundred times as long makes a step of a usual length right after it."""
    model = mlp(dtype=torch.float64)
    optimizer = torch.optim.SGD(model.parameters())
    scheduler = glyder.GlyderLR(optimizer, total_steps=UPDATES, warmup=WARMUP)
    record, step = Recorder(optimizer), 0
    while math.isnan(scheduler.peak_lr):
        train(model, optimizer, range(step, step + 1))
        step += 1
    train(model, optimizer, range(step, step + 1))
    plain = record.rates[-1][0]

    def lengthen(_: int) -> None:
        for p in model.parameters():
            p.grad.mul_(100)

    train(model, optimizer, range(step + 1, step + 2), lengthen)
    assert record.rates[-1][0] < plain / 10
    assert scheduler.reasons["spike"] == 1


# ---------------------------------------------------------------- options


def small(lr: float = 0.1, factor: float = 1.0, steps: int = UPDATES + 1, **options: Any) -> tuple[Any, list[float]]:
    """(scheduler, rates) of a run of plain SGD in double precision, its loss times ``factor``."""
    model = mlp(dtype=torch.float64)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    scheduler = glyder.GlyderLR(optimizer, **{"total_steps": UPDATES, "warmup": WARMUP} | options)
    record = Recorder(optimizer)

    def scale(_: int) -> None:
        for p in model.parameters():
            p.grad.mul_(factor)

    train(model, optimizer, steps, scale if factor != 1 else None)
    return scheduler, [rate for (rate,) in record.rates]


def test_scale_multiplies_the_peak_and_not_the_search() -> None:
    scheduler, rates = small()
    halved, other = small(scale=0.5)
    end = len(scheduler.history)
    assert halved.peak_lr == scheduler.peak_lr / 2
    assert other[:end] == rates[:end]
    assert other[end + 1] == rates[end + 1] / 2


def test_bounds_hold_in_the_search_and_at_the_peak() -> None:
    free, rates = small()
    top, low = free.peak_lr / 2, 2 * rates[0]
    bounded, other = small(max_lr=top, min_lr=low)
    end = len(bounded.history)
    assert other[0] == low <= min(other[:end])
    assert max(other) == top, "reached, and not passed"
    assert {"at_min", "at_max"} <= set(bounded.reasons)
    assert other[-1] < top / 10, "annealing goes below"


def test_a_peak_that_is_given_is_not_searched() -> None:
    scheduler, rates = small(peak_lr=0.01, scale=2.0, steps=UPDATES)
    assert len(scheduler.history) == 0
    assert scheduler.updates == UPDATES, "nothing is gone back from"
    wanted = [0.02 * ((t + 1) / WARMUP if t < WARMUP else (UPDATES - t) / (UPDATES - WARMUP)) for t in range(UPDATES)]
    assert rates == pytest.approx(wanted, rel=1e-14)


# ---------------------------------------------------------------- units


def test_a_loss_in_other_units() -> None:
    """A thousandth of the rates, where both gradients are longer than a sign vector, as the first rate knows them."""
    scheduler, rates = small(factor=1e3)
    other, scaled = small(factor=1e6)
    # A rounding of each gradient, carried on by 120 updates.
    assert scaled == pytest.approx([rate / 1e3 for rate in rates], rel=1e-9)
    assert other.peak_lr == pytest.approx(scheduler.peak_lr / 1e3, rel=1e-9)


@pytest.mark.parametrize("groups", [1, 2])
def test_a_scale_that_the_optimizer_takes_out_itself(groups: int) -> None:
    """What a GradScaler leaves to a fused optimizer, here by hand: scaled gradients, the rates of those without."""

    def rates_of(scale: float) -> list[float]:
        model = mlp()
        layers = [{"params": layer.parameters()} for layer in (model[0], model[2])]
        optimizer = torch.optim.SGD(layers if groups == 2 else model.parameters(), fused=True)
        glyder.GlyderLR(optimizer, total_steps=UPDATES, warmup=WARMUP)
        if scale != 1:
            optimizer.grad_scale, optimizer.found_inf = torch.tensor(scale), torch.tensor(0.0)
        record = Recorder(optimizer)

        def multiply(_: int) -> None:
            for p in model.parameters():
                p.grad.mul_(scale)

        train(model, optimizer, UPDATES, multiply)
        return [rates[0] for rates in record.rates]

    # A power of two: nothing is rounded.
    assert rates_of(1024.0) == rates_of(1.0)


def test_a_loss_of_short_gradients() -> None:
    """The first update is shorter than it might be, and the search goes back to where it began: a hundredth."""
    scheduler, _ = small()
    other, _ = small(factor=1e3)
    assert other.peak_lr == pytest.approx(scheduler.peak_lr / 1e3, rel=1e-2)


def test_parameters_in_other_units() -> None:
    """Tensors times 4, and so gradients by 4 less: all rates times 16."""

    def rates_of(unit: float) -> list[float]:
        model = mlp(dtype=torch.float64)
        x = [(unit * p.detach()).requires_grad_() for p in model.parameters()]
        optimizer = torch.optim.SGD(x, momentum=0.5)
        glyder.GlyderLR(optimizer, total_steps=UPDATES, warmup=WARMUP)
        record = Recorder(optimizer)
        for t in range(UPDATES):
            optimizer.zero_grad()
            inputs, labels = batch(t, torch.float64)
            named = {n: p / unit for (n, _), p in zip(model.named_parameters(), x, strict=True)}
            # long gradients, whose length the first rate knows
            (1e4 * F.cross_entropy(torch.func.functional_call(model, named, inputs), labels)).backward()
            optimizer.step()
        return [rate for (rate,) in record.rates]

    # Not to the bit: logarithms and powers are on the way.
    assert rates_of(4.0) == pytest.approx([16 * rate for rate in rates_of(1.0)], rel=1e-9)


def test_all_parameters_at_zero() -> None:
    """They count as though each were of size 1."""
    x = torch.randn(256, 10, generator=torch.Generator().manual_seed(0))
    y = (x @ torch.arange(10.0) > 0).long()
    model = nn.Linear(10, 2)
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    optimizer = torch.optim.SGD(model.parameters())
    scheduler = glyder.GlyderLR(optimizer, total_steps=UPDATES)
    for _ in range(UPDATES + 1):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
    row = scheduler.history[0]
    assert row["relative"] == pytest.approx(row["gradient"] / math.sqrt(22), rel=1e-6)
    assert loss.item() < 0.3


# ---------------------------------------------------------------- trouble


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_one_gradient_that_is_not_finite_is_left_out(bad: float) -> None:
    """In the middle of the search: that step is no update, and the rest finds a peak and goes back all the same."""
    run_begin, free = mlp(dtype=torch.float64), small()[0]
    optimizer = torch.optim.SGD(run_begin.parameters())
    begin = weights(run_begin)
    scheduler = glyder.GlyderLR(optimizer, total_steps=UPDATES, warmup=WARMUP)

    def spoil(t: int) -> None:
        if t == 5:
            next(run_begin.parameters()).grad[0, 0] = bad

    step = 0
    with pytest.warns(glyder.GlyderWarning, match="infinite or not a number"):
        while math.isnan(scheduler.peak_lr):
            train(run_begin, optimizer, range(step, step + 1), spoil)
            step += 1
    assert scheduler.skipped == 1
    assert same(weights(run_begin), begin)
    # Another batch more or less: the search is the same but for its noise.
    assert scheduler.peak_lr == pytest.approx(free.peak_lr, rel=0.5)


def test_a_loss_that_overflows_has_met_the_edge() -> None:
    """Too long a step may end where no gradient is finite any more, and then all later ones are as bad: the search goes
    back. Here log(1 + exp(z)) is written so that it is infinite from z = 89 on, and its slope not a number."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(50, generator=generator, requires_grad=True)
    begin = x.detach().clone()
    optimizer = torch.optim.SGD([x], momentum=0.9)
    scheduler = glyder.GlyderLR(optimizer, total_steps=UPDATES)
    with pytest.warns(glyder.GlyderWarning, match="infinite or not a number"):
        for _ in range(UPDATES):
            optimizer.zero_grad()
            near = x + 0.1 * torch.randn(50, generator=generator)
            ((4 * near.sum()).exp().log1p() + (-3 * near).exp().sum()).backward()
            optimizer.step()
            if not math.isnan(scheduler.peak_lr):
                break
    assert 0 < scheduler.peak_lr < scheduler.history["lr"][-1]
    assert 1 <= scheduler.skipped <= 20, "two where the rate is near the length of the run, and here it is not"
    assert same(x.detach(), begin)
