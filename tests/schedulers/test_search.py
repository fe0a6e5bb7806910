"""The search by cosines: what GlyderLR hands to the rule `peak`, recomputed from the run as it really happened."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import glyder

from ..rules.twin_peak import Peak
from .problems import Recorder, backward, batch, mlp, train, weights

UPDATES, WARMUP, PHASE = 100, 12, 25
"""Of the run, of the search where it begins near, and of the rise after it: a quarter of the run."""

Factory = Callable[[nn.Module], list[torch.optim.Optimizer]]


def one(make: Any, **options: Any) -> Factory:
    return lambda model: [make(model.parameters(), **options)]


def by_layer(make: Any, **options: Any) -> Factory:
    """The second layer at a quarter of the first one's rate, and with decay of its own."""

    def factory(model: nn.Module) -> list[torch.optim.Optimizer]:
        groups = [
            {"params": model[0].parameters(), "lr": 1e-3},
            {"params": model[2].parameters(), "lr": 1e-3 / 4, "weight_decay": 0.5},
        ]
        return [make(groups, **options)]

    return factory


def muon(model: nn.Module) -> list[torch.optim.Optimizer]:
    matrices = [p for p in model.parameters() if p.ndim == 2]
    others = [p for p in model.parameters() if p.ndim != 2]
    return [torch.optim.Muon(matrices, lr=1e-3, weight_decay=0.1), torch.optim.AdamW(others, lr=1e-3)]


def mixed(model: nn.Module) -> list[torch.optim.Optimizer]:
    """One that follows gradients and one that does not: nothing can be set back."""
    return [torch.optim.SGD(model[0].parameters(), lr=1e-3), torch.optim.AdamW(model[2].parameters(), lr=1e-3 / 4)]


OPTIMIZERS: dict[str, Factory] = {
    "AdamW": one(torch.optim.AdamW, weight_decay=0.1),
    "Adam, decay in the loss": one(torch.optim.Adam, weight_decay=0.1),
    "NAdam": one(torch.optim.NAdam),
    "RMSprop": one(torch.optim.RMSprop, momentum=0.9),
    "Adagrad": one(torch.optim.Adagrad),
    "groups": by_layer(torch.optim.AdamW, weight_decay=0.1),
    "Muon and AdamW": muon,
    "SGD and AdamW": mixed,
}
DECOUPLED = (torch.optim.AdamW, torch.optim.Muon)


class Run:
    """A run in double precision, and the truth about its updates."""

    def __init__(self, make: Factory, updates: int = UPDATES, **options: Any) -> None:
        self.model = mlp(dtype=torch.float64)
        self.optimizers = make(self.model)
        self.params = [p for o in self.optimizers for g in o.param_groups for p in g["params"]]
        self.groups = [g for o in self.optimizers for g in o.param_groups for _ in g["params"]]
        self.decoupled = [
            isinstance(o, DECOUPLED) for o in self.optimizers for g in o.param_groups for _ in g["params"]
        ]
        of = self.optimizers[0] if len(self.optimizers) == 1 else self.optimizers
        self.scheduler = glyder.GlyderLR(of, **{"total_steps": UPDATES, "warmup": WARMUP} | options)
        self.records = [Recorder(o) for o in self.optimizers]
        train(self.model, self.optimizers, updates)

    def before(self, t: int) -> list[Tensor]:
        return [x for record in self.records for x in record.before[t]]

    def after(self, t: int) -> list[Tensor]:
        return [x for record in self.records for x in record.after[t]]

    def rates(self) -> list[float]:
        """Of the first group."""
        return [rates[0] for rates in self.records[0].rates]

    def displacement(self, t: int) -> list[Tensor]:
        """What update t did, but for decoupled weight decay."""
        rates = [lr for o, r in zip(self.optimizers, self.records, strict=True)
                 for g, lr in zip(o.param_groups, r.rates[t], strict=True) for _ in g["params"]]  # fmt: skip
        kept = [
            1 - lr * g["weight_decay"] if decoupled else 1.0
            for lr, g, decoupled in zip(rates, self.groups, self.decoupled, strict=True)
        ]
        return [b * k - a for b, k, a in zip(self.before(t), kept, self.after(t), strict=True)]

    def gradient(self, t: int, at: Sequence[Tensor]) -> list[Tensor]:
        """Of batch t at these parameters."""
        now = weights(self.model)
        with torch.no_grad():
            for p, x in zip(self.params, at, strict=True):
                p.copy_(x)
        x, y = batch(t, torch.float64)
        found = torch.autograd.grad(F.cross_entropy(self.model(x), y), self.params)
        with torch.no_grad():
            for p, w in zip(self.model.parameters(), now, strict=True):
                p.copy_(w)
        return list(found)


def squares_of_linear(updates: int, warmup: int) -> float:
    return math.fsum(
        ((t + 1) / warmup if t < warmup else (updates - t) / (updates - warmup)) ** 2 for t in range(updates)
    )


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_row_is_that_of_the_run(optimizer: str) -> None:
    run = Run(OPTIMIZERS[optimizer])
    history = run.scheduler.history
    assert len(history) >= WARMUP
    assert list(history["update"]) == list(range(history["update"][0], history["update"][0] + len(history)))
    for row in history:
        t = int(row["update"])
        lr = run.rates()[t]
        gradients, displacement = run.gradient(t + 1, run.after(t)), run.displacement(t)
        matrices = [(g, d, x) for g, d, x in zip(gradients, displacement, run.before(0), strict=True) if d.ndim >= 2]
        assert len(matrices) == 2
        cosines = [float((g * d).sum() / (g.norm() * d.norm())) for g, d, _ in matrices]
        ratios = [float(d.norm() / x.norm()) / lr for _, d, x in matrices]
        # Double precision; the first displacements are 1e-5 of the parameters and have lost five digits.
        assert row["lr"] == pytest.approx(lr, rel=1e-15)
        assert row["cosine"] == pytest.approx(math.fsum(cosines) / 2, rel=1e-9, abs=1e-9)
        assert row["relative"] == pytest.approx(math.hypot(*ratios), rel=1e-9)
        lengths = [[float(x.norm()) for x in at if x.ndim >= 2] for at in (run.after(t), run.before(0))]
        assert row["growth"] == pytest.approx(math.hypot(*lengths[0]) / math.hypot(*lengths[1]), rel=1e-12)
        assert row["gradient"] == pytest.approx(math.hypot(*(float(g.norm()) for g in gradients)), rel=1e-12)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_rates_and_peak_are_those_of_the_formula(optimizer: str) -> None:
    """From the rows, which the test above has compared with the run, by the twin of the rule."""
    run = Run(OPTIMIZERS[optimizer])
    rates, history = run.rates(), run.scheduler.history
    twin = Peak(updates=float(WARMUP))
    for row in history:
        t = int(row["update"])
        rate, _, reason = twin.update(
            cosine=row["cosine"],
            relative=row["relative"] ** 2,
            growth=row["growth"] ** 2,
            lr=row["lr"],
            energy=squares_of_linear(UPDATES, WARMUP),
        )
        assert row["reason"] == reason
        if reason == "rising":
            assert rates[t + 1] == pytest.approx(rate, rel=1e-12)
    assert [row["reason"] for row in history] == ["rising"] * (len(history) - 1) + ["found"]
    assert run.scheduler.peak_lr == history["peak"][-1] == pytest.approx(twin.peak, rel=1e-12)
    assert all(math.isnan(peak) for peak in history["peak"][:-1])


def annealed(peak: float, found: int, last: float) -> list[float]:
    """Rates from the update on that the peak was found at: a rise to it, from the search's last, and down to zero."""
    begun = max(found, PHASE)
    rising = [min(max(peak * (t + 1) / begun, last), peak) for t in range(found, begun)]
    return rising + [peak * (UPDATES - t) / (UPDATES - begun) for t in range(begun, UPDATES)]


@pytest.mark.parametrize("warmup", [4, WARMUP, 30])
@pytest.mark.parametrize("optimizer", ["AdamW", "RMSprop", "groups"])
def test_the_peak_is_annealed_from_where_it_was_found(optimizer: str, warmup: int) -> None:
    run = Run(OPTIMIZERS[optimizer], warmup=warmup)
    found = int(run.scheduler.history["update"][-1]) + 1
    wanted = annealed(run.scheduler.peak_lr, found, run.rates()[found - 1])
    for record in run.records:
        for t, rate in enumerate(wanted, start=found):
            # A product and a quotient, rounded in another order; a quarter is exact.
            assert record.rates[t] == pytest.approx([rate, rate / 4][: len(record.rates[t])], rel=1e-14)


def test_without_an_end() -> None:
    """anneal="rsqrt", from update 100 on: the run counts as ten times as long as the search."""
    run = Run(OPTIMIZERS["AdamW"], 110, total_steps=None)
    factors = [(t + 1) / WARMUP if t < WARMUP else math.sqrt(WARMUP / (t + 1)) for t in range(10 * WARMUP)]
    twin = Peak(updates=float(WARMUP))
    for row in run.scheduler.history:
        twin.update(cosine=row["cosine"], relative=row["relative"] ** 2, growth=row["growth"] ** 2, lr=row["lr"],
                    energy=math.fsum(f * f for f in factors))  # fmt: skip
    assert run.scheduler.peak_lr == pytest.approx(twin.peak, rel=1e-9)
    assert run.rates()[-1] == pytest.approx(run.scheduler.peak_lr * math.sqrt(100 / 110), rel=1e-14)


def small(
    make: Any = torch.optim.AdamW, lr: float = 1e-3, change: Any = None, **options: Any
) -> tuple[Any, list[float]]:
    """(scheduler, rates) of a short run; ``change(t, model)`` between backward and step."""
    model = mlp(dtype=torch.float64)
    optimizer = make(model.parameters(), lr=lr)
    scheduler = glyder.GlyderLR(optimizer, **{"total_steps": UPDATES, "warmup": WARMUP} | options)
    record = Recorder(optimizer)
    train(model, optimizer, UPDATES, None if change is None else lambda t: change(t, model))
    return scheduler, [rate for (rate,) in record.rates]


# ---------------------------------------------------------------- options


def test_scale_multiplies_the_peak_and_not_the_search() -> None:
    scheduler, rates = small()
    halved, other = small(scale=0.5)
    found = int(scheduler.history["update"][-1]) + 1
    assert halved.peak_lr == scheduler.peak_lr / 2
    assert other[:found] == rates[:found]
    assert other[max(found, PHASE) :] == [rate / 2 for rate in rates[max(found, PHASE) :]]


def test_bounds_hold_in_the_search_and_at_the_peak() -> None:
    free, rates = small()
    top, low = free.peak_lr / 3, 2 * rates[0]
    bounded, other = small(max_lr=top, min_lr=low)
    found = int(bounded.history["update"][-1]) + 1
    assert low <= min(other[:found])
    assert max(other) == top, "reached, and not passed"
    assert other[0] == low
    assert other[found:] == pytest.approx(annealed(top, found, other[found - 1]), rel=1e-14)
    assert {"at_min", "at_max"} <= set(bounded.reasons)
    fixed, rates = small(min_lr=0.01, max_lr=0.01)
    found = int(fixed.history["update"][-1]) + 1
    assert set(rates[: max(found, PHASE) + 1]) == {0.01}


def test_the_peak_that_is_told_is_the_one_that_is_used() -> None:
    free, _ = small()
    for options in ({"max_lr": free.peak_lr / 3}, {"max_lr": 1e-3, "peak_lr": 1.0}, {"min_lr": 1.0, "peak_lr": 1e-3}):
        scheduler, rates = small(**options)
        begun = WARMUP if "peak_lr" in options else max(int(scheduler.history["update"][-1]) + 1, PHASE)
        assert scheduler.peak_lr == rates[begun]


def test_a_peak_that_is_given_is_not_searched() -> None:
    scheduler, rates = small(peak_lr=3e-3, scale=2.0)
    assert len(scheduler.history) == 0
    assert scheduler.peak_lr == 6e-3
    wanted = [6e-3 * ((t + 1) / WARMUP if t < WARMUP else (UPDATES - t) / (UPDATES - WARMUP)) for t in range(UPDATES)]
    assert rates == pytest.approx(wanted, rel=1e-14)
    assert small(peak_lr=3e-3, max_lr=1e-3)[1] == pytest.approx([w / 6 for w in wanted], rel=1e-14)


@pytest.mark.parametrize(
    ("total", "updates"), [(20, 8), (53, 8), (60, 9), (200, 30), (800, 120), (5000, 120), (None, 120)]
)
def test_default_search(total: int | None, updates: int) -> None:
    assert glyder.GlyderLR(torch.optim.AdamW(mlp().parameters()), total_steps=total).warmup == updates


# ---------------------------------------------------------------- tensors of all kinds


def test_gradients_by_hand() -> None:
    """No module, no autograd, no loss: f(x) = ||x - 1||^2/2 on tensors that need no gradient."""
    x = [torch.full((4, 3), 3.0), torch.full((5,), 2.0)]
    optimizer = torch.optim.AdamW(x, weight_decay=0.0)
    scheduler = glyder.GlyderLR(optimizer, total_steps=200)
    for _ in range(200):
        for p in x:
            p.grad = p - 1
        optimizer.step()
    assert scheduler.updates == 200
    assert all(float((p - 1).abs().max()) < 0.05 for p in x)


def test_vectors_alone_have_votes_of_their_own() -> None:
    """Without a matrix every tensor counts."""
    generator = torch.Generator().manual_seed(0)
    x = [torch.randn(n, dtype=torch.float64, generator=generator).requires_grad_() for n in (5, 7)]
    start = [p.detach().clone() for p in x]
    optimizer = torch.optim.AdamW(x, weight_decay=0.0)
    scheduler = glyder.GlyderLR(optimizer, total_steps=UPDATES, warmup=WARMUP)
    record, gradients = Recorder(optimizer), []
    for t in range(UPDATES):
        optimizer.zero_grad()
        goal = [torch.randn(len(p), dtype=torch.float64, generator=generator.manual_seed(1 + t)) for p in x]
        sum(((p - g) ** 2).sum() for p, g in zip(x, goal, strict=True)).backward()
        gradients.append([p.grad.clone() for p in x])
        optimizer.step()
    for row in scheduler.history:
        t = int(row["update"])
        delta = [b - a for b, a in zip(record.before[t], record.after[t], strict=True)]
        cosines = [float(g @ d / (g.norm() * d.norm())) for g, d in zip(gradients[t + 1], delta, strict=True)]
        ratios = [float(d.norm() / s.norm()) / row["lr"] for d, s in zip(delta, start, strict=True)]
        assert row["cosine"] == pytest.approx(math.fsum(cosines) / 2, rel=1e-9, abs=1e-9)
        assert row["relative"] == pytest.approx(math.hypot(*ratios), rel=1e-9)


def test_tensors_without_a_gradient_have_no_vote() -> None:
    """The second layer gets gradients at every other update: the others are the first one's alone."""
    model = mlp(dtype=torch.float64)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.0)
    scheduler = glyder.GlyderLR(optimizer, total_steps=UPDATES, warmup=WARMUP)
    record, gradients = Recorder(optimizer), []
    for t in range(UPDATES):
        optimizer.zero_grad()
        backward(model, t)
        if t % 2:
            model[2].weight.grad = None
        gradients.append(model[0].weight.grad.clone())
        optimizer.step()
    assert len(scheduler.history) >= WARMUP
    for row in scheduler.history:
        t = int(row["update"])  # of two updates in a row, one has moved the second layer or the other sees it
        d = record.before[t][0] - record.after[t][0]
        assert row["cosine"] == pytest.approx(float((gradients[t + 1] * d).sum() / gradients[t + 1].norm() / d.norm()))
        assert row["relative"] == pytest.approx(float(d.norm() / record.before[0][0].norm()) / row["lr"])


def test_a_tensor_that_waits_behind_a_zero_has_no_vote_at_first() -> None:
    """With the last layer at zero the first one's gradient is exactly zero, and nothing moves it but decay, which is
    taken out up to a rounding that says nothing."""
    model = mlp()
    nn.init.zeros_(model[2].weight)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.1)
    scheduler = glyder.GlyderLR(optimizer, total_steps=UPDATES, warmup=WARMUP)
    record, gradients = Recorder(optimizer), []
    train(model, optimizer, UPDATES, lambda _: gradients.append([p.grad.double() for p in model.parameters()]))
    assert not gradients[0][0].any()
    (lr,) = record.rates[0]
    rest = record.before[0][0].double() * (1 - 0.1 * lr) - record.after[0][0].double()
    assert 0 < rest.abs().max() < 1e-7, "the rounding is there"
    row = scheduler.history[0]
    assert row["update"] == 0
    assert row["relative"] == 0, "that of the last layer, which has no length"
    d, g = -record.after[0][2].double(), gradients[1][2]
    assert row["cosine"] == pytest.approx(float((g * d).sum() / (g.norm() * d.norm())), rel=1e-6)
    assert math.isfinite(scheduler.peak_lr)


def test_all_parameters_at_zero() -> None:
    """No length is known: that of ones stands for it."""
    x = torch.randn(256, 10, generator=torch.Generator().manual_seed(0))
    y = (x @ torch.arange(10.0) > 0).long()
    model = nn.Linear(10, 2)
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    optimizer = torch.optim.AdamW(model.parameters())
    scheduler = glyder.GlyderLR(optimizer, total_steps=UPDATES)
    for _ in range(UPDATES):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
    assert scheduler.history["relative"][0] == pytest.approx(1.0, rel=1e-3)
    assert loss.item() < 0.3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_other_precisions(dtype: torch.dtype) -> None:
    """Displacements are the differences of what is stored, in single precision: their relative error is 2**-24."""
    model = mlp(dtype=dtype)
    # an eps of 1e-8 is none in float16, and 0/0 no step
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.0, eps=1e-4)
    scheduler = glyder.GlyderLR(optimizer, total_steps=UPDATES, warmup=WARMUP)
    record, gradients = Recorder(optimizer), []

    def take(t: int) -> None:
        gradients.append([p.grad.double() for p in model.parameters()])

    train(model, optimizer, UPDATES, take)
    assert len(scheduler.history) >= WARMUP
    for row in scheduler.history:
        t = int(row["update"])
        delta = [b.double() - a.double() for b, a in zip(record.before[t], record.after[t], strict=True)]
        pairs = [(g, d) for g, d in zip(gradients[t + 1], delta, strict=True) if d.ndim == 2]
        cosines = [float((g * d).sum() / (g.norm() * d.norm())) for g, d in pairs]
        assert row["cosine"] == pytest.approx(math.fsum(cosines) / 2, rel=1e-6, abs=1e-6)


# ---------------------------------------------------------------- units


def scaled(make: Any, factor: float, **options: Any) -> tuple[list[float], float]:
    """(rates, peak) where the loss, and so every gradient, is ``factor`` times as large."""

    def change(t: int, model: nn.Module) -> None:
        for p in model.parameters():
            p.grad.mul_(factor)

    scheduler, rates = small(lambda params, lr: make(params, lr=lr, **options), change=change)
    return rates, scheduler.peak_lr


@pytest.mark.parametrize(
    ("make", "options"),
    [(torch.optim.AdamW, {"eps": 1e-30}), (torch.optim.RMSprop, {"eps": 1e-30}), (torch.optim.Adagrad, {"eps": 1e-30})],
)
def test_a_loss_in_other_units_changes_no_rate(make: Any, options: dict[str, Any]) -> None:
    """The lengths of these gradients stay below those of a sign vector, which the first rate is made for."""
    rates, peak = scaled(make, 1.0, **options)
    other, same_peak = scaled(make, 1e-3, **options)
    # A rounding of each gradient, carried on by 60 updates.
    assert other == pytest.approx(rates, rel=1e-9)
    assert same_peak == pytest.approx(peak, rel=1e-9)


def test_a_loss_of_long_gradients_finds_about_the_same_peak() -> None:
    """The first update is then shorter, and what follows meets other batches: a quarter is the noise of a search."""
    peak = scaled(torch.optim.AdamW, 1.0, eps=1e-30)[1]
    assert scaled(torch.optim.AdamW, 1e6, eps=1e-30)[1] == pytest.approx(peak, rel=0.25)


def test_parameters_in_other_units_of_the_same_steps() -> None:
    """Tensors times 4 with gradients by 4 less, for steps that know no length: all rates times 4."""

    def rates_of(unit: float) -> list[float]:
        model = mlp(dtype=torch.float64)
        x = [(unit * p.detach()).requires_grad_() for p in model.parameters()]
        optimizer = torch.optim.AdamW(x, eps=1e-30, weight_decay=0.0)
        glyder.GlyderLR(optimizer, total_steps=UPDATES, warmup=WARMUP)
        record = Recorder(optimizer)
        for t in range(UPDATES):
            optimizer.zero_grad()
            inputs, labels = batch(t, torch.float64)
            named = {n: p / unit for (n, _), p in zip(model.named_parameters(), x, strict=True)}
            F.cross_entropy(torch.func.functional_call(model, named, inputs), labels).backward()
            optimizer.step()
        return [rate for (rate,) in record.rates]

    # Not to the bit: logarithms and powers are on the way.
    assert rates_of(4.0) == pytest.approx([4 * rate for rate in rates_of(1.0)], rel=1e-9)


def test_a_step_behind_which_nothing_is_finite_is_taken_back() -> None:
    """Downhill to a wall, with no gradient behind it: once two are lost, the last step is undone and the rate falls."""
    x = torch.ones(4, 4, dtype=torch.float64)
    optimizer = torch.optim.AdamW([x], weight_decay=0.0)
    scheduler = glyder.GlyderLR(optimizer, total_steps=200)
    record, lost = Recorder(optimizer), []
    with pytest.warns(glyder.GlyderWarning, match="infinite or not a number"):
        while math.isnan(scheduler.peak_lr) and len(lost) < 200:
            lost.append(bool(x.max() > 1.5))
            x.grad = torch.full_like(x, math.nan if lost[-1] else -1.0)
            optimizer.step()
    assert not math.isnan(scheduler.peak_lr)
    met = [t for t in range(1, len(lost) - 1) if lost[t] and lost[t - 1]]
    assert met
    for t in met:
        assert not lost[t + 1], "not a third time"
        # the sum of a difference and what was taken away: a rounding or two
        assert torch.allclose(record.after[t][0], record.before[t - 2][0], rtol=1e-15, atol=0)
        assert record.rates[t + 1][0] == pytest.approx(record.rates[t - 2][0] / 10, rel=1e-14)
